"""Agents on a node of a cluster: installed, switched, measured, and removed whatever happens.

What is installed stands in for the agents (docs/cluster.md): no figure here is one of theirs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .agents_support import (
    STANDINS,
    Owner,
    bad_policy,
    chart,
    charts,
    describe_observer,
    left_since,
    option,
    ordered,
    state,
    without_image,
    without_pods,
)
from .support import (
    GONE_LIMIT_S,
    HOW_TO_RUN,
    NAMESPACE,
    ROOT,
    SHORT,
    Cluster,
    Object,
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
        project.end_of(process, LONG_RUN_S)
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


@pytest.mark.parametrize("arm", WORKING)
def test_record_tells_what_ran(finished: Finished, arm: str) -> None:
    told = finished.project.run_json()["agents"][arm]
    container, image = IMAGES[arm]
    assert told[f"image of {container}"] == image
    assert re.search(r"sha256:[0-9a-f]{64}$", told[f"image id of {container}"])
    assert told["installed by"] == "this run"
    shipped = str(ROOT / "policies" / arm / "bench.yaml")
    assert told["policy"] == ("none of ours" if arm == "tetragon+none" else shipped)
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
    invalid = "network[0]: must specify one of selector, ipBlock, or fqdn"
    for arm, reason in (
        ("tetragon+bad.yaml", "'tetra tracingpolicy list' does not show policy bad as active"),
        ("kloudknox+bad.yaml", f"the status of policy bad is Invalid: {invalid}"),
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
    for arm in ("falco", "tetragon"):
        [reasons] = [
            each["reasons"]
            for each in finished.project.run_json()["cells"]
            if (each["cell"]["agent"], each["cell"]["figure"]) == (arm, "p50")
        ]
        # Beside the number of blocks, which keeps each of them from a verdict here.
        dropped_told = [each for each in reasons if "dropped" in each]
        # While calls were traced, and beside the untraced figure.
        assert len(dropped_told) == (2 if arm == "falco" else 0)


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


# --- Agents that do not work -------------------------------------------------------------------


@pytest.mark.long
def test_agents_that_do_nothing_are_refused(
    project: Project, cluster: Cluster, owner: Owner, before: Counter[str]
) -> None:
    """Without a load in the kernel there is nothing to measure, whatever an agent says of itself.

    Beside them one that leaves a program in the kernel when it ends: vanilla is not measured with
    it.
    """
    falco = chart("falco", project.directory, {"extra": {"env": ordered("never-works")}})
    blind = "bpftrace -e 'tracepoint:syscalls:sys_enter_swapon { @ = count(); }'"
    observer = chart("observer", project.directory, {"program": blind})
    tetragon = chart("tetragon", project.directory, {"lingers": True})
    describe_observer(project)
    project.limits = {
        "agents.described.READY_LIMIT_S": 8.0,
        "agents.described.CANARY_LIMIT_S": 4.0,
    }
    arms = ("falco", "observer", "tetragon")
    try:
        code = project.run(
            *QUICK,
            *[f"--agent={arm}" for arm in arms],
            option("falco", falco),
            option("observer", observer),
            option("tetragon", tetragon),
            limit_s=LONG_RUN_S,
        )
    finally:
        # Pods that nobody owns, in a namespace that stays: they have ended and go with nothing.
        owner.kubectl("-n", "kube-system", "delete", "pod", "-l", "app=standin-lingers")
    said = project.said()
    assert code == 1, said
    for arm, reason in (
        ("falco", "8 s: falcosecurity_scap_n_evts_total does not rise, it is 0"),
        ("observer", "4 s: none of its BPF programs ran when calls were made for it to see"),
    ):
        told = f"{arm}: not within {reason}"
        assert f"openat-{arm}-trial1 is refused: agent-not-ready: {told}\n" in said
        assert findings(project, arm) == {"agent-not-ready": told}
    assert p50(project, "tetragon") > CLEARLY * p50(project, "vanilla")
    assert "other-tracers" not in findings(project, "vanilla")
    expect_nothing_left(before, cluster)


MISSING_IMAGE = (
    r"the image docker.io/falcosecurity/falco:missing cannot be had "
    r"\((ErrImagePull|ImagePullBackOff)\): let the node pull it, or import it there"
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "limits", "reason"),
    [
        (
            {"extra": {"env": ordered("never-ready")}},
            {"agents.daemonset.INSTALL_LIMIT_S": 8.0},
            r"not within 8 s: pod falco-\w+: its container falco runs and is not ready",
        ),
        (
            {"extra": {"env": ordered("never-ready,crash")}},
            {},
            r"pod falco-\w+ does not start: back-off .* restarting failed container=falco .*",
        ),
        ({"image": {"tag": "missing"}}, {}, MISSING_IMAGE),
    ],
    ids=["never ready", "crashes", "no image"],
)
def test_installation_that_fails(
    project: Project,
    cluster: Cluster,
    before: Counter[str],
    changes: Object,
    limits: dict[str, float],
    reason: str,
) -> None:
    project.limits = {"agents.daemonset.PROBLEM_GRACE_S": 5.0, **limits}
    falco = chart("falco", project.directory, changes)
    told = project.refusal(*QUICK, "--agent=falco", option("falco", falco))
    assert re.fullmatch(f"falco: {reason}", told)
    expect_nothing_left(before, cluster)


@pytest.mark.long
@pytest.mark.parametrize("agent", ["falco", "tetragon", "kloudknox"])
def test_nothing_is_left_of_a_failed_installation_and_of_a_killed_run(
    agent: str, project: Project, cluster: Cluster, before: Counter[str]
) -> None:
    project.limits = {"agents.daemonset.PROBLEM_GRACE_S": 5.0}
    broken = option(agent, without_image(agent, project.directory))
    told = project.refusal(*QUICK, f"--agent={agent}", broken)
    assert re.match(rf"{agent}: the image \S+/{agent}:missing cannot be had ", told)
    expect_nothing_left(before, cluster)

    project.limits = {}
    process = project.start(*QUICK, f"--agent={agent}", *charts(), "--syslat-lmbench-reps=20")
    project.wait_for_step(process, f"openat-{agent}-trial1: traced")
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert any(agent in each for each in state(cluster) - before)
    project.clean()
    expect_nothing_left(before, cluster)


# --- Agents that are there already -------------------------------------------------------------

OWN_RULES = """
- rule: Mine
  desc: Somebody else's rule.
  condition: evt.type = openat
  output: opened
  priority: INFO
"""


@pytest.fixture
def owned(cluster: Cluster, owner: Owner) -> Iterator[Counter[str]]:
    """A Falco and an opensnoop that somebody has installed; the state with them."""
    metrics = {"metrics": {"enabled": True}, "customRules": {"mine.yaml": OWN_RULES}}
    owner.install("falco", "falco", metrics)
    owner.kubectl("apply", "-f", str(STANDINS / "opensnoop-daemonset.yaml"))
    for namespace, name in (("falco", "falco"), ("observers", "opensnoop")):
        owner.kubectl("-n", namespace, "rollout", "status", f"daemonset/{name}", "--timeout=60s")
    try:
        yield state(cluster)
    finally:
        owner.kubectl("delete", "namespace", "observers")
        owner.uninstall("falco", "falco")
        wait_until(lambda: not cluster.exists("falco"), GONE_LIMIT_S, "the namespace is gone")


@pytest.mark.long
def test_agents_of_somebody_else(
    project: Project, cluster: Cluster, owner: Owner, owned: Counter[str]
) -> None:
    """Used as they are, at a given rate, beside an observer that the run installs itself."""
    places = {"falco": "falco", "observers": "opensnoop"}
    templates = {
        namespace: owner.daemonset(namespace, name)["spec"] for namespace, name in places.items()
    }
    describe_observer(project)
    arms = ("falco", "snoop=daemonset:observers/opensnoop", "observer")
    code = project.run(
        *QUICK,
        *[f"--agent={arm}" for arm in arms],
        option("observer", STANDINS / "charts" / "observer"),
        "--syslat-rate=300",
        limit_s=LONG_RUN_S,
    )
    assert code == 0, project.said()
    record = project.run_json()
    rate, seconds = 300, 2
    for arm in ("falco", "snoop", "observer"):
        assert p50(project, arm) > 1.15 * p50(project, "vanilla")
        [row] = project.rows(f"{arm}/{arm}_agent.csv")
        assert int(row["threads"]) >= 1
        assert float(row["peak_memory_mb"]) > 1
    # Each run of the workload makes a second's calls, and no call besides is counted.
    assert {trial["calls"] for trial in record["trials"]} == {rate * seconds}
    assert not any("rate-missed" in findings(project, arm) for arm in ("vanilla", "falco"))
    foreign = "somebody else: used as it is"
    installed_by = {arm: told.get("installed by") for arm, told in record["agents"].items()}
    assert installed_by == {
        "vanilla": None,
        "falco": foreign,
        "snoop": foreign,
        "observer": "this run",
    }
    assert record["agents"]["falco"]["policy"] == "that of whoever installed it"
    for namespace, name in places.items():
        now = owner.daemonset(namespace, name)
        assert now["spec"] == templates[namespace]
        assert now["status"]["numberReady"] == 1

    told = project.refusal(*QUICK, "--agent=falco+none")
    assert told == (
        "falco+none: falco was installed by somebody else, with rules of its own: measure it as "
        "--agent=falco"
    )
    for namespace, name in places.items():
        now = owner.daemonset(namespace, name)
        assert now["spec"] == templates[namespace]
        assert now["status"]["numberReady"] == 1
    assert left_since(owned, cluster, without_pods) == []


# --- Runs that do not come to their end --------------------------------------------------------


@pytest.mark.long
def test_hanging_uninstall_is_told_and_can_be_finished(
    project: Project, cluster: Cluster, owner: Owner, before: Counter[str]
) -> None:
    """Ctrl-C while the agent is installed; then an object of it does not go."""
    project.limits = {
        "testbeds.helm.UNINSTALL_LIMIT_S": 5,
        "testbeds.outside.REMOVAL_LIMIT_S": 10.0,
    }
    falco = chart("falco", project.directory, {"hangs": True})
    process = project.start(*QUICK, "--agent=falco", option("falco", falco))
    wait_until(
        lambda: process.poll() is not None or "DaemonSet falco/falco" in state(cluster),
        LONG_RUN_S,
        "falco is being installed",
    )
    process.send_signal(signal.SIGINT)
    try:
        assert project.end_of(process, LONG_RUN_S) == 2
        said = project.said()
        assert "Traceback" not in said
        told = project.lines("left behind: ")
        assert re.fullmatch(
            r"left behind: falco could not be removed: cannot uninstall the release falco/falco: "
            r".*falco-hangs still exists.*; Namespace falco is still being deleted "
            r"\(.*finalizers remaining: pytest-syslat.test/never .*\): "
            r"kubectl get namespace falco -o yaml",
            told[0],
        )
        assert "pytest benchmarks --syslat-clean" in told[1]
        # It holds the list of what is left.
        journal = cluster.core.read_namespaced_config_map("outside", NAMESPACE)
        assert "uninstall" in journal.data["steps"]
    finally:
        owner.kubectl(
            *("-n", "falco", "patch", "configmap", "falco-hangs", "--type=merge"),
            *("-p", '{"metadata":{"finalizers":null}}'),
        )
    said = project.clean()
    assert "syslat: nothing is left of earlier runs" in said
    expect_nothing_left(before, cluster)


@pytest.mark.long
def test_agent_that_crashes_and_run_that_is_killed(
    project: Project, cluster: Cluster, owner: Owner, before: Counter[str]
) -> None:
    process = project.start(
        *QUICK, "--agent=tetragon", *charts(), "--syslat-trials=2", "--syslat-lmbench-reps=8"
    )
    # Once while calls are traced, and in the repeated trial before it is asked for its drops.
    # The first is told by the kernel or by the kubelet, whichever notices first.
    crashed = (
        r"(its containers were started anew|pod \S+: "
        r"|\d+ of its \d+ BPF programs are not loaded any more)"
    )
    deaf = r"agent-failed: tetragon: http://\S+/metrics cannot be read: "
    for times, step, reason in (
        (1, "traced", f"agent-not-ready: {crashed}"),
        (2, "untraced", f"({deaf}|agent-not-ready: {crashed})"),
    ):
        project.wait_for_step(process, f"openat-tetragon-trial1: {step}", times=times)
        # Its first process ends, as in a crash.
        pod = ("-n", "kube-system", "exec", "daemonset/tetragon", "-c", "tetragon")
        owner.kubectl(*pod, "--", "sh", "-c", "kill 1")
        told = wait_for_refusal(project, times)
        assert re.search(f"REFUSED {reason}", told)
    project.wait_for_step(process, "openat-tetragon-trial2: traced")
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    now = state(cluster)
    assert "DaemonSet kube-system/tetragon" in now
    assert "CustomResourceDefinition podinfo.cilium.io" in now
    said = project.clean()
    assert "syslat: removed Helm release kube-system/tetragon\n" in said
    assert "syslat: removed CustomResourceDefinition podinfo.cilium.io\n" in said
    expect_nothing_left(before, cluster)


def wait_for_refusal(project: Project, number: int) -> str:
    """The line of the trial of Tetragon that is the so manieth to be refused."""

    def refused() -> list[str]:
        return [line for line in project.trial_lines() if "tetragon" in line and "REFUSED" in line]

    wait_until(lambda: len(refused()) >= number, GONE_LIMIT_S, "the trial is refused")
    return refused()[number - 1]
