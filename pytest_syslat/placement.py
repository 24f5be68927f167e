"""Where the tracer's programs run among those of other tracers: proven, or `unknown`.

Within one tracepoint event, BPF programs run in the order in which they were attached. All
`syscalls:*` events share one handler, registered when the first of them is enabled by anybody;
programs on the raw tracepoints `sys_enter` and `sys_exit` are handlers of their own. So a tracer
that attaches now runs last, unless a stranger holds a `syscalls:*` event already (which fixes the
place of the shared handler) while somebody else holds a raw tracepoint. A tracer that attaches
while nobody holds anything runs first: whoever comes later is behind it at both. Plain `perf
trace`, which uses neither BPF nor ftrace, cannot be seen.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.bpf_programs import LIST_LIMIT_S, bpftool_list
from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

EVENT_PREFIXES = ("sys_enter_", "sys_exit_")
RAW_TRACEPOINTS = ("sys_enter", "sys_exit")
# `enable` of a group of events tells in one read that all are off; only then is it 0.
FTRACE_QUESTION = """
for root in /sys/kernel/tracing /sys/kernel/debug/tracing; do
    [ -d "$root/events/syscalls" ] || continue
    for trace in "$root" "$root"/instances/*; do
        for group in syscalls raw_syscalls; do
            events="$trace/events/$group"
            [ "$(cat "$events/enable" 2>/dev/null || echo 0)" = 0 ] && continue
            for event in $(grep -l 1 "$events"/*/enable); do
                basename "$(dirname "$event")"
            done
        done
    done
    exit 0
done
exit 1
"""


class Placement(enum.StrEnum):
    """Where the tracer's programs run."""

    LAST = "last"
    FIRST = "first"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a BPF program on a syscall tracepoint."""

    pid: int | None
    """None where no process holds it."""
    comm: str
    tracepoint: str
    raw: bool

    def __str__(self) -> str:
        who = self.comm if self.pid is None else f"{self.comm} (pid {self.pid})"
        return f"{who} on {self.tracepoint}"


def list_holders(testbed: Testbed) -> list[Holder] | None:
    """All holders on the node; None where it cannot be told (no bpftool, no tracefs).

    Three sources, since none knows all: BPF programs on perf events, BPF links (also those that
    are pinned and held by no process), and events that ftrace has enabled.
    """
    perf = bpftool_list(testbed, "perf", "show")
    links = bpftool_list(testbed, "link", "show")
    enabled = _ftrace_events(testbed)
    if perf is None or links is None or enabled is None:
        return None
    found: dict[tuple[str, bool, int | None], Holder] = {}
    for entry in perf:
        name = str(entry.get("tracepoint", ""))
        if name.startswith(EVENT_PREFIXES) or name in RAW_TRACEPOINTS:
            _add(found, testbed, name, int(entry["pid"]))
    for entry in links:
        name = str(entry.get("tp_name") or entry.get("tracepoint") or "")
        if name.startswith(EVENT_PREFIXES) or name in RAW_TRACEPOINTS:
            pids: list[int | None] = [int(holder["pid"]) for holder in entry.get("pids", [])]
            for pid in pids or [None]:
                _add(found, testbed, name, pid)
    for name in enabled:
        _add(found, testbed, name, None)
    return sorted(found.values(), key=str)


def _add(
    found: dict[tuple[str, bool, int | None], Holder], testbed: Testbed, name: str, pid: int | None
) -> None:
    # An event of `raw_syscalls` is a handler of its own, like a raw tracepoint.
    raw = name in RAW_TRACEPOINTS
    comm = "ftrace or a pinned program" if pid is None else _comm(testbed, pid)
    found.setdefault((name, raw, pid), Holder(pid, comm, name, raw))


def _ftrace_events(testbed: Testbed) -> list[str] | None:
    """Syscall events that are enabled in tracefs or in one of its instances."""
    try:
        shown = testbed.run(["sh", "-c", FTRACE_QUESTION], role=Role.TRACER, timeout_s=LIST_LIMIT_S)
    except TestbedError:
        return None
    return shown.stdout.split() if shown.ok else None


def _comm(testbed: Testbed, pid: int) -> str:
    try:
        name = testbed.read(Path(f"/proc/{pid}/comm"), role=Role.NODE)
    except TestbedError:
        return "a process that has ended"
    return name.decode(errors="replace").strip()


def placement_of_next(holders: list[Holder] | None) -> Placement:
    """Where a tracer that attaches now will run, given those who are there already."""
    if holders is None:
        return Placement.UNKNOWN
    kinds = {holder.raw for holder in holders}
    return Placement.UNKNOWN if kinds == {True, False} else Placement.LAST
