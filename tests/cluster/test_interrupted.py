"""A run that is told to end, and one that is killed: what it leaves, and how that goes away."""

from __future__ import annotations

import re
import signal

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


def send_in_second_trial(project: Project, cluster: Cluster, number: int) -> int:
    """Send a signal while the second trial is traced; the exit code."""
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS)
    project.wait_for_step(process, "connect-vanilla-trial2: traced")
    if cluster.is_this_machine:
        assert traced_on_this_node()
    process.send_signal(number)
    return process.wait(60)


def workload_rules() -> list[str]:
    """The rules of the kernel's audit that concern the workload."""
    return [rule for rule in audit_rules() if "gid=31237" in rule]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_interrupted_run_keeps_its_files_and_cleans_up(
    project: Project, cluster: Cluster, number: signal.Signals
) -> None:
    assert send_in_second_trial(project, cluster, number) == 2, project.said()
    said = project.said()
    assert "left behind" not in said
    assert "Traceback" not in said
    assert cluster.namespace() is None
    if cluster.is_this_machine:
        assert not traced_on_this_node()
    assert project.run_json()["complete"] is False
    project.expect_files_of("connect-1")


def test_killed_run_ends_on_the_node_and_is_removed_on_demand(
    project: Project, cluster: Cluster
) -> None:
    assert send_in_second_trial(project, cluster, signal.SIGKILL) == -signal.SIGKILL
    project.expect_files_of("connect-1")
    # The pods stand, but nothing of ours goes on in them, though nobody was left to end it.
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}
    if cluster.is_this_machine:
        wait_until(lambda: not traced_on_this_node(), SETTLE_LIMIT_S, "bpftrace has ended")
        if find_tool("auditctl") is not None:
            # Nothing but the pod's own end takes this one away.
            assert len(workload_rules()) == 1

    # It might still be alive, for all that the next one knows.
    told = project.refusal("benchmarks", *SHORT, "-k", "connect")
    assert re.fullmatch(
        r"run [0-9a-f]{8} measures on this cluster: wait for its end, or, if it is dead, "
        "pytest benchmarks --syslat-clean",
        told,
    )
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}

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
