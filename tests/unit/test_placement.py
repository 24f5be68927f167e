from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_syslat.placement import Holder, Placement, list_holders, placement_of_next
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError, TimeLimit

RAW = Holder(7, "agent", "sys_enter", raw=True)
EVENT = Holder(8, "stranger", "sys_enter_getpgid", raw=False)


class FakeTestbed:
    """A node whose bpftool and tracefs say what the test wants."""

    def __init__(
        self,
        *,
        perf: object = (),
        link: object = (),
        ftrace: str | None = "",
        comms: Mapping[int, str] | None = None,
        missing: str | None = None,
    ) -> None:
        self._printed = {"perf": json.dumps(perf), "link": json.dumps(link)}
        self._ftrace = ftrace
        self._comms = dict(comms or {})
        self._missing = missing

    def say(self, kind: str, text: str) -> None:
        """Let bpftool print a text of its own."""
        self._printed[kind] = text

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        if argv[0] == "bpftool":
            assert role is Role.TRACER
            kind = argv[2]
            if self._missing == "bpftool":
                raise TestbedError("cannot run bpftool: No such file or directory")
            code = 1 if self._missing == kind else 0
            return Completed(tuple(argv), code, self._printed[kind], "")
        assert role is Role.TRACER
        if self._missing == "ftrace":
            raise TimeLimit("sh did not end within 30 s")
        return Completed(tuple(argv), 0 if self._ftrace is not None else 1, self._ftrace or "", "")

    def read(self, path: Path, *, role: Role) -> bytes:
        assert role is Role.NODE
        pid = int(path.parts[2])
        if pid not in self._comms:
            raise TestbedError(f"cannot read {path}: No such file or directory")
        return f"{self._comms[pid]}\n".encode()


def holders_of(**node: Any) -> list[Holder] | None:
    return list_holders(cast("Testbed", FakeTestbed(**node)))


@pytest.mark.parametrize(
    ("holders", "placement"),
    [
        (None, Placement.UNKNOWN),
        ([], Placement.LAST),
        # Within one handler programs run in the order in which they came.
        ([EVENT], Placement.LAST),
        # The shared handler is registered now, after the raw one.
        ([RAW], Placement.LAST),
        ([RAW, RAW], Placement.LAST),
        # It has been registered by a stranger, before or after the raw one: nobody knows.
        ([RAW, EVENT], Placement.UNKNOWN),
        ([EVENT, RAW], Placement.UNKNOWN),
    ],
)
def test_placement_of_the_next_tracer(holders: list[Holder] | None, placement: Placement) -> None:
    assert placement_of_next(holders) is placement


def test_nobody() -> None:
    assert holders_of() == []


def test_programs_on_perf_events() -> None:
    entries = [
        {
            "pid": 21,
            "fd": 5,
            "prog_id": 41,
            "fd_type": "tracepoint",
            "tracepoint": "sys_enter_openat",
        },
        {
            "pid": 21,
            "fd": 6,
            "prog_id": 42,
            "fd_type": "tracepoint",
            "tracepoint": "sys_exit_openat",
        },
        {"pid": 33, "fd": 7, "prog_id": 43, "fd_type": "raw_tracepoint", "tracepoint": "sys_enter"},
        {
            "pid": 33,
            "fd": 8,
            "prog_id": 44,
            "fd_type": "raw_tracepoint",
            "tracepoint": "sched_switch",
        },
        {"pid": 33, "fd": 9, "prog_id": 45, "fd_type": "kprobe", "func": "do_sys_openat2"},
    ]
    assert holders_of(perf=entries, comms={21: "bpftrace", 33: "falco"}) == [
        Holder(21, "bpftrace", "sys_enter_openat", raw=False),
        Holder(21, "bpftrace", "sys_exit_openat", raw=False),
        Holder(33, "falco", "sys_enter", raw=True),
    ]


def test_links_of_processes_and_pinned_ones() -> None:
    entries = [
        {"id": 1, "type": "raw_tracepoint", "prog_id": 9, "tp_name": "sys_exit"},
        {"id": 2, "type": "perf_event", "prog_id": 10, "tracepoint": "sys_enter_connect"}
        | {"pids": [{"pid": 5, "comm": "tetragon"}, {"pid": 6, "comm": "tetragon"}]},
        {"id": 3, "type": "tracing", "prog_id": 11, "attach_type": "trace_fentry"},
        {"id": 4, "type": "raw_tracepoint", "prog_id": 12, "tp_name": "sched_process_exec"},
    ]
    found = holders_of(link=entries, comms={5: "tetragon", 6: "helper"})
    assert found is not None
    assert {(each.pid, each.comm, each.tracepoint, each.raw) for each in found} == {
        (None, "ftrace or a pinned program", "sys_exit", True),
        (5, "tetragon", "sys_enter_connect", False),
        (6, "helper", "sys_enter_connect", False),
    }
    assert placement_of_next(found) is Placement.UNKNOWN


def test_events_that_ftrace_has_enabled() -> None:
    found = holders_of(ftrace="sys_enter_openat\nsys_exit_openat\nsys_enter\n")
    assert found is not None
    # An event of `raw_syscalls` is a handler of its own.
    assert {(each.tracepoint, each.raw) for each in found} == {
        ("sys_enter_openat", False),
        ("sys_exit_openat", False),
        ("sys_enter", True),
    }


def test_the_same_holder_is_named_once() -> None:
    perf = [{"pid": 33, "fd_type": "raw_tracepoint", "tracepoint": "sys_enter"}]
    link = [{"id": 1, "type": "raw_tracepoint", "tp_name": "sys_enter", "pids": [{"pid": 33}]}]
    assert holders_of(perf=perf, link=link, comms={33: "falco"}) == [
        Holder(33, "falco", "sys_enter", raw=True)
    ]


def test_a_process_that_has_ended_meanwhile() -> None:
    perf = [{"pid": 44, "fd_type": "tracepoint", "tracepoint": "sys_enter_openat"}]
    found = holders_of(perf=perf)
    assert found is not None
    assert str(found[0]) == "a process that has ended (pid 44) on sys_enter_openat"


def test_words_for_messages() -> None:
    assert str(RAW) == "agent (pid 7) on sys_enter"
    nobody = Holder(None, "ftrace or a pinned program", "sys_exit", raw=True)
    assert str(nobody) == "ftrace or a pinned program on sys_exit"


@pytest.mark.parametrize("missing", ["bpftool", "perf", "link", "ftrace"])
def test_one_source_that_fails_proves_nothing(missing: str) -> None:
    assert holders_of(missing=missing) is None


def test_no_tracefs_proves_nothing() -> None:
    assert holders_of(ftrace=None) is None


@pytest.mark.parametrize("text", ["{", '{"error": "no permission"}', "null", '"perf"'])
def test_an_answer_that_is_no_list_proves_nothing(text: str) -> None:
    testbed = FakeTestbed()
    testbed.say("perf", text)
    assert list_holders(cast("Testbed", testbed)) is None


def test_no_answer_at_all_is_an_empty_list() -> None:
    """So bpftool says that there is nothing."""
    testbed = FakeTestbed()
    testbed.say("link", "")
    assert list_holders(cast("Testbed", testbed)) == []
