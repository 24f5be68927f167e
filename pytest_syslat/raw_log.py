"""What a trial recorded, read again from the log that bpftrace printed in it.

A log holds bpftrace's maps as they stood at each mark: when it had attached (once or more, with
nothing counted yet), when recording began (after one run of the workload that does not count),
after the planned runs and after each lot that was added to them, and at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_syslat.syscalls import Syscall
from pytest_syslat.tracer import (
    MAP_KEYS,
    MAP_KEYS_FACT,
    EventLog,
    MapLog,
    Trace,
    failures_between,
)

DUMP_ENDS = {
    "distribution": re.compile(rb'"@total": ([0-9]+)\}\}'),
    "events": re.compile(rb"^@total: ([0-9]+)\n", re.MULTILINE),
}
MAP_LINE = b'{"type": "map"'
FEWEST_DUMPS = 4
AFTER_BEGIN = 2
"""Dumps that follow the one with which recording begins, at least."""


class RawLogProblem(Exception):
    """A log is not that of a whole trial; the text is one line, without the file's name."""


def stored_map_keys(system: Mapping[str, object]) -> int:
    """How many keys a map of bpftrace could hold in a run: its facts tell it, or it was ours.

    Raises:
        ValueError: What they tell is no number.
    """
    return int(str(system.get(MAP_KEYS_FACT, MAP_KEYS)))


def read_log(text: bytes, mode: str, syscall: Syscall, map_keys: int = MAP_KEYS) -> Trace:
    """Read what was recorded in a trial.

    Args:
        text: The whole log.
        mode: `distribution` or `events`.
        syscall: As it was defined in that run: an event is a success by its definition.
        map_keys: How many keys a map could hold.

    Returns:
        As the tracer returned it when it had ended; `problem` tells only what is in the log.

    Raises:
        RawLogProblem: It is cut off, or no log of such a tracer.
    """
    reader = EventLog(syscall) if mode == "events" else MapLog()
    ends = list(DUMP_ENDS[mode].finditer(text))
    if not ends:
        raise RawLogProblem(f"it holds no figures of the tracer {mode}")
    if len(ends) < FEWEST_DUMPS or not text.endswith(b"\n"):
        raise RawLogProblem("it is cut off: its last figures are missing")
    totals = [int(each[1]) for each in ends]
    begin = _begin(totals)
    try:
        base, final = (
            reader.last_dump(text[_dump_start(ends, number, mode) : ends[number].end() + 1])
            for number in (begin, len(ends) - 1)
        )
        told = text
        if mode == "distribution":
            # A log of events has millions of lines and no maps: none of them is looked at alone.
            told = b"\n".join(line for line in text.splitlines() if not line.startswith(MAP_LINE))
        return Trace(
            succeeded=final.succeeded.without(base.succeeded),
            failures=failures_between(base.failures, final.failures),
            other=final.other - base.other,
            total=final.total - base.total,
            lost=reader.lost(told),
            after_last_run=totals[-1] - totals[-2],
            problem=reader.error(told),
            stamps_full=final.stamps >= map_keys,
            closes=final.closes - base.closes,
            close_ns=final.close_ns - base.close_ns,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RawLogProblem(f"it cannot be read ({error})") from None


def _begin(totals: list[int]) -> int:
    """Which dump is the one with which recording began.

    It is the first that has counted anything: what it counted is the run before recording. Where
    that run counted nothing, it is the last of those with nothing.
    """
    latest = len(totals) - 1 - AFTER_BEGIN
    counted = next((number for number, total in enumerate(totals) if total), latest)
    return counted if counted <= latest else max(1, min(counted - 1, latest))


def _dump_start(ends: Sequence[re.Match[bytes]], number: int, mode: str) -> int:
    """Where the lines of a dump begin: lines of events add up from the start of the log."""
    return ends[number - 1].end() if number and mode == "distribution" else 0
