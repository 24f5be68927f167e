"""One session: measures the plan in order, repeats what was refused, judges, keeps the files.

Items of pytest ask for a trial or a verdict; the order in which trials are measured is the plan's
alone. So whatever order a plugin gives to the items, blocks stay interleaved: asking for a trial
first measures all that the plan puts before it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pytest_syslat.agents.protocol import AgentError, AgentFactory
from pytest_syslat.analysis import Analysis
from pytest_syslat.arms import Arms, Switch
from pytest_syslat.attribution import Attribution, attribute
from pytest_syslat.bpf_programs import list_programs
from pytest_syslat.comparison import Comparison
from pytest_syslat.confirmation import Confirmation, confirm
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding, invalid, undecided, warning
from pytest_syslat.gate import Cell, CellResult
from pytest_syslat.kernel_audit import KernelAudit
from pytest_syslat.placement import Placement
from pytest_syslat.plan import Plan, TrialKey
from pytest_syslat.progress import Progress, Step, Tell
from pytest_syslat.records import RunRecord
from pytest_syslat.rig import Rig
from pytest_syslat.sequential import LOOKS, next_look
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.sysinfo import collect_sysinfo
from pytest_syslat.testbeds.protocol import NodeLost, TestbedError
from pytest_syslat.tracer import Tracer
from pytest_syslat.trial import Bench, TracerFirst, Trial
from pytest_syslat.unpaired import GrowthResult
from pytest_syslat.workload import WorkloadError

LATER_WARMUP_SHARE = 0.1
ATTEMPTS_TO_START = 2
UNPROVEN = (
    "nothing shows that the agent works, or that it had begun: it has no BPF program, no counter "
    "and no sign of readiness (--syslat-ready)"
)


class Experiment:
    """Owns arms and results of a session."""

    def __init__(
        self,
        *,
        settings: Settings,
        plan: Plan,
        selected: Collection[TrialKey],
        judged: Collection[Cell],
        factories: Mapping[str, AgentFactory],
        rig: Rig,
        claim_directory: Callable[[], Path],
        progress: Progress,
        comparison: Comparison,
        silent_policies: Mapping[tuple[str, str], str],
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.planned = frozenset(plan.order)
        """All that the plan held at first: `--syslat-until` may cut it."""
        self.comparison = comparison
        self.trials: dict[TrialKey, Trial] = {}
        self.replaced: list[Trial] = []
        self.interrupted: Trial | None = None
        """The trial at hand when the run was ended early: refused, and in the findings alone."""
        self.confirmation: Confirmation | None = None
        self.attributed: dict[tuple[str, str], Attribution] = {}
        """By syscall and agent."""
        self.repeats: Counter[str] = Counter()
        self.switching_s = 0.0
        self.warnings: list[str] = []
        self.facts: Mapping[str, str] = {}
        """What the figures depend on, once all is in place."""
        self.record: RunRecord | None = None
        self._claim_directory = claim_directory
        self._selected = set(selected)
        self._judged = set(judged)
        self._rig = rig
        self._testbed = rig.testbed
        self._progress = progress
        self._audit = KernelAudit(rig.testbed)
        self._arms = Arms(rig.testbed, factories, rig.rootdir)
        self._audit_is_open = False
        self._bench: Bench | None = None
        self._warmed: set[str] = set()
        self._unproven: set[str] = set()
        self._silent_policies = silent_policies
        self._known: set[int] = set()
        """BPF programs that were loaded while every agent was off."""
        self._never_on: dict[str, list[str]] = {}
        """Why each attempt to switch an arm on has failed, of arms that have never been on."""
        self._repeated_blocks: set[int] = set()
        self._results: dict[Cell, CellResult] | None = None
        self.looked_at: list[int] = []
        """Numbers of blocks after which the verdicts have been looked at, to end the run or not."""
        self.decided_after: int | None = None
        """Number of blocks of the look that left nothing to decide, and so ended the run."""
        self._judged_pass: Trial | None = None
        """A trial whose own figures are there, while more is measured beside it."""
        self._looking_at: int | None = None
        """Number of blocks that a look concerns, while it is taken."""
        self._next_look = LOOKS[0] if settings.until and self._judged else None
        """Number of blocks after which the verdicts are looked at next."""
        self._growth: dict[Cell, GrowthResult] | None = None

    @property
    def switches(self) -> Sequence[Switch]:
        """Each switching of an agent, in order."""
        return self._arms.switches

    def open(self) -> None:
        """Put everything in place.

        Raises:
            TestbedError, ToolMissing, WorkloadError, TracerError, AgentError, DirectoryProblem:
                One line for the user.
        """
        rig = self._rig
        self._bench = Bench(
            self.settings,
            testbed=rig.testbed,
            tracer=rig.tracer,
            workload=rig.workload,
            server=rig.server,
            audit=self._audit,
            rootdir=rig.rootdir,
        )
        self._check_added(rig.tracer)
        if self._audit.available:
            self._audit_is_open = True
            self._audit.open()
        else:
            self.warnings.append(
                "auditctl cannot be used here: if kernel audit was ever on since boot, every "
                "figure carries a part of its cost (make provision)"
            )
        if self.comparison.stored_runs:
            # Before agents are installed, which may take minutes and be for nothing.
            self.comparison.check_facts(
                collect_sysinfo(rig.testbed, rig.workload, rig.tracer, {}, self.settings)
            )
            self.warnings += self.comparison.warnings
        self._progress.preparing(f"installing {', '.join(self.settings.agents) or VANILLA}")
        self._arms.prepare()
        self.facts = collect_sysinfo(
            rig.testbed, rig.workload, rig.tracer, self._arms.versions(), self.settings
        )
        # Last, so that a start which fails does not move an earlier run's files.
        self.record = RunRecord(self._claim_directory())
        self.record.note_comparison(self.comparison.as_dict())
        self.record.open(self.settings, self.plan, self.facts)
        self._progress.opened(self.facts)
        if self.settings.placement != "last":
            self._confirm(self._bench)
        if self.settings.attribute:
            self._known = {each.id for each in list_programs(rig.testbed) or ()}
        self._progress.paused()

    def _check_added(self, tracer: Tracer) -> None:
        """Whether the node knows what files and conftests say of syscalls; raises TracerError."""
        planned = {key.syscall for key in self.plan.order}
        for each in self.settings.syscalls:
            if each.name in planned and each.name not in SYSCALLS:
                tracer.check(each)

    def _confirm(self, bench: Bench) -> None:
        """Try the placements on loads of known place, with every agent off."""
        self._progress.preparing("confirming the placement of the tracer by a load")
        both = (Placement.LAST, Placement.FIRST)
        wanted = both if self.settings.placement == "both" else (Placement.FIRST,)
        self.confirmation = confirm(bench, wanted)
        if self.confirmation.problem:
            self.warnings.append(
                f"the placement could not be confirmed by a load: {self.confirmation.problem}"
            )
        for against in filter(None, map(self.confirmation.contradiction, wanted)):
            self.warnings.append(f"the placement of the tracer is unknown: {against}")
        assert self.record is not None
        self.record.confirmed(self.confirmation.as_dict())

    def close(self) -> list[str]:
        """Write the last files and remove agents and rules; what is left behind is returned."""
        left = self._arms.close()
        if self._audit_is_open:
            try:
                self._audit.close()
            except (TestbedError, OSError) as error:
                left.append(str(error))
        if self.record is None:
            return left
        analysis = self.analysis
        growth = analysis.growth()
        if growth:
            self.record.write_growth(growth, self.comparison.growth_placement(self.trials))
        self.record.close(
            self,
            looked_at=self.looked_at,
            decided_after=self.decided_after,
            results=analysis.results(),
            first_results=analysis.first_results(),
            splits=analysis.splits(),
            attributions=analysis.attributions(),
            complete=self.plan.complete and all(key in self.trials for key in self.plan.order),
        )
        return left

    def needs(self, key: TrialKey) -> bool:
        """Whether a trial of the plan is to be measured: not once all verdicts stand.

        Under `--syslat-until` the blocks before it are measured first, if it takes a look at them
        to tell.
        """
        while self._next_look is not None and key.trial > self._next_look:
            self._look(self._next_look)
        return key in self.plan.order

    def _look(self, blocks: int) -> None:
        for key in self.plan.order:
            if key.trial <= blocks:
                self._ensure(key)
        for trial in range(1, blocks + 1):
            self._repeat_refused(trial)
        self.looked_at.append(blocks)
        self._looking_at = blocks
        self._next_look = next_look(self.analysis.results(), blocks)
        self._looking_at = None
        if self._next_look is None:
            self.decided_after = blocks
            self.plan = self.plan.until(blocks)

    def measure(self, key: TrialKey) -> Trial:
        """The trial of a key, measured now with all that the plan puts before it.

        If a trial of its block was refused, the rest of the block is measured and what was refused
        is repeated before this returns, so that the answer is the final one.
        """
        position = self.plan.order.index(key)
        for planned in self.plan.order[: position + 1]:
            self._ensure(planned)
        for planned in self.plan.order[position + 1 :]:
            if planned in self._selected or not self.needs(planned):
                break
            self._ensure(planned)
        if any(
            self.trials[each].refused for each in self.plan.block(key.trial) if each in self.trials
        ):
            self._repeat_refused(key.trial)
        return self.trials[key]

    def complete(self) -> None:
        """Measure all that the plan still holds."""
        for key in self.plan.order:
            if self.needs(key):
                self._ensure(key)
        for trial in sorted({key.trial for key in self.plan.order}):
            self._repeat_refused(trial)
        if self._next_look == self.plan.blocks:
            self.looked_at.append(self.plan.blocks)
            self._next_look = None

    def judge(self, cell: Cell) -> CellResult:
        """The verdict on a cell, after everything has been measured."""
        self.complete()
        if self._results is None:
            self._results = {result.cell: result for result in self.analysis.results()}
        return self._results[cell]

    def judge_growth(self, cell: Cell) -> GrowthResult:
        """The verdict on a cell's growth since a stored run, after all has been measured."""
        self.complete()
        if self._growth is None:
            self._growth = {each.tested.cell: each for each in self.analysis.growth()}
        return self._growth[cell]

    @property
    def analysis(self) -> Analysis:
        """What the trials measured so far say together."""
        return Analysis(
            settings=self.settings,
            trials=self.trials,
            planned=[
                key
                for key in self.plan.order
                if self._looking_at is None or key.trial <= self._looking_at
            ],
            judged=self._judged,
            comparison=self.comparison,
            attributed=self.attributed,
        )

    def _ensure(self, key: TrialKey) -> None:
        if key not in self.trials:
            self._store(self._measured(key, attempt=1))

    def _measured(self, key: TrialKey, attempt: int) -> Trial:
        try:
            return self._measured_now(key, attempt)
        except KeyboardInterrupt as stop:
            if self._judged_pass is not None and attempt == 1:
                # Only what is measured beside it was cut off.
                self._store(self._judged_pass)
            else:
                self.interrupted = self._not_measured(
                    key, invalid("interrupted", f"the run was ended: {str(stop) or 'Ctrl-C'}")
                )
            raise
        finally:
            self._judged_pass = None
            self._progress.paused()

    def _measured_now(self, key: TrialKey, attempt: int) -> Trial:
        assert self._bench is not None
        number, total = self.plan.order.index(key) + 1, len(self.plan.order)

        def step(name: str, *, run: int = 0, runs: int = 0, calls: int | None = None) -> None:
            self._progress.trial_step(key, Step(name, run, runs, calls), number, total)

        try:
            if self._rig.renew():
                self._arms.unsettle()
                if self._audit_is_open:
                    # The rule went with the pod.
                    self._audit.quieten()
        except (TestbedError, WorkloadError) as error:
            trial = self._not_measured(key, invalid("testbed-failed", str(error)))
            return self._finished(trial, attempt, number, total)
        if len(self._never_on.get(key.arm, ())) >= ATTEMPTS_TO_START:
            # Each further attempt would take as long to fail as the ones before.
            reason = f"{self._never_on[key.arm][-1]} (not tried again)"
            trial = self._not_measured(key, invalid("agent-not-ready", reason))
            return self._finished(trial, attempt, number, total)
        try:
            self._switch_to(key.arm, step)
        except NodeLost as error:
            trial = self._not_measured(key, invalid("testbed-failed", str(error)))
        except (AgentError, TestbedError) as error:
            if key.arm not in self._warmed:
                self._never_on.setdefault(key.arm, []).append(str(error))
            trial = self._not_measured(key, invalid("agent-not-ready", str(error)))
        except Exception as error:
            trial = self._not_measured(key, invalid("unexpected", f"{key.arm}: {error!r}"))
        else:
            trial = self._measured_as_placed(key, step)
            if self.settings.attribute and key.arm != VANILLA and not trial.refused:
                self._judged_pass = trial
                self._attribute(key, step)
        return self._finished(trial, attempt, number, total)

    def _measured_as_placed(self, key: TrialKey, step: Tell) -> Trial:
        """The trial in each placement that was asked for; returned is the one that is judged."""
        if self.settings.placement == "first":
            return self._pass(key, step, self._tracer_first(key, step, with_user=True))
        trial = self._pass(key, step, None)
        if self.settings.placement != "both" or trial.refused:
            return trial
        self._judged_pass = trial
        beside = self._pass(key, step, self._tracer_first(key, step, with_user=False))
        if beside.refused:
            self.repeats[key.arm] += 1
            again = self._pass(key, step, self._tracer_first(key, step, with_user=False))
            beside = again.with_attempt(2)
        if beside.refused:
            reason = f"with the tracer before the agent: {beside.reasons[0]}"
            trial = trial.with_finding(warning("first-refused", reason))
        return trial.with_first(beside)

    def _attribute(self, key: TrialKey, step: Tell) -> None:
        """Once for each agent and syscall, after its first valid trial and apart from it."""
        assert self._bench is not None
        if (key.syscall, key.arm) in self.attributed:
            return
        step("attributing")
        syscall, agent = self.settings.syscall(key.syscall), self._arms.agent(key.arm)
        try:
            found = attribute(self._bench, syscall, key.arm, agent, self._known)
        except Exception as error:  # a pass beside the trial must not cost it
            found = Attribution(key.arm, key.syscall, 0, ())
            self.warnings.append(f"{key.syscall} {key.arm} could not be attributed: {error}")
        self.attributed[key.syscall, key.arm] = found

    def _pass(self, key: TrialKey, step: Tell, tracer_first: TracerFirst | None) -> Trial:
        assert self._bench is not None
        agent = self._arms.agent(key.arm)
        trial = self._bench.measure(key, agent, step, tracer_first=tracer_first)
        try:
            not_idle = self._arms.not_idle()
        except NodeLost as error:
            trial = trial.with_finding(invalid("testbed-failed", str(error)))
        else:
            if not_idle:
                trial = trial.with_finding(invalid("other-arm-active", not_idle))
        if key.arm in self._unproven:
            trial = trial.with_finding(undecided("agent-unproven", UNPROVEN))
        silent = self._silent_policies.get((key.arm, key.syscall))
        if silent:
            trial = trial.with_finding(warning("policy-silent", silent))
        against = self.confirmation and self.confirmation.contradiction(trial.wanted)
        if against:
            # Told once, by the session's own warning.
            trial = trial.misplaced(undecided("placement-contradicted", against))
        return trial

    def _tracer_first(self, key: TrialKey, step: Tell, *, with_user: bool) -> TracerFirst:
        """Vanilla, too, is warmed up under the tracer, so that all arms go through the same."""

        def switch_off() -> None:
            self._timed_switch(VANILLA)

        def switch_on() -> None:
            self._timed_switch(key.arm)
            self._warm_up(self.settings.warmup_s * LATER_WARMUP_SHARE, step)

        return TracerFirst(switch_off, switch_on, with_user)

    def _timed_switch(self, arm: str) -> bool:
        """Make an arm the active one; whether anything had to be switched."""
        begin_s = time.monotonic()
        switched = self._arms.activate(arm)
        self.switching_s += time.monotonic() - begin_s
        return switched

    def _finished(self, trial: Trial, attempt: int, number: int, total: int) -> Trial:
        trial = trial.with_attempt(attempt)
        self._progress.trial_done(trial, number, total, self._left_s(trial))
        return trial

    def _switch_to(self, arm: str, step: Tell) -> None:
        step("switching")
        switched = self._timed_switch(arm)
        if arm not in self._warmed:
            self._note_facts(arm)
            self._warmed.add(arm)
            self._warm_up(self.settings.warmup_s, step)
        elif switched:
            self._warm_up(self.settings.warmup_s * LATER_WARMUP_SHARE, step)

    def _note_facts(self, arm: str) -> None:
        """Keep what its agent tells once it is on for the first time."""
        assert self.record is not None
        facts = self._arms.agent(arm).facts()
        self.record.agent_is_on(arm, facts)
        self.warnings += [f"{arm}: {doubt}" for doubt in facts.get("doubts", ())]
        if facts.get("unproven"):
            self._unproven.add(arm)

    def _warm_up(self, seconds: float, step: Tell) -> None:
        """Unrecorded load: caches, buffers and the agent itself come to their steady state."""
        step(f"warming up {seconds:g} s")
        deadline = time.monotonic() + seconds
        names = sorted({key.syscall for key in self.plan.order})
        while time.monotonic() < deadline:
            for name in names:
                self._rig.workload.run(self.settings.syscall(name))

    def _not_measured(self, key: TrialKey, finding: Finding) -> Trial:
        return Trial(
            key=key,
            node=self._testbed.node,
            testbed=self._testbed.name,
            placement=Placement.UNKNOWN,
            started_at_s=time.time(),
            duration_s=0.0,
            distribution=Distribution.empty(),
            other_calls=0,
            runs_untraced=(),
            runs_traced=(),
            findings=(finding,),
        )

    def _repeat_refused(self, block: int) -> None:
        """Repeat what was refused in a block, once, with vanilla beside it, at the block's end."""
        if block in self._repeated_blocks:
            return
        keys = self.plan.block(block)
        for key in keys:
            self._ensure(key)
        self._repeated_blocks.add(block)
        refused = {key for key in keys if self.trials[key].refused}
        wanted = refused | {key.partner for key in refused}
        again = {key: self._measured(key, attempt=2) for key in keys if key in wanted}
        for key, trial in again.items():
            self.repeats[key.arm] += 1
            dependent = [each for each in refused if each.partner == key]
            replaces = key in refused or not (
                trial.refused or any(again[each].refused for each in dependent)
            )
            if replaces:
                self.replaced.append(self.trials[key])
                self._store(trial)
            else:
                self.replaced.append(trial.without_log())
                self._store(self.trials[key])

    def _store(self, trial: Trial) -> None:
        # The log is kept on disk: that of an events trial is large.
        self.trials[trial.key] = trial.without_log()
        self._results = self._growth = None
        assert self.record is not None
        self.record.trial_done(self, trial)

    def _left_s(self, latest: Trial) -> float:
        """Seconds that the rest of the plan will take, if it goes on like this."""
        done = [*self.trials.values(), latest]
        by_syscall: dict[str, list[float]] = {}
        for trial in done:
            by_syscall.setdefault(trial.key.syscall, []).append(trial.spent_s)
        overall_s = sum(trial.spent_s for trial in done) / len(done)
        left_s = 0.0
        for key in self.plan.order:
            if key not in self.trials and key != latest.key:
                own = by_syscall.get(key.syscall)
                left_s += sum(own) / len(own) if own else overall_s
        cold = {key.arm for key in self.plan.order} - self._warmed
        return left_s + self.settings.warmup_s * len(cold)
