"""What a run makes or changes in a cluster outside its own namespace, so that all of it is undone.

Each step is written down, in a ConfigMap of the run's namespace, before it is done. It is undone in
the reverse order by the run itself, by the next run, or by `--syslat-clean`. A step that is noted
may not have been done: undoing what isn't there does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_syslat.testbeds import helm
from pytest_syslat.testbeds.cluster_api import ClusterApi, NotFound
from pytest_syslat.testbeds.manifest_objects import NAMESPACE, PART_OF, RunTags
from pytest_syslat.testbeds.node_switch import affinity_patch, without_switch
from pytest_syslat.testbeds.protocol import TestbedError

JOURNAL = "outside"
REMOVAL_LIMIT_S = 120.0
HOLDING = ("Namespace", "Terminating")
"""Conditions of a namespace or a definition that tell what keeps it."""

Object = dict[str, Any]
Step = dict[str, str]


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """What an agent that lives in the cluster is handled with."""

    api: ClusterApi
    outside: Outside
    node: str
    """The measured node."""


class Outside:
    """The journal of one cluster."""

    def __init__(
        self,
        api: ClusterApi,
        tags: Callable[[], RunTags] | None = None,
        owner: str = "",
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        """Nothing is asked yet.

        Args:
            api: The cluster.
            tags: Marks of the run that makes things; None for one that only undoes.
            owner: For whom steps are noted and undone; empty: all of them.
            holds: Whether this run still has the cluster to itself.
        """
        self._api = api
        self._tags = tags
        self._owner = owner
        self._holds = holds
        self._written: list[Step] = []

    def of(self, owner: str) -> Outside:
        """The same journal, for the steps of one owner."""
        journal = Outside(self._api, self._tags, owner, self._holds)
        journal._written = self._written
        return journal

    def check(self) -> None:
        """Raise TestbedError if another run has taken this one's place: all is that run's then."""
        if not self._holds():
            raise TestbedError(
                f"another run has taken over the namespace {NAMESPACE}: nothing was changed"
            )

    def labels(self) -> dict[str, str]:
        """What marks an object as made by this run."""
        assert self._tags is not None
        return self._tags().labels

    def make(self, body: Object) -> Object:
        """Make an object that isn't there, or bring one of ours into the state of `body`.

        Raises:
            TestbedError: Somebody else has made an object of that name.
        """
        kind, metadata = body["kind"], body["metadata"]
        self._api.learn(body["apiVersion"], kind)
        found = self._api.find(kind, metadata["name"], metadata.get("namespace"))
        if found is not None and not is_ours(found):
            raise TestbedError(f"{_named(kind, metadata)} exists already and isn't ours: remove it")
        self.note(
            {
                "do": "delete",
                "api_version": body["apiVersion"],
                "kind": kind,
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
            }
        )
        labels = {**metadata.get("labels", {}), **self.labels()}
        return self._api.apply({**body, "metadata": {**metadata, "labels": labels}})

    def note(self, step: Step) -> None:
        """Write a step down; one that is there already stays in its place."""
        self.check()
        steps = self.steps()
        owned = {**step, "for": self._owner}
        if owned not in steps:
            self._write([*steps, owned])

    def replace(self, known: Step, better: Step) -> None:
        """Write a noted step anew, in its place, with more that is known by now."""
        before, after = ({**step, "for": self._owner} for step in (known, better))
        self._write([after if step == before else step for step in self.steps()])

    def steps(self) -> list[Step]:
        """All steps that have not been undone, in their order."""
        journal = self._api.find("ConfigMap", JOURNAL, NAMESPACE)
        if journal is None:
            # Somebody may have deleted the namespace: what this run has done is still to be undone.
            return list(self._written)
        steps: list[Step] = json.loads((journal.get("data") or {}).get("steps", "[]"))
        return steps

    def undo(self) -> list[str]:
        """Undo steps in the reverse order, and return what was removed.

        A step that fails does not keep the others from being undone.

        Raises:
            TestbedError: Steps could not be undone; they stay in the journal.
        """
        self.check()
        removed, problems = [], []
        for step in reversed(self.steps()):
            if self._owner not in ("", step["for"]):
                continue
            try:
                removed += self._undone(step)
            except TestbedError as error:
                problems.append(str(error))
            else:
                self._write([each for each in self.steps() if each != step])
        if problems:
            raise TestbedError("; ".join(problems))
        return removed

    def _undone(self, step: Step) -> list[str]:
        undo: Mapping[str, Callable[[Step], list[str]]] = {
            "delete": self._delete,
            "uninstall": self._uninstall,
            "unlabel": self._unlabel,
            "free": self._free,
        }
        return undo[step["do"]](step)

    def _delete(self, step: Step) -> list[str]:
        kind, name, namespace = step["kind"], step["name"], step.get("namespace") or None
        try:
            self._api.learn(step["api_version"], kind)
        except NotFound:
            # Its definition has gone, and all objects with it.
            return []
        found = self._api.find(kind, name, namespace)
        # An agent's own objects carry no mark of ours: they were noted when they were not there.
        if found is None or not (is_ours(found) or _was_made_by_agent(found, step)):
            return []
        self._api.delete({**found, "kind": kind})
        self._api.wait(
            lambda: True if self._api.find(kind, name, namespace) is None else None,
            REMOVAL_LIMIT_S,
            lambda: self._why_there(kind, name, namespace),
        )
        return [_named(kind, found["metadata"])]

    def _why_there(self, kind: str, name: str, namespace: str | None) -> str:
        found = self._api.find(kind, name, namespace) or {"metadata": {}}
        holding = [
            *found["metadata"].get("finalizers", []),
            *(
                str(each.get("message"))
                for each in found.get("status", {}).get("conditions") or []
                if each.get("status") == "True" and each["type"].startswith(HOLDING)
            ),
        ]
        return (
            f"{kind} {name} is still being deleted ({'; '.join(holding) or 'no reason is given'}): "
            f"kubectl get {kind.lower()} {name}{f' -n {namespace}' if namespace else ''} -o yaml"
        )

    def _uninstall(self, step: Step) -> list[str]:
        if not any(map(is_ours, helm.releases(self._api, step["release"], step["namespace"]))):
            return []
        gone = helm.uninstall(self._api.context, step["release"], step["namespace"])
        return [f"Helm release {step['namespace']}/{step['release']}"] if gone else []

    def _unlabel(self, step: Step) -> list[str]:
        node = self._api.find("Node", step["node"])
        if node is None or step["label"] not in (node["metadata"].get("labels") or {}):
            return []
        change = {"metadata": {"labels": {step["label"]: None}}}
        self._api.patch("Node", step["node"], None, change)
        return [f"label {step['label']} of node {step['node']}"]

    def _free(self, step: Step) -> list[str]:
        found = self._api.find("DaemonSet", step["name"], step["namespace"])
        if found is None:
            return []
        before = found["spec"]["template"]["spec"].get("affinity")
        after = without_switch(before, step["label"])
        if before == after or (not before and not after):
            return []
        self._api.patch("DaemonSet", step["name"], step["namespace"], affinity_patch(after))
        return [f"our condition in DaemonSet {step['namespace']}/{step['name']}"]

    def _write(self, steps: list[Step]) -> None:
        self._written[:] = steps
        if self._api.find("Namespace", NAMESPACE) is None:
            return
        journal: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": JOURNAL, "namespace": NAMESPACE},
            "data": {"steps": json.dumps(steps)},
        }
        if self._tags is not None:
            journal["metadata"]["labels"] = self.labels()
            self._api.apply(journal)
        else:
            self._api.patch("ConfigMap", JOURNAL, NAMESPACE, {"data": journal["data"]})


def is_ours(body: Object) -> bool:
    """Whether an object carries our mark."""
    labels = body["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in PART_OF.items())


def _was_made_by_agent(body: Object, step: Step) -> bool:
    """Whether an agent's operator made it: none was there before, and its uid may be known."""
    return step.get("made_by") == "agent" and step["uid"] in ("", body["metadata"]["uid"])


def _named(kind: str, metadata: Object) -> str:
    namespace = metadata.get("namespace")
    return f"{kind} {namespace + '/' if namespace else ''}{metadata['name']}"
