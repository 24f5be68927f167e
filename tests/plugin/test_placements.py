"""--syslat-placement: which passes are made, what is switched for them, and where they are told."""

from __future__ import annotations

from typing import Any

import pytest

from .support import Project

ONE = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=1", "--syslat-seed=1"]
BOTH = [*ONE, "--syslat-placement=both"]


def steps(project: Project) -> list[str]:
    """What was switched, attached and measured, in order."""
    wanted = ("auditd activate", "auditd deactivate", "attach", "measure")
    return [line for line in project.events if line.startswith(wanted)]


def trial_of(run: dict[str, Any], arm: str) -> dict[str, Any]:
    [found] = [each for each in run["trials"] if each["label"] == arm]
    return dict(found)


def test_last_makes_one_pass_and_no_file_of_its_own(project: Project) -> None:
    project.run(*ONE).assert_outcomes(passed=2)
    assert "attach" not in steps(project)
    assert not (project.results / "auditd/auditd_placement.csv").exists()
    run = project.run_json()
    assert trial_of(run, "auditd")["first"] is None
    assert "cells_first" not in run


def test_both_attaches_while_the_agent_is_off(project: Project) -> None:
    project.run(*BOTH).assert_outcomes(passed=2)
    found = steps(project)
    begin = found.index("auditd activate")
    end = found.index("measure connect-auditd-trial1-first")
    assert found[begin : end + 1] == [
        "auditd activate",
        "measure connect-auditd-trial1",
        "auditd deactivate",
        "attach",
        "auditd activate",
        "measure connect-auditd-trial1-first",
    ]
    # Vanilla goes through the same passes, with nothing to switch.
    begin = found.index("measure connect-vanilla-trial1")
    assert found[begin : begin + 3] == [
        "measure connect-vanilla-trial1",
        "attach",
        "measure connect-vanilla-trial1-first",
    ]


def test_the_other_placement_has_rows_of_its_own(project: Project) -> None:
    project.table(first_ns={"vanilla": 20_000, "auditd": 25_000})
    project.run(*BOTH).assert_outcomes(passed=2)
    # 900 calls of 25 µs, 90 of 50, 10 of 75: mean 22.5 + 4.5 + 0.75 = 27.75.
    rows = project.rows("auditd/auditd_placement.csv")
    assert [(row["wanted"], row["placement"], row["p50_us"], row["avg_us"]) for row in rows] == [
        ("last", "last", "11.000", "12.210"),
        ("first", "first", "25.000", "27.750"),
    ]
    # The standard files hold the main placement alone.
    assert [row["p50_us"] for row in project.rows("auditd/auditd_summary.csv")] == ["11.000"] * 2
    log = project.results / "auditd/auditd_connect_trial1_first.log"
    assert log.read_text() == "connect-auditd-trial1-first attempt 1\n"

    cells = {(row["placement"], row["figure"]): row for row in project.rows("overhead.csv")}
    assert set(cells) == {
        *(("last", figure) for figure in ("p50", "p90", "p99", "mean", "user")),
        *(("first", figure) for figure in ("p50", "p90", "p99", "mean")),
    }
    assert cells["last", "p50"]["delta_us"] == "1.000"
    assert cells["first", "p50"]["vanilla_us"] == "20.000"
    assert cells["first", "p50"]["delta_us"] == "5.000"
    assert len(project.run_json()["cells_first"]) == 4


def test_budgets_are_judged_on_the_main_placement_alone(project: Project) -> None:
    project.table(first_ns={"auditd": 90_000})
    many = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=8"]
    budget = ["--syslat-budget=connect:p50<=+20%", "--syslat-placement=both"]
    project.run(*many, *budget).assert_outcomes(passed=17)
    judged = [row for row in project.rows("overhead.csv") if row["verdict"]]
    assert [(row["placement"], row["verdict"]) for row in judged] == [("last", "passed")]


def test_first_alone_is_what_is_judged(project: Project) -> None:
    project.table(first_ns={"vanilla": 20_000, "auditd": 30_000})
    project.run(*ONE, "--syslat-placement=first").assert_outcomes(passed=2)
    assert set(project.measured) == {
        "connect-vanilla-trial1-first",
        "connect-auditd-trial1-first",
    }
    rows = project.rows("overhead.csv")
    assert {row["placement"] for row in rows} == {"first"}
    assert {row["figure"]: row["delta_us"] for row in rows}["p50"] == "10.000"
    assert {row["figure"]: row["delta_us"] for row in rows}["user"] == "2.000"


def test_figures_whose_placement_is_not_proven_are_no_estimate(project: Project) -> None:
    project.table(placement={"connect-auditd-trial1-first": "unknown"})
    project.run(*BOTH).assert_outcomes(passed=2)
    assert {row["placement"] for row in project.rows("overhead.csv")} == {"last"}
    rows = project.rows("auditd/auditd_placement.csv")
    assert [(row["wanted"], row["placement"]) for row in rows] == [
        ("last", "last"),
        ("first", "unknown"),
    ]


@pytest.mark.parametrize(("refused", "kept"), [([1], True), ([1, 2], False)])
def test_a_refused_pass_is_repeated_once_at_once(
    project: Project, refused: list[int], kept: bool
) -> None:
    project.table(refuse_first={"connect-auditd-trial1": refused})
    # The trial itself is none the worse for it.
    result = project.run(*BOTH)
    result.assert_outcomes(passed=2)
    assert project.measured.count("connect-auditd-trial1-first") == 2
    assert project.measured.count("connect-auditd-trial1") == 1
    first = [row for row in project.rows("overhead.csv") if row["placement"] == "first"]
    assert bool(first) is kept
    warned = "with the tracer before the agent: throttled: made-up reason 2"
    assert (warned in result.stdout.str()) is not kept


def test_a_refused_trial_has_no_other_pass(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial1": [1]})
    project.run(*BOTH)
    assert project.measured[-4:].count("connect-auditd-trial1-first") == 1
    assert project.measured.count("connect-auditd-trial1-first") == 1
    assert project.measured.count("connect-auditd-trial1") == 2


def test_the_split_of_openat(project: Project) -> None:
    """Per block: user 12 and 14 above vanilla, last 7 and 7, first 6 and 8."""
    project.table(
        user_us={"vanilla": 20.0, "auditd": [32.0, 34.0]},
        operation_us={"vanilla": 30.0, "auditd": 37.0},
        first_operation_us={"vanilla": 31.0, "auditd": [37.0, 39.0]},
    )
    chosen = ["benchmarks", "-k", "openat", "--agent=auditd", "--syslat-trials=2"]
    result = project.run(*chosen, "--syslat-placement=both")
    result.assert_outcomes(passed=4)
    [found] = project.run_json()["split"]
    assert (found["agent"], found["syscall"], found["blocks"]) == ("auditd", "openat", 2)
    # Entry 5 and 7, exit 6 and 6, inside 1 and 1.
    assert {name: found[name]["mean_us"] for name in ("entry", "inside", "exit")} == {
        "entry": pytest.approx(6.0),
        "inside": pytest.approx(1.0),
        "exit": pytest.approx(6.0),
    }
    parts = [rf"\+{number}\.000" for number in (13, 7, 7, 6, 1, 6)]
    result.stdout.re_match_lines(
        [
            r"overhead of means, µs: .+",
            r"syscall +arm +of +user +last +first +entry +inside +exit",
            r"openat +auditd +operation +" + " +".join(parts),
            # Standard error 1, t(0.975, 1) = 12.706.
            r"95 % intervals of these parts, µs",
            r" +entry +entry +inside +inside +exit +exit",
            r"syscall +arm +blocks +from +to +from +to +from +to",
            r"openat +auditd +2 +-6\.706 +\+18\.706 .+",
        ]
    )
    rows = project.rows("auditd/auditd_placement.csv")
    assert [row["operation_us"] for row in rows] == ["37.000", "37.000", "37.000", "39.000"]


def test_execve_and_connect_are_not_split(project: Project) -> None:
    project.table(first_ns={"vanilla": 20_000, "auditd": 25_000})
    result = project.run(*BOTH)
    [found] = project.run_json()["split"]
    assert (found["syscall"], found["whole_operation"]) == ("connect", False)
    # 5 µs at p50 are 1.11 times as much in the mean; so are 1 µs.
    assert found["first"]["mean_us"] == pytest.approx(5.55)
    assert found["last"]["mean_us"] == pytest.approx(1.11)
    assert found["entry"] is None
    result.stdout.re_match_lines([r"connect +auditd +call +\+2\.000 +\+1\.110 +\+5\.550 +- +- +-"])


def test_a_block_whose_placement_is_not_proven_is_left_out_of_the_split(project: Project) -> None:
    project.table(placement={"connect-vanilla-trial1": "unknown"})
    result = project.run(*BOTH)
    assert "split" not in project.run_json()
    told = "no overhead is split: no block has both placements proven in both arms"
    result.stdout.fnmatch_lines([told])
    project.table()
    assert told not in project.run(*BOTH).stdout.str()


# --- What loads of known place show ----------------------------------------------------------


def test_the_placements_in_use_are_confirmed_before_the_first_trial(project: Project) -> None:
    result = project.run(*BOTH)
    assert project.events.index("confirm last first") < project.events.index(
        f"measure {project.measured[0]}"
    )
    check = project.run_json()["placement_check"]
    assert [(each["placement"], each["place"], each["as_expected"]) for each in check["loads"]] == [
        ("last", "entry", True),
        ("last", "exit", True),
        ("first", "entry", True),
        ("first", "exit", True),
    ]
    assert check["floor"]["p50_us"] == 0.09
    result.stdout.fnmatch_lines(
        [
            "placement confirmed: last sees 0.0 of 6.0 µs at entry; last sees 6.0 of *",
            "tracer's floor: of a syscall that does nothing it sees 0.090 µs (p50); *",
        ]
    )
    project.run(*ONE, "--syslat-placement=first", "--syslat-result-dir=b")
    assert "confirm first" in project.events
    project.run(*ONE, "--syslat-result-dir=c")
    assert not [each for each in project.events if each.startswith("confirm")]
    assert "placement_check" not in project.run_json("c")


@pytest.mark.parametrize(
    ("load", "seen_ns", "wrong"),
    [
        ("first-exit", 5800, "first"),
        ("first-entry", 100, "first"),
        ("last-exit", 2000, "last"),
        ("last-entry", 4000, "last"),
        ("last-entry", 2900, None),
    ],
)
def test_a_contradiction_leaves_the_placement_unknown(
    project: Project, load: str, seen_ns: int, wrong: str | None
) -> None:
    project.table(load_seen_ns={load: seen_ns})
    result = project.run(*BOTH)
    rows = project.rows("vanilla/vanilla_placement.csv")
    assert {row["wanted"]: row["placement"] for row in rows} == {
        name: "unknown" if name == wrong else name for name in ("last", "first")
    }
    warned = f"warning: the placement of the tracer is unknown: with the tracer {wrong}, "
    assert (warned in result.stdout.str()) is (wrong is not None)
    validity = (project.results / "auditd/auditd_validity.csv").read_text()
    assert ("placement-contradicted" in validity) is (wrong is not None)
    assert ("split" in project.run_json()) is (wrong is None)


# --- Who spends it ---------------------------------------------------------------------------


def test_programs_are_attributed_once_an_agent_and_syscall(project: Project) -> None:
    many = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=2"]
    project.table(refuse={"connect-auditd-trial1": [1]})
    result = project.run(*many, "--syslat-attribute")
    found = [line for line in project.events if line.startswith(("attribute", "measure"))]
    assert found.count("attribute connect auditd") == 1
    assert not [line for line in found if line.startswith("attribute") and "vanilla" in line]
    # After the first trial that was not refused.
    before = found[: found.index("attribute connect auditd")]
    assert before[-1] == "measure connect-auditd-trial1"
    assert before.count("measure connect-auditd-trial1") == 2

    rows = project.rows("attribution.csv")
    assert [list(row.values()) for row in rows] == [
        *(
            ["auditd", "connect", *rest]
            for rest in (
                ["agent", "hook (12)", "tracepoint sys_enter_connect;fentry x", "2.000", "900.000"],
                ["tracer", "probe (13)", "tracepoint sys_exit_connect", "1.000", "80.500"],
                # 22 less 20 µs for the user, of which the agent's program accounts for 0.9.
                ["remainder", "no BPF program: kernel audit, LSM, dispatch", "", "", "1100.000"],
            )
        )
    ]
    assert project.run_json()["attribution"][0]["calls"] == 1000
    result.stdout.re_match_lines(
        [
            r"who spends it, per call .+",
            r"syscall +arm +owner +runs +ns +attached to",
            r"connect +auditd +agent +2\.00 +900 +tracepoint sys_enter_connect, fentry x",
            r"connect +auditd +tracer +1\.00 +80 +tracepoint sys_exit_connect",
            r"connect +auditd +remainder +- +1,100 +no BPF program: .+",
        ]
    )


def test_nothing_is_attributed_unasked(project: Project) -> None:
    project.run(*ONE)
    assert not [line for line in project.events if line.startswith("attribute")]
    assert not (project.results / "attribution.csv").exists()


def test_programs_that_cannot_be_listed_are_a_warning(project: Project) -> None:
    project.table(not_attributed={"auditd": True})
    result = project.run(*ONE, "--syslat-attribute")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["warning: connect auditd could not be attributed: bpftool cannot list BPF programs"]
    )
    assert not (project.results / "attribution.csv").exists()


JUDGED = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-budget=connect:*<=+20%"]


def verdicts(project: Project) -> dict[str, tuple[str, str]]:
    """Placement and verdict of the judged rows of overhead.csv, by figure."""
    rows = [row for row in project.rows("overhead.csv") if row["verdict"]]
    return {row["figure"]: (row["placement"], row["verdict"]) for row in rows}


def test_traced_figures_of_different_placement_are_no_pair(project: Project) -> None:
    project.table(placement={"connect-auditd-trial3": "first"})
    result = project.run(*JUDGED)
    result.assert_outcomes(passed=21)
    traced = dict.fromkeys(("p50", "p90", "p99", "mean"), ("unknown", "inconclusive"))
    assert verdicts(project) == {**traced, "user": ("unknown", "passed")}
    reason = (
        "the tracer was not in the same place in all trials (first and last, such as in "
        "connect-auditd-trial3): traced figures cannot be compared"
    )
    result.stdout.fnmatch_lines([f"connect-auditd-p50 inconclusive *: {reason}"])


def test_a_placement_that_the_loads_contradict_decides_nothing(project: Project) -> None:
    project.table(load_seen_ns={"first-entry": 100})
    project.run(*JUDGED, "--syslat-placement=first")
    told = verdicts(project)
    assert told["p50"] == ("unknown", "inconclusive")
    assert told["user"] == ("unknown", "passed")


def test_refused_trials_do_not_tell_the_placement(project: Project) -> None:
    project.table(
        refuse={"openat-auditd-trial1": [1, 2]}, placement={"openat-auditd-trial1": "unknown"}
    )
    project.run("benchmarks", "--agent=auditd", "--syslat-trials=2")
    placements = {(row["syscall"], row["placement"]) for row in project.rows("overhead.csv")}
    assert placements == {("execve", "last"), ("openat", "last"), ("connect", "last")}


@pytest.mark.parametrize("more", ["--syslat-placement=both", "--syslat-attribute"])
def test_ctrl_c_beside_a_measured_trial_keeps_it(project: Project, more: str) -> None:
    """The second measurement is vanilla's or the agent's pass beside a trial that has its figures.

    An attribution is no measurement: there the next trial is cut off.
    """
    project.table(interrupt=2)
    project.run(*ONE, more, no_reraise_ctrlc=True)
    run = project.run_json()
    assert [trial["refused"] for trial in run["trials"]] == [False]
    assert ("interrupted" in run) is (more == "--syslat-attribute")


def test_an_interrupted_run_passes_nothing(project: Project) -> None:
    """By when one ends it, one could choose what it says."""
    project.table(interrupt=20)
    result = project.run(*JUDGED, "--syslat-trials=12", no_reraise_ctrlc=True)
    assert {verdict for _, verdict in verdicts(project).values()} <= {"inconclusive"}
    result.stdout.no_fnmatch_line("*  passed  *")


def test_a_stored_vanilla_gives_no_split(project: Project) -> None:
    project.run("benchmarks", "-k", "connect", "--syslat-result-dir=before")
    result = project.run(*BOTH, "--syslat-baseline=before")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --syslat-placement=both: it compares with a vanilla in the same blocks: *"]
    )
