"""The raw log of a trial, read back: what the trial recorded, without what came before it."""

from __future__ import annotations

import re

from pytest_syslat.distribution import Distribution
from pytest_syslat.tracer import EventLog, MapLog

# The first counter above 0 is the state before recording began: see docs/files.md.
_STATE_BEFORE = {
    "distribution": re.compile(rb'"@total": [1-9][0-9]*\}\}'),
    "events": re.compile(rb"^@total: [1-9][0-9]*\n", re.MULTILINE),
}


class RawLogProblem(Exception):
    """A log does not hold a trial; the message is a part of a sentence."""


def recorded(text: bytes, tracer: str) -> Distribution:
    """Give the latencies of the calls of a trial that succeeded, in ns.

    Args:
        text: The log, as bpftrace printed it.
        tracer: In which mode: `distribution` or `events`.

    Raises:
        RawLogProblem: It is not the log of a whole trial.
    """
    reader = EventLog() if tracer == "events" else MapLog()
    before = _STATE_BEFORE["events" if tracer == "events" else "distribution"].search(text)
    if before is None:
        raise RawLogProblem("it holds no counted call")
    try:
        base = reader.last_dump(text[: before.end()])
        return reader.last_dump(text).succeeded.without(base.succeeded)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RawLogProblem(f"it is damaged ({error})") from None
