"""Who spends the time: runs and nanoseconds of each BPF program, per measured call.

A pass of its own, since the kernel's statistics cost each run of each program 20 to 30 ns. The
tracer is attached in it: it counts the calls exactly, which lmbench does not tell, and its own
programs are then listed beside the agent's. The kernel accounts a program's runs for the whole
node: what others call meanwhile is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_syslat.agents.protocol import Agent
from pytest_syslat.bpf_programs import RUNTIME_KINDS, BpfProgram, bpftool_list, list_programs
from pytest_syslat.bpf_statistics import BpfStatistics
from pytest_syslat.ownership import members
from pytest_syslat.syscalls import Syscall
from pytest_syslat.testbeds.protocol import Testbed, TestbedError
from pytest_syslat.trial import EXTRA_RUNS_FACTOR, Bench

AGENT, TRACER, OTHER, REMAINDER = "agent", "tracer", "other", "remainder"
REMAINDER_WORDS = "no BPF program: kernel audit, LSM, dispatch"


@dataclass(frozen=True, slots=True)
class ProgramShare:
    """What one BPF program takes of a measured call."""

    owner: str
    """`agent`, `tracer` or `other`; `remainder` for what is no BPF program's."""
    program: str
    """Its name and its id."""
    attached_to: tuple[str, ...]
    runs_per_call: float | None
    """None for the remainder."""
    ns_per_call: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """The programs that ran while calls of a syscall were made in an arm."""

    agent: str
    syscall: str
    calls: int
    shares: tuple[ProgramShare, ...]
    """The largest first."""

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Attribution:
        """What `asdict` has made of one, as run.json holds it.

        Raises:
            KeyError, TypeError, ValueError: It is not so.
        """
        shares = (
            ProgramShare(**{**share, "attached_to": tuple(share["attached_to"])})
            for share in entry["shares"]
        )
        return cls(str(entry["agent"]), str(entry["syscall"]), int(entry["calls"]), tuple(shares))

    def with_remainder(self, overhead_us: float | None) -> Attribution:
        """With what the user pays above vanilla and no program of the agent accounts for.

        A remainder below 0 is shown: the overhead has an error, too.
        """
        if overhead_us is None:
            return self
        programs_ns = sum(each.ns_per_call for each in self.shares if each.owner == AGENT)
        rest = ProgramShare(REMAINDER, REMAINDER_WORDS, (), None, 1000 * overhead_us - programs_ns)
        return Attribution(self.agent, self.syscall, self.calls, (*self.shares, rest))


def attribute(
    bench: Bench, syscall: Syscall, arm: str, agent: Agent, known: Collection[int]
) -> Attribution:
    """Make the pass in the arm that is active.

    Args:
        bench: With what to measure.
        syscall: Which calls are made.
        arm: The agent's label.
        agent: The agent, which is on.
        known: Ids of the programs that were loaded while every agent was off.

    Raises:
        AgentError, TestbedError, TracerError: It could not be made.
    """
    testbed = bench.testbed
    with BpfStatistics(testbed):
        tracing = bench.tracer.attach(syscall)
        try:
            bench.workload.run(syscall)
            tracing.begin()
            loaded = list_programs(testbed)
            if loaded is None:
                raise TestbedError("bpftool cannot list BPF programs")
            before = _counters(testbed)
            planned = bench.settings.lmbench_reps
            calls = done = 0
            while done < planned or (
                0 < calls < bench.settings.min_calls and done < EXTRA_RUNS_FACTOR * planned
            ):
                bench.workload.run(syscall)
                done += 1
                if done >= planned:
                    calls = tracing.calls_so_far()
            after = _counters(testbed)
        finally:
            tracing.end()
    if calls == 0:
        raise TestbedError(f"no {syscall.call} was traced")
    owners = _owners(testbed, loaded, agent, tracing.pid, known)
    shares = []
    for each in loaded:
        runs, ns = (
            late - early
            for late, early in zip(
                after.get(each.id, (0, 0)), before.get(each.id, (0, 0)), strict=True
            )
        )
        if runs > 0:
            name = f"{each.name or each.kind} ({each.id})"
            shares.append(
                ProgramShare(owners[each.id], name, each.attached_to, runs / calls, ns / calls)
            )
    shares.sort(key=lambda each: -each.ns_per_call)
    return Attribution(arm, syscall.name, calls, tuple(shares))


def _counters(testbed: Testbed) -> Mapping[int, tuple[int, int]]:
    """Runs and nanoseconds of each program, by its id."""
    programs = bpftool_list(testbed, "prog", "show")
    if programs is None:
        raise TestbedError("bpftool cannot list BPF programs")
    # bpftool leaves the fields out while they are 0.
    return {
        entry["id"]: (entry.get("run_cnt", 0), entry.get("run_time_ns", 0)) for entry in programs
    }


def _owners(
    testbed: Testbed,
    loaded: Collection[BpfProgram],
    agent: Agent,
    tracer: int,
    known: Collection[int],
) -> dict[int, str]:
    """Whose each program is: by its processes, or as one that came with the agent and is pinned."""
    holders = {pid for each in loaded for pid, _ in each.holders}
    ours = members(testbed, agent.processes(), holders)
    owners = {}
    for each in loaded:
        pids = {pid for pid, _ in each.holders}
        came_unheld = not pids and each.id not in known and not each.kind.startswith(RUNTIME_KINDS)
        if tracer in pids:
            owners[each.id] = TRACER
        elif pids & ours or came_unheld:
            owners[each.id] = AGENT
        else:
            owners[each.id] = OTHER
    return owners
