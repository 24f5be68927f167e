"""The manifests by themselves, and what a run makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.manifest_objects import (
    SERVER,
    TRACER,
    WORKLOAD,
    RunTags,
    config_map_objects,
    namespace_object,
    pod_object,
)

ROOT = Path(__file__).resolve().parents[2]
TAGS = RunTags("1a2b3c4d", "20261122T180000Z")
LABELS = {
    "app.kubernetes.io/part-of": "pytest-syslat",
    "pytest-syslat/run": "1a2b3c4d",
    "pytest-syslat/expires": "20261122T180000Z",
}
NAMES = (TRACER, SERVER, WORKLOAD)
LARGEST_CONFIG_MAP = 1024 * 1024
"""Bytes that the API server takes."""

Object = dict[str, Any]


def made(name: str, rootdir: Path = ROOT, **options: Any) -> Object:
    return pod_object(name, rootdir, TAGS, **{"node": "boar", "image": None, **options})


def pod_of(body: Object) -> Object:
    """The pod in a DaemonSet, or the pod itself."""
    pod: Object = body["spec"]["template"] if body["kind"] == "DaemonSet" else body
    return pod


def containers(body: Object) -> list[Object]:
    spec = pod_of(body)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def loaded(path: str) -> Object:
    content: Object = yaml.safe_load((ROOT / path).read_text())
    return content


# --- The files -----------------------------------------------------------------------------------


def test_kustomization_names_the_manifests_that_exist() -> None:
    there = {path.name for path in (ROOT / "manifests").glob("*.yaml")}
    named = loaded("manifests/kustomization.yaml")["resources"]
    assert sorted(named) == sorted({*there - {"kustomization.yaml"}, "../bpftrace"})
    there = {path.name for path in (ROOT / "manifests" / "rbac").glob("*.yaml")}
    named = loaded("manifests/rbac/kustomization.yaml")["resources"]
    assert sorted(named) == sorted(there - {"kustomization.yaml"})


@pytest.mark.parametrize(
    ("kustomization", "directory", "name"),
    [("manifests", "manifests/programs", "programs"), ("bpftrace", "bpftrace", "bpftrace")],
)
def test_config_map_has_the_same_files_by_hand_as_in_a_run(
    kustomization: str, directory: str, name: str
) -> None:
    [by_hand] = loaded(f"{kustomization}/kustomization.yaml")["configMapGenerator"]
    [in_a_run] = [
        body for body in config_map_objects(ROOT, TAGS) if body["metadata"]["name"] == name
    ]
    there = {
        path.name: path.read_text()
        for path in (ROOT / directory).iterdir()
        if path.is_file() and path.suffix != ".yaml"
    }
    assert by_hand["name"] == name
    assert sorted(Path(each).name for each in by_hand["files"]) == sorted(there)
    assert all((ROOT / kustomization / each).is_file() for each in by_hand["files"])
    assert in_a_run["data"] == there
    assert sum(map(len, there.values())) < LARGEST_CONFIG_MAP
    assert in_a_run["metadata"]["labels"] == LABELS


def test_scripts_of_all_syscalls_are_shipped() -> None:
    [scripts] = [
        body["data"]
        for body in config_map_objects(ROOT, TAGS)
        if body["metadata"]["name"] == "bpftrace"
    ]
    shipped = [*SYSCALLS, *(path.stem for path in (ROOT / "syscalls").glob("*.toml"))]
    assert set(scripts) == {
        *(f"{kind}_{syscall}.bt" for kind in ("trace", "events") for syscall in shipped),
        "trace_getppid.bt",
        *(f"trace_{each.operation}.bt" for each in SYSCALLS.values() if each.operation),
    }


@pytest.mark.parametrize("name", NAMES)
def test_mounted_config_maps_exist(name: str) -> None:
    mounted = {
        volume["configMap"]["name"]
        for volume in pod_of(made(name))["spec"]["volumes"]
        if "configMap" in volume
    }
    assert "programs" in mounted
    assert mounted <= {body["metadata"]["name"] for body in config_map_objects(ROOT, TAGS)}


@pytest.mark.parametrize("name", NAMES)
def test_every_container_has_requests_and_limits(name: str) -> None:
    for container in containers(made(name)):
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) == {"cpu", "memory"}, container["name"]


def test_workload_is_guaranteed_with_whole_cpus() -> None:
    for container in containers(made(WORKLOAD)):
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert re.fullmatch("[1-9][0-9]*", str(resources["limits"]["cpu"]))


def test_workload_has_no_rights() -> None:
    """And the group by which rules of the node tell its processes from others."""
    spec = made(WORKLOAD)["spec"]
    assert spec["securityContext"] == dict.fromkeys(
        ("runAsUser", "runAsGroup", "fsGroup"), 31237
    ) | {"runAsNonRoot": True}
    for container in containers(made(WORKLOAD)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("name", NAMES)
def test_pods_have_no_account_and_no_more_of_the_node_than_they_need(name: str) -> None:
    spec = pod_of(made(name))["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec.get("hostPID", False) is (name == TRACER)
    assert not {"hostNetwork", "hostIPC"} & set(spec)
    assert [each for each in spec["volumes"] if "hostPath" in each] == (
        [{"name": "cgroup", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}}]
        if name == TRACER
        else []
    )
    privileged = [
        each["name"] for each in containers(made(name)) if each["securityContext"].get("privileged")
    ]
    assert privileged == {TRACER: ["bpftrace"], SERVER: ["backlog"], WORKLOAD: []}[name]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_probes_a_pod_that_has_started(name: str) -> None:
    """A probe would run in the cgroup, or dial the port, that is measured."""
    for container in containers(made(name)):
        assert not {"livenessProbe", "readinessProbe"} & set(container)


def test_server_listens_where_lat_connect_dials() -> None:
    [server] = made(SERVER)["spec"]["containers"]
    assert " 31237 " in server["command"][-1]
    assert server["ports"] == [{"containerPort": 31237}]
    assert server["startupProbe"]["tcpSocket"] == {"port": 31237}


# --- What a run makes of them --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_objects_carry_the_run(name: str) -> None:
    body = made(name)
    own = {"app.kubernetes.io/name": name}
    assert body["metadata"]["name"] == name
    assert body["metadata"]["namespace"] == "bench-syscall"
    assert body["metadata"]["labels"] == LABELS | own
    assert pod_of(body)["metadata"]["labels"] == LABELS | own


def test_daemonset_finds_its_pods() -> None:
    """Its selector cannot be changed later, so nothing of a run may stand in it."""
    assert made(TRACER)["spec"]["selector"] == {
        "matchLabels": {"app.kubernetes.io/name": "bpftrace"}
    }


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_bound_to_the_node_that_was_chosen(name: str) -> None:
    spec = pod_of(made(name, node="worker-2"))["spec"]
    terms = {
        "nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["worker-2"]}]}
        ]
    }
    # The server's own wish, to be where the workload is, is met by that.
    assert spec["affinity"] == {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    }
    assert spec["tolerations"] == [{"operator": "Exists"}]


@pytest.mark.parametrize("name", NAMES)
def test_image_is_replaced_in_every_container(name: str) -> None:
    images = {each["image"] for each in containers(made(name))}
    assert images == {"docker.io/pytest-syslat/bench:1"}
    images = {each["image"] for each in containers(made(name, image="debian:trixie-slim"))}
    assert images == {"debian:trixie-slim"}


@pytest.mark.parametrize("name", [SERVER, WORKLOAD])
def test_pods_that_install_are_root_in_their_container(name: str) -> None:
    """In the group of their own even so: the node's rules know the workload by it."""
    ordinary, as_root = made(name)["spec"], made(name, as_root=True)["spec"]
    group = ordinary["securityContext"]["runAsGroup"]
    assert as_root["securityContext"] == {"runAsUser": 0, "runAsGroup": group, "fsGroup": group}
    for container in as_root["containers"]:
        assert not container["securityContext"]
    # The one that prepares the network keeps the rights that it needs.
    assert as_root.get("initContainers") == ordinary.get("initContainers")


def test_objects_of_one_run_do_not_change_those_of_the_next() -> None:
    first = made(WORKLOAD, image="debian:trixie-slim", as_root=True)
    first["metadata"]["labels"]["spoilt"] = "yes"
    assert "spoilt" not in made(WORKLOAD)["metadata"]["labels"]
    assert made(WORKLOAD)["spec"]["containers"][0]["securityContext"]


def test_namespace() -> None:
    body = namespace_object(ROOT, TAGS)
    assert body["kind"] == "Namespace"
    assert body["metadata"]["name"] == "bench-syscall"
    # Without it, clusters that check pods refuse the tracer's.
    assert body["metadata"]["labels"] == LABELS | {
        "pod-security.kubernetes.io/enforce": "privileged"
    }


def test_namespace_of_an_administrator_allows_the_same() -> None:
    labels = loaded("manifests/rbac/namespace.yaml")["metadata"]["labels"]
    assert labels == {
        "app.kubernetes.io/part-of": "pytest-syslat",
        "pod-security.kubernetes.io/enforce": "privileged",
        "pytest-syslat/prepared": "true",
    }


def test_files_of_the_users_own_win(tmp_path: Path) -> None:
    manifest = tmp_path / "manifests" / "03-workload-pod.yaml"
    manifest.parent.mkdir()
    text = (ROOT / "manifests" / "03-workload-pod.yaml").read_text()
    manifest.write_text(text.replace('cpu: "1"', 'cpu: "3"'))
    limits = made(WORKLOAD, tmp_path)["spec"]["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == "3"
    # All others are the shipped ones.
    assert made(SERVER, tmp_path) == made(SERVER)
