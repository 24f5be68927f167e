"""In which order the BPF programs of one tracepoint event run: as the kernel itself tells it.

The kernel keeps the programs of an event in an array, in the order in which they were attached, and
runs them in that order (`perf_event_attach_bpf_prog` and `trace_call_bpf` in
kernel/trace/bpf_trace.c). PERF_EVENT_IOC_QUERY_BPF copies their ids out, in the order of the array
(`bpf_prog_array_copy_info` in kernel/bpf/core.c). It needs CAP_SYS_ADMIN or CAP_PERFMON.

To be asked, an event must be opened, and that enables it: so it is asked only while it is traced
anyway, where this changes nothing. Programs on raw tracepoints are in no such array.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_syslat.placement import Placement
from pytest_syslat.testbeds.protocol import NodeLost, Role, Testbed, TestbedError

SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
"""Of perf_event_open(2), by machine."""
QUESTION_LIMIT_S = 30.0
# perf_event_attr of the first version (64 bytes), type PERF_TYPE_TRACEPOINT (2), disabled; opened
# for the asking task alone, so that no other task's call is touched; PERF_FLAG_FD_CLOEXEC (8).
# 0xC008240A is PERF_EVENT_IOC_QUERY_BPF; its struct has room for the 64 programs that an event
# can have at most (BPF_TRACE_MAX_PROGS).
QUESTION_PROGRAM = r"""
import ctypes, fcntl, json, os, struct, sys
number, *events = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
told = {}
for event in events:
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        path = f"{root}/events/syscalls/{event}/id"
        if os.path.exists(path):
            break
    else:
        sys.exit(f"there is no {event} in tracefs")
    attributes = struct.pack("<IIQQQQQIIQ", 2, 64, int(open(path).read()), 0, 0, 0, 1, 0, 0, 0)
    held = libc.syscall(ctypes.c_long(int(number)), attributes, 0, -1, -1, ctypes.c_ulong(8))
    if held < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    answer = bytearray(struct.pack("<II64I", 64, 0, *[0] * 64))
    fcntl.ioctl(held, 0xC008240A, answer)
    _, count, *programs = struct.unpack("<II64I", answer)
    told[event] = programs[:count]
    os.close(held)
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class ProgramOrder:
    """The programs of one event, as they run one after the other."""

    event: str
    programs: tuple[int, ...]
    """Their ids."""
    tracer: frozenset[int]
    """Which of all programs are the tracer's."""

    @property
    def placement(self) -> Placement | None:
        """Where the tracer's program runs; None if it is the only one."""
        ours = [place for place, each in enumerate(self.programs) if each in self.tracer]
        others = [place for place, each in enumerate(self.programs) if each not in self.tracer]
        if not ours:
            return Placement.UNKNOWN
        if not others:
            return None
        if max(ours) < min(others):
            return Placement.FIRST
        return Placement.LAST if min(ours) > max(others) else Placement.UNKNOWN

    def __str__(self) -> str:
        named = ", ".join(
            "the tracer" if each in self.tracer else f"program {each}" for each in self.programs
        )
        return f"{self.event} runs {named or 'nothing'}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "event": self.event,
            "programs": list(self.programs),
            "tracer": sorted(self.tracer & set(self.programs)),
        }


def read_order(
    testbed: Testbed, events: Sequence[str], tracer: Collection[int]
) -> tuple[ProgramOrder, ...] | None:
    """Ask the kernel.

    Args:
        testbed: On whose node.
        events: Names in the group `syscalls`, such as `sys_enter_openat`. They must be traced.
        tracer: Ids of the tracer's programs.

    Returns:
        The order of each event, or None where the kernel does not tell it.

    Raises:
        NodeLost: The node cannot be reached.
    """
    number = SYSCALL_NUMBERS.get(testbed.machine)
    if number is None:
        return None
    words = [testbed.python, "-I", "-S", "-c", QUESTION_PROGRAM, str(number), *events]
    try:
        shown = testbed.run(words, role=Role.TRACER, timeout_s=QUESTION_LIMIT_S)
        told = json.loads(shown.stdout) if shown.ok else None
    except NodeLost:
        raise
    except (TestbedError, ValueError):
        return None
    if told is None:
        return None
    return tuple(
        ProgramOrder(event, tuple(programs), frozenset(tracer)) for event, programs in told.items()
    )


def contradiction(orders: Iterable[ProgramOrder], wanted: Placement) -> str | None:
    """What speaks against a placement, in words; None if nothing does."""
    for order in orders:
        if order.placement not in (None, wanted):
            return str(order)
    return None
