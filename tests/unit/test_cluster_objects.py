"""What nodes, pods, daemon sets and leases tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pytest_syslat.testbeds.cluster_objects import (
    choose_node,
    daemonset_is_ready,
    is_live,
    is_ready,
    is_schedulable,
    label_time,
    lease_time,
    pending_reason,
    pod_problem,
)
from pytest_syslat.testbeds.protocol import TestbedError

Object = dict[str, Any]
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


def node(name: str, *, ready: str = "True", **spec: object) -> Object:
    conditions = [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": ready},
    ]
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def tainted(name: str, effect: str = "NoSchedule") -> Object:
    return node(name, taints=[{**CONTROL_PLANE, "effect": effect}])


# --- Nodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        (node("a"), True),
        (node("a", ready="False"), False),
        # What a node says whose kubelet is not heard of any more.
        (node("a", ready="Unknown"), False),
        ({"metadata": {"name": "a"}, "status": {"conditions": None}}, False),
        ({"metadata": {"name": "a"}}, False),
    ],
)
def test_is_ready(body: Object, ready: bool) -> None:
    assert is_ready(body) is ready


@pytest.mark.parametrize(
    ("body", "schedulable"),
    [
        (node("a"), True),
        (node("a", taints=None), True),
        (node("a", unschedulable=True), False),
        (tainted("a"), False),
        (tainted("a", "NoExecute"), False),
        # Pods may still go there when there is no better place.
        (tainted("a", "PreferNoSchedule"), True),
    ],
)
def test_is_schedulable(body: Object, schedulable: bool) -> None:
    assert is_schedulable(body) is schedulable


@pytest.mark.parametrize(
    ("wanted", "nodes", "chosen"),
    [
        (None, [node("only")], "only"),
        (None, [tainted("control"), node("worker")], "worker"),
        (None, [node("cordoned", unschedulable=True), node("worker")], "worker"),
        (None, [node("dead", ready="Unknown"), node("worker")], "worker"),
        ("b", [node("a"), node("b")], "b"),
        # Somebody has asked for it, so a taint is no reason against it.
        ("control", [tainted("control"), node("worker")], "control"),
        ("cordoned", [node("cordoned", unschedulable=True)], "cordoned"),
    ],
)
def test_node_that_is_chosen(wanted: str | None, nodes: list[Object], chosen: str) -> None:
    assert choose_node(wanted, nodes)["metadata"]["name"] == chosen


@pytest.mark.parametrize(
    ("wanted", "nodes", "told"),
    [
        (
            None,
            [node("b"), node("a"), tainted("c")],
            "--syslat-node: the cluster has several nodes: give the one to measure on: a, b, c",
        ),
        (
            None,
            [tainted("b"), tainted("a")],
            "--syslat-node: no node is Ready and schedulable; give one if it is only tainted: a, b",
        ),
        (
            None,
            [],
            "--syslat-node: no node is Ready and schedulable; give one if it is only tainted: none",
        ),
        ("c", [node("b"), node("a")], "--syslat-node: no node 'c': allowed is a, b"),
        ("c", [], "--syslat-node: no node 'c': allowed is none"),
        ("a", [node("a", ready="False")], "--syslat-node: node a is not Ready"),
    ],
)
def test_node_that_cannot_be_chosen(wanted: str | None, nodes: list[Object], told: str) -> None:
    with pytest.raises(TestbedError) as caught:
        choose_node(wanted, nodes)
    assert str(caught.value) == told


# --- Pods ----------------------------------------------------------------------------------------


def pod(*containers: Object, phase: str = "Pending", **status: object) -> Object:
    return {
        "metadata": {"name": "workload"},
        "status": {"phase": phase, "containerStatuses": list(containers), **status},
    }


def waiting(reason: str, message: str = "", **more: object) -> Object:
    return {
        "image": "example.org/bench:1",
        "state": {"waiting": {"reason": reason, "message": message}},
        **more,
    }


RUNNING: Object = {"image": "example.org/bench:1", "state": {"running": {"startedAt": "now"}}}
ENDED: Object = {"terminated": {"exitCode": 1, "message": "first line\nerror: no root\n"}}


@pytest.mark.parametrize(
    "body",
    [
        pod(RUNNING, phase="Running"),
        pod(waiting("ContainerCreating")),
        pod(waiting("PodInitializing")),
        {"metadata": {"name": "new"}},
        {"metadata": {"name": "new"}, "status": {"phase": "Pending", "containerStatuses": None}},
    ],
)
def test_pod_without_a_problem(body: Object) -> None:
    assert pod_problem(body) is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (pod(phase="Failed", reason="Evicted"), "pod workload has ended: Evicted"),
        (pod(phase="Failed"), "pod workload has ended: Failed"),
        (pod(phase="Succeeded"), "pod workload has ended: Succeeded"),
        (
            pod(RUNNING, waiting("CrashLoopBackOff", "back-off 10s", lastState=ENDED)),
            "pod workload does not start: error: no root",
        ),
        # The container has not run, so it left no message.
        (
            pod(waiting("CreateContainerConfigError", 'configmap "programs" not found')),
            'pod workload does not start: configmap "programs" not found',
        ),
        (
            pod(waiting("RunContainerError", "", lastState={})),
            "pod workload does not start: RunContainerError",
        ),
        (
            pod(initContainerStatuses=[waiting("CreateContainerError", "a\nb")]),
            "pod workload does not start: b",
        ),
    ],
)
def test_problem_of_a_pod(body: Object, told: str) -> None:
    assert pod_problem(body) == told


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
)
def test_image_that_cannot_be_had(reason: str) -> None:
    told = pod_problem(pod(waiting(reason, "long\nstory")))
    assert told is not None
    assert told.startswith(f"the image example.org/bench:1 cannot be had ({reason}): ")
    assert "images/Dockerfile" in told
    assert "--syslat-image=debian:trixie-slim" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            pod(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/1 nodes are available: 1 Insufficient cpu.",
                    }
                ]
            ),
            "it cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            pod(
                waiting("ContainerCreating"),
                conditions=[{"type": "PodScheduled", "status": "True"}],
            ),
            "ContainerCreating",
        ),
        (pod(waiting("ErrImagePull", "not found")), "not found"),
        (pod(RUNNING, phase="Running"), "its phase is Running"),
        ({"metadata": {"name": "new"}}, "its phase is unknown"),
    ],
)
def test_what_a_pod_is_waiting_for(body: Object, told: str) -> None:
    assert pending_reason(body) == told


# --- DaemonSets ----------------------------------------------------------------------------------

COMPLETE = {
    "observedGeneration": 2,
    "desiredNumberScheduled": 1,
    "updatedNumberScheduled": 1,
    "numberReady": 1,
}


@pytest.mark.parametrize(
    ("changed", "ready"),
    [
        ({}, True),
        # The controller has not seen the change: its numbers are those of the old one.
        ({"observedGeneration": 1}, False),
        ({"desiredNumberScheduled": 0, "updatedNumberScheduled": 0, "numberReady": 0}, False),
        ({"updatedNumberScheduled": 0}, False),
        ({"numberReady": 0}, False),
        ({"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 3}, True),
        ({"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 2}, False),
    ],
)
def test_daemonset_is_ready(changed: Object, ready: bool) -> None:
    body = {"metadata": {"generation": 2}, "status": {**COMPLETE, **changed}}
    assert daemonset_is_ready(body) is ready


@pytest.mark.parametrize("missing", sorted(COMPLETE))
def test_daemonset_that_does_not_tell_yet(missing: str) -> None:
    status = {name: number for name, number in COMPLETE.items() if name != missing}
    assert not daemonset_is_ready({"metadata": {"generation": 2}, "status": status})
    assert not daemonset_is_ready({"metadata": {"generation": 2}})


# --- Leases and times ----------------------------------------------------------------------------

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def lease(**spec: object) -> Object:
    return {"spec": {"leaseDurationSeconds": 600, **spec}}


@pytest.mark.parametrize(
    ("body", "live"),
    [
        (lease(renewTime="2026-11-22T12:00:00.000000Z"), True),
        (lease(renewTime="2026-11-22T11:50:00.000001Z"), True),
        (lease(renewTime="2026-11-22T11:50:00.000000Z"), False),
        (lease(renewTime="2026-11-21T12:00:00.000000Z"), False),
        # A clock of somebody else's may be ahead.
        (lease(renewTime="2026-11-22T12:05:00.000000Z"), True),
        (lease(renewTime=None, acquireTime="2026-11-22T11:59:00.000000Z"), True),
        (lease(acquireTime="2026-11-22T11:00:00.000000Z"), False),
        # The later of the two counts, which is the renewal.
        (
            lease(
                acquireTime="2026-11-22T10:00:00.000000Z", renewTime="2026-11-22T11:59:00.000000Z"
            ),
            True,
        ),
        (lease(), False),
        ({}, False),
    ],
)
def test_lease_is_live(body: Object, live: bool) -> None:
    assert is_live(body, NOON) is live


def test_times_are_utc_in_the_form_that_the_server_takes() -> None:
    moment = datetime(2026, 11, 22, 14, 5, 6, 789, tzinfo=timezone(timedelta(hours=2)))
    assert lease_time(moment) == "2026-11-22T12:05:06.000789Z"
    assert label_time(moment) == "20261122T120506Z"


def test_own_lease_is_live() -> None:
    assert is_live(lease(renewTime=lease_time(NOON)), NOON)
