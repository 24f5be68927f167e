"""The objects of a run, made from the manifests: bound to a node, labelled with the run."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import TestbedError

NAMESPACE = "bench-syscall"
PART_OF = {"app.kubernetes.io/part-of": "pytest-syslat"}
RUN_LABEL = "pytest-syslat/run"
EXPIRY_LABEL = "pytest-syslat/expires"
PREPARED_LABEL = "pytest-syslat/prepared"
LONGEST_S = 24 * 3600
KEPT_LABEL = "pytest-syslat/kept"
TRACER, SERVER, WORKLOAD = "bpftrace", "tcp-server", "workload"
MANIFESTS = {
    "namespace": "manifests/00-namespace.yaml",
    TRACER: "manifests/01-bpftrace-daemonset.yaml",
    SERVER: "manifests/02-tcp-server-pod.yaml",
    WORKLOAD: "manifests/03-workload-pod.yaml",
}
EXPECTED: dict[str, tuple[str, str, str | None]] = {
    "namespace": ("Namespace", NAMESPACE, None),
    TRACER: ("DaemonSet", TRACER, NAMESPACE),
    SERVER: ("Pod", SERVER, NAMESPACE),
    WORKLOAD: ("Pod", WORKLOAD, NAMESPACE),
}
"""Kind, name and namespace of what the manifests make."""
CONFIG_MAPS = {"programs": "manifests/programs", "bpftrace": "bpftrace"}
CONFIG_SUFFIXES = (".py", ".sh", ".bt")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunTags:
    """What marks the objects of a run."""

    run_id: str
    expires: str
    """UTC time such as `20261122T180000Z`, after which nobody needs them any more."""

    @property
    def labels(self) -> dict[str, str]:
        """For every object of the run."""
        return {**PART_OF, RUN_LABEL: self.run_id, EXPIRY_LABEL: self.expires}


def namespace_object(rootdir: Path, tags: RunTags) -> Object:
    """The namespace."""
    return _labelled(_load(rootdir, "namespace"), tags)


def config_map_objects(rootdir: Path, tags: RunTags) -> list[Object]:
    """The programs and scripts that the pods mount."""
    made = []
    for name, directory in CONFIG_MAPS.items():
        files = sorted(resource(directory, rootdir).iterdir())
        data = {path.name: path.read_text() for path in files if path.suffix in CONFIG_SUFFIXES}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "data": data,
        }
        made.append(_labelled(body, tags))
    return made


def pod_object(
    name: str, rootdir: Path, tags: RunTags, *, node: str, image: str | None, as_root: bool = False
) -> Object:
    """The DaemonSet of the tracer, or the pod of the server or the workload.

    Args:
        name: `TRACER`, `SERVER` or `WORKLOAD`.
        rootdir: Whose copies of the manifests win over the shipped ones.
        tags: The run's marks.
        node: The one node that it may run on, tainted or not: somebody has chosen it.
        image: Replaces that of the manifest.
        as_root: For an image that lacks the tools: installing them needs root in the container.
    """
    body = _labelled(_load(rootdir, name), tags)
    pod = body
    if body["kind"] == "DaemonSet":
        pod = body["spec"]["template"]
        pod["metadata"]["labels"].update(tags.labels)
    spec = pod["spec"]
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    spec["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [by_name]}
        }
    }
    spec["tolerations"] = [{"operator": "Exists"}]
    if body["kind"] == "Pod":
        # A run that was killed does not hold the node for ever.
        spec["activeDeadlineSeconds"] = LONGEST_S
    if image is not None:
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            container["image"] = image
    if as_root:
        for container in spec["containers"]:
            container["securityContext"] = {}
        group = spec["securityContext"]["runAsGroup"]
        spec["securityContext"] = {"runAsUser": 0, "runAsGroup": group, "fsGroup": group}
    return body


def shipped_files(rootdir: Path) -> dict[str, Path]:
    """All files of which the pods are made, by their path below the project's root."""
    files = {relative: resource(relative, rootdir) for relative in MANIFESTS.values()}
    for directory in CONFIG_MAPS.values():
        for path in sorted(resource(directory, rootdir).iterdir()):
            if path.suffix in CONFIG_SUFFIXES:
                files[f"{directory}/{path.name}"] = path
    return files


def _load(rootdir: Path, name: str) -> Object:
    path = resource(MANIFESTS[name], rootdir)
    try:
        loaded: Object = yaml.safe_load(path.read_text())
        kind, metadata = loaded["kind"], loaded["metadata"]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise TestbedError(f"{path} is no object of Kubernetes: {error}") from error
    expected = EXPECTED[name]
    found = (kind, metadata.get("name"), metadata.get("namespace"))
    if found != expected:
        # A file of that name in the user's project may be something else altogether.
        raise TestbedError(f"{path} must be {' '.join(filter(None, expected))}: rename that file")
    return loaded


def _labelled(body: Object, tags: RunTags) -> Object:
    labelled = copy.deepcopy(body)
    metadata = labelled["metadata"]
    metadata["labels"] = {**metadata.get("labels", {}), **tags.labels}
    return labelled
