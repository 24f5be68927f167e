"""Figures of two result directories that differ by more than rounding: file, place, both values."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY_COLUMNS = frozenset(
    {
        "label",
        "agent",
        "syscall",
        "trial",
        "filter",
        "traced",
        "wanted",
        "figure",
        "placement",
        "owner",
        "program",
        "severity",
        "code",
    }
)
"""Columns that tell which row it is."""
NOT_KEYS = {"_placement.csv": {"placement"}}
TEXT_COLUMNS = frozenset({"detail"})
"""Sentences, which another version may word otherwise."""
PARTS_OF_TRIALS = ("trials",)
"""Parts of run.json that hold computed figures and are written with each trial."""
RUN_PARTS = (*PARTS_OF_TRIALS, "cells", "cells_first", "split", "attribution", "growth")
"""All that a run which was closed holds."""
RUN_TEXTS = frozenset(
    {"findings", "reasons", "cost", "program_order", "started_at_s", "duration_s"}
)
"""Keys in them that do not."""
NAMES = ("syscall", "label", "trial", "agent", "figure", "owner", "program")
RELATIVE = 1e-6
ABSENT = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that is not what it was computed to be."""

    file: str
    """Relative to the result directory."""
    place: str
    """Which row and column, or which key."""
    stored: str
    computed: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: stored {self.stored}, computed {self.computed}"


def compare_directories(stored: Path, computed: Path) -> list[Difference]:
    """Compare all CSV files, and the figures in run.json.

    A run that was killed has written trials alone: what is written when a run is closed is left
    out then.

    Args:
        stored: A result directory.
        computed: The same, computed anew.

    Raises:
        OSError: A file cannot be read.
    """
    before, now = (_run_json(root) for root in (stored, computed))
    is_closed = "cells" in before
    names = {
        str(path.relative_to(root))
        for root in (stored, computed)
        for path in (*(root.glob("*.csv") if is_closed else ()), *root.glob("*/*.csv"))
        # An arm of an earlier version of the directory is none of this run's.
        if root == computed or path.parent == root or (computed / path.parent.name).is_dir()
    }
    found = [
        difference
        for name in sorted(names, key=lambda name: (name.count("/"), name))
        for difference in _csv_differences(name, stored / name, computed / name)
    ]
    for part in RUN_PARTS if is_closed else PARTS_OF_TRIALS:
        found += _json_differences("", before.get(part), now.get(part), part)
    return found


def _csv_differences(name: str, stored: Path, computed: Path) -> Iterator[Difference]:
    if not stored.exists() or not computed.exists():
        told = [path.name if path.exists() else ABSENT for path in (stored, computed)]
        yield Difference(name, "the file", told[0], told[1])
        return
    (head, before), (head_now, now) = _rows(name, stored), _rows(name, computed)
    if head != head_now:
        yield Difference(name, "the header", ",".join(head), ",".join(head_now))
        return
    for key in [*before, *(key for key in now if key not in before)]:
        place = " ".join(key[0]) + (f" row {key[1] + 1}" if key[1] else "")
        if key not in before or key not in now:
            told = ["a row" if key in rows else ABSENT for rows in (before, now)]
            yield Difference(name, place, told[0], told[1])
            continue
        for column in head:
            values = before[key][column], now[key][column]
            if column not in TEXT_COLUMNS and not _same_texts(*values):
                told = [value or ABSENT for value in values]
                yield Difference(name, f"{place}, {column}", told[0], told[1])


def _rows(
    name: str, path: Path
) -> tuple[list[str], dict[tuple[tuple[str, ...], int], dict[str, str]]]:
    """Header and rows by their keys; equal keys are counted."""
    other = next((columns for end, columns in NOT_KEYS.items() if name.endswith(end)), set())
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file, restval="")
        seen: Counter[tuple[str, ...]] = Counter()
        rows = {}
        head = list(reader.fieldnames or [])
        for row in reader:
            key = tuple(row[column] for column in head if column in KEY_COLUMNS - other)
            rows[key, seen[key]] = row
            seen[key] += 1
    return head, rows


def _same_texts(stored: str, computed: str) -> bool:
    if stored == computed:
        return True
    try:
        values = float(stored), float(computed)
    except ValueError:
        return False
    # Each was rounded to its last decimal.
    decimals = min(len(text.partition(".")[2]) for text in (stored, computed))
    step = 10.0**-decimals if "e" not in f"{stored}{computed}" else 0.0
    return math.isclose(*values, rel_tol=RELATIVE, abs_tol=1.01 * step)


def _run_json(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "run.json").read_bytes()))


def _json_differences(place: str, stored: Any, computed: Any, name: str) -> Iterator[Difference]:
    """Differences of two values below a key of run.json."""
    here = f"{place}, {name}" if place else name
    if isinstance(stored, Mapping) and isinstance(computed, Mapping):
        for key in dict.fromkeys([*stored, *computed]):
            # A key that one of two versions does not know says nothing.
            if key not in RUN_TEXTS and key in stored and key in computed:
                yield from _json_differences(here, stored[key], computed[key], str(key))
    elif _is_list(stored) and _is_list(computed) and len(stored) == len(computed):
        for number, (before, now) in enumerate(zip(stored, computed, strict=True), start=1):
            yield from _json_differences(here, before, now, _name_of(before, number))
    elif _is_number(stored) and _is_number(computed):
        if not math.isclose(stored, computed, rel_tol=RELATIVE, abs_tol=1e-9):
            yield Difference("run.json", here, f"{stored:.10g}", f"{computed:.10g}")
    elif stored != computed and (stored or computed):
        yield Difference("run.json", here, _told(stored), _told(computed))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name_of(entry: Any, number: int) -> str:
    """What an entry of a list is about, by its names."""
    told = entry.get("cell", entry) if isinstance(entry, Mapping) else {}
    names = [str(told[name]) for name in NAMES if told.get(name) is not None]
    return "-".join(names) or str(number)


def _told(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{len(value)} entries" if _is_list(value) else str(value)
