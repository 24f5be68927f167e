"""`syslat doctor` on a cluster: what its API tells, and nothing made in it."""

from __future__ import annotations

from .support import NAMESPACE, Cluster, doctor


def test_a_cluster_that_can_measure(cluster: Cluster) -> None:
    before = cluster.uids()
    code, checks = doctor(cluster.kubeconfig, "--syslat-testbed=kubernetes")
    assert code == 0, checks
    (name,) = [node["metadata"]["name"] for node in cluster.nodes()]
    assert checks["node"].found == f"{name} is Ready"
    assert {checks[each].status for each in ("API", "rights", "image")} == {"ok"}
    assert NAMESPACE in checks["namespace"].found
    assert cluster.namespace() is None
    assert cluster.uids() == before


def test_a_node_that_is_not_there(cluster: Cluster) -> None:
    code, checks = doctor(cluster.kubeconfig, "--syslat-node=nowhere")
    assert code == 1
    assert "no node 'nowhere'" in checks["node"].found
    # Nothing is said of a node that was not chosen.
    assert "image" not in checks


def test_an_image_that_nobody_has(cluster: Cluster) -> None:
    _, checks = doctor(cluster.kubeconfig, "--syslat-image=nobody.example/has:it")
    assert checks["image"].status == "warning"
    assert "nobody.example/has:it is not among the" in checks["image"].found


def test_a_namespace_of_somebody_else(cluster: Cluster) -> None:
    cluster.core.create_namespace({"metadata": {"name": NAMESPACE}})
    try:
        code, checks = doctor(cluster.kubeconfig)
        assert code == 1
        assert "exists and isn't ours" in checks["namespace"].found
        assert checks["namespace"].mend == "delete it, or use another cluster"
    finally:
        cluster.remove_namespace()
