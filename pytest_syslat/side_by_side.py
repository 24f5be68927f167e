"""Stored runs side by side: the overheads of each, and their growth against the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_syslat.budget import FIGURES, Budget, budget_for, parse_budget
from pytest_syslat.comparable import fact_differences, setting_differences
from pytest_syslat.comparison import ComparedRun, Comparison
from pytest_syslat.foreign import read_foreign
from pytest_syslat.gate import Cell, CellData, CellResult, Verdict, judge
from pytest_syslat.pairing import paired_us
from pytest_syslat.reanalysis import planned_keys
from pytest_syslat.resolution import step_us
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.stored import (
    StoredProblem,
    StoredRun,
    read_run_json,
    refusing_damage,
    stored_run,
    stored_settings,
)
from pytest_syslat.syscalls import in_order
from pytest_syslat.unpaired import (
    GrowthCell,
    GrowthResult,
    StoredBaselineData,
    judge_growth,
    judge_stored_baseline,
)

CONDITIONS = "conditions"
NO_BLOCKS = "its trials are no blocks, so no growth can be told"


@dataclass(frozen=True)
class Run:
    """One of the runs.

    Attributes:
        path: As it was given.
        stored: Its trials, refused ones among them.
        settings: How it was measured; None for files of another program.
        missing: Why it decides nothing, if it was ended early.
        overheads: Of its cells, with the intervals that it told itself.
    """

    path: Path
    stored: StoredRun
    settings: Settings | None
    missing: str | None
    overheads: Mapping[Cell, CellResult]


@dataclass(frozen=True)
class Later:
    """A run beside the first one.

    Attributes:
        run: The later run.
        differences: How the conditions of the first differ from its own, one phrase each.
        versions: Version of each agent in the first and in this run.
        growth: By cell, as far as both runs have it.
        problem: Why no growth can be told, if so.
    """

    run: Run
    differences: Sequence[str]
    versions: Mapping[str, tuple[str, str]]
    growth: Mapping[Cell, GrowthResult]
    problem: str | None = None
    unshared: str | None = None
    """What a growth budget is for and only one of the runs has, if so."""


def read(path: Path) -> Run:
    """Read a result directory, ours or another program's; raises StoredProblem."""
    if not path.is_dir():
        raise StoredProblem(f"there is no directory {path}: give the result directory of a run")
    if not (path / "run.json").exists():
        foreign = read_foreign(path)
        return Run(path, foreign, None, None, _foreign_overheads(foreign))
    run = read_run_json(path)
    stored = stored_run(path, run, keep_refused=True)
    with refusing_damage(path):
        settings = stored_settings(run)
        planned = planned_keys(run)
        missing = sum(key not in stored.trials for key in planned)
        cells = [_stored_cell(entry) for entry in run.get("cells", [])]
    ended = f"{path} was ended early: {missing} of {len(planned)} trials are missing"
    return Run(
        path,
        stored,
        settings,
        ended if missing else None,
        {each.cell: each for each in cells or _own_overheads(stored, settings)},
    )


def beside(first: Run, later: Run, settings: Settings) -> Later:
    """Set a run beside the first one.

    Args:
        first: What it is compared with.
        later: Compared with it.
        settings: Whose growth budgets are judged.
    """
    foreign = next((each for each in (first, later) if each.settings is None), None)
    if foreign is not None or later.settings is None:
        named = foreign.path if foreign else later.path
        return Later(later, (), {}, {}, f"{named} holds no run.json: {NO_BLOCKS}")
    counted = replace(
        first.stored,
        trials={key: each for key, each in first.stored.trials.items() if not each.refused},
    )
    differences = [
        *setting_differences(counted, later.settings),
        *fact_differences(counted, later.stored.system),
    ]
    comparison = Comparison(Settings())
    comparison.against = ComparedRun("", counted, differences, forced_by=CONDITIONS)
    cells = [
        GrowthCell(syscall, agent, figure)
        for syscall in in_order(key.syscall for key in later.stored.trials)
        for agent in _agents(later.stored)
        for figure in FIGURES
        if counted.pairs(syscall, agent) and later.stored.pairs(syscall, agent)
    ]
    ended = tuple(each for each in (first.missing, later.missing) if each)
    family = []
    for cell in cells:
        budget = budget_for(settings.growth_budgets, cell.syscall, cell.figure)
        data = comparison.growth_data(cell, budget, later.stored.trials)
        family.append(replace(data, undecided=(*data.undecided, *ended)))
    agents = sorted({cell.agent for cell in cells})
    versions = {
        agent: (comparison.version_of(agent), _version(later.stored, agent)) for agent in agents
    }
    growth = {
        Cell(each.tested.cell.syscall, each.tested.cell.agent, each.tested.cell.figure): each
        for each in judge_growth(family)
    }
    problem = (
        None if cells else f"{first.path} and {later.path} have no syscall and agent in common"
    )
    unshared = _unshared(counted, later.stored, settings.growth_budgets)
    return Later(later, differences, versions, growth, problem, unshared)


def _unshared(first: StoredRun, later: StoredRun, budgets: Sequence[Budget]) -> str | None:
    """As a run that is compared with an earlier one asks of it, and the other way round, too.

    Else an agent that one has lost since then would not be missed.
    """
    for has, lacks in ((later, first), (first, later)):
        for syscall in in_order(key.syscall for key in has.trials):
            if not any(budget_for(budgets, syscall, figure) for figure in FIGURES):
                continue
            for agent in _agents(has):
                if has.pairs(syscall, agent) and not lacks.pairs(syscall, agent):
                    return (
                        f"{lacks.path} has no block of {syscall} with {VANILLA} and {agent} "
                        f"(arms: {', '.join(lacks.labels)}), {has.path} has"
                    )
    return None


def _agents(stored: StoredRun) -> list[str]:
    return [label for label in stored.labels if label != VANILLA]


def _version(stored: StoredRun, agent: str) -> str:
    return stored.system.get(f"agent {agent}", "unknown")


def _own_overheads(stored: StoredRun, settings: Settings) -> list[CellResult]:
    """Of a run that was never closed: estimates of a family of their own."""
    cells = []
    for cell in _cells(stored):
        paired = paired_us(stored.pairs(cell.syscall, cell.agent), cell.figure)
        if len(paired):
            step = step_us(cell.figure, float(paired.max()), settings.tracer)
            cells.append(CellData(cell, None, paired[:, 0], paired[:, 1], step_us=step))
    return judge(cells) if cells else []


def _foreign_overheads(stored: StoredRun) -> dict[Cell, CellResult]:
    """Of trials that are no blocks: two samples, and none of the figures proves anything."""
    comparison = Comparison(Settings())
    comparison.baseline = ComparedRun("", stored)
    cells = [
        data
        for cell in _cells(stored)
        if _has_values(data := comparison.baseline_data(cell, None, stored.trials))
    ]
    return {each.cell: each for each in judge_stored_baseline(cells)}


def _has_values(data: StoredBaselineData) -> bool:
    return all(data.sizes)


def _cells(stored: StoredRun) -> list[Cell]:
    return [
        Cell(syscall, agent, figure)
        for syscall in in_order(key.syscall for key in stored.trials)
        for agent in _agents(stored)
        for figure in FIGURES
        if stored.arm(syscall, agent)
    ]


def _stored_cell(entry: Mapping[str, Any]) -> CellResult:
    """A cell as run.json holds it."""
    values: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in entry.items()
    }
    budget, verdict = entry["budget"], entry["verdict"]
    values |= {
        "cell": Cell(**entry["cell"]),
        "budget": parse_budget(budget, None) if budget else None,
        "verdict": Verdict(verdict) if verdict else None,
        "reasons": tuple(entry["reasons"]),
        "blocks_to_decide": entry.get("blocks_to_decide"),
    }
    return CellResult(**values)
