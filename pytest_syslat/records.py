"""Keeps the result directory up to date: after each trial, so that nothing measured is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.arms import Switch
from pytest_syslat.attribution import Attribution
from pytest_syslat.gate import OVERHEAD_COLUMNS, Cell, CellResult, family_sentence, overhead_rows
from pytest_syslat.placement import Placement
from pytest_syslat.plain import without_nan
from pytest_syslat.plan import Plan, TrialKey
from pytest_syslat.results import RUN_SCHEMA, ResultDirectory, write_atomically, write_frame
from pytest_syslat.sequential import LOOKS, alpha_of_look
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.split import Split
from pytest_syslat.summary import stats_frame, summary_frame, summary_rows
from pytest_syslat.sysinfo import sysinfo_text
from pytest_syslat.trial import Trial
from pytest_syslat.unpaired import GROWTH_COLUMNS, GrowthResult, growth_rows

VALIDITY_COLUMNS = ("label", "syscall", "trial", "severity", "code", "detail")
USER_COLUMNS = ("label", "syscall", "trial", "traced", "us_per_op")
PLACEMENT_COLUMNS = (
    "label",
    "syscall",
    "trial",
    "wanted",
    "placement",
    "avg_us",
    "p50_us",
    "p90_us",
    "p99_us",
    "count",
    "operation_us",
)
ATTRIBUTION_COLUMNS = (
    "agent",
    "syscall",
    "owner",
    "program",
    "attached_to",
    "runs_per_call",
    "ns_per_call",
)
AGENT_COLUMNS = (
    "label",
    "syscall",
    "trial",
    "cpu_s",
    "cpu_pct_of_core",
    "peak_memory_mb",
    "threads",
    "threads_on_core",
    "calls_per_s",
    "dropped",
    "bpf_runs",
    "bpf_ns_per_run",
)


class Measured(Protocol):
    """What an experiment shows of its state."""

    @property
    def trials(self) -> Mapping[TrialKey, Trial]:
        """The trials that count, by key."""

    @property
    def replaced(self) -> Sequence[Trial]:
        """Attempts that do not count: replaced by a repeat, or repeats that replaced nothing."""

    @property
    def interrupted(self) -> Trial | None:
        """The trial at hand when the run was ended early."""

    @property
    def repeats(self) -> Mapping[str, int]:
        """Repeated trials by arm."""

    @property
    def switching_s(self) -> float:
        """Seconds spent on switching arms."""

    @property
    def switches(self) -> Sequence[Switch]:
        """Each switching of an agent, in order."""


class RunRecord:
    """Writes the files of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = ResultDirectory(directory)
        self._run: dict[str, Any] = {"schema": RUN_SCHEMA, "complete": False}
        self._facts: Mapping[str, str] = {}
        self._agents: dict[str, dict[str, Any]] = {}

    def open(self, settings: Settings, plan: Plan, facts: Mapping[str, str]) -> None:
        """Note what will be measured, and on what."""
        self._facts = facts
        self._run |= {
            "settings": settings.as_dict(),
            "syscalls": {each.name: asdict(each) for each in settings.syscalls},
            "system": dict(facts),
            "plan": [key.id for key in plan.order],
            "plan_is_complete": plan.complete,
        }
        if settings.until:
            self._run["sequential"] = {
                "looks": list(LOOKS),
                "alpha_of_each_look": alpha_of_look(),
                "looked_at": [],
                "decided_after": None,
            }
        self._write_run()

    def note_comparison(self, facts: Mapping[str, Any]) -> None:
        """Note the stored runs that this one is compared with; written by `open`."""
        self._run |= facts

    def write_growth(self, results: Sequence[GrowthResult], placement: str) -> None:
        """Write how far overheads have grown since a stored run."""
        frame = _frame(GROWTH_COLUMNS, growth_rows(results, placement))
        frame["p_adjusted"] = [_p_text(each.tested.p_adjusted) for each in results]
        write_frame(self.directory.growth_path, frame)
        self._run["growth"] = [
            {
                **{name: value for name, value in asdict(each).items() if name != "tested"},
                **_cell(each.tested),
            }
            for each in results
        ]

    def agent_is_on(self, arm: str, facts: Mapping[str, Any]) -> None:
        """Note what an agent tells once it is on."""
        self._agents[arm] = dict(facts)
        self._run["agents"] = self._agents

    def confirmed(self, facts: Mapping[str, Any]) -> None:
        """Note what loads of known place have shown of the placements."""
        self._run["placement_check"] = dict(facts)
        self._write_run()

    def trial_done(self, measured: Measured, trial: Trial) -> None:
        """Write the files of the trial's arm anew."""
        key = trial.key
        files = self.directory
        files.arm(key.arm)
        for each, is_first in ((trial, False), (trial.first, True)):
            if each is not None and each.log:
                path = files.log_path(
                    key.arm, key.syscall, key.trial, refused=each.refused, first=is_first
                )
                write_atomically(path, each.log)
                write_atomically(path.with_suffix(".stderr"), each.stderr_text)
        own = [each for each in sorted_trials(measured.trials.values()) if each.key.arm == key.arm]
        valid = [each for each in own if not each.refused]
        summary = summary_frame(
            row
            for each in valid
            for row in summary_rows(
                each.key.arm, each.key.syscall, each.key.trial, each.distribution
            )
        )
        write_frame(files.summary_path(key.arm), summary)
        for name in ("iqr", "raw"):
            write_frame(files.stats_path(key.arm, name), stats_frame(summary, name))
        write_frame(files.user_path(key.arm), _frame(USER_COLUMNS, _user_rows(valid)))
        write_frame(files.agent_path(key.arm), agent_frame(valid))
        if any(each.first for each in own):
            write_frame(
                files.placement_path(key.arm), _frame(PLACEMENT_COLUMNS, _placement_rows(own))
            )
        self._write_validity(measured, key.arm)
        facts = {**self._facts, **_flat(f"agent {key.arm}", self._agents.get(key.arm, {}))}
        write_atomically(files.sysinfo_path(key.arm), sysinfo_text(facts))
        self._note(measured)
        self._write_run()

    def _write_validity(self, measured: Measured, arm: str) -> None:
        stopped = [measured.interrupted] if measured.interrupted else []
        trials = [
            each
            for each in (*sorted_trials(measured.trials.values()), *stopped)
            if each.key.arm == arm
        ]
        first = [each for each in measured.replaced if each.key.arm == arm]
        frame = _frame(VALIDITY_COLUMNS, _validity_rows(trials, first))
        write_frame(self.directory.validity_path(arm), frame)

    def close(
        self,
        measured: Measured,
        results: Sequence[CellResult],
        *,
        complete: bool,
        looked_at: Sequence[int] = (),
        decided_after: int | None = None,
        first_results: Sequence[CellResult] = (),
        splits: Sequence[Split] = (),
        attributions: Sequence[Attribution] = (),
    ) -> None:
        """Write overheads and verdicts, and whether the run is complete.

        Args:
            measured: The experiment.
            results: Of its trials.
            complete: Whether all that the settings name was measured.
            looked_at: Numbers of blocks after which verdicts were looked at, to end the run or not.
            decided_after: That of the look which ended the run, if one did.
            first_results: Of the same trials with the tracer before the agent; never judged.
            splits: Where each agent spends its time.
            attributions: Which programs spend it.
        """
        if "sequential" in self._run:
            self._run["sequential"]["looked_at"] = list(looked_at)
            self._run["sequential"]["decided_after"] = decided_after
        self._note(measured)
        if measured.interrupted:
            arm = measured.interrupted.key.arm
            self.directory.arm(arm)
            self._write_validity(measured, arm)
            self._run["interrupted"] = measured.interrupted.as_dict()
        if results:
            rows = [
                row
                for result in results
                for row in overhead_rows([result], _placement(measured.trials, result.cell))
            ]
            rows += overhead_rows(first_results, str(Placement.FIRST))
            frame = _frame(OVERHEAD_COLUMNS, rows)
            frame["p_adjusted"] = [
                _p_text(result.p_adjusted) for result in (*results, *first_results)
            ]
            write_frame(self.directory.overhead_path, frame)
        self._run["cells"] = [_cell(result) for result in results]
        self._run["family"] = family_sentence(results)
        if first_results:
            self._run["cells_first"] = [_cell(result) for result in first_results]
        if splits:
            self._run["split"] = [each.as_dict() for each in splits]
        if attributions:
            rows = list(_attribution_rows(attributions))
            write_frame(self.directory.attribution_path, _frame(ATTRIBUTION_COLUMNS, rows))
            self._run["attribution"] = [asdict(each) for each in attributions]
        self._run["complete"] = complete
        self._write_run()

    def _note(self, measured: Measured) -> None:
        self._run["trials"] = [trial.as_dict() for trial in measured.trials.values()]
        self._run["replaced_trials"] = [trial.as_dict() for trial in measured.replaced]
        self._run["repeats"] = dict(measured.repeats)
        self._run["switching_s"] = round(measured.switching_s, 3)
        self._run["switches"] = [asdict(each) for each in measured.switches]

    def _write_run(self) -> None:
        text = json.dumps(without_nan(self._run), indent=1, ensure_ascii=False)
        write_atomically(self.directory.run_path, text + "\n")


def _placement(trials: Mapping[TrialKey, Trial], cell: Cell) -> str:
    """Where the tracer ran in all trials behind a cell; refused ones are not behind it."""
    found = {
        trial.placement
        for key, trial in trials.items()
        if key.syscall == cell.syscall and key.arm in (cell.agent, VANILLA) and not trial.refused
    }
    return str(found.pop() if len(found) == 1 else Placement.UNKNOWN)


def sorted_trials(trials: Iterable[Trial]) -> list[Trial]:
    """In the order of the files: by block, then by syscall."""
    return sorted(trials, key=lambda each: (each.key.trial, each.key.syscall))


def _frame(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))


def _user_rows(trials: Iterable[Trial]) -> Iterable[dict[str, object]]:
    for trial in trials:
        for traced, runs in (("no", trial.runs_untraced), ("yes", trial.runs_traced)):
            for run in runs:
                if run.us_per_op is not None:
                    yield {
                        "label": trial.key.arm,
                        "syscall": trial.key.syscall,
                        "trial": trial.key.trial,
                        "traced": traced,
                        "us_per_op": run.us_per_op,
                    }


def _placement_rows(trials: Iterable[Trial]) -> Iterable[dict[str, object]]:
    """The figures of each pass that counts, whatever the other pass of the trial gave."""
    for trial in trials:
        for each in (trial, trial.first):
            if each is not None and not each.refused:
                yield {
                    "label": each.key.arm,
                    "syscall": each.key.syscall,
                    "trial": each.key.trial,
                    "wanted": str(each.wanted),
                    "placement": str(each.placement),
                    "avg_us": each.figure_us("mean"),
                    "p50_us": each.figure_us("p50"),
                    "p90_us": each.figure_us("p90"),
                    "p99_us": each.figure_us("p99"),
                    "count": each.distribution.count,
                    "operation_us": each.operation_us,
                }


def _attribution_rows(attributions: Iterable[Attribution]) -> Iterable[dict[str, object]]:
    for found in attributions:
        for each in found.shares:
            yield {
                "agent": found.agent,
                "syscall": found.syscall,
                "owner": each.owner,
                "program": each.program,
                "attached_to": ";".join(each.attached_to),
                "runs_per_call": each.runs_per_call,
                "ns_per_call": each.ns_per_call,
            }


def agent_frame(trials: Iterable[Trial]) -> pd.DataFrame:
    """A row a trial of what the arm itself cost; what is not known is empty."""
    rows = []
    for trial in trials:
        cost = trial.cost or AgentCost()
        names = cost.threads_on_core
        rows.append(
            {
                "label": trial.key.arm,
                "syscall": trial.key.syscall,
                "trial": trial.key.trial,
                "cpu_s": cost.cpu_s,
                "cpu_pct_of_core": cost.cpu_pct_of_core,
                "peak_memory_mb": cost.peak_memory_mb,
                "threads": cost.threads,
                "threads_on_core": "none" if names == () else ";".join(names or ()),
                "calls_per_s": cost.calls_per_s,
                "dropped": cost.dropped,
                "bpf_runs": cost.kernel_runs,
                "bpf_ns_per_run": cost.kernel_ns_per_run,
            }
        )
    # Else pandas makes a column of whole numbers with a gap one of fractions.
    whole = dict.fromkeys(("trial", "threads", "dropped", "bpf_runs"), "Int64")
    return _frame(AGENT_COLUMNS, rows).astype(whole)


def _validity_rows(
    trials: Iterable[Trial], first_attempts: Iterable[Trial]
) -> Iterable[dict[str, object]]:
    for trial, prefix in (
        *(
            (each, "first attempt: " if each.attempt == 1 else "second attempt, left out: ")
            for each in first_attempts
        ),
        *((each, "") for each in trials),
    ):
        beside = trial.first.findings if trial.first else ()
        for finding, words in (
            *((each, prefix) for each in trial.findings),
            *((each, f"{prefix}tracer first: ") for each in beside),
        ):
            yield {
                "label": trial.key.arm,
                "syscall": trial.key.syscall,
                "trial": trial.key.trial,
                "severity": str(finding.severity),
                "code": finding.code,
                "detail": words + finding.detail,
            }


def _flat(prefix: str, value: object) -> dict[str, str]:
    """Nested facts as one line each."""
    if isinstance(value, Mapping):
        return {
            key: text
            for name, item in value.items()
            for key, text in _flat(f"{prefix}, {name}", item).items()
        }
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return {
            key: text
            for number, item in enumerate(value, start=1)
            for key, text in _flat(f"{prefix} {number}", item).items()
        }
    return {prefix: ", ".join(map(str, value)) if isinstance(value, list) else str(value)}


def _p_text(value: float) -> str:
    # Three decimals are right for µs, but would turn a small p value into 0.
    return "" if math.isnan(value) else f"{value:.6g}"


def _cell(result: CellResult) -> dict[str, Any]:
    plain = asdict(result)
    plain["budget"] = str(result.budget) if result.budget else None
    plain["verdict"] = str(result.verdict) if result.verdict else None
    return plain
