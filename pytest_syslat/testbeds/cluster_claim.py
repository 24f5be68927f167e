"""Holding the namespace for one run at a time, and clearing it of earlier ones.

A Lease tells who measures and since when nothing has been heard of it. A namespace that isn't ours
is never touched. One that an administrator has prepared stays; of it only the run's own objects
are removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pytest_syslat.testbeds.cluster_api import AlreadyThere, ClusterApi
from pytest_syslat.testbeds.cluster_objects import LEASE_S, age_s, is_live, label_time, lease_time
from pytest_syslat.testbeds.manifest_objects import (
    CONFIG_MAPS,
    KEPT_LABEL,
    NAMESPACE,
    PART_OF,
    PREPARED_LABEL,
    RUN_LABEL,
    SERVER,
    TRACER,
    WORKLOAD,
    RunTags,
    namespace_object,
)
from pytest_syslat.testbeds.protocol import TestbedError

LEASE = "pytest-syslat"
RENEWAL_S = 30.0
EXPIRY = timedelta(hours=24)
REMOVAL_LIMIT_S = 120.0
RUN_OBJECTS = (
    ("Pod", WORKLOAD),
    ("Pod", SERVER),
    ("DaemonSet", TRACER),
    *(("ConfigMap", name) for name in CONFIG_MAPS),
)

Object = dict[str, Any]


class ClusterClaim:
    """The namespace, held for a run."""

    def __init__(self, api: ClusterApi, rootdir: Path, run_id: str) -> None:
        self._api = api
        self._rootdir = rootdir
        self.tags = RunTags(run_id, label_time(datetime.now(UTC) + EXPIRY))
        self._made_namespace = False
        self._holds_lease = False
        self._renewed_s = 0.0

    def take(self) -> list[str]:
        """Make the namespace ours, or use a prepared one.

        Returns:
            What was removed of earlier runs.

        Raises:
            TestbedError: It isn't ours, or another run uses it.
        """
        removed = []
        namespace = self._api.find("Namespace", NAMESPACE)
        if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            wait_until_gone(self._api)
            namespace = None
        if namespace is not None:
            self._refuse_others(namespace)
            removed = remove_run(self._api, namespace)
        if namespace is None or not is_prepared(namespace):
            self._made_namespace = True
            self._made_namespace = self._created(namespace_object(self._rootdir, self.tags))
            if not self._made_namespace:
                raise TestbedError(in_use("another run that started just now"))
        self._holds_lease = True
        self._holds_lease = self._created(self._lease())
        if not self._holds_lease:
            raise TestbedError(in_use("another run that started just now"))
        self._renewed_s = time.monotonic()
        return removed

    def _created(self, body: Object) -> bool:
        """Create an object of this run; False if another run was faster."""
        try:
            self._api.create(body)
        except AlreadyThere:
            metadata = body["metadata"]
            found = self._api.get(body["kind"], metadata["name"], metadata.get("namespace"))
            # The answer to a first attempt of ours may have been lost.
            return (found["metadata"].get("labels") or {}).get(RUN_LABEL) == self.tags.run_id
        return True

    def _refuse_others(self, namespace: Object) -> None:
        labels = namespace["metadata"].get("labels") or {}
        if not is_ours(namespace):
            raise TestbedError(
                f"the namespace {NAMESPACE} exists and isn't ours: it lacks the label "
                f"{_text(PART_OF)}; delete it, or use another cluster"
            )
        now = datetime.now(UTC)
        run = labels.get(RUN_LABEL)
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        if lease is not None and is_live(lease, now):
            raise TestbedError(in_use(f"run {lease['spec'].get('holderIdentity')}"))
        if is_prepared(namespace):
            return
        if run is None:
            raise TestbedError(
                f"the namespace {NAMESPACE} was applied by hand: kubectl delete -k manifests/, or "
                "pytest benchmarks --syslat-clean"
            )
        if labels.get(KEPT_LABEL):
            raise TestbedError(
                f"the namespace {NAMESPACE} was kept by --syslat-keep: when you have seen enough, "
                "pytest benchmarks --syslat-clean"
            )
        if lease is None and age_s(namespace, now) < LEASE_S:
            raise TestbedError(in_use(f"run {run}"))

    def _lease(self) -> Object:
        now = lease_time(datetime.now(UTC))
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": NAMESPACE, "labels": self.tags.labels},
            "spec": {
                "holderIdentity": self.tags.run_id,
                "leaseDurationSeconds": LEASE_S,
                "acquireTime": now,
                "renewTime": now,
            },
        }

    def renew(self) -> None:
        """Tell that this run goes on; raises TestbedError if another one has taken its place."""
        if time.monotonic() - self._renewed_s < RENEWAL_S:
            return
        lease = self._api.find("Lease", LEASE, NAMESPACE)
        if lease is None or lease["spec"].get("holderIdentity") != self.tags.run_id:
            raise TestbedError(f"somebody has removed this run from the namespace {NAMESPACE}")
        self._api.apply(self._lease())
        self._renewed_s = time.monotonic()

    def keep(self) -> None:
        """Leave all in place, marked so that no later run removes it unasked."""
        if self._made_namespace:
            body = namespace_object(self._rootdir, self.tags)
            body["metadata"]["labels"][KEPT_LABEL] = "true"
            self._api.apply(body)
        if self._holds_lease:
            self._api.delete("Lease", LEASE, NAMESPACE)

    def release(self) -> None:
        """Remove all that this run made; raises TestbedError."""
        if not (self._made_namespace or self._holds_lease):
            return
        namespace = self._api.find("Namespace", NAMESPACE)
        if namespace is None:
            return
        run = (namespace["metadata"].get("labels") or {}).get(RUN_LABEL)
        if self._made_namespace and run != self.tags.run_id:
            return
        remove_run(self._api, namespace)
        self._made_namespace = self._holds_lease = False


def clean(api: ClusterApi) -> list[str]:
    """Remove whatever runs have left, dead or alive; what was removed is returned."""
    namespace = api.find("Namespace", NAMESPACE)
    if namespace is None:
        return []
    if not is_ours(namespace):
        raise TestbedError(
            f"--syslat-clean: the namespace {NAMESPACE} isn't ours and stays: it lacks the label "
            f"{_text(PART_OF)}"
        )
    return remove_run(api, namespace)


def remove_run(api: ClusterApi, namespace: Object) -> list[str]:
    """Remove the objects of runs and, unless it was prepared, the namespace; wait until gone."""
    removed = [
        f"{kind} {NAMESPACE}/{name}"
        for kind, name in RUN_OBJECTS
        if api.delete(kind, name, NAMESPACE)
    ]
    if is_prepared(namespace):
        api.wait(
            lambda: _nothing_is_left(api),
            REMOVAL_LIMIT_S,
            lambda: f"the pods of {NAMESPACE} do not go: kubectl -n {NAMESPACE} describe pods",
        )
        if api.delete("Lease", LEASE, NAMESPACE):
            removed.append(f"Lease {NAMESPACE}/{LEASE}")
        return removed
    if api.delete("Namespace", NAMESPACE):
        removed.append(f"Namespace {NAMESPACE}")
    wait_until_gone(api)
    return removed


def _nothing_is_left(api: ClusterApi) -> bool | None:
    # The pod of the DaemonSet is gone last: what it must undo on the node is undone then.
    return None if api.list("Pod", NAMESPACE, selector=_text(PART_OF)) else True


def wait_until_gone(api: ClusterApi) -> None:
    """Wait for the namespace's end; raises TestbedError with what holds it up."""
    api.wait(
        lambda: True if api.find("Namespace", NAMESPACE) is None else None,
        REMOVAL_LIMIT_S,
        _why_not_gone(api),
    )


def _why_not_gone(api: ClusterApi) -> Callable[[], str]:
    def told() -> str:
        namespace = api.find("Namespace", NAMESPACE) or {}
        conditions = [
            f"{each['type']}: {each.get('message')}"
            for each in namespace.get("status", {}).get("conditions") or []
            if each.get("status") == "True"
        ]
        why = "; ".join(conditions) or "the server gives no reason"
        return (
            f"the namespace {NAMESPACE} is still being deleted ({why}): "
            f"kubectl get namespace {NAMESPACE} -o yaml"
        )

    return told


def is_ours(namespace: Object) -> bool:
    """Whether a namespace carries our label."""
    labels = namespace["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in PART_OF.items())


def is_prepared(namespace: Object) -> bool:
    """Whether an administrator has made the namespace to stay."""
    return bool((namespace["metadata"].get("labels") or {}).get(PREPARED_LABEL))


def in_use(by: str) -> str:
    """The refusal of a second run."""
    return (
        f"{by} measures on this cluster: wait for its end, or, if it is dead, "
        "pytest benchmarks --syslat-clean"
    )


def _text(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
