"""Overheads and growth in the tables of `analyze` and `compare`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_syslat.cli.answer import ExitCode, Line, Style, table
from pytest_syslat.gate import CellResult, Verdict, fails
from pytest_syslat.plain import without_nan

if TYPE_CHECKING:
    from pytest_syslat.unpaired import GrowthResult

ABSENT = "-"
STYLES = {
    Verdict.PASSED: Style.GOOD,
    Verdict.REGRESSED: Style.BAD,
    Verdict.INVALID: Style.BAD,
    Verdict.INCONCLUSIVE: Style.WARNING,
    None: Style.PLAIN,
}
LARGEST_PCT = 1_000_000
"""A limit above it says only that the blocks are too few, in more digits than fit a table."""
OVERHEAD_HEAD = ("cell", "verdict", "vanilla µs", "Δ µs", "Δ %", "interval, %")


def overhead_lines(results: Sequence[CellResult]) -> list[Line]:
    """A line a cell: overhead, interval, verdict."""
    rows = [
        (
            each.cell.id,
            str(each.verdict or ABSENT),
            number(each.vanilla_us, 3),
            number(each.delta_us, 3, sign=True),
            number(each.delta_pct, 1, sign=True),
            interval_pct(each),
        )
        for each in results
    ]
    head, *lines = table(OVERHEAD_HEAD, rows)
    return [
        Line(head, Style.BOLD),
        *(Line(line, STYLES[each.verdict]) for line, each in zip(lines, results, strict=True)),
    ]


def interval_pct(result: CellResult) -> str:
    """The interval in per cent of vanilla, as `-1.2 … +3.4`."""
    if math.isnan(result.ci_low_pct) or math.isnan(result.ci_high_pct):
        return ABSENT
    low = number(result.ci_low_pct, 1, sign=True)
    if result.ci_high_pct > LARGEST_PCT:
        return f"{low} … > {LARGEST_PCT:+,.0f}"
    return f"{low} … {number(result.ci_high_pct, 1, sign=True)}"


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """A figure; `-` where there is none."""
    if math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return f"{value:+}" if sign else f"{value}"
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def gate_code(results: Iterable[CellResult], *, strict: bool) -> ExitCode:
    """1 if a verdict fails as it does in a run: regressed, invalid, under `strict` open, too."""
    failed = any(fails(each.verdict, strict=strict) for each in results)
    return ExitCode.PROBLEMS if failed else ExitCode.OK


def cell_dict(result: CellResult) -> dict[str, Any]:
    """Plain values of a cell."""
    plain = asdict(result)
    plain["budget"] = str(result.budget) if result.budget else None
    plain["verdict"] = str(result.verdict) if result.verdict else None
    return dict(without_nan(plain))


def growth_dict(result: GrowthResult) -> dict[str, Any]:
    """Plain values of a cell's growth."""
    plain = {name: value for name, value in asdict(result).items() if name != "tested"}
    return dict(without_nan({**plain, **cell_dict(result.tested)}))
