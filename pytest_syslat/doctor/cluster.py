"""Checks of a Kubernetes context, as far as its API tells. Nothing is made in the cluster.

What only the node itself knows (its bpftrace is in the image; its governor, other tracers, kernel
audit) is checked by each run once its pods are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pytest_syslat.doctor.check import Check, Question, ok, problem, warning
from pytest_syslat.doctor.host import KNOWN_AGENTS
from pytest_syslat.resources import resource
from pytest_syslat.settings import Settings
from pytest_syslat.testbeds.cluster_api import ClusterApi, Unreachable
from pytest_syslat.testbeds.cluster_claim import (
    LEASE,
    is_at_work,
    is_prepared,
    refuse_holder,
    refuse_namespace,
)
from pytest_syslat.testbeds.cluster_objects import (
    OWN_IMAGE_MEND,
    choose_node,
    is_ready,
    is_schedulable,
)
from pytest_syslat.testbeds.manifest_objects import (
    NAMESPACE,
    WORKLOAD,
    RunTags,
    namespace_object,
    pod_object,
)
from pytest_syslat.testbeds.outside import Outside
from pytest_syslat.testbeds.protocol import TestbedError

ROLES = "manifests/rbac/roles.yaml"
"""What a run may do, as an administrator grants it: the one list of it."""
OLDEST_SERVER = (1, 16)
"""The first that offers server-side apply unasked."""
OLDEST_TRIED = (1, 20)
MACHINES = ("amd64", "arm64")
MOST_IMAGES = 50
"""So many images a kubelet lists by default (--node-status-max-images)."""
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
CLOCK_SKEW_S = 30.0
ENFORCE = "pod-security.kubernetes.io/enforce"
PRIVILEGED = "privileged"

Object = dict[str, Any]
Right = tuple[str, str, str, str | None, str | None]
"""Verb, group, resource, namespace (None: of the cluster) and name (None: any)."""


class ClusterDoctor:
    """Asks one context; what an earlier answer rests on is kept for later ones."""

    def __init__(self, api: ClusterApi, settings: Settings, rootdir: Path) -> None:
        self._api = api
        self._settings = settings
        self._rootdir = rootdir
        self._node: Object | None = None

    def reachable(self) -> list[Check]:
        """Whether the API answers, and in which version; first, since all else needs it."""
        where = f"context {self._api.context}, {self._api.server}"
        try:
            version = self._api.version()
        except Unreachable as error:
            mend = "start it, choose another --syslat-kube-context, or --syslat-testbed=local"
            return [problem("API", f"{where}: {error}", mend)]
        except TestbedError as error:
            return [problem("API", f"{where}: {error}", "log in again, as kubectl needs it, too")]
        numbers = tuple(int(each) for each in version.lstrip("v").split(".")[:2] if each.isdigit())
        if numbers < OLDEST_SERVER:
            return [problem("API", f"{where}: {version}", "upgrade to Kubernetes 1.20 or newer")]
        checks = [
            ok("API", f"{where}: {version}")
            if numbers >= OLDEST_TRIED
            else warning("API", f"{where}: {version} was not tried", "upgrade to 1.20 or newer")
        ]
        ahead_s = self._api.ahead_s
        if abs(ahead_s) > CLOCK_SKEW_S:
            checks.append(
                warning(
                    "clock",
                    f"the server's clock is {ahead_s:+.0f} s from this machine's",
                    "synchronise both: times in files are of this machine",
                )
            )
        return checks

    def questions(self) -> list[tuple[str, Question]]:
        """All further checks, by name; some are of the node that the first one chooses."""
        return [
            ("node", self._choose_node),
            ("node's kernel", lambda: self._kernel() if self._node else ()),
            ("node's cores", lambda: self._cores() if self._node else ()),
            ("rights", self._rights),
            ("namespace", self._namespace),
            ("image", lambda: self._image() if self._node else ()),
            ("agents", lambda: self._agents() if self._node else ()),
        ]

    def _choose_node(self) -> Iterator[Check]:
        try:
            self._node = choose_node(self._settings.node, self._api.list("Node"))
        except TestbedError as error:
            told = str(error).removeprefix("--syslat-node: ")
            yield problem("node", told, "give --syslat-node=NAME; kubectl get nodes")
            return
        name = self._node["metadata"]["name"]
        pressing = [
            each["type"]
            for each in self._node.get("status", {}).get("conditions") or []
            if each["type"] in PRESSURES and each["status"] == "True"
        ]
        if pressing:
            yield problem("node", f"{name} has {', '.join(pressing)}", "free what it lacks")
        elif not is_schedulable(self._node):
            # It was named: then the pods tolerate every taint.
            yield warning(
                "node",
                f"{name} is Ready, and tainted or cordoned; it was asked for, so pods go there",
                "look whether others agree: kubectl describe node",
            )
        else:
            yield ok("node", f"{name} is {'Ready' if is_ready(self._node) else 'not Ready'}")

    def _kernel(self) -> Iterator[Check]:
        info = self._chosen()["status"].get("nodeInfo") or {}
        told = ", ".join(
            str(info.get(name, "?"))
            for name in ("kernelVersion", "osImage", "containerRuntimeVersion")
        )
        if info.get("architecture") not in MACHINES:
            yield problem(
                "node's kernel", f"{told}, {info.get('architecture')}", "measure on amd64 or arm64"
            )
        else:
            yield ok("node's kernel", f"{told}, {info['architecture']}")

    def _cores(self) -> Iterator[Check]:
        count = int(self._chosen()["status"].get("capacity", {}).get("cpu", "0"))
        if count == 1:
            yield warning(
                "node's cores",
                "1: tracer and server run on the measured core as well",
                "measure on a node with more cores",
            )
        elif count <= self._settings.pin_core:
            yield warning(
                "node's cores",
                f"{count}: there is no core {self._settings.pin_core}, the last one is measured",
                f"--syslat-pin-core={count - 1} says so",
            )
        else:
            yield ok("node's cores", f"{count}, core {self._settings.pin_core} is measured")

    def _rights(self) -> Iterator[Check]:
        namespace = self._api.find("Namespace", NAMESPACE)
        denied = []
        asked = 0
        for right in self._needed(namespace):
            asked += 1
            if not self._api.may(*right):
                verb, _, kind, where, name = right
                denied.append(f"{verb} {kind} {name or ''}".strip())
                if name is None and where is None:
                    denied[-1] += " of the cluster"
        if denied:
            more = f" and {len(denied) - 4} more" if len(denied) > 4 else ""
            yield problem(
                "rights",
                f"not allowed: {', '.join(denied[:4])}{more}",
                "kubectl apply -k manifests/rbac as administrator, and bind its roles",
            )
        else:
            yield ok("rights", f"all {asked} that a run uses")

    def _needed(self, namespace: Object | None) -> Iterator[Right]:
        """All that a run does."""
        text = resource(ROLES, self._rootdir).read_text()
        for role in filter(None, yaml.safe_load_all(text)):
            where = NAMESPACE if role["kind"] == "Role" else None
            for rule in role["rules"]:
                for name in rule["resources"]:
                    for verb in rule["verbs"]:
                        for one in rule.get("resourceNames", [None]):
                            yield verb, rule["apiGroups"][0], name, where, one
        if namespace is None or not is_prepared(namespace):
            # Without a prepared one a run makes the namespace, and removes it.
            for verb in ("create", "patch", "delete"):
                yield verb, "", "namespaces", None, None

    def _namespace(self) -> Iterator[Check]:
        namespace = self._api.find("Namespace", NAMESPACE)
        if namespace is None:
            level = (_labels(namespace_object(self._rootdir, RunTags("", "")))).get(ENFORCE)
            yield ok("namespace", f"{NAMESPACE} is not there; a run makes it, {ENFORCE}={level}")
            return
        if namespace["metadata"].get("deletionTimestamp"):
            yield warning(
                "namespace", f"{NAMESPACE} is being deleted", "wait; a run waits for it, too"
            )
            return
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        try:
            refuse_namespace(namespace)
            if lease is not None:
                refuse_holder(lease, self._api)
        except TestbedError as error:
            told, _, mend = str(error).rpartition("; " if "; " in str(error) else ": ")
            yield problem("namespace", told, mend)
            return
        prepared = is_prepared(namespace)
        level = _labels(namespace).get(ENFORCE)
        if prepared and level not in (None, PRIVILEGED):
            yield problem(
                "namespace",
                f"{NAMESPACE} has {ENFORCE}={level}: the tracer's pod is privileged",
                f"kubectl label --overwrite namespace {NAMESPACE} {ENFORCE}={PRIVILEGED}",
            )
        elif not prepared or (lease is not None and not is_at_work(lease, self._api)):
            steps = len(Outside(self._api).steps())
            more = f", with {steps} steps of agents to undo" if steps else ""
            yield warning(
                "namespace",
                f"{NAMESPACE} is left of a run that was killed{more}",
                "syslat clean (the next run does it, too)",
            )
        else:
            yield ok("namespace", f"{NAMESPACE} is prepared and free")

    def _image(self) -> Iterator[Check]:
        wanted = self._settings.image or self._own_image()
        status = self._chosen()["status"]
        listed = [name for each in status.get("images") or [] for name in each.get("names") or []]
        if any(_is_same_image(wanted, name) for name in listed):
            yield ok("image", f"{wanted} is on the node")
            return
        count = len(status.get("images") or [])
        told = f"{wanted} is not among the {count} images that the node lists"
        if self._settings.image is None and count < MOST_IMAGES:
            yield problem("image", f"{told}, and no registry has it", OWN_IMAGE_MEND)
        else:
            yield warning("image", f"{told}: it is pulled if it can be", OWN_IMAGE_MEND)

    def _own_image(self) -> str:
        pod = pod_object(WORKLOAD, self._rootdir, RunTags("", ""), node="", image=None)
        return str(pod["spec"]["containers"][0]["image"])

    def _agents(self) -> Iterator[Check]:
        if not self._api.may("list", "", "pods"):
            yield warning(
                "agents",
                "pods of other namespaces may not be listed",
                "ask an administrator which agents run on the node",
            )
            return
        name = self._chosen()["metadata"]["name"]
        found = sorted(
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in self._api.list("Pod")
            if pod["spec"].get("nodeName") == name and _is_agents(pod)
        )
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            yield warning(
                "agents",
                f"on the node already: {', '.join(found[:3])}{more}",
                "measure them as --agent=daemonset:NAMESPACE/NAME, or remove them",
            )
        else:
            yield ok("agents", f"none of {len(KNOWN_AGENTS)} known ones on {name}")

    def _chosen(self) -> Object:
        assert self._node is not None
        return self._node


def _labels(body: Object) -> dict[str, str]:
    return dict(body["metadata"].get("labels") or {})


def _is_same_image(wanted: str, listed: str) -> bool:
    return _full_name(wanted) == _full_name(listed)


def _full_name(image: str) -> str:
    """With registry, project and tag, as a node lists images."""
    head, _, rest = image.partition("/")
    if not rest or not ("." in head or ":" in head or head == "localhost"):
        image = f"docker.io/{image if rest else f'library/{image}'}"
    if "@" not in image and ":" not in image.rpartition("/")[2]:
        image += ":latest"
    return image


def _is_agents(pod: Object) -> bool:
    names = [each["name"] for each in pod["spec"]["containers"]]
    return any(
        name == known or name.startswith(f"{known}-") for name in names for known in KNOWN_AGENTS
    )
