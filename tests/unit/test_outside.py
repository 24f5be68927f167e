"""The journal of what a run makes outside its namespace: noted, done, undone in reverse order."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.testbeds import helm
from pytest_syslat.testbeds.cluster_api import AlreadyThere, NotFound
from pytest_syslat.testbeds.cluster_claim import ClusterClaim, clean
from pytest_syslat.testbeds.manifest_objects import RunTags
from pytest_syslat.testbeds.node_switch import with_switch
from pytest_syslat.testbeds.outside import Outside
from pytest_syslat.testbeds.protocol import TestbedError

from .servers import FakeApi, Object

ROOT = Path(__file__).resolve().parents[2]
OURS = {"app.kubernetes.io/part-of": "pytest-syslat"}
PREPARED = {**OURS, "pytest-syslat/prepared": "true"}
LABEL = "pytest-syslat/off.falco.falco"

Key = tuple[str, str | None, str]


class Cluster(FakeApi):
    """Objects by kind, namespace and name, and the order of what is done to them."""

    context = "my-context"

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.events: list[str] = []
        self.unknown: set[str] = set()
        self.releases: set[str] = set()
        """Releases of Helm that a run of ours has made."""
        self.stuck: set[str] = set()
        """Names whose deletion fails."""
        self.lasting: set[str] = set()
        """Names whose deletion is accepted, and never done."""

    def put(self, kind: str, name: str, namespace: str | None = None, **more: Any) -> Object:
        """Put an object there, as somebody else did."""
        metadata = {"name": name, **more.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        body = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}
        return self._store(body)

    def _store(self, body: Object) -> Object:
        key = self._key(body)
        uid = (self.objects.get(key) or {"metadata": {}})["metadata"].get("uid")
        stored = copy.deepcopy(body)
        stored["metadata"] |= {"uid": uid or uuid.uuid4().hex, "resourceVersion": "1"}
        self.objects[key] = stored
        return copy.deepcopy(stored)

    @staticmethod
    def _key(body: Object) -> Key:
        return body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]

    def has(self, kind: str, name: str, namespace: str | None = None) -> bool:
        return (kind, namespace, name) in self.objects

    # What follows is the protocol of ClusterApi.

    def version(self) -> str:
        return "v1.33.0"

    def learn(self, api_version: str, kind: str) -> None:
        if kind in self.unknown:
            raise NotFound(f"cannot find {kind} of {api_version}")

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        found = copy.deepcopy(self.objects.get((kind, namespace, name)))
        if found is not None:
            # A server leaves it out of what it lists: nobody may need it.
            found.pop("kind")
        return found

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        release = f"{namespace}/{selector.rpartition('=')[2]}"
        if kind == "Secret" and release in self.releases:
            return [{"metadata": {"name": "helm", "labels": OURS}}]
        wanted = dict(each.split("=") for each in selector.split(","))
        return [
            self.get(kind, name, space)
            for each, space, name in list(self.objects)
            if (each, space) == (kind, namespace)
            and wanted.items()
            <= self.objects[each, space, name]["metadata"].get("labels", {}).items()
        ]

    def create(self, body: Object) -> Object:
        if self._key(body) in self.objects:
            raise AlreadyThere(f"{self._key(body)} is there")
        return self._store(body)

    def replace(self, body: Object) -> Object:
        return self._store(body)

    def apply(self, body: Object) -> Object:
        self._told("apply", body)
        return self._store(body)

    def patch(self, kind: str, name: str, namespace: str | None, change: Object) -> Object:
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise NotFound(f"no {kind} {name}")
        if name in self.stuck:
            raise TestbedError(f"cannot change {kind} {name}")
        merge(found, change)
        self._told("change", found)
        return copy.deepcopy(found)

    def delete(self, body: Object) -> bool:
        key = self._key(body)
        kind, _, name = key
        if name in self.stuck:
            raise TestbedError(f"cannot delete {kind} {name}: no right")
        if key not in self.objects:
            return False
        self._told("delete", body)
        if name not in self.lasting:
            del self.objects[key]
        if kind == "Namespace":
            for each in [each for each in self.objects if each[1] == name]:
                del self.objects[each]
        return True

    def _told(self, verb: str, body: Object) -> None:
        kind, name = body["kind"], body["metadata"]["name"]
        if name == "outside":
            verb = "note" if verb == "apply" else verb
        self.events.append(f"{verb} {kind} {name}")


def merge(target: Object, change: Object) -> None:
    """RFC 7386, as the API server applies a merge patch."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge(target[key], value)
        else:
            target[key] = value


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """With our namespace, and Helm that tells what it is asked."""
    cluster = Cluster()
    cluster.put(
        "Namespace", "bench-syscall", metadata={"labels": {**OURS, "pytest-syslat/run": "m"}}
    )
    cluster.releases = {"n/there", "n/stays"}

    def uninstall(context: str, release: str, namespace: str) -> bool:
        assert context == "my-context"
        cluster.events.append(f"uninstall {namespace}/{release}")
        if release in cluster.stuck:
            raise TestbedError(f"cannot uninstall the release {namespace}/{release}: no")
        cluster.releases.remove(f"{namespace}/{release}")
        return True

    monkeypatch.setattr(helm, "uninstall", uninstall)
    return cluster


def mine(cluster: Cluster, owner: str = "falco") -> Outside:
    return Outside(cluster.as_api(), lambda: RunTags("m", "20261123T120000Z")).of(owner)


def somebody(cluster: Cluster) -> Outside:
    """Who only undoes: the next run, or `--syslat-clean`."""
    return Outside(cluster.as_api())


def body(name: str, kind: str = "ConfigMap") -> Object:
    metadata = {"name": name, "namespace": "n", "labels": {"app": "x"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": {"a": "b"}}


# --- Making --------------------------------------------------------------------------------------


def test_object_is_noted_before_it_is_made(cluster: Cluster) -> None:
    made = mine(cluster).make(body("rules"))
    assert cluster.events == ["note ConfigMap outside", "apply ConfigMap rules"]
    assert made["metadata"]["labels"] == {
        "app": "x",
        **OURS,
        "pytest-syslat/run": "m",
        "pytest-syslat/expires": "20261123T120000Z",
    }
    journal = cluster.get("ConfigMap", "outside", "bench-syscall")
    assert journal["metadata"]["labels"].items() >= OURS.items()
    assert json.loads(journal["data"]["steps"]) == [
        {
            "do": "delete",
            "api_version": "v1",
            "kind": "ConfigMap",
            "name": "rules",
            "namespace": "n",
            "for": "falco",
        }
    ]


def test_making_again_brings_ours_into_the_same_state(cluster: Cluster) -> None:
    outside = mine(cluster)
    outside.make(body("rules"))
    changed = body("rules")
    changed["data"] = {"a": "c"}
    outside.make(changed)
    assert cluster.get("ConfigMap", "rules", "n")["data"] == {"a": "c"}
    assert len(outside.steps()) == 1


def test_object_of_somebody_else_is_not_touched(cluster: Cluster) -> None:
    theirs = cluster.put("ConfigMap", "rules", "n")
    with pytest.raises(TestbedError, match=r"^ConfigMap n/rules exists already and isn't ours: "):
        mine(cluster).make(body("rules"))
    assert cluster.events == []
    assert somebody(cluster).undo() == []
    assert cluster.objects["ConfigMap", "n", "rules"] == theirs


# --- Undoing -------------------------------------------------------------------------------------


def test_reverse_order_and_what_was_removed(cluster: Cluster) -> None:
    outside = mine(cluster)
    for name in ("first", "second"):
        outside.make(body(name))
    outside.note({"do": "uninstall", "release": "there", "namespace": "n"})
    outside.make(body("third", "Secret"))
    cluster.events.clear()
    assert outside.undo() == [
        "Secret n/third",
        "Helm release n/there",
        "ConfigMap n/second",
        "ConfigMap n/first",
    ]
    assert [each for each in cluster.events if "outside" not in each] == [
        "delete Secret third",
        "uninstall n/there",
        "delete ConfigMap second",
        "delete ConfigMap first",
    ]
    assert outside.steps() == []
    assert outside.undo() == []


def test_step_leaves_the_journal_only_once_it_is_undone(cluster: Cluster) -> None:
    outside = mine(cluster)
    outside.make(body("first"))
    outside.make(body("second"))
    cluster.events.clear()
    somebody(cluster).undo()
    assert cluster.events == [
        "delete ConfigMap second",
        "change ConfigMap outside",
        "delete ConfigMap first",
        "change ConfigMap outside",
    ]
    # Its marks stay, by which it is removed in the end.
    journal = cluster.get("ConfigMap", "outside", "bench-syscall")
    assert journal["metadata"]["labels"].items() >= OURS.items()


def test_failing_step_stays_and_the_others_are_undone(cluster: Cluster) -> None:
    outside = mine(cluster)
    for name in ("first", "second", "third"):
        outside.make(body(name))
    outside.note({"do": "uninstall", "release": "stays", "namespace": "n"})
    cluster.stuck = {"second", "stays"}
    with pytest.raises(TestbedError) as caught:
        outside.undo()
    assert str(caught.value) == (
        "cannot uninstall the release n/stays: no; cannot delete ConfigMap second: no right"
    )
    assert [step.get("name", step.get("release")) for step in outside.steps()] == [
        "second",
        "stays",
    ]
    assert not cluster.has("ConfigMap", "first", "n")
    assert not cluster.has("ConfigMap", "third", "n")
    cluster.stuck = set()
    assert outside.undo() == ["Helm release n/stays", "ConfigMap n/second"]
    assert outside.steps() == []


def test_object_that_does_not_go(cluster: Cluster) -> None:
    cluster.lasting = {"slow"}
    outside = mine(cluster)
    made = body("slow")
    made["metadata"]["finalizers"] = ["example.org/wait"]
    outside.make(made)
    with pytest.raises(
        TestbedError,
        match=r"^ConfigMap slow is still being deleted \(example\.org/wait\): "
        r"kubectl get configmap slow -n n -o yaml$",
    ):
        outside.undo()
    assert len(outside.steps()) == 1


def test_what_was_noted_and_never_done(cluster: Cluster) -> None:
    """The run was killed in between."""
    cluster.put("Node", "node-1")
    cluster.put("DaemonSet", "falco", "falco", spec={"template": {"spec": {}}})
    outside = mine(cluster)
    outside.note({"do": "delete", "api_version": "v1", "kind": "ConfigMap", "name": "a"})
    outside.note({"do": "uninstall", "release": "absent", "namespace": "n"})
    outside.note({"do": "unlabel", "node": "node-1", "label": LABEL})
    outside.note({"do": "unlabel", "node": "node-2", "label": LABEL})
    for name in ("falco", "absent"):
        outside.note({"do": "free", "namespace": "falco", "name": name, "label": LABEL})
    cluster.events.clear()
    assert outside.undo() == []
    assert {each for each in cluster.events if "outside" not in each} == set()
    assert outside.steps() == []


def test_objects_of_somebody_else_are_never_deleted(cluster: Cluster) -> None:
    """Noted when nothing was there, made by somebody else before this run came to it."""
    outside = mine(cluster)
    outside.note(
        {"do": "delete", "api_version": "v1", "kind": "ConfigMap", "name": "a", "namespace": "n"}
    )
    cluster.put("ConfigMap", "a", "n", metadata={"labels": {"app.kubernetes.io/part-of": "x"}})
    assert outside.undo() == []
    assert cluster.has("ConfigMap", "a", "n")


def test_what_an_agent_makes_by_itself(cluster: Cluster) -> None:
    outside = mine(cluster)
    outside.note(
        {
            "do": "delete",
            "api_version": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "name": "tracingpolicies.cilium.io",
            "made_by": "agent",
            "uid": "",
        }
    )
    cluster.put("CustomResourceDefinition", "tracingpolicies.cilium.io")
    assert outside.undo() == ["CustomResourceDefinition tracingpolicies.cilium.io"]


def test_what_an_agent_made_is_known_by_its_uid(cluster: Cluster) -> None:
    outside = mine(cluster)
    step = {"do": "delete", "api_version": "v1", "kind": "CRD", "name": "c", "made_by": "agent"}
    outside.note({**step, "uid": ""})
    theirs = cluster.put("CRD", "c")
    outside.replace({**step, "uid": ""}, {**step, "uid": theirs["metadata"]["uid"]})
    del cluster.objects["CRD", None, "c"]
    cluster.put("CRD", "c")
    assert somebody(cluster).undo() == []
    assert cluster.has("CRD", "c"), "somebody else's of that name came later"


def test_release_of_somebody_else_stays(cluster: Cluster) -> None:
    labels = {"owner": "helm", "name": "theirs"}
    cluster.put("Secret", "helm.theirs", "n", metadata={"labels": labels})
    mine(cluster).note({"do": "uninstall", "release": "theirs", "namespace": "n"})
    assert somebody(cluster).undo() == []
    assert cluster.has("Secret", "helm.theirs", "n")


def test_run_whose_place_another_has_taken_changes_nothing(cluster: Cluster) -> None:
    held = [True]
    tags = RunTags("m", "20261123T120000Z")
    outside = Outside(cluster.as_api(), lambda: tags, holds=lambda: held[0]).of("falco")
    outside.make(body("rules"))
    held[0] = False
    for change in (outside.undo, lambda: outside.make(body("more")), outside.check):
        with pytest.raises(TestbedError, match="another run has taken over"):
            change()
    assert cluster.has("ConfigMap", "rules", "n")
    assert not cluster.has("ConfigMap", "more", "n")


def test_kind_that_is_not_known_any_more(cluster: Cluster) -> None:
    outside = mine(cluster)
    outside.make(body("a", "TracingPolicyNamespaced"))
    cluster.unknown = {"TracingPolicyNamespaced"}
    assert outside.undo() == []
    assert outside.steps() == []


def test_switch_is_taken_back(cluster: Cluster) -> None:
    cluster.put("Node", "node-1", metadata={"labels": {LABEL: "true", "zone": "a"}})
    before = {"podAntiAffinity": {"preferred": ["x"]}}
    spec = {"template": {"spec": {"affinity": with_switch(before, LABEL), "hostPID": True}}}
    cluster.put("DaemonSet", "falco", "falco", spec=spec)
    outside = mine(cluster)
    outside.note({"do": "free", "namespace": "falco", "name": "falco", "label": LABEL})
    outside.note({"do": "unlabel", "node": "node-1", "label": LABEL})
    assert outside.undo() == [
        f"label {LABEL} of node node-1",
        "our condition in DaemonSet falco/falco",
    ]
    assert cluster.get("Node", "node-1")["metadata"]["labels"] == {"zone": "a"}
    found = cluster.get("DaemonSet", "falco", "falco")
    assert found["spec"]["template"]["spec"] == {"affinity": before, "hostPID": True}


def test_owners_are_apart(cluster: Cluster) -> None:
    mine(cluster, "falco").make(body("a"))
    mine(cluster, "tetragon").make(body("b"))
    assert mine(cluster, "falco").undo() == ["ConfigMap n/a"]
    assert [step["for"] for step in mine(cluster).steps()] == ["tetragon"]
    assert somebody(cluster).undo() == ["ConfigMap n/b"]


def test_run_remembers_what_somebody_has_deleted_the_list_of(cluster: Cluster) -> None:
    journal = Outside(cluster.as_api(), lambda: RunTags("m", "20261123T120000Z"))
    journal.of("falco").make(body("rules"))
    journal_map = cluster.get("ConfigMap", "outside", "bench-syscall")
    cluster.delete({**journal_map, "kind": "ConfigMap"})
    cluster.delete({**cluster.get("Namespace", "bench-syscall"), "kind": "Namespace"})
    assert journal.undo() == ["ConfigMap n/rules"]
    assert not cluster.has("ConfigMap", "rules", "n")
    assert journal.steps() == []


def test_nothing_was_noted(cluster: Cluster) -> None:
    assert somebody(cluster).steps() == []
    assert somebody(cluster).undo() == []
    assert cluster.events == []


# --- The claim on the namespace ------------------------------------------------------------------


def claim(cluster: Cluster) -> ClusterClaim:
    return ClusterClaim(cluster.as_api(), ROOT, "next")


def killed(cluster: Cluster) -> None:
    """What a run has left that was killed with an agent installed."""
    outside = mine(cluster)
    outside.make(body("rules"))
    outside.note({"do": "uninstall", "release": "there", "namespace": "n"})
    cluster.put("Pod", "workload", "bench-syscall", metadata={"labels": OURS})
    cluster.events.clear()


def test_next_run_undoes_first(cluster: Cluster) -> None:
    killed(cluster)
    next_run = claim(cluster)
    assert next_run.take() == [
        "Helm release n/there",
        "ConfigMap n/rules",
        "Pod bench-syscall/workload",
        "ConfigMap bench-syscall/outside",
    ]
    assert cluster.has("Lease", "pytest-syslat", "bench-syscall")
    next_run.release()
    assert cluster.objects == {}


def test_next_run_does_not_measure_beside_what_is_stuck(cluster: Cluster) -> None:
    killed(cluster)
    cluster.stuck = {"rules"}
    next_run = claim(cluster)
    with pytest.raises(TestbedError, match=r"^cannot delete ConfigMap rules: no right$"):
        next_run.take()
    with pytest.raises(TestbedError, match="what an agent's installation left is still there"):
        next_run.release()
    # The journal stays with its namespace, and nobody holds it.
    assert [step["name"] for step in somebody(cluster).steps()] == ["rules"]
    assert not cluster.has("Lease", "pytest-syslat", "bench-syscall")
    cluster.stuck = set()
    again = claim(cluster)
    assert "ConfigMap n/rules" in again.take()
    again.release()
    assert cluster.objects == {}


def test_release_keeps_the_journal_while_something_is_left(cluster: Cluster) -> None:
    this = claim(cluster)
    this.take()
    this.outside.of("falco").make(body("rules"))
    cluster.put("Pod", "workload", "bench-syscall", metadata={"labels": OURS})
    with pytest.raises(TestbedError, match="what an agent's installation left is still there"):
        this.release()
    assert not cluster.has("Pod", "workload", "bench-syscall")
    assert len(somebody(cluster).steps()) == 1
    this.release()
    assert clean(cluster.as_api()) == [
        "ConfigMap n/rules",
        "ConfigMap bench-syscall/outside",
        "Namespace bench-syscall",
    ]
    assert cluster.objects == {}


def test_release_after_the_agents_are_gone(cluster: Cluster) -> None:
    this = claim(cluster)
    this.take()
    outside = this.outside.of("falco")
    outside.make(body("rules"))
    outside.undo()
    this.release()
    assert cluster.objects == {}


def test_cleaning(cluster: Cluster) -> None:
    killed(cluster)
    cluster.stuck = {"rules"}
    with pytest.raises(TestbedError, match="cannot delete ConfigMap rules"):
        clean(cluster.as_api())
    assert cluster.has("Namespace", "bench-syscall")
    assert [step["name"] for step in somebody(cluster).steps()] == ["rules"]
    cluster.stuck = set()
    assert clean(cluster.as_api()) == [
        "ConfigMap n/rules",
        "Pod bench-syscall/workload",
        "ConfigMap bench-syscall/outside",
        "Namespace bench-syscall",
    ]
    assert cluster.objects == {}


def test_cleaning_a_prepared_namespace(cluster: Cluster) -> None:
    cluster.put("Namespace", "bench-syscall", metadata={"labels": PREPARED})
    killed(cluster)
    clean(cluster.as_api())
    assert list(cluster.objects) == [("Namespace", None, "bench-syscall")]


def test_own_changes_are_undone_by_their_agent_and_not_by_the_claim(cluster: Cluster) -> None:
    """A run that takes over a live one's place must not undo what that one still uses."""
    this = claim(cluster)
    this.take()
    this.outside.of("falco").make(body("rules"))
    other = ClusterClaim(cluster.as_api(), ROOT, "other")
    with pytest.raises(TestbedError, match="measures on this cluster"):
        other.take()
    other.release()
    with pytest.raises(TestbedError, match="is at work"):
        clean(cluster.as_api())
    assert cluster.has("ConfigMap", "rules", "n")
    this.outside.undo()
    this.release()
