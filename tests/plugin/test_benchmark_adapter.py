"""pytest-benchmark's table, files and options with our items."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .support import Project, trial_ids, usage_errors

CONNECT = [
    *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=2"),
    *("--syslat-budget=connect:p50<=+50%", "--benchmark-json=b.json"),
]
ITEMS = {f"test_latency[{each}]" for each in trial_ids(trials=2, arms=("vanilla", "auditd"))}
ITEMS = {each for each in ITEMS if "connect" in each}


def benchmarks(project: Project, name: str = "b.json") -> dict[str, dict[str, Any]]:
    """The entries of a file of pytest-benchmark by name."""
    stored = json.loads((project.path / name).read_text())
    return {each["name"]: each for each in stored["benchmarks"]}


def own_files(project: Project) -> dict[str, bytes]:
    """Our files that do not depend on the time."""
    return {
        str(path.relative_to(project.results)): path.read_bytes()
        for path in sorted(project.results.rglob("*.csv"))
    }


def test_each_measuring_item_has_a_row(project: Project) -> None:
    project.table(ns={"auditd": [11_000, 12_000]})
    result = project.run(*CONNECT)
    result.assert_outcomes(passed=5, deselected=8)
    found = benchmarks(project)
    assert set(found) == ITEMS
    entry = found["test_latency[connect-auditd-trial2]"]
    stats = entry["stats"]
    # 900 calls of 12 µs, 90 of 24 µs, 10 of 36 µs; in seconds.
    for name, seconds in (("min", 12e-6), ("q1", 12e-6), ("median", 12e-6), ("max", 36e-6)):
        assert stats[name] == seconds
    assert stats["mean"] == pytest.approx(13.32e-6, rel=1e-3)
    assert stats["rounds"] == len(stats["data"]) <= 1000
    assert stats["iterations"] == 1
    assert entry["group"] == "connect"
    assert entry["params"] == {"syscall": "connect", "arm": "auditd", "trial": 2}
    assert entry["extra_info"] == {
        **entry["params"],
        "node": "nowhere",
        "testbed": "made-up",
        "placement": "last",
        "attempt": 1,
        "calls": 1000,
        "p50_us": 12.0,
        "p90_us": 12.0,
        "p99_us": 24.0,
        # 0.9 * 12 + 0.09 * 24 + 0.01 * 36
        "mean_us": 13.32,
        "user_us": 22.0,
        # The square root of 0.9 * 12² + 0.09 * 24² + 0.01 * 36² - 13.32²
        "stddev_us": 4.120388,
        "verdict": {"p50": "inconclusive"},
    }
    assert "verdict" not in found["test_latency[connect-vanilla-trial2]"]["extra_info"]


def test_the_table_stands_above_ours_and_fits_80_columns(project: Project) -> None:
    result = project.run("benchmarks", "--agent=auditd", "--syslat-trials=1")
    lines = result.outlines
    [ours] = [index for index, line in enumerate(lines) if "syslat: latency of" in line]
    heads = [index for index, line in enumerate(lines) if " benchmark '" in line]
    assert [re.findall("'(.*)': (.*) tests", lines[each]) for each in heads] == [
        [("connect", "2")],
        [("execve", "2")],
        [("openat", "2")],
    ]
    assert heads[-1] < ours
    rows = [line for line in lines if line.startswith("test_latency[")]
    assert len(rows) == 6
    assert max(map(len, [*rows, *(lines[each] for each in heads)])) <= 80


def test_columns_that_the_user_chose(project: Project) -> None:
    result = project.run(*CONNECT, "--benchmark-columns=mean,rounds")
    [head] = {line for line in result.outlines if line.startswith("Name (time")}
    assert head.split() == ["Name", "(time", "in", "us)", "Mean", "Rounds"]


def test_facts_about_the_node(project: Project) -> None:
    project.run(*CONNECT)
    stored = json.loads((project.path / "b.json").read_text())
    assert stored["machine_info"]["syslat"] == {
        "testbed": "made-up",
        "node": "nowhere",
        "kernel": "0.0.0",
        "measured core": "2",
        "governor": "performance",
        "turbo off (intel_pstate)": "unknown",
        "boost (cpufreq)": "unknown",
        "bpftrace": "bpftrace v0.0.0",
        "lmbench": "0.0",
        "agent auditd": "auditd of the tests",
    }
    assert stored["machine_info"]["python_implementation"]
    assert "syslat" not in stored["commit_info"]


def test_a_refused_trial_has_no_row(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial2": [1, 2]})
    result = project.run(*CONNECT)
    result.assert_outcomes(passed=3, failed=2, deselected=8)
    refused = "test_latency[connect-auditd-trial2]"
    assert set(benchmarks(project)) == ITEMS - {refused}
    output = result.stdout.str()
    table = output[output.index(" benchmark 'connect': 3 tests ") :]
    assert refused not in table[: table.index("Legend")]
    assert "was not used at all" not in output + result.stderr.str()


@pytest.mark.parametrize(
    "options",
    [
        ["-p", "no:benchmark"],
        ["--benchmark-disable"],
        ["--benchmark-only"],
        [
            *("--benchmark-warmup=on", "--benchmark-min-rounds=3", "--benchmark-max-time=0.01"),
            *("--benchmark-min-time=0.1", "--benchmark-calibration-precision=100"),
            *("--benchmark-precision=0.01", "--benchmark-timer=time.process_time"),
            *("--benchmark-cprofile=tottime", "--benchmark-disable-gc", "--benchmark-sort=name"),
            *("--benchmark-columns=mean,max,ops,outliers", "--benchmark-time-unit=ns"),
            *("--benchmark-group-by=param:arm", "--benchmark-name=long"),
        ],
    ],
    ids=["off", "disable", "only", "the rest"],
)
def test_options_change_none_of_our_figures(project: Project, options: list[str]) -> None:
    arguments = [each for each in CONNECT if "json" not in each]
    project.run(*arguments, "--syslat-seed=1")
    plain = own_files(project)
    result = project.run(*arguments, "--syslat-seed=1", *options)
    result.assert_outcomes(passed=5, deselected=8)
    assert own_files(project) == plain != {}
    if "--benchmark-sort=name" in options:
        output = result.stdout.str()
        assert " benchmark 'arm=auditd': 2 tests " in output
        assert " benchmark 'arm=vanilla': 2 tests " in output
        assert "cProfile" not in output


def test_its_own_options_do_not_change_the_values(project: Project) -> None:
    project.run(*CONNECT)
    plain = benchmarks(project)
    project.run(*CONNECT, "--benchmark-warmup=on", "--benchmark-timer=time.process_time")
    other = benchmarks(project)
    assert {name: each["stats"] for name, each in plain.items()} == {
        name: each["stats"] for name, each in other.items()
    }


def test_only_benchmarks_are_our_items_and_gates(project: Project) -> None:
    project.write("test_ordinary.py", "def test_ordinary():\n    pass\n")
    project.table(ns={"auditd": [16_000] * 8})
    result = project.run(
        *(".", "--benchmark-only", "-k", "ordinary or connect", "--agent=auditd"),
        "--syslat-budget=connect:p50<=+50%",
    )
    # The gate fails: 60 % in each block.
    result.assert_outcomes(passed=16, failed=1, skipped=1, deselected=32)
    result.stdout.fnmatch_lines(["connect-auditd-p50 regressed *"])


@pytest.mark.parametrize("options", [["--benchmark-skip"], ["--benchmark-skip", "-q"]])
def test_skipping_benchmarks_measures_nothing(project: Project, options: list[str]) -> None:
    arguments = [each for each in CONNECT if "json" not in each]
    project.run(*arguments).assert_outcomes(passed=5, deselected=8)
    before = own_files(project)
    result = project.run(*arguments, *options)
    result.assert_outcomes(skipped=5, deselected=8)
    assert project.events == []
    assert own_files(project) == before
    assert not list(project.results.parent.glob("5.5-*")), "an earlier run was not moved"
    result.stdout.fnmatch_lines(
        ["syslat: every test that measures or judges is skipped: no figure, no verdict, no file"]
    )


def test_what_is_marked_to_be_skipped_is_not_measured(project: Project) -> None:
    project.write(
        "test_mine.py",
        """
import pytest

@pytest.mark.skip(reason="not today")
def test_skipped(measure, syslat_trial):
    measure(syslat_trial)
""",
    )
    result = project.run(".", "-k", "skipped or connect", "--syslat-trials=1")
    result.assert_outcomes(passed=1, skipped=3, deselected=2)
    assert project.measured == ["connect-vanilla-trial1"]


def test_a_test_of_the_users_own_has_a_row_too(project: Project) -> None:
    project.write(
        "test_mine.py",
        """
import pytest

@pytest.mark.benchmark(group="mine")
def test_twice(measure, syslat_trial):
    measure(syslat_trial)
    measure(syslat_trial)

def test_fails_before(measure, syslat_trial):
    assert syslat_trial is None

def test_times_something(measure, syslat_trial, benchmark):
    measure(syslat_trial)
    assert benchmark(sorted, [2, 1]) == [1, 2]
""",
    )
    result = project.run(
        *("test_mine.py", "-k", "connect", "--syslat-trials=1", "--benchmark-json=b.json"),
        *("-W", "error", "--benchmark-max-time=0.001"),
    )
    result.assert_outcomes(passed=2, failed=1, deselected=6)
    found = benchmarks(project)
    assert set(found) == {
        "test_twice[connect-vanilla-trial1]",
        "test_times_something[connect-vanilla-trial1]",
    }
    assert found["test_twice[connect-vanilla-trial1]"]["group"] == "mine"
    assert found["test_twice[connect-vanilla-trial1]"]["stats"]["median"] == 10e-6
    own = found["test_times_something[connect-vanilla-trial1]"]
    assert own["extra_info"] == {}
    assert own["stats"]["median"] != 10e-6


def test_compared_with_an_earlier_run(project: Project) -> None:
    arguments = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=1"]
    project.run(*arguments, "--benchmark-save=first")
    [saved] = (project.path / ".benchmarks").rglob("*_first.json")
    assert saved.stat().st_size < 20_000
    assert all("data" not in each["stats"] for each in benchmarks(project, str(saved)).values())
    project.table(ns={"auditd": 13_000}, facts={"kernel": "9.9.9"})
    result = project.run_apart(*arguments, "--benchmark-compare", "--benchmark-histogram=h")
    assert result.ret == 0
    rows = {
        line.split("  ")[0]: re.findall(r"[0-9]+\.[0-9]{4}", line)
        for line in result.outlines
        if line.startswith("test_latency")
    }
    assert rows == {
        "test_latency[connect-vanilla-trial1] (NOW)": ["10.0000"] * 2,
        "test_latency[connect-vanilla-trial1] (0001_first)": ["10.0000"] * 2,
        "test_latency[connect-auditd-trial1] (NOW)": ["13.0000"] * 2,
        "test_latency[connect-auditd-trial1] (0001_first)": ["11.0000"] * 2,
    }
    assert "machine_info is different" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(
        [
            (
                "*--benchmark-compare: the earlier run was made otherwise: "
                "kernel is 0.0.0 there, 9.9.9 here"
            )
        ]
    )


def test_its_own_gate_fails_the_run(project: Project) -> None:
    arguments = ["benchmarks", "-k", "connect", "--syslat-trials=1"]
    project.run(*arguments, "--benchmark-save=first")
    project.table(ns={"vanilla": 13_000})
    result = project.run_apart(
        *arguments, "--benchmark-compare", "--benchmark-compare-fail=median:5%"
    )
    assert result.ret != 0
    assert "Performance has regressed" in result.stdout.str() + result.stderr.str()
    # Our own table stands before it.
    result.stdout.fnmatch_lines(["connect  vanilla  13.000 *"])


def test_a_rerun_has_no_second_row(project: Project) -> None:
    pytest.importorskip("pytest_rerunfailures")
    project.write(
        "test_mine.py",
        """
runs = []

def test_second_time(measure, syslat_trial):
    measure(syslat_trial)
    runs.append(1)
    assert len(runs) == 2
""",
    )
    result = project.run(
        *("test_mine.py", "-k", "connect", "--syslat-trials=1", "--reruns=1"),
        "--benchmark-json=b.json",
    )
    assert result.ret == 0
    stored = json.loads((project.path / "b.json").read_text())
    assert [each["name"] for each in stored["benchmarks"]] == [
        "test_second_time[connect-vanilla-trial1]"
    ]


def test_the_file_stays_small(project: Project) -> None:
    project.table(calls={"connect": 1_000_000, "vanilla": 1_000_000})
    project.run("benchmarks", "-k", "connect", "--syslat-trials=1", "--benchmark-json=b.json")
    [entry] = benchmarks(project).values()
    assert entry["extra_info"]["calls"] == 1_000_000
    assert len(entry["stats"]["data"]) <= 10_000
    assert (project.path / "b.json").stat().st_size < 400_000


def test_it_is_refused_in_workers_as_before(project: Project) -> None:
    pytest.importorskip("xdist")
    assert usage_errors(project.run("benchmarks", "--agent=auditd", "--benchmark-only", "-n2"))
