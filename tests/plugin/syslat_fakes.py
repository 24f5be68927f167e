"""Stands in for all that really measures: a pytest plugin for the runs inside these tests.

Testbed, tracer, lmbench, TCP server, kernel audit, auditd and the measurement of a trial are
replaced; plan, order, experiment, arms, records, gate, terminal and fixtures are the real ones.
What trials return comes from `table.json` in the current directory, what happened goes to
`events.log` beside it, a line an event. Time passes for the experiment only while lmbench runs:
5 s a run.

Keys of the table, all optional:
    ns: latencies by `syscall-arm-trialN`, `syscall-arm` or `arm`, the most specific wins; a list
        has a value for each trial
    operation_us: traced mean of lmbench's whole operation, in the same way; none by default
    first_operation_us: the same with the tracer before the agent
    first_ns: the same with the tracer before the agent; else `ns` holds
    user_us: lmbench's own untraced figure, in the same way
    calls: calls of a trial, in the same way; 900 of 1,000 take the latency, 90 twice, 10 thrice
        as long
    refuse: by trial, which of its attempts are refused
    load_seen_ns: what the tracer sees of a load of 6 µs, by `last-entry` and so on
    not_traced: syscalls that bpftrace does not take
    not_attributed: arms whose programs cannot be listed
    refuse_first: the same of those with the tracer before the agent
    placement: what is proven, by trial, with `-first` behind it for the tracer before the agent
    sleep_s: by trial, how long its measurement really takes
    cost: what the arm itself costs, by the fields of AgentCost, in the same way; none by default
    findings: by trial, further findings: severity, code, detail
    interrupt: number of the measurement in which Ctrl-C is pressed
    signal: number of the measurement in which a signal comes, and which
    facts: what is changed in the facts about the node
    report: whether the reports are written, too, which takes a second

With the variable SYSLAT_FAKES_LEAN nothing is written after each trial but only at the end.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pytest_syslat import arms, experiment, records, rig, sysinfo, tcp_server, tools, tracer, trial
from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.agents import catalogue
from pytest_syslat.agents.protocol import Agent, KernelTime, Processes
from pytest_syslat.attribution import Attribution, ProgramShare
from pytest_syslat.confirmation import Confirmation, Floor, LoadSeen
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding, Severity, invalid
from pytest_syslat.placement import Placement
from pytest_syslat.plan import TrialKey
from pytest_syslat.progress import Tell, silent
from pytest_syslat.report import written
from pytest_syslat.report.written import Written
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.syscalls import Syscall
from pytest_syslat.testbeds import local
from pytest_syslat.testbeds.protocol import Role, TestbedError
from pytest_syslat.trial import Bench, TracerFirst, Trial
from pytest_syslat.workload import Run

LMBENCH_RUN_S = 5.0
READY_LIMIT_S = 0.2
VANILLA_NS = 10_000
AGENT_NS = 11_000
VANILLA_USER_US = 20.0
AGENT_USER_US = 22.0

START = Path.cwd()
TABLE: dict[str, Any] = {}
ATTEMPTS: Counter[str] = Counter()


def event(text: str) -> None:
    with (START / "events.log").open("a") as log:
        log.write(f"{text}\n")


def looked_up(name: str, key: TrialKey, default: Any) -> Any:
    table = TABLE.get(name, {})
    for place in (key.id, f"{key.syscall}-{key.arm}", key.arm):
        if place in table:
            found = table[place]
            return found[key.trial - 1] if isinstance(found, list) else found
    return default


class Clock:
    """The time module as the experiment sees it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return time.time()


class FakeTestbed:
    __test__: ClassVar[bool] = False
    name = "made-up"
    node = "nowhere"
    core_problem = None
    generation = 0

    def __init__(self, *, core: int, run_id: str) -> None:
        self.core = core
        self._is_open = True
        event("testbed opened")

    def find_lmbench(self, chosen: Path | None) -> Path:
        return tools.find_lmbench(chosen) if chosen is not None else Path("lmbench")

    def renew(self) -> None:
        pass

    def run(self, command: Sequence[str], *, role: Role, timeout_s: float) -> Any:
        event(f"run {' '.join(command)}")
        return SimpleNamespace(stdout="6.1.0\n", ok=True)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            event("testbed closed")


class FakeTracer:
    version = "bpftrace v0.0.0"

    def __init__(self, testbed: FakeTestbed, rootdir: Path, mode: str) -> None:
        self.mode = mode

    def attach(self, syscall: Syscall) -> Any:
        event(f"attach {syscall.name}")
        trace = SimpleNamespace(succeeded=Distribution.from_counts({VANILLA_NS: 1000}))
        return SimpleNamespace(begin=lambda: None, stop=lambda: (trace, b"", ""), end=lambda: None)

    def check(self, syscall: Syscall) -> None:
        event(f"check {syscall}")
        if syscall.name in TABLE.get("not_traced", []):
            raise tracer.TracerError(f"the syscall {syscall} cannot be traced: made-up reason")


class FakeWorkload:
    clock: ClassVar[Clock]

    def __init__(
        self, testbed: FakeTestbed, directory: Path, syscalls: Sequence[Syscall] = ()
    ) -> None:
        self.directory = directory

    def run(self, syscall: Syscall) -> Run:
        event(f"warm-up {syscall.name}")
        self.clock.now_s += LMBENCH_RUN_S
        return Run(1.0, None)

    def close(self) -> None:
        event("workload closed")


class FakePacedWorkload(FakeWorkload):
    def __init__(
        self,
        testbed: FakeTestbed,
        directory: Path,
        rate: int,
        rootdir: Path,
        syscalls: Sequence[Syscall] = (),
    ) -> None:
        super().__init__(testbed, directory)
        event(f"paced at {rate}")


class FakeServer:
    def __init__(self, testbed: FakeTestbed, rootdir: Path) -> None:
        self.inode: int | None = None

    def start(self) -> None:
        event("server started")

    def stop(self) -> None:
        event("server stopped")


class FakeAudit:
    available = True

    def __init__(self, testbed: FakeTestbed) -> None:
        pass

    def open(self) -> None:
        event("audit opened")

    def quieten(self) -> None:
        event("audit quietened")

    def close(self) -> None:
        event("audit closed")


class FakeAuditd:
    def __init__(
        self, testbed: FakeTestbed, rootdir: Path, rules: Path | None, daemon: object
    ) -> None:
        pass

    def prepare(self) -> None:
        event("auditd prepare")

    def activate(self) -> None:
        event("auditd activate")

    def ready(self) -> str | None:
        return None

    def idle(self) -> str | None:
        return None

    def drops(self) -> int | None:
        return None

    def deactivate(self) -> None:
        event("auditd deactivate")

    def remove(self) -> None:
        event("auditd remove")

    def version(self) -> str:
        return "auditd of the tests"

    def processes(self) -> Processes:
        return Processes()

    def kernel_time(self) -> KernelTime | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {"rules": ["a rule of the tests"]}


def collect_facts(
    testbed: FakeTestbed,
    workload: FakeWorkload,
    tracer: FakeTracer,
    agent_versions: Mapping[str, str],
    settings: Settings,
) -> dict[str, str]:
    return {
        "testbed": testbed.name,
        "node": testbed.node,
        "kernel": "0.0.0",
        "measured core": str(testbed.core),
        "governor": "performance",
        "turbo off (intel_pstate)": sysinfo.UNKNOWN,
        "boost (cpufreq)": sysinfo.UNKNOWN,
        "bpftrace": tracer.version,
        "lmbench": "0.0",
        **{f"agent {name}": version for name, version in agent_versions.items()},
        **{
            f"setting {name}": ", ".join(value) if isinstance(value, list) else str(value)
            for name, value in settings.as_dict().items()
        },
        **TABLE.get("facts", {}),
    }


def confirm(bench: Bench, placements: Sequence[Placement]) -> Confirmation:
    """Stands in for the loads: each is seen, or not, as it should be, unless the table says so."""
    event(f"confirm {' '.join(placements)}")
    loads = [
        LoadSeen(placement, place, 6000.0, TABLE.get("load_seen_ns", {}).get(name, as_expected_ns))
        for placement in placements
        for place in ("entry", "exit")
        for name in [f"{placement}-{place}"]
        for as_expected_ns in [6000.0 if name in ("last-exit", "first-entry") else 0.0]
    ]
    return Confirmation(tuple(loads), Floor(0.09, 0.1, 0.07, 0.31))


def attribute(
    bench: Bench, syscall: Syscall, arm: str, agent: Agent, known: Collection[int]
) -> Attribution:
    """Stands in for the pass with the kernel's statistics."""
    event(f"attribute {syscall.name} {arm}")
    if arm in TABLE.get("not_attributed", {}):
        raise TestbedError("bpftool cannot list BPF programs")
    shares = (
        ProgramShare("agent", "hook (12)", ("tracepoint sys_enter_connect", "fentry x"), 2.0, 900),
        ProgramShare("tracer", "probe (13)", ("tracepoint sys_exit_connect",), 1.0, 80.5),
    )
    return Attribution(arm, syscall.name, 1000, shares)


def measure(
    bench: Bench,
    key: TrialKey,
    agent: Agent,
    progress: Tell = silent,
    *,
    tracer_first: TracerFirst | None = None,
) -> Trial:
    """Stands in for `Bench.measure`."""
    if tracer_first is not None:
        tracer_first.switch_off()
        event("attach")
        tracer_first.switch_on()
    name = f"{key.id}-first" if tracer_first else key.id
    ATTEMPTS[name] += 1
    event(f"measure {name}")
    progress("traced", runs=2)
    progress("traced", run=1, runs=2, calls=500)
    number = ATTEMPTS.total()
    if number == TABLE.get("interrupt"):
        raise KeyboardInterrupt
    if number == TABLE.get("signal", [0])[0]:
        os.kill(os.getpid(), TABLE["signal"][1])
    time.sleep(TABLE.get("sleep_s", {}).get(key.id, 0))
    findings = [
        Finding(Severity(severity), code, detail)
        for severity, code, detail in TABLE.get("findings", {}).get(key.id, [])
    ]
    attempt = ATTEMPTS[name]
    if attempt in TABLE.get("refuse_first" if tracer_first else "refuse", {}).get(key.id, []):
        findings.append(invalid("throttled", f"made-up reason {attempt}"))
    not_ready = agent.ready()
    if not_ready:
        findings.append(invalid("agent-not-ready", not_ready))
    of_vanilla = key.arm == VANILLA
    ns = looked_up("ns", key, VANILLA_NS if of_vanilla else AGENT_NS)
    if tracer_first is not None:
        ns = looked_up("first_ns", key, ns)
    wanted = Placement.FIRST if tracer_first else Placement.LAST
    with_user = tracer_first is None or tracer_first.with_user
    user_us = looked_up("user_us", key, VANILLA_USER_US if of_vanilla else AGENT_USER_US)
    thousands = looked_up("calls", key, 1000) // 1000
    cost = looked_up("cost", key, None)
    if cost and "threads_on_core" in cost:
        cost["threads_on_core"] = tuple(cost["threads_on_core"])
    return Trial(
        key=key,
        node=bench.testbed.node,
        testbed=bench.testbed.name,
        placement=Placement(TABLE.get("placement", {}).get(name, wanted)),
        wanted=wanted,
        operation_us=looked_up("first_operation_us" if tracer_first else "operation_us", key, None),
        started_at_s=time.time(),
        duration_s=30.0,
        distribution=Distribution.from_counts(
            {ns: 900 * thousands, 2 * ns: 90 * thousands, 3 * ns: 10 * thousands}
        ),
        other_calls=0,
        runs_untraced=(Run(user_us, None),) * 3 if with_user else (),
        runs_traced=(Run(user_us + 1, None),) * 2,
        findings=tuple(findings),
        cost=AgentCost(**cost) if cost else None,
        log=f"{name} attempt {attempt}\n".encode(),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    table = START / "table.json"
    TABLE.update(json.loads(table.read_text()) if table.exists() else {})
    FakeWorkload.clock = Clock()
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(local, "LocalTestbed", FakeTestbed)
    patch.setattr(local, "usable_cores", lambda: [0, 1, 2, 3])
    patch.setattr(local, "may_be_pinned_to", lambda core: core < 4)
    patch.setattr(experiment, "KernelAudit", FakeAudit)
    patch.setattr(rig, "Tracer", FakeTracer)
    patch.setattr(rig, "Workload", FakeWorkload)
    patch.setattr(rig, "PacedWorkload", FakePacedWorkload)
    patch.setattr(rig, "TcpServer", FakeServer)
    patch.setattr(experiment, "collect_sysinfo", collect_facts)
    patch.setattr(experiment, "confirm", confirm)
    patch.setattr(experiment, "attribute", attribute)
    patch.setattr(experiment, "list_programs", lambda _testbed: [])
    patch.setattr(experiment, "time", FakeWorkload.clock)
    patch.setattr(Bench, "measure", measure)
    patch.setattr(catalogue, "Auditd", FakeAuditd)
    patch.setattr(catalogue, "AuditDaemon", lambda testbed: None)
    patch.setattr(arms, "READY_LIMIT_S", READY_LIMIT_S)
    patch.setattr(arms, "POLL_S", 0.01)
    if not TABLE.get("report"):
        patch.setattr(written, "write_after_run", lambda _directory: Written(None, (), ()))
    if os.environ.get("SYSLAT_FAKES_LEAN"):
        patch.setattr(records.RunRecord, "trial_done", lambda *_: None)
    # Thousands of small files need not outlast a power cut here.
    patch.setattr(os, "fsync", lambda _descriptor: None)
    # Nothing may run a program by another way.
    for module, name in ((tcp_server, "TcpServer"), (tracer, "Tracer"), (trial, "Tracer")):
        patch.setattr(module, name, None)
