"""`syslat analyze`: compute a run again from its raw logs, and tell what differs."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_syslat.cli.answer import Answer, ExitCode, Line, Problem, Style
from pytest_syslat.cli.options import add_options, given_texts, typed_settings
from pytest_syslat.cli.report import reports_of
from pytest_syslat.settings import OPTIONS

if TYPE_CHECKING:
    from pytest_syslat.budget import Budget
    from pytest_syslat.differences import Difference
    from pytest_syslat.gate import Cell
    from pytest_syslat.reanalysis import Reread

NAME = "analyze"
HELP = "compute a run again from its raw logs, and tell what differs"
DESCRIPTION = """\
Read the logs of all trials of a result directory, check the kernel's totals,
compute every figure, interval and verdict again, and tell each that differs
from the stored files by more than rounding. No node is needed, and nothing is
written unless --write or --output is given. Other budgets can be applied;
those of a project's ini file do not count here.
"""
SCHEMA = 1
SHOWN = ("budget", "growth_budget", "strict")
NEVER_CLOSED = (
    "the run was killed before its end: it has stored no overhead and no verdict to compare with"
)
KEPT_SUFFIX = ".measured"
"""Behind the name of a file that `--write` has replaced: as the run itself wrote it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the directory, where to write, and budgets."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="result directory of a run")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--write",
        action="store_true",
        help="replace the computed files in DIR that differ; each is kept beside it, as "
        f"NAME{KEPT_SUFFIX}; logs are never touched",
    )
    where.add_argument(
        "--output",
        metavar="DIR2",
        type=Path,
        help="write a whole result directory, logs included; DIR2 must be new or empty",
    )
    add_options(parser, SHOWN)


def run(arguments: argparse.Namespace) -> Answer:
    """Compute and compare; raises Problem."""
    from pytest_syslat.reanalysis import reread
    from pytest_syslat.stored import StoredProblem

    directory: Path = arguments.directory
    try:
        found = reread(directory)
        settings = typed_settings(arguments, found.settings, SHOWN)
        # Even by the budgets of the run itself: who types one wants an answer to it.
        rejudged = any(given_texts(arguments, option) for option in OPTIONS if option.name in SHOWN)
        _check_budgets(found, arguments)
        _check_output(arguments.output, directory)
        with tempfile.TemporaryDirectory(prefix="syslat-analyze-") as scratch:
            computed = Path(scratch, "computed")
            found.write(computed)
            differences = _differences(found, computed)
            if rejudged:
                found = found.under(settings)
                _check_judged(found, arguments)
                computed = Path(scratch, "rejudged")
                found.write(computed)
            written = _written(arguments, found, computed)
    except StoredProblem as problem:
        raise Problem(str(problem)) from None
    except OSError as error:
        place = error.filename or directory
        raise Problem(f"{place} cannot be used: {error.strerror or error}") from None
    return _answer(found, differences, written, rejudged=rejudged)


def _check_budgets(found: Reread, arguments: argparse.Namespace) -> None:
    if arguments.syslat_growth_budget and found.analysis.comparison.against is None:
        raise Problem(
            "--syslat-growth-budget: this run was compared with no earlier one: "
            "syslat compare EARLIER THIS"
        )


def _check_judged(found: Reread, arguments: argparse.Namespace) -> None:
    """A budget that judges nothing must not look as if it had been kept."""
    from pytest_syslat.budget import idle_budgets

    settings = found.settings
    if arguments.syslat_budget:
        cells = [each.cell for each in found.results()]
        _refuse_idle("--syslat-budget", idle_budgets(settings.budgets, cells), found, cells)
    if arguments.syslat_growth_budget:
        cells = [each.tested.cell for each in found.growth()]
        idle = idle_budgets(settings.growth_budgets, cells)
        _refuse_idle("--syslat-growth-budget", idle, found, cells)


def _refuse_idle(flag: str, idle: Sequence[Budget], found: Reread, cells: Sequence[Cell]) -> None:
    from pytest_syslat.syscalls import in_order

    if idle:
        there = ", ".join(in_order(cell.syscall for cell in cells)) or "nothing"
        raise Problem(
            f"{flag}: '{idle[0]}' would judge nothing: {found.directory} holds overheads of {there}"
        )


def _check_output(output: Path | None, directory: Path) -> None:
    if output is None:
        return
    if output.resolve().is_relative_to(directory.resolve()):
        raise Problem(f"--output: {output} lies in {directory}: give another directory")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise Problem(f"--output: {output} is there already: give a new directory")


def _differences(found: Reread, computed: Path) -> list[Difference]:
    from pytest_syslat.differences import compare_directories

    return compare_directories(found.directory, computed)


def _written(arguments: argparse.Namespace, found: Reread, computed: Path) -> list[Path]:
    if arguments.output is None and not arguments.write:
        return []
    if found.unread:
        path, reason = next(iter(found.unread.items()))
        raise Problem(f"nothing is written, since a log is not there: {path}: {reason}")
    if arguments.write:
        return _replaced(found.directory, computed)
    found.copy_measured(computed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place first, so that it is there as a whole or not at all.
    beside = Path(tempfile.mkdtemp(prefix=".syslat-", dir=arguments.output.parent))
    try:
        shutil.copytree(computed, beside, dirs_exist_ok=True)
        beside.chmod(0o755)
        beside.replace(arguments.output)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return [arguments.output, *reports_of(arguments.output)]


def _replaced(directory: Path, computed: Path) -> list[Path]:
    """Replace what differs; as the run wrote it, each file stays beside its successor."""
    from pytest_syslat.results import write_atomically

    written = []
    for path in sorted(computed.rglob("*")):
        target = directory / path.relative_to(computed)
        if not path.is_file() or _same(path, target):
            continue
        kept = target.with_name(target.name + KEPT_SUFFIX)
        if target.exists() and not kept.exists():
            os.link(target, kept)
        write_atomically(target, path.read_bytes())
        written.append(target)
    return [*written, *(reports_of(directory) if written else [])]


def _same(path: Path, target: Path) -> bool:
    import json

    if not target.is_file():
        return False
    if path.name != "run.json":
        return path.read_bytes() == target.read_bytes()
    # That it was analyzed is no difference.
    before, now = (
        {name: value for name, value in json.loads(each.read_bytes()).items() if name != "analyzed"}
        for each in (target, path)
    )
    return bool(before == now)


def _answer(
    found: Reread, differences: Sequence[Difference], written: Sequence[Path], *, rejudged: bool
) -> Answer:
    from pytest_syslat.cli.figures import cell_dict, gate_code, growth_dict

    results, growth = found.results(), found.growth()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "command": NAME,
        "directory": str(found.directory),
        "trials": len(found.analysis.trials),
        "logs_read": found.logs,
        "logs_unread": {str(path): reason for path, reason in found.unread.items()},
        "budgets": [str(each) for each in found.settings.budgets],
        "closed": found.is_closed,
        "differences": [asdict(each) for each in differences],
        "cells": [cell_dict(each) for each in results],
        "growth": [growth_dict(each) for each in growth],
        "splits": [each.as_dict() for each in found.analysis.splits()],
        "written": [str(path) for path in written],
    }
    wrong = bool(differences or found.unread)
    code = ExitCode.PROBLEMS if wrong else ExitCode.OK
    if rejudged and not wrong:
        judged = [*results, *(each.tested for each in growth)]
        code = gate_code(judged, strict=found.settings.strict)
    from pytest_syslat.plain import without_nan

    return Answer(
        without_nan(document), list(_lines(found, differences, written, rejudged=rejudged)), code
    )


def _lines(
    found: Reread, differences: Sequence[Difference], written: Sequence[Path], *, rejudged: bool
) -> Iterator[Line]:
    from pytest_syslat.cli.figures import overhead_lines
    from pytest_syslat.gate import Verdict
    from pytest_syslat.report.growth import growth_sentence

    trials = found.analysis.trials.values()
    refused = sum(each.refused for each in trials)
    arms = dict.fromkeys(each.key.arm for each in trials)
    yield Line(
        f"{found.directory}: {', '.join(arms)}; {len(trials)} trials, {refused} refused, "
        f"{found.logs} logs read"
    )
    results = found.results()
    if results:
        yield from overhead_lines(results)
    for each in found.growth():
        if each.tested.verdict is not None:
            yield Line(growth_sentence(each))
    if rejudged:
        open_cells = [each for each in results if each.verdict not in (None, Verdict.PASSED)]
        for result in open_cells:
            yield Line(f"{result.cell.id} {result.verdict}: {'; '.join(result.reasons)}")
    for path, reason in found.unread.items():
        yield Line(f"{path}: {reason}", Style.BAD)
    if not found.is_closed:
        yield Line(NEVER_CLOSED, Style.WARNING)
    for difference in differences:
        yield Line(str(difference), Style.BAD)
    if differences:
        yield Line(f"{len(differences)} values differ from the stored files", Style.BAD)
    elif not found.unread:
        yield Line("every stored figure is what the logs give", Style.GOOD)
    for path in written:
        yield Line(f"written {path}")
