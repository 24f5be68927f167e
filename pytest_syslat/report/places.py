"""Where each agent spends its time, and who: tables below that of the latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from pytest_syslat.attribution import REMAINDER, Attribution, ProgramShare
from pytest_syslat.confirmation import Confirmation
from pytest_syslat.split import Estimate, Split

COLUMNS = ("syscall", "arm", "of", "user", "last", "first", "entry", "inside", "exit")
PROGRAM_COLUMNS = ("syscall", "arm", "owner", "runs", "ns", "attached to")
MOST_PROGRAMS = 5
MOST_PLACES = 2
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
        if each.impossible:
            reporter.write_line(
                f"warning: {each.syscall} {each.agent}: {' and '.join(each.impossible)} below 0 by "
                "more than the interval: these parts cannot be trusted, user and the traced calls "
                "met different loads: use a quiet machine",
                yellow=True,
            )


def write_confirmation(reporter: pytest.TerminalReporter, found: Confirmation | None) -> None:
    """Write what loads of known place have shown, and the tracer's own floor."""
    if found is None:
        return
    if found.loads and all(each.is_as_expected for each in found.loads):
        reporter.write_line(
            "placement confirmed: "
            + "; ".join(
                f"{each.placement} sees {each.seen_ns / 1000:.1f} of {each.load_ns / 1000:.1f} µs "
                f"at {each.place}"
                for each in found.loads
            )
        )
    floor = found.floor
    if floor is not None:
        reporter.write_line(
            f"tracer's floor: of a syscall that does nothing it sees {floor.p50_us:.3f} µs (p50); "
            f"lmbench: {floor.untraced_us:.3f} µs untraced, {floor.traced_us:.3f} traced"
        )


def write_attributions(
    reporter: pytest.TerminalReporter, attributions: Sequence[Attribution]
) -> None:
    """Write for each agent and syscall the programs that take most, and what remains."""
    if not attributions:
        return
    rows = [
        (
            found.syscall,
            found.agent if len(found.agent) <= LONGEST_ARM else f"{found.agent[:LONGEST_ARM]}…",
            each.owner,
            "-" if each.runs_per_call is None else f"{each.runs_per_call:.2f}",
            f"{each.ns_per_call:.0f}",
            ", ".join(each.attached_to[:MOST_PLACES]) or each.program,
        )
        for found in attributions
        for each in _top(found)
    ]
    widths = [
        max(len(row[index]) for row in (PROGRAM_COLUMNS, *rows))
        for index in range(len(PROGRAM_COLUMNS) - 1)
    ]
    reporter.write_line("")
    reporter.write_line("who spends it, per call (all programs: attribution.csv)")
    for row in (PROGRAM_COLUMNS, *rows):
        cells = (
            cell.ljust(width) if index < WORDS else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        reporter.write_line("  ".join((*cells, row[-1])), bold=row is PROGRAM_COLUMNS)


def _top(found: Attribution) -> list[ProgramShare]:
    """The largest, and the remainder in any case."""
    programs = [each for each in found.shares if each.owner != REMAINDER]
    return programs[:MOST_PROGRAMS] + [each for each in found.shares if each.owner == REMAINDER]


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
