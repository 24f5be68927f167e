"""What is wrong, or may be wrong, with a trial: a code, a severity and a sentence."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How much a finding weighs."""

    INVALID = "invalid"
    """The trial is refused: its figures stay out of the statistics."""
    UNDECIDED = "undecided"
    """The figures are kept, but no cell that rests on them can pass."""
    WARNING = "warning"
    """Printed with the figures."""
    NOTE = "note"
    """Kept in the validity file only."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding on one trial."""

    severity: Severity
    code: str
    """Stable, for scripts: such as `failed-calls`."""
    detail: str
    """A sentence for people, with the figures."""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"

    def as_dict(self) -> dict[str, str]:
        """Plain values for run.json."""
        return {"severity": str(self.severity), "code": self.code, "detail": self.detail}


def invalid(code: str, detail: str) -> Finding:
    """A finding that refuses the trial."""
    return Finding(Severity.INVALID, code, detail)


def undecided(code: str, detail: str) -> Finding:
    """A finding that keeps a cell from passing."""
    return Finding(Severity.UNDECIDED, code, detail)


def warning(code: str, detail: str) -> Finding:
    """A finding that is printed with the figures."""
    return Finding(Severity.WARNING, code, detail)


def note(code: str, detail: str) -> Finding:
    """A finding for the validity file."""
    return Finding(Severity.NOTE, code, detail)


def undecided_sentences(
    trials: Iterable[tuple[str, Sequence[Finding]]], figure: str
) -> tuple[str, ...]:
    """Why a cell cannot pass, one sentence a code.

    Args:
        trials: Name and findings of each trial behind the cell.
        figure: The cell's figure.
    """
    found: dict[str, list[str]] = {}
    for name, findings in trials:
        for finding in findings:
            # Few calls leave only the tail unknown, and no tracer is part of the user's cost.
            concerned = {"few-calls": figure == "p99", "placement-contradicted": figure != "user"}
            if finding.severity is Severity.UNDECIDED and concerned.get(finding.code, True):
                found.setdefault(finding.code, []).append(f"{name}: {finding.detail}")
    return tuple(
        details[0] if len(details) == 1 else f"{details[0]} (and {len(details) - 1} more trials)"
        for details in found.values()
    )
