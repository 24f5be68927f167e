"""Which items there are, and what their ids say."""

from __future__ import annotations

import pytest

from .support import Project, collected, trial_ids


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def test_vanilla_alone(project: Project) -> None:
    result = project.run("benchmarks", "--collect-only", "-q")
    ids = collected(result)
    # 3 syscalls in 1 arm, 5 trials each.
    assert len(ids) == 15
    assert set(ids) == {f"test_latency[{each}]" for each in trial_ids(trials=5)}
    result.stdout.fnmatch_lines(["15 tests collected in *"])


def test_all_that_an_agent_with_budgets_brings(project: Project) -> None:
    result = project.run(
        "benchmarks",
        "--agent=auditd",
        "--syslat-budget=connect:p50<=+10%",
        "--syslat-budget=openat:*<=+10%",
        "--collect-only",
        "-q",
    )
    ids = collected(result)
    # 3 syscalls in 2 arms, 8 trials each; 1 cell of connect and all 5 of openat.
    assert len(ids) == 48 + 6
    assert ids.count("test_latency[connect-auditd-trial3]") == 1
    assert set(ids[:48]) == {
        f"test_latency[{each}]" for each in trial_ids(trials=8, arms=("vanilla", "auditd"))
    }
    # Judging items come last, whatever they judge.
    assert set(ids[48:]) == {
        "test_overhead[connect-auditd-p50]",
        *(f"test_overhead[openat-auditd-{each}]" for each in ("p50", "p90", "p99", "mean", "user")),
    }
    result.stdout.fnmatch_lines(["54 tests collected in *"])


def test_all_agents(project: Project) -> None:
    result = project.run("benchmarks", "--agent=all", "--collect-only", "-q", "--syslat-trials=2")
    assert len(collected(result)) == 12
    # Named twice it is still one arm; vanilla is an arm without being named.
    result = project.run(
        "benchmarks",
        *("--agent=auditd", "--agent=auditd", "--agent=vanilla"),
        *("--collect-only", "-q", "--syslat-trials=2"),
    )
    assert len(collected(result)) == 12


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="neither agent nor budget"),
        pytest.param(["--agent=auditd"], id="no budget"),
        pytest.param(["--syslat-budget=*:*<=+1%"], id="no agent"),
    ],
)
def test_no_item_stands_for_nothing_to_judge(project: Project, arguments: list[str]) -> None:
    result = project.run("benchmarks", *arguments, "--collect-only", "-q", "--syslat-trials=1")
    ids = collected(result)
    arms = ("vanilla", "auditd") if "--agent=auditd" in arguments else ("vanilla",)
    assert set(ids) == {f"test_latency[{each}]" for each in trial_ids(trials=1, arms=arms)}
    assert "nothing" not in result.stdout.str()


def test_nothing_is_skipped_when_there_is_nothing_to_judge(project: Project) -> None:
    result = project.run("benchmarks", "--syslat-trials=1")
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes() == {"passed": 3}


def test_collecting_measures_nothing(project: Project) -> None:
    result = project.run("benchmarks", "--agent=auditd", "--collect-only")
    assert result.ret == pytest.ExitCode.OK
    assert project.events == []
    assert not (project.path / "result").exists()
    assert "files:" not in result.stdout.str()


def test_a_test_in_a_class_of_the_users_own(project: Project) -> None:
    project.write(
        "benchmarks/test_theirs.py",
        """
class TestTheirs:
    def test_mine(self, measure, syslat_trial):
        assert measure(syslat_trial).key == syslat_trial

    def test_judged(self, judge, syslat_cell):
        judge(syslat_cell)
""",
    )
    chosen = ["benchmarks/test_theirs.py", "--syslat-trials=1"]
    result = project.run(*chosen)
    assert result.parseoutcomes() == {"passed": 3}
    assert set(project.measured) == trial_ids(trials=1)

    result = project.run(*chosen, "--agent=auditd", "--syslat-budget=connect:p50<=+10%")
    # One block decides nothing, and an inconclusive verdict does not fail.
    assert result.parseoutcomes() == {"passed": 7}


def test_both_kinds_of_items_keep_the_items_of_others(project: Project) -> None:
    """Ordinary tests run first, in their own order: nothing interrupts a measurement."""
    project.write("benchmarks/test_zzz.py", "def test_b():\n    pass\n\ndef test_a():\n    pass\n")
    result = project.run("benchmarks", "--collect-only", "-q", "--syslat-trials=1")
    ids = collected(result)
    assert ids[:2] == ["test_b", "test_a"]
    assert len(ids) == 5
