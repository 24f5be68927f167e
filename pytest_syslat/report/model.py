"""What a report shows, read from a result directory and nothing else.

Plots, tables and sentences are made from these values; nothing behind them reads a file. Arms,
syscalls and figures are those that the data names.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pytest_syslat.agent_cost import AgentCost, ArmCost
from pytest_syslat.attribution import Attribution
from pytest_syslat.budget import parse_budget
from pytest_syslat.distribution import Distribution
from pytest_syslat.gate import Verdict
from pytest_syslat.raw_log import RawLogProblem, read_log
from pytest_syslat.results import RUN_SCHEMA, ResultDirectory
from pytest_syslat.settings import VANILLA
from pytest_syslat.stored import stored_syscalls
from pytest_syslat.syscalls import Syscall

Value = TypeVar("Value")

SEVERITIES: Final = ("invalid", "undecided", "warning", "note")
"""The heaviest first."""


MOST_LOG_BYTES: Final = 250_000_000
"""So much of raw logs is read: 30 million calls of 8 bytes each in logs of events, or the end of a
run would take minutes."""


class ReportProblem(Exception):
    """A directory holds no run that could be reported on; the message is one line."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What an agent adds to a figure of a syscall; None: not defined, or not judged.

    For growth since a stored run, `vanilla_us` is what is expected with the overhead of that run.
    """

    syscall: str
    agent: str
    figure: str
    blocks: int
    vanilla_us: float | None
    agent_us: float | None
    delta_us: float | None
    delta_pct: float | None
    low_us: float | None
    high_us: float | None
    low_pct: float | None
    high_pct: float | None
    budget: str | None
    budget_pct: float | None
    """The budget in per cent of `vanilla_us`, in whatever unit it was given."""
    verdict: Verdict | None
    reasons: tuple[str, ...]
    level_pct: float
    """With this probability all intervals of the family hold at once."""
    of_growth: bool = False
    """Whether it is the growth of an overhead since a stored run."""

    @property
    def unit(self) -> Literal["%", "us"]:
        """In which it is judged: that of its budget, per cent without one."""
        return "us" if (self.budget or "").endswith("us") else "%"

    @property
    def name(self) -> str:
        """The figure, in words that tell its growth from itself."""
        return f"growth of {self.figure}" if self.of_growth else self.figure


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """A trial, also one that does not count."""

    syscall: str
    arm: str
    trial: int
    started_at_s: float
    counts: bool
    """False: refused, or replaced by a repetition."""
    calls: int
    figures_us: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """All calls of an arm in the trials that count and whose logs could be read."""

    syscall: str
    arm: str
    trials: int
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class Part:
    """A mean over blocks with its own 95 % interval, µs; the limits are None with one block."""

    mean_us: float
    low_us: float | None
    high_us: float | None


@dataclass(frozen=True, slots=True)
class Places:
    """Where an agent spends its time in a call, by the two placements of the tracer."""

    syscall: str
    agent: str
    blocks: int
    parts: Mapping[str, Part]
    """`user`, `last`, `first`, and where they can be split `entry`, `inside` and `exit`."""
    impossible: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """All findings of one code and weight."""

    severity: str
    code: str
    trials: tuple[str, ...]
    """Ids, in the order of measurement, each once."""
    example: str
    """The sentence of the first of them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An earlier run that this one is compared with."""

    role: str
    """`baseline`: its vanilla stands for ours; `against`: how far have overheads grown since."""
    path: str
    date: str
    weaknesses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileLink:
    """A file or directory of the run, relative to it."""

    path: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told about a run."""

    name: str
    complete: bool
    interrupted: str | None
    """Id of the trial at hand when the run was ended."""
    strict: bool
    """Whether an inconclusive verdict fails the run."""
    closed: bool
    """Whether the run lived to compute its overheads."""
    date: str
    planned: int
    """Number of trials in the plan."""
    syscalls: tuple[str, ...]
    arms: tuple[str, ...]
    overheads: tuple[Overhead, ...]
    overheads_first: tuple[Overhead, ...]
    """The same with the tracer before the agent; never judged."""
    growth: tuple[Overhead, ...]
    family: str | None
    trials: tuple[TrialPoint, ...]
    curves: tuple[Curve, ...]
    missing_logs: tuple[str, ...]
    """Sentences about logs that could not be used."""
    places: tuple[Places, ...]
    programs: tuple[Attribution, ...]
    costs: tuple[ArmCost, ...]
    findings: tuple[FindingGroup, ...]
    stored: tuple[Stored, ...]
    system: Mapping[str, str]
    files: tuple[FileLink, ...]

    @property
    def agents(self) -> tuple[str, ...]:
        """The arms beside vanilla."""
        return tuple(arm for arm in self.arms if arm != VANILLA)

    @property
    def judged(self) -> tuple[Overhead, ...]:
        """The cells that have a verdict, growth included."""
        return tuple(each for each in (*self.overheads, *self.growth) if each.verdict)


def read_report(directory: Path) -> Report:
    """Read a result directory.

    A log that is missing or damaged leaves a gap in the distributions and a sentence about it.

    Raises:
        ReportProblem: It is no run, or one of a newer version, or its run.json is damaged.
    """
    run = _read_run(directory)
    try:
        return _report(directory, run)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ReportProblem(
            f"{directory / 'run.json'} is not as a run writes it "
            f"({type(error).__name__}: {error}): give the directory of another run"
        ) from None


def _read_run(directory: Path) -> dict[str, Any]:
    file = directory / "run.json"
    try:
        run = json.loads(_printable(file.read_text(encoding="utf-8", errors="replace")))
    except OSError as error:
        raise ReportProblem(
            f"{file} cannot be read ({error.strerror or error}): give the directory of a run"
        ) from None
    except ValueError:
        raise ReportProblem(f"{file} is no JSON: give the directory of a run") from None
    if not isinstance(run, dict) or not isinstance(run.get("schema"), int):
        raise ReportProblem(f"{file} names no schema: give the directory of a run")
    if run["schema"] > RUN_SCHEMA:
        raise ReportProblem(
            f"{file} has the schema {run['schema']}, this version reads up to {RUN_SCHEMA}: "
            "use the version that wrote it"
        )
    if "settings" not in run:
        raise ReportProblem(f"{directory} holds no figures: that run was ended before it began")
    printable: dict[str, Any] = _texts_printable(run)
    return printable


def _printable(text: str) -> str:
    """Without lone surrogates, which no file of ours could hold."""
    return text.encode("utf-8", "replace").decode()


def _texts_printable(value: Any) -> Any:
    """A label may hold any character; control characters are legal neither in HTML nor in SVG."""
    if isinstance(value, dict):
        return {_texts_printable(key): _texts_printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts_printable(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]", "\ufffd", _printable(value))
    return value


def _report(directory: Path, run: Mapping[str, Any]) -> Report:
    counting: list[dict[str, Any]] = run.get("trials", [])
    replaced: list[dict[str, Any]] = run.get("replaced_trials", [])
    interrupted = run.get("interrupted")
    stopped = [interrupted] if interrupted else []
    cells = [_overhead(each) for each in run.get("cells", ())]
    syscalls = _in_order(
        [each["syscall"] for each in (*counting, *stopped)] + [each.syscall for each in cells]
    )
    labels = {each["label"] for each in (*counting, *stopped)}
    labels |= {each.agent for each in cells}
    arms = _in_order(
        [
            each
            for each in (VANILLA, *run["settings"].get("agents", ()), *sorted(labels))
            if each in labels
        ]
    )
    tracer = run["settings"].get("tracer", "")
    curves, missing = _read_curves(directory, counting, tracer, stored_syscalls(run))
    begins_s = [float(each["started_at_s"]) for each in counting if each.get("started_at_s")]
    return Report(
        name=directory.resolve().name,
        complete=run.get("complete") is True,
        interrupted=_trial_id(interrupted) if interrupted else None,
        strict=run["settings"].get("strict") is True,
        closed="cells" in run,
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(begins_s))) if begins_s else "",
        planned=len(run.get("plan", ())),
        syscalls=syscalls,
        arms=arms,
        overheads=_sorted(cells, syscalls, arms),
        overheads_first=_sorted(map(_overhead, run.get("cells_first", ())), syscalls, arms),
        growth=_sorted(map(_growth, run.get("growth", ())), syscalls, arms),
        family=run.get("family"),
        trials=tuple(
            sorted(
                [
                    *(_trial(each, counts=not each["refused"]) for each in counting),
                    *(_trial(each, counts=False) for each in replaced),
                ],
                key=lambda each: each.started_at_s,
            )
        ),
        curves=tuple(curves),
        missing_logs=tuple(missing),
        places=_sorted(map(_places, run.get("split", ())), syscalls, arms),
        programs=_sorted(map(Attribution.from_dict, run.get("attribution", ())), syscalls, arms),
        costs=tuple(
            cost
            for syscall in syscalls
            for arm in arms
            for cost in [_cost(syscall, arm, counting)]
            if cost is not None
        ),
        findings=tuple(_findings(counting, replaced, stopped)),
        stored=tuple(
            Stored(
                role,
                str(run[role]["path"]),
                str(run[role]["date"]),
                tuple(map(str, run[role].get("weaknesses", ()))),
            )
            for role in ("baseline", "against")
            if run.get(role)
        ),
        system={str(name): str(value) for name, value in run.get("system", {}).items()},
        files=tuple(_files(directory, arms)),
    )


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _sorted(
    items: Iterable[Value], syscalls: Sequence[str], arms: Sequence[str]
) -> tuple[Value, ...]:
    """By syscall, then by agent; figures stay in the order of the data."""

    def position(item: Any) -> tuple[int, int]:
        return (
            syscalls.index(item.syscall) if item.syscall in syscalls else len(syscalls),
            arms.index(item.agent) if item.agent in arms else len(arms),
        )

    return tuple(sorted(items, key=position))


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None  # type: ignore[arg-type]


def _growth(entry: Mapping[str, Any]) -> Overhead:
    return replace(_overhead(entry), of_growth=True)


def _overhead(entry: Mapping[str, Any]) -> Overhead:
    cell = entry["cell"]
    vanilla_us = _number(entry["vanilla_us"])
    return Overhead(
        syscall=str(cell["syscall"]),
        agent=str(cell["agent"]),
        figure=str(cell["figure"]),
        blocks=int(entry["blocks"]),
        vanilla_us=vanilla_us,
        agent_us=_number(entry["agent_us"]),
        delta_us=_number(entry["delta_us"]),
        delta_pct=_number(entry["delta_pct"]),
        low_us=_number(entry["ci_low_us"]),
        high_us=_number(entry["ci_high_us"]),
        low_pct=_number(entry["ci_low_pct"]),
        high_pct=_number(entry["ci_high_pct"]),
        budget=entry["budget"],
        budget_pct=_budget_pct(entry["budget"], str(cell["syscall"]), vanilla_us),
        verdict=Verdict(entry["verdict"]) if entry["verdict"] else None,
        reasons=tuple(map(str, entry["reasons"])),
        level_pct=100 * (1 - float(entry.get("alpha", 0.05))),
    )


def _budget_pct(text: str | None, syscall: str, vanilla_us: float | None) -> float | None:
    if not text:
        return None
    budget = parse_budget(text, {syscall})
    if budget.unit == "%":
        return budget.amount
    return 100 * budget.amount / vanilla_us if vanilla_us else None


def _trial_id(entry: Mapping[str, Any]) -> str:
    return f"{entry['syscall']}-{entry['label']}-trial{entry['trial']}"


def _trial(entry: Mapping[str, Any], *, counts: bool) -> TrialPoint:
    figures = {name: _number(value) for name, value in entry["figures_us"].items()}
    return TrialPoint(
        syscall=str(entry["syscall"]),
        arm=str(entry["label"]),
        trial=int(entry["trial"]),
        started_at_s=float(entry["started_at_s"]),
        counts=counts,
        calls=int(entry["calls"]),
        figures_us={name: value for name, value in figures.items() if value is not None},
    )


def _read_curves(
    directory: Path,
    trials: Sequence[Mapping[str, Any]],
    tracer: str,
    definitions: Mapping[str, Syscall],
) -> tuple[list[Curve], list[str]]:
    curves: dict[tuple[str, str], Curve] = {}
    missing: list[str] = []
    room_bytes = MOST_LOG_BYTES
    # By block, so that what there is no room for is missing in all arms alike.
    for entry in sorted(trials, key=lambda each: int(each["trial"])):
        if entry["refused"]:
            continue
        syscall, arm = str(entry["syscall"]), str(entry["label"])
        path = ResultDirectory(directory).log_path(arm, syscall, int(entry["trial"]))
        shown = path.relative_to(directory)
        try:
            size_bytes = path.stat().st_size
            if size_bytes > room_bytes:
                missing.append(
                    f"{shown} is left out: it has {size_bytes / 1e6:,.1f} MB, and a report reads "
                    f"{MOST_LOG_BYTES / 1e6:,.0f} MB of logs in all"
                )
                continue
            room_bytes -= size_bytes
            found = read_log(path.read_bytes(), tracer, definitions[syscall]).succeeded
        except OSError as error:
            missing.append(f"{shown} cannot be read: {error.strerror or error}")
            continue
        except RawLogProblem as problem:
            missing.append(f"{shown} is left out: {problem}")
            continue
        if found.count != entry["calls"]:
            missing.append(
                f"{shown} is left out: it holds {found.count:,} calls, the trial had "
                f"{entry['calls']:,}"
            )
            continue
        before = curves.get((syscall, arm))
        curves[syscall, arm] = Curve(
            syscall,
            arm,
            before.trials + 1 if before else 1,
            before.distribution.merged(found) if before else found,
        )
    return list(curves.values()), missing


def _places(entry: Mapping[str, Any]) -> Places:
    parts = {
        name: Part(
            float(entry[name]["mean_us"]),
            _number(entry[name]["low_us"]),
            _number(entry[name]["high_us"]),
        )
        for name in ("user", "last", "first", "entry", "inside", "exit")
        if entry.get(name)
    }
    return Places(
        str(entry["syscall"]),
        str(entry["agent"]),
        int(entry["blocks"]),
        parts,
        tuple(map(str, entry.get("impossible", ()))),
    )


def _cost(syscall: str, arm: str, trials: Sequence[Mapping[str, Any]]) -> ArmCost | None:
    costs = [
        AgentCost.from_dict(each["cost"])
        for each in trials
        if (each["syscall"], each["label"]) == (syscall, arm)
        and each.get("cost")
        and not each["refused"]
    ]
    return ArmCost.of(syscall, arm, costs) if costs else None


def _findings(
    counting: Sequence[Mapping[str, Any]],
    replaced: Sequence[Mapping[str, Any]],
    stopped: Sequence[Mapping[str, Any]],
) -> Iterable[FindingGroup]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for trial, words in (
        *((each, "") for each in counting),
        *((each, "an attempt that does not count: ") for each in replaced),
        *((each, "") for each in stopped),
    ):
        first = trial.get("first") or {}
        for finding, prefix in (
            *((each, words) for each in trial["findings"]),
            *((each, f"{words}tracer first: ") for each in first.get("findings", ())),
        ):
            group = found.setdefault((str(finding["severity"]), str(finding["code"])), [])
            group.append((_trial_id(trial), f"{prefix}{finding['detail']}"))
    for (severity, code), entries in sorted(
        found.items(), key=lambda item: (_weight(item[0][0]), item[0][1])
    ):
        yield FindingGroup(severity, code, _in_order(trial for trial, _ in entries), entries[0][1])


def _weight(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _files(directory: Path, arms: Sequence[str]) -> Iterable[FileLink]:
    files = ResultDirectory(directory)
    for path, meaning in (
        (files.overhead_path, "overheads, intervals and verdicts"),
        (files.growth_path, "growth since the stored run"),
        (files.attribution_path, "what each BPF program takes of a call"),
        (files.run_path, "everything, for scripts"),
        (directory / "report.md", "this report for a pull request"),
    ):
        if path.exists() or path.name == "report.md":
            yield FileLink(path.name, meaning)
    for arm in arms:
        for path, meaning in (
            (files.summary_path(arm), f"figures of each trial of {arm}"),
            (files.validity_path(arm), f"findings on trials of {arm}"),
            (files.sysinfo_path(arm), f"machine, tools and settings of {arm}"),
        ):
            if path.exists():
                yield FileLink(path.relative_to(directory).as_posix(), meaning)
        folder = files.summary_path(arm).parent
        logs = len(list(folder.glob("*.log"))) if folder.is_dir() else 0
        if logs:
            yield FileLink(
                f"{folder.relative_to(directory).as_posix()}/",
                f"all files of {arm}, {logs} raw logs",
            )
