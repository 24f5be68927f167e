"""The main job on a node of a cluster, as a user starts it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .support import SHORT, Cluster, Project

SYSCALLS = ("execve", "openat", "connect")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Project:
    """One block, once for all tests that look at what it has left."""
    project = Project(tmp_path_factory.mktemp("main_job"), cluster.kubeconfig)
    try:
        code = project.run("benchmarks", *SHORT, "--syslat-trials=1")
    finally:
        project.close()
    assert code == 0, project.said()
    return project


def test_main_job_passes(finished: Project, cluster: Cluster) -> None:
    said = finished.said()
    assert "left behind" not in said
    assert len(finished.trial_lines()) >= 3
    nodes = [node["metadata"]["name"] for node in cluster.nodes()]
    assert any(f"syslat: kubernetes testbed on {node}, kernel " in said for node in nodes)


def test_files_are_those_of_a_run_on_a_host(finished: Project) -> None:
    root = finished.results
    expected = {"run.json", "report.html", "report.md"}  # and no overhead.csv: there is no agent
    names = (
        "summary.csv",
        "stats_iqr.csv",
        "stats_raw.csv",
        "validity.csv",
        "user.csv",
        "agent.csv",
    )
    expected |= {f"vanilla/vanilla_{name}" for name in (*names, "sysinfo.txt")}
    expected |= {f"vanilla/vanilla_{syscall}_trial1.log" for syscall in SYSCALLS}
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    # A trial that was refused at first and repeated leaves its first log, too.
    beside = ("_refused.log", ".stderr")
    assert {path for path in found if not path.endswith(beside)} == expected


def test_sysinfo_tells_of_the_cluster(finished: Project, cluster: Cluster) -> None:
    facts = finished.facts()
    [node] = [each for each in cluster.nodes() if each["metadata"]["name"] == facts["node"]]
    info = node["status"]["nodeInfo"]
    assert facts["testbed"] == "kubernetes"
    assert facts["context"] == cluster.context
    assert facts["kernel"] == info["kernelVersion"]
    assert facts["kubelet"] == info["kubeletVersion"]
    assert facts["container runtime"] == info["containerRuntimeVersion"]
    assert facts["distribution"] == info["osImage"]
    assert facts["namespace"] == "bench-syscall"
    assert facts["image"] == "docker.io/pytest-syslat/bench:1"
    assert facts["image has the tools"] == "yes"
    assert facts["workload's quality of service"] == "Guaranteed"
    assert facts["page cache"] == "kept"
    # On the image's overlay an open costs half as much again.
    assert facts["file system of the measured file"] not in ("overlayfs", "unknown")
    assert facts["tracer filters by"] in ("cgroup", "pid namespace")
    if cluster.is_this_machine:
        assert facts["tracer filters by"] == "cgroup"
        assert facts["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()


def test_trials_carry_node_and_testbed(finished: Project) -> None:
    record = finished.run_json()
    assert record["complete"] is True
    assert [trial["refused"] for trial in record["trials"]] == [False] * 3
    assert {(trial["testbed"], trial["node"]) for trial in record["trials"]} == {
        ("kubernetes", finished.facts()["node"])
    }
    for trial in record["trials"]:
        assert "page-cache-kept" in {each["code"] for each in trial["findings"]}


def test_figures_agree_with_the_log_of_the_tracer(finished: Project) -> None:
    """Computed anew from what bpftrace printed, apart from the package's own code."""
    for syscall in SYSCALLS:
        log = finished.results / "vanilla" / f"vanilla_{syscall}_trial1.log"
        first, last = first_and_last_counts(log)
        counts = {ns: last[ns] - first.get(ns, 0) for ns in sorted(last)}
        [row] = [
            row
            for row in finished.rows("vanilla/vanilla_summary.csv")
            if (row["syscall"], row["filter"]) == (syscall, "raw")
        ]
        total = sum(counts.values())
        assert int(row["count"]) == total >= 100
        mean_us = sum(ns * count for ns, count in counts.items()) / total / 1000
        assert float(row["avg_us"]) == pytest.approx(mean_us, abs=0.0006)


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


@pytest.mark.long
def test_every_call_of_the_long_log_arrives(project: Project) -> None:
    """One line a call: by its size the log passes the connection in several parts."""
    code = project.run(
        *("benchmarks", *SHORT, "--syslat-trials=1", "-k", "connect"),
        *("--syslat-tracer=events", "--syslat-lmbench-reps=10", "--syslat-min-calls=70000"),
    )
    assert code == 0, project.said()
    log = project.results / "vanilla" / "vanilla_connect_trial1.log"
    text = log.read_text()
    assert len(text) > 512 * 1024
    [trial] = project.run_json()["trials"]
    assert trial["refused"] is False
    assert trial["calls"] >= 70_000
    # Each call is a line; how many there were the kernel itself has counted, printed last of all.
    lines = re.findall(r"^[0-9]+ -?[0-9]+$", text, re.MULTILINE)
    totals = [int(number) for number in re.findall(r"^@total: ([0-9]+)$", text, re.MULTILINE)]
    assert len(lines) == totals[-1]
    assert trial["calls"] == totals[-1] - next(each for each in totals if each)
