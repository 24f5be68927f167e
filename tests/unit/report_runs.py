"""Result directories for the tests of reports, written by those who write those of real runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.analysis import Analysis
from pytest_syslat.arms import Switch
from pytest_syslat.attribution import Attribution, ProgramShare
from pytest_syslat.budget import parse_budget
from pytest_syslat.comparison import Comparison
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding
from pytest_syslat.gate import Cell
from pytest_syslat.placement import Placement
from pytest_syslat.plan import Plan, TrialKey
from pytest_syslat.records import RunRecord
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.syscalls import SYSCALLS, Syscall
from pytest_syslat.trial import Trial
from pytest_syslat.workload import Run

BEGIN_S = 1_700_000_000.0
"""2023-11-14, 22:13 UTC."""
BEFORE = {999: 7}
"""Calls that every log has from before recording began."""
CONNECT, OPENAT = "connect", "openat"


@dataclass
class Measured:
    """What an experiment shows of its state."""

    trials: dict[TrialKey, Trial] = field(default_factory=dict)
    replaced: list[Trial] = field(default_factory=list)
    interrupted: Trial | None = None
    repeats: Mapping[str, int] = field(default_factory=dict)
    switching_s: float = 0.0
    switches: Sequence[Switch] = ()


def calls_of(ns: int) -> dict[int, int]:
    """1,000 calls: p50 is `ns`, p99 twice, the slowest three times as long."""
    return {ns: 900, 2 * ns: 90, 3 * ns: 10}


def log_of(counts: Mapping[int, int]) -> bytes:
    """What bpftrace prints for a trial with these calls."""
    after = {ns: counts.get(ns, 0) + BEFORE.get(ns, 0) for ns in (*BEFORE, *counts)}
    lines: list[str] = []
    # The last state is there twice: after the runs, and at the end.
    for maps in ({}, BEFORE, after, after):
        for name, value in (("@ns", maps), ("@other", 0), ("@total", sum(maps.values()))):
            if value or name != "@ns":
                shown = {str(k): v for k, v in value.items()} if isinstance(value, dict) else value
                lines.append(json.dumps({"type": "map", "data": {name: shown}}))
    return "".join(f"{line}\n" for line in lines).encode()


@dataclass
class StoredRun:
    """A run that can be varied before it is written.

    `ns` gives the p50 of a trial; vanilla takes 10 µs and an agent 11 µs unless it says otherwise.
    """

    agents: tuple[str, ...] = ("auditd",)
    syscalls: tuple[str, ...] = (CONNECT, OPENAT)
    blocks: int = 8
    budgets: tuple[str, ...] = ("*:p50<=+20%",)
    strict: bool = False
    ns: Callable[[TrialKey], int] = lambda key: 10_000 if key.arm == VANILLA else 11_000
    calls: Callable[[int], Mapping[int, int]] = calls_of
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    """By the id of a trial."""
    costs: Mapping[str, AgentCost] = field(default_factory=dict)
    both: bool = False
    attribute: bool = False
    measured_blocks: int | None = None
    """Fewer than `blocks`: the run was interrupted."""

    def write(self, root: Path) -> Path:
        settings = Settings(
            agents=self.agents,
            trials=self.blocks,
            syscalls=tuple(SYSCALLS.get(each, Syscall(each, ("a",))) for each in self.syscalls),
            budgets=tuple(parse_budget(text, SYSCALLS) for text in self.budgets),
            strict=self.strict,
            placement="both" if self.both else "last",
            attribute=self.attribute,
        )
        order = [
            TrialKey(syscall, arm, block)
            for block in range(1, self.blocks + 1)
            for arm in (VANILLA, *self.agents)
            for syscall in self.syscalls
        ]
        facts = {"node": "a-node", "kernel": "6.0", "agent auditd": "auditd 3", "governor": "fast"}
        record = RunRecord(root)
        record.open(settings, Plan(tuple(order), complete=True), facts)
        measured = Measured()
        last = self.measured_blocks or self.blocks
        for position, key in enumerate(order):
            if key.trial > last:
                continue
            trial = self.trial(key, BEGIN_S + 30 * position)
            measured.trials[key] = trial.without_log()
            log = record.directory.log_path(key.arm, key.syscall, key.trial)
            record.directory.arm(key.arm)
            log.write_bytes(trial.log)
        # Each call writes all files of an arm anew; the last ones are enough here.
        for key in {key.arm: key for key in measured.trials}.values():
            record.trial_done(measured, measured.trials[key])
        analysis = Analysis(
            settings=settings,
            trials=measured.trials,
            planned=order,
            judged=[
                Cell(syscall, agent, budget.figure)
                for syscall in self.syscalls
                for agent in self.agents
                for budget in settings.budgets
            ],
            comparison=Comparison(settings),
            attributed=self.attributions() if self.attribute else {},
        )
        record.close(
            measured,
            analysis.results(),
            complete=last == self.blocks,
            first_results=analysis.first_results() if self.both else (),
            splits=analysis.splits() if self.both else (),
            attributions=analysis.attributions() if self.attribute else (),
        )
        return root

    def trial(self, key: TrialKey, started_at_s: float) -> Trial:
        counts = self.calls(self.ns(key))
        of_agent_us = 0.0 if key.arm == VANILLA else 2.0
        # No two blocks are alike, or no interval would have a width.
        wobble = 1 + 0.01 * math.sin(key.trial)
        trial = Trial(
            key=key,
            node="a-node",
            testbed="local",
            placement=Placement.LAST,
            started_at_s=started_at_s,
            duration_s=25.0,
            distribution=Distribution.from_counts(counts),
            other_calls=0,
            runs_untraced=(Run((20.0 + of_agent_us) * wobble, None),),
            runs_traced=(Run(23.0, None),),
            findings=tuple(self.findings.get(key.id, ())),
            log=log_of(counts),
            cost=self.costs.get(key.id),
            operation_us=(15.0 + of_agent_us / 2) * wobble if self.both else None,
        )
        if not self.both:
            return trial
        first = Trial(
            key=key,
            node="a-node",
            testbed="local",
            placement=Placement.FIRST,
            started_at_s=started_at_s + 12,
            duration_s=12.0,
            distribution=Distribution.from_counts(counts),
            other_calls=0,
            runs_untraced=(),
            runs_traced=(),
            findings=(),
            wanted=Placement.FIRST,
            operation_us=(15.0 + of_agent_us * 0.75) * wobble,
            log=log_of(counts),
        )
        return trial.with_first(first)

    def attributions(self) -> dict[tuple[str, str], Attribution]:
        return {
            (syscall, agent): Attribution(
                agent,
                syscall,
                1000,
                (
                    ProgramShare("agent", "hook (12)", ("tracepoint sys_enter",), 2.0, 900.0),
                    ProgramShare("tracer", "probe (13)", ("tracepoint sys_exit",), 1.0, 80.0),
                ),
            )
            for syscall in self.syscalls
            for agent in self.agents
        }
