"""The reports that a run leaves, and what CI is told."""

from __future__ import annotations

import re

# Else the runs in this process would load them anew each time, which numpy does not survive.
import jinja2  # noqa: F401
import matplotlib.backends.backend_svg
import matplotlib.style  # noqa: F401
import pytest

from .support import Project

CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1"]
REGRESSED = ["--syslat-budget=connect:p50<=+5%", "--syslat-trials=8"]
ANNOTATING = "pytest_github_actions_annotate_failures"


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """With reports, and apart from the CI that runs this test."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    project.table(report=True)
    project.lean = True
    return project


def run(project: Project, *arguments: str) -> pytest.RunResult:
    return project.run(*CONNECT, *arguments)


def commands(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::error" in line or "::warning" in line]


def test_the_last_line_of_ours_names_the_report(project: Project) -> None:
    project.lean = False
    result = run(project, "--syslat-trials=2")
    result.assert_outcomes(passed=4, deselected=8)
    page = project.results / "report.html"
    lines = result.outlines
    assert lines[lines.index(f"files: {project.results}") + 1] == f"report: {page}"
    assert "connect: overhead by agent" in page.read_text(encoding="utf-8")
    # 10 and 11 µs.
    text = (project.results / "report.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "| connect | auditd | p50 | 10.000 µs | 11.000 µs | +10.0 % (+1.000 µs) |" in text


def test_an_interrupted_run_has_one_too(project: Project) -> None:
    project.table(report=True, interrupt=3)
    result = project.run(*CONNECT, "--syslat-trials=2", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    page = (project.results / "report.html").read_text(encoding="utf-8")
    assert "This run is incomplete: 2 of 4 planned trials were measured; it was ended in" in page


def test_a_report_that_cannot_be_drawn_is_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nink")

    monkeypatch.setattr("pytest_syslat.report.plots.forest", fail)
    project.setenv("GITHUB_ACTIONS", "true")
    summary = project.path / "summary.md"
    project.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run(project, *REGRESSED)
    result.assert_outcomes(passed=16, failed=1, deselected=32)
    told = f"warning: report.html was not written: no ink (all figures are in {project.results})"
    assert told in result.outlines
    assert not (project.results / "report.html").exists()
    assert project.run_json()["cells"]
    # What regressed is told all the same.
    assert len(commands(result)) == 1
    text = (project.results / "report.md").read_text(encoding="utf-8")
    assert "❌ regressed" in text
    assert summary.read_text(encoding="utf-8") == f"{text}\n"


def test_a_text_that_cannot_be_made_costs_nothing_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no words")

    monkeypatch.setattr("pytest_syslat.report.markdown.method_lines", fail)
    result = run(project, "--syslat-trials=1")
    told = f"warning: report.md was not written: no words (all figures are in {project.results})"
    assert told in result.outlines
    assert (project.results / "report.html").exists()
    assert not (project.results / "report.md").exists()


def test_the_summary_of_a_job(project: Project) -> None:
    summary = project.path / "summary.md"
    summary.write_text("of another step\n")
    project.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run(project, "--syslat-trials=1")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("of another step\n\n## Syscall latency: ")
    assert "### Overhead" in text


def test_a_summary_that_cannot_be_written_is_a_warning(project: Project) -> None:
    project.setenv("GITHUB_STEP_SUMMARY", str(project.path / "missing/summary.md"))
    result = run(project, "--syslat-trials=1")
    result.assert_outcomes(passed=2, deselected=4)
    result.stdout.fnmatch_lines(["warning: GITHUB_STEP_SUMMARY: *summary.md cannot be written: *"])


@pytest.mark.parametrize("verbosity", [[], ["-q"], ["-s"], ["--no-summary"]])
def test_annotations_stand_at_the_beginning_of_a_line(
    project: Project, verbosity: list[str]
) -> None:
    project.setenv("GITHUB_ACTIONS", "true")
    result = run(project, *REGRESSED, *verbosity)
    (line,) = commands(result)
    assert re.match(
        r"::error title=syslat%3A connect-auditd-p50 regressed::connect-auditd-p50 regressed "
        r"\(budget connect:p50<=\+5%25\): overhead \+10\.0\u00a0%25 \(\+1\.000\u00a0µs\): ",
        line,
    )
    assert result.outlines[-1] == line


def test_no_annotations_elsewhere(project: Project) -> None:
    assert commands(run(project, *REGRESSED)) == []


def test_no_annotations_beside_the_plugin_that_annotates(project: Project) -> None:
    """Any plugin of that name will do: it annotates the failing item itself."""
    project.setenv("GITHUB_ACTIONS", "true")
    project.write(f"{ANNOTATING}.py", "")
    project.pytester.syspathinsert()
    assert commands(run(project, *REGRESSED, "-p", ANNOTATING)) == []


def test_inconclusive_is_an_error_under_strict(project: Project) -> None:
    project.setenv("GITHUB_ACTIONS", "true")
    few = ["--syslat-budget=connect:p50<=+5%", "--syslat-trials=2"]
    assert commands(run(project, *few)) == []
    (line,) = commands(run(project, *few, "--syslat-strict"))
    assert line.startswith("::error title=syslat%3A connect-auditd-p50 inconclusive::")


def test_growth_since_a_stored_run(project: Project) -> None:
    """The overhead was 1 µs and is 3 µs: 13 µs instead of 11, which is 18.2 % more."""
    run(project, "--syslat-trials=8")
    project.results.rename(project.path / "stored")
    project.table(report=True, ns={"auditd": 13_000})
    project.setenv("GITHUB_ACTIONS", "true")
    result = run(
        project,
        "--syslat-trials=8",
        "--syslat-against=stored",
        "--syslat-growth-budget=connect:p50<=+5%",
    )
    (line,) = commands(result)
    assert line.startswith("::error title=syslat%3A connect-auditd-p50 growth regressed::")
    assert "growth +18.2\u00a0%25 (+2.000\u00a0µs)" in line
    page = (project.results / "report.html").read_text(encoding="utf-8")
    assert "Growth since the stored run" in page
    assert "connect: growth by agent" in page
    assert (
        "1 of 1 judged figure regressed: connect under auditd (growth of p50 +18.2\u00a0%)" in page
    )
    text = (project.results / "report.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "| connect | auditd | p50 | 11.000 µs | 13.000 µs | +18.2 % (+2.000 µs) |" in text


def test_a_stored_vanilla_is_told(project: Project) -> None:
    run(project, "--syslat-trials=2")
    project.results.rename(project.path / "stored")
    run(project, "--syslat-trials=2", "--syslat-baseline=stored")
    page = (project.results / "report.html").read_text(encoding="utf-8")
    assert "Vanilla is that of the stored run" in page
    assert "An overhead compares the trials of two runs." in page
