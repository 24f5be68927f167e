"""Writes the reports of a run into its directory."""

from __future__ import annotations

from pathlib import Path

from pytest_syslat.report import html, markdown
from pytest_syslat.report.model import Report, ReportProblem, read_report
from pytest_syslat.results import write_atomically

__all__ = [
    "HTML_NAME",
    "MARKDOWN_NAME",
    "ReportProblem",
    "write_markdown",
    "write_page",
    "write_reports",
]

HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"


def write_reports(directory: Path) -> list[Path]:
    """Write `report.html` and `report.md` from what a result directory holds, and nothing else.

    The same directory gives the same bytes. `report.md` comes first: what goes wrong with drawing
    does not cost it.

    Returns:
        The files that were written.

    Raises:
        ReportProblem: The directory holds no run, or a file cannot be drawn or written: one line.
    """
    report = read_report(directory)
    text = write_markdown(markdown.render(report), directory)
    return [write_page(report, directory), text]


def write_markdown(text: str, directory: Path) -> Path:
    """Write `report.md`; raises ReportProblem if it cannot be written."""
    return _write(directory / MARKDOWN_NAME, text)


def write_page(report: Report, directory: Path) -> Path:
    """Draw and write `report.html`; raises ReportProblem, whatever drawing meets."""
    try:
        text = html.render(report)
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ReportProblem(f"{HTML_NAME} was not written: {words}") from error
    return _write(directory / HTML_NAME, text)


def _write(path: Path, text: str) -> Path:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ReportProblem(f"{path} cannot be written: {error.strerror or error}") from error
    return path
