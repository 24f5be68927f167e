"""Trials of a cell set side by side: what any comparison of two arms reads from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_syslat.findings import Finding
from pytest_syslat.plan import TrialKey


class AnyTrial(Protocol):
    """A trial of this run or of a stored one."""

    @property
    def key(self) -> TrialKey:
        """Which trial."""

    @property
    def placement(self) -> str:
        """Where the tracer ran."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with it."""

    @property
    def refused(self) -> bool:
        """Whether its figures stay out of the statistics."""

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""

    def figure_us(self, figure: str) -> float | None:
        """A figure in µs."""


def paired_us(pairs: Sequence[tuple[AnyTrial, AnyTrial]], figure: str) -> NDArray[np.float64]:
    """A figure of vanilla and of the agent in µs, a row a block in which both count and have it."""
    values_us = [
        (vanilla_us, agent_us)
        for vanilla, agent in pairs
        if not (vanilla.refused or agent.refused)
        and (vanilla_us := vanilla.figure_us(figure))
        and (agent_us := agent.figure_us(figure))
    ]
    return np.array(values_us, dtype=np.float64).reshape(-1, 2)


def refused_sentences(trials: Sequence[AnyTrial]) -> tuple[str, ...]:
    """Which of the trials were refused, and why."""
    return tuple(
        f"{trial.key.id} was refused: {trial.reasons[0]}" for trial in trials if trial.refused
    )
