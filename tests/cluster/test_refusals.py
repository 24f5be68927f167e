"""Runs that must not begin: one line says why, and nothing is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .support import NAMESPACE, PART_OF, ROOT, SHORT, Cluster, Project, wait_until

QUICK = ("benchmarks", *SHORT, "--syslat-trials=1", "-k", "connect")
MISSING_IMAGE = "localhost/syslat-selftest/missing:1"


def test_namespace_that_is_not_ours(project: Project, cluster: Cluster) -> None:
    cluster.core.create_namespace({"metadata": {"name": NAMESPACE, "labels": {"team": "other"}}})
    cluster.core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "theirs"}, "data": {"a": "b"}}
    )
    before = cluster.namespace()
    told = project.refusal(*QUICK)
    assert told == (
        f"the namespace {NAMESPACE} exists and isn't ours: it lacks the label {PART_OF}; "
        "delete it, or use another cluster"
    )
    told = project.refusal("benchmarks", "--syslat-clean")
    assert told == (
        f"--syslat-clean: the namespace {NAMESPACE} isn't ours and stays: it lacks the label "
        f"{PART_OF}"
    )
    assert cluster.namespace() == before
    assert cluster.contents() == ["ConfigMap theirs"]
    cluster.remove_namespace()


def test_unknown_node_is_told_with_those_that_exist(project: Project, cluster: Cluster) -> None:
    nodes = ", ".join(sorted(node["metadata"]["name"] for node in cluster.nodes()))
    told = project.refusal(*QUICK, "--syslat-node=nowhere")
    assert told == f"--syslat-node: no node 'nowhere': allowed is {nodes}"


def test_unknown_context_is_told_with_those_that_exist(project: Project, cluster: Cluster) -> None:
    told = project.refusal(*QUICK, "--syslat-kube-context=nowhere")
    assert told.startswith("--syslat-kube-context: no context 'nowhere': allowed is ")
    assert cluster.context in told


def test_option_of_a_cluster_on_this_host(project: Project) -> None:
    told = project.refusal(*QUICK, "--syslat-testbed=local", "--syslat-node=any")
    assert told.startswith("--syslat-node: has no meaning on this host")


def test_cluster_that_is_asked_for_but_not_there(project: Project, tmp_path: Path) -> None:
    project.kubeconfig = str(tmp_path / "missing")
    told = project.refusal(*QUICK, "--syslat-testbed=kubernetes")
    assert told.startswith("--syslat-testbed: no kubeconfig: set KUBECONFIG")


def test_image_that_cannot_be_had(project: Project, cluster: Cluster) -> None:
    project.limits = {"testbeds.kubernetes.PROBLEM_GRACE_S": 3.0}
    told = project.refusal(*QUICK, f"--syslat-image={MISSING_IMAGE}")
    assert told.startswith(f"the image {MISSING_IMAGE} cannot be had (")
    assert "images/Dockerfile" in told
    assert "--syslat-image=" in told
    assert cluster.namespace() is None


# --- Pods that somebody wants to keep -----------------------------------------------------------


def kubectl() -> str:
    """The program; skips where there is none."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not in PATH")
    return found


def run_command(cluster: Cluster, *argv: str) -> str:
    """Run a program on the user's side to its end."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": cluster.kubeconfig},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.long
def test_kept_pods_are_there_to_look_at(project: Project, cluster: Cluster) -> None:
    assert project.run(*QUICK, "--syslat-keep") == 0, project.said()
    said = project.said()
    assert "left behind" not in said
    _, _, kept = said.partition("kept, as asked; to look at it, and to remove it:\n")
    commands = [line.strip() for line in kept.splitlines() if line.startswith("  ")]
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}

    told = project.refusal(*QUICK)
    assert "was kept by --syslat-keep" in told
    assert told.endswith("pytest benchmarks --syslat-clean")
    assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}

    *looking, cleaning = commands
    assert looking
    if shutil.which("kubectl"):
        for command in looking:
            # A terminal is what a test hasn't; the command itself is the printed one.
            run_shell(cluster, command.replace(" -it ", " -i "))
        assert "workload" in run_shell(cluster, looking[0])
    assert cleaning.startswith("pytest ")
    assert project.run(*cleaning.split()[1:]) == 0, project.said()
    assert "syslat: removed Namespace bench-syscall\n" in project.said()
    assert cluster.namespace() is None


def run_shell(cluster: Cluster, command: str) -> str:
    return run_command(cluster, "sh", "-c", command)


def test_pods_applied_by_hand(project: Project, cluster: Cluster) -> None:
    """What the comments in the manifests and the documentation promise."""
    program = kubectl()
    try:
        run_command(cluster, program, "apply", "-k", "manifests/")
        wait_until(
            lambda: (
                set(pods := cluster.pods()) == {"bpftrace", "tcp-server", "workload"}
                and all(
                    {"type": "Ready", "status": "True"}.items() <= condition.items()
                    for pod in pods.values()
                    for condition in pod["status"].get("conditions", [])
                    if condition["type"] == "Ready"
                )
                and all(pod["status"].get("conditions") for pod in pods.values())
            ),
            120,
            "all pods are ready",
        )
        inside = (program, "-n", NAMESPACE, "exec")
        measured = run_command(
            cluster,
            *(*inside, "workload", "--", "sh", "-c"),
            "/usr/lib/lmbench/bin/*/lat_syscall open /syslat/ready 2>&1",
        )
        assert measured.startswith("Simple open/close: ")
        traced = run_command(
            cluster,
            *(*inside, "ds/bpftrace", "--", "sh", "-c"),
            "timeout -s INT 5 bpftrace /bpftrace/trace_openat.bt "
            "$(stat -c %i /node/cgroup) || [ $? = 124 ]",
        )
        assert "Attaching 2 probes..." in traced

        told = project.refusal(*QUICK)
        assert told == (
            f"the namespace {NAMESPACE} was applied by hand: kubectl delete -k manifests/, or "
            "pytest benchmarks --syslat-clean"
        )
        assert set(cluster.pods()) == {"bpftrace", "tcp-server", "workload"}
    finally:
        run_command(cluster, program, "delete", "-k", "manifests/", "--ignore-not-found")
    assert cluster.namespace() is None


# --- A plain image -------------------------------------------------------------------------------


@pytest.mark.long
def test_plain_image_gets_the_tools(project: Project, cluster: Cluster) -> None:
    if not cluster.has_image("debian:trixie-slim"):
        pytest.skip("debian:trixie-slim is not on the node, and may not be had without network")
    code = project.run(*QUICK, "--syslat-image=debian:trixie-slim", limit_s=300)
    assert code == 0, project.said()
    facts = project.facts()
    assert facts["image"].endswith("debian:trixie-slim")
    assert facts["image has the tools"] == "no: installed in the pods"
    assert facts["workload's quality of service"] == "Guaranteed"
    project.expect_files_of("connect-1")
