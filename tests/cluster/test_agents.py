"""Agents on a node of a cluster: installed, switched, measured, and removed whatever happens.

What is installed stands in for the agents (docs/cluster.md): no figure here is one of theirs.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .agents_support import (
    Owner,
    bad_policy,
    chart,
    charts,
    left_since,
    option,
    ordered,
    state,
)
from .support import (
    HOW_TO_RUN,
    ROOT,
    SHORT,
    Cluster,
    Project,
    wait_until,
)

LONG_RUN_S = 400.0
QUICK = ("benchmarks", *SHORT, "--syslat-trials=1", "-k", "openat")
CLEARLY = 1.5
"""The stand-ins at least double the time of an openat."""
WORKING = ("falco", "tetragon", "tetragon+none", "kloudknox")
REFUSED = ("tetragon+bad.yaml", "kloudknox+bad.yaml")
TRACEPOINTS = {
    f"tracepoint sys_{side}_{syscall}"
    for side in ("enter", "exit")
    for syscall in ("execve", "openat", "connect")
}
IMAGES = {
    "falco": ("falco", "docker.io/falcosecurity/falco:0.44.1"),
    "tetragon": ("tetragon", "quay.io/cilium/tetragon:v1.7.0"),
    "tetragon+none": ("tetragon", "quay.io/cilium/tetragon:v1.7.0"),
    "kloudknox": ("kloudknox", "docker.io/boanlab/kloudknox:v0.1.0"),
}


@pytest.fixture(scope="module", autouse=True)
def _can_install(cluster: Cluster) -> None:
    """Helm as a library, and the stand-ins: without them a failure in CI, a skip elsewhere."""
    problem = None
    if importlib.util.find_spec("helm_python") is None:
        problem = "helm-python-sdk is not installed: pip install 'pytest-syslat[helm]'"
    elif not all(cluster.has_image(image.split("/", 1)[1]) for _, image in IMAGES.values()):
        problem = f"no node has the images that stand in for the agents; {HOW_TO_RUN}"
    if problem is None:
        return
    if os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


@pytest.fixture
def before(cluster: Cluster) -> Counter[str]:
    """The state of cluster and node when the test begins."""
    return state(cluster)


@pytest.fixture
def owner(cluster: Cluster, tmp_path: Path) -> Owner:
    return Owner(cluster, tmp_path)


def expect_nothing_left(before: Counter[str], cluster: Cluster) -> None:
    """Cluster and node are as they were."""
    assert left_since(before, cluster) == []


def p50(project: Project, label: str) -> float:
    """The traced median of the openat trial of an arm, µs."""
    [trial] = [each for each in project.run_json()["trials"] if each["label"] == label]
    assert trial["refused"] is False, trial["findings"]
    return float(trial["figures_us"]["p50"])


def findings(project: Project, label: str) -> dict[str, str]:
    """The findings on an arm's trial that counts: what they say, by their code."""
    [trial] = [each for each in project.run_json()["trials"] if each["label"] == label]
    return {each["code"]: each["detail"] for each in trial["findings"]}


def run_file(project: Project, label: str, ending: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", label)
    return (project.results / name / f"{name}_{ending}").read_text()


# --- All agents in one run ---------------------------------------------------------------------


class Finished:
    """A run that has ended, and the state before it, while it measured, and after it."""

    def __init__(self, project: Project, cluster: Cluster) -> None:
        self.project = project
        falco = chart("falco", project.directory, {"extra": {"env": ordered("drops=1000000")}})
        for agent in ("tetragon", "kloudknox"):
            bad_policy(project, agent)
        project.limits = {"agents.described.POLICY_LIMIT_S": 4.0}
        self.before = state(cluster)
        process = project.start(
            *QUICK,
            *[f"--agent={arm}" for arm in (*WORKING, *REFUSED)],
            *charts()[1:],
            option("falco", falco),
            "--syslat-budget=*:p50<=+100000%",
        )
        wait_until(
            lambda: process.poll() is not None or (project.directory / "steps.txt").read_text(),
            LONG_RUN_S,
            "all agents are installed",
        )
        self.during = state(cluster)
        process.wait(LONG_RUN_S)
        self.left = left_since(self.before, cluster)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Finished]:
    """One run of all agents, for all tests that look at what it has shown and left."""
    project = Project(tmp_path_factory.mktemp("agents"), cluster.kubeconfig)
    try:
        yield Finished(project, cluster)
    finally:
        project.close()


@pytest.mark.parametrize("arm", WORKING)
def test_overhead_is_seen(finished: Finished, arm: str) -> None:
    assert p50(finished.project, arm) > CLEARLY * p50(finished.project, "vanilla")
    severities = {
        each["severity"]
        for trial in finished.project.run_json()["trials"]
        if trial["label"] == arm
        for each in trial["findings"]
    }
    assert "invalid" not in severities
    assert arm not in {row["label"] for row in finished.project.run_json().get("replaced", [])}


@pytest.mark.parametrize("arm", WORKING)
def test_record_tells_what_ran(finished: Finished, arm: str) -> None:
    told = finished.project.run_json()["agents"][arm]
    container, image = IMAGES[arm]
    assert told[f"image of {container}"] == image
    assert re.search(r"sha256:[0-9a-f]{64}$", told[f"image id of {container}"])
    assert told["installed by"] == "this run"
    policies = {
        "tetragon+none": "none of ours",
        **{name: str(ROOT / "policies" / name / "bench.yaml") for name in IMAGES},
    }
    policies["tetragon+none"] = "none of ours"
    assert told["policy"] == policies[arm]
    assert told["seen by itself"] is (arm in ("falco", "tetragon"))
    programs = told["BPF programs"]
    assert {place for each in programs for place in each["attached to"]} == TRACEPOINTS
    ran = {
        place
        for each in programs
        if each["runs during canary calls"] >= 20
        for place in each["attached to"]
    }
    # That of execve's exit does not run where the call has succeeded and changed the group.
    assert {"tracepoint sys_enter_openat", "tracepoint sys_exit_connect"} <= ran
    # The policy has a program of its own beside that of the agent.
    per_agent = 1 if arm in ("falco", "tetragon+none") else 2
    opens = [each for each in programs if each["attached to"] == ["tracepoint sys_exit_openat"]]
    assert len(opens) == per_agent


@pytest.mark.parametrize("arm", WORKING)
def test_files_tell_of_the_agent(finished: Finished, arm: str) -> None:
    told = finished.project.run_json()["agents"][arm]
    sysinfo = run_file(finished.project, arm, "sysinfo.txt")
    image = IMAGES[arm][1]
    assert f"agent {arm}, image of {IMAGES[arm][0]}: {image}\n" in sysinfo
    assert f"agent {arm}, policy: {told['policy']}\n" in sysinfo
    assert f"agent {arm}, BPF programs 1, id: {told['BPF programs'][0]['id']}\n" in sysinfo
    [row] = finished.project.rows(f"{arm}/{arm}_agent.csv")
    assert (row["label"], row["syscall"], row["trial"]) == (arm, "openat", "1")
    # Its Python and its bpftrace together: more than either alone.
    assert float(row["peak_memory_mb"]) > 50
    assert int(row["threads"]) >= 2
    assert float(row["cpu_s"]) >= 0
    assert float(row["calls_per_s"]) > 0


def test_each_switch_is_noted(finished: Finished) -> None:
    switches = [(each["arm"], each["state"]) for each in finished.project.run_json()["switches"]]
    for arm in WORKING:
        states = [state for name, state in switches if name == arm]
        # Each is switched off for the next one; only at the end of the plan nothing is next.
        assert states in (["on", "off"], ["on"]) or set(states) == {"on", "off"}
        assert states[0] == "on"


def test_policies_that_are_not_taken(finished: Finished) -> None:
    said = finished.project.said()
    for arm, reason in (
        (
            "tetragon+bad.yaml",
            "'tetra tracingpolicy list' does not show policy bad as active",
        ),
        (
            "kloudknox+bad.yaml",
            (
                "the status of policy bad is Invalid: network[0]: must specify one of selector, "
                "ipBlock, or fqdn"
            ),
        ),
    ):
        line = f"openat-{arm}-trial1 is refused: agent-not-ready: {arm}: not within 4 s: {reason}"
        assert f"{line}\n" in said
        assert findings(finished.project, arm) == {
            "agent-not-ready": f"{arm}: not within 4 s: {reason}"
        }
    assert "Traceback" not in said


def test_agent_that_drops_cannot_pass(finished: Finished) -> None:
    told = findings(finished.project, "falco")["agent-dropped"]
    dropped = re.match(r"falco dropped ([0-9,]+) events during [0-9,]+ traced calls", told)
    assert dropped
    [row] = finished.project.rows("falco/falco_agent.csv")
    assert int(row["dropped"]) == int(dropped[1].replace(",", "")) > 10_000
    verdicts = {
        row["label"]: (row["verdict"], row["reason"])
        for row in finished.project.rows("overhead.csv")
        if row["figure"] == "p50"
    }
    assert verdicts["falco"][0] == "inconclusive"
    assert "agent-dropped" in verdicts["falco"][1]
    assert "agent-dropped" not in verdicts["tetragon"][1]


@pytest.mark.parametrize(
    ("agent", "made"),
    [
        (
            "falco",
            {
                "Namespace falco",
                "DaemonSet falco/falco",
                "Secret falco/sh.helm.release.v1.falco.v1",
                "label pytest-syslat/off.falco.falco=true of node ",
            },
        ),
        (
            "tetragon",
            {
                "DaemonSet kube-system/tetragon",
                "Deployment kube-system/tetragon-operator",
                "ClusterRole tetragon",
                "CustomResourceDefinition tracingpolicies.cilium.io",
                "CustomResourceDefinition podinfo.cilium.io",
                "Secret kube-system/sh.helm.release.v1.tetragon.v1",
                "label pytest-syslat/off.kube-system.tetragon=true of node ",
            },
        ),
        (
            "kloudknox",
            {
                "Namespace kloudknox",
                "DaemonSet kloudknox/kloudknox",
                "ClusterRoleBinding kloudknox",
                "CustomResourceDefinition kloudknoxpolicies.security.boanlab.com",
                "label pytest-syslat/off.kloudknox.kloudknox=true of node ",
            },
        ),
    ],
)
def test_nothing_is_left_of(finished: Finished, agent: str, made: set[str]) -> None:
    """All was there while the run measured: its first step comes when all is installed."""
    new = finished.during - finished.before
    # The label of the arm that is on has been taken off.
    missing = {
        each
        for each in made
        if not any(thing.startswith(each) for thing in new) and "label" not in each
    }
    assert missing == set()
    assert [each for each in finished.left if agent in each] == []
    assert "left behind" not in finished.project.said()


def test_nothing_else_is_left(finished: Finished) -> None:
    assert finished.left == []
