"""What the trials of a run say together: overheads, verdicts, growth, and where the time goes.

Nothing is measured here, so the same answer comes from a run that has just ended and from one that
was read back from its files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TypeVar

from pytest_syslat.attribution import Attribution
from pytest_syslat.budget import FIGURES, Budget, budget_for
from pytest_syslat.comparison import Comparison
from pytest_syslat.findings import undecided_sentences
from pytest_syslat.gate import ALPHA, Cell, CellData, CellResult, judge
from pytest_syslat.pairing import paired_us, refused_sentences
from pytest_syslat.plan import TrialKey
from pytest_syslat.resolution import step_us
from pytest_syslat.sequential import alpha_of_look
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.split import Split, split
from pytest_syslat.summary import FIGURES_TRACED
from pytest_syslat.trial import Trial
from pytest_syslat.unpaired import (
    GrowthCell,
    GrowthData,
    GrowthResult,
    StoredBaselineData,
    judge_growth,
    judge_stored_baseline,
)

Data = TypeVar("Data", CellData, StoredBaselineData, GrowthData)


@dataclass(frozen=True)
class Analysis:
    """The trials of a run, and what is computed from them.

    Attributes:
        settings: How they were measured, and the budgets.
        trials: Those that count, by key, refused ones among them.
        planned: What had to be measured before anything could be decided.
        judged: The cells and growth cells on which a verdict is asked for; others are estimated.
        comparison: The stored runs that they are compared with.
        attributed: Who spends the time, by syscall and agent, without the remainder.
    """

    settings: Settings
    trials: Mapping[TrialKey, Trial]
    planned: Sequence[TrialKey]
    judged: Collection[Cell]
    comparison: Comparison
    attributed: Mapping[tuple[str, str], Attribution] = field(default_factory=dict)

    def results(self) -> list[CellResult]:
        """Overheads of all cells that have been measured; verdicts where a budget is judged."""
        cells = self._measured_cells(Cell)
        if not cells:
            return []
        budgets = self.settings.budgets
        if self.comparison.baseline is None:
            family, watched = self._family(cells, budgets, self._cell_data)
            return judge(family, watched=watched, alpha=self._alpha)
        unpaired, unpaired_watched = self._family(
            cells,
            budgets,
            lambda cell, budget: self.comparison.baseline_data(cell, budget, self.trials),
        )
        return judge_stored_baseline(unpaired, watched=unpaired_watched)

    def growth(self) -> list[GrowthResult]:
        """How far overheads have grown since the stored run; nothing without one."""
        if self.comparison.against is None:
            return []
        stored = self.comparison.against.stored
        family, watched = self._family(
            [
                cell
                for cell in self._measured_cells(GrowthCell)
                if stored.pairs(cell.syscall, cell.agent)
            ],
            self.settings.growth_budgets,
            lambda cell, budget: self.comparison.growth_data(cell, budget, self.trials),
        )
        return judge_growth(family, watched=watched)

    def first_results(self) -> list[CellResult]:
        """Overheads with the tracer before the agent, beside those that are judged: estimates only.

        They are a family of their own. Trials whose placement is not proven are left out, and so
        is `user`, which no tracer is part of.
        """
        pairs = {
            (key.syscall, key.arm): [
                (vanilla.first, trial.first)
                for vanilla, trial in self._pairs(key.syscall, key.arm)
                if vanilla.first and trial.first
            ]
            for key in self.trials
            if key.arm in self.settings.agents
        }
        proven = {
            name: [pair for pair in found if all(each.counts_as_first for each in pair)]
            for name, found in pairs.items()
        }
        cells = [
            CellData(
                cell=Cell(syscall, agent, figure),
                budget=None,
                vanilla_us=paired[:, 0],
                agent_us=paired[:, 1],
                step_us=step_us(figure, float(paired.max()), self.settings.tracer),
            )
            for syscall in self.settings.syscall_names
            for agent in self.settings.agents
            for figure in FIGURES_TRACED
            if (found := proven.get((syscall, agent))) and len(paired := paired_us(found, figure))
        ]
        return judge(cells, alpha=self._alpha) if cells else []

    def splits(self) -> list[Split]:
        """What each agent spends where, under `both`; blocks whose placement is proven alone."""
        found = []
        for syscall in self.settings.syscall_names:
            for agent in self.settings.agents:
                pairs = [
                    pair
                    for pair in self._pairs(syscall, agent)
                    if all(each.placements_proven for each in pair)
                ]
                traced_whole = [pair for pair in pairs if all(each.has_operation for each in pair)]
                whole = self.settings.syscall(syscall).operation is not None and bool(traced_whole)
                pairs = traced_whole if whole else pairs
                blocks = [
                    agent_trial.overheads(vanilla, whole_operation=whole)
                    for vanilla, agent_trial in pairs
                ]
                if blocks:
                    found.append(split(agent, syscall, blocks, whole_operation=whole))
        return found

    def attributions(self) -> list[Attribution]:
        """Who spends the time, with what remains of the overhead that the user pays."""
        found = []
        for (syscall, agent), each in sorted(self.attributed.items()):
            paid_us = [
                trial.user_mean_us - vanilla.user_mean_us
                for vanilla, trial in self._pairs(syscall, agent)
                if not (vanilla.refused or trial.refused)
                and trial.user_mean_us is not None
                and vanilla.user_mean_us is not None
            ]
            if each.calls:
                found.append(each.with_remainder(fmean(paid_us) if paid_us else None))
        return found

    @property
    def _alpha(self) -> float:
        return alpha_of_look() if self.settings.until else ALPHA

    def _measured_cells(self, kind: type[Cell]) -> list[Cell]:
        return [
            kind(syscall, agent, figure)
            for syscall in self.settings.syscall_names
            for agent in self.settings.agents
            for figure in FIGURES
            if any(key.syscall == syscall and key.arm == agent for key in self.trials)
        ]

    def _family(
        self,
        cells: Sequence[Cell],
        budgets: Sequence[Budget],
        data_of: Callable[[Cell, Budget | None], Data],
    ) -> tuple[list[Data], list[Data]]:
        """All cells, judged if their item is selected; and the user's costs that are watched."""
        budget_of = {cell: budget_for(budgets, cell.syscall, cell.figure) for cell in cells}

        def data_unless_ended(cell: Cell, budget: Budget | None) -> Data:
            data: Data = data_of(cell, budget)
            return replace(data, undecided=(*data.undecided, *self._ended_early(cell)))

        family = [
            data_unless_ended(cell, budget_of[cell] if cell in self.judged else None)
            for cell in cells
        ]
        watched = [
            data_unless_ended(cell, budget_of[cell])
            for cell in cells
            if cell.figure == "user" and cell not in self.judged and budget_of[cell]
        ]
        return family, watched

    def _pairs(self, syscall: str, agent: str) -> list[tuple[Trial, Trial]]:
        """Vanilla's trial and the agent's, by block."""
        return [
            (self.trials[key.partner], trial)
            for key, trial in sorted(self.trials.items())
            if key.syscall == syscall and key.arm == agent and key.partner in self.trials
        ]

    def _cell_data(self, cell: Cell, budget: Budget | None) -> CellData:
        pairs = self._pairs(cell.syscall, cell.agent)
        behind = [trial for pair in pairs for trial in pair]
        paired = paired_us(pairs, cell.figure)
        return CellData(
            cell=cell,
            budget=budget,
            vanilla_us=paired[:, 0],
            agent_us=paired[:, 1],
            refused=refused_sentences(behind),
            undecided=(
                *undecided_sentences(
                    ((trial.key.id, trial.findings) for trial in behind), cell.figure
                ),
                *([] if cell.figure == "user" else _misplaced(behind)),
            ),
            step_us=step_us(cell.figure, float(paired.max(initial=0)), self.settings.tracer),
        )

    def _ended_early(self, cell: Cell) -> list[str]:
        """Why a run that was ended decides nothing: by when one ends it, one could choose."""
        arms = (cell.agent, VANILLA)
        planned = [key for key in self.planned if key.syscall == cell.syscall and key.arm in arms]
        missing = sum(key not in self.trials for key in planned)
        if not missing:
            return []
        return [f"the run was ended early: {missing} of {len(planned)} trials are missing"]


def _misplaced(trials: Sequence[Trial]) -> list[str]:
    """Why traced figures are not of one placement; unknown in all of them alike is only warned of.

    A tracer before the agent sees other hooks of it than one behind: figures of both are no pair.
    """
    counted = [trial for trial in trials if not trial.refused]
    told = sorted({str(trial.placement) for trial in counted})
    if len(told) < 2:
        return []
    odd = next(trial for trial in counted if trial.placement is not counted[0].placement)
    reason = (
        f"the tracer was not in the same place in all trials ({' and '.join(told)}, such as in "
        f"{odd.key.id}): traced figures cannot be compared"
    )
    return [reason]
