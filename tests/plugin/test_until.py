"""`--syslat-until decided`: looks after 8, 16 and 32 blocks, each with a third of the error.

Vanilla takes 10 µs, auditd 10.5 and 11.5 µs in turn. The log ratios have the mean ln sqrt(1.2075)
= 0.0942761 and, with h = ln(1.15 / 1.05) / 2 = 0.0454859, the standard error h / sqrt(n - 1).
Student's t at 1 - 0.05 / 3 / 2 is 3.127552 for 8 blocks and 2.693739 for 16: the overhead is
between +4.13 % and +15.96 % after 8 blocks, and between +6.46 % and +13.42 % after 16.
"""

from __future__ import annotations

import math

import pytest

from .support import Project, usage_errors

ALTERNATING = {"auditd": [10_500, 11_500] * 16}
CHOSEN = ("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-until=decided")


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    project.table(ns=ALTERNATING)
    return project


def expect_blocks(project: Project, blocks: int) -> None:
    """So many blocks were measured, in order, and each trial once."""
    assert len(project.measured) == len(set(project.measured)) == 2 * blocks
    numbers = [int(each.rpartition("trial")[2]) for each in project.measured]
    assert numbers == [number for number in range(1, blocks + 1) for _ in range(2)]


@pytest.mark.parametrize(
    ("budget", "blocks", "looks", "verdict"),
    [
        (20, 8, [8], "passed"),
        (3, 8, [8], "regressed"),
        (15, 16, [8, 16], "passed"),
        (5, 16, [8, 16], "regressed"),
        (10, 32, [8, 16, 32], "inconclusive"),
    ],
)
def test_a_run_ends_at_the_first_look_that_decides(
    project: Project, budget: int, blocks: int, looks: list[int], verdict: str
) -> None:
    result = project.run(*CHOSEN, f"--syslat-budget=connect:p50<=+{budget}%")
    expect_blocks(project, blocks)
    failed = int(verdict == "regressed")
    result.assert_outcomes(
        passed=2 * blocks + 1 - failed, failed=failed, skipped=64 - 2 * blocks, deselected=128
    )
    [row] = [each for each in project.rows("overhead.csv") if each["figure"] == "p50"]
    assert (row["blocks"], row["verdict"]) == (str(blocks), verdict)
    told = project.run_json()["sequential"]
    assert told["looks"] == [8, 16, 32]
    assert told["alpha_of_each_look"] == pytest.approx(0.05 / 3)
    assert told["looked_at"] == looks
    assert told["decided_after"] == (blocks if blocks < 32 else None)
    result.stdout.fnmatch_lines(["syslat: arms vanilla, auditd, up to 32 trials, until decided, *"])
    looked = ", ".join(map(str, looks))
    if blocks < 32:
        line = f"looked after {looked} trials: all verdicts stand, so no more were measured"
    else:
        line = "looked after 8, 16, 32 trials, which was the last time"
    assert result.outlines.count(line) == 1


def test_the_interval_has_a_third_of_the_error(project: Project) -> None:
    project.run(*CHOSEN, "--syslat-budget=connect:p50<=+20%")
    [row] = [each for each in project.rows("overhead.csv") if each["figure"] == "p50"]
    mean, half = math.log(1.2075) / 2, 3.127552 * 0.0454859 / math.sqrt(7)
    for column, limit in (("ci_low_pct", mean - half), ("ci_high_pct", mean + half)):
        assert float(row[column]) == pytest.approx(100 * math.expm1(limit), abs=0.002)


def test_skipped_trials_say_why(project: Project) -> None:
    result = project.run(*CHOSEN, "--syslat-budget=connect:p50<=+20%", "-rs")
    result.stdout.fnmatch_lines(["SKIPPED [[]48] *: all verdicts stand after 8 blocks"])


def test_verdicts_alone_bring_no_more_blocks_than_they_need(project: Project) -> None:
    budget = "--syslat-budget=connect:p50<=+15%"
    result = project.run("benchmarks", "-k", "p50", *CHOSEN[3:], budget)
    result.assert_outcomes(passed=1, deselected=192)
    expect_blocks(project, 16)


def test_a_refused_trial_is_repeated_before_the_look(project: Project) -> None:
    project.table(ns=ALTERNATING, refuse={"connect-auditd-trial8": [1]})
    result = project.run(*CHOSEN, "--syslat-budget=connect:p50<=+20%")
    result.assert_outcomes(passed=17, skipped=48, deselected=128)
    assert sorted(project.measured[-2:]) == ["connect-auditd-trial8", "connect-vanilla-trial8"]
    assert len(project.measured) == 18


def test_no_look_without_a_verdict_that_is_asked_for(project: Project) -> None:
    result = project.run(
        "benchmarks", "-k", "connect and trial9", *CHOSEN[3:], "--syslat-budget=connect:p50<=+20%"
    )
    result.assert_outcomes(passed=2, deselected=191)
    assert project.run_json()["sequential"]["looked_at"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--syslat-until=decided", "--agent=auditd"],
            "--syslat-until: nothing is to be decided: add --agent and --syslat-budget",
        ),
        (
            ["--syslat-until=decided", "--syslat-budget=*:p50<=+5%"],
            "--syslat-until: nothing is to be decided: add --agent and --syslat-budget",
        ),
        (
            [*CHOSEN[3:], "--syslat-budget=*:p50<=+5%", "--syslat-trials=20"],
            (
                "--syslat-until: 32 trials are the most that it measures: leave out "
                "--syslat-trials (and TRIALS)"
            ),
        ),
        (
            ["--syslat-until=sure"],
            "--syslat-until: 'sure' is not valid: allowed is decided",
        ),
    ],
)
def test_wrong_use(project: Project, arguments: list[str], told: str) -> None:
    assert usage_errors(project.run("benchmarks", *arguments)) == [told]


def test_vanilla_against_vanilla(project: Project) -> None:
    """The second vanilla is measured, paired and judged like an agent."""
    project.table(ns={"vanilla2": 10_000})
    result = project.run(
        *("benchmarks", "-k", "connect", "--agent=vanilla2", "--syslat-budget=connect:p50<=+1%")
    )
    result.assert_outcomes(passed=17, deselected=32)
    result.stdout.re_match_lines([r"connect  vanilla2 .* \+0\.000 +\+0\.0  passed +8,000"])


def test_a_run_that_is_ended_between_looks_passes_nothing(project: Project) -> None:
    project.table(ns=ALTERNATING, interrupt=23)
    result = project.run(*CHOSEN, "--syslat-budget=connect:p50<=+15%", no_reraise_ctrlc=True)
    [row] = [each for each in project.rows("overhead.csv") if each["figure"] == "p50"]
    assert (row["blocks"], row["verdict"]) == ("11", "inconclusive")
    line = "looked after 8 trials; the run was ended early, in trial 12"
    assert result.outlines.count(line) == 1


def test_a_run_that_is_ended_right_after_a_look_passes_nothing(project: Project) -> None:
    """Ctrl-C in the first trial of the ninth block: eight are whole, as if all had been decided."""
    project.table(ns=ALTERNATING, interrupt=17)
    result = project.run(*CHOSEN, "--syslat-budget=connect:p50<=+15%", no_reraise_ctrlc=True)
    [row] = [each for each in project.rows("overhead.csv") if each["figure"] == "p50"]
    assert (row["blocks"], row["verdict"]) == ("8", "inconclusive")
    told = project.run_json()["sequential"]
    assert (told["looked_at"], told["decided_after"]) == ([8], None)
    line = "looked after 8 trials; the run was ended early, in trial 9"
    assert result.outlines.count(line) == 1
