"""The table of where each agent spends its time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from pytest_syslat.split import Estimate, Split

COLUMNS = ("syscall", "arm", "of", "user", "last", "first", "entry", "inside", "exit")
LONGEST_ARM = 14
WORDS = 3
"""So many of the columns are words, flush left."""


def write_splits(reporter: pytest.TerminalReporter, splits: Sequence[Split]) -> None:
    """Write the table, and the intervals of the parts below it; nothing where there are none."""
    if not splits:
        return
    rows = [_row(each) for each in splits]
    widths = [max(len(row[index]) for row in (COLUMNS, *rows)) for index in range(len(COLUMNS))]
    reporter.write_line("")
    reporter.write_line(
        "overhead of means, µs: untraced, tracer after the agent, tracer before it; and where"
    )
    for row in (COLUMNS, *rows):
        cells = (
            cell.ljust(width) if index < WORDS else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        reporter.write_line("  ".join(cells).rstrip(), bold=row is COLUMNS)
    for each in splits:
        if each.entry and each.inside and each.exit and each.blocks > 1:
            reporter.write_line(
                f"{each.syscall} {each.agent}, 95 % intervals of {each.blocks} blocks: "
                f"entry {_interval(each.entry)}, inside {_interval(each.inside)}, "
                f"exit {_interval(each.exit)} µs"
            )


def _row(each: Split) -> tuple[str, ...]:
    arm = each.agent
    return (
        each.syscall,
        arm if len(arm) <= LONGEST_ARM else f"{arm[: LONGEST_ARM - 1]}…",
        "operation" if each.whole_operation else "call",
        *(_mean(part) for part in (each.user, each.last, each.first)),
        *(_mean(part) for part in (each.entry, each.inside, each.exit)),
    )


def _mean(part: Estimate | None) -> str:
    return "-" if part is None else f"{part.mean_us:+.3f}"


def _interval(part: Estimate) -> str:
    if math.isnan(part.low_us):
        return "-"
    return f"{part.low_us:+.3f} … {part.high_us:+.3f}"
