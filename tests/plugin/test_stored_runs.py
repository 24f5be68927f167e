"""Comparison with a stored run: what is refused, what is computed, and what never passes.

In the stored run vanilla takes 10 µs and auditd 10.5 and 11.5 µs in turn, in 8 blocks. With
h = ln(1.15 / 1.05) / 2 = 0.0454859 the mean log ratio of auditd is 0.0942761 and its sample
standard deviation h * sqrt(8 / 7) = 0.0486265, the standard error 0.0171921. Two such samples have
the error 0.0171921 * sqrt 2 = 0.0243133 and, being alike in spread, 14 degrees of freedom, whose
Student's t at 97.5 % is 2.144787.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.unpaired import GROWTH_COLUMNS

from .support import Project, collected, junit_cases, properties, usage_errors

ALTERNATING = [10_500, 11_500] * 4
SLOWER = [11_550, 12_650] * 4
"""1.1 times as long."""
CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1"]
P50 = ["--syslat-budget=connect:p50<=+20%"]
NEW = "--syslat-result-dir=new"
ERROR = 0.0243133
T_14 = 2.144787


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


@pytest.fixture
def stored(project: Project) -> Path:
    """A run of connect in 8 blocks, in `old`."""
    project.table(ns={"auditd": ALTERNATING})
    project.run(*CONNECT, "--syslat-trials=8", "--syslat-result-dir=old").assert_outcomes(
        passed=16, deselected=32
    )
    return project.path / "old"


def edit(stored: Path, change: Any) -> None:
    """Change the stored run.json."""
    file = stored / "run.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def cells(project: Project) -> dict[str, dict[str, Any]]:
    """The cells of the new run by figure."""
    return {each["cell"]["figure"]: each for each in project.run_json("new")["cells"]}


# A stored vanilla


def test_a_stored_vanilla_takes_the_place_of_a_measured_one(project: Project, stored: Path) -> None:
    result = project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    result.assert_outcomes(passed=9, deselected=16)
    assert project.measured == [f"connect-auditd-trial{number}" for number in range(1, 9)]
    result.stdout.fnmatch_lines(
        [
            "syslat: arms stored vanilla, auditd, 8 trials, seed 1",
            (
                f"compared with the stored vanilla of {stored} (of 2*-*-*, trials: connect 8): "
                "two runs, so weaker than pairs: what shifted between them is in the figures and "
                "not in the intervals"
            ),
        ]
    )
    p50 = cells(project)["p50"]
    assert (p50["verdict"], p50["blocks"], p50["reasons"]) == ("passed", 8, [])
    # Vanilla has no spread, so these are the standard error and freedom of auditd alone, and the
    # numbers those of the paired test.
    assert p50["delta_pct"] == pytest.approx(9.886, abs=1e-3)
    assert p50["ci_low_pct"] == pytest.approx(5.509, abs=1e-3)
    assert p50["ci_high_pct"] == pytest.approx(14.446, abs=1e-3)
    section = project.run_json("new")["baseline"]
    assert (section["path"], section["is_ours"]) == (str(stored), True)
    assert (section["differences"], section["weaknesses"]) == ([], [])
    assert {each["label"] for each in section["trials"]} == {"vanilla", "auditd"}
    assert project.run_json("new")["settings"]["baseline"] == str(stored)


def test_blocks_are_no_pairs(project: Project) -> None:
    """Both arms swing alike: pairs would tell +10 % without any spread."""
    swinging = [10_000, 20_000] * 4
    project.table(ns={"vanilla": swinging, "auditd": [11_000, 22_000] * 4})
    project.run(*CONNECT, "--syslat-trials=8", "--syslat-result-dir=old")
    project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old")
    p50 = cells(project)["p50"]
    # ln 2 / 2 * sqrt(1 / 7) is the error of each arm.
    half = T_14 * math.log(2) / 2 / math.sqrt(7) * math.sqrt(2)
    assert p50["verdict"] == "inconclusive"
    assert p50["ci_low_pct"] == pytest.approx(100 * (1.1 * math.exp(-half) - 1), abs=1e-3)
    assert p50["ci_high_pct"] == pytest.approx(100 * (1.1 * math.exp(half) - 1), abs=1e-3)


def test_a_regression_against_a_stored_vanilla_fails(project: Project, stored: Path) -> None:
    result = project.run(*CONNECT, "--syslat-budget=connect:p50<=+5%", NEW, "--syslat-baseline=old")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=8, failed=1, deselected=16)
    result.stdout.fnmatch_lines(["connect-auditd-p50 regressed *: the overhead is at least +5.51*"])


@pytest.mark.parametrize(
    ("interrupt", "options", "table"),
    [
        (11, ["--syslat-baseline=old", *P50], "cells"),
        (21, ["--syslat-against=old", "--syslat-growth-budget=connect:p50<=+20%"], "growth"),
    ],
)
def test_a_run_that_was_ended_early_passes_nothing(
    project: Project, stored: Path, interrupt: int, options: list[str], table: str
) -> None:
    """Ten of twelve blocks would be enough; by when one ends a run, one could choose."""
    project.table(ns={"auditd": ALTERNATING}, interrupt=interrupt)
    project.run(*CONNECT, *options, NEW, "--syslat-trials=12", no_reraise_ctrlc=True)
    [judged] = [each for each in project.run_json("new")[table] if each["verdict"]]
    assert (judged["verdict"], judged["blocks"] >= 8) == ("inconclusive", True)
    assert [reason for reason in judged["reasons"] if "the run was ended early" in reason]


def test_refused_trials_of_both_runs_stay_out(project: Project, stored: Path) -> None:
    def refuse_first(content: dict[str, Any]) -> None:
        first = next(each for each in content["trials"] if each["label"] == "vanilla")
        first["refused"] = True
        first["figures_us"]["p50"] = 1.0

    edit(stored, refuse_first)
    result = project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old")
    p50 = cells(project)["p50"]
    assert p50["vanilla_us"] == pytest.approx(10.0)
    assert (p50["verdict"], p50["blocks"]) == ("inconclusive", 7)
    result.stdout.fnmatch_lines([f"*: 1 refused trials of {stored} are left out"])

    project.table(ns={"auditd": ALTERNATING}, refuse={"connect-auditd-trial2": [1, 2]})
    project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old")
    # Only the agent's trial is repeated: there is no partner.
    assert project.measured.count("connect-auditd-trial2") == 2
    assert len(project.measured) == 9
    p50 = cells(project)["p50"]
    assert (p50["verdict"], p50["blocks"]) == ("invalid", 7)


def test_what_keeps_a_stored_trial_from_passing_still_does(project: Project) -> None:
    finding = ["undecided", "few-calls", "300 calls"]
    project.table(findings={"connect-vanilla-trial3": [finding]})
    project.run(*CONNECT, "--syslat-trials=8", "--syslat-result-dir=old")
    project.table()
    project.run(*CONNECT, "--syslat-budget=connect:*<=+50%", NEW, "--syslat-baseline=old")
    found = cells(project)
    assert found["p99"]["reasons"] == ["stored connect-vanilla-trial3: 300 calls"]
    assert [found[each]["verdict"] for each in ("p50", "p99")] == ["passed", "inconclusive"]


@pytest.mark.parametrize("ns", [ALTERNATING, [90_000] * 8], ids=["below", "above"])
def test_placement_must_be_proven_in_both_runs(
    project: Project, stored: Path, ns: list[int]
) -> None:
    """Where the tracer runs decides what it sees: unlike places neither pass nor regress."""

    def unknown(content: dict[str, Any]) -> None:
        first = next(each for each in content["trials"] if each["label"] == "vanilla")
        first["placement"] = "unknown"

    edit(stored, unknown)
    project.table(ns={"auditd": ns})
    project.run(*CONNECT, "--syslat-budget=connect:*<=+50%", NEW, "--syslat-baseline=old")
    found = cells(project)
    assert found["user"]["verdict"] == "passed"
    assert found["p50"]["verdict"] == "inconclusive"
    assert found["p50"]["reasons"] == [
        "nothing proves that the tracer ran at the same place in both runs (last, unknown)"
    ]


def test_selection_and_collection(project: Project, stored: Path) -> None:
    given = ["--syslat-baseline=old", NEW, "--syslat-trials=2"]
    ids = collected(project.run("benchmarks", "--agent=auditd", "--collect-only", "-q", *given))
    assert len(ids) == 6
    assert not any("vanilla" in each for each in ids)
    assert project.events == []
    # Not all syscalls are in the stored run, so they cannot be measured.
    [line] = usage_errors(project.run("benchmarks", "--agent=auditd", *given))
    assert line == (
        f"--syslat-baseline: {stored} has no vanilla trial of execve: leave execve out (-k), or "
        "give another run"
    )
    assert project.events == []
    result = project.run(*CONNECT, "-k", "connect and trial2", *given)
    result.assert_outcomes(passed=1, deselected=5)
    assert project.measured == ["connect-auditd-trial2"]


# Conditions


def other_kernel(content: dict[str, Any]) -> None:
    content["system"]["kernel"] = "5.15.0"


def other_settings(content: dict[str, Any]) -> None:
    content["settings"]["lmbench_reps"] = 3


def other_tools(content: dict[str, Any]) -> None:
    content["system"]["SHA-256 of lat_proc"] = "ab" * 32


@pytest.mark.parametrize("flag", ["--syslat-baseline", "--syslat-against"])
@pytest.mark.parametrize(
    ("change", "told", "begun"),
    [
        (other_kernel, "kernel is 5.15.0 there, 0.0.0 here", True),
        (other_settings, "lmbench_reps is 3 there, 10 here", False),
        (other_tools, f"SHA-256 of lat_proc is {'ab' * 29}a… there, not told here", True),
    ],
)
def test_other_conditions_are_refused(
    project: Project, stored: Path, flag: str, change: Any, told: str, begun: bool
) -> None:
    edit(stored, change)
    project.run(*CONNECT, NEW, f"{flag}=old")
    more = ["--syslat-growth-budget=connect:p50<=+5%"] if flag == "--syslat-against" else []
    [line] = usage_errors(project.run(*CONNECT, NEW, f"{flag}=old", *more))
    assert line == (
        f"{flag}: {stored} was made under other conditions: {told}: measure it again here, or "
        "give --syslat-force, and then nothing passes"
    )
    # Settings are compared before anything is put in place, and no agent is installed for nothing.
    assert bool(project.events) == begun
    assert "auditd prepare" not in project.events
    assert project.events[-1:] == (["testbed closed"] if begun else [])
    assert not (project.path / "new").exists()


def test_more_differences_than_a_line_holds(project: Project, stored: Path) -> None:
    def all_over(content: dict[str, Any]) -> None:
        content["settings"] |= {"lmbench_reps": 3, "openat_mult": 4, "min_calls": 5, "rate": 6}

    edit(stored, all_over)
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert (
        "rate is 6 there, not told here; lmbench_reps is 3 there, 10 here; openat_mult is 4 there, "
        "10 here (and 1 more): measure"
    ) in line


@pytest.mark.parametrize(
    ("budget", "ns"), [("1000%", ALTERNATING), ("0%", [50_000] * 8)], ids=["far below", "far above"]
)
def test_a_forced_comparison_neither_passes_nor_regresses(
    project: Project, stored: Path, budget: str, ns: list[int]
) -> None:
    edit(stored, other_kernel)
    project.table(ns={"auditd": ns})
    given = [NEW, "--syslat-baseline=old", "--syslat-force"]
    result = project.run(*CONNECT, f"--syslat-budget=connect:p50<=+{budget}", *given)
    assert result.ret == pytest.ExitCode.OK
    reason = "--syslat-force: old was made so: kernel is 5.15.0 there, 0.0.0 here"
    result.stdout.fnmatch_lines(
        [
            f"connect-auditd-p50 inconclusive *: {reason}",
            (
                f"warning: --syslat-baseline: {stored} was made under other conditions, so nothing "
                "passes and nothing regresses: kernel is 5.15.0 there, 0.0.0 here"
            ),
        ]
    )
    # Each figure carries it, judged or not.
    found = cells(project)
    assert {each["verdict"] for each in found.values()} == {"inconclusive", None}
    assert all(each["reasons"] == [reason] for each in found.values())
    assert project.run_json("new")["baseline"]["differences"] == [
        "kernel is 5.15.0 there, 0.0.0 here"
    ]
    result = project.run(
        *CONNECT, f"--syslat-budget=connect:p50<=+{budget}", *given, "--syslat-strict"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_another_version_of_the_plugin_is_told(project: Project, stored: Path) -> None:
    def older(content: dict[str, Any]) -> None:
        content["system"]["pytest-syslat"] = "0.0.1"

    edit(stored, older)
    result = project.run(*CONNECT, NEW, "--syslat-trials=1", "--syslat-baseline=old")
    result.stdout.fnmatch_lines(
        ["warning: --syslat-baseline: measured with pytest-syslat 0.0.1, here it is unknown"]
    )


def test_a_part_of_a_run_is_told(project: Project, stored: Path) -> None:
    result = project.run(*CONNECT, NEW, "--syslat-trials=1", "--syslat-baseline=old")
    result.stdout.fnmatch_lines(
        [f"warning: --syslat-baseline: {stored} is a part of a run, or was ended early"]
    )


# Bad places


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "run.json is no JSON: is it the file of a run?"),
        ("[1]", "run.json names no schema: it is not the file of a run"),
        ('{"schema": "new"}', "run.json names no schema: it is not the file of a run"),
        (
            '{"schema": 99, "trials": [1]}',
            "run.json has the schema 99, this version reads up to",
        ),
        (
            '{"schema": 1, "complete": false}',
            "old holds no trial: that run was ended before its first one",
        ),
        (
            '{"schema": 1, "settings": {}, "system": {}, "trials": [{"syscall": "openat"}]}',
            "run.json is not as a run writes it (KeyError: 'label'): give the directory of another",
        ),
        (
            '{"schema": 1, "settings": [], "system": [], "trials": [7]}',
            "run.json is not as a run writes it (TypeError: ",
        ),
    ],
)
def test_a_run_json_that_is_none(project: Project, content: str, told: str) -> None:
    project.write("old/run.json", content)
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert line.startswith("--syslat-baseline: ")
    assert told in line
    assert project.events == []


def test_a_directory_without_a_run(project: Project) -> None:
    place = project.write("old/thesis.txt", "no run").parent
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert line == (
        f"--syslat-baseline: {place} holds no run.json and no LABEL/LABEL_summary.csv: give the "
        "result directory of a run"
    )


def test_a_file_in_place_of_a_directory(project: Project) -> None:
    place = project.write("old", "")
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert line == (
        f"--syslat-baseline: 'old' is not valid: there is no directory {place}: give the result "
        "directory of a run"
    )


def test_a_run_without_vanilla(project: Project, stored: Path) -> None:
    def without(content: dict[str, Any]) -> None:
        content["trials"] = [each for each in content["trials"] if each["label"] != "vanilla"]

    edit(stored, without)
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert line == (
        f"--syslat-baseline: {stored} has no trial of vanilla that counts (arms: auditd): give a "
        "run that measured vanilla"
    )


def test_a_run_whose_vanilla_was_refused(project: Project, stored: Path) -> None:
    def refuse(content: dict[str, Any]) -> None:
        for each in content["trials"]:
            each["refused"] = each["label"] == "vanilla"

    edit(stored, refuse)
    [line] = usage_errors(project.run(*CONNECT, NEW, "--syslat-baseline=old"))
    assert "has no trial of vanilla that counts (arms: auditd)" in line


@pytest.mark.parametrize("result_dir", ["old", "./new/../old"])
def test_a_run_does_not_replace_its_own_baseline(
    project: Project, stored: Path, result_dir: str
) -> None:
    before = (stored / "run.json").read_bytes()
    [line] = usage_errors(
        project.run(*CONNECT, "--syslat-baseline=old", f"--syslat-result-dir={result_dir}")
    )
    assert line == (
        f"--syslat-baseline: {stored} would be replaced by this run's own files: give another "
        "--syslat-result-dir"
    )
    assert (stored / "run.json").read_bytes() == before
    stored.rename(project.path / "new.previous")
    [line] = usage_errors(project.run(*CONNECT, "--syslat-baseline=new.previous", NEW))
    assert "would be replaced" in line


def test_a_baseline_without_an_agent(project: Project, stored: Path) -> None:
    [line] = usage_errors(project.run("benchmarks", NEW, "--syslat-baseline=old"))
    assert line == ("--syslat-baseline: there is no agent to compare: give one by --syslat-agent")


def test_interleaved_is_still_a_word(project: Project, stored: Path) -> None:
    project.pytester.makeini("[pytest]\nsyslat_baseline = old\n")
    project.run(*CONNECT, NEW, "--syslat-trials=1", "--syslat-baseline=interleaved")
    assert sorted(project.measured) == ["connect-auditd-trial1", "connect-vanilla-trial1"]
    project.run(*CONNECT, NEW, "--syslat-trials=1")
    assert project.measured == ["connect-auditd-trial1"]


# Growth


def grown(project: Project, budget: str, *more: str) -> pytest.RunResult:
    """Run with one growth budget for connect's p50."""
    return project.run(
        *CONNECT,
        NEW,
        "--syslat-against=old",
        f"--syslat-growth-budget=connect:p50<=+{budget}",
        "--junitxml=junit.xml",
        *more,
    )


def test_an_overhead_that_has_grown(project: Project, stored: Path) -> None:
    project.table(ns={"auditd": SLOWER})
    result = grown(project, "4%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=16, failed=1, deselected=32)
    # ln 1.1 -+ 2.144787 * 0.0243133 is 0.043164 and 0.147457.
    sentence = (
        "connect-auditd-p50 growth regressed (growth budget connect:p50<=+4%, 8 and 8 blocks): "
        "overhead +0.989 µs (+9.9 %) → +2.087 µs (+20.9 %), growth +1.099 µs (+10.0 %), "
        "95 % interval +0.485 … +1.746 µs (+4.4 … +15.9 %): "
        "the overhead has grown by at least +4.41 %, above the budget connect:p50<=+4%"
    )
    assert result.outlines.count(sentence) == 2
    case = junit_cases(project.path / "junit.xml")["test_growth[connect-auditd-p50]"]
    [failure] = case.iter("failure")
    assert failure.text == sentence
    named = dict(properties(case))
    assert (named["verdict"], named["blocks_before"]) == ("regressed", "8")
    assert (named["growth_pct"], named["ci_low_pct"]) == ("10.000", "4.411")
    assert (named["label"], named["placement"]) == ("auditd", "last")


@pytest.mark.parametrize(
    ("budget", "verdict"), [("20%", "passed"), ("10%", "inconclusive"), ("2us", "passed")]
)
def test_verdicts_on_growth(project: Project, stored: Path, budget: str, verdict: str) -> None:
    project.table(ns={"auditd": SLOWER})
    result = grown(project, budget)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"connect-auditd-p50 growth {verdict} (*"])
    result.stdout.fnmatch_lines([f"growth since {stored} (of *, auditd: auditd of the tests): *"])


def test_a_machine_that_has_become_faster_is_no_growth(project: Project, stored: Path) -> None:
    """Both arms take half as long: agent over vanilla is what it was."""
    project.table(ns={"vanilla": 5_000, "auditd": [each // 2 for each in ALTERNATING]})
    assert grown(project, "6%").ret == pytest.ExitCode.OK
    [p50] = [row for row in growth_rows(project) if row["figure"] == "p50"]
    assert (p50["growth_pct"], p50["verdict"]) == ("0.000", "passed")


def growth_rows(project: Project) -> list[dict[str, str]]:
    with (project.path / "new/growth.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_growth_csv(project: Project, stored: Path) -> None:
    project.table(ns={"auditd": SLOWER})
    grown(project, "4%")
    rows = growth_rows(project)
    assert tuple(rows[0]) == GROWTH_COLUMNS
    assert [row["figure"] for row in rows] == ["p50", "p90", "p99", "mean", "user"]
    p50 = rows[0]
    # t = (ln 1.1 - ln 1.04) / 0.0243133 = 2.307, between the two-sided 5 % (2.145) and 2 %
    # (2.624) points of 14 degrees of freedom.
    assert 0.02 < float(p50.pop("p_adjusted")) < 0.05
    assert float(p50.pop("mde_us")) > 0
    assert p50 == {
        "agent": "auditd",
        "syscall": "connect",
        "figure": "p50",
        "placement": "last",
        "blocks_before": "8",
        "blocks_now": "8",
        "overhead_before_us": "0.989",
        "overhead_now_us": "2.087",
        "overhead_before_pct": "9.886",
        "overhead_now_pct": "20.875",
        "expected_us": "10.989",
        "agent_us": "12.087",
        "growth_us": "1.099",
        "growth_pct": "10.000",
        "ci_low_us": "0.485",
        "ci_high_us": "1.746",
        "ci_low_pct": "4.411",
        "ci_high_pct": "15.888",
        "budget": "connect:p50<=+4%",
        "verdict": "regressed",
    }
    assert {row["verdict"] for row in rows[1:]} == {""}
    stored_rows = project.run_json("new")["growth"]
    assert [each["verdict"] for each in stored_rows] == ["regressed", None, None, None, None]
    assert stored_rows[0]["blocks_before"] == 8
    assert project.run_json("new")["against"]["path"] == str(stored)


def test_growth_items(project: Project, stored: Path) -> None:
    given = [
        *("benchmarks", "--agent=auditd", "--collect-only", "-q", NEW, "--syslat-trials=1"),
        *("--syslat-budget=connect:p50<=+5%", "--syslat-growth-budget=connect:*<=+5%"),
        "--syslat-against=old",
    ]
    ids = collected(project.run(*given))
    # 3 syscalls in 2 arms, one overhead, 5 growths.
    assert len(ids) == 6 + 1 + 5
    assert ids[6:] == [
        "test_overhead[connect-auditd-p50]",
        *(f"test_growth[connect-auditd-{each}]" for each in ("p50", "p90", "p99", "mean", "user")),
    ]
    assert project.events == []
    alone = [each for each in given if each not in ("--collect-only", "-q")]
    result = project.run(*alone, "-k", "test_growth and p50")
    result.assert_outcomes(passed=1, deselected=11)
    # A growth item alone brings its whole cell.
    assert sorted(project.measured) == ["connect-auditd-trial1", "connect-vanilla-trial1"]
    result.stdout.fnmatch_lines(["*: 8 stored and 1 new values, 8 of each are needed to decide"])


def test_without_a_stored_run_no_growth_item(project: Project) -> None:
    project.pytester.makeini("[pytest]\nsyslat_growth_budget = *:p50<=+5%\n")
    result = project.run(*CONNECT, "--syslat-trials=1")
    result.assert_outcomes(passed=2, deselected=4)
    assert not (project.results / "growth.csv").exists()
    assert "growth" not in project.run_json()


def test_eight_trials_when_growth_is_judged(project: Project, stored: Path) -> None:
    ids = collected(
        project.run(
            *CONNECT,
            *("--collect-only", "-q", NEW, "--syslat-against=old"),
            "--syslat-growth-budget=*:p50<=+5%",
        )
    )
    assert sum(each.startswith("test_latency[connect-auditd") for each in ids) == 8


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--syslat-against=old"],
            (
                "--syslat-against: nothing says how far an overhead may grow: give "
                "--syslat-growth-budget, such as '*:user<=+5%'"
            ),
        ),
        (
            ["--syslat-growth-budget=*:p50<=+5%"],
            "--syslat-growth-budget: nothing to compare with: give --syslat-against",
        ),
        (
            [
                *("--syslat-against=old", "--syslat-baseline=old"),
                "--syslat-growth-budget=*:p50<=+5%",
            ],
            (
                "--syslat-against: needs a vanilla of this run's own in each block: leave out "
                "--syslat-baseline"
            ),
        ),
        (
            [
                *("--syslat-against=old", "--syslat-growth-budget=*:p50<=+5%"),
                "--agent=other=command:sleep 1",
            ],
            (
                "--syslat-against: OLD has no block of connect with vanilla and other (arms: "
                "auditd, vanilla): leave it out (-k), or give another run"
            ),
        ),
    ],
)
def test_options_that_do_not_fit(
    project: Project, stored: Path, arguments: list[str], told: str
) -> None:
    [line] = usage_errors(project.run(*CONNECT, NEW, *arguments))
    assert line == told.replace("OLD", str(stored))
    assert project.events == []


def test_a_forced_growth_decides_nothing(project: Project, stored: Path) -> None:
    edit(stored, other_kernel)
    project.table(ns={"auditd": [50_000] * 8})
    result = grown(project, "4%", "--syslat-force")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["connect-auditd-p50 growth inconclusive *: --syslat-force: *"])


def test_a_traced_growth_does_not_pass_while_the_user_pays_more(
    project: Project, stored: Path
) -> None:
    project.table(ns={"auditd": ALTERNATING}, user_us={"auditd": 33.0})
    result = grown(project, "50%", "--syslat-growth-budget=connect:user<=+5%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    verdicts = {row["figure"]: row["verdict"] for row in growth_rows(project) if row["verdict"]}
    assert verdicts == {"p50": "inconclusive", "user": "regressed"}


# The files of other programs

STUDY = """label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us
"""


@pytest.fixture
def study(project: Project) -> Path:
    """Standard files of connect in whole µs, without a run.json."""
    rows = [f"vanilla,connect,{n},raw,11,{10 + n % 2},20,9,30,40,2\n" for n in range(1, 9)]
    return project.write("old/vanilla/vanilla_summary.csv", STUDY + "".join(rows)).parents[1]


def test_the_files_of_others_are_refused_unless_forced(project: Project, study: Path) -> None:
    [line] = usage_errors(project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old"))
    assert line == (
        f"--syslat-baseline: {study} holds no run.json but the CSV files of another program: "
        "nothing tells where and how they were measured; --syslat-force compares all the same, "
        "and then nothing passes"
    )
    [line] = usage_errors(grown(project, "5%", "--syslat-force"))
    assert line == (
        f"--syslat-against: {study} holds no run.json: its trials are no blocks, so no growth can "
        "be told; compare with its vanilla by --syslat-baseline"
    )
    assert project.events == []


def test_nothing_passes_beside_the_files_of_others(project: Project, study: Path) -> None:
    project.table(ns={"auditd": [12_000] * 8})
    result = project.run(
        *CONNECT,
        "--syslat-budget=connect:p50<=+1000%",
        "--syslat-budget=connect:user<=+1000%",
        *(NEW, "--syslat-baseline=old", "--syslat-force"),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = cells(project)
    assert (found["p50"]["verdict"], found["user"]["verdict"]) == ("inconclusive", "invalid")
    # The geometric mean of 10 and 11 µs is 10.488.
    assert found["p50"]["vanilla_us"] == pytest.approx(10.488, abs=1e-3)
    assert found["user"]["reasons"][0] == "the stored run has no value of user for connect"
    named = [
        "old: no program of ours measured it: failed calls may be among its figures",
        "old: it has no user cost: what the tracer does not see is not known",
        "old: no sysinfo describes the machine of vanilla: nothing shows that it is this one",
        "old: connect: p50, p99, mean in whole µs: a p50 of 10 µs may be 9.5 to 10.5 µs, ±5 %",
        (
            "old: connect: as few as 40 calls a trial: below 300 the p99 has no upper bound, and "
            "the loader's own calls weigh"
        ),
    ]
    # Each row carries them, also those that are not judged.
    assert all(set(named) <= set(each["reasons"]) for each in found.values())
    assert found["p50"]["reasons"][:5] == named
    for sentence in named:
        told = sentence.removeprefix("old: ")
        result.stdout.fnmatch_lines([f"warning: --syslat-baseline: {told}"])
    assert project.run_json("new")["baseline"]["is_ours"] is False


def test_a_malformed_file_of_others(project: Project, study: Path) -> None:
    file = project.write("old/vanilla/vanilla_summary.csv", STUDY + "vanilla,connect,1,raw,x\n")
    [line] = usage_errors(
        project.run(*CONNECT, *P50, NEW, "--syslat-baseline=old", "--syslat-force")
    )
    assert line == f"--syslat-baseline: {file}, line 2: 5 fields where 11 belong"
