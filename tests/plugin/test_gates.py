"""Verdicts as test results: messages, exit codes, JUnit and overhead.csv.

Vanilla takes 10 µs in each of 8 blocks, auditd 10.5 and 11.5 µs in turn. With
h = ln(1.15 / 1.05) / 2 = 0.0454859 the mean log ratio is ln(1.05) + h = ln sqrt(1.2075) =
0.0942761, which is +9.89 %, and the standard error h / sqrt(7) = 0.0171921. With 2.364624, which
is Student's t of 7 degrees of freedom at 97.5 %, the interval is 0.0536232 to 0.1349290: +5.51 % to
+14.45 %.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from pytest_syslat.gate import OVERHEAD_COLUMNS

from .support import Project, junit_cases, properties

ALTERNATING = {"auditd": [10_500, 11_500] * 4}
CHOSEN = [
    *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1"),
    "--junitxml=junit.xml",
]
# exp(0.1349290) is 1.144456: 14.4 % with one decimal, 14.45 % with two.
FIGURES = (
    "10.000 → 10.989 µs, Δ +0.989 µs (+9.9 %), 95 % interval +0.551 … +1.445 µs (+5.5 … +14.4 %)"
)


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def judged(project: Project, budget: str, *more: str) -> pytest.RunResult:
    """Run with one budget for connect's p50."""
    project.table(ns=ALTERNATING)
    return project.run(*CHOSEN, f"--syslat-budget=connect:p50<=+{budget}", *more)


def suite_counts(project: Project) -> dict[str, int]:
    [suite] = ET.parse(project.path / "junit.xml").iter("testsuite")  # noqa: S314
    return {name: int(str(suite.get(name))) for name in ("tests", "failures", "errors", "skipped")}


def the_failure(project: Project) -> str:
    case = junit_cases(project.path / "junit.xml")["test_overhead[connect-auditd-p50]"]
    [failure] = case.iter("failure")
    assert failure.get("message") == f"Failed: {failure.text}"
    return str(failure.text)


def test_passed(project: Project) -> None:
    result = judged(project, "20%")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=17, deselected=32)
    result.stdout.re_match_lines([r"connect  auditd .* \+0\.989 +\+9\.9  passed +8,000"])
    assert "connect-auditd-p50 " not in result.stdout.str()
    family = "1 cell is judged (connect-auditd-p50): its interval holds with 95 %"
    assert result.outlines.count(family) == 1
    assert suite_counts(project) == {"tests": 17, "failures": 0, "errors": 0, "skipped": 0}


def test_regressed(project: Project) -> None:
    result = judged(project, "5%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=16, failed=1, deselected=32)
    sentence = (
        f"connect-auditd-p50 regressed (budget connect:p50<=+5%, 8 blocks): {FIGURES}: "
        "the overhead is at least +5.51 %, above the budget connect:p50<=+5%"
    )
    # As the failure's own text, and under the table.
    assert result.outlines.count(sentence) == 2
    assert the_failure(project) == sentence
    assert suite_counts(project) == {"tests": 17, "failures": 1, "errors": 0, "skipped": 0}
    result.stdout.re_match_lines([r"connect  auditd .*  regressed +8,000"])


@pytest.mark.parametrize("strict", [False, True])
def test_inconclusive(project: Project, strict: bool) -> None:
    result = judged(project, "10%", *(["--syslat-strict"] if strict else []))
    sentence = (
        f"connect-auditd-p50 inconclusive (budget connect:p50<=+10%, 8 blocks): {FIGURES}: "
        "the overhead is between +5.51 % and +14.45 %, the budget connect:p50<=+10% lies inside; "
        "even 200 trials would hardly settle this"
    )
    result.stdout.re_match_lines([r"connect  auditd .*  inconclusive +8,000"])
    if strict:
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=16, failed=1, deselected=32)
        assert the_failure(project) == sentence
    else:
        assert result.ret == pytest.ExitCode.OK
        result.assert_outcomes(passed=17, deselected=32)
        assert result.outlines.count(sentence) == 1
    assert suite_counts(project)["failures"] == int(strict)


def test_too_few_blocks_decide_nothing(project: Project) -> None:
    """Far above the budget or not: 7 blocks are not 8."""
    result = judged(project, "0%", "--syslat-trials=7")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "inconclusive, 8 blocks are needed to decide (--syslat-trials): connect-auditd-p50",
        ]
    )
    assert "1 cell is judged" not in result.stdout.str()
    result = judged(project, "0%", "--syslat-trials=7", "--syslat-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert the_failure(project).endswith("7 blocks, 8 are needed to decide")


def test_invalid(project: Project) -> None:
    project.table(ns=ALTERNATING, refuse={"connect-auditd-trial8": [1, 2]})
    result = project.run(*CHOSEN, "--syslat-budget=connect:p50<=+50%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # The refused trial itself, and the verdict that rests on it.
    result.assert_outcomes(passed=15, failed=2, deselected=32)
    sentence = the_failure(project)
    assert sentence.startswith("connect-auditd-p50 invalid (budget connect:p50<=+50%, 7 blocks): ")
    assert sentence.endswith(": connect-auditd-trial8 was refused: throttled: made-up reason 2")
    assert suite_counts(project)["failures"] == 2


def test_a_traced_figure_does_not_pass_while_the_user_pays_more(project: Project) -> None:
    """The user's 20 µs become 22: +10 % in every block, without any spread."""
    result = judged(project, "50%", "--syslat-budget=connect:user<=+5%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    verdicts = {
        row["figure"]: row["verdict"] for row in project.rows("overhead.csv") if row["verdict"]
    }
    assert verdicts == {"p50": "inconclusive", "user": "regressed"}
    assert (
        "2 cells are judged together (1 syscall × 1 agent × 2 figures): their intervals all hold "
        "at once with 95 %; -k narrows the family"
    ) in result.outlines
    result.stdout.fnmatch_lines(["connect-auditd-p50 inconclusive * cost outside the interval: *"])


def test_a_budget_in_microseconds(project: Project) -> None:
    """Differences 0.5 and 1.5 µs: mean 1, standard deviation sqrt(8 * 0.25 / 7) = 0.534522,

    standard error 0.188982, interval 1 ± 0.446874.
    """
    result = judged(project, "1.4us")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            (
                "connect-auditd-p50 inconclusive (budget connect:p50<=+1.4us, 8 blocks): "
                "10.000 → 11.000 µs, Δ +1.000 µs (+10.0 %), "
                "95 % interval +0.553 … +1.447 µs (+5.5 … +14.5 %): *"
            )
        ]
    )


CONDITIONS = [
    ("node", "nowhere"),
    ("testbed", "made-up"),
    ("kernel", "0.0.0"),
    ("bpftrace", "bpftrace v0.0.0"),
    ("lmbench", "0.0"),
]


def test_junit_properties_of_trials_and_verdicts(project: Project) -> None:
    judged(project, "20%")
    cases = junit_cases(project.path / "junit.xml")
    assert len(cases) == 17
    assert properties(cases["test_latency[connect-auditd-trial2]"]) == [
        ("syscall", "connect"),
        ("label", "auditd"),
        ("trial", "2"),
        ("placement", "last"),
        ("calls", "1000"),
        ("attempt", "1"),
        ("p50_us", "11.500"),
        ("p90_us", "11.500"),
        ("p99_us", "23.000"),
        # 0.9 * 11.5 + 0.09 * 23 + 0.01 * 34.5
        ("mean_us", "12.765"),
        ("user_us", "22.000"),
        *CONDITIONS,
        ("agent_version", "auditd of the tests"),
    ]
    assert properties(cases["test_latency[connect-vanilla-trial2]"])[-5:] == CONDITIONS
    of_cell = properties(cases["test_overhead[connect-auditd-p50]"])
    named = dict(of_cell)
    assert len(named) == len(of_cell)
    assert named.pop("mde_us") != "nan"
    # t = (0.0942761 - ln 1.2) / 0.0171921 = -5.1: the other side of the budget.
    assert float(named.pop("p_adjusted")) > 0.99
    assert named == {
        "syscall": "connect",
        "label": "auditd",
        "figure": "p50",
        "budget": "connect:p50<=+20%",
        "verdict": "passed",
        "blocks": "8",
        "vanilla_us": "10.000",
        "agent_us": "10.989",
        "delta_us": "0.989",
        "delta_pct": "9.886",
        "ci_low_us": "0.551",
        "ci_high_us": "1.445",
        "ci_low_pct": "5.509",
        "ci_high_pct": "14.446",
        **dict(CONDITIONS),
        "agent_version": "auditd of the tests",
    }


def test_reruns_do_not_repeat_properties(project: Project) -> None:
    pytest.importorskip("pytest_rerunfailures")
    judged(project, "5%", "--reruns=1")
    case = junit_cases(project.path / "junit.xml")["test_overhead[connect-auditd-p50]"]
    names = [name for name, _ in properties(case)]
    assert len(names) == len(set(names))


def test_overhead_csv(project: Project) -> None:
    judged(project, "5%")
    rows = project.rows("overhead.csv")
    assert tuple(rows[0]) == OVERHEAD_COLUMNS
    assert [row["figure"] for row in rows] == ["p50", "p90", "p99", "mean", "user"]
    assert {(row["agent"], row["syscall"], row["placement"], row["blocks"]) for row in rows} == {
        ("auditd", "connect", "last", "8")
    }
    p50 = rows[0]
    # t = (0.0942761 - ln 1.05) / (h / sqrt 7) = sqrt 7 = 2.6458, between the two-sided 5 % (2.3646)
    # and 2 % (2.9980) points of 7 degrees of freedom.
    assert 0.02 < float(p50.pop("p_adjusted")) < 0.05
    assert float(p50.pop("mde_us")) > 0
    assert p50 == {
        "agent": "auditd",
        "syscall": "connect",
        "figure": "p50",
        "placement": "last",
        "blocks": "8",
        "vanilla_us": "10.000",
        "agent_us": "10.989",
        "delta_us": "0.989",
        "delta_pct": "9.886",
        "ci_low_us": "0.551",
        "ci_high_us": "1.445",
        "ci_low_pct": "5.509",
        "ci_high_pct": "14.446",
        "budget": "connect:p50<=+5%",
        "verdict": "regressed",
    }
    user = rows[4]
    assert (user["vanilla_us"], user["agent_us"]) == ("20.000", "22.000")
    # Equal in all blocks, and so known to the last decimal that lmbench prints: 0.0001 of 20 µs.
    assert (user["ci_low_pct"], user["ci_high_pct"]) == ("9.999", "10.001")
    assert (user["budget"], user["verdict"], user["p_adjusted"]) == ("", "", "")


def test_overheads_are_estimated_without_a_budget(project: Project) -> None:
    project.table(ns={"auditd": [10_500, 11_500, 10_500, 11_500]})
    result = project.run(*CHOSEN, "--syslat-trials=4")
    result.assert_outcomes(passed=8, deselected=16)
    rows = project.rows("overhead.csv")
    assert [row["delta_us"] for row in rows if row["figure"] == "p50"] == ["0.989"]
    assert {row["verdict"] for row in rows} == {""}
    result.stdout.re_match_lines([r"connect  auditd .* \+0\.989 +\+9\.9  - +4,000"])


def test_deselected_cells_are_not_judged(project: Project) -> None:
    project.table(ns=ALTERNATING)
    result = project.run(
        *("benchmarks", "-k", "connect and not p99", "--agent=auditd"),
        *("--syslat-budget=connect:p50<=+20%", "--syslat-budget=connect:p99<=+0%"),
    )
    assert result.ret == pytest.ExitCode.OK
    verdicts = {row["figure"]: row["verdict"] for row in project.rows("overhead.csv")}
    assert (verdicts["p50"], verdicts["p99"]) == ("passed", "")
