"""A run, computed again from its raw logs: no node is needed.

What the logs hold is computed anew: distributions, the kernel's own totals, figures, lmbench's own
figures, and all that rests on them. What only the node could tell at that time (the placement, the
agent's cost, other load, shares of BPF programs) is taken from run.json as it was noted.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_syslat import __version__
from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.analysis import Analysis
from pytest_syslat.arms import Switch
from pytest_syslat.attribution import REMAINDER, Attribution
from pytest_syslat.budget import FIGURES, Budget, budget_for
from pytest_syslat.comparison import AGAINST_FLAG, BASELINE_FLAG, ComparedRun, Comparison
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding, invalid
from pytest_syslat.gate import Cell, CellResult
from pytest_syslat.paced_workload import ACHIEVED
from pytest_syslat.placement import Placement
from pytest_syslat.plain import without_nan
from pytest_syslat.plan import TrialKey
from pytest_syslat.program_order import ProgramOrder
from pytest_syslat.raw_log import RawLogProblem, read_log, stored_map_keys
from pytest_syslat.records import RunRecord
from pytest_syslat.results import ResultDirectory, write_atomically
from pytest_syslat.settings import Settings
from pytest_syslat.stored import (
    StoredRun,
    StoredTrial,
    Weakness,
    known_figures_us,
    read_run_json,
    refusing_damage,
    stored_findings,
    stored_run,
    stored_settings,
)
from pytest_syslat.tracer import Trace
from pytest_syslat.trial import Trial, operation_us
from pytest_syslat.unpaired import GrowthCell, GrowthResult
from pytest_syslat.validity import check_trace
from pytest_syslat.workload import FIGURE, Run

FROM_THE_LOG = frozenset(
    {
        "no-samples",
        "failed-calls",
        "some-failed-calls",
        "lost-events",
        "miscounted",
        "foreign-samples",
        "few-calls",
    }
)
"""Codes of the findings that the log alone decides."""
LMBENCH_LINE = re.compile(r"lmbench (untraced|traced) ([0-9]+): (.*)")
TRIAL_ID = re.compile(r"([a-z0-9_]+)-(.+)-trial([0-9]+)")
COMPUTED_OF_TRIAL = (
    "refused",
    "calls",
    "other_calls",
    "figures_us",
    "findings",
    "operation_us",
    "user_mean_us",
)
"""Keys of a trial in run.json that are computed anew; the others stay as they were noted."""
COMPUTED_OF_RUN = ("cells", "family", "cells_first", "split", "attribution", "growth")


@dataclass(frozen=True, slots=True)
class _Switched:
    """What an experiment shows of its state, as `records.Measured` wants it."""

    trials: Mapping[TrialKey, Trial]
    replaced: Sequence[Trial]
    interrupted: Trial | None
    repeats: Mapping[str, int]
    switching_s: float
    switches: Sequence[Switch] = ()


@dataclass(frozen=True)
class Reread:
    """A stored run with its trials as their logs tell them.

    Attributes:
        directory: Where it was read.
        stored: Its run.json.
        analysis: What is computed from it.
        unread: For each log that is needed and cannot be read: file and reason. Its trial counts
            as refused.
        logs: How many logs were read.
    """

    directory: Path
    stored: Mapping[str, Any]
    analysis: Analysis
    unread: Mapping[Path, str] = field(default_factory=dict)
    logs: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether the run came to its end, even by Ctrl-C: then it has stored its verdicts."""
        return "cells" in self.stored

    @property
    def settings(self) -> Settings:
        """Those of the run, with the budgets that are judged."""
        return self.analysis.settings

    def under(self, settings: Settings) -> Reread:
        """The same trials under other budgets: each figure that has one is judged."""
        cells = _budgeted(settings.budgets, Cell, settings, self.analysis.trials)
        growth = _budgeted(settings.growth_budgets, GrowthCell, settings, self.analysis.trials)
        judged = frozenset([*cells, *growth])
        return replace(self, analysis=replace(self.analysis, settings=settings, judged=judged))

    def write(self, root: Path) -> None:
        """Write all files of a result directory that are computed, and run.json.

        Args:
            root: An empty directory.

        Raises:
            OSError: It cannot be written.
        """
        analysis = self.analysis
        record = RunRecord(root)
        measured = _Switched(
            trials=analysis.trials,
            replaced=[_without_log(each) for each in self.stored.get("replaced_trials", [])],
            interrupted=(
                _without_log(self.stored["interrupted"]) if "interrupted" in self.stored else None
            ),
            repeats=self.stored.get("repeats", {}),
            switching_s=0.0,
        )
        for trial in {key.arm: trial for key, trial in analysis.trials.items()}.values():
            record.trial_done(measured, trial)
        growth = analysis.growth()
        if growth:
            record.write_growth(growth, analysis.comparison.growth_placement(analysis.trials))
        record.close(
            measured,
            analysis.results(),
            complete=self.stored.get("complete") is True,
            first_results=analysis.first_results(),
            splits=analysis.splits(),
            attributions=analysis.attributions(),
        )
        computed = json.loads(record.directory.run_path.read_bytes())
        for arm in {key.arm for key in analysis.trials}:
            # It tells of the node and is measured, not computed.
            record.directory.sysinfo_path(arm).unlink()
        text = json.dumps(self._run_json(computed), indent=1, ensure_ascii=False)
        write_atomically(record.directory.run_path, text + "\n")

    def copy_measured(self, root: Path) -> None:
        """Copy what was measured beside what `write` has written: logs, and facts of the node.

        Raises:
            OSError: A file cannot be read, or not be written.
        """
        files, copy = ResultDirectory(self.directory), ResultDirectory(root)
        for arm in {key.arm for key in self.analysis.trials}:
            for path in sorted(files.sysinfo_path(arm).parent.iterdir()):
                if path.suffix in (".log", ".stderr") or path == files.sysinfo_path(arm):
                    shutil.copyfile(path, copy.arm(arm) / path.name)

    def _run_json(self, computed: Mapping[str, Any]) -> dict[str, Any]:
        """The stored run.json with what was computed anew in its place."""
        run = {name: value for name, value in self.stored.items() if name not in COMPUTED_OF_RUN}
        run |= {name: computed[name] for name in COMPUTED_OF_RUN if name in computed}
        run["trials"] = [
            _with_computed(stored, anew)
            for stored, anew in zip(self.stored["trials"], computed["trials"], strict=True)
        ]
        budgets = {name: self.settings.as_dict()[name] for name in ("budgets", "growth_budgets")}
        run["settings"] = {**self.stored["settings"], **budgets}
        run["analyzed"] = {"pytest-syslat": __version__, "from": str(self.directory)}
        return dict(without_nan(run))

    def results(self) -> list[CellResult]:
        """Overheads and verdicts."""
        return self.analysis.results()

    def growth(self) -> list[GrowthResult]:
        """Growth since a stored run, and verdicts."""
        return self.analysis.growth()


def _with_computed(stored: Mapping[str, Any], anew: Mapping[str, Any]) -> dict[str, Any]:
    if stored["refused"]:
        # Its figures are not read again: they stay out of everything.
        return dict(stored)
    trial = {**stored, **{name: anew[name] for name in COMPUTED_OF_TRIAL if name in anew}}
    if stored.get("first") and anew.get("first"):
        trial["first"] = _with_computed(stored["first"], anew["first"])
    return trial


def _budgeted(
    budgets: Sequence[Budget],
    kind: type[Cell],
    settings: Settings,
    trials: Mapping[TrialKey, Trial],
) -> Iterator[Cell]:
    for syscall, arm in sorted({(key.syscall, key.arm) for key in trials}):
        for figure in FIGURES:
            if arm in settings.agents and budget_for(budgets, syscall, figure):
                yield kind(syscall, arm, figure)


def reread(directory: Path) -> Reread:
    """Read a run and all its logs.

    Raises:
        StoredProblem: One line that names the file and what is wrong with it: no run is there,
            its run.json is of another version, or not as a run writes it.
    """
    stored = read_run_json(directory)
    # All that a comparison would need of it is checked here, too.
    stored_run(directory, stored)
    with refusing_damage(directory):
        settings = stored_settings(stored)
        map_keys = stored_map_keys(stored["system"])
        reader = _Reader(ResultDirectory(directory), settings, map_keys)
        trials = {
            trial.key: trial
            for trial in (reader.trial(entry, first=False) for entry in stored["trials"])
        }
        return Reread(
            directory=directory,
            stored=stored,
            analysis=Analysis(
                settings=settings,
                trials=trials,
                planned=planned_keys(stored),
                judged=_judged(stored, settings, trials),
                comparison=_comparison(stored, settings),
                attributed=_attributed(stored.get("attribution", [])),
            ),
            unread=reader.unread,
            logs=reader.logs,
        )


class _Reader:
    """Makes trials of their entries in run.json and of their logs."""

    def __init__(self, files: ResultDirectory, settings: Settings, map_keys: int) -> None:
        self._files = files
        self._settings = settings
        self._map_keys = map_keys
        self.unread: dict[Path, str] = {}
        self.logs = 0

    def trial(self, entry: Mapping[str, Any], *, first: bool) -> Trial:
        """The trial of an entry, with what was measured of it with the tracer first."""
        trial = _without_log(entry)
        if not entry["refused"]:
            trial = self._with_log(trial, first=first)
        if entry.get("first"):
            trial = trial.with_first(self.trial(entry["first"], first=True))
        return trial

    def _with_log(self, trial: Trial, *, first: bool) -> Trial:
        key = trial.key
        path = self._files.log_path(key.arm, key.syscall, key.trial, first=first)
        try:
            settings = self._settings
            trace = read_log(
                path.read_bytes(), settings.tracer, settings.syscall(key.syscall), self._map_keys
            )
        except FileNotFoundError:
            return self._not_read(trial, path, "it is missing")
        except OSError as error:
            return self._not_read(trial, path, f"it cannot be read: {error.strerror or error}")
        except RawLogProblem as error:
            return self._not_read(trial, path, str(error))
        self.logs += 1
        try:
            untraced, traced = lmbench_runs(path.with_suffix(".stderr").read_text(errors="replace"))
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
            return self._not_read(trial, path.with_suffix(".stderr"), reason)
        return replace(
            trial,
            distribution=trace.succeeded,
            other_calls=trace.other,
            runs_untraced=untraced,
            runs_traced=traced,
            operation_us=operation_us(trace),
            findings=self._findings(trial, trace),
        )

    def _not_read(self, trial: Trial, path: Path, reason: str) -> Trial:
        self.unread[path] = reason
        return trial.with_finding(invalid("log-unread", f"{path.name}: {reason}"))

    def _findings(self, trial: Trial, trace: Trace) -> tuple[Finding, ...]:
        """Those that were noted, with what the log alone decides decided again."""
        kept = [each for each in trial.findings if each.code not in FROM_THE_LOG]
        known = {each.code for each in kept}
        settings = self._settings
        again = check_trace(
            trace,
            settings.syscall(trial.key.syscall),
            settings.min_calls,
            trial.key.arm,
        )
        return (*kept, *(each for each in again if each.code not in known))


def _without_log(entry: Mapping[str, Any]) -> Trial:
    """A trial as run.json holds it, without calls and figures."""
    order = entry.get("program_order")
    cost = entry.get("cost")
    return Trial(
        key=TrialKey(str(entry["syscall"]), str(entry["label"]), int(entry["trial"])),
        node=str(entry["node"]),
        testbed=str(entry["testbed"]),
        placement=Placement(entry["placement"]),
        started_at_s=float(entry["started_at_s"]),
        duration_s=float(entry["duration_s"]),
        distribution=Distribution.empty(),
        other_calls=0,
        runs_untraced=(),
        runs_traced=(),
        findings=stored_findings(entry["findings"]),
        cost=None if cost is None else AgentCost.from_dict(cost),
        attempt=int(entry["attempt"]),
        wanted=Placement(entry["placement_wanted"]),
        order=None if order is None else tuple(map(_program_order, order)),
    )


def _program_order(entry: Mapping[str, Any]) -> ProgramOrder:
    return ProgramOrder(str(entry["event"]), tuple(entry["programs"]), frozenset(entry["tracer"]))


def lmbench_runs(text: str) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The untraced and the traced runs of a trial, as its `.stderr` file tells them."""
    printed: dict[tuple[str, int], list[str]] = {}
    for line in text.splitlines():
        found = LMBENCH_LINE.fullmatch(line)
        if found:
            printed.setdefault((found[1], int(found[2])), []).append(found[3])
    untraced, traced = (
        tuple(_run("\n".join(lines)) for (name, _), lines in printed.items() if name == condition)
        for condition in ("untraced", "traced")
    )
    return untraced, traced


def _run(output: str) -> Run:
    figure, achieved = FIGURE.search(output), ACHIEVED.search(output)
    return Run(
        us_per_op=float(figure[1]) if figure else None,
        complaint=None,
        output=output,
        achieved_per_s=float(achieved[1]) if achieved else None,
    )


def _key(text: str) -> TrialKey:
    found = TRIAL_ID.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no trial")
    return TrialKey(found[1], found[2], int(found[3]))


def planned_keys(stored: Mapping[str, Any]) -> list[TrialKey]:
    """What had to be measured: after a look that left nothing to decide, no more."""
    planned = [_key(text) for text in stored["plan"]]
    decided_after = stored.get("sequential", {}).get("decided_after")
    return [key for key in planned if decided_after is None or key.trial <= decided_after]


def _judged(
    stored: Mapping[str, Any], settings: Settings, trials: Mapping[TrialKey, Trial]
) -> frozenset[Cell]:
    """The cells on which there is a verdict; all with a budget, if the run was never closed."""
    if "cells" not in stored:
        return frozenset(_budgeted(settings.budgets, Cell, settings, trials))
    kinds = (("cells", Cell), ("growth", GrowthCell))
    return frozenset(
        kind(**entry["cell"])
        for name, kind in kinds
        for entry in stored.get(name, [])
        if entry["verdict"] is not None
    )


def _comparison(stored: Mapping[str, Any], settings: Settings) -> Comparison:
    """The stored runs that the run was compared with, as it has noted them itself."""
    comparison = Comparison(replace(settings, baseline=None, against=None))
    comparison.baseline = _compared(BASELINE_FLAG, stored.get("baseline"))
    comparison.against = _compared(AGAINST_FLAG, stored.get("against"))
    return comparison


def _compared(flag: str, noted: Mapping[str, Any] | None) -> ComparedRun | None:
    if noted is None:
        return None
    trials = [
        StoredTrial(
            key=TrialKey(str(entry["syscall"]), str(entry["label"]), int(entry["trial"])),
            placement=str(entry["placement"]),
            refused=False,
            findings=stored_findings(entry.get("findings", ())),
            figures_us=known_figures_us(entry["figures_us"]),
            started_at_s=None,
        )
        for entry in noted["trials"]
    ]
    run = StoredRun(
        path=Path(noted["path"]),
        settings={},
        system=dict(noted["system"]),
        trials={trial.key: trial for trial in trials},
        complete=noted["complete"] is True,
        refused=int(noted["refused_trials"]),
        weaknesses=tuple(
            _weakness(each, {trial.key.syscall for trial in trials}) for each in noted["weaknesses"]
        ),
        is_ours=noted["is_ours"] is True,
    )
    return ComparedRun(flag, run, list(noted["differences"]))


def _weakness(sentence: str, syscalls: Collection[str]) -> Weakness:
    syscall = sentence.partition(":")[0]
    return Weakness(sentence, syscall if syscall in syscalls else None)


def _attributed(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Attribution]:
    """Shares of programs as they were counted; the remainder is computed anew."""
    found = {}
    for each in map(Attribution.from_dict, entries):
        counted = tuple(share for share in each.shares if share.owner != REMAINDER)
        found[each.syscall, each.agent] = replace(each, shares=counted)
    return found
