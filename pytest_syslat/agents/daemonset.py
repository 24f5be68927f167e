"""An agent that a DaemonSet runs: installed once, then switched on the measured node alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pytest_syslat.agents.description import OnKubernetes
from pytest_syslat.agents.manifest_source import load_manifests
from pytest_syslat.agents.protocol import AgentError, Processes
from pytest_syslat.resources import resource
from pytest_syslat.testbeds import helm
from pytest_syslat.testbeds.cluster_api import NotFound
from pytest_syslat.testbeds.cluster_objects import (
    daemonset_is_ready,
    is_ready,
    pending_reason,
    pod_problem,
)
from pytest_syslat.testbeds.manifest_objects import NAMESPACE
from pytest_syslat.testbeds.node_switch import affinity_patch, switch_label, with_switch
from pytest_syslat.testbeds.outside import ClusterAccess, is_ours
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError

INSTALL_LIMIT_S = 300.0
"""Images are pulled in it."""
START_LIMIT_S = 120.0
STOP_LIMIT_S = 90.0
PROBLEM_GRACE_S = 20.0
"""A first image pull may fail for a moment."""
DEFINITION_LIMIT_S = 60.0
ASK_LIMIT_S = 20.0
POLL_S = 0.2
IMAGE_MEND = "let the node pull it, or import it there"
ON_NODE = "/proc/1/root"
"""The node's files, as the tracer's pod sees them: it shares the node's process ids."""

Object = dict[str, Any]


class DaemonSetCarrier:
    """One DaemonSet on the measured node."""

    def __init__(
        self, testbed: Testbed, rootdir: Path, name: str, agent: OnKubernetes, chart: str | None
    ) -> None:
        """Nothing is asked yet; raises AgentError where there is no cluster.

        Args:
            testbed: Whose cluster and node are used.
            rootdir: Whose copies of shipped files win.
            name: The agent's, for messages and for what belongs to it.
            agent: What is known of it.
            chart: Where the user has its chart or manifests; None: where the description says.
        """
        if testbed.cluster is None:
            raise AgentError(
                f"{name}: a DaemonSet is measured on a cluster: add --syslat-testbed=kubernetes"
            )
        self._testbed = testbed
        self._cluster: ClusterAccess = testbed.cluster
        self._api = testbed.cluster.api
        self._outside = testbed.cluster.outside.of(name)
        self._rootdir = rootdir
        self._agent = agent
        self._chart = chart
        self.name = name
        self.namespace, _, self.daemonset = agent.daemonset.partition("/")
        self._label = switch_label(self.namespace, self.daemonset)
        self.user: str | None = None
        self.is_foreign = False
        self._prepared = False
        self._pod: Object | None = None
        self._selector = ""
        self._policies: list[Object] = []
        self._new_paths: list[str] = []
        self._reaches_node = False
        """Whether the node's own files can be reached, which a node may forbid even to root."""
        self._definitions: list[str] = []

    # --- Installing ------------------------------------------------------------------------------

    def prepare(self, running: Callable[[], None]) -> None:
        """Install it unless it is there, wait until its pod runs here, and switch it off."""
        if self._prepared:
            return
        self._prepared = True
        try:
            found = self._found()
            self.is_foreign = found is not None
            # Undone last: an agent that is removed is not started once more before.
            self._outside.note({"do": "unlabel", "node": self._cluster.node, "label": self._label})
            if found is None:
                self._refuse_twin()
                self._install()
            elif not daemonset_is_ready(found):
                raise AgentError(
                    f"{self.name}: the pods of DaemonSet {self._agent.daemonset} are not all ready "
                    "and up to date: wait until they are"
                )
            self._await(
                lambda: None if self._found() else f"there is no DaemonSet {self._agent.daemonset}",
                DEFINITION_LIMIT_S,
            )
            self._remember()
            self._await(self._not_running, INSTALL_LIMIT_S)
            self._note_uids()
            self._pod = self._ready_pod()
            running()
            self._add_switch()
            self.stop()
        except TestbedError as error:
            raise AgentError(f"{self.name}: {error}") from error

    def _refuse_twin(self) -> None:
        """Two of a kind on one node share what they pin and where they listen."""
        for other in self._api.list("DaemonSet"):
            if other["metadata"]["name"] == self.daemonset:
                place = f"{other['metadata']['namespace']}/{self.daemonset}"
                raise AgentError(
                    f"{self.name}: there is a DaemonSet {place}: measure that one, as "
                    f"--agent=daemonset:{place}"
                )

    def _found(self) -> Object | None:
        return self._api.find("DaemonSet", self.daemonset, self.namespace)

    def _remember(self) -> None:
        found = self._api.get("DaemonSet", self.daemonset, self.namespace)
        labels: Mapping[str, str] = found["spec"]["selector"].get("matchLabels") or {}
        self._selector = ",".join(f"{key}={value}" for key, value in labels.items())

    def _install(self) -> None:
        agent = self._agent
        if agent.chart is None and agent.manifests is None:
            raise AgentError(
                f"{self.name}: there is no DaemonSet {agent.daemonset}: install it, or give "
                "another one"
            )
        self._reaches_node = self._on_node(["true"]).ok
        if self._reaches_node:
            self._new_paths = [path for path in agent.node_paths if not self._is_on_node(path)]
        for definition in agent.resource_definitions:
            self._note_definition(definition)
        if agent.chart is not None:
            self._make_namespace()
            self._install_chart()
            return
        assert agent.manifests is not None
        for body in load_manifests(agent.manifests, self._chart, self._rootdir):
            self._learn(body)
            self._outside.make(body)

    def _note_definition(self, definition: str) -> None:
        """Its own operator makes it; what was there before stays."""
        api_version, kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
        self._api.learn(api_version, kind)
        if self._api.find(kind, definition) is None:
            self._definitions.append(definition)
            self._outside.note(self._definition_step(definition))

    def _definition_step(self, definition: str, uid: str = "") -> dict[str, str]:
        return {
            "do": "delete",
            "api_version": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "name": definition,
            "made_by": "agent",
            "uid": uid,
        }

    def _note_uids(self) -> None:
        """Note which definitions its operator has made: one that comes later is somebody else's."""
        for definition in self._definitions:
            found = self._api.find("CustomResourceDefinition", definition)
            if found is not None:
                self._outside.replace(
                    self._definition_step(definition),
                    self._definition_step(definition, found["metadata"]["uid"]),
                )

    def _make_namespace(self) -> None:
        found = self._api.find("Namespace", self.namespace)
        if found is None or is_ours(found):
            self._outside.make(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": self.namespace,
                        "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
                    },
                }
            )

    def _install_chart(self) -> None:
        chart = self._agent.chart
        assert chart is not None
        values: Object = {}
        if chart.values:
            values = yaml.safe_load(resource(chart.values, self._rootdir).read_text()) or {}
        if self._agent.policy_config_map:
            # Mounted whether or not an arm has rules; an arm replaces what is in it.
            policy = resource(self._agent.policy, self._rootdir)
            values["customRules"] = {policy.name: policy.read_text()}
        if helm.releases(self._api, chart.release, self.namespace):
            raise AgentError(
                f"{self.name}: there is a Helm release {self.namespace}/{chart.release}, without a "
                f"DaemonSet {self._agent.daemonset}: measure its DaemonSet by name"
            )
        self._outside.note(
            {"do": "uninstall", "release": chart.release, "namespace": self.namespace}
        )
        helm.install(
            self._api.context,
            helm.ChartRequest(
                labels=self._outside.labels(),
                release=chart.release,
                namespace=self.namespace,
                chart=self._chart or chart.name,
                repository=None if self._chart else chart.repository,
                version=None if self._chart else chart.version,
                values=values,
            ),
        )

    def _learn(self, body: Object) -> None:
        """Wait until the server knows a kind: its definition may just have been made."""

        def known() -> str | None:
            try:
                self._api.learn(body["apiVersion"], body["kind"])
            except NotFound as error:
                return str(error)
            return None

        self._await(known, DEFINITION_LIMIT_S)

    def _add_switch(self) -> None:
        """Let a label on the node keep it off; noted first, so that it is taken back."""
        found = self._api.get("DaemonSet", self.daemonset, self.namespace)
        place = {"namespace": self.namespace, "name": self.daemonset, "label": self._label}
        if self.is_foreign:
            self._outside.note({"do": "free", **place})
        self._switch(off=True)
        before = found["spec"]["template"]["spec"].get("affinity")
        change = affinity_patch(with_switch(before, self._label))
        self._api.patch("DaemonSet", self.daemonset, self.namespace, change)

    def _switch(self, *, off: bool) -> None:
        self._outside.check()
        change = {"metadata": {"labels": {self._label: "true" if off else None}}}
        self._api.patch("Node", self._cluster.node, None, change)

    # --- Switching -------------------------------------------------------------------------------

    def start(self, policy: Path | None) -> None:
        """Have its pod made on the node, and wait until it is ready."""
        try:
            if self._agent.policy_config_map:
                self._write_config_map(policy)
            self._pod = None
            self._switch(off=False)
            self._await(self._not_running, START_LIMIT_S)
            self._pod = self._ready_pod()
        except TestbedError as error:
            raise AgentError(f"{self.name}: {error}") from error

    def _write_config_map(self, policy: Path | None) -> None:
        if self.is_foreign:
            # Its rules are its owner's.
            return
        namespace, _, name = self._agent.policy_config_map.partition("/")
        found = self._api.get("ConfigMap", name, namespace)
        data: dict[str, str | None] = dict.fromkeys(found.get("data") or {})
        if policy is not None:
            data[policy.name] = policy.read_text()
        self._api.patch("ConfigMap", name, namespace, {"data": data})

    def apply(self, policy: Path | None) -> None:
        """Make the objects of a policy that isn't read from a ConfigMap."""
        if policy is None or self._agent.policy_config_map:
            return
        try:
            for body in yaml.safe_load_all(policy.read_text()):
                if not body:
                    continue
                self._learn(body)
                if self._api.is_namespaced(body["kind"]):
                    body["metadata"].setdefault("namespace", NAMESPACE)
                self._outside.make(body)
                self._policies.append(body)
        except (TestbedError, yaml.YAMLError, KeyError, TypeError) as error:
            raise AgentError(f"{self.name}: the policy {policy}: {error}") from error

    def policy_status(self) -> str | None:
        """`.status.status` of the first object of the policy."""
        for body in self._policies[:1]:
            status = (self._on_server(body) or {}).get("status") or {}
            return str(status["status"]) if "status" in status else None
        return None

    def _on_server(self, body: Object) -> Object | None:
        metadata = body["metadata"]
        return self._api.find(body["kind"], metadata["name"], metadata.get("namespace"))

    def withdraw(self) -> None:
        """Delete the objects of its policy."""
        while self._policies:
            body = self._policies[-1]
            found = self._on_server(body)
            if found is not None and is_ours(found):
                self._api.delete({**found, "kind": body["kind"]})
            # Forgotten only now: where deleting fails, it is tried again.
            self._policies.pop()

    def stop(self) -> None:
        """Have its pod taken off the node, and wait until it is gone."""
        try:
            self._switch(off=True)
            self._pod = None
            self._await(self.remains, STOP_LIMIT_S)
            if not self.is_foreign:
                self._remove_from_node(self._agent.pins)
        except TestbedError as error:
            raise AgentError(f"{self.name}: {error}") from error

    def remains(self) -> str | None:
        """Whether a pod of it is still on the node."""
        names = [pod["metadata"]["name"] for pod in self._pods()]
        return f"pod {', '.join(names)} is still there" if names else None

    def problem(self) -> str | None:
        """Whether its pod is the one that was started, ready and never started anew."""
        known, found = self._pod, self._ready_pod()
        if known is None:
            return self._not_running()
        if found is None:
            return self._not_running() or "its pod is not ready"
        if found["metadata"]["uid"] != known["metadata"]["uid"]:
            return "its pod was made anew meanwhile"
        restarts = _restarts(found) - _restarts(known)
        return f"its containers were started anew {restarts} times" if restarts else None

    def _pods(self) -> list[Object]:
        return [
            pod
            for pod in self._api.list("Pod", self.namespace, self._selector)
            if self._cluster.node == (pod["spec"].get("nodeName") or _meant_node(pod))
            and any(
                owner["kind"] == "DaemonSet" and owner["name"] == self.daemonset
                for owner in pod["metadata"].get("ownerReferences") or []
            )
        ]

    def _ready_pod(self) -> Object | None:
        return next(
            (
                pod
                for pod in self._pods()
                if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")
            ),
            None,
        )

    def _not_running(self) -> str | None:
        """Why no pod of it is ready; raises AgentError if waiting is in vain."""
        if self._ready_pod() is not None:
            return None
        pods = [pod for pod in self._pods() if not pod["metadata"].get("deletionTimestamp")]
        if not pods:
            return f"DaemonSet {self._agent.daemonset} has no pod on node {self._cluster.node}"
        return (
            pod_problem(pods[0], IMAGE_MEND)
            or f"pod {pods[0]['metadata']['name']}: {pending_reason(pods[0])}"
        )

    def _hopeless(self, waited_s: float) -> str | None:
        if waited_s < PROBLEM_GRACE_S:
            return None
        problems = (pod_problem(pod, IMAGE_MEND) for pod in self._pods())
        return next(filter(None, problems), None)

    def _await(self, reason: Callable[[], str | None], limit_s: float) -> None:
        begin_s = time.monotonic()
        while (why := reason()) is not None:
            waited_s = time.monotonic() - begin_s
            in_vain = self._hopeless(waited_s) if self._selector else None
            if in_vain:
                raise AgentError(f"{self.name}: {in_vain}")
            if waited_s > limit_s:
                raise AgentError(f"{self.name}: not within {limit_s:g} s: {why}")
            time.sleep(POLL_S)

    # --- What it tells ---------------------------------------------------------------------------

    def log(self) -> str:
        """What its container has printed; its pod is new each time."""
        pod = self._running()
        return self._api.log(pod["metadata"]["name"], self.namespace, self._container(pod))

    def execute(self, argv: Sequence[str]) -> Completed:
        """Run a program in its container."""
        pod = self._running()
        return self._api.run(
            pod["metadata"]["name"], self.namespace, self._container(pod), argv, ASK_LIMIT_S
        )

    def address(self) -> str:
        """Its pod's address."""
        return str(self._running()["status"]["podIP"])

    def processes(self) -> Processes:
        """All of its pod: the uid stands in the names of the pod's cgroups."""
        uid = str(self._running()["metadata"]["uid"])
        return Processes(cgroup_marks=(uid, uid.replace("-", "_")))

    def facts(self) -> dict[str, Any]:
        """Image and digest of each container, and who has installed it."""
        found: dict[str, Any] = {
            "daemonset": self._agent.daemonset,
            "installed by": "somebody else: used as it is" if self.is_foreign else "this run",
        }
        for status in self._running()["status"]["containerStatuses"]:
            found[f"image of {status['name']}"] = status["image"]
            found[f"image id of {status['name']}"] = status["imageID"]
        if not (self.is_foreign or self._reaches_node) and self._agent.node_paths:
            paths = ", ".join(self._agent.node_paths)
            found["stays on the node, which lets nobody in"] = paths
        chart = self._agent.chart
        if chart is not None and not self.is_foreign:
            found["chart"] = self._chart or f"{chart.name} {chart.version} of {chart.repository}"
        return found

    def _running(self) -> Object:
        if self._pod is None:
            raise TestbedError(f"{self.name} is not switched on")
        return self._pod

    def _container(self, pod: Object) -> str:
        return self._agent.container or str(pod["spec"]["containers"][0]["name"])

    # --- Removing --------------------------------------------------------------------------------

    def remove(self) -> None:
        """Uninstall what this run has installed; give back what it has only switched."""
        if not self._prepared:
            return
        self._prepared = False
        try:
            self._outside.undo()
            if self.is_foreign:
                self._await(self._not_running, START_LIMIT_S)
            elif self._selector:
                self._await(self.remains, STOP_LIMIT_S)
            paths, self._new_paths = self._new_paths, []
            self._remove_from_node([*paths, *([] if self.is_foreign else self._agent.pins)])
        except TestbedError as error:
            raise AgentError(str(error)) from error

    def _is_on_node(self, path: str) -> bool:
        return self._on_node(["test", "-e", path]).ok

    def _remove_from_node(self, paths: Sequence[str]) -> None:
        # Where the node's files cannot be reached, what is pinned shows by its programs.
        if not (paths and self._reaches_node):
            return
        done = self._on_node(["rm", "-rf", "--one-file-system", "--", *paths])
        if not done.ok:
            raise TestbedError(
                f"{', '.join(paths)} could not be removed from node {self._cluster.node}: "
                f"{done.complaint}"
            )

    def _on_node(self, argv: Sequence[str]) -> Completed:
        """Run a program among the node's own files: links there lead to where they lead there."""
        return self._testbed.run(["chroot", ON_NODE, *argv], role=Role.NODE, timeout_s=ASK_LIMIT_S)


def _meant_node(pod: Object) -> str | None:
    """The node for which a DaemonSet's pod was made, also before it is bound there."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("operator") == "In":
                return str(field["values"][0])
    return None


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses") or [])
