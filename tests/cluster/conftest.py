"""The cluster of these tests, and the rule when there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.config import ConfigException

from .support import HOW_TO_RUN, SETTLE_LIMIT_S, Cluster, NodeState, Project, Relay


@pytest.fixture(scope="session")
def cluster(users_kubeconfig: str | None) -> Cluster:
    """Without a cluster nothing here can run: a failure in CI, a skip elsewhere."""
    problem: str | None = f"KUBECONFIG names no cluster; {HOW_TO_RUN}"
    if users_kubeconfig:
        try:
            cluster = Cluster(users_kubeconfig)
            problem = cluster.problem()
        except ConfigException as error:
            problem = f"the kubeconfig {users_kubeconfig} cannot be used: {error}; {HOW_TO_RUN}"
        else:
            if problem is None:
                return cluster
    assert problem is not None
    if os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


@pytest.fixture(autouse=True)
def _nothing_remains(cluster: Cluster) -> Iterator[None]:
    """Each test leaves cluster and node as they were; what it leaves spoils no other test."""
    before = NodeState.read() if cluster.is_this_machine else None
    yield
    left = cluster.namespace()
    if left is not None:
        cluster.remove_namespace()
    new = _new_on_node(before) if before else []
    assert left is None
    assert new == []


def _new_on_node(before: NodeState) -> list[str]:
    """What stays: kernel and container runtime take a moment to free what has ended."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while (new := before.new_in(NodeState.read())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return new


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster) -> Iterator[Project]:
    project = Project(tmp_path, cluster.kubeconfig)
    yield project
    project.close()


@pytest.fixture
def relay(cluster: Cluster, project: Project) -> Iterator[Relay]:
    """A way between the project's runs and the API server that can be cut."""
    host, port = cluster.server()
    relay = Relay((host, port))

    def by_relay(content: dict[str, object]) -> None:
        clusters = content["clusters"]
        assert isinstance(clusters, list)
        for each in clusters:
            each["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
            if host != "127.0.0.1":
                each["cluster"].setdefault("tls-server-name", host)

    path = project.directory / "kubeconfig"
    cluster.copied_kubeconfig(path, by_relay)
    project.kubeconfig = str(path)
    yield relay
    relay.cut()
