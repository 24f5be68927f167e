"""Who may use the namespace, and what is removed from it: a store of objects for the server."""

from __future__ import annotations

import copy
import os
import subprocess
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.testbeds import cluster_claim
from pytest_syslat.testbeds.cluster_api import AlreadyThere
from pytest_syslat.testbeds.cluster_claim import ClusterClaim, clean, process_numbers
from pytest_syslat.testbeds.protocol import NodeLost, TestbedError

from .servers import NOW, FakeApi, Object

ROOT = Path(__file__).resolve().parents[2]
OURS = {"app.kubernetes.io/part-of": "pytest-syslat"}
OF_RUN = {**OURS, "pytest-syslat/run": "earlier"}
PREPARED = {**OURS, "pytest-syslat/prepared": "true"}

Key = tuple[str, str]


class Store(FakeApi):
    """Objects by kind and name, as far as a claim asks for them."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.deleted: list[Key] = []
        self.lock = threading.Lock()
        self.before_replace: Callable[[], object] = lambda: None

    def add(self, kind: str, name: str, labels: dict[str, str], **more: Any) -> Object:
        """Put an object there, as somebody else did."""
        metadata = {"name": name, "labels": labels, **more.pop("metadata", {})}
        return self.create({"kind": kind, "metadata": metadata, **more})

    def names(self) -> list[str]:
        return sorted(f"{kind} {name}" for kind, name in self.objects)

    # What follows is the protocol of ClusterApi.

    def version(self) -> str:
        return "v1.20.2"

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        with self.lock:
            return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        key, value = selector.split("=")
        return [
            copy.deepcopy(body)
            for (each, _), body in self.objects.items()
            if each == kind and body["metadata"].get("labels", {}).get(key) == value
        ]

    def create(self, body: Object) -> Object:
        key = (body["kind"], body["metadata"]["name"])
        if key in self.objects:
            raise AlreadyThere(f"{key} is there")
        return self._put(key, body, uid=uuid.uuid4().hex)

    def apply(self, body: Object) -> Object:
        key = (body["kind"], body["metadata"]["name"])
        known = self.objects.get(key)
        return self._put(key, body, uid=known["metadata"]["uid"] if known else uuid.uuid4().hex)

    def replace(self, body: Object) -> Object:
        self.before_replace()
        key = (body["kind"], body["metadata"]["name"])
        known = self.get(*key)["metadata"]
        if body["metadata"]["resourceVersion"] != known["resourceVersion"]:
            raise AlreadyThere(f"{key} has changed")
        return self._put(key, body, uid=known["uid"])

    def _put(self, key: Key, body: Object, uid: str) -> Object:
        with self.lock:
            put = copy.deepcopy(body)
            put["metadata"] |= {"uid": uid, "resourceVersion": uuid.uuid4().hex}
            self.objects[key] = put
            return copy.deepcopy(put)

    def delete(self, body: Object) -> bool:
        key = (body["kind"], body["metadata"]["name"])
        known = self.objects.get(key)
        if known is None or known["metadata"]["uid"] != body["metadata"]["uid"]:
            return False
        self.deleted.append(key)
        if key[0] == "Namespace":
            self.objects.clear()
        else:
            del self.objects[key]
        return True


@pytest.fixture
def store() -> Store:
    return Store()


def claim(store: Store, run_id: str = "mine") -> ClusterClaim:
    return ClusterClaim(store.as_api(), ROOT, run_id)


def add_lease(
    store: Store,
    *,
    silent_s: float = 0.0,
    kept: bool = False,
    place: str = "another machine 1",
) -> None:
    renewed = (NOW - timedelta(seconds=silent_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    store.add(
        "Lease",
        "pytest-syslat",
        {**OF_RUN, **({"pytest-syslat/kept": "true"} if kept else {})},
        metadata={"annotations": {"pytest-syslat/process": place}},
        spec={
            "holderIdentity": "earlier@host:1",
            "leaseDurationSeconds": 120,
            "renewTime": renewed,
        },
    )


def add_pods(store: Store) -> None:
    store.add("Pod", "workload", OF_RUN)
    store.add("DaemonSet", "bpftrace", OF_RUN)
    store.add("Pod", "bpftrace-x", {}, metadata={"ownerReferences": [{"kind": "DaemonSet"}]})
    store.add("ConfigMap", "programs", OF_RUN)
    store.add("ConfigMap", "kube-root-ca.crt", {})


def number_of_a_dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


# --- Taking it -----------------------------------------------------------------------------------


def test_run_makes_the_namespace_and_removes_it(store: Store) -> None:
    mine = claim(store)
    assert mine.take() == []
    assert store.names() == ["Lease pytest-syslat", "Namespace bench-syscall"]
    namespace = store.get("Namespace", "bench-syscall")
    assert namespace["metadata"]["labels"]["pytest-syslat/run"] == "mine"
    assert namespace["metadata"]["labels"]["pytest-syslat/expires"] == "20261123T120000Z"
    mine.release()
    assert store.names() == []
    mine.release()


def test_prepared_namespace_stays_and_is_not_changed(store: Store) -> None:
    before = store.add("Namespace", "bench-syscall", PREPARED)
    mine = claim(store)
    mine.take()
    store.add("Pod", "workload", mine.tags.labels)
    store.add("ConfigMap", "theirs", {})
    mine.release()
    assert store.names() == ["ConfigMap theirs", "Namespace bench-syscall"]
    assert store.get("Namespace", "bench-syscall") == before


def refused(store: Store) -> str:
    """A run is refused, and all is as before."""
    before = copy.deepcopy(store.objects)
    mine = claim(store)
    with pytest.raises(TestbedError) as caught:
        mine.take()
    mine.release()
    assert store.objects == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("labels", [{}, {"team": "other"}, {"app.kubernetes.io/part-of": "other"}])
def test_namespace_of_somebody_else(store: Store, labels: dict[str, str]) -> None:
    store.add("Namespace", "bench-syscall", labels)
    store.add("Pod", "workload", OURS)
    told = refused(store)
    assert told.startswith("the namespace bench-syscall exists and isn't ours: ")
    with pytest.raises(TestbedError, match=r"^--syslat-clean: .* isn't ours and stays"):
        clean(store.as_api())
    assert store.deleted == []


def test_namespace_applied_by_hand(store: Store) -> None:
    store.add("Namespace", "bench-syscall", OURS)
    assert "was applied by hand: kubectl delete -k manifests/" in refused(store)


@pytest.mark.parametrize("labels", [OF_RUN, PREPARED], ids=["made by a run", "prepared"])
def test_run_at_work(store: Store, labels: dict[str, str]) -> None:
    store.add("Namespace", "bench-syscall", labels)
    add_lease(store, silent_s=30)
    add_pods(store)
    told = refused(store)
    assert told.startswith("run earlier (pid 1 on host, heard of 30 s ago) measures on this")
    assert "--syslat-clean" in told
    with pytest.raises(TestbedError, match=r"^--syslat-clean: run earlier \(.* is at work"):
        clean(store.as_api())
    assert store.deleted == []


def test_run_at_work_on_this_machine(store: Store) -> None:
    store.add("Namespace", "bench-syscall", OF_RUN)
    add_lease(store, place=f"{process_numbers()} {os.getpid()}")
    assert "measures on this cluster" in refused(store)


def test_kept_pods(store: Store) -> None:
    """However long ago it was."""
    store.add("Namespace", "bench-syscall", OF_RUN)
    add_lease(store, silent_s=1e6, kept=True)
    add_pods(store)
    assert "was kept by --syslat-keep" in refused(store)
    assert "Namespace bench-syscall" in clean(store.as_api())
    assert store.names() == []


@pytest.mark.parametrize("how", ["silent", "dead here", "no lease"])
def test_dead_run_is_removed(store: Store, how: str) -> None:
    store.add("Namespace", "bench-syscall", OF_RUN)
    if how == "silent":
        add_lease(store, silent_s=121)
    elif how == "dead here":
        add_lease(store, place=f"{process_numbers()} {number_of_a_dead_process()}")
    add_pods(store)
    mine = claim(store)
    removed = mine.take()
    assert sorted(removed) == [
        "ConfigMap bench-syscall/programs",
        "DaemonSet bench-syscall/bpftrace",
        "Pod bench-syscall/workload",
    ]
    assert ("Namespace", "bench-syscall") not in store.deleted, "its end would take time"
    lease = store.get("Lease", "pytest-syslat")
    assert lease["spec"]["holderIdentity"].startswith("mine@")
    mine.release()
    assert store.names() == []


def test_two_runs_that_find_the_same_dead_one(store: Store) -> None:
    store.add("Namespace", "bench-syscall", OF_RUN)
    add_lease(store, silent_s=121)
    add_pods(store)
    faster = claim(store, "faster")

    def overtaken() -> None:
        store.before_replace = lambda: None
        faster.take()

    store.before_replace = overtaken
    slower = claim(store, "slower")
    with pytest.raises(TestbedError, match=r"^another run that started just now measures"):
        slower.take()
    slower.release()
    # The slower one has removed nothing of the faster one.
    assert store.get("Lease", "pytest-syslat")["spec"]["holderIdentity"].startswith("faster@")
    faster.release()
    assert store.names() == []


# --- Holding it ----------------------------------------------------------------------------------


def test_lease_is_renewed_until_it_is_released(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_claim, "RENEWAL_S", 0.01)
    mine = claim(store)
    mine.take()
    renewed = threading.Event()
    apply = store.apply

    def watched(body: Object) -> Object:
        renewed.set()
        return apply(body)

    monkeypatch.setattr(store, "apply", watched)
    assert renewed.wait(10)
    mine.check()
    mine.release()
    renewed.clear()
    assert not renewed.wait(0.1)
    assert store.names() == []


def test_run_whose_place_was_taken_ends_and_removes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_claim, "RENEWAL_S", 0.01)
    mine = claim(store)
    mine.take()
    with store.lock:
        store.objects[("Lease", "pytest-syslat")]["spec"]["holderIdentity"] = "other@host:2"
    store.add("Pod", "workload", OURS)
    thread = mine._thread
    assert thread is not None
    thread.join(10)
    with pytest.raises(NodeLost, match="another run has taken over"):
        mine.check()
    with pytest.raises(TestbedError, match=r"^run other \(.* has taken over: nothing was removed"):
        mine.release()
    assert store.deleted == []


def test_keeping(store: Store) -> None:
    mine = claim(store, "kept")
    mine.take()
    store.add("Pod", "workload", mine.tags.labels)
    mine.keep()
    assert store.names() == [
        "Lease pytest-syslat",
        "Namespace bench-syscall",
        "Pod workload",
    ]
    assert "was kept by --syslat-keep" in refused(store)


# --- Clearing it ---------------------------------------------------------------------------------


def test_nothing_to_clear(store: Store) -> None:
    assert clean(store.as_api()) == []


def test_clearing_a_prepared_namespace_leaves_it(store: Store) -> None:
    store.add("Namespace", "bench-syscall", PREPARED)
    add_lease(store, silent_s=121)
    add_pods(store)
    assert sorted(clean(store.as_api())) == [
        "ConfigMap bench-syscall/programs",
        "DaemonSet bench-syscall/bpftrace",
        "Lease bench-syscall/pytest-syslat",
        "Pod bench-syscall/workload",
    ]
    assert ("Namespace", "bench-syscall") in store.objects
