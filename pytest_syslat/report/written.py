"""The reports at the end of a run: whatever goes wrong with them is a warning, never a failure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.report import github, markdown
from pytest_syslat.report.files import write_files
from pytest_syslat.report.model import read_report


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
    """Write the reports of a run, and tell GitHub Actions of it where that runs."""
    annotations: tuple[str, ...] = ()
    try:
        report = read_report(directory)
        if github.is_annotated_here():
            annotations = tuple(github.workflow_commands(report))
        page, text = write_files(report, directory)
    except Exception as error:
        # Figures are on disk by now: nothing that drawing meets may cost them, or the run.
        words = " ".join(str(error).split()) or type(error).__name__
        warning = f"no report was written: {words} (all figures are in {directory})"
        return Written(None, (warning,), annotations)
    content = text.read_text(encoding="utf-8")
    problem = github.append_summary(content, markdown.headline_of(content))
    return Written(page, (problem,) if problem else (), annotations)
