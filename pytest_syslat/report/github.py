"""What a run tells GitHub Actions: the job's summary, and annotations of what has failed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_syslat.gate import fails
from pytest_syslat.report.model import Report
from pytest_syslat.report.words import signed_pct, signed_us

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
MOST_SUMMARY_BYTES = 1024 * 1024
"""GitHub takes no more from one step, and drops all of it beyond that."""


def append_summary(
    text: str, short: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Append a report to the summary of the job, where there is one.

    Args:
        text: Markdown.
        short: The same in a line, for a summary that is nearly full.
        environment: Whose variable names the file.

    Returns:
        Why it could not be written, in one line; None if it was, or there is no summary.
    """
    name = environment.get(SUMMARY_VARIABLE)
    if not name:
        return None
    path = Path(name)
    try:
        taken = path.stat().st_size if path.exists() else 0
        begin = "\n" if taken else ""
        for each in (text, short):
            content = f"{begin}{each}\n".encode()
            if taken + len(content) <= MOST_SUMMARY_BYTES:
                with path.open("ab") as file:
                    file.write(content)
                return None
    except OSError as error:
        return f"{SUMMARY_VARIABLE}: {path} cannot be written: {error.strerror or error}"
    return f"{SUMMARY_VARIABLE}: {path} is full, GitHub takes 1 MiB from a step"


def workflow_commands(report: Report) -> Iterator[str]:
    """An error for each verdict that fails the run, a line each."""
    for each in report.judged:
        if not fails(each.verdict, strict=report.strict):
            continue
        kind = "growth" if each.of_growth else "overhead"
        cell = f"{each.syscall}-{each.agent}-{each.figure}{' growth' if each.of_growth else ''}"
        message = (
            f"{cell} {each.verdict} (budget {each.budget}): {kind} {signed_pct(each.delta_pct)} "
            f"({signed_us(each.delta_us)})"
        )
        if each.reasons:
            message += f": {'; '.join(each.reasons)}"
        yield f"::error title={_property(f'syslat: {cell} {each.verdict}')}::{_data(message)}"


def is_annotated_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a workflow of GitHub Actions reads what is printed."""
    return environment.get("GITHUB_ACTIONS") == "true"


def _data(text: str) -> str:
    # As actions/toolkit escapes them, the per cent sign first.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
