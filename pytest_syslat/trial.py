"""One trial: the workload under the tracer in an arm, with all that speaks for and against it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_syslat.agent_cost import (
    AgentCost,
    CostSampler,
    SamplerFailed,
    Usage,
    dropped_between,
    kernel_use,
)
from pytest_syslat.agents.protocol import Agent, AgentError, Processes
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.bpf_programs import bpftool_list
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding, Severity, invalid, note, undecided, warning
from pytest_syslat.kernel_audit import KernelAudit
from pytest_syslat.network import TcpCounters, read_tcp_counters
from pytest_syslat.ownership import members
from pytest_syslat.placement import Holder, Placement, list_holders, placement_of_next
from pytest_syslat.plan import TrialKey
from pytest_syslat.program_order import ProgramOrder, contradiction, read_order
from pytest_syslat.progress import Tell, silent
from pytest_syslat.settings import Settings
from pytest_syslat.split import Overheads
from pytest_syslat.summary import figures_us
from pytest_syslat.syscalls import EXECVE, Syscall
from pytest_syslat.tcp_server import LAT_CONNECT_PORT, TcpServer
from pytest_syslat.testbeds.protocol import Testbed, TestbedError
from pytest_syslat.tracer import Trace, Tracer, TracerError, Tracing
from pytest_syslat.validity import (
    FAILED_SHARE_LIMIT,
    check_agent_cores,
    check_audit_waits,
    check_drops,
    check_load,
    check_network,
    check_pinning,
    check_rate,
    check_runs,
    check_throttling,
    check_trace,
)
from pytest_syslat.workload import Run, Workload

EXTRA_RUNS_FACTOR = 50
"""More runs than so many times the planned ones are not added to reach `min_calls`."""


@dataclass(frozen=True)
class Trial:
    """One measurement of one syscall in one arm."""

    key: TrialKey
    node: str
    testbed: str
    placement: Placement
    started_at_s: float
    """Seconds since the epoch."""
    duration_s: float
    distribution: Distribution
    """Latencies of the calls that succeeded; empty if none were recorded."""
    other_calls: int
    runs_untraced: tuple[Run, ...]
    runs_traced: tuple[Run, ...]
    findings: tuple[Finding, ...]
    log: bytes = field(default=b"", repr=False)
    """What bpftrace printed, unchanged."""
    tracer_stderr: str = field(default="", repr=False)
    """What bpftrace complained of."""
    cost: AgentCost | None = None
    """None where the trial did not come to its end."""
    attempt: int = 1
    """2 if it repeats a refused trial, or stands in for the partner of one."""
    wanted: Placement = Placement.LAST
    """The placement that was aimed at; `placement` is what was proven."""
    order: tuple[ProgramOrder, ...] | None = None
    """The order of the programs at entry and at exit; None where the kernel did not tell it."""
    operation_us: float | None = None
    """Traced mean of lmbench's whole operation, µs; None unless all its syscalls were traced."""
    first: Trial | None = None
    """Under `both`: the same once more, without `user` and with the tracer before the agent."""

    @property
    def refused(self) -> bool:
        """Whether its figures stay out of the statistics."""
        return any(finding.severity is Severity.INVALID for finding in self.findings)

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""
        return [str(each) for each in self.findings if each.severity is Severity.INVALID]

    @property
    def user_us(self) -> float | None:
        """The user's cost: median of lmbench's own figures with no tracer attached, µs per op."""
        figures = sorted(run.us_per_op for run in self.runs_untraced if run.us_per_op is not None)
        if not figures:
            return None
        middle = len(figures) // 2
        return figures[middle] if len(figures) % 2 else sum(figures[middle - 1 : middle + 1]) / 2

    @property
    def user_mean_us(self) -> float | None:
        """Mean of lmbench's own figures with no tracer attached, to be set beside traced means."""
        figures = [run.us_per_op for run in self.runs_untraced if run.us_per_op is not None]
        return statistics.fmean(figures) if figures else None

    def figure_us(self, figure: str) -> float | None:
        """A figure of the trial in µs: p50, p90, p99, mean (traced, raw) or user (untraced)."""
        if figure == "user":
            return self.user_us
        return self._traced_us.get(figure)

    @cached_property
    def _traced_us(self) -> dict[str, float]:
        """All traced figures; empty without calls. Kept, since a verdict asks for each often."""
        return figures_us(self.distribution) if self.distribution.count else {}

    @property
    def stderr_text(self) -> str:
        """What bpftrace and each lmbench run wrote besides their figures' log."""
        runs = [("untraced", self.runs_untraced), ("traced", self.runs_traced)]
        lines = [f"bpftrace: {line}" for line in self.tracer_stderr.splitlines()]
        for condition, done in runs:
            for number, run in enumerate(done, start=1):
                lines += [
                    f"lmbench {condition} {number}: {line}" for line in run.output.splitlines()
                ]
        return "".join(f"{line}\n" for line in lines)

    def with_finding(self, finding: Finding) -> Trial:
        """The same trial with one more finding."""
        return replace(self, findings=(*self.findings, finding))

    def with_first(self, first: Trial) -> Trial:
        """The same trial, with what was measured of it with the tracer before the agent."""
        return replace(self, first=first)

    @property
    def counts_as_first(self) -> bool:
        """Whether its figures are proven to be those of a tracer before the agent."""
        return self.placement is Placement.FIRST and not self.refused

    @property
    def placements_proven(self) -> bool:
        """Whether it has figures of both placements, each proven, and of the user."""
        return (
            self.placement is Placement.LAST
            and not self.refused
            and self.first is not None
            and self.first.counts_as_first
            and self.user_mean_us is not None
        )

    @property
    def has_operation(self) -> bool:
        """Whether all syscalls of lmbench's operation were traced in both placements."""
        return None not in (self.operation_us, self.first and self.first.operation_us)

    def overheads(self, vanilla: Trial, *, whole_operation: bool) -> Overheads:
        """What it costs above vanilla's trial of its block; both must have proven placements."""
        user, last, first = (
            agent_us - vanilla_us
            for agent_us, vanilla_us in zip(
                self._means_us(whole_operation), vanilla._means_us(whole_operation), strict=True
            )
        )
        return Overheads(user, last, first)

    def _means_us(self, whole_operation: bool) -> tuple[float, float, float]:
        """Untraced, with the tracer last, with the tracer first."""
        assert self.first is not None
        last, first = (
            each.operation_us if whole_operation else each.figure_us("mean")
            for each in (self, self.first)
        )
        user = self.user_mean_us
        assert user is not None
        assert last is not None
        assert first is not None
        return user, last, first

    @property
    def spent_s(self) -> float:
        """What it took, in each placement together."""
        return self.duration_s + (self.first.duration_s if self.first else 0.0)

    def misplaced(self, finding: Finding) -> Trial:
        """The same trial, its placement not known for the reason that the finding gives."""
        return replace(self.with_finding(finding), placement=Placement.UNKNOWN)

    def without_log(self) -> Trial:
        """The same trial, its logs left to the files."""
        first = self.first.without_log() if self.first else None
        return replace(self, log=b"", tracer_stderr="", first=first)

    def with_attempt(self, attempt: int) -> Trial:
        """The same trial as the first or second attempt."""
        return replace(self, attempt=attempt)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "syscall": self.key.syscall,
            "label": self.key.arm,
            "trial": self.key.trial,
            "node": self.node,
            "testbed": self.testbed,
            "placement": str(self.placement),
            "placement_wanted": str(self.wanted),
            "program_order": None if self.order is None else [o.as_dict() for o in self.order],
            "attempt": self.attempt,
            "started_at_s": round(self.started_at_s, 3),
            "duration_s": round(self.duration_s, 3),
            "refused": self.refused,
            "calls": self.distribution.count,
            "other_calls": self.other_calls,
            "figures_us": {**self._traced_us, "user": self.user_us},
            "cost": self.cost.as_dict() if self.cost else None,
            "findings": [each.as_dict() for each in self.findings],
            "operation_us": self.operation_us,
            "user_mean_us": self.user_mean_us,
            "first": self.first.as_dict() if self.first else None,
        }


def operation_us(trace: Trace) -> float | None:
    """Mean of an open and the close that belongs to it, µs.

    None where closes were not traced, or where more than 0.1 % of the opens have none.
    """
    opens = trace.succeeded.count
    if not trace.closes or abs(opens - trace.closes) > FAILED_SHARE_LIMIT * opens:
        return None
    return (trace.succeeded.mean_ns + trace.close_ns / trace.closes) / 1000


@dataclass(frozen=True, slots=True)
class TracerFirst:
    """How a trial gets the tracer in before the agent: the agent is off while it attaches."""

    switch_off: Callable[[], None]
    """Called before the tracer attaches; raises AgentError."""
    switch_on: Callable[[], None]
    """Called when it is attached; back with the agent ready and warm; raises AgentError."""
    with_user: bool
    """Whether the untraced runs are made, too; else they belong to another trial."""


@dataclass
class Bench:
    """All that a trial needs, made once a session."""

    settings: Settings
    testbed: Testbed
    workload: Workload
    tracer: Tracer
    server: TcpServer
    audit: KernelAudit
    rootdir: Path
    """Whose copies of shipped files win."""

    def measure(
        self,
        key: TrialKey,
        agent: Agent,
        progress: Tell = silent,
        *,
        tracer_first: TracerFirst | None = None,
    ) -> Trial:
        """Measure one trial in the arm that is active.

        The tracer attaches after the agent, unless `tracer_first` says how to let it come before.

        Whatever goes wrong on the node becomes a finding that refuses the trial; only what the
        user does (Ctrl-C) passes through.
        """
        started_at_s = time.time()
        begin_s = time.monotonic()
        session = _TrialRun(
            self, self.settings.syscall(key.syscall), key, agent, progress, tracer_first
        )
        try:
            session.run()
        except TracerError as error:
            session.findings.append(invalid("tracer-failed", str(error)))
        except AgentError as error:
            session.findings.append(invalid("agent-failed", str(error)))
        except TestbedError as error:
            session.findings.append(invalid("testbed-failed", str(error)))
        except Exception as error:
            session.findings.append(invalid("unexpected", repr(error)))
        finally:
            session.end()
        trace = session.trace
        return Trial(
            key=key,
            node=self.testbed.node,
            testbed=self.testbed.name,
            placement=session.placement,
            started_at_s=started_at_s,
            duration_s=time.monotonic() - begin_s,
            distribution=trace.succeeded if trace else Distribution.empty(),
            other_calls=trace.other if trace else 0,
            runs_untraced=tuple(session.runs_untraced),
            runs_traced=tuple(session.runs_traced),
            findings=tuple(session.findings),
            cost=session.cost,
            log=session.log,
            tracer_stderr=session.tracer_stderr,
            wanted=session.wanted,
            order=session.order,
            operation_us=operation_us(trace) if trace else None,
        )


class _TrialRun:
    """The steps of one trial, in order, and what they gathered."""

    def __init__(
        self,
        bench: Bench,
        syscall: Syscall,
        key: TrialKey,
        agent: Agent,
        progress: Tell,
        tracer_first: TracerFirst | None,
    ) -> None:
        self._bench = bench
        self._syscall = syscall
        self._key = key
        self._agent = agent
        self._progress = progress
        self._tracer_first = tracer_first
        self._tracing: Tracing | None = None
        self._sampler: CostSampler | None = None
        self._untraced_s = 0.0
        self._traced_s = 0.0
        self.placement = Placement.UNKNOWN
        self.runs_untraced: list[Run] = []
        self.runs_traced: list[Run] = []
        self.findings: list[Finding] = []
        self.trace: Trace | None = None
        self.cost: AgentCost | None = None
        self.log = b""
        self.tracer_stderr = ""
        self.wanted = Placement.FIRST if tracer_first else Placement.LAST
        self.order: tuple[ProgramOrder, ...] | None = None
        self._holders: list[Holder] | None = None
        """All but the tracer, as of the moment at which recording began."""

    def run(self) -> None:
        bench = self._bench
        reason = bench.testbed.drop_page_cache()
        if reason:
            self.findings.append(note("page-cache-kept", reason))
        if self._syscall.command == EXECVE.command and bench.workload.helper_problem:
            self.findings.append(warning("no-helper", bench.workload.helper_problem))
        if bench.testbed.core_problem:
            self.findings.append(warning("core-shared", bench.testbed.core_problem))
        cores = [bench.workload.allowed_cores()]
        throttled = bench.testbed.throttled_count()
        network = self._network()
        audit_waits = self._audit_waits()

        self._progress("warm-up")
        bench.workload.run(self._syscall)
        if self._tracer_first is None:
            self._start_sampler()
        drops_before = drops_untraced = self._agent.drops()
        if self._tracer_first is None or self._tracer_first.with_user:
            self._run_untraced()
        if self._tracer_first is None:
            self._progress("attaching")
            self._check_place()
            self._tracing = self._attach()
        else:
            if self._tracer_first.with_user:
                # Before it is switched off: then its counter begins anew.
                drops_untraced = self._agent.drops()
            self._tracing = self._attach_first(self._tracer_first)
            self._start_sampler()
        bench.workload.run(self._syscall)
        self._tracing.begin()
        self._progress("traced", runs=bench.settings.runs(self._syscall.name))
        drops = self._agent.drops()
        if self._tracer_first is None:
            # Later than the last untraced run: an agent notices its last drops with a delay.
            drops_untraced = drops
        kernel_time = self._agent.kernel_time()
        times = bench.testbed.core_times()
        self._run_traced(self._tracing)
        times_after = bench.testbed.core_times()
        kernel_time_after = self._agent.kernel_time()
        usage = self._finish_sampler()
        self._check_order(self._tracing)
        self.trace, self.log, self.tracer_stderr = self._tracing.stop()
        self._check_place_again()

        cores.append(bench.workload.allowed_cores())
        audit_problem = bench.audit.problem()
        if audit_problem:
            self.findings.append(invalid("audit-not-kept-off", audit_problem))
        self.findings += check_trace(
            self.trace, self._syscall, bench.settings.min_calls, self._key.arm
        )
        self.findings += check_runs([*self.runs_untraced, *self.runs_traced], self._key.arm)
        self.findings += check_rate(self.runs_untraced, self.runs_traced, bench.settings.rate)
        self.findings += check_pinning(cores, bench.testbed.core)
        self.findings += check_throttling(throttled, bench.testbed.throttled_count())
        self.findings += check_load(times, times_after)
        self.findings += check_audit_waits(audit_waits, self._audit_waits())
        if network is not None:
            after = self._network()
            assert after is not None
            self.findings += check_network(network, after, bench.server.inode)
        not_ready = self._agent.ready()
        drops_after = None
        if not_ready:
            self.findings.append(invalid("agent-not-ready", not_ready))
        else:
            # As late as possible: an agent notices its last drops with a delay.
            drops_after = self._agent.drops()
            self.findings += check_drops(drops, drops_after, self.trace.total, self._key.arm)
            figures = [run.us_per_op for run in self.runs_untraced if run.us_per_op]
            if figures:
                # Not counted: as many as fit, so a share of drops is rather told too small.
                calls = round(self._untraced_s * 1e6 / statistics.median(figures))
                self.findings += check_drops(
                    drops_before, drops_untraced, calls, self._key.arm, "untraced"
                )
        kernel_runs, kernel_time_ns = kernel_use(kernel_time, kernel_time_after)
        self.cost = AgentCost(
            calls_per_s=self.trace.total / self._traced_s if self._traced_s else None,
            kernel_runs=kernel_runs,
            kernel_time_ns=kernel_time_ns,
            dropped=dropped_between(drops, drops_after),
            **(asdict(usage) if usage else {}),
        )
        self.findings += check_agent_cores(self.cost, bench.testbed.core, self._key.arm)

    def _start_sampler(self) -> None:
        """Watch the agent's processes, if it has any: what it costs is no reason to refuse."""
        processes = self._agent.processes()
        if processes == Processes():
            return
        self._sampler = CostSampler(self._bench.testbed, self._bench.rootdir)
        try:
            self._sampler.start(processes)
        except SamplerFailed as error:
            self._cost_unknown(error)

    def _finish_sampler(self) -> Usage | None:
        if self._sampler is None:
            return None
        try:
            return self._sampler.finish()
        except SamplerFailed as error:
            self._cost_unknown(error)
            return None

    def _cost_unknown(self, reason: SamplerFailed) -> None:
        self._end_sampler()
        self.findings.append(
            warning("agent-cost-unknown", f"CPU and memory of {self._key.arm}: {reason}")
        )

    def _end_sampler(self) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.end()

    def _audit_waits(self) -> int | None:
        if not self._bench.audit.available:
            return None
        return self._bench.audit.status()["backlog_wait_time_actual"]

    def _network(self) -> TcpCounters | None:
        if not self._syscall.needs_server:
            return None
        return read_tcp_counters(self._bench.testbed, LAT_CONNECT_PORT)

    def _run_untraced(self) -> None:
        runs = self._bench.settings.lmbench_reps
        for number in range(runs):
            self._progress("untraced", run=number, runs=runs)
            run, took_s = self._timed_run()
            self.runs_untraced.append(run)
            self._untraced_s += took_s

    def _timed_run(self) -> tuple[Run, float]:
        """A run of the workload, and what it took in s; what is told between runs is none of it."""
        begin_s = time.monotonic()
        return self._bench.workload.run(self._syscall), time.monotonic() - begin_s

    def _check_place(self) -> None:
        """Prove that the tracer will run last; called before it attaches."""
        self._holders = list_holders(self._bench.testbed)
        if self._holders is None:
            self._warn_that_nothing_is_listed()
            return
        strangers = self._strangers(self._holders)
        self.placement = Placement.UNKNOWN if strangers else placement_of_next(self._holders)
        if self.placement is Placement.UNKNOWN:
            self._warn_of_tracers(strangers or self._holders)

    def _strangers(self, holders: list[Holder]) -> list[Holder]:
        """Holders that are not the agent's; those that no process holds are taken for its own."""
        processes = self._agent.processes()
        if processes == Processes():
            return holders if isinstance(self._agent, Vanilla) else []
        pids = {holder.pid for holder in holders if holder.pid is not None}
        ours = members(self._bench.testbed, processes, pids)
        return [each for each in holders if each.pid is not None and each.pid not in ours]

    def _attach(self) -> Tracing:
        """The probes are the same in both placements, or their figures could not be compared."""
        whole = self._bench.settings.placement == "both"
        return self._bench.tracer.attach(self._syscall, whole_operation=whole)

    def _attach_first(self, how: TracerFirst) -> Tracing:
        """Attach the tracer while the agent is off, then switch it on; prove that nobody was there.

        What is there before the tracer is a stranger's, since the agent is off.
        """
        testbed = self._bench.testbed
        self._progress("switching off")
        how.switch_off()
        self._progress("attaching")
        before = list_holders(testbed)
        self._tracing = self._attach()
        with_tracer = list_holders(testbed)
        self._progress("switching on")
        how.switch_on()
        with_agent = list_holders(testbed)
        if before is None or with_tracer is None or with_agent is None:
            self._warn_that_nothing_is_listed()
            return self._tracing
        # Not by process: a tracer's links may be listed without one.
        tracer = [each for each in with_tracer if each not in before]
        self._holders = [each for each in with_agent if each not in tracer]
        # Who came while the agent was switched on need not be the agent.
        strangers = before or self._strangers(self._holders)
        self.placement = Placement.UNKNOWN if strangers else Placement.FIRST
        if strangers:
            self._warn_of_tracers(strangers)
        return self._tracing

    def _check_order(self, tracing: Tracing) -> None:
        """Compare with the order that the kernel tells; called while the tracer is attached."""
        listed = bpftool_list(self._bench.testbed, "perf", "show")
        if listed is None:
            return
        ours = {entry["prog_id"] for entry in listed if entry["pid"] == tracing.pid}
        if not ours:
            # A list that does not know the tracer says nothing against its place.
            return
        self.order = read_order(self._bench.testbed, self._syscall.events, ours)
        problem = contradiction(self.order or (), self.wanted)
        if problem and self.placement is not Placement.UNKNOWN:
            self.placement = Placement.UNKNOWN
            self.findings.append(
                undecided("placement-contradicted", f"the tracer is not {self.wanted}: {problem}")
            )

    def _check_place_again(self) -> None:
        """Nobody may have come or gone while the tracer was attached; called after it has ended."""
        holders = list_holders(self._bench.testbed)
        if holders is None:
            self.placement = Placement.UNKNOWN
        elif self._holders is not None and holders != self._holders:
            self.placement = Placement.UNKNOWN
            changed = [each for each in holders if each not in self._holders]
            changed += [each for each in self._holders if each not in holders]
            self._warn_of_tracers(changed)

    def _warn_that_nothing_is_listed(self) -> None:
        self.findings.append(
            warning("placement-unknown", f"bpftool is not there: no proof who runs {self.wanted}")
        )

    def _warn_of_tracers(self, holders: list[Holder]) -> None:
        named = ", ".join(map(str, holders[:3]))
        self.findings.append(
            warning("other-tracers", f"others trace syscalls on this node: {named}")
        )

    def _run_traced(self, tracing: Tracing) -> None:
        settings = self._bench.settings
        planned = settings.runs(self._syscall.name)
        self._run_often(planned, None)
        calls = tracing.calls_so_far()
        while 0 < calls < settings.min_calls:
            # More of what will be refused anyway is only waiting time.
            if tracing.failed_so_far() > FAILED_SHARE_LIMIT * calls:
                break
            done = len(self.runs_traced)
            missing = -(-(settings.min_calls - calls) * done // calls)
            allowed = EXTRA_RUNS_FACTOR * planned - done
            if allowed <= 0:
                break
            self._run_often(min(missing, allowed), calls)
            calls = tracing.calls_so_far()

    def _run_often(self, count: int, calls: int | None) -> None:
        runs = len(self.runs_traced) + count
        for _ in range(count):
            if self.runs_traced:
                self._progress("traced", run=len(self.runs_traced), runs=runs, calls=calls)
            run, took_s = self._timed_run()
            self.runs_traced.append(run)
            self._traced_s += took_s

    def end(self) -> None:
        with contextlib.suppress(TestbedError):
            self._end_sampler()
        if self._tracing is not None:
            self._tracing.end()
            if not self.log:
                # What speaks for the reason of a failure is kept, too.
                with contextlib.suppress(TestbedError):
                    self.log, self.tracer_stderr = self._tracing.printed()
                    self._tracing.remove_output()
