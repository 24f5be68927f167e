"""An account that may do what manifests/rbac allows, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from .support import NAMESPACE, ROOT, SHORT, Cluster, Project, doctor, wait_until

Object = dict[str, Any]
HOME = "syslat-selftest"
"""Namespace of the account: not the one in which it measures."""
NAME = "bench"

DEAD_LEASE: Any = {
    "metadata": {"name": "pytest-syslat", "labels": {"app.kubernetes.io/part-of": "pytest-syslat"}},
    "spec": {
        "holderIdentity": "0@elsewhere:1",
        "leaseDurationSeconds": 120,
    },
}


def objects() -> Iterator[Object]:
    """All objects of manifests/rbac, as `kubectl apply -k` would create them."""
    directory = ROOT / "manifests" / "rbac"
    for name in yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]:
        yield from yaml.safe_load_all((directory / name).read_text())


@pytest.fixture
def account(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The kubeconfig of such an account; an administrator has prepared the namespace for it."""
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    made: list[Callable[[], object]] = []
    try:
        for body in objects():
            name = body["metadata"]["name"]
            if body["kind"] == "Namespace":
                cluster.core.create_namespace(body)
                made.append(cluster.remove_namespace)
            elif body["kind"] == "Role":
                rbac.create_namespaced_role(NAMESPACE, body)
            else:
                rbac.create_cluster_role(body)
                made.append(lambda name=name: rbac.delete_cluster_role(name))  # type: ignore[misc]
        cluster.core.create_namespace({"metadata": {"name": HOME}})
        made.append(lambda: cluster.core.delete_namespace(HOME))
        cluster.core.create_namespaced_service_account(HOME, {"metadata": {"name": NAME}})
        who = [{"kind": "ServiceAccount", "name": NAME, "namespace": HOME}]
        rbac.create_namespaced_role_binding(
            NAMESPACE, binding("Role", "pytest-syslat", "syslat-selftest", who)
        )
        rbac.create_cluster_role_binding(
            binding("ClusterRole", "pytest-syslat", "syslat-selftest", who)
        )
        made.append(lambda: rbac.delete_cluster_role_binding("syslat-selftest"))
        token = cluster.core.create_namespaced_service_account_token(
            NAME, HOME, {"spec": {"audiences": None, "expirationSeconds": 3600}}
        ).status.token

        def only_the_token(content: Object) -> None:
            for each in content["users"]:
                each["user"] = {"token": token}

        path = tmp_path / "account"
        cluster.copied_kubeconfig(path, only_the_token)
        yield str(path)
    finally:
        for undo in reversed(made):
            undo()
        wait_until(lambda: not cluster.exists(HOME), 60, "the account's namespace is gone")


def binding(kind: str, role: str, name: str, subjects: list[dict[str, str]]) -> Object:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": subjects,
    }


def test_least_rights_suffice_and_are_least(
    project: Project, cluster: Cluster, account: str
) -> None:
    project.kubeconfig = account
    code, checks = doctor(account)
    assert code == 0, checks
    assert (checks["rights"].status, checks["namespace"].status) == ("ok", "ok")
    # It may not look into other namespaces.
    assert checks["agents"].status == "warning"
    # An earlier run has died on another machine: its place must be taken, too.
    client.CoordinationV1Api(cluster.api).create_namespaced_lease(NAMESPACE, DEAD_LEASE)
    code = project.run("benchmarks", *SHORT, "--syslat-trials=1", "-k", "connect")
    assert code == 0, project.said()
    assert "left behind" not in project.said()
    project.expect_files_of("connect-1")

    # The namespace is the administrator's and stays; what the run made in it is gone.
    namespace = cluster.namespace()
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pytest-syslat/prepared"] == "true"
    assert "pytest-syslat/run" not in namespace["metadata"]["labels"]
    assert cluster.contents() == []

    limited = Cluster(account)
    pod = {
        "metadata": {"name": "intruder"},
        "spec": {"containers": [{"name": "intruder", "image": "any"}]},
    }
    rbac: Any = client.RbacAuthorizationV1Api(limited.api)
    forbidden: dict[str, Callable[[], object]] = {
        "a pod elsewhere": lambda: limited.core.create_namespaced_pod("default", pod),
        "secrets": lambda: limited.core.list_namespaced_secret(NAMESPACE),
        "all secrets": lambda: limited.core.list_secret_for_all_namespaces(),
        "pods elsewhere": lambda: limited.core.list_namespaced_pod("kube-system"),
        "a namespace": lambda: limited.core.create_namespace({"metadata": {"name": "intruder"}}),
        "its own namespace": lambda: limited.core.delete_namespace(NAMESPACE),
        "another namespace": lambda: limited.core.read_namespace("default"),
        "a node": lambda: limited.core.patch_node(cluster.nodes()[0]["metadata"]["name"], {}),
        "more rights": lambda: rbac.create_cluster_role_binding(
            binding("ClusterRole", "cluster-admin", "intruder", [])
        ),
        "more rights here": lambda: rbac.create_namespaced_role_binding(
            NAMESPACE, binding("ClusterRole", "cluster-admin", "intruder", [])
        ),
    }
    for what, attempt in forbidden.items():
        with pytest.raises(ApiException) as caught:
            attempt()
        assert caught.value.status == 403, what


def test_account_without_rights_is_told_the_mend(
    project: Project, cluster: Cluster, account: str
) -> None:
    """The bindings are missing: as one who has forgotten the administrator's part."""
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    rbac.delete_namespaced_role_binding("syslat-selftest", NAMESPACE)
    project.kubeconfig = account
    told = project.refusal("benchmarks", *SHORT, "-k", "connect")
    assert "is forbidden" in told
    assert "kubectl apply -k manifests/rbac" in told
    code, checks = doctor(account)
    assert code == 1
    assert checks["rights"].status == "problem"
    assert "get pods" in checks["rights"].found
    assert "kubectl apply -k manifests/rbac" in checks["rights"].mend
    assert cluster.contents() == []
