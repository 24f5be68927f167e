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
    from pytest_syslat.report.files import write_reports
    from pytest_syslat.stored import StoredProblem, read_run

    directory: Path = arguments.directory
    try:
        read_run(directory)
        written = write_reports(directory)
    except StoredProblem as problem:
        raise Problem(str(problem)) from None
    except OSError as error:
        place = error.filename or directory
        raise Problem(f"{place} cannot be used: {error.strerror or error}") from None
    return Answer(
        {"schema": SCHEMA, "command": NAME, "written": [str(path) for path in written]},
        [Line(f"written {path}") for path in written],
    )
