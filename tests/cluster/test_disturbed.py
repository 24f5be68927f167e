"""What happens to a run when pods are deleted under it, or the API server goes away."""

from __future__ import annotations

import time

import pytest

from .support import SHORT, Cluster, Project, Relay

LONG_TRIALS = ("-k", "connect", "--syslat-lmbench-reps=20")


@pytest.mark.parametrize("name", ["workload", "bpftrace"])
def test_pod_that_somebody_deletes_is_made_anew(
    project: Project, cluster: Cluster, name: str
) -> None:
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS, "--syslat-trials=2")
    project.wait_for_step(process, "connect-vanilla-trial1: traced")
    before = cluster.pods()[name]["metadata"]["uid"]
    cluster.delete_pod(name)
    project.wait_for_step(process, "connect-vanilla-trial2: untraced")
    assert cluster.pods()[name]["metadata"]["uid"] != before
    assert process.wait(120) == 0, project.said()

    refused, *rest = project.trial_lines()
    assert " trial 1: REFUSED " in refused
    assert [line for line in rest if "REFUSED" in line] == []
    assert [" trial 1 again: p50 " in line for line in rest].count(True) == 1
    said = project.said()
    assert f"warning: made anew during the run: pod {name}\n" in said
    assert "repeated trials: vanilla 1\n" in said
    trials = project.run_json()["trials"]
    assert {(each["trial"], each["attempt"]) for each in trials if not each["refused"]} == {
        (1, 2),
        (2, 1),
    }
    project.expect_files_of("connect-1", "connect-2")


def test_server_that_is_away_for_a_while(project: Project, relay: Relay, cluster: Cluster) -> None:
    process = project.start("benchmarks", *SHORT, *LONG_TRIALS, "--syslat-trials=3")
    project.wait_for_step(process, "connect-vanilla-trial2: traced")
    relay.cut()
    time.sleep(20)
    assert process.poll() is None, project.said()
    relay.restore()
    assert process.wait(120) == 0, project.said()

    lines = project.trial_lines()
    assert len(lines) == 4
    refused = [line for line in lines if "REFUSED" in line]
    assert len(refused) == 1
    assert " trial 2: REFUSED " in refused[0]
    said = project.said()
    assert "left behind" not in said
    assert "made anew" not in said, "the pods were there all the time"
    assert cluster.namespace() is None
    project.expect_files_of("connect-1", "connect-2", "connect-3")


def test_server_that_stays_away(project: Project, relay: Relay, cluster: Cluster) -> None:
    project.limits = {
        "cluster_api.PATIENCE_S": 3.0,
        "cluster_api.REQUEST_LIMIT_S": 3.0,
        "pod_channel.RECONNECT_LIMIT_S": 3.0,
        "pod_channel.ANSWER_LIMIT_S": 3.0,
    }
    process = project.start("benchmarks", *SHORT, "-k", "connect", "--syslat-trials=2")
    project.wait_for_step(process, "connect-vanilla-trial2: untraced")
    relay.cut()
    assert process.wait(150) not in (0, None)
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
