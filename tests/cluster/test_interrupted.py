"""A run that is told to end, and one that is killed: what it leaves, and how that goes away."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from pytest_syslat.tools import find_tool

from .support import (
    SETTLE_LIMIT_S,
    SHORT,
    Cluster,
    Project,
    audit_rules,
    traced_on_this_node,
    wait_until,
)

LONG_TRIALS = ("-k", "connect", "--syslat-trials=2", "--syslat-lmbench-reps=6")


def in_second_trial(project: Project, cluster: Cluster) -> subprocess.Popen[bytes]:
    """A run whose second trial is being traced."""
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS)
    project.wait_for_step(process, "connect-vanilla-trial2: traced")
    if cluster.is_this_machine:
        assert traced_on_this_node()
    return process


def workload_rules() -> list[str]:
    """The rules of the kernel's audit that concern the workload."""
    return [rule for rule in audit_rules() if "gid=31237" in rule]


def expect_orderly_end(
    project: Project, cluster: Cluster, process: subprocess.Popen[bytes], number: int
) -> None:
    """A signal in the second trial: the first one's files are kept, and all else is removed."""
    process.send_signal(number)
    assert project.end_of(process) == 2, project.said()
    said = project.said()
    assert "left behind" not in said
    assert "Traceback" not in said
    assert cluster.namespace() is None
    if cluster.is_this_machine:
        assert not traced_on_this_node()
    assert project.run_json()["complete"] is False
    project.expect_files_of("connect-1")


def test_run_that_is_interrupted(project: Project, cluster: Cluster) -> None:
    process = in_second_trial(project, cluster)
    expect_orderly_end(project, cluster, process, signal.SIGINT)


def test_run_beside_a_run_is_refused_and_the_first_one_can_be_terminated(
    project: Project, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = Project(tmp_path_factory.mktemp("second"), cluster.kubeconfig)
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS, "--syslat-lmbench-reps=15")
    project.wait_for_step(process, "connect-vanilla-trial1: warm-up")
    before = cluster.uids()
    told = second.refusal("benchmarks", *SHORT, "-k", "connect")
    who = rf"run [0-9a-f]{{8}} \(pid {process.pid} on \S+, heard of \d+ s ago\)"
    assert re.fullmatch(
        rf"{who} measures on this cluster: wait for its end, or, if it is dead, "
        "pytest benchmarks --syslat-clean",
        told,
    )
    told = second.refusal("benchmarks", "--syslat-clean")
    assert re.match(rf"--syslat-clean: {who} is at work: end it", told)
    # Nothing of the first one has been touched.
    assert cluster.uids() == before
    project.wait_for_step(process, "connect-vanilla-trial2: traced")
    assert "REFUSED" not in project.said()
    expect_orderly_end(project, cluster, process, signal.SIGTERM)


def kill(process: subprocess.Popen[bytes], cluster: Cluster) -> None:
    """Kill a run: its pods stand, but nothing of it goes on in them."""
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}
    if cluster.is_this_machine:
        wait_until(lambda: not traced_on_this_node(), SETTLE_LIMIT_S, "bpftrace has ended")
        if find_tool("auditctl") is not None:
            # Nothing but the pod's own end takes this one away.
            assert len(workload_rules()) == 1


def test_killed_runs_are_removed_by_the_next_and_on_demand(
    project: Project, cluster: Cluster
) -> None:
    kill(in_second_trial(project, cluster), cluster)
    project.expect_files_of("connect-1")
    first = set(cluster.uids().values())

    # The next one knows that it is dead, since it was a process of this machine.
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS)
    project.wait_for_step(process, "connect-vanilla-trial1: traced")
    assert not first & set(cluster.uids().values())
    kill(process, cluster)

    said = project.clean()
    for removed in (
        "Pod bench-syscall/workload",
        "Pod bench-syscall/tcp-server",
        "DaemonSet bench-syscall/bpftrace",
        "Namespace bench-syscall",
    ):
        assert f"syslat: removed {removed}\n" in said
    assert f"syslat: nothing is left of earlier runs on context {cluster.context}\n" in said
    assert cluster.namespace() is None
    if cluster.is_this_machine:
        assert workload_rules() == []

    said = project.clean()
    assert "removed" not in said
    assert f"syslat: nothing is left of earlier runs on context {cluster.context}\n" in said
