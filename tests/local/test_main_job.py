"""The main job as a user starts it: pytest in a process of its own, with the installed plugin."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pytest_syslat.plan import build_plan
from pytest_syslat.settings import OPTIONS
from pytest_syslat.syscalls import SYSCALLS

from .support import (
    LAST_CORE,
    ROOT,
    SETTLE_LIMIT_S,
    HostState,
    audit_rules,
    changes_since,
    helper_path,
    host_to_ourselves,
    marked_processes,
    wait_until,
)

RUN_LIMIT_S = 450.0
END_LIMIT_S = 30.0
SHORT = (
    "--agent=auditd",
    "--syslat-lmbench-reps=2",
    "--syslat-openat-mult=1",
    "--syslat-warmup-sec=0",
    "--syslat-min-calls=100",
    "--syslat-pin-core=999",
)
ARMS = ("vanilla", "auditd")
SUMMARY = "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
STATS = (
    "label,syscall,trials,filter,avg_p50_us,std_p50_us,avg_p99_us,std_p99_us,"
    "avg_mean_us,std_mean_us,avg_count,std_count"
)
OVERHEAD = (
    "agent,syscall,figure,placement,blocks,vanilla_us,agent_us,delta_us,delta_pct,"
    "ci_low_us,ci_high_us,ci_low_pct,ci_high_pct,mde_us,budget,p_adjusted,verdict"
)
HEADERS = {
    "summary.csv": SUMMARY,
    "stats_iqr.csv": STATS,
    "stats_raw.csv": STATS,
    "validity.csv": "label,syscall,trial,severity,code,detail",
    "user.csv": "label,syscall,trial,traced,us_per_op",
    "agent.csv": (
        "label,syscall,trial,cpu_s,cpu_pct_of_core,peak_memory_mb,threads,threads_on_core,"
        "calls_per_s,dropped,bpf_runs,bpf_ns_per_run"
    ),
}
TRIAL_LINE = re.compile(
    r"^\[ *\d+/\d+\] (execve|openat|connect) +(vanilla|auditd) trial", re.MULTILINE
)


class Project:
    """A directory of a user's with the benchmarks in it, and pytest runs started there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.results = directory / "result" / "5.5"
        self.output = directory / "output.txt"
        self._started: list[subprocess.Popen[bytes]] = []
        shutil.copytree(
            ROOT / "benchmarks",
            directory / "benchmarks",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (directory / "pytest.ini").write_text(
            "[pytest]\nfilterwarnings = error\nsyslat_budget =\n    *:p50<=+100%\n"
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start pytest, again if somebody else measures on this host, until it is under way."""
        deadline = time.monotonic() + RUN_LIMIT_S
        while True:
            with host_to_ourselves():
                pass
            process = self._popen(*arguments)
            self._started.append(process)
            while not self._under_way(process) and time.monotonic() < deadline:
                time.sleep(0.02)
            refused = process.poll() is not None and "another run measures" in self.said()
            if not refused or time.monotonic() > deadline:
                return process

    def _under_way(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has printed the plugin's header, or has ended already."""
        return "\nsyslat: " in self.said() or process.poll() is not None

    def _popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        ours = {option.environment for option in OPTIONS} | {"PYTEST_ADDOPTS"}
        with self.output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider"]
                + list(arguments),
                cwd=self.directory,
                env={
                    **{name: value for name, value in os.environ.items() if name not in ours},
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> int:
        """Run pytest to its end."""
        return self.start(*arguments).wait(RUN_LIMIT_S)

    def said(self) -> str:
        """What the last run has printed so far."""
        return self.output.read_text()

    def trials_done(self) -> int:
        """How many trials the last run has reported so far."""
        return len(TRIAL_LINE.findall(self.said()))

    def run_json(self) -> dict[str, Any]:
        """The run's own record."""
        record: dict[str, Any] = json.loads((self.results / "run.json").read_text())
        return record

    def rows(self, file: str) -> list[dict[str, str]]:
        """A result file, line by line."""
        with (self.results / file).open(newline="") as lines:
            return list(csv.DictReader(lines))

    def close(self) -> None:
        """End what still runs, in order if it lets itself be ended so."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


@dataclass(frozen=True)
class Finished:
    """A complete run with one block."""

    project: Project
    exit_code: int
    said: str
    cases: dict[str, ET.Element]
    """The test cases of the JUnit file by name."""

    def properties(self, case: str) -> dict[str, str]:
        """What stands in the JUnit file about a test."""
        return {
            each.attrib["name"]: each.attrib["value"] for each in self.cases[case].iter("property")
        }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The main job, once for all tests that look at what it has left."""
    project = Project(tmp_path_factory.mktemp("main_job"))
    junit = project.directory / "junit.xml"
    try:
        code = project.run(*SHORT, "--syslat-trials=1", f"--junitxml={junit}")
    finally:
        project.close()
    cases = {}
    if junit.exists():
        parsed = ET.parse(junit)  # noqa: S314 - written by the run above
        cases = {each.attrib["name"]: each for each in parsed.iter("testcase")}
    return Finished(project, code, project.said(), cases)


def test_main_job_passes(finished: Finished) -> None:
    assert finished.exit_code == 0, finished.said
    assert "left behind" not in finished.said
    assert finished.project.trials_done() >= 6


def test_missing_core_is_replaced_by_the_last(finished: Finished) -> None:
    assert (
        "--syslat-pin-core: core 999 does not exist or may not be used here: "
        f"core {LAST_CORE} is used"
    ) in finished.said
    facts = (finished.project.results / "vanilla" / "vanilla_sysinfo.txt").read_text()
    assert f"\nmeasured core: {LAST_CORE}\n" in facts
    codes = [
        row["code"] for arm in ARMS for row in finished.project.rows(f"{arm}/{arm}_validity.csv")
    ]
    assert "not-pinned" not in codes


def test_main_job_leaves_every_file_with_its_header(finished: Finished) -> None:
    root = finished.project.results
    names = ("run.json", "overhead.csv", "report.html", "report.md")
    expected = {root / name for name in names}
    for arm in ARMS:
        expected |= {root / arm / f"{arm}_{name}" for name in (*HEADERS, "sysinfo.txt")}
        expected |= {root / arm / f"{arm}_{syscall}_trial1.log" for syscall in SYSCALLS}
    found = {path for path in root.rglob("*") if path.is_file()}
    # A trial that was refused at first and repeated leaves its first log, too.
    beside = ("_refused.log", ".stderr")
    assert {path for path in found if not path.name.endswith(beside)} == expected
    for arm in ARMS:
        for name, header in HEADERS.items():
            text = (root / arm / f"{arm}_{name}").read_bytes()
            assert text.split(b"\n")[0].decode() == header, name
            assert b"\r" not in text
    assert (root / "overhead.csv").read_text().split("\n")[0] == OVERHEAD


def test_summary_has_two_rows_a_trial(finished: Finished) -> None:
    for arm in ARMS:
        rows = finished.project.rows(f"{arm}/{arm}_summary.csv")
        assert sorted((row["syscall"], row["trial"], row["filter"]) for row in rows) == sorted(
            (syscall, "1", name) for syscall in SYSCALLS for name in ("raw", "iqr")
        )
        for row in rows:
            assert row["label"] == arm
            assert int(row["count"]) >= (100 if row["filter"] == "raw" else 1)
            figures = [float(row[name]) for name in ("min_us", "p50_us", "p99_us", "max_us")]
            assert figures == sorted(figures)
            assert figures[0] > 0
            assert all(re.fullmatch(r"\d+\.\d{3}", row[name]) for name in row if "_us" in name)


def test_figures_agree_with_the_log_of_the_tracer(finished: Finished) -> None:
    """Computed anew from what bpftrace printed, apart from the package's own code."""
    for arm in ARMS:
        for syscall in SYSCALLS:
            log = finished.project.results / arm / f"{arm}_{syscall}_trial1.log"
            first, last = first_and_last_counts(log)
            counts = {ns: last[ns] - first.get(ns, 0) for ns in sorted(last)}
            [row] = [
                row
                for row in finished.project.rows(f"{arm}/{arm}_summary.csv")
                if (row["syscall"], row["filter"]) == (syscall, "raw")
            ]
            total = sum(counts.values())
            assert int(row["count"]) == total
            mean_us = sum(ns * count for ns, count in counts.items()) / total / 1000
            assert float(row["avg_us"]) == pytest.approx(mean_us, abs=0.0006)
            below, median_ns = 0, 0
            for ns, count in counts.items():
                below += count
                if below >= total / 2:
                    median_ns = ns
                    break
            assert float(row["p50_us"]) == median_ns / 1000


def first_and_last_counts(log: Path) -> tuple[dict[int, int], dict[int, int]]:
    """The counts when the recording began, right after the warm-up run, and when it ended."""
    dumps: list[dict[int, int]] = []
    latest: dict[int, int] = {}
    for line in log.read_text().splitlines():
        data = json.loads(line)["data"] if line.startswith("{") else {}
        if isinstance(data, dict) and "@ns" in data:
            latest = {int(ns): count for ns, count in data["@ns"].items()}
        if isinstance(data, dict) and "@total" in data:
            dumps.append(latest)
    return next(dump for dump in dumps if dump), dumps[-1]


def test_junit_file_has_the_figures(finished: Finished) -> None:
    for arm in ARMS:
        for syscall in SYSCALLS:
            told = finished.properties(f"test_latency[{syscall}-{arm}-trial1]")
            [row] = [
                row
                for row in finished.project.rows(f"{arm}/{arm}_summary.csv")
                if (row["syscall"], row["filter"]) == (syscall, "raw")
            ]
            assert told["syscall"] == syscall
            assert told["label"] == arm
            assert told["trial"] == "1"
            assert told["calls"] == row["count"]
            assert told["p50_us"] == row["p50_us"]
            assert told["p99_us"] == row["p99_us"]
            assert told["mean_us"] == row["avg_us"]
            assert float(told["user_us"]) > 0
            assert {"node", "placement", "attempt", "p90_us"} <= set(told)
    for syscall in SYSCALLS:
        told = finished.properties(f"test_overhead[{syscall}-auditd-p50]")
        assert told["verdict"] == "inconclusive"
        assert told["blocks"] == "1"
        assert float(told["agent_us"]) - float(told["vanilla_us"]) == pytest.approx(
            float(told["delta_us"]), abs=0.0021
        )
    assert not [name for name, case in finished.cases.items() if case.find("failure") is not None]


def test_table_is_printed(finished: Finished) -> None:
    _, _, table = finished.said.partition("syslat: latency of syscalls")
    for syscall in SYSCALLS:
        for arm in ARMS:
            [row] = [
                row
                for row in finished.project.rows(f"{arm}/{arm}_summary.csv")
                if (row["syscall"], row["filter"]) == (syscall, "raw")
            ]
            found = re.search(rf"^{syscall} +{arm} +([\d.,]+) +([\d.,]+) ", table, re.MULTILINE)
            assert found, table
            shown_us = [float(number.replace(",", "")) for number in found.groups()]
            # Eighty columns have room for four digits.
            assert shown_us == pytest.approx([float(row["p50_us"]), float(row["p99_us"])], rel=1e-3)
    assert f"files: {finished.project.results}" in table


def test_record_of_a_complete_run(finished: Finished) -> None:
    record = finished.project.run_json()
    assert record["complete"] is True
    assert len(record["trials"]) == 6
    assert not any(trial["refused"] for trial in record["trials"])


def auditd_first() -> str:
    """A seed with which the first block begins with auditd: it is active after two trials."""
    for seed in range(100):
        plan = build_plan(trials=[], judged=[("openat", "auditd")], arms=ARMS, blocks=1, seed=seed)
        if plan.order[0].arm == "auditd":
            return f"--syslat-seed={seed}"
    raise AssertionError("no such seed")


def interrupt_in_third_trial(project: Project, number: int) -> int:
    """Send a signal while the third trial is traced, in auditd's arm; the exit code."""
    process = project.start(*SHORT, "--syslat-trials=2", auditd_first())
    wait_until(
        lambda: project.trials_done() >= 2 or process.poll() is not None, RUN_LIMIT_S, "two trials"
    )
    wait_until(
        lambda: (
            any("bpftrace -f" in each for each in marked_processes()) or process.poll() is not None
        ),
        RUN_LIMIT_S,
        "the third trial is traced",
    )
    assert process.poll() is None, project.said()
    assert any("syslat-bench" in rule for rule in audit_rules())
    process.send_signal(number)
    return process.wait(RUN_LIMIT_S)


def expect_files_of_finished_trials(project: Project) -> None:
    record = project.run_json()
    assert record["complete"] is False
    assert len(record["trials"]) >= 2
    measured = {
        (trial["label"], trial["syscall"], str(trial["trial"]))
        for trial in record["trials"]
        if not trial["refused"]
    }
    written = {
        (row["label"], row["syscall"], row["trial"])
        for label in {label for label, _, _ in measured}
        for row in project.rows(f"{label}/{label}_summary.csv")
    }
    assert written == measured
    for label, syscall, trial in measured:
        log = project.results / label / f"{label}_{syscall}_trial{trial}.log"
        assert log.stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_interrupted_run_keeps_its_files_and_cleans_up(
    host_before: HostState, project: Project, number: signal.Signals
) -> None:
    assert interrupt_in_third_trial(project, number) == 2
    assert "left behind" not in project.said()
    assert "Traceback" not in project.said()
    assert marked_processes() == []
    assert changes_since(host_before) == []
    expect_files_of_finished_trials(project)


@pytest.fixture
def no_helper() -> Iterator[None]:
    """As on a host on which nobody has put lmbench's helper program in place yet."""
    helper = helper_path()
    aside = helper.with_name("hello.aside")
    with host_to_ourselves():
        existed = helper.exists()
        if existed:
            helper.rename(aside)
    yield
    if existed:
        with host_to_ourselves():
            aside.rename(helper)


def test_killed_run_is_swept_by_the_next(
    no_helper: None, host_before: HostState, project: Project
) -> None:
    assert interrupt_in_third_trial(project, signal.SIGKILL) == -signal.SIGKILL
    # Nothing goes on running by itself, though nobody was left to end it.
    wait_until(lambda: not marked_processes(), SETTLE_LIMIT_S, "all has ended with the run")
    with host_to_ourselves():
        left = host_before.changes(HostState.read())
    assert any(each.startswith("run_directories") for each in left)
    assert any(each.startswith("audit_rules") for each in left)
    expect_files_of_finished_trials(project)

    again = project.run(*SHORT, "--syslat-trials=1", "-k", "openat")
    assert again == 0, project.said()
    assert changes_since(host_before) == []


@pytest.mark.long
def test_gate_that_fails(project: Project) -> None:
    """auditd costs openat far more than 1 %: seen with 8 blocks, which the budget asks for."""
    junit = project.directory / "junit.xml"
    (project.directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    code = project.run(
        *SHORT,
        "--syslat-lmbench-reps=1",
        "--syslat-budget=openat:p50<=+1%",
        f"--junitxml={junit}",
        "-k",
        "openat and p50",
    )
    assert code == 1, project.said()
    assert project.trials_done() >= 16, project.said()

    cases = list(ET.parse(junit).iter("testcase"))  # noqa: S314 - written by the run above
    [case] = cases
    assert case.attrib["name"] == "test_overhead[openat-auditd-p50]"
    failure = case.find("failure")
    assert failure is not None
    told = re.search(
        r"openat-auditd-p50 regressed \(budget .*\+1%.*, 8 blocks\): "
        r"([\d.]+) → ([\d.]+) µs, Δ \+([\d.]+) µs",
        failure.attrib["message"],
    )
    assert told is not None, failure.attrib["message"]
    vanilla_us, agent_us, delta_us = map(float, told.groups())
    assert agent_us - vanilla_us == pytest.approx(delta_us, abs=0.0021)

    [row] = [
        row
        for row in project.rows("overhead.csv")
        if (row["agent"], row["syscall"], row["figure"]) == ("auditd", "openat", "p50")
    ]
    assert row["verdict"] == "regressed"
    assert row["blocks"] == "8"
    assert float(row["ci_low_pct"]) > 1
    assert (float(row["vanilla_us"]), float(row["agent_us"])) == (vanilla_us, agent_us)
    assert project.run_json()["complete"] is False  # a part of what could be selected
