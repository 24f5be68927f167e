"""What happens to a run when pods are deleted under it, or the API server goes away."""

from __future__ import annotations

import re
import time

import pytest

from .support import SHORT, Cluster, Project, Relay

LONG_TRIALS = ("-k", "connect", "--syslat-lmbench-reps=20")


def test_pods_that_somebody_deletes_are_made_anew(project: Project, cluster: Cluster) -> None:
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS, "--syslat-trials=2")
    for trial, name in enumerate(("workload", "bpftrace"), start=1):
        project.wait_for_step(process, f"connect-vanilla-trial{trial}: traced")
        before = cluster.pods()[name]["metadata"]["uid"]
        cluster.delete_pod(name)
        project.wait_for_step(process, f"connect-vanilla-trial{trial}: traced", times=2)
        assert cluster.pods()[name]["metadata"]["uid"] != before
    assert project.end_of(process) == 0, project.said()

    told = [re.sub(r"(REFUSED|p50) .*", r"\1", line) for line in project.trial_lines()]
    assert told == [
        "[1/2] connect vanilla trial 1: REFUSED",
        "[1/2] connect vanilla trial 1 again: p50",
        "[2/2] connect vanilla trial 2: REFUSED",
        "[2/2] connect vanilla trial 2 again: p50",
    ]
    said = project.said()
    assert "warning: made anew during the run: pod workload\n" in said
    assert "warning: made anew during the run: pod bpftrace\n" in said
    assert "repeated trials: vanilla 2\n" in said
    assert "left behind" not in said
    trials = project.run_json()["trials"]
    assert {(each["trial"], each["attempt"]) for each in trials if not each["refused"]} == {
        (1, 2),
        (2, 2),
    }
    project.expect_files_of("connect-1", "connect-2")


@pytest.mark.long
def test_server_that_is_away_for_a_while(project: Project, relay: Relay, cluster: Cluster) -> None:
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS, "--syslat-trials=2")
    project.wait_for_step(process, "connect-vanilla-trial1: traced")
    relay.cut()
    time.sleep(20)
    assert process.poll() is None, project.said()
    relay.restore()
    assert project.end_of(process) == 0, project.said()

    lines = project.trial_lines()
    assert len(lines) == 3
    assert [" trial 1: REFUSED testbed-failed: " in line for line in lines] == [True, False, False]
    said = project.said()
    assert "left behind" not in said
    assert "made anew" not in said, "the pods were there all the time"
    assert cluster.namespace() is None
    project.expect_files_of("connect-1", "connect-2")


@pytest.mark.long
def test_server_that_stays_away(project: Project, relay: Relay, cluster: Cluster) -> None:
    project.limits = {
        "testbeds.cluster_api.PATIENCE_S": 3.0,
        "testbeds.cluster_api.REQUEST_LIMIT_S": 3.0,
        "testbeds.pod_channel.RECONNECT_LIMIT_S": 3.0,
        "testbeds.pod_channel.ANSWER_LIMIT_S": 3.0,
    }
    process = project.start("benchmarks", *SHORT, "-k", "connect", "--syslat-trials=2")
    project.wait_for_step(process, "connect-vanilla-trial2: untraced")
    relay.cut()
    assert project.end_of(process) not in (0, None)
    said = project.said()
    assert "Traceback" not in said
    [told] = [line for line in project.lines("left behind: ") if "namespace" in line]
    assert f"in the namespace bench-syscall of context {cluster.context}: " in told
    command = f"pytest benchmarks --syslat-clean --syslat-kube-context={cluster.context}"
    assert told.endswith(f"remove it: {command}")
    project.expect_files_of("connect-1")
    assert cluster.namespace() is not None

    relay.restore()
    assert project.run(*command.split()[1:]) == 0, project.said()
    assert "syslat: removed Namespace bench-syscall\n" in project.said()
    assert cluster.namespace() is None
