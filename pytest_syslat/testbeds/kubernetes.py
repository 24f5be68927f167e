"""A node of a Kubernetes cluster as a testbed: three pods, results on the user's machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from kubernetes.stream.ws_client import WSClient

from pytest_syslat.testbeds import readings
from pytest_syslat.testbeds.cluster_api import ClusterApi
from pytest_syslat.testbeds.cluster_claim import ClusterClaim
from pytest_syslat.testbeds.cluster_objects import (
    choose_node,
    daemonset_is_ready,
    ipv4_address,
    is_ready,
    pending_reason,
    pod_problem,
)
from pytest_syslat.testbeds.cores import choose_core, cores_beside, parse_core_list
from pytest_syslat.testbeds.manifest_objects import (
    NAMESPACE,
    SERVER,
    TRACER,
    WORKLOAD,
    config_map_objects,
    pod_object,
    shipped_files,
)
from pytest_syslat.testbeds.outside import ClusterAccess
from pytest_syslat.testbeds.pod_channel import PodChannel
from pytest_syslat.testbeds.protocol import (
    Completed,
    CoreTimes,
    Endpoint,
    FileState,
    Filter,
    NodeLost,
    Process,
    Role,
    TestbedError,
    WorkloadScope,
)
from pytest_syslat.tools import LMBENCH_PROGRAMS, Tool, ToolMissing

WORKDIR = Path("/syslat")
RUNNER = ["python3", "-I", "-S", "/programs/pod_runner.py", str(WORKDIR)]
PROBLEM_GRACE_S = 20.0
"""A first image pull may fail, and a node be full, for a moment."""
START_LIMIT_S = 660.0
ACCOUNT_LIMIT_S = 30.0
ASK_LIMIT_S = 20.0
NODE_CGROUPS = "/node/cgroup"
"""Where the tracer's pod has the node's cgroups."""
ROLE_PODS = {
    Role.WORKLOAD: WORKLOAD,
    Role.SERVER: SERVER,
    Role.TRACER: TRACER,
    Role.NODE: TRACER,
}
FIND_PROCESS = """
import os, sys
namespace, inner = map(int, sys.argv[1:])
for name in filter(str.isdecimal, os.listdir("/proc")):
    try:
        if os.stat(f"/proc/{name}/ns/pid").st_ino != namespace:
            continue
        with open(f"/proc/{name}/status") as status:
            pids = next(line.split() for line in status if line.startswith("NSpid:"))
    except OSError:
        continue
    if int(pids[-1]) == inner:
        print(name)
"""
FIND_LMBENCH = """
chosen=$1; shift
if [ -n "$chosen" ]; then set -- "$chosen" "$@"; else
    found=$(command -v lat_syscall)
    for directory in "${found%/*}" /usr/lib/lmbench/bin/*; do
        missing=
        for name; do [ -x "$directory/$name" ] || missing=yes; done
        [ -n "$missing" ] || { echo "$directory"; exit 0; }
    done
    exit 1
fi
shift
for name; do [ -x "$chosen/$name" ] || exit 1; done
echo "$chosen"
"""

Object = dict[str, Any]


class KubernetesTestbed:
    """Runs the workload, the server and the tracer in pods on one node.

    The measured core is one of those that the workload's pod may use; tracer and server keep off
    it. The workload's programs share the core with the runner that starts them, which sleeps
    meanwhile: on another core it would use up a part of the pod's quota of CPU time, and the
    workload would be throttled.
    """

    __test__: ClassVar[bool] = False
    name = "kubernetes"
    python = "python3"
    workdir = WORKDIR

    def __init__(
        self,
        *,
        run_id: str,
        rootdir: Path,
        pin_core: int,
        context: str | None = None,
        node: str | None = None,
        image: str | None = None,
        drop_caches: bool = False,
        keep: bool = False,
        warnings: list[str] | None = None,
    ) -> None:
        """Read the kubeconfig; nothing is made before `open`. Raises TestbedError.

        Args:
            run_id: Label of all that is made.
            rootdir: Whose copies of the manifests win over the shipped ones.
            pin_core: The core to measure on, if the workload's pod may use it.
            context: Of the kubeconfig; None for the current one.
            node: The node to measure on; None for the only schedulable one.
            image: Replaces that of the manifests.
            drop_caches: Whether the node's page cache may be dropped before each trial.
            keep: Whether all stays in place at the end.
            warnings: Takes sentences for the user, also later ones.
        """
        self._api = ClusterApi(context)
        self._claim = ClusterClaim(self._api, rootdir, run_id)
        self._rootdir = rootdir
        self._pin_core = pin_core
        self._wanted_node = node
        self._image = image
        self._drop_caches = drop_caches
        self._keep = keep
        self._as_root = False
        self._pods: dict[str, Object] = {}
        self._channels: dict[str, PodChannel] = {}
        self._cgroups: list[PurePosixPath] = []
        self._cgroup2: PurePosixPath | None = None
        self._bound = False
        self._measured_core: int | None = None
        self._beside: dict[str, list[int]] = {}
        self.warnings: list[str] = [] if warnings is None else warnings
        self.node = ""
        self.core = pin_core
        self.core_problem: str | None = None
        self.machine = ""
        self.generation = 0
        self.endpoint: Endpoint | None = None
        self.scope = WorkloadScope(Filter.PID_NAMESPACE, 0)

    def open(self) -> None:
        """Put everything in place on the node; raises TestbedError, and `close` is due then."""
        self._version = self._api.version()
        self._node = choose_node(self._wanted_node, self._nodes())
        self.node = self._node["metadata"]["name"]
        removed = self._claim.take()
        if removed:
            self.warnings.append(f"removed what an earlier run had left: {', '.join(removed)}")
        for body in config_map_objects(self._rootdir, self._claim.tags):
            self._api.apply(body)
        self._make_tracer()
        self._make_workload_and_server()
        self._bind()

    def _nodes(self) -> list[Object]:
        if self._wanted_node is not None:
            named = self._api.find("Node", self._wanted_node)
            if named is not None:
                return [named]
        return self._api.list("Node")

    # --- Pods ----------------------------------------------------------------------------------

    def _make_tracer(self) -> None:
        self._api.apply(self._object(TRACER))
        self._await_pod(TRACER)
        self._api.wait(
            lambda: daemonset_is_ready(self._api.get("DaemonSet", TRACER, NAMESPACE)) or None,
            ASK_LIMIT_S,
            lambda: f"the DaemonSet {TRACER} did not become ready",
        )
        shown = self._api.run(
            self._pod_name(TRACER),
            NAMESPACE,
            TRACER,
            ["sh", "-c", FIND_LMBENCH, "sh", ""] + list(LMBENCH_PROGRAMS),
            ASK_LIMIT_S,
        )
        # One image for all pods: what the tracer's lacks, theirs lack as well.
        self._as_root = not shown.ok

    def _make_workload_and_server(self) -> None:
        for name in (WORKLOAD, SERVER):
            self._make_pod(name)
        for name in (WORKLOAD, SERVER):
            self._await_pod(name)

    def _bind(self) -> None:
        """Connect to the pods and find out where they are; done again after any was made anew."""
        self._bound = False
        self._choose_cores()
        self._connect()
        self._find_workload()
        self._find_server()
        self._bound = True

    def _find_server(self) -> None:
        server = self._channel(Role.SERVER)
        cores = ",".join(map(str, self._beside[SERVER]))
        # The server is the pod's first process, and was there before its cores were chosen.
        moved = server.run(
            ["taskset", "--all-tasks", "--cpu-list", "--pid", cores, "1"], timeout_s=ASK_LIMIT_S
        )
        if not moved.ok:
            raise TestbedError(f"the TCP server cannot be kept off the core: {moved.complaint}")
        said = server.read(WORKDIR / "ready").decode().split()
        if len(said) != 2:
            raise TestbedError(f"the TCP server in pod {SERVER} did not say that it is ready")
        self.endpoint = Endpoint(ipv4_address(self._pods[SERVER]), int(said[1]))

    def _make_pod(self, name: str) -> None:
        body = self._object(name)
        deadline = time.monotonic() + ACCOUNT_LIMIT_S
        while True:
            try:
                self._api.apply(body)
            except TestbedError as error:
                # A new namespace has its default service account only after a moment.
                if "service account" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _object(self, name: str) -> Object:
        return pod_object(
            name,
            self._rootdir,
            self._claim.tags,
            node=self.node,
            image=self._image,
            as_root=self._as_root and name != TRACER,
        )

    def _await_pod(self, name: str) -> None:
        begin_s = time.monotonic()
        last: list[Object] = []

        def started() -> Object | None:
            pod = self._find_pod(name)
            last[:] = [pod] if pod else []
            waited_s = time.monotonic() - begin_s
            if pod is None:
                if waited_s > PROBLEM_GRACE_S:
                    raise TestbedError(f"pod {name} is not made: {self._why_no_pod(name)}")
                return None
            further = {each["name"] for each in pod["spec"]["containers"]} - {name}
            if further:
                raise TestbedError(
                    f"pod {name} was given further containers ({', '.join(sorted(further))}): "
                    f"what is measured would pass through them; exempt the namespace {NAMESPACE}"
                )
            if is_ready(pod):
                return pod
            problem = pod_problem(pod)
            unschedulable = "cannot be scheduled" in pending_reason(pod)
            if (problem or unschedulable) and waited_s > PROBLEM_GRACE_S:
                raise TestbedError(problem or f"pod {name}: {pending_reason(pod)}")
            return None

        self._pods[name] = self._api.wait(
            started,
            START_LIMIT_S,
            lambda: (
                f"pod {name} was not ready within {START_LIMIT_S:g} s: "
                + (pending_reason(last[0]) if last else self._why_no_pod(name))
            ),
        )

    def _find_pod(self, name: str) -> Object | None:
        if name != TRACER:
            return self._api.find("Pod", name, NAMESPACE)
        pods = self._api.list("Pod", NAMESPACE, f"app.kubernetes.io/name={TRACER}")
        present = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        # One that has no place yet is bound to our node all the same.
        return next(
            (pod for pod in present if pod["spec"].get("nodeName") in (None, self.node)), None
        )

    def _why_no_pod(self, name: str) -> str:
        events = [
            each
            for each in self._api.list("Event", NAMESPACE)
            if each.get("type") == "Warning" and each["involvedObject"]["name"].startswith(name)
        ]
        events.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime")))
        return str(events[-1].get("message")) if events else "the cluster gives no reason"

    def _pod_name(self, name: str) -> str:
        return str(self._pods[name]["metadata"]["name"])

    # --- Cores, connections and the workload's place ---------------------------------------------

    def _choose_cores(self) -> None:
        workload_cores = self._cores_of(WORKLOAD)
        self.core, warning = choose_core(
            self._pin_core, workload_cores, lambda core: core in workload_cores
        )
        if warning and not self.generation:
            self.warnings.append(f"--syslat-pin-core: {warning}")
        if self._measured_core not in (None, self.core):
            raise NodeLost(
                f"the workload's new pod may use core {self.core} and not {self._measured_core} "
                "as before: figures from two cores are not compared; run again"
            )
        self._measured_core = self.core
        siblings = self._in_pod(
            TRACER,
            ["cat", f"/sys/devices/system/cpu/cpu{self.core}/topology/thread_siblings_list"],
        )
        known = parse_core_list(siblings.stdout) if siblings.ok else {self.core}
        for name in (TRACER, SERVER):
            self._beside[name], problem = cores_beside(self.core, self._cores_of(name), known)
            self.core_problem = problem or self.core_problem

    def _cores_of(self, name: str) -> list[int]:
        shown = self._in_pod(
            name, ["cat", "/proc/1/status" if name != TRACER else "/proc/self/status"]
        )
        for line in shown.stdout.splitlines():
            if line.startswith("Cpus_allowed_list:"):
                return sorted(parse_core_list(line.split()[1]))
        raise TestbedError(f"the cores of pod {name} cannot be read: {shown.complaint}")

    def _in_pod(self, name: str, argv: Sequence[str]) -> Completed:
        return self._api.run(self._pod_name(name), NAMESPACE, name, argv, ASK_LIMIT_S)

    def _connect(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels = {
            name: PodChannel(self._pod_name(name), lambda name=name: self._dial(name))  # type: ignore[misc]
            for name in (TRACER, SERVER, WORKLOAD)
        }

    def _dial(self, name: str) -> WSClient:
        cores = [self.core] if name == WORKLOAD else self._beside[name]
        pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *RUNNER]
        # A beat on the measured core would be a disturbance.
        beat = [] if name == WORKLOAD else ["--beat"]
        return self._api.connect(self._pod_name(name), NAMESPACE, name, [*pinned, *beat])

    def _channel(self, role: Role) -> PodChannel:
        name = ROLE_PODS[role]
        if name not in self._channels:
            raise TestbedError("the testbed is closed")
        return self._channels[name]

    def _find_workload(self) -> None:
        """Find the workload's cgroups on the node, and what the tracer filters by."""
        tracer, workload = self._channel(Role.TRACER), self._channel(Role.WORKLOAD)
        if not workload.place:
            workload.ask("hello")
        place = workload.place
        self.machine = str(place["machine"])
        self._clock_ticks = int(place["clock_ticks"])
        found = tracer.run(
            [self.python, "-I", "-S", "-c", FIND_PROCESS]
            + [str(place["pid_namespace"]), str(place["pid"])],
            timeout_s=ASK_LIMIT_S,
        )
        if not found.stdout.strip():
            raise TestbedError(
                "the workload's process is not seen on the node: is hostPID allowed?"
            )
        pid = found.stdout.split()[0]
        # A privileged pod is in the node's cgroup namespace: the paths hold for the node's mounts.
        lines = tracer.read(Path(f"/proc/{pid}/cgroup")).decode().splitlines()
        mounts = [
            line
            for line in tracer.read(Path("/proc/self/mountinfo")).decode().splitlines()
            if line.split()[4].startswith(NODE_CGROUPS)
        ]
        self._cgroups = []
        self._cgroup2 = None
        mount2, path2 = readings.cgroup2_mount(mounts), readings.cgroup_path(lines, "")
        mount1, path1 = readings.cpu1_mount(mounts), readings.cgroup_path(lines, "cpu")
        # Where the runtime puts no pod into v2, strangers share the cgroup.
        if mount2 is not None and path2 is not None and self._is_of_the_workload(path2):
            self._cgroups += readings.with_ancestors(mount2, path2)
            self._cgroup2 = self._cgroups[0]
        if mount1 is not None and path1 is not None:
            self._cgroups += readings.with_ancestors(mount1, path1)
        self.scope = WorkloadScope(Filter.PID_NAMESPACE, int(place["pid_namespace"]))
        if self._cgroup2 is not None:
            self.scope = WorkloadScope(Filter.CGROUP, tracer.inode(Path(self._cgroup2)))

    def _is_of_the_workload(self, cgroup: PurePosixPath) -> bool:
        uid = str(self._pods[WORKLOAD]["metadata"]["uid"])
        container = self._pods[WORKLOAD]["status"]["containerStatuses"][0]["containerID"]
        marks = (uid, uid.replace("-", "_"), container.rpartition("/")[2])
        return any(mark in str(cgroup) for mark in marks)

    def renew(self) -> None:
        """Before each trial: the run goes on, and pods that somebody has deleted come back."""
        self._claim.check()
        lost = [name for name in self._pods if not self._is_the_same(name)]
        if self._bound and not lost:
            for channel in self._channels.values():
                channel.refresh()
            return
        if lost:
            self.warnings.append(f"made anew during the run: pod {', '.join(lost)}")
        self._bound = False
        self.generation += 1
        for channel in self._channels.values():
            channel.close()
        if TRACER in lost:
            self._make_tracer()
        for name in lost:
            there = None if name == TRACER else self._api.find("Pod", name, NAMESPACE)
            if there is not None and self._api.delete({**there, "kind": "Pod"}):
                self._await_removal(name)
        self._make_workload_and_server()
        self._bind()

    def _is_the_same(self, name: str) -> bool:
        known, found = self._pods[name], self._find_pod(name)
        return (
            found is not None
            and found["metadata"]["uid"] == known["metadata"]["uid"]
            and not found["metadata"].get("deletionTimestamp")
            and is_ready(found)
            and _restarts(found) == _restarts(known)
        )

    def _await_removal(self, name: str) -> None:
        self._api.wait(
            lambda: True if self._api.find("Pod", name, NAMESPACE) is None else None,
            ASK_LIMIT_S * 3,
            lambda: f"pod {name} does not go: kubectl -n {NAMESPACE} describe pod {name}",
        )

    # --- The protocol ----------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program to its end in the pod of its role."""
        return self._channel(role).run(argv, timeout_s=timeout_s, env=env)

    def start(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program in the background, its output in files of the pod."""
        return self._channel(role).start(argv, stdout=stdout, stderr=stderr, env=env)

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        """A file of the role's pod; the tracer's /proc and /sys are the node's own."""
        return self._channel(role).read(path, offset)

    def write(self, path: Path, data: bytes, *, role: Role, executable: bool = False) -> None:
        """Write a file of the role's pod."""
        self._channel(role).write(path, data, executable=executable)

    def remove(self, path: Path, *, role: Role) -> None:
        """Remove a file or an empty directory."""
        self._channel(role).remove(path)

    def state(self, path: Path, *, role: Role) -> FileState | None:
        """What is seen of a file."""
        return self._channel(role).state(path)

    @property
    def cluster(self) -> ClusterAccess:
        """By which agents in the cluster are installed and switched."""
        return ClusterAccess(self._api, self._claim.outside, self.node)

    def facts(self) -> dict[str, str]:
        """Cluster, runtime, image and what the pod is confined by."""
        info = self._node["status"].get("nodeInfo", {})
        container = self._pods[WORKLOAD]["status"]["containerStatuses"][0]
        status = self._channel(Role.WORKLOAD).read(Path("/proc/self/status")).decode()
        seccomp = next(
            (line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:")), "?"
        )
        return {
            "distribution": str(info.get("osImage")),
            "context": self._api.context,
            "namespace": NAMESPACE,
            "Kubernetes": self._version,
            "kubelet": str(info.get("kubeletVersion")),
            "container runtime": str(info.get("containerRuntimeVersion")),
            "image": str(container["image"]),
            "image id": str(container["imageID"]),
            "image has the tools": "no: installed in the pods" if self._as_root else "yes",
            "workload's quality of service": str(self._pods[WORKLOAD]["status"].get("qosClass")),
            "workload's seccomp mode": {"0": "off", "1": "strict", "2": "filter"}.get(
                seccomp, seccomp
            ),
            "page cache": "dropped before each trial" if self._drop_caches else "kept",
            "run": self._claim.tags.run_id,
            **{
                f"SHA-256 of {relative}": hashlib.sha256(path.read_bytes()).hexdigest()
                for relative, path in shipped_files(self._rootdir).items()
            },
        }

    def find_lmbench(self, chosen: Path | None) -> Path:
        """The directory of lmbench's programs in the workload's pod; raises ToolMissing."""
        shown = self.run(
            ["sh", "-c", FIND_LMBENCH, "sh", str(chosen or ""), *LMBENCH_PROGRAMS],
            role=Role.WORKLOAD,
            timeout_s=ASK_LIMIT_S,
        )
        if shown.ok:
            return Path(shown.stdout.strip())
        if chosen is not None:
            raise ToolMissing(
                f"--syslat-lmbench-dir: {', '.join(LMBENCH_PROGRAMS)} are not all in {chosen} of "
                "the workload's image: give their directory there"
            )
        raise ToolMissing(
            "--syslat-image: lmbench was not found in the image: build images/Dockerfile, or use "
            "debian:trixie-slim"
        )

    def find_tool(self, name: str) -> Tool | None:
        """A program of the tracer's image: it has the rights of the node's administrator."""
        shown = self.run(
            ["sh", "-c", 'command -v "$1"', "sh", name], role=Role.NODE, timeout_s=ASK_LIMIT_S
        )
        return Tool(shown.stdout.strip()) if shown.ok else None

    def libraries_of(self, program: Path) -> dict[str, str]:  # noqa: ARG002
        """In an image all programs are installed."""
        return {}

    def core_times(self) -> CoreTimes | None:
        """From the node's /proc/stat and the workload's cgroup."""
        if self._cgroup2 is None:
            return None
        return readings.core_times(
            self._node_lines(Path("/proc/stat")),
            self._node_lines(Path(self._cgroup2) / "cpu.stat"),
            self.core,
            self._clock_ticks,
        )

    def throttled_count(self) -> int | None:
        """Sum of `nr_throttled` over the cgroups that can throttle the workload."""
        files = [str(directory / "cpu.stat") for directory in self._cgroups]
        shown = self.run(
            ["sh", "-c", 'cat "$@" 2>/dev/null', "sh", *files],
            role=Role.NODE,
            timeout_s=ASK_LIMIT_S,
        )
        counts = [
            int(line.split()[1])
            for line in shown.stdout.splitlines()
            if line.startswith("nr_throttled ")
        ]
        return sum(counts) if counts else None

    def _node_lines(self, path: Path) -> list[str]:
        return self.read(path, role=Role.NODE).decode().splitlines()

    def drop_page_cache(self) -> str | None:
        """Drop the node's page cache, if the user has allowed it."""
        if not self._drop_caches:
            return "other pods of the node need the page cache (--syslat-drop-caches drops it)"
        done = self.run(
            ["sh", "-c", "sync && echo 3 >/proc/sys/vm/drop_caches"],
            role=Role.NODE,
            timeout_s=ASK_LIMIT_S * 3,
        )
        return None if done.ok else f"the page cache cannot be dropped: {done.complaint}"

    def close(self) -> None:
        """Remove all that this run made, or leave it in place when it is to be kept.

        Raises:
            TestbedError: What is left, and how to remove it.
        """
        for channel in self._channels.values():
            channel.close()
        self._channels = {}
        try:
            if self._keep:
                self._claim.keep()
            else:
                self._claim.release()
        except TestbedError as error:
            raise TestbedError(
                f"in the namespace {NAMESPACE} of context {self._api.context}: {error}; remove it: "
                f"pytest benchmarks --syslat-clean --syslat-kube-context={self._api.context}"
            ) from error
        finally:
            self._api.close()

    def how_to_look(self) -> list[str]:
        """Commands that show what `--syslat-keep` has left in place, and remove it."""
        kubectl = f"kubectl --context {self._api.context} -n {NAMESPACE}"
        return [
            f"{kubectl} get pods -o wide",
            f"{kubectl} exec -it {WORKLOAD} -- sh",
            f"{kubectl} exec -it daemonset/{TRACER} -- bpftrace -l 'tracepoint:syscalls:*open*'",
            f"{kubectl} logs {SERVER}",
            f"pytest benchmarks --syslat-clean --syslat-kube-context={self._api.context}",
        ]


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses") or [])
