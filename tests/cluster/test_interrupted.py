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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_interrupted_run_keeps_its_files_and_cleans_up(
    project: Project, cluster: Cluster, number: signal.Signals
) -> None:
    process = in_second_trial(project, cluster)
    process.send_signal(number)
    assert process.wait(60) == 2, project.said()
    said = project.said()
    assert "left behind" not in said
    assert "Traceback" not in said
    assert cluster.namespace() is None
    if cluster.is_this_machine:
        assert not traced_on_this_node()
    assert project.run_json()["complete"] is False
    project.expect_files_of("connect-1")


@pytest.fixture
def killed(project: Project, cluster: Cluster) -> Project:
    """A project whose run was killed, with all that this has left on the cluster."""
    process = in_second_trial(project, cluster)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    project.expect_files_of("connect-1")
    # The pods stand, but nothing of ours goes on in them, though nobody was left to end it.
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}
    if cluster.is_this_machine:
        wait_until(lambda: not traced_on_this_node(), SETTLE_LIMIT_S, "bpftrace has ended")
        if find_tool("auditctl") is not None:
            # Nothing but the pod's own end takes this one away.
            assert len(workload_rules()) == 1
    return project


def test_what_a_killed_run_has_left_is_removed_on_demand(killed: Project, cluster: Cluster) -> None:
    said = killed.clean()
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

    said = killed.clean()
    assert "removed" not in said
    assert f"syslat: nothing is left of earlier runs on context {cluster.context}\n" in said


def test_what_a_killed_run_has_left_is_removed_by_the_next(
    killed: Project, cluster: Cluster
) -> None:
    """It is known to be dead, since it was a process of this machine."""
    assert killed.run("benchmarks", *SHORT, "-k", "connect", "--syslat-trials=1") == 0, (
        killed.said()
    )
    [told] = killed.lines("warning: removed what an earlier run had left: ")
    assert "Pod bench-syscall/workload" in told
    assert "DaemonSet bench-syscall/bpftrace" in told
    assert cluster.namespace() is None


def test_run_beside_a_run_is_refused(
    project: Project, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = Project(tmp_path_factory.mktemp("second"), cluster.kubeconfig)
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS)
    project.wait_for_step(process, "connect-vanilla-trial1: warm-up")
    pods = cluster.pods()
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
    assert cluster.uids() == {name: pod["metadata"]["uid"] for name, pod in pods.items()}
    assert process.wait(120) == 0, project.said()
    assert "REFUSED" not in project.said()
