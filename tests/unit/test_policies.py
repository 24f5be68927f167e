"""What each agent is told to observe: three calls of the workload's pod, and never to block."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import WORKLOAD_GROUP

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
NAMESPACE = "bench-syscall"
LABELS = {"app.kubernetes.io/name": "workload"}
CALLS = ["execve", "openat", "connect"]
OBJECTS = ["policies/kloudknox/bench.yaml", "policies/tetragon/bench.yaml"]
FILES = [
    "policies/falco/bench.yaml",
    "policies/falco/host.yaml",
    "policies/falco/values.yaml",
    "policies/kloudknox/bench.yaml",
    "policies/tetragon/bench.yaml",
    "policies/tetragon/host.yaml",
    "policies/tetragon/values.yaml",
]
BLOCKING = {
    "allow",  # KloudKnox denies what no rule allows as soon as one rule allows
    "block",
    "cleanupenforcernotification",
    "exit",
    "notifyenforcer",
    "override",
    "set",
    "sigkill",
    "signal",
}
"""Values that stop a call, a process or the agent itself, in any of the agents' languages."""

Object = dict[str, Any]


def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def lines_of(path: str) -> list[str]:
    return text_of(path).splitlines(keepends=True)


def is_code(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def loaded(path: str) -> Any:
    return yaml.safe_load(text_of(path))


def scalars(node: Any) -> list[Any]:
    """All keys and values in a document."""
    if isinstance(node, dict):
        return [leaf for pair in node.items() for part in pair for leaf in scalars(part)]
    if isinstance(node, list):
        return [leaf for part in node for leaf in scalars(part)]
    return [node]


def falco_items(kind: str) -> list[Object]:
    return [item for item in loaded("policies/falco/bench.yaml") if kind in item]


# --- All files -----------------------------------------------------------------------------------


def test_every_file_of_an_agent_on_kubernetes_is_tested_here() -> None:
    there = [path for path in POLICIES.rglob("*") if path.is_file()]
    on_kubernetes = [path for path in there if path.parent.name != "auditd"]
    assert sorted(str(path.relative_to(ROOT)) for path in on_kubernetes) == FILES


@pytest.mark.parametrize("path", FILES)
def test_file_starts_with_what_it_does_and_the_version_it_was_checked_against(path: str) -> None:
    comment = "".join(itertools.takewhile(lambda line: not is_code(line), lines_of(path)))
    assert text_of(path).startswith("# ")
    assert re.search(r"# Checked against \S+/\S+ .*\d+\.\d+\.\d+", comment)
    assert re.search(r"[Hh]ook|kretprobe|tp_btf", comment)


@pytest.mark.parametrize("path", FILES)
def test_nothing_blocks(path: str) -> None:
    words = {str(leaf).lower() for leaf in scalars(loaded(path))}
    assert not words & BLOCKING


@pytest.mark.parametrize("path", FILES)
def test_file_is_found_as_a_resource(path: str, tmp_path: Path) -> None:
    assert resource(path, tmp_path).read_text() == text_of(path)


def test_workload_is_the_only_pod_that_has_the_labels() -> None:
    pods = {
        path.name: loaded(f"manifests/{path.name}")
        for path in (ROOT / "manifests").glob("0*.yaml")
        if "namespace" not in path.name
    }
    selected = [
        name
        for name, body in pods.items()
        if LABELS.items()
        <= body["spec"].get("template", body).get("metadata", {}).get("labels", {}).items()
    ]
    assert selected == ["03-workload-pod.yaml"]
    assert pods["03-workload-pod.yaml"]["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("path", OBJECTS)
def test_policy_lives_in_the_namespace_of_the_workload(path: str) -> None:
    assert loaded(path)["metadata"] == {"name": "bench", "namespace": NAMESPACE}


def test_tetragon_observes_the_same_on_a_host() -> None:
    cluster, host = loaded("policies/tetragon/bench.yaml"), loaded("policies/tetragon/host.yaml")
    assert host["kind"] == "TracingPolicy"
    assert host["spec"] == {"kprobes": cluster["spec"]["kprobes"]}


def test_falco_observes_the_same_on_a_host_by_the_workload_s_group() -> None:
    cluster = {item["rule"]: item for item in falco_items("rule")}
    host = {each["rule"]: each for each in loaded("policies/falco/host.yaml") if "rule" in each}
    assert host == cluster
    [macro] = [each for each in loaded("policies/falco/host.yaml") if "macro" in each]
    assert macro["condition"] == f"(group.gid = {WORKLOAD_GROUP})"


# --- KloudKnox -----------------------------------------------------------------------------------


@pytest.fixture
def kloudknox() -> Object:
    body: Object = loaded("policies/kloudknox/bench.yaml")
    return body


def test_kloudknox_policy_is_of_the_kind_that_the_cluster_knows(kloudknox: Object) -> None:
    assert kloudknox["apiVersion"] == "security.boanlab.com/v1"
    assert kloudknox["kind"] == "KloudKnoxPolicy"
    assert sorted(kloudknox) == ["apiVersion", "kind", "metadata", "spec"]


def test_kloudknox_audits_executions_opens_and_connections_of_the_workload(
    kloudknox: Object,
) -> None:
    spec = kloudknox["spec"]
    assert sorted(spec) == ["action", "file", "network", "process", "selector"]
    assert spec["selector"] == LABELS
    assert spec["action"] == "Audit"
    rules = [*spec["process"], *spec["file"], *spec["network"]]
    assert [rule["action"] for rule in rules] == ["Audit"] * len(rules)


def test_kloudknox_connections_are_those_to_any_address(kloudknox: Object) -> None:
    assert kloudknox["spec"]["network"] == [
        {"direction": "egress", "ipBlock": {"cidr": "0.0.0.0/0"}, "action": "Audit"}
    ]


def test_kloudknox_directories_are_as_its_validation_wants_them(kloudknox: Object) -> None:
    for rule in [*kloudknox["spec"]["process"], *kloudknox["spec"]["file"]]:
        assert sorted(rule) == ["action", "dir", "recursive"]
        assert re.fullmatch(r"/(?:[^/\s]+/)+", rule["dir"])
        assert rule["recursive"] is True


def test_kloudknox_directories_stand_under_one_kind_of_rule_only(kloudknox: Object) -> None:
    """The agent keeps both kinds in one table by their path, and the first one wins."""
    directories = [
        rule["dir"] for rule in [*kloudknox["spec"]["process"], *kloudknox["spec"]["file"]]
    ]
    assert len(set(directories)) == len(directories)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("process", "/tmp/hello"),
        ("process", "/var/tmp/lmbench/hello"),
        ("process", "/usr/lib/lmbench/bin/x86_64-linux-gnu/lat_connect"),
        ("process", "/usr/bin/dash"),
        ("file", "/syslat/1a2b3c4d/measured-file"),
        ("file", "/etc/ld.so.cache"),
        ("file", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
    ],
)
def test_kloudknox_sees_what_the_workload_executes_and_opens(
    kloudknox: Object, kind: str, path: str
) -> None:
    assert any(path.startswith(rule["dir"]) for rule in kloudknox["spec"][kind])


# --- Falco ---------------------------------------------------------------------------------------


def test_falco_has_one_rule_for_each_call() -> None:
    rules = falco_items("rule")
    assert [rule["rule"] for rule in rules] == ["Bench execve", "Bench openat", "Bench connect"]
    assert [rule["condition"] for rule in rules] == [
        f"evt.type = {call} and bench_workload" for call in CALLS
    ]


def test_falco_rules_have_all_fields_and_no_other() -> None:
    for rule in falco_items("rule"):
        assert sorted(rule) == ["condition", "desc", "output", "priority", "rule", "source"]
        assert rule["source"] == "syscall"
        assert rule["priority"] == "INFO"


def test_falco_selects_the_workload() -> None:
    [macro] = falco_items("macro")
    assert macro["macro"] == "bench_workload"
    assert macro["condition"].strip() == (
        "(k8s.ns.name = bench-syscall and k8s.pod.label[app.kubernetes.io/name] = workload)"
    )


def test_falco_needs_no_macro_or_plugin_that_is_not_there() -> None:
    kinds = ["macro", "required_engine_version", "required_plugin_versions", "rule"]
    items = loaded("policies/falco/bench.yaml")
    assert sorted({key for item in items for key in item} & set(kinds)) == kinds
    assert all(set(item) & set(kinds) for item in items)
    [plugins] = falco_items("required_plugin_versions")
    assert plugins["required_plugin_versions"] == [{"name": "container", "version": "0.4.0"}]
    [engine] = falco_items("required_engine_version")
    assert engine["required_engine_version"] == "0.57.0"
    lines = lines_of("policies/falco/bench.yaml")
    assert not [line for line in lines if is_code(line) and "k8smeta." in line]


def test_falco_loads_our_rules_alone_and_counts_drops() -> None:
    values = loaded("policies/falco/values.yaml")
    assert sorted(values) == ["driver", "falco", "falcoctl", "metrics"]
    assert values["driver"] == {"kind": "modern_ebpf"}
    assert values["falcoctl"] == {
        "artifact": {"install": {"enabled": False}, "follow": {"enabled": False}}
    }
    assert values["falco"]["rules_files"] == ["/etc/falco/rules.d"]
    assert values["falco"]["syscall_event_drops"]["threshold"] == 0
    assert values["falco"]["syscall_event_drops"]["actions"] == ["log"]
    assert values["metrics"] == {
        "enabled": True,
        "kernelEventCountersEnabled": True,
        "rulesCountersEnabled": True,
    }


# --- Tetragon ------------------------------------------------------------------------------------


@pytest.fixture
def tetragon() -> Object:
    body: Object = loaded("policies/tetragon/bench.yaml")
    return body


def test_tetragon_policy_is_of_the_kind_that_the_cluster_knows(tetragon: Object) -> None:
    assert tetragon["apiVersion"] == "cilium.io/v1alpha1"
    assert tetragon["kind"] == "TracingPolicyNamespaced"
    assert sorted(tetragon) == ["apiVersion", "kind", "metadata", "spec"]


def test_tetragon_selects_the_workload_and_has_no_other_sensor(tetragon: Object) -> None:
    assert sorted(tetragon["spec"]) == ["kprobes", "podSelector"]
    assert tetragon["spec"]["podSelector"] == {"matchLabels": LABELS}


def test_tetragon_has_one_kprobe_for_each_call(tetragon: Object) -> None:
    kprobes = tetragon["spec"]["kprobes"]
    assert [kprobe["call"] for kprobe in kprobes] == [f"sys_{call}" for call in CALLS]
    for kprobe in kprobes:
        assert sorted(kprobe) == ["args", "call", "return", "syscall"]
        assert kprobe["syscall"] is True
        assert kprobe["return"] is False


def test_tetragon_reads_path_and_address(tetragon: Object) -> None:
    read = [[(arg["index"], arg["type"]) for arg in k["args"]] for k in tetragon["spec"]["kprobes"]]
    assert read == [
        [(0, "string")],
        [(0, "int"), (1, "string")],
        [(0, "int"), (1, "sockaddr")],
    ]


def test_tetragon_counts_drops_and_throttles_nothing() -> None:
    assert loaded("policies/tetragon/values.yaml") == {
        "tetragon": {
            "prometheus": {"enabled": True, "port": 2112},
            "exportRateLimit": -1,
            "enablePolicyFilter": True,
        }
    }


# --- auditd --------------------------------------------------------------------------------------


def test_auditd_observes_the_same_three_calls_of_the_workload() -> None:
    lines = [line for line in lines_of("policies/auditd/bench.rules") if is_code(line)]
    assert lines == [
        f"-a always,exit -F arch=b64 -F gid={WORKLOAD_GROUP} -S execve,openat,connect\n"
    ]
