"""Files of a run: which there are, when they are written, and what is never overwritten."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .support import CLOSED, Project, collected, key_of, trial_ids

CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1"]
FULL = ["benchmarks", "--agent=auditd", "--syslat-trials=1", "--syslat-seed=1"]
OF_AN_ARM = (
    "stats_iqr.csv",
    "stats_raw.csv",
    "summary.csv",
    "agent.csv",
    "sysinfo.txt",
    "user.csv",
    "validity.csv",
)


def content(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_files_of_a_run(project: Project) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    expected = {"run.json", "overhead.csv"}
    for arm in ("vanilla", "auditd"):
        expected |= {f"{arm}/{arm}_{name}" for name in OF_AN_ARM}
        expected |= {
            f"{arm}/{arm}_{syscall}_trial1.{kind}"
            for syscall in ("execve", "openat", "connect")
            for kind in ("log", "stderr")
        }
    assert set(content(project.results)) == expected

    columns = {name: list(project.rows(f"auditd/auditd_{name}")[0]) for name in OF_AN_ARM[:3]}
    assert ",".join(columns["summary.csv"]) == (
        "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
    )
    assert (
        ",".join(columns["stats_raw.csv"])
        == ",".join(columns["stats_iqr.csv"])
        == (
            "label,syscall,trials,filter,avg_p50_us,std_p50_us,avg_p99_us,std_p99_us,"
            "avg_mean_us,std_mean_us,avg_count,std_count"
        )
    )
    raw = next(
        row for row in project.rows("auditd/auditd_summary.csv") if row["syscall"] == "connect"
    )
    # 900 calls of 11 µs, 90 of 22, 10 of 33: mean 9.9 + 1.98 + 0.33 = 12.21, mean square
    # 108.9 + 43.56 + 10.89 = 163.35, variance 163.35 - 149.0841 = 14.2659.
    assert raw == {
        "label": "auditd",
        "syscall": "connect",
        "trial": "1",
        "filter": "raw",
        "avg_us": "12.210",
        "p50_us": "11.000",
        "p99_us": "22.000",
        "min_us": "11.000",
        "max_us": "33.000",
        "count": "1000",
        "stddev_us": "3.777",
    }
    user = project.rows("vanilla/vanilla_user.csv")
    # 3 untraced runs of 20 µs and 2 traced ones of 21, of each syscall.
    assert len(user) == 15
    assert [(row["traced"], row["us_per_op"]) for row in user if row["syscall"] == "openat"] == [
        *[("no", "20.000")] * 3,
        *[("yes", "21.000")] * 2,
    ]
    sysinfo = (project.results / "vanilla/vanilla_sysinfo.txt").read_text()
    assert "setting seed: 1\n" in sysinfo
    assert "agent auditd: auditd of the tests\n" in sysinfo


def test_run_json_has_what_a_second_analysis_needs(project: Project) -> None:
    project.run(*FULL, "--syslat-budget=connect:p50<=+20%").assert_outcomes(passed=7)
    stored = project.run_json()
    assert (stored["schema"], stored["complete"], stored["plan_is_complete"]) == (1, True, True)
    assert stored["plan"] == project.measured
    assert stored["settings"]["seed"] == 1
    assert stored["system"]["node"] == "nowhere"
    assert stored["repeats"] == {}
    trial = next(
        each
        for each in stored["trials"]
        if (each["label"], each["syscall"]) == ("auditd", "connect")
    )
    figures = trial["figures_us"]
    assert figures == pytest.approx(
        {"p50": 11.0, "p90": 11.0, "p99": 22.0, "mean": 12.21, "user": 22.0}
    )
    assert (trial["calls"], trial["placement"], trial["refused"]) == (1000, "last", False)
    cells = {
        tuple(each["cell"].values()): each["verdict"]
        for each in stored["cells"]
        if each["budget"] is not None
    }
    assert cells == {("connect", "auditd", "p50"): "inconclusive"}
    # One block has no spread: JSON knows no nan.
    assert {each["ci_low_us"] for each in stored["cells"]} == {None}


def test_what_an_agent_costs_is_in_the_files(project: Project) -> None:
    cost = {"cpu_s": 0.25, "duration_s": 2.0, "threads": 3, "threads_on_core": ["x"], "dropped": 4}
    project.table(
        cost={"connect-auditd": cost, "vanilla": {"calls_per_s": 50.5}},
        refuse={"execve-auditd-trial1": [1, 2]},
    )
    project.run(*FULL)
    rows = {row["syscall"]: row for row in project.rows("auditd/auditd_agent.csv")}
    # A trial that is refused has no row; of another one nothing is known.
    assert sorted(rows) == ["connect", "openat"]
    assert rows["connect"] == {
        "label": "auditd",
        "syscall": "connect",
        "trial": "1",
        "cpu_s": "0.250",
        "cpu_pct_of_core": "12.500",
        "peak_memory_mb": "",
        "threads": "3",
        "threads_on_core": "x",
        "calls_per_s": "",
        "dropped": "4",
        "bpf_runs": "",
        "bpf_ns_per_run": "",
    }
    assert set(list(rows["openat"].values())[3:]) == {""}
    [row] = [
        row for row in project.rows("vanilla/vanilla_agent.csv") if row["syscall"] == "connect"
    ]
    assert (row["calls_per_s"], row["cpu_s"]) == ("50.500", "")
    stored = {
        (each["label"], each["syscall"]): each["cost"] for each in project.run_json()["trials"]
    }
    assert stored["auditd", "connect"]["cpu_s"] == 0.25
    assert stored["auditd", "connect"]["threads_on_core"] == ["x"]
    assert stored["auditd", "openat"] is None


def test_a_partial_run_leaves_a_complete_one_alone(project: Project) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    before = content(project.results)
    result = project.run(*FULL, "-k", "connect")
    result.assert_outcomes(passed=2, deselected=4)
    assert content(project.results) == before
    partial = project.results.with_name("5.5-partial")
    stored = project.run_json("result/5.5-partial")
    assert (stored["complete"], stored["plan_is_complete"]) == (False, False)
    result.stdout.fnmatch_lines(
        [
            (
                f"{project.results} holds a complete run and is left as it is; "
                f"this partial run went to {partial}"
            ),
            f"files: {partial}",
        ]
    )
    # The next partial run takes the place of this one.
    project.run(*FULL, "-k", "openat").assert_outcomes(passed=2, deselected=4)
    assert content(project.results) == before
    assert set(project.run_json("result/5.5-partial")["plan"]) == trial_ids(
        trials=1, arms=("vanilla", "auditd"), syscalls=["openat"]
    )


def test_rerunning_what_failed_leaves_a_complete_run_alone(project: Project) -> None:
    project.table(refuse={"connect-auditd-trial1": [1, 2]})
    project.run(*FULL).assert_outcomes(passed=5, failed=1)
    before = content(project.results)
    project.table()
    by_path = ["benchmarks/test_syscall_latency.py", *FULL[1:], "--lf"]
    project.run(*by_path).assert_outcomes(passed=1, deselected=5)
    assert content(project.results) == before


def test_a_complete_run_keeps_the_one_before_it(project: Project) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    before = content(project.results)
    project.run(*FULL).assert_outcomes(passed=6)
    assert content(project.results.with_name("5.5.previous")) == before
    assert project.run_json()["complete"] is True


def test_a_start_that_fails_moves_nothing(project: Project) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    before = content(project.path / "result")
    directory = project.write("empty/readme", "no lmbench here").parent
    result = project.run(*FULL, f"--syslat-lmbench-dir={directory}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert content(project.path / "result") == before


@pytest.mark.parametrize("option", ["--setup-plan", "--collect-only"])
def test_looking_at_the_plan_touches_nothing(project: Project, option: str) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    before = content(project.path / "result")
    result = project.run(*FULL, option)
    assert result.ret == pytest.ExitCode.OK
    assert project.events == []
    assert content(project.path / "result") == before


def check_interrupted(project: Project, result: pytest.RunResult) -> None:
    """The fourth measurement was interrupted: three are kept, and nothing is left behind."""
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert len(project.measured) == 4
    finished = [key_of(each) for each in project.measured[:3]]
    stored = project.run_json()
    assert stored["complete"] is False
    assert len(stored["trials"]) == 3
    for arm in ("vanilla", "auditd"):
        rows = project.rows(f"{arm}/{arm}_summary.csv")
        assert sorted({row["trial"] for row in rows}) == sorted(
            str(key.trial) for key in finished if key.arm == arm
        )
    for key in finished:
        assert (project.results / key.arm / f"{key.arm}_connect_trial{key.trial}.log").is_file()
    assert project.events[-5:] == ["auditd remove", *CLOSED]
    result.stdout.fnmatch_lines([f"files: {project.results}"])


def test_ctrl_c_keeps_what_is_finished(project: Project) -> None:
    project.table(interrupt=4)
    result = project.run(*CONNECT, "--syslat-trials=3", no_reraise_ctrlc=True)
    check_interrupted(project, result)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_job_are_like_ctrl_c(project: Project, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    project.table(signal=[4, number])
    check_interrupted(project, project.run_apart(*CONNECT, "--syslat-trials=3"))
    # The handler is ours only while we measure.
    project.table()
    project.run("benchmarks", "-k", "connect", "--syslat-trials=1")
    assert signal.getsignal(number) == before


def test_an_interrupted_run_does_not_cost_the_complete_one(project: Project) -> None:
    project.run(*FULL).assert_outcomes(passed=6)
    before = content(project.results)
    project.table(interrupt=2)
    project.run(*FULL, no_reraise_ctrlc=True)
    assert project.run_json()["complete"] is False
    assert content(project.results.with_name("5.5.previous")) == before
    project.table()
    project.run(*FULL).assert_outcomes(passed=6)
    assert content(project.results.with_name("5.5.previous")) == before
    assert project.run_json("result/5.5.interrupted")["complete"] is False


def test_the_result_directory_is_taken_below_rootdir(project: Project) -> None:
    project.run("benchmarks", "-k", "connect", "--syslat-trials=1", "--syslat-result-dir=out/a")
    assert (project.path / "out/a/vanilla/vanilla_summary.csv").is_file()
    assert not (project.path / "result").exists()
    assert collected(project.run("benchmarks", "--collect-only", "-q", "--syslat-trials=1"))
