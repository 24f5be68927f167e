"""Tests of the user's own with our fixtures."""

from __future__ import annotations

import pytest

from .support import Project, junit_cases, properties, trial_ids


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def test_measure_with_a_trial(project: Project) -> None:
    project.write(
        "test_mine.py",
        """
def test_fast_enough(measure, syslat_trial):
    trial = measure(syslat_trial)
    assert trial.distribution.count >= 1000
    assert trial.figure_us("p50") < (10.5 if syslat_trial.arm == "vanilla" else 10.9)
""",
    )
    result = project.run("test_mine.py", "-k", "connect", "--agent=auditd", "--syslat-trials=1")
    # auditd takes 11 µs.
    result.assert_outcomes(passed=1, failed=1, deselected=4)
    assert set(project.measured) == trial_ids(
        trials=1, arms=("vanilla", "auditd"), syscalls=["connect"]
    )


def test_two_tests_of_the_same_trial_measure_it_once(project: Project) -> None:
    project.write(
        "benchmarks/test_more.py",
        """
def test_more(measure, syslat_trial):
    assert measure(syslat_trial) is measure(syslat_trial)
""",
    )
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=2", "--junitxml=j.xml")
    result.assert_outcomes(passed=4, deselected=8)
    assert project.measured == ["connect-vanilla-trial1", "connect-vanilla-trial2"]
    names = [
        name
        for name, _ in properties(
            junit_cases(project.path / "j.xml")["test_more[connect-vanilla-trial1]"]
        )
    ]
    assert len(names) == len(set(names)), "measured once, told twice"


def test_judge_with_a_cell(project: Project) -> None:
    project.write(
        "test_mine.py",
        """
def test_cost(judge, syslat_cell):
    result = judge(syslat_cell)
    assert 0 < result.delta_us < 0.5
""",
    )
    result = project.run(
        *("test_mine.py", "--agent=auditd", "--syslat-trials=2"),
        "--syslat-budget=connect:p50<=+50%",
    )
    # The verdict is fine, the user's own condition is not: it costs 1 µs.
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 0.99999* < 0.5*"])
    assert set(project.measured) == trial_ids(
        trials=2, arms=("vanilla", "auditd"), syscalls=["connect"]
    )


@pytest.mark.parametrize("fixture", ["measure", "judge", "syslat_experiment"])
def test_a_fixture_without_parameters_says_what_is_missing(project: Project, fixture: str) -> None:
    project.write("test_mine.py", f"def test_mine({fixture}):\n    pass\n")
    result = project.run("test_mine.py")
    result.assert_outcomes(errors=1)
    output = result.stdout.str()
    assert (
        "no test of this run is parametrized by syslat_trial, syslat_cell or syslat_growth: "
        "ask for one of them beside the fixture"
    ) in output
    assert "Traceback" not in output
    assert project.events == []


def test_a_trial_that_is_not_planned_is_refused_clearly(project: Project) -> None:
    project.write(
        "benchmarks/test_mine.py",
        """
from pytest_syslat.plan import TrialKey

def test_mine(measure):
    measure(TrialKey("openat", "vanilla", 9))
""",
    )
    result = project.run("benchmarks", "-k", "test_mine or connect", "--syslat-trials=1")
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    output = result.stdout.str()
    assert "openat-vanilla-trial9" in output[output.index("= FAILURES =") :]
    assert "tuple.index(x)" not in output


def test_syslat_trial_alone_measures_nothing_by_itself(project: Project) -> None:
    """A test may only look at the parameter."""
    project.write("test_mine.py", "def test_mine(syslat_trial):\n    assert syslat_trial.trial\n")
    project.run("test_mine.py", "--syslat-trials=1").assert_outcomes(passed=3)
    assert project.measured == []


def test_ordinary_tests_run_beside_ours(project: Project) -> None:
    project.write(
        "test_ordinary.py",
        """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_ordinary(number):
    assert number == 1
""",
    )
    result = project.run(".", "-k", "ordinary or connect", "--syslat-trials=1")
    result.assert_outcomes(passed=2, failed=1, deselected=2)
