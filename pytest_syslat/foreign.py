"""The standard CSV files of other programs, read as a stored run, with their weaknesses named.

The columns are those of `<label>_summary.csv` and `<label>_stats_<filter>.csv`. What the figures
rest on is not in such files, so what can be suspected from them is said in words.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_syslat.plan import TrialKey
from pytest_syslat.results import read_stats, read_summary
from pytest_syslat.settings import VANILLA
from pytest_syslat.stored import (
    UNKNOWN,
    StoredProblem,
    StoredRun,
    StoredTrial,
    Weakness,
    known_figures_us,
)
from pytest_syslat.summary import SUMMARY_COLUMNS
from pytest_syslat.syscalls import SYSCALLS, in_order

SUMMARY_ENDING = "_summary.csv"
FEW_CALLS = 300
"""Below so many calls a trial's p99 is one of its three largest values."""
UNLIKE_COUNTS = 3.0
FASTEST_EXECVE_US = 5.0
"""An execve that succeeds takes tens of µs; one that fails with ENOENT took 1.3 µs."""

_COLUMN_OF_FIGURE = {"p50": "p50_us", "p99": "p99_us", "mean": "avg_us"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a summary."""

    key: TrialKey
    filter: str
    figures_us: dict[str, float]
    count: int
    stddev_us: float


def read_foreign(path: Path, syscalls: Collection[str] = tuple(SYSCALLS)) -> StoredRun:
    """Read `<path>/<label>/<label>_summary.csv` of each label, and what lies beside it.

    A trial's figures are those of its `raw` row; of the `iqr` row if there is no other. There is
    neither p90 nor `user` in such files.

    Args:
        path: The directory.
        syscalls: Names of the syscalls that may stand in the files.

    Raises:
        StoredProblem: One line that names the file and what is wrong with it.
    """
    files = sorted(path.glob(f"*/*{SUMMARY_ENDING}"))
    if not files:
        raise StoredProblem(
            f"{path} holds no run.json and no LABEL/LABEL{SUMMARY_ENDING}: give the result "
            "directory of a run"
        )
    rows = [row for file in files for row in _rows(file, syscalls)]
    if VANILLA not in {row.key.arm for row in rows}:
        labels = ", ".join(sorted({row.key.arm for row in rows}))
        raise StoredProblem(
            f"{path} holds no arm 'vanilla', but {labels}: the label of the runs without an agent "
            "must be 'vanilla'"
        )
    chosen = _chosen(rows)
    return StoredRun(
        path=path,
        settings={},
        system={},
        trials={
            row.key: StoredTrial(
                row.key, UNKNOWN, False, (), known_figures_us(row.figures_us), None
            )
            for row in chosen
        },
        complete=True,
        weaknesses=tuple(_weaknesses(path, chosen, _stats_without_spread(files))),
        is_ours=False,
    )


def _rows(file: Path, syscalls: Collection[str]) -> Iterator[_Row]:
    _check_is_text(file)
    try:
        frame = read_summary(file)
    except (OSError, ValueError, csv.Error) as error:
        raise StoredProblem(str(error)) from None
    if frame.empty:
        raise StoredProblem(f"{file} has a header and no rows: measure again")
    for number, row in enumerate(frame.to_dict("records"), start=2):
        yield _row(f"{file}, line {number}", row, syscalls)


def _check_is_text(file: Path) -> None:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise StoredProblem(f"{file} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise StoredProblem(f"{file} is not UTF-8 text") from None
    if not text.strip():
        raise StoredProblem(
            f"{file} is empty: it needs the header {','.join(SUMMARY_COLUMNS)} and a row a trial"
        )


def _row(place: str, row: dict[Any, Any], syscalls: Collection[str]) -> _Row:
    if not row["label"].strip():
        raise StoredProblem(f"{place}: the label is missing")
    if row["syscall"] not in syscalls:
        raise StoredProblem(
            f"{place}: unknown syscall {row['syscall']!r}, known are {', '.join(syscalls)}"
        )
    if row["filter"] not in ("raw", "iqr"):
        raise StoredProblem(f"{place}: the filter is {row['filter']!r}, not 'raw' or 'iqr'")
    figures_us = {name: float(row[column]) for name, column in _COLUMN_OF_FIGURE.items()}
    if any(value < 0 or math.isinf(value) for value in figures_us.values()):
        raise StoredProblem(f"{place}: a latency is negative or infinite")
    return _Row(
        TrialKey(row["syscall"], row["label"], int(row["trial"])),
        row["filter"],
        figures_us,
        int(row["count"]),
        float(row["stddev_us"]),
    )


def _chosen(rows: Iterable[_Row]) -> list[_Row]:
    """One row a trial, `raw` before `iqr`."""
    found: dict[TrialKey, _Row] = {}
    for row in rows:
        if row.key not in found or row.filter == "raw":
            found[row.key] = row
    return list(found.values())


def _stats_without_spread(files: Iterable[Path]) -> set[str]:
    """Syscalls of which a file of averages says that several trials do not differ at all."""
    flat: set[str] = set()
    for file in files:
        for name in ("raw", "iqr"):
            stats = file.with_name(file.name.removesuffix(SUMMARY_ENDING) + f"_stats_{name}.csv")
            if not stats.is_file():
                continue
            try:
                frame = read_stats(stats)
            except (OSError, ValueError, csv.Error) as error:
                raise StoredProblem(str(error)) from None
            flat |= {
                row["syscall"]
                for row in frame.to_dict("records")
                if row["trials"] > 1 and row["std_p50_us"] == row["std_mean_us"] == 0
            }
    return flat


def _weaknesses(path: Path, rows: list[_Row], flat: set[str]) -> Iterator[Weakness]:
    yield Weakness("no program of ours measured it: failed calls may be among its figures")
    yield Weakness("it has no user cost: what the tracer does not see is not known")
    missing = sorted(
        {row.key.arm for row in rows if not list((path / row.key.arm).glob("*_sysinfo.txt"))}
    )
    if missing:
        yield Weakness(
            f"no sysinfo describes the machine of {', '.join(missing)}: nothing shows that it is "
            "this one"
        )
    for syscall in in_order(row.key.syscall for row in rows):
        own = [row for row in rows if row.key.syscall == syscall]
        for sentence in (*_of_resolution(own), *_of_calls(own), *_of_filter(own)):
            yield Weakness(f"{syscall}: {sentence}", syscall)
        if syscall in flat:
            yield Weakness(
                f"{syscall}: the averages over trials have no deviation at all: rounded, or one "
                "trial copied",
                syscall,
            )


def _of_resolution(rows: list[_Row]) -> Iterator[str]:
    known_us = {
        name: [row.figures_us[name] for row in rows if not math.isnan(row.figures_us[name])]
        for name in _COLUMN_OF_FIGURE
    }
    whole = [
        name
        for name, values_us in known_us.items()
        if values_us and all(value_us.is_integer() for value_us in values_us)
    ]
    if whole:
        own_us = [value_us for value_us in known_us[whole[0]] if value_us > 0]
        example = ""
        if own_us:
            typical_us = statistics.median_low(own_us)
            example = (
                f": a {whole[0]} of {typical_us:g} µs may be {typical_us - 0.5:g} to "
                f"{typical_us + 0.5:g} µs, ±{50 / typical_us:.0f} %"
            )
        yield f"{', '.join(whole)} in whole µs{example}"
    zeros = sum(value_us == 0 for values_us in known_us.values() for value_us in values_us)
    if zeros:
        yield f"{zeros} figures are 0 µs, below the resolution: they are left out"
    if all(row.stddev_us == 0 for row in rows):
        yield "the deviation within each trial is 0, which no real latencies have"
    if rows[0].key.syscall == "execve":
        fast = [row for row in rows if row.figures_us["mean"] < FASTEST_EXECVE_US]
        if fast:
            yield (
                f"the mean of {len(fast)} trials is below {FASTEST_EXECVE_US:g} µs: these calls "
                "have probably failed (one that fails took 1.3 µs, one that succeeds 56 µs)"
            )


def _of_calls(rows: list[_Row]) -> Iterator[str]:
    counts = [row.count for row in rows]
    fewest, most = min(counts), max(counts)
    if fewest < FEW_CALLS:
        yield (
            f"as few as {fewest:,} calls a trial: below {FEW_CALLS} the p99 has no upper bound, "
            "and the loader's own calls weigh"
        )
    if most > UNLIKE_COUNTS * max(fewest, 1):
        yield (
            f"numbers of calls differ {most / max(fewest, 1):,.0f}-fold between trials or arms "
            f"({fewest:,} to {most:,})"
        )


def _of_filter(rows: list[_Row]) -> Iterator[str]:
    filtered = sum(row.filter == "iqr" for row in rows)
    if filtered:
        yield (
            f"only rows without outliers (iqr) for {filtered} of {len(rows)} trials: a slow tail "
            "is cut off"
        )
