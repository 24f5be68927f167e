"""What the cluster's objects tell: which node is meant, why a pod does not start, who holds on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pytest_syslat.testbeds.protocol import TestbedError

LEASE_S = 120
"""A run that has not been heard of for so long is dead."""
BLOCKING_TAINTS = ("NoSchedule", "NoExecute")
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
CONTAINER_REASONS = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)

Object = dict[str, Any]


def choose_node(wanted: str | None, nodes: Sequence[Object]) -> Object:
    """The node to measure on: `--syslat-node`, else the only schedulable one.

    Raises:
        TestbedError: There is none, or more than one; the nodes are listed.
    """
    names = ", ".join(sorted(node["metadata"]["name"] for node in nodes)) or "none"
    if wanted is not None:
        for node in nodes:
            if node["metadata"]["name"] == wanted:
                if not is_ready(node):
                    raise TestbedError(f"--syslat-node: node {wanted} is not Ready")
                return node
        raise TestbedError(f"--syslat-node: no node {wanted!r}: allowed is {names}")
    candidates = [node for node in nodes if is_schedulable(node) and is_ready(node)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise TestbedError(
            f"--syslat-node: the cluster has several nodes: give the one to measure on: {names}"
        )
    raise TestbedError(
        f"--syslat-node: no node is Ready and schedulable; give one if it is only tainted: {names}"
    )


def is_ready(body: Object) -> bool:
    """Whether a node or a pod has the condition Ready."""
    conditions = body.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_schedulable(node: Object) -> bool:
    """Whether ordinary pods may be scheduled on a node."""
    spec = node.get("spec", {})
    taints = [taint["effect"] for taint in spec.get("taints") or []]
    return not spec.get("unschedulable") and not any(each in BLOCKING_TAINTS for each in taints)


OWN_IMAGE_MEND = (
    "build images/Dockerfile and push it where the node finds it, or add "
    "--syslat-image=debian:trixie-slim"
)


def pod_problem(pod: Object, image_mend: str = OWN_IMAGE_MEND) -> str | None:
    """Why a pod will not start without help, if that is known already; one sentence.

    Args:
        pod: As the server tells it.
        image_mend: What to do when its image cannot be had.
    """
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("phase") in ("Failed", "Succeeded"):
        return f"pod {name} has ended: {status.get('reason') or status['phase']}"
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in IMAGE_REASONS:
            return f"the image {container['image']} cannot be had ({reason}): {image_mend}"
        if reason in CONTAINER_REASONS:
            ended = container.get("lastState", {}).get("terminated") or {}
            said = str(ended.get("message") or waiting.get("message") or reason).strip()
            return f"pod {name} does not start: {said.splitlines()[-1]}"
    return None


def pending_reason(pod: Object) -> str:
    """What a pod is waiting for."""
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"it cannot be scheduled: {condition.get('message')}"
    for container in _containers(pod.get("status", {})):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting:
            return str(waiting.get("message") or waiting.get("reason"))
        if "running" in container.get("state", {}) and not container.get("ready", True):
            return f"its container {container['name']} runs and is not ready"
    return f"its phase is {pod.get('status', {}).get('phase', 'unknown')}"


def _containers(status: Object) -> list[Object]:
    found = (status.get(name) or [] for name in ("initContainerStatuses", "containerStatuses"))
    return [container for containers in found for container in containers]


def ipv4_address(pod: Object) -> str:
    """The IPv4 address of a pod, which lat_connect dials; raises TestbedError if it has none."""
    status = pod["status"]
    addresses = [each["ip"] for each in status.get("podIPs") or [{"ip": status.get("podIP", "")}]]
    for address in addresses:
        if "." in address:
            return str(address)
    raise TestbedError(
        f"pod {pod['metadata']['name']} has no IPv4 address, and lat_connect dials no other"
    )


def daemonset_is_ready(body: Object) -> bool:
    """Whether the controller has seen the last change, and every wanted pod is new and ready."""
    status = body.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    return bool(
        status.get("observedGeneration") == body["metadata"]["generation"]
        and wanted > 0
        and status.get("updatedNumberScheduled", 0) == wanted
        and status.get("numberReady", 0) == wanted
    )


def lease_time(moment: datetime) -> str:
    """A moment as a Lease has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def label_time(moment: datetime) -> str:
    """A moment as a label may have it."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def is_live(lease: Object, now: datetime) -> bool:
    """Whether the run that holds a lease has renewed it in time."""
    return silent_s(lease, now) < float(lease.get("spec", {}).get("leaseDurationSeconds", 0))


def silent_s(lease: Object, now: datetime) -> float:
    """Seconds since the holder of a lease was heard of; infinite if it never was."""
    spec = lease.get("spec", {})
    renewed = spec.get("renewTime") or spec.get("acquireTime")
    if renewed is None:
        return math.inf
    return (now - datetime.fromisoformat(renewed)).total_seconds()
