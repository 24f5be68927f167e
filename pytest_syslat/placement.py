"""Where the tracer's programs run among those of other tracers: proven, or `unknown`.

Within one tracepoint event, BPF programs run in the order in which they were attached. All
`syscalls:*` events share one handler, registered when the first of them is enabled by anybody;
programs on the raw tracepoints `sys_enter` and `sys_exit` are handlers of their own. So a tracer
that attaches now runs last, unless a stranger holds a `syscalls:*` event already (which fixes the
place of the shared handler) while somebody else holds a raw tracepoint.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

LIST_LIMIT_S = 30.0
EVENT_PREFIXES = ("sys_enter_", "sys_exit_")
RAW_TRACEPOINTS = ("sys_enter", "sys_exit")


class Placement(enum.StrEnum):
    """Where the tracer's programs run."""

    LAST = "last"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a BPF program on a syscall tracepoint."""

    pid: int
    comm: str
    tracepoint: str
    raw: bool

    def __str__(self) -> str:
        return f"{self.comm} (pid {self.pid}) on {self.tracepoint}"


def list_holders(testbed: Testbed) -> list[Holder] | None:
    """All holders on the node; None where bpftool isn't there to tell."""
    try:
        listed = testbed.run(
            ["bpftool", "-j", "perf", "show"], role=Role.NODE, timeout_s=LIST_LIMIT_S
        )
        if not listed.ok:
            return None
        entries = json.loads(listed.stdout or "[]")
    except (TestbedError, ValueError):
        return None
    holders = []
    for entry in entries:
        tracepoint = str(entry.get("tracepoint", ""))
        raw = entry.get("fd_type") == "raw_tracepoint"
        if (raw and tracepoint in RAW_TRACEPOINTS) or tracepoint.startswith(EVENT_PREFIXES):
            pid = int(entry["pid"])
            holders.append(Holder(pid, _comm(testbed, pid), tracepoint, raw))
    return holders


def _comm(testbed: Testbed, pid: int) -> str:
    try:
        return testbed.read(Path(f"/proc/{pid}/comm")).decode(errors="replace").strip()
    except TestbedError:
        return "a process that has ended"


def placement_of_next(holders: list[Holder] | None) -> Placement:
    """Where a tracer that attaches now will run, given those who are there already."""
    if holders is None:
        return Placement.UNKNOWN
    kinds = {holder.raw for holder in holders}
    return Placement.UNKNOWN if kinds == {True, False} else Placement.LAST
