"""Where each agent spends its time, and who: tables below that of the latencies."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_syslat.attribution import REMAINDER, Attribution, ProgramShare
from pytest_syslat.confirmation import Confirmation
from pytest_syslat.report.screen import Screen
from pytest_syslat.report.table import NAME_ENOUGH, PROSE_ENOUGH, Amount, Column, Row, write_table
from pytest_syslat.split import Split

COLUMNS = (
    Column("syscall", words=True),
    Column("arm", words=True, enough=NAME_ENOUGH),
    Column("of", words=True),
    *map(Column, ("user", "last", "first", "entry", "inside", "exit")),
)
LIMIT_COLUMNS = (
    *COLUMNS[:2],
    Column("blocks"),
    *(Column(f"{part} {end}") for part in ("entry", "inside", "exit") for end in ("from", "to")),
)
PROGRAM_COLUMNS = (
    *COLUMNS[:2],
    Column("owner", words=True, enough=NAME_ENOUGH),
    *map(Column, ("runs", "ns")),
    Column("attached to", words=True, enough=PROSE_ENOUGH),
)
MOST_PROGRAMS = 5
MOST_PLACES = 2


def write_splits(screen: Screen, splits: Sequence[Split]) -> None:
    """Write the table, and the intervals of the parts below it; nothing where there are none."""
    if not splits:
        return
    screen.line()
    screen.line(
        "overhead of means, µs: untraced, tracer after the agent, tracer before it; and where"
    )
    write_table(screen, COLUMNS, [_row(each) for each in splits])
    limits = [
        Row((each.syscall, each.agent, str(each.blocks), *_limits(each)))
        for each in splits
        if each.entry and each.inside and each.exit and each.blocks > 1
    ]
    if limits:
        screen.line("95 % intervals of these parts, µs")
        write_table(screen, LIMIT_COLUMNS, limits)
    for each in splits:
        if each.impossible:
            screen.line(
                f"warning: {each.syscall} {each.agent}: {' and '.join(each.impossible)} below 0 by "
                "more than the interval: these parts cannot be trusted, user and the traced calls "
                "met different loads: use a quiet machine",
                "yellow",
            )


def write_confirmation(screen: Screen, found: Confirmation | None) -> None:
    """Write what loads of known place have shown, and the tracer's own floor."""
    if found is None:
        return
    if found.loads and all(each.is_as_expected for each in found.loads):
        screen.line(
            "placement confirmed: "
            + "; ".join(
                f"{each.placement} sees {each.seen_ns / 1000:.1f} of {each.load_ns / 1000:.1f} µs "
                f"at {each.place}"
                for each in found.loads
            )
        )
    floor = found.floor
    if floor is not None:
        screen.line(
            f"tracer's floor: of a syscall that does nothing it sees {floor.p50_us:.3f} µs (p50); "
            f"lmbench: {floor.untraced_us:.3f} µs untraced, {floor.traced_us:.3f} traced"
        )


def write_attributions(
    screen: Screen, attributions: Sequence[Attribution], *, every_program: bool
) -> None:
    """Write for each agent and syscall the programs that take most, or all, and what remains."""
    if not attributions:
        return
    screen.line()
    screen.line("who spends it, per call (all programs: attribution.csv)")
    write_table(
        screen,
        PROGRAM_COLUMNS,
        [
            Row(
                (
                    found.syscall,
                    found.agent,
                    each.owner,
                    Amount(each.runs_per_call, 2),
                    Amount(each.ns_per_call, 0),
                    ", ".join(each.attached_to[:MOST_PLACES]) or each.program,
                )
            )
            for found in attributions
            for each in _top(found, every_program=every_program)
        ],
    )


def _top(found: Attribution, *, every_program: bool) -> list[ProgramShare]:
    """The largest, or all, and the remainder in any case."""
    programs = [each for each in found.shares if each.owner != REMAINDER]
    shown = programs if every_program else programs[:MOST_PROGRAMS]
    return shown + [each for each in found.shares if each.owner == REMAINDER]


def _row(each: Split) -> Row:
    parts = (each.user, each.last, each.first, each.entry, each.inside, each.exit)
    return Row(
        (
            each.syscall,
            each.agent,
            "operation" if each.whole_operation else "call",
            *(Amount(part.mean_us if part else None, 3, signed=True) for part in parts),
        )
    )


def _limits(each: Split) -> list[Amount]:
    return [
        Amount(limit_us, 3, signed=True)
        for part in (each.entry, each.inside, each.exit)
        if part is not None
        for limit_us in (part.low_us, part.high_us)
    ]
