"""What an item tells of its trial or verdict: properties of JUnit files and of other reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import pytest

from pytest_syslat.budget import FIGURES
from pytest_syslat.gate import CELL_FIGURES
from pytest_syslat.settings import VANILLA
from pytest_syslat.unpaired import growth_rows

if TYPE_CHECKING:
    from pytest_syslat.gate import CellResult
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial
    from pytest_syslat.unpaired import GrowthResult

Properties: TypeAlias = list[tuple[str, object]]

CONDITIONS = ("node", "testbed", "kernel", "bpftrace", "lmbench")
"""Facts of sysinfo that a figure hangs on most; the rest is in the files of the run."""

_OURS: pytest.StashKey[Properties] = pytest.StashKey()


def set_properties(node: pytest.Item, properties: Properties) -> None:
    """Give an item its properties; those that we gave it before are taken back.

    A test can measure twice, and a rerun starts with what the run before has left.
    """
    before = node.stash.get(_OURS, [])
    names = {name for name, _ in properties}
    kept = [each for each in node.user_properties if each not in before and each[0] not in names]
    node.user_properties[:] = [*kept, *properties]
    node.stash[_OURS] = properties


def key_properties(key: TrialKey) -> Properties:
    """Which trial it is: all there is to say of one that was not measured."""
    return [("syscall", key.syscall), ("label", key.arm), ("trial", key.trial)]


def trial_properties(trial: Trial, facts: Mapping[str, str]) -> Properties:
    """Figures of a trial in µs, unless it was refused, and what they were measured on."""
    found = [
        *key_properties(trial.key),
        ("placement", str(trial.placement)),
        ("calls", trial.distribution.count),
        ("attempt", trial.attempt),
    ]
    for figure in FIGURES:
        value_us = trial.figure_us(figure)
        if value_us is not None and not trial.refused:
            found.append((f"{figure}_us", f"{value_us:.3f}"))
    return [*found, *_conditions(trial.key.arm, facts)]


def cell_properties(result: CellResult, facts: Mapping[str, str]) -> Properties:
    """The verdict on a cell with all that it rests on; figures that could not be had are left out.

    `delta` is the overhead, from `ci_low` to `ci_high` its interval, `mde` the smallest overhead
    that the run could have told from none.
    """
    cell = result.cell
    return [
        ("syscall", cell.syscall),
        ("label", cell.agent),
        ("figure", cell.figure),
        ("budget", str(result.budget)),
        ("verdict", str(result.verdict)),
        ("blocks", result.blocks),
        *_figures({name: getattr(result, name) for name in CELL_FIGURES}),
        *_p_adjusted(result.p_adjusted),
        *_conditions(cell.agent, facts),
    ]


def growth_properties(result: GrowthResult, placement: str, facts: Mapping[str, str]) -> Properties:
    """The verdict on how far an overhead has grown, in the words of `growth.csv`."""
    [row] = growth_rows([result], placement)
    agent = row.pop("agent")
    return [
        ("syscall", row.pop("syscall")),
        ("label", agent),
        *_p_adjusted(result.tested.p_adjusted),
        *_figures({name: value for name, value in row.items() if name != "p_adjusted"}),
        *_conditions(str(agent), facts),
    ]


def _figures(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if not isinstance(value, float):
            yield name, value
        elif math.isfinite(value):
            yield name, f"{value:.3f}"


def _p_adjusted(value: float) -> Iterator[tuple[str, object]]:
    if math.isfinite(value):
        yield "p_adjusted", f"{value:.6g}"


def _conditions(arm: str, facts: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for name in CONDITIONS:
        if name in facts:
            yield name, facts[name]
    if arm != VANILLA and f"agent {arm}" in facts:
        yield "agent_version", facts[f"agent {arm}"]
