"""What a session compares with stored runs: whether it may, and the data of each cell.

Trials of a stored run and of this one meet here and nowhere else, so that they are never taken
for pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_syslat.budget import Budget
from pytest_syslat.comparable import fact_differences, setting_differences
from pytest_syslat.findings import undecided_sentences
from pytest_syslat.foreign import read_foreign
from pytest_syslat.gate import Cell
from pytest_syslat.pairing import AnyTrial, paired_us, refused_sentences
from pytest_syslat.plan import TrialKey
from pytest_syslat.resolution import step_us
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.stored import UNKNOWN, StoredProblem, StoredRun, read_run
from pytest_syslat.syscalls import SYSCALLS, in_order
from pytest_syslat.unpaired import GrowthData, StoredBaselineData

BASELINE_FLAG = "--syslat-baseline"
AGAINST_FLAG = "--syslat-against"
FORCE_FLAG = "--syslat-force"
_DIFFERENCES_TOLD = 3
_VERSION_FACT = "pytest-syslat"


@dataclass
class ComparedRun:
    """One stored run, and how its conditions differ from those of this run."""

    flag: str
    stored: StoredRun
    differences: list[str] = field(default_factory=list)
    forced_by: str = FORCE_FLAG
    """Word before the differences where they are a doubt."""

    def doubts(self, syscall: str) -> tuple[str, ...]:
        """Why figures of a syscall prove nothing beside this run's, one sentence each."""
        weak = tuple(
            f"{self.stored.path.name}: {each.sentence}"
            for each in self.stored.weaknesses
            if each.syscall in (None, syscall)
        )
        if not self.differences:
            return weak
        return (
            f"{self.forced_by}: {self.stored.path.name} was made so: {_first(self.differences)}",
            *weak,
        )

    @property
    def warnings(self) -> list[str]:
        """What the user must know about the stored run."""
        run = self.stored
        lines = [f"{self.flag}: {each.sentence}" for each in run.weaknesses]
        if self.differences:
            lines.append(
                f"{self.flag}: {run.path} was made under other conditions, so nothing passes and "
                f"nothing regresses: {'; '.join(self.differences)}"
            )
        if not run.complete:
            lines.append(f"{self.flag}: {run.path} is a part of a run, or was ended early")
        if run.refused:
            lines.append(f"{self.flag}: {run.refused} refused trials of {run.path} are left out")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "path": str(self.stored.path),
            "date": self.stored.date,
            "is_ours": self.stored.is_ours,
            "complete": self.stored.complete,
            "refused_trials": self.stored.refused,
            "differences": self.differences,
            "weaknesses": [each.sentence for each in self.stored.weaknesses],
            "system": dict(self.stored.system),
            "trials": [
                {
                    "syscall": key.syscall,
                    "label": key.arm,
                    "trial": key.trial,
                    "placement": trial.placement,
                    "figures_us": dict(trial.figures_us),
                    "findings": [each.as_dict() for each in trial.findings],
                }
                for key, trial in sorted(self.stored.trials.items())
            ],
        }


class Comparison:
    """The stored runs of a session; without any it does nothing."""

    def __init__(self, settings: Settings) -> None:
        """Read what the settings name.

        Raises:
            StoredProblem: One line with the option, if it cannot be read or was measured with
                other settings.
        """
        self._settings = settings
        self.baseline = self._opened(BASELINE_FLAG, settings.baseline)
        self.against = self._opened(AGAINST_FLAG, settings.against)
        self._version_notes: list[str] = []

    def check_plan(self, planned: Collection[TrialKey], growth: Collection[Cell]) -> None:
        """Check that the stored runs hold what the plan needs; raises StoredProblem."""
        if self.baseline is not None:
            for syscall in dict.fromkeys(key.syscall for key in planned):
                if not self.baseline.stored.arm(syscall, VANILLA):
                    raise StoredProblem(
                        f"{BASELINE_FLAG}: {self.baseline.stored.path} has no vanilla trial of "
                        f"{syscall}: leave {syscall} out (-k), or give another run"
                    )
        if self.against is not None:
            stored = self.against.stored
            for cell in growth:
                if not stored.pairs(cell.syscall, cell.agent):
                    raise StoredProblem(
                        f"{AGAINST_FLAG}: {stored.path} has no block of {cell.syscall} with "
                        f"vanilla and {cell.agent} (arms: {', '.join(stored.labels)}): leave it "
                        "out (-k), or give another run"
                    )

    def check_facts(self, facts: Mapping[str, str]) -> None:
        """Check that the node and the tools are those of the stored runs; raises StoredProblem."""
        for compared in self.stored_runs:
            run = compared.stored
            if not run.is_ours:
                continue
            compared.differences += fact_differences(run, facts)
            self._refuse_unless_forced(compared)
            before, now = run.system.get(_VERSION_FACT, UNKNOWN), facts.get(_VERSION_FACT, UNKNOWN)
            if before != now:
                self._version_notes.append(
                    f"{compared.flag}: measured with {_VERSION_FACT} {before}, here it is {now}"
                )

    @property
    def warnings(self) -> list[str]:
        """What the user must know about the stored runs."""
        told = [line for compared in self.stored_runs for line in compared.warnings]
        return [*told, *self._version_notes]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json; empty without a stored run."""
        named = {"baseline": self.baseline, "against": self.against}
        return {name: each.as_dict() for name, each in named.items() if each is not None}

    def baseline_data(
        self, cell: Cell, budget: Budget | None, trials: Mapping[TrialKey, AnyTrial]
    ) -> StoredBaselineData:
        """What is known of a cell beside the stored vanilla."""
        assert self.baseline is not None
        stored = self.baseline.stored.arm(cell.syscall, VANILLA)
        own = [
            trial
            for key, trial in sorted(trials.items())
            if (key.syscall, key.arm) == (cell.syscall, cell.agent)
        ]
        vanilla_us, agent_us = _values_us(stored, cell.figure), _values_us(own, cell.figure)
        return StoredBaselineData(
            cell=cell,
            budget=budget,
            refused=refused_sentences(own),
            undecided=_undecided(stored, own, cell.figure),
            incomparable=(
                *self.baseline.doubts(cell.syscall),
                *_of_placement(stored, own, cell.figure),
            ),
            vanilla_us=vanilla_us,
            agent_us=agent_us,
            step_us=_step_us(cell.figure, vanilla_us, agent_us),
        )

    def growth_data(
        self, cell: Cell, budget: Budget | None, trials: Mapping[TrialKey, AnyTrial]
    ) -> GrowthData:
        """What is known of a cell in the stored run and in this one."""
        assert self.against is not None
        before = self.against.stored.pairs(cell.syscall, cell.agent)
        now = [
            (trials[key.partner], trial)
            for key, trial in sorted(trials.items())
            if (key.syscall, key.arm) == (cell.syscall, cell.agent) and key.partner in trials
        ]
        stored = [trial for pair in before for trial in pair]
        own = [trial for pair in now for trial in pair]
        before_us, now_us = paired_us(before, cell.figure), paired_us(now, cell.figure)
        return GrowthData(
            cell=cell,
            budget=budget,
            refused=refused_sentences(own),
            undecided=_undecided(stored, own, cell.figure),
            incomparable=(
                *self.against.doubts(cell.syscall),
                *_of_placement(stored, own, cell.figure),
            ),
            vanilla_before_us=before_us[:, 0],
            agent_before_us=before_us[:, 1],
            vanilla_us=now_us[:, 0],
            agent_us=now_us[:, 1],
            step_us=_step_us(cell.figure, before_us, now_us),
        )

    def growth_placement(self, trials: Mapping[TrialKey, AnyTrial]) -> str:
        """Where the tracer ran in all trials of both runs, or `unknown`."""
        stored = self.against.stored.trials.values() if self.against is not None else ()
        return _common_placement([*stored, *trials.values()])

    def version_of(self, agent: str) -> str:
        """The agent's version in the run of `--syslat-against`."""
        assert self.against is not None
        return self.against.stored.system.get(f"agent {agent}", UNKNOWN)

    @property
    def stored_runs(self) -> list[ComparedRun]:
        """All stored runs of this session."""
        return [each for each in (self.baseline, self.against) if each is not None]

    def _opened(self, flag: str, path: Path | None) -> ComparedRun | None:
        if path is None:
            return None
        try:
            ours = (path / "run.json").exists()
            run = read_run(path) if ours else self._foreign(path)
        except StoredProblem as problem:
            raise StoredProblem(f"{flag}: {problem}") from None
        if not run.is_ours:
            self._check_foreign(flag, path)
        compared = ComparedRun(flag, run)
        if run.is_ours:
            compared.differences += setting_differences(run, self._settings)
            self._refuse_unless_forced(compared)
        if VANILLA not in run.labels:
            raise StoredProblem(
                f"{flag}: {path} has no trial of vanilla that counts "
                f"(arms: {', '.join(run.labels) or 'none'}): give a run that measured vanilla"
            )
        return compared

    def _foreign(self, path: Path) -> StoredRun:
        return read_foreign(path, in_order([*SYSCALLS, *self._settings.syscall_names]))

    def _check_foreign(self, flag: str, path: Path) -> None:
        if flag == AGAINST_FLAG:
            raise StoredProblem(
                f"{flag}: {path} holds no run.json: its trials are no blocks, so no growth can be "
                f"told; compare with its vanilla by {BASELINE_FLAG}"
            )
        if not self._settings.force:
            raise StoredProblem(
                f"{flag}: {path} holds no run.json but the CSV files of another program: nothing "
                f"tells where and how they were measured; {FORCE_FLAG} compares all the same, and "
                "then nothing passes"
            )

    def _refuse_unless_forced(self, compared: ComparedRun) -> None:
        if compared.differences and not self._settings.force:
            raise StoredProblem(
                f"{compared.flag}: {compared.stored.path} was made under other conditions: "
                f"{_first(compared.differences)}: measure it again here, or give {FORCE_FLAG}, "
                "and then nothing passes"
            )


def _first(differences: Sequence[str]) -> str:
    told = "; ".join(differences[:_DIFFERENCES_TOLD])
    more = len(differences) - _DIFFERENCES_TOLD
    return f"{told} (and {more} more)" if more > 0 else told


def _values_us(trials: Sequence[AnyTrial], figure: str) -> NDArray[np.float64]:
    figures_us = (trial.figure_us(figure) for trial in trials if not trial.refused)
    return np.array([value_us for value_us in figures_us if value_us], dtype=np.float64)


def _undecided(stored: Sequence[AnyTrial], own: Sequence[AnyTrial], figure: str) -> tuple[str, ...]:
    named = [
        *((f"stored {trial.key.id}", trial.findings) for trial in stored),
        *((trial.key.id, trial.findings) for trial in own),
    ]
    return undecided_sentences(named, figure)


def _of_placement(
    stored: Sequence[AnyTrial], own: Sequence[AnyTrial], figure: str
) -> tuple[str, ...]:
    """Why traced figures of the two runs may not be set side by side, if so.

    The same overhead is +74 % or +5 % by where the tracer runs.
    """
    counted = [trial for trial in (*stored, *own) if not trial.refused]
    # The user's cost is taken with no tracer attached.
    if figure == "user" or _common_placement(counted) != UNKNOWN:
        return ()
    found = ", ".join(sorted({str(trial.placement) for trial in counted}))
    return (f"nothing proves that the tracer ran at the same place in both runs ({found})",)


def _common_placement(trials: Sequence[AnyTrial]) -> str:
    found = {str(trial.placement) for trial in trials}
    return found.pop() if len(found) == 1 else UNKNOWN


def _step_us(figure: str, *values_us: NDArray[np.float64]) -> float:
    """The step of the coarser tracer: the stored run may be of another one than this."""
    largest_us = max((float(values.max(initial=0)) for values in values_us), default=0.0)
    return step_us(figure, largest_us, "distribution")
