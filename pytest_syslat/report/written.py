"""The reports at the end of a run: whatever goes wrong with them is a warning, never a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pytest_syslat.report import github, markdown
from pytest_syslat.report.files import MARKDOWN_NAME, write_markdown, write_page
from pytest_syslat.report.model import ReportProblem, read_report

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Written:
    """What came of the reports of a run."""

    page: Path | None
    """The page for people, if it was written."""
    warnings: tuple[str, ...]
    """A line each."""
    annotations: tuple[str, ...]
    """Workflow commands for GitHub Actions, a line each; none elsewhere."""


def write_after_run(directory: Path) -> Written:
    """Write the reports of a run, and tell GitHub Actions of it where that runs.

    Each part is tried by itself, the page last: most can go wrong with drawing, and a job has its
    annotations and its summary all the same.
    """
    warnings: list[str] = []

    def tried(problem: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except ReportProblem as known:
            words = str(known)
        except Exception as error:
            # Figures are on disk by now: nothing that a report meets may cost them, or the run.
            words = f"{problem}: {' '.join(str(error).split()) or type(error).__name__}"
        warnings.append(f"{words} (all figures are in {directory})")
        return None

    report = tried("no report was written", lambda: read_report(directory))
    if report is None:
        return Written(None, tuple(warnings), ())
    annotations: tuple[str, ...] | None = ()
    if github.is_annotated_here():
        annotations = tried("nothing is annotated", lambda: tuple(github.workflow_commands(report)))
    missing = f"{MARKDOWN_NAME} was not written"
    text = tried(missing, lambda: markdown.render(report))
    if text is not None:
        tried(missing, lambda: write_markdown(text, directory))
        problem = tried(
            "the summary of the job was not written",
            lambda: github.append_summary(text, markdown.headline_of(text)),
        )
        if problem:
            warnings.append(problem)
    page = tried("the page was not written", lambda: write_page(report, directory))
    return Written(page, tuple(warnings), annotations or ())
