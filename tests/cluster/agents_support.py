"""What the tests of agents share: stand-ins to order, Helm, and the state of cluster and node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from .support import ROOT, SETTLE_LIMIT_S, Cluster, NodeState, Object, Project, cluster_cache

STANDINS = Path(__file__).parent / "standins"
HELM_LIMIT_S = 120.0
HELM = """
import json, sys
from helm_python import Config
told = json.load(sys.stdin)
with Config(namespace=told["namespace"], kubeconfig_content=told["kubeconfig"]) as helm:
    if told["chart"]:
        helm.install(told["chart"], told["release"], told["values"])
    else:
        helm.uninstall(told["release"], wait="watcher", timeout=60)
"""
"""In a process of its own, like the plugin's: a Go runtime takes over a process' signals."""
OBSERVER = """
[kubernetes]
daemonset = "default/{name}"

[kubernetes.chart]
release = "{name}"
name = "observer"
repository = "https://charts.invalid"
version = "1.0.0"
"""


# --- Stand-ins to order ------------------------------------------------------------------------


def chart(name: str, directory: Path, changes: Object | None = None) -> Path:
    """A copy of a stand-in's chart with other values."""
    copy = directory / "charts" / name
    shutil.copytree(STANDINS / "charts" / name, copy)
    values = yaml.safe_load((copy / "values.yaml").read_text())
    (copy / "values.yaml").write_text(yaml.safe_dump(_merged(values, changes or {})))
    return copy


def _merged(values: Object, changes: Object) -> Object:
    return values | {
        key: _merged(values[key], change) if isinstance(change, dict) else change
        for key, change in changes.items()
    }


def ordered(trouble: str) -> list[Object]:
    """The environment that orders a trouble, for the value that a chart has for it."""
    return [{"name": "STANDIN_TROUBLE", "value": trouble}]


def without_image(agent: str, directory: Path) -> Path:
    """A copy of a stand-in whose image is nowhere."""
    if agent == "falco":
        return chart(agent, directory, {"image": {"tag": "missing"}})
    if agent == "tetragon":
        return chart(agent, directory, {"tetragon": {"image": {"tag": "missing"}}})
    copy = directory / "manifests" / agent
    shutil.copytree(STANDINS / agent, copy)
    file = copy / "04_kloudknox.yaml"
    text = file.read_text()
    assert "image: boanlab/kloudknox:latest" in text
    file.write_text(text.replace("boanlab/kloudknox:latest", "boanlab/kloudknox:missing"))
    return copy


def option(name: str, place: Path) -> str:
    """What has an agent installed from there."""
    return f"--syslat-chart={name}={place}"


def charts() -> list[str]:
    """The options that take all agents from their stand-ins, untroubled."""
    return [
        option("falco", STANDINS / "charts" / "falco"),
        option("tetragon", STANDINS / "charts" / "tetragon"),
        option("kloudknox", STANDINS / "kloudknox"),
    ]


def describe_observer(project: Project, name: str = "observer") -> None:
    """Make a project know the chart `observer` as an agent of its own."""
    place = project.directory / "agents" / f"{name}.toml"
    place.parent.mkdir(exist_ok=True)
    place.write_text(OBSERVER.format(name=name))


def bad_policy(project: Project, agent: str) -> None:
    """Give a project a policy `bad.yaml` that the agent does not take."""
    [body] = yaml.safe_load_all((ROOT / "policies" / agent / "bench.yaml").read_text())
    body["metadata"]["name"] = "bad"
    if agent == "tetragon":
        body["spec"]["kprobes"][0]["call"] = "nonsense"
    else:
        del body["spec"]["network"][0]["ipBlock"]
    place = project.directory / "policies" / agent / "bad.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(yaml.safe_dump(body))


# --- What somebody else does -------------------------------------------------------------------


class Owner:
    """Somebody who has agents of his own in the cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._kubeconfig = directory / "owners-kubeconfig"
        cluster.copied_kubeconfig(self._kubeconfig, lambda content: None)

    def install(self, namespace: str, name: str, values: Object) -> None:
        """Install a stand-in's chart."""
        self._cluster.core.create_namespace({"metadata": {"name": namespace}})
        self._helm(namespace, name, str(STANDINS / "charts" / name), values)

    def uninstall(self, namespace: str, name: str) -> None:
        """Remove it, and its namespace."""
        self._helm(namespace, name, "", {})
        self._cluster.core.delete_namespace(namespace)

    def _helm(self, namespace: str, release: str, place: str, values: Object) -> None:
        request = {
            "namespace": namespace,
            "release": release,
            "chart": place,
            "values": values,
            "kubeconfig": self._kubeconfig.read_text(),
        }
        subprocess.run(
            [sys.executable, "-c", HELM],
            input=json.dumps(request),
            check=True,
            text=True,
            timeout=HELM_LIMIT_S,
        )

    def kubectl(self, *words: str) -> str:
        """Run kubectl, the cluster's own where it is there."""
        own = cluster_cache() / "bin" / "kubectl"
        done = subprocess.run(
            [str(own) if own.exists() else "kubectl", *words],
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
            check=True,
            capture_output=True,
            text=True,
            timeout=HELM_LIMIT_S,
        )
        return done.stdout

    def daemonset(self, namespace: str, name: str) -> Object:
        """A DaemonSet as it is now."""
        found: Object = json.loads(
            self.kubectl("-n", namespace, "get", "daemonset", name, "-o", "json")
        )
        return found


# --- The state of cluster and node -------------------------------------------------------------

LISTED = {
    "Namespace": (client.CoreV1Api, "list_namespace"),
    "ServiceAccount": (client.CoreV1Api, "list_service_account_for_all_namespaces"),
    "ConfigMap": (client.CoreV1Api, "list_config_map_for_all_namespaces"),
    "Secret": (client.CoreV1Api, "list_secret_for_all_namespaces"),
    "Pod": (client.CoreV1Api, "list_pod_for_all_namespaces"),
    "DaemonSet": (client.AppsV1Api, "list_daemon_set_for_all_namespaces"),
    "Deployment": (client.AppsV1Api, "list_deployment_for_all_namespaces"),
    "Role": (client.RbacAuthorizationV1Api, "list_role_for_all_namespaces"),
    "RoleBinding": (client.RbacAuthorizationV1Api, "list_role_binding_for_all_namespaces"),
    "ClusterRole": (client.RbacAuthorizationV1Api, "list_cluster_role"),
    "ClusterRoleBinding": (client.RbacAuthorizationV1Api, "list_cluster_role_binding"),
    "CustomResourceDefinition": (client.ApiextensionsV1Api, "list_custom_resource_definition"),
    "MutatingWebhookConfiguration": (
        client.AdmissionregistrationV1Api,
        "list_mutating_webhook_configuration",
    ),
    "ValidatingWebhookConfiguration": (
        client.AdmissionregistrationV1Api,
        "list_validating_webhook_configuration",
    ),
}


def state(cluster: Cluster) -> Counter[str]:
    """All that an agent may leave, in words; a Helm release is a Secret."""
    found: Counter[str] = Counter()
    for kind, (api, ask) in LISTED.items():
        answer = getattr(api(cluster.api), ask)()
        for each in cluster.api.sanitize_for_serialization(answer)["items"]:
            namespace = each["metadata"].get("namespace")
            found[f"{kind} {namespace + '/' if namespace else ''}{each['metadata']['name']}"] += 1
    for node in cluster.nodes():
        for label, value in node["metadata"]["labels"].items():
            found[f"label {label}={value} of node {node['metadata']['name']}"] += 1
    if cluster.is_this_machine:
        node_state = NodeState.read()
        found.update(f"process {each}" for each in node_state.processes)
        found.update(f"cgroup {each}" for each in node_state.cgroups)
        found.update(f"audit rule {each}" for each in node_state.audit_rules)
        found.update(bpf_programs())
    return found


def bpf_programs() -> list[str]:
    """Kinds, names and places of the node's BPF programs, without their numbers."""
    programs, perf, links = (_bpftool(kind) for kind in ("prog", "perf", "link"))
    places: dict[int, set[str]] = {}
    for each in (*perf, *links):
        place = each.get("tracepoint") or each.get("func") or each.get("tp_name")
        places.setdefault(each.get("prog_id", 0), set()).add(str(place))
    return [
        f"BPF program {each['type']} {each.get('name')} at {sorted(places.get(each['id'], ()))}"
        for each in programs
    ]


def _bpftool(kind: str) -> list[Any]:
    shown = subprocess.run(
        ["bpftool", "-j", kind, "show"], check=True, capture_output=True, timeout=30
    )
    entries: list[Any] = json.loads(shown.stdout or "[]")
    return entries


def without_pods(found: Counter[str]) -> Counter[str]:
    """A state without what is made anew with a pod."""
    kinds = ("Pod ", "process ", "cgroup ")
    return Counter({each: n for each, n in found.items() if not each.startswith(kinds)})


def left_since(
    before: Counter[str],
    cluster: Cluster,
    view: Callable[[Counter[str]], Counter[str]] = Counter,
) -> list[str]:
    """What has come and not gone, or gone and not come back, once the cluster has settled.

    Args:
        before: The state then.
        cluster: Asked for the state now.
        view: The part of a state that counts.
    """
    before = view(before)
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while (now := view(state(cluster))) != before and time.monotonic() < deadline:
        time.sleep(0.3)
    return sorted([f"new: {each}" for each in now - before] + [f"gone: {e}" for e in before - now])
