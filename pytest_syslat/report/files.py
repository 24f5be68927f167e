"""Writes the reports of a run into its directory."""

from __future__ import annotations

from pathlib import Path

from pytest_syslat.report import html, markdown
from pytest_syslat.report.model import Report, ReportProblem, read_report
from pytest_syslat.results import write_atomically

__all__ = ["HTML_NAME", "MARKDOWN_NAME", "ReportProblem", "write_files", "write_reports"]

HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"


def write_reports(directory: Path) -> list[Path]:
    """Write `report.html` and `report.md` from what a result directory holds, and nothing else.

    The same directory gives the same bytes.

    Returns:
        The files that were written.

    Raises:
        ReportProblem: The directory holds no run, or the files cannot be written: one line.
    """
    return write_files(read_report(directory), directory)


def write_files(report: Report, directory: Path) -> list[Path]:
    """Write the same of what has been read already."""
    texts = {HTML_NAME: html.render(report), MARKDOWN_NAME: markdown.render(report)}
    written = []
    for name, text in texts.items():
        path = directory / name
        try:
            write_atomically(path, text)
        except OSError as error:
            raise ReportProblem(f"{path} cannot be written: {error.strerror or error}") from error
        written.append(path)
    return written
