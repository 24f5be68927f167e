"""An earlier run, read back from its result directory to be compared with."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_syslat.findings import Finding, Severity
from pytest_syslat.plan import TrialKey
from pytest_syslat.results import RUN_SCHEMA
from pytest_syslat.settings import OPTIONS, Settings
from pytest_syslat.syscalls import SYSCALLS, Syscall

UNKNOWN = "unknown"


class StoredProblem(Exception):
    """A stored run cannot be used; the message is one line for the user, without the option."""


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial of an earlier run; the parts of `Trial` that a comparison needs."""

    key: TrialKey
    placement: str
    refused: bool
    findings: tuple[Finding, ...]
    figures_us: Mapping[str, float]
    """The figures that are known, positive and finite."""
    started_at_s: float | None
    """Seconds since the epoch."""

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""
        return [str(each) for each in self.findings if each.severity is Severity.INVALID]

    def figure_us(self, figure: str) -> float | None:
        """A figure in µs; None if it is not known."""
        return self.figures_us.get(figure)


@dataclass(frozen=True, slots=True)
class Weakness:
    """Why figures of a stored run are worth less than ours."""

    sentence: str
    syscall: str | None = None
    """None: of all."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """An earlier run. Refused trials are in it only where they were asked for."""

    path: Path
    settings: Mapping[str, Any]
    system: Mapping[str, str]
    trials: Mapping[TrialKey, StoredTrial]
    complete: bool
    refused: int = 0
    """Trials that were left out since they had been refused."""
    weaknesses: tuple[Weakness, ...] = ()
    is_ours: bool = True
    """False: the standard files of another program, of which no conditions are known."""

    def arm(self, syscall: str, label: str) -> list[StoredTrial]:
        """The trials of a syscall in an arm, by number."""
        return [
            trial
            for key, trial in sorted(self.trials.items())
            if (key.syscall, key.arm) == (syscall, label)
        ]

    def pairs(self, syscall: str, label: str) -> list[tuple[StoredTrial, StoredTrial]]:
        """Vanilla and the arm of each block that has both."""
        return [
            (self.trials[trial.key.partner], trial)
            for trial in self.arm(syscall, label)
            if trial.key.partner in self.trials
        ]

    @property
    def labels(self) -> list[str]:
        """All arms."""
        return sorted({key.arm for key in self.trials})

    @property
    def date(self) -> str:
        """The day on which it began, in UTC, such as `2026-01-31`; `unknown` if it is not told."""
        begins_s = [each.started_at_s for each in self.trials.values() if each.started_at_s]
        return time.strftime("%Y-%m-%d", time.gmtime(min(begins_s))) if begins_s else UNKNOWN


def read_run(path: Path) -> StoredRun:
    """Read a result directory of ours, without the trials that were refused.

    Raises:
        StoredProblem: One line that names the file and what is wrong with it.
    """
    return stored_run(path, read_run_json(path))


def read_run_json(path: Path) -> dict[str, Any]:
    """The run.json of a result directory of ours: of a version that is known, with trials.

    Raises:
        StoredProblem: One line that names the file and what is wrong with it.
    """
    file = path / "run.json"
    try:
        stored = json.loads(file.read_bytes())
    except OSError as error:
        raise StoredProblem(
            f"{file} cannot be read: {error.strerror or error}: give the result directory of a run"
        ) from None
    except ValueError:
        raise StoredProblem(f"{file} is no JSON: is it the file of a run?") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("schema"), int):
        raise StoredProblem(f"{file} names no schema: it is not the file of a run")
    if not 1 <= stored["schema"] <= RUN_SCHEMA:
        raise StoredProblem(
            f"{file} has the schema {stored['schema']}, this version reads up to {RUN_SCHEMA}: "
            "read it with the version that wrote it, or measure again"
        )
    if not stored.get("trials"):
        raise StoredProblem(f"{path} holds no trial: that run was ended before its first one")
    return stored


def stored_run(path: Path, stored: Mapping[str, Any], *, keep_refused: bool = False) -> StoredRun:
    """What a comparison needs of a run.json.

    Args:
        path: The result directory in which it lies.
        stored: The run.json.
        keep_refused: Whether refused trials are among its trials, too.

    Raises:
        StoredProblem: One line that names the file.
    """
    with refusing_damage(path):
        trials = [_trial(entry) for entry in stored["trials"]]
        return StoredRun(
            path=path,
            settings=dict(stored["settings"]),
            system={name: str(value) for name, value in stored["system"].items()},
            trials={trial.key: trial for trial in trials if keep_refused or not trial.refused},
            complete=stored.get("complete") is True,
            refused=sum(trial.refused for trial in trials),
        )


@contextlib.contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Refuse a run.json whose values are none that a run writes; raises StoredProblem."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoredProblem(
            f"{path / 'run.json'} is not as a run writes it ({type(error).__name__}: {error}): "
            "give the directory of another run"
        ) from None


def stored_settings(run: Mapping[str, Any]) -> Settings:
    """The settings of a run; those that it does not know are at their defaults.

    Args:
        run: Its run.json.

    Raises:
        KeyError, TypeError, ValueError: A value is none that this version knows.
    """
    stored, values = run["settings"], dict[str, Any]()
    for option in OPTIONS:
        value = stored.get(option.setting)
        if value is None:
            continue
        if option.repeatable:
            values[option.setting] = tuple(option.parse(str(each)) for each in value)
        else:
            values[option.setting] = option.parse(str(value))
    if "syscalls" in values:
        described = stored_syscalls(run)
        values["syscalls"] = tuple(described[name] for name in values["syscalls"])
    return Settings(**values)


def stored_syscalls(run: Mapping[str, Any]) -> dict[str, Syscall]:
    """The syscalls of a run as it has noted them, and the three, by name.

    Args:
        run: Its run.json.

    Raises:
        TypeError: A definition is none that this version knows.
    """
    noted = {name: Syscall(**entry) for name, entry in run.get("syscalls", {}).items()}
    return {**SYSCALLS, **noted}


def known_figures_us(figures: Mapping[str, object]) -> dict[str, float]:
    """The figures of a trial that can be compared: positive, finite µs."""
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value) and value > 0
    }


def _trial(entry: Mapping[str, Any]) -> StoredTrial:
    return StoredTrial(
        key=TrialKey(str(entry["syscall"]), str(entry["label"]), int(entry["trial"])),
        placement=str(entry["placement"]),
        refused=bool(entry["refused"]),
        findings=stored_findings(entry["findings"]),
        figures_us=known_figures_us(entry["figures_us"]),
        started_at_s=float(entry["started_at_s"]),
    )


def stored_findings(entries: Sequence[Mapping[str, str]]) -> tuple[Finding, ...]:
    """Findings as run.json holds them."""
    return tuple(
        Finding(Severity(each["severity"]), each["code"], each["detail"]) for each in entries
    )
