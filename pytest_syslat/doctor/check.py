"""One check: what was found, how much it matters, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pytest_syslat.testbeds.protocol import TestbedError


class Status(enum.StrEnum):
    """What a finding means for measuring."""

    OK = "ok"
    WARNING = "warning"
    """It can be measured; figures are worth less, or part of them is missing."""
    PROBLEM = "problem"
    """It cannot be measured."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check that was made."""

    name: str
    """What was looked at, such as `bpftrace`."""
    status: Status
    found: str
    """What there is, with its numbers; no sentence."""
    mend: str = ""
    """What to do about it; empty where nothing is wrong."""


Question = Callable[[], Iterable[Check]]


def ok(name: str, found: str) -> Check:
    """Nothing is wrong."""
    return Check(name, Status.OK, found)


def warning(name: str, found: str, mend: str) -> Check:
    """Figures are worth less."""
    return Check(name, Status.WARNING, found, mend)


def problem(name: str, found: str, mend: str) -> Check:
    """It cannot be measured."""
    return Check(name, Status.PROBLEM, found, mend)


def ask(questions: Sequence[tuple[str, Question]]) -> list[Check]:
    """Ask all questions, each by its name; one that fails by itself is a problem of its own."""
    answers: list[Check] = []
    for name, question in questions:
        try:
            answers += question()
        except TestbedError as error:
            told, _, mend = str(error).partition("; ")
            answers.append(problem(name, told, mend))
        except Exception as error:  # whatever is wrong here, the other checks are worth telling
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            answers.append(problem(name, f"the check itself failed ({reason})", ""))
    return answers
