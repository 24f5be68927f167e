"""Refused trials: repeated once with their partner, then out of every figure."""

from __future__ import annotations

import pytest

from .support import Project, junit_cases, properties

ONE_SYSCALL = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1"]
ARMS = ("vanilla", "auditd")


def first_attempts(project: Project, trial: int) -> list[str]:
    """The trials of a block in the order of the plan."""
    return [each for each in project.run_json()["plan"] if each.endswith(f"-trial{trial}")]


def trials_of(project: Project) -> dict[str, dict[str, object]]:
    """The trials that count, from run.json, by id."""
    return {
        f"{each['syscall']}-{each['label']}-trial{each['trial']}": each
        for each in project.run_json()["trials"]
    }


def test_it_is_repeated_with_its_partner_at_the_end_of_its_block(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial1": [1]})
    result = project.run(
        "benchmarks",
        "--agent=auditd",
        "--syslat-trials=2",
        "--syslat-seed=1",
        "--junitxml=junit.xml",
    )
    result.assert_outcomes(passed=12)
    first, second = first_attempts(project, 1), first_attempts(project, 2)
    assert len(first) == len(second) == 6
    again = [each for each in first if each.startswith("connect")]
    assert len(again) == 2
    assert project.measured == first + again + second

    assert project.run_json()["repeats"] == {"auditd": 1, "vanilla": 1}
    result.stdout.fnmatch_lines(
        [
            "* connect auditd trial 1: REFUSED throttled: made-up reason 1, *",
            "* connect auditd trial 1 again: p50 11.000 µs, *",
            "repeated trials: auditd 1, vanilla 1",
        ]
    )
    trials = trials_of(project)
    assert {each for each, trial in trials.items() if trial["attempt"] == 2} == set(again)
    assert not any(trial["refused"] for trial in trials.values())
    # The refused attempt and that of its partner, which was well: nothing is forgotten.
    replaced = project.run_json()["replaced_trials"]
    assert [(each["label"], each["attempt"], each["refused"]) for each in replaced] == [
        (each.split("-")[1], 1, "auditd" in each) for each in again
    ]

    name = "test_latency[connect-auditd-trial1]"
    assert ("attempt", "2") in properties(junit_cases(project.path / "junit.xml")[name])


def test_the_first_attempt_stays_in_the_files(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial1": [1]})
    project.run(*ONE_SYSCALL, "--syslat-trials=1").assert_outcomes(passed=2, deselected=4)
    logs = project.results / "auditd"
    kept = (logs / "auditd_connect_trial1_refused.log").read_text()
    assert kept == "connect-auditd-trial1 attempt 1\n"
    counts = (logs / "auditd_connect_trial1.log").read_text()
    assert counts == "connect-auditd-trial1 attempt 2\n"
    assert project.rows("auditd/auditd_validity.csv") == [
        {
            "label": "auditd",
            "syscall": "connect",
            "trial": "1",
            "severity": "invalid",
            "code": "throttled",
            "detail": "first attempt: made-up reason 1",
        }
    ]
    # Two rows for the trial that counts: raw and iqr.
    assert len(project.rows("auditd/auditd_summary.csv")) == 2


def test_refused_vanilla_is_repeated_alone(project: Project) -> None:
    project.table(refuse={"connect-vanilla-trial1": [1]})
    project.run(*ONE_SYSCALL, "--syslat-trials=1").assert_outcomes(passed=2, deselected=4)
    assert sorted(project.measured) == [
        "connect-auditd-trial1",
        "connect-vanilla-trial1",
        "connect-vanilla-trial1",
    ]
    assert project.measured[-1] == "connect-vanilla-trial1"
    assert project.run_json()["repeats"] == {"vanilla": 1}


def test_a_partner_whose_repeat_is_refused_keeps_its_first_attempt(project: Project) -> None:
    project.table(
        refuse={"connect-auditd-trial1": [1], "connect-vanilla-trial1": [2]},
    )
    project.run(*ONE_SYSCALL, "--syslat-trials=1").assert_outcomes(passed=2, deselected=4)
    trials = trials_of(project)
    assert trials["connect-auditd-trial1"]["attempt"] == 2
    assert trials["connect-vanilla-trial1"]["attempt"] == 1
    assert not any(trial["refused"] for trial in trials.values())


def test_the_reason_is_one_line_when_it_is_refused_again(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial2": [1, 2]})
    result = project.run(*ONE_SYSCALL, "--syslat-trials=2", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=1, deselected=8)
    output = result.stdout.str()
    after = output.index(" benchmark 'connect'")
    failures = output[output.index("= FAILURES =") : after].splitlines()[:-1]
    assert failures[1].strip("_ ") == "test_latency[connect-auditd-trial2]"
    assert [line for line in failures[2:-1] if "generated xml file" not in line] == [
        "connect-auditd-trial2 is refused: throttled: made-up reason 2"
    ]
    assert project.measured.count("connect-auditd-trial2") == 2

    case = junit_cases(project.path / "junit.xml")["test_latency[connect-auditd-trial2]"]
    [failure] = case.iter("failure")
    assert failure.get("message") == "Failed: " + failures[2]
    assert failure.text == failures[2]
    # Figures of a refused trial do not travel on.
    assert [name for name, _ in properties(case) if name.endswith("_us")] == []


def test_it_is_out_of_the_figures_but_not_out_of_the_files(project: Project) -> None:
    project.table(
        refuse={"connect-auditd-trial2": [1, 2]},
        ns={"connect-auditd": [11_000, 99_000, 13_000]},
    )
    result = project.run(*ONE_SYSCALL, "--syslat-trials=3")
    result.assert_outcomes(passed=5, failed=1, deselected=12)
    assert [row["trial"] for row in project.rows("auditd/auditd_summary.csv")] == list("1133")
    assert {row["trial"] for row in project.rows("auditd/auditd_user.csv")} == {"1", "3"}
    [stats] = project.rows("auditd/auditd_stats_raw.csv")
    # (11 + 13) / 2
    assert (stats["trials"], stats["avg_p50_us"]) == ("2", "12.000")
    validity = project.rows("auditd/auditd_validity.csv")
    assert [(row["trial"], row["severity"], row["detail"]) for row in validity] == [
        ("2", "invalid", "first attempt: made-up reason 1"),
        ("2", "invalid", "made-up reason 2"),
    ]
    # The partner measured well, in the second attempt, too.
    assert [row["trial"] for row in project.rows("vanilla/vanilla_summary.csv")] == list("112233")
    blocks = {row["figure"]: row["blocks"] for row in project.rows("overhead.csv")}
    assert set(blocks.values()) == {"2"}


@pytest.mark.parametrize("arm", ARMS)
def test_its_cells_are_invalid(project: Project, arm: str) -> None:
    project.lean = True
    project.table(refuse={f"connect-{arm}-trial2": [1, 2]})
    result = project.run(
        "benchmarks",
        *("--agent=auditd", "--syslat-trials=8", "-k", "connect or openat-auditd-p50"),
        *("--syslat-budget=connect:p50<=+50%", "--syslat-budget=openat:p50<=+50%"),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # 16 trials of connect and a verdict on openat; openat's own trials are deselected.
    result.assert_outcomes(passed=15 + 1, failed=2, deselected=32)
    verdicts = {
        (row["syscall"], row["figure"]): (row["verdict"], row["blocks"])
        for row in project.rows("overhead.csv")
        if row["verdict"]
    }
    assert verdicts == {("connect", "p50"): ("invalid", "7"), ("openat", "p50"): ("passed", "8")}
    [line] = [each for each in result.outlines if each.startswith("connect-auditd-p50 invalid (")][
        1:
    ]
    assert line.startswith(
        "connect-auditd-p50 invalid (budget connect:p50<=+50%, 7 blocks): 10.000 → 11.000 µs, "
    )
    assert line.endswith(f": connect-{arm}-trial2 was refused: throttled: made-up reason 2")


def test_an_arm_with_nothing_valid(project: Project) -> None:
    project.table(refuse={"connect-vanilla-trial1": [1, 2]})
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=1", "--syslat-pin-core=1")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.re_match_lines([r"connect  vanilla +- +- +- +- +- +-  refused +0"])
    assert project.rows("vanilla/vanilla_summary.csv") == []
    assert [row["severity"] for row in project.rows("vanilla/vanilla_validity.csv")] == [
        "invalid",
        "invalid",
    ]


def test_an_undecided_finding_keeps_the_figures_but_not_the_verdict(project: Project) -> None:
    project.table(
        findings={
            "connect-auditd-trial3": [["undecided", "few-calls", "900 calls: p99 needs 1,000"]]
        }
    )
    result = project.run(
        *ONE_SYSCALL,
        "--syslat-budget=connect:p50<=+50%",
        "--syslat-budget=connect:p99<=+50%",
    )
    result.assert_outcomes(passed=18, deselected=32)
    verdicts = {
        row["figure"]: row["verdict"] for row in project.rows("overhead.csv") if row["verdict"]
    }
    # Few calls leave only the tail unknown.
    assert verdicts == {"p50": "passed", "p99": "inconclusive"}
    assert len(project.rows("auditd/auditd_summary.csv")) == 16
