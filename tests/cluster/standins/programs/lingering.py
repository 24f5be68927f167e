"""What stays of an agent that does not go away as a whole: a program in the kernel."""

from __future__ import annotations

from .api import ACCOUNT, Api

LASTS_S = 8
NAME = "standin-lingers"
IMAGE = "docker.io/pytest-syslat/observer:1"
COMMAND = (
    "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null;"
    f"exec timeout {LASTS_S} opensnoop >/dev/null"
)


def leave_behind() -> None:
    """Start a pod that nobody owns; it ends by itself, and can be deleted like any other."""
    namespace = (ACCOUNT / "namespace").read_text()
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"privileged": True},
        "command": ["sh", "-c", COMMAND],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"{NAME}-", "labels": {"app": NAME}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }
    Api().request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
