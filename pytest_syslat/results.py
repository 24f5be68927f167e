"""The files of a run: where they lie, written so that none is ever half there, and read back."""

import csv
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from pytest_syslat.summary import STATS_TYPES, SUMMARY_TYPES

RUN_SCHEMA: Final = 1
"""Version of run.json's layout, its key `schema`: what marks a directory as a run of ours."""

_RUN_FILE = "run.json"


class DirectoryProblem(Exception):
    """A result directory cannot be used; the message is one sentence for the user."""


def write_atomically(path: Path, data: str | bytes) -> None:
    """Replace a file as a whole: whoever reads it sees the old content or the new, never a part.

    Args:
        path: The file; a missing directory for it is created. Its mode becomes 0644 without what
            the umask forbids.
        data: Text, written as UTF-8 with its line ends as they are, or bytes.

    Raises:
        OSError: If it cannot be written; then the old file, if any, is unchanged.
    """
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    r"""Write a frame as CSV: three decimals in float columns, NaN as an empty field, `\n` ends.

    Raises:
        OSError: If it cannot be written; then the old file, if any, is unchanged.
    """
    write_atomically(path, frame.to_csv(index=False, float_format="%.3f", lineterminator="\n"))


def read_summary(path: Path) -> pd.DataFrame:
    """Read a `<label>_summary.csv`: columns and types as of `summary_frame`, empty floats as NaN.

    Raises:
        ValueError: If its columns or values are not those of such a file; names the file and the
            first place that is wrong.
        OSError: If it cannot be read.
    """
    return _read_frame(path, SUMMARY_TYPES)


def read_stats(path: Path) -> pd.DataFrame:
    """Read a `<label>_stats_<filter>.csv`: columns and types as of `stats_frame`.

    Raises:
        ValueError: If its columns or values are not those of such a file; names the file and the
            first place that is wrong.
        OSError: If it cannot be read.
    """
    return _read_frame(path, STATS_TYPES)


@dataclass(frozen=True, slots=True)
class ResultDirectory:
    """Where the files of a run lie: `result/<experiment>/`.

    Only `arm` creates anything, so that a stored run can be read without leaving traces in it.
    In names of files and directories, characters of a label outside `A-Za-z0-9._+-` become `_`;
    labels that differ in nothing else share their files.

    Attributes:
        root: The directory of the run, as `claim` returned it.
    """

    root: Path

    def arm(self, label: str) -> Path:
        """Create the directory of an arm if it is missing.

        Raises:
            OSError: If it cannot be created.
        """
        directory = self._arm(label)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def summary_path(self, label: str) -> Path:
        """Name the file of the trials' figures."""
        return self._file(label, "summary.csv")

    def stats_path(self, label: str, filter_name: Literal["raw", "iqr"]) -> Path:
        """Name the file of averages over trials."""
        return self._file(label, f"stats_{filter_name}.csv")

    def sysinfo_path(self, label: str) -> Path:
        """Name the file that describes the machine and the settings."""
        return self._file(label, "sysinfo.txt")

    def log_path(
        self, label: str, syscall: str, trial: int, *, refused: bool = False, first: bool = False
    ) -> Path:
        """Name the file of what the tracer printed in a trial, or in its refused first attempt.

        `first` is for the same trial once more, with the tracer before the agent.
        """
        suffix = ("_first" if first else "") + ("_refused" if refused else "")
        return self._file(label, f"{file_name(syscall)}_trial{trial}{suffix}.log")

    def validity_path(self, label: str) -> Path:
        """Name the file of the findings on trials."""
        return self._file(label, "validity.csv")

    def user_path(self, label: str) -> Path:
        """Name the file of lmbench's own figures."""
        return self._file(label, "user.csv")

    def placement_path(self, label: str) -> Path:
        """Name the file of the trials' figures in each placement."""
        return self._file(label, "placement.csv")

    def agent_path(self, label: str) -> Path:
        """Name the file of what the arm itself costs."""
        return self._file(label, "agent.csv")

    @property
    def overhead_path(self) -> Path:
        """The file of the agents' overheads and verdicts."""
        return self.root / "overhead.csv"

    @property
    def growth_path(self) -> Path:
        """The file of how far overheads have grown since a stored run."""
        return self.root / "growth.csv"

    @property
    def attribution_path(self) -> Path:
        """The file of what each BPF program takes of a call."""
        return self.root / "attribution.csv"

    @property
    def run_path(self) -> Path:
        """The file with all that a re-analysis needs."""
        return self.root / _RUN_FILE

    def _arm(self, label: str) -> Path:
        return self.root / file_name(label)

    def _file(self, label: str, rest: str) -> Path:
        return self._arm(label) / f"{file_name(label)}_{rest}"


def is_complete_run(root: Path) -> bool:
    """Tell whether a directory holds a run that measured all of its plan.

    Raises:
        OSError: If its run.json is there and cannot be read.
    """
    stored = _stored_run(root)
    return stored is not None and stored.get("complete") is True


def claim(root: Path, *, partial: bool) -> Path:
    """Decide where a run may write, and prepare that directory.

    An earlier run in `root` is moved to the sibling `<name>.previous`, where it replaces the one
    moved there before; but an incomplete run never replaces a complete one there, it goes to
    `<name>.interrupted`. A partial run leaves a complete one where it is and writes to the sibling
    `<name>-partial`, replacing an earlier partial run. Nothing that is not a run of ours is
    touched.

    Args:
        root: Where the user wants the results.
        partial: Whether this run measures only a part of what could be selected.

    Returns:
        The directory to write to. It holds nothing but a run.json that says the run is incomplete,
        by which an interrupted run is recognised later.

    Raises:
        DirectoryProblem: If something else is in the way, or it cannot be written.
    """
    try:
        target = root
        if _holds_run(root):
            if Path.cwd().is_relative_to(root.resolve()):
                raise DirectoryProblem(
                    f"{root} holds an earlier run and also the current directory: "
                    "start from outside it"
                )
            if partial and is_complete_run(root):
                target = _sibling(root, "-partial")
                if _holds_run(target):
                    shutil.rmtree(target)
            else:
                _move_aside(root)
        write_atomically(
            target / _RUN_FILE, json.dumps({"schema": RUN_SCHEMA, "complete": False}) + "\n"
        )
    except OSError as error:
        raise DirectoryProblem(
            f"{root} cannot be used for results: {error.strerror or error}"
        ) from error
    return target


def _move_aside(root: Path) -> None:
    aside = _sibling(root, ".previous")
    if is_complete_run(aside) and not is_complete_run(root):
        aside = _sibling(root, ".interrupted")
    if not _holds_run(aside):
        root.rename(aside)
        return
    # The older run is deleted last: a root that cannot be moved (a mount point, say) costs nothing.
    superseded = _temporary_beside(aside)
    aside.rename(superseded)
    try:
        root.rename(aside)
    except OSError:
        superseded.rename(aside)
        raise
    shutil.rmtree(superseded)


def _holds_run(path: Path) -> bool:
    """Tell a run of ours from a free place; anything else is a DirectoryProblem."""
    if not path.exists():
        return False
    if not path.is_dir():
        raise DirectoryProblem(f"{path} is a file, not a directory")
    if not any(path.iterdir()):
        return False
    if _stored_run(path) is None:
        raise DirectoryProblem(f"{path} is not empty and holds no earlier run")
    return True


def _stored_run(root: Path) -> dict[str, object] | None:
    path = root / _RUN_FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_bytes())
    except ValueError:
        return None
    return stored if isinstance(stored, dict) and "schema" in stored else None


def _sibling(root: Path, suffix: str) -> Path:
    return root.with_name(root.name + suffix)


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.tmp")


def file_name(text: str) -> str:
    """A label as a part of names of files: other characters than `A-Za-z0-9._+-` become `_`."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", text)
    # '.' and '..' would be the directory itself and the one above it.
    return name if name.strip(".") else "_" * max(1, len(name))


def _read_frame(path: Path, types: Mapping[str, type]) -> pd.DataFrame:
    # Not pandas' reader: it takes labels such as 'null' or '007' for something else, and surplus
    # fields for an index.
    columns: dict[str, list[object]] = {column: [] for column in types}
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        _check_columns(path, next(lines, []), list(types))
        for fields in lines:
            if len(fields) != len(types):
                raise ValueError(
                    f"{path}, line {lines.line_num}: {len(fields)} fields where {len(types)} belong"
                )
            for (column, kind), text in zip(types.items(), fields, strict=True):
                try:
                    columns[column].append(_PARSERS[kind](text))
                except ValueError:
                    raise ValueError(
                        f"{path}, line {lines.line_num}: {text!r} is no value for column {column!r}"
                    ) from None
    return pd.DataFrame(columns).astype(dict(types))


def _check_columns(path: Path, found: list[str], expected: list[str]) -> None:
    for position, (name, wanted) in enumerate(zip_longest(found, expected), start=1):
        if name is None:
            raise ValueError(f"{path}: column {position} ({wanted!r}) is missing")
        if wanted is None:
            raise ValueError(f"{path}: column {position} ({name!r}) does not belong there")
        if name != wanted:
            raise ValueError(f"{path}: column {position} is {name!r} instead of {wanted!r}")


def _parse_float(text: str) -> float:
    return float(text) if text else math.nan


_PARSERS: Final[Mapping[type, Callable[[str], object]]] = {
    str: str,
    int: int,
    float: _parse_float,
}
