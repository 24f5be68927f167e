"""From pytest's items to what they ask for: trials and cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_syslat.budget import FIGURES, budget_for
from pytest_syslat.plan import Plan, TrialKey, all_keys
from pytest_syslat.settings import Settings

if TYPE_CHECKING:
    from pytest_syslat.gate import Cell

TRIAL_PARAMETER = "syslat_trial"
CELL_PARAMETER = "syslat_cell"
GROWTH_PARAMETER = "syslat_growth"
PARAMETERS = (TRIAL_PARAMETER, CELL_PARAMETER, GROWTH_PARAMETER)
OURS = frozenset({*PARAMETERS, "syslat_experiment", "syslat_rig"})
"""A test that uses any of our fixtures uses one of these, if only by another."""
MARKERS = {
    "syslat": "tests that use pytest-syslat; added to them: -m 'not syslat' runs the others alone",
    "syslat_trial": "tests that measure a trial; added to them",
    "syslat_gate": "tests that judge an overhead or its growth by a budget; added to them",
}


def uses_syslat(fixturenames: Iterable[str]) -> bool:
    """Whether a test is parametrized by us."""
    return not set(PARAMETERS).isdisjoint(fixturenames)


def add_markers(item: pytest.Item) -> None:
    """Mark an item of ours, so that `-m` finds it."""
    used = OURS.intersection(getattr(item, "fixturenames", ()))
    if used:
        item.add_marker("syslat")
    if TRIAL_PARAMETER in used:
        item.add_marker("syslat_trial")
    if used & {CELL_PARAMETER, GROWTH_PARAMETER}:
        item.add_marker("syslat_gate")


def parametrize(metafunc: pytest.Metafunc, settings: Settings) -> None:
    """Parametrize a test over trials, or over the cells that have a budget of the kind."""
    if TRIAL_PARAMETER in metafunc.fixturenames:
        keys = all_keys(settings.arms, settings.trials, settings.syscall_names)
        metafunc.parametrize(TRIAL_PARAMETER, keys, ids=[key.id for key in keys])
    for parameter, find in ((CELL_PARAMETER, judged_cells), (GROWTH_PARAMETER, growth_cells)):
        if parameter in metafunc.fixturenames:
            cells = find(settings)
            # One that stands for nothing is removed by `drop_empty`; pytest would show a skip.
            metafunc.parametrize(
                parameter, cells or [None], ids=[cell.id for cell in cells] or ["nothing"]
            )


def without_item(metafunc: pytest.Metafunc) -> None:
    """Parametrize so that `drop_empty` removes the item, where pytest would show a skip."""
    for parameter in PARAMETERS:
        if parameter in metafunc.fixturenames:
            metafunc.parametrize(parameter, [None], ids=["nothing"])


def judged_cells(settings: Settings) -> Sequence[Cell]:
    """The cells that have a budget, in the order of the catalogue."""
    from pytest_syslat.gate import Cell

    return [
        Cell(syscall, agent, figure)
        for syscall in settings.syscall_names
        for agent in settings.agents
        for figure in FIGURES
        if budget_for(settings.budgets, syscall, figure)
    ]


def growth_cells(settings: Settings) -> Sequence[Cell]:
    """The cells whose growth since a stored run has a budget, in the order of the catalogue."""
    if settings.against is None:
        return []
    from pytest_syslat.unpaired import GrowthCell

    return [
        GrowthCell(syscall, agent, figure)
        for syscall in settings.syscall_names
        for agent in settings.agents
        for figure in FIGURES
        if budget_for(settings.growth_budgets, syscall, figure)
    ]


def requested(item: pytest.Item) -> Any:
    """The trial or cell that an item asks for; None for any other item."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    return next(filter(None, (callspec.params.get(each) for each in PARAMETERS)), None)


def drop_empty(items: list[Any]) -> None:
    """Remove the items that stand for nothing."""
    items[:] = [item for item in items if not _is_parametrized(item) or requested(item) is not None]


def _is_parametrized(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and uses_syslat(callspec.params)


def arrange(items: list[pytest.Item], plan: Plan) -> None:
    """Bring our items into the order of the plan, judging ones last.

    Other items keep their order and stand before ours: a measurement is not interrupted by them.
    """
    position = {key: index for index, key in enumerate(plan.order)}

    def rank(item: pytest.Item) -> tuple[int, int]:
        asked = requested(item)
        if asked is None:
            return (0, 0)
        if isinstance(asked, TrialKey):
            return (1, position.get(asked, len(position)))
        return (2, 0)

    items.sort(key=rank)


def split(items: Sequence[pytest.Item]) -> tuple[list[TrialKey], list[Cell]]:
    """The trials and cells that the selected items ask for, without repeats.

    A cell whose growth is asked for is a `GrowthCell`.
    """
    asked = dict.fromkeys(requested(item) for item in items)
    asked.pop(None, None)
    trials = [each for each in asked if isinstance(each, TrialKey)]
    return trials, [each for each in asked if not isinstance(each, TrialKey)]
