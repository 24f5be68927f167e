"""What pytest itself tells of us: `--fixtures`, with examples that run, and `--markers`."""

from __future__ import annotations

import re
import textwrap

import pytest

from .support import Project, collected

SHOWN = {
    *("measure", "judge", "judge_growth", "testbed", "tracer", "workload", "tcp_server"),
    *("syslat_trial", "syslat_cell", "syslat_growth", "syslat_experiment", "syslat_rig"),
}
GATED = {"judge", "syslat_cell", "judge_growth", "syslat_growth"}


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def explained(project: Project) -> dict[str, str]:
    """What `pytest --fixtures` shows of each fixture of ours."""
    result = project.run("--fixtures", "benchmarks")
    text = result.stdout.str().partition("fixtures defined from pytest_syslat.fixtures")[2]
    text = text.partition("fixtures defined from")[0]
    found = re.findall(r"^(\w+)(?: \[.+\])? -- .*\n((?: +.*\n)+)", text, re.MULTILINE)
    return {name: textwrap.dedent(shown) for name, shown in found}


def test_each_fixture_is_explained_with_an_example(project: Project) -> None:
    shown = explained(project)
    assert set(shown) == SHOWN
    for name, text in shown.items():
        head, colon, example = text.partition(":\n    ")
        assert head.split("\n")[0].endswith("."), name
        assert colon, name
        assert re.search(rf"def test_\w+\([^)]*\b{name}\b", example), name


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_each_example_runs_when_pasted(project: Project, name: str) -> None:
    text = explained(project)[name]
    example = textwrap.dedent(text[re.search(r"^    ", text, re.MULTILINE).start() :])  # type: ignore[union-attr]
    project.write("benchmarks/test_pasted.py", example)
    chosen = ["--agent=auditd", "--syslat-trials=1"]
    if "growth" in name:
        (project.path / "benchmarks/test_syscall_latency.py").rename(project.path / "test_old.py")
        project.run("test_old.py", "-k", "connect", *chosen, "--syslat-result-dir=old")
        chosen += ["--syslat-against=old", "--syslat-growth-budget=connect:user<=+5%"]
    elif name in GATED:
        chosen += ["--syslat-budget=connect:user<=+50%"]
    result = project.run(
        "benchmarks/test_pasted.py", *chosen, "--strict-markers", "--syslat-result-dir=new"
    )
    outcomes = result.parseoutcomes()
    trials = 6 if {"measure", "syslat_trial"} & set(re.findall(r"\w+", example)) else 1
    assert outcomes == {"passed": trials}


def test_parameters_cannot_be_asked_for_at_run_time(project: Project) -> None:
    project.write(
        "test_mine.py", "def test_mine(request):\n    request.getfixturevalue('syslat_trial')\n"
    )
    result = project.run("test_mine.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["syslat_trial must be an argument of the test itself, *"])


MIXED = """
import pytest

def test_theirs():
    pass

def test_node(testbed):
    pass

@pytest.fixture
def workload():
    return 'a name that others use, too'

def test_their_workload(workload):
    pass
"""
CHOSEN = ["benchmarks", "--agent=auditd", "--syslat-trials=1", "--syslat-budget=connect:p50<=+5%"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("syslat", {"6 trials", "test_node", "connect-auditd-p50"}),
        ("not syslat", {"test_theirs", "test_their_workload"}),
        ("syslat_trial", {"6 trials"}),
        ("syslat_gate", {"connect-auditd-p50"}),
        ("syslat and not syslat_gate", {"6 trials", "test_node"}),
    ],
)
def test_markers_choose(project: Project, expression: str, expected: set[str]) -> None:
    project.write("benchmarks/test_mixed.py", MIXED)
    result = project.run(*CHOSEN, "-m", expression, "--strict-markers", "--collect-only", "-q")
    ids = collected(result)
    trials = [each for each in ids if "trial1" in each]
    names = {re.sub(r"^test_overhead\[(.+)\]$", r"\1", each) for each in ids} - set(trials)
    assert names | ({f"{len(trials)} trials"} if trials else set()) == expected


def test_markers_are_explained(project: Project) -> None:
    result = project.run("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.syslat: tests that use pytest-syslat; *",
            "@pytest.mark.syslat_trial: tests that measure a trial; *",
            "@pytest.mark.syslat_gate: tests that judge an overhead *",
        ]
    )
