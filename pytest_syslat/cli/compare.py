"""`syslat compare`: two or more runs side by side, and growth against the first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from pytest_syslat.budget import Budget, idle_budgets
from pytest_syslat.cli.answer import Answer, Line, Problem, Style, table
from pytest_syslat.cli.options import add_options, read_project

if TYPE_CHECKING:
    from pytest_syslat.gate import Cell
    from pytest_syslat.side_by_side import Later, Run
    from pytest_syslat.unpaired import GrowthResult

NAME = "compare"
HELP = "set two or more runs side by side: overheads, and growth since the first"
DESCRIPTION = """\
Set result directories side by side: each run's overhead with its interval for
each syscall, agent and figure, and how far it has grown since the first run.
How the conditions of the runs differ is told; where they do, nothing passes and
nothing regresses. With --syslat-growth-budget growth is judged: exit code 1 if
it is above the budget. Standard CSV files of other programs can be shown, too.
"""
SCHEMA = 1
SHOWN = ("growth_budget", "strict")
HEAD = ("", "Δ µs", "Δ %", "interval, %", "growth %", "interval, %")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the directories and growth budgets."""
    parser.add_argument(
        "directories",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="result directory of a run; the others are compared with the first",
    )
    add_options(parser, SHOWN)


def run(arguments: argparse.Namespace) -> Answer:
    """Compare; raises Problem."""
    from pytest_syslat.cli.figures import cell_dict, gate_code, growth_dict
    from pytest_syslat.side_by_side import beside, read
    from pytest_syslat.stored import StoredProblem

    directories: list[Path] = arguments.directories
    if not 2 <= len(directories) <= len(ascii_uppercase):
        raise Problem(f"{len(directories)} directory is given, two or more are needed")
    settings = read_project(arguments, SHOWN).settings
    try:
        first, *others = (read(path) for path in directories)
    except StoredProblem as problem:
        raise Problem(str(problem)) from None
    except OSError as error:
        raise Problem(f"{error.filename} cannot be read: {error.strerror or error}") from None
    later = [beside(first, each, settings) for each in others]
    budgets = settings.growth_budgets
    _check_judged(later, budgets, typed=bool(arguments.syslat_growth_budget))
    judged = [each.tested for every in later for each in every.growth.values()]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "command": NAME,
        "growth_budgets": [str(each) for each in budgets],
        "runs": [
            {
                "path": str(each.path),
                "date": each.stored.date,
                "is_ours": each.stored.is_ours,
                "ended_early": each.missing,
                "weaknesses": [weak.sentence for weak in each.stored.weaknesses],
                "cells": [cell_dict(result) for result in each.overheads.values()],
            }
            for each in (first, *others)
        ],
        "since_first": [
            {
                "path": str(each.run.path),
                "problem": each.problem,
                "differences": list(each.differences),
                "idle_growth_budgets": [str(budget) for budget in _idle(each, budgets)],
                "agent_versions": {
                    agent: list(versions) for agent, versions in each.versions.items()
                },
                "growth": [growth_dict(result) for result in each.growth.values()],
            }
            for each in later
        ],
    }
    return Answer(
        document, list(_lines(first, later, budgets)), gate_code(judged, strict=settings.strict)
    )


def _idle(later: Later, budgets: Sequence[Budget]) -> list[Budget]:
    """Growth budgets that judge nothing of a run and the first one."""
    return idle_budgets(budgets, later.growth)


def _check_judged(later: Sequence[Later], budgets: Sequence[Budget], *, typed: bool) -> None:
    """A gate that judges nothing must not look as if it had passed.

    In an ini file a budget may stand for runs that measure the syscall: then it is only told.
    """
    for each in later:
        if each.unshared:
            raise Problem(
                f"growth budget: {each.unshared}: give other runs, or other syscalls in "
                "--syslat-growth-budget"
            )
        if typed and each.problem:
            raise Problem(f"--syslat-growth-budget: {each.problem}")
        idle = _idle(each, budgets)
        if typed and idle:
            raise Problem(
                f"--syslat-growth-budget: '{idle[0]}' would judge nothing: it is for no figure "
                f"that {each.run.path} shares with the first run"
            )


def _lines(first: Run, later: Sequence[Later], budgets: Sequence[Budget]) -> Iterator[Line]:
    from pytest_syslat.cli.figures import STYLES
    from pytest_syslat.report.growth import WEAKER, growth_sentence

    runs = list(zip(ascii_uppercase, (first, *(each.run for each in later)), strict=False))
    beside = list(zip(ascii_uppercase[1:], later, strict=False))
    for letter, run_ in runs:
        yield Line(f"{letter}  {run_.path} (of {run_.stored.date})", Style.BOLD)
        if run_.missing:
            yield Line(f"   {run_.missing}", Style.WARNING)
        for weakness in run_.stored.weaknesses:
            yield Line(f"   {weakness.sentence}", Style.WARNING)
    for letter, each in beside:
        yield from _conditions(each, letter)
    yield from _table_lines(runs, {letter: each.growth for letter, each in beside})
    judged = False
    for letter, each in beside:
        for grown in each.growth.values():
            verdict = grown.tested.verdict
            if verdict is not None:
                judged = True
                yield Line(f"{letter}: {growth_sentence(grown)}", STYLES[verdict])
        for budget in _idle(each, budgets):
            yield Line(f"{letter}: growth budget {budget} judges nothing here", Style.WARNING)
    if judged or any(each.growth for each in later):
        yield Line(f"growth since A is of {WEAKER}")


def _table_lines(
    runs: Sequence[tuple[str, Run]], growth: Mapping[str, Mapping[Cell, GrowthResult]]
) -> Iterator[Line]:
    """A cell's name once, above its runs: so the table fits 80 columns."""
    from pytest_syslat.cli.figures import interval_pct, number

    cells = dict.fromkeys(cell for _, run_ in runs for cell in run_.overheads)
    named, rows = [], []
    for cell in cells:
        for letter, run_ in runs:
            result = run_.overheads.get(cell)
            if result is None:
                continue
            grown = growth.get(letter, {}).get(cell)
            named.append(cell.id)
            rows.append(
                (
                    letter,
                    number(result.delta_us, 3, sign=True),
                    number(result.delta_pct, 1, sign=True),
                    interval_pct(result),
                    number(grown.tested.delta_pct, 1, sign=True) if grown else "",
                    interval_pct(grown.tested) if grown else "",
                )
            )
    head, *lines = table(HEAD, rows, words=1)
    yield Line(f"  {head}", Style.BOLD)
    above = ""
    for name, line in zip(named, lines, strict=True):
        if name != above:
            above = name
            yield Line(name)
        yield Line(f"  {line}")


def _conditions(later: Later, letter: str) -> Iterator[Line]:
    if later.problem:
        yield Line(f"{letter} beside A: {later.problem}", Style.WARNING)
        return
    if later.differences:
        yield Line(
            f"{letter} beside A: other conditions, so nothing passes and nothing regresses:",
            Style.WARNING,
        )
        for difference in later.differences:
            yield Line(f"   {difference}", Style.WARNING)
    else:
        yield Line(f"{letter} beside A: the same conditions")
    for agent, (before, now) in later.versions.items():
        same = before if before == now else f"{before} → {now}"
        yield Line(f"   {agent}: {same}")
