"""Holding the namespace for one run at a time, and clearing it of earlier ones.

A Lease tells who measures, and since when nothing has been heard of it. It is taken before anything
else in the namespace is touched, and whoever does not hold it removes nothing. A namespace that
isn't ours is never touched. One that an administrator has prepared stays; of it only the objects of
runs are removed.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pytest_syslat.testbeds.cluster_api import AlreadyThere, ClusterApi, Unreachable
from pytest_syslat.testbeds.cluster_objects import (
    LEASE_S,
    is_live,
    label_time,
    lease_time,
    silent_s,
)
from pytest_syslat.testbeds.manifest_objects import (
    KEPT_LABEL,
    NAMESPACE,
    PART_OF,
    PREPARED_LABEL,
    RUN_LABEL,
    RunTags,
    namespace_object,
)
from pytest_syslat.testbeds.outside import JOURNAL, Outside, is_ours
from pytest_syslat.testbeds.protocol import NodeLost, TestbedError

LEASE = "pytest-syslat"
PLACE = "pytest-syslat/process"
RENEWAL_S = 30.0
EXPIRY = timedelta(hours=24)
REMOVAL_LIMIT_S = 120.0
RUN_KINDS = ("Pod", "DaemonSet", "ConfigMap")
OURS = ",".join(f"{key}={value}" for key, value in PART_OF.items())

Object = dict[str, Any]


class ClusterClaim:
    """The namespace, held for a run: a thread renews the Lease until it is released."""

    def __init__(self, api: ClusterApi, rootdir: Path, run_id: str) -> None:
        self._api = api
        self._rootdir = rootdir
        self._run_id = run_id
        self._holder = f"{run_id}@{platform.node()}:{os.getpid()}"
        self.tags = RunTags(run_id, "")
        self.outside = Outside(api, lambda: self.tags, holds=self._holds_or_is_gone)
        self._namespace_uid: str | None = None
        self._held = False
        self._lost: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> list[str]:
        """Make the namespace ours, or use a prepared one.

        Returns:
            What was removed of earlier runs.

        Raises:
            TestbedError: It isn't ours, or another run uses it.
        """
        self.tags = RunTags(self._run_id, label_time(self._api.now() + EXPIRY))
        namespace = self._api.find("Namespace", NAMESPACE)
        if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            wait_until_gone(self._api)
            namespace = None
        if namespace is None:
            namespace = self._created(namespace_object(self._rootdir, self.tags))
            if namespace["metadata"]["labels"].get(RUN_LABEL) == self._run_id:
                self._namespace_uid = namespace["metadata"]["uid"]
        refuse_namespace(namespace)
        self._take_lease()
        if not is_prepared(namespace):
            # From here on it goes with this run, whoever has made it.
            self._namespace_uid = namespace["metadata"]["uid"]
            self._api.apply(namespace_object(self._rootdir, self.tags))
        # With the Lease held, and before the journal goes with all other objects.
        removed = Outside(self._api).undo() + remove_objects(self._api)
        self._thread = threading.Thread(target=self._renew_on_and_on, daemon=True)
        self._thread.start()
        return removed

    def _created(self, body: Object) -> Object:
        try:
            return self._api.create(body)
        except AlreadyThere:
            # Another run was faster, or the answer to our own first attempt was lost.
            return self._api.get(body["kind"], body["metadata"]["name"])

    def _take_lease(self) -> None:
        """Take the Lease, which only one run at a time can; raises TestbedError."""
        try:
            self._store(self._api.create, self._lease())
        except AlreadyThere:
            found = self._api.get("Lease", LEASE, NAMESPACE)
            if found["spec"].get("holderIdentity") == self._holder:
                self._held = True
                return
            refuse_holder(found, self._api)
            self._take_over(found)

    def _store(self, send: Callable[[Object], Object], lease: Object) -> None:
        """Send our Lease; it counts as held unless the server has refused it for certain."""
        self._held = True
        try:
            send(lease)
        except Unreachable:
            raise
        except TestbedError:
            self._held = False
            raise

    def _take_over(self, lease: Object) -> None:
        version = lease["metadata"]["resourceVersion"]
        body = self._lease()
        body["metadata"]["resourceVersion"] = version
        try:
            self._store(self._api.replace, body)
        except AlreadyThere:
            raise TestbedError(
                "another run that started just now measures: wait for its end"
            ) from None

    def _lease(self) -> Object:
        now = lease_time(self._api.now())
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": LEASE,
                "namespace": NAMESPACE,
                "labels": self.tags.labels,
                "annotations": {PLACE: f"{process_numbers()} {os.getpid()}"},
            },
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": LEASE_S,
                "acquireTime": now,
                "renewTime": now,
            },
        }

    def _renew_on_and_on(self) -> None:
        while not self._ended.wait(RENEWAL_S):
            try:
                if not self._still_holds():
                    self._lost = f"another run has taken over the namespace {NAMESPACE}"
                    return
                self._api.apply(self._lease())
            except TestbedError:
                # The server is away: as long as nobody takes over, nothing is lost.
                continue

    def _still_holds(self) -> bool:
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        return lease is not None and lease["spec"].get("holderIdentity") == self._holder

    def _holds_or_is_gone(self) -> bool:
        """Whether nobody else holds the Lease; it may have gone with the namespace."""
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        return lease is None or lease["spec"].get("holderIdentity") == self._holder

    def check(self) -> None:
        """Raise NodeLost if somebody else has taken this run's place."""
        if self._lost:
            raise NodeLost(self._lost)

    def keep(self) -> None:
        """Leave all in place, marked so that no later run removes it unasked."""
        self._end_renewal()
        if self._held and self._still_holds():
            body = self._lease()
            body["metadata"]["labels"] = {**self.tags.labels, KEPT_LABEL: "true"}
            self._api.apply(body)

    def release(self) -> None:
        """Remove all that this run made; raises TestbedError."""
        self._end_renewal()
        if not self._held:
            return
        namespace = self._api.find("Namespace", NAMESPACE)
        if namespace is None:
            return
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        if lease is not None and lease["spec"].get("holderIdentity") != self._holder:
            raise TestbedError(f"{told(lease, self._api)} has taken over: nothing was removed")
        if self.outside.steps():
            # The namespace holds the only list of what must still be undone.
            remove_objects(self._api)
            remove_lease(self._api)
            self._held = False
            raise TestbedError("what an agent's installation left is still there")
        if self._namespace_uid == namespace["metadata"]["uid"]:
            remove_objects(self._api, wait=False)
            remove_namespace(self._api, namespace)
        else:
            remove_objects(self._api)
            remove_lease(self._api)
        self._held = False

    def _end_renewal(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def refuse_namespace(namespace: Object) -> None:
    """Raise TestbedError if no run may use the namespace."""
    if not is_ours(namespace):
        raise TestbedError(
            f"the namespace {NAMESPACE} exists and isn't ours: it lacks the label {OURS}; "
            "delete it, or use another cluster"
        )
    labels = namespace["metadata"].get("labels") or {}
    if labels.get(RUN_LABEL) is None and not is_prepared(namespace):
        raise TestbedError(
            f"the namespace {NAMESPACE} was applied by hand: kubectl delete -k manifests/, or "
            "pytest benchmarks --syslat-clean"
        )


def refuse_holder(lease: Object, api: ClusterApi) -> None:
    """Raise TestbedError if the run that holds a Lease keeps others out."""
    if (lease["metadata"].get("labels") or {}).get(KEPT_LABEL):
        raise TestbedError(
            f"the namespace {NAMESPACE} was kept by --syslat-keep: when you have seen enough, "
            "pytest benchmarks --syslat-clean"
        )
    if is_live(lease, api.now()) and not is_dead_here(lease):
        raise TestbedError(
            f"{told(lease, api)} measures on this cluster: wait for its end, or, if it "
            "is dead, pytest benchmarks --syslat-clean"
        )


def clean(api: ClusterApi) -> list[str]:
    """Remove what runs have left, and return what it was.

    Raises:
        TestbedError: The namespace isn't ours, or a run is at work in it.
    """
    api.version()
    namespace = api.find("Namespace", NAMESPACE)
    if namespace is None:
        return []
    if not is_ours(namespace):
        raise TestbedError(
            f"--syslat-clean: the namespace {NAMESPACE} isn't ours and stays: it lacks the label "
            f"{OURS}"
        )
    lease = api.find("Lease", LEASE, NAMESPACE)
    if lease is not None and is_at_work(lease, api):
        raise TestbedError(
            f"--syslat-clean: {told(lease, api)} is at work: end it, or, if its machine is gone, "
            f"try again in {LEASE_S:g} s"
        )
    undone = Outside(api).undo()
    if is_prepared(namespace):
        return undone + remove_objects(api) + remove_lease(api)
    return undone + remove_objects(api, wait=False) + remove_namespace(api, namespace)


def is_at_work(lease: Object, api: ClusterApi) -> bool:
    """Whether the run that holds a Lease lives, as far as can be told from here."""
    kept = (lease["metadata"].get("labels") or {}).get(KEPT_LABEL)
    return not kept and is_live(lease, api.now()) and not is_dead_here(lease)


def is_dead_here(lease: Object) -> bool:
    """Whether the holder was a process of this machine, and has ended."""
    place = str((lease["metadata"].get("annotations") or {}).get(PLACE))
    numbers, _, pid = place.rpartition(" ")
    return numbers == process_numbers() and not Path("/proc", pid).exists()


def process_numbers() -> str:
    """Where process ids mean the same as here: names of machines are not unique."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def told(lease: Object, api: ClusterApi) -> str:
    """Who holds a Lease, in words."""
    run, _, place = str(lease["spec"].get("holderIdentity")).partition("@")
    host, _, pid = place.rpartition(":")
    return f"run {run} (pid {pid} on {host}, heard of {silent_s(lease, api.now()):.0f} s ago)"


def remove_objects(api: ClusterApi, *, wait: bool = True) -> list[str]:
    """Remove all objects of runs, by default until they are gone; the Lease stays."""
    removed = [
        f"{kind} {NAMESPACE}/{body['metadata']['name']}"
        for kind in RUN_KINDS
        for body in api.list(kind, NAMESPACE, selector=OURS)
        if not body["metadata"].get("ownerReferences")
        and (body["metadata"]["name"] != JOURNAL or not Outside(api).steps())
        and api.delete({**body, "kind": kind})
    ]
    if removed and wait:
        api.wait(
            # The pod of the DaemonSet is gone last: what it must undo on the node is undone then.
            lambda: None if api.list("Pod", NAMESPACE, selector=OURS) else True,
            REMOVAL_LIMIT_S,
            lambda: f"the pods of {NAMESPACE} do not go: kubectl -n {NAMESPACE} describe pods",
        )
    return removed


def remove_lease(api: ClusterApi) -> list[str]:
    """Remove the Lease alone."""
    lease = api.find("Lease", LEASE, NAMESPACE)
    gone = lease is not None and api.delete({**lease, "kind": "Lease"})
    return [f"Lease {NAMESPACE}/{LEASE}"] if gone else []


def remove_namespace(api: ClusterApi, namespace: Object) -> list[str]:
    """Remove the namespace with all that is in it, and wait until it is gone."""
    if not api.delete({**namespace, "kind": "Namespace"}):
        return []
    wait_until_gone(api)
    return [f"Namespace {NAMESPACE}"]


def wait_until_gone(api: ClusterApi) -> None:
    """Wait for the namespace's end; raises TestbedError with what holds it up."""
    api.wait(
        lambda: True if api.find("Namespace", NAMESPACE) is None else None,
        REMOVAL_LIMIT_S,
        _why_not_gone(api),
    )


def _why_not_gone(api: ClusterApi) -> Callable[[], str]:
    def why() -> str:
        namespace = api.find("Namespace", NAMESPACE) or {}
        conditions = [
            f"{each['type']}: {each.get('message')}"
            for each in namespace.get("status", {}).get("conditions") or []
            if each.get("status") == "True"
        ]
        reason = "; ".join(conditions) or "the server gives no reason"
        return (
            f"the namespace {NAMESPACE} is still being deleted ({reason}): "
            f"kubectl get namespace {NAMESPACE} -o yaml"
        )

    return why


def is_prepared(namespace: Object) -> bool:
    """Whether an administrator has made the namespace to stay."""
    return bool((namespace["metadata"].get("labels") or {}).get(PREPARED_LABEL))
