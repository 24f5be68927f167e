"""How a session tells how far it is: whoever measures tells, whoever shows decides what to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial


@dataclass(frozen=True, slots=True)
class Step:
    """What a trial is at."""

    name: str
    run: int = 0
    """Runs of the workload that are done in this step."""
    runs: int = 0
    """Runs that it will have; 0: it is not made of runs."""
    calls: int | None = None
    """Calls recorded in this trial, as of the tracer's last answer; None: not asked yet."""

    def __str__(self) -> str:
        parts = [self.name]
        if self.runs:
            parts.append(f"run {min(self.run + 1, self.runs)} of {self.runs}")
        if self.calls is not None:
            parts.append(f"{self.calls:,} calls")
        return ", ".join(parts)


class Tell(Protocol):
    """Tells a step of a trial; never called while the workload runs."""

    def __call__(self, name: str, *, run: int = 0, runs: int = 0, calls: int | None = None) -> None:
        """The step has begun, or has come so far; the fields of `Step`."""


def silent(name: str, *, run: int = 0, runs: int = 0, calls: int | None = None) -> None:
    """Tell nobody."""


class Progress(Protocol):
    """Who is told how far the session is."""

    def preparing(self, what: str) -> None:
        """Something is being put in place that may take minutes."""

    def opened(self, facts: Mapping[str, str]) -> None:
        """All is in place; facts for the header."""

    def trial_step(self, key: TrialKey, step: Step, number: int, total: int) -> None:
        """A trial has come to a step."""

    def trial_done(self, trial: Trial, number: int, total: int, left_s: float) -> None:
        """A trial has ended; `left_s` is the time that the rest of the plan will take."""

    def paused(self) -> None:
        """Others may write from here on, until the next step; also after a failure."""
