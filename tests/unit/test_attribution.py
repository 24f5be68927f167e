"""Whose a program is and what it takes of a call, from what the kernel has counted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_syslat import attribution
from pytest_syslat.agents.protocol import Agent, Processes
from pytest_syslat.attribution import Attribution, ProgramShare, attribute
from pytest_syslat.bpf_programs import BpfProgram
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import Completed, Role, TestbedError
from pytest_syslat.trial import Bench

AGENT_PID, CHILD_PID, TRACER_PID, STRANGER_PID = 100, 101, 200, 300


def program(number: int, *pids: int, kind: str = "tracepoint", name: str = "") -> BpfProgram:
    holders = tuple((pid, "x") for pid in pids)
    return BpfProgram(number, kind, name, ("tracepoint sys_enter_openat",), holders, None, None)


class FakeTestbed:
    """A node whose bpftool counts as the test says: once before the calls and once after."""

    def __init__(self, *counters: object) -> None:
        self._counters = list(counters)

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        assert (list(argv), role) == (["bpftool", "-j", "prog", "show"], Role.TRACER)
        return Completed(tuple(argv), 0, json.dumps(self._counters.pop(0)), "")

    def read(self, path: Path, *, role: Role) -> bytes:
        pid, file = int(path.parts[2]), path.name
        parent = {CHILD_PID: AGENT_PID}.get(pid, 1)
        return f"PPid:\t{parent}\n".encode() if file == "status" else b"0::/\n"


class FakeTracing:
    pid = TRACER_PID
    ended = False

    def __init__(self, calls: Sequence[int]) -> None:
        self._calls = list(calls)

    def begin(self) -> None:
        pass

    def calls_so_far(self) -> int:
        return self._calls.pop(0)

    def end(self) -> None:
        self.ended = True


def attributed(
    monkeypatch: pytest.MonkeyPatch,
    loaded: Sequence[BpfProgram] | None,
    testbed: FakeTestbed,
    calls: Sequence[int] = (1000,),
) -> tuple[Attribution, list[str]]:
    runs: list[str] = []
    tracing = FakeTracing(calls)
    bench = SimpleNamespace(
        testbed=testbed,
        tracer=SimpleNamespace(attach=lambda _syscall: tracing),
        workload=SimpleNamespace(run=lambda syscall: runs.append(syscall.name)),
        settings=SimpleNamespace(lmbench_reps=2, min_calls=1000),
    )
    monkeypatch.setattr(attribution, "list_programs", lambda _testbed: loaded)
    monkeypatch.setattr(attribution, "BpfStatistics", lambda _testbed: contextlib.nullcontext())
    agent = SimpleNamespace(processes=lambda: Processes(roots=(AGENT_PID,)))
    try:
        found = attribute(
            cast("Bench", bench), SYSCALLS["openat"], "arm", cast("Agent", agent), known={4, 7}
        )
    finally:
        assert tracing.ended
    return found, runs


def test_owners_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = [
        program(1, AGENT_PID, name="hook"),
        program(2, CHILD_PID),
        program(3, TRACER_PID),
        program(4),  # pinned, and there before the agent
        program(5),  # pinned, and came with it
        program(6, kind="cgroup_skb"),  # a container runtime's
        program(7, STRANGER_PID),
        program(8, AGENT_PID),  # has not run meanwhile
    ]
    before = [{"id": 1, "run_cnt": 10, "run_time_ns": 500}, {"id": 8, "run_cnt": 3}]
    after = [
        {"id": 1, "run_cnt": 2010, "run_time_ns": 600_500},
        {"id": 8, "run_cnt": 3},
        *({"id": number, "run_cnt": 1000, "run_time_ns": 1000 * number} for number in range(2, 8)),
    ]
    found, runs = attributed(monkeypatch, loaded, FakeTestbed(before, after))
    assert runs == ["openat"] * 3  # one is not counted
    assert (found.agent, found.syscall, found.calls) == ("arm", "openat", 1000)
    assert {each.program: each.owner for each in found.shares} == {
        "hook (1)": "agent",
        "tracepoint (2)": "agent",
        "tracepoint (3)": "tracer",
        "tracepoint (4)": "other",
        "tracepoint (5)": "agent",
        "cgroup_skb (6)": "other",
        "tracepoint (7)": "other",
    }
    # 2,000 runs and 600,000 ns in 1,000 calls.
    assert found.shares[0] == ProgramShare(
        "agent", "hook (1)", ("tracepoint sys_enter_openat",), 2.0, 600.0
    )
    assert [each.ns_per_call for each in found.shares] == [600, 7, 6, 5, 4, 3, 2]

    # The user pays 2 µs: 600, 5 and 2 ns of them are in the agent's programs.
    last = found.with_remainder(2.0).shares[-1]
    assert (last.owner, last.runs_per_call) == ("remainder", None)
    assert last.ns_per_call == pytest.approx(1393.0)
    assert found.with_remainder(0.1).shares[-1].ns_per_call == pytest.approx(-507.0)
    assert found.with_remainder(None) is found


def test_runs_are_added_until_there_are_enough_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    found, runs = attributed(monkeypatch, [], FakeTestbed([], []), calls=(400, 700, 1100))
    assert (found.calls, len(runs)) == (1100, 1 + 4)


@pytest.mark.parametrize(
    ("loaded", "calls", "reason"),
    [(None, (1,), "bpftool cannot list BPF programs"), ([], (0,), "no openat .+ was traced")],
)
def test_what_cannot_be_attributed(
    monkeypatch: pytest.MonkeyPatch,
    loaded: list[BpfProgram] | None,
    calls: tuple[int, ...],
    reason: str,
) -> None:
    with pytest.raises(TestbedError, match=reason):
        attributed(monkeypatch, loaded, FakeTestbed([], []), calls)
