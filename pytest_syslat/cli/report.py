"""`syslat report`: write the report of a run again from its files."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_syslat.cli.answer import Answer, Line, Problem

NAME = "report"
HELP = "write report.html and report.md of a run again"
DESCRIPTION = """\
Write report.html and report.md of a result directory again, from its files
alone: no node is needed. Earlier reports there are replaced, nothing else is.
"""
SCHEMA = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the directory."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="result directory of a run")


def run(arguments: argparse.Namespace) -> Answer:
    """Write the reports, and tell where they are; raises Problem."""
    written = reports_of(arguments.directory)
    return Answer(
        {"schema": SCHEMA, "command": NAME, "written": [str(path) for path in written]},
        [Line(f"written {path}") for path in written],
    )


def reports_of(directory: Path) -> list[Path]:
    """Write the reports of a result directory; raises Problem."""
    from pytest_syslat.report.files import ReportProblem, write_reports

    try:
        return write_reports(directory)
    except ReportProblem as problem:
        raise Problem(str(problem)) from None
