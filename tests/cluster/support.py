"""What the tests on a cluster share: the cluster itself, its node, and runs of a user's project."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from pytest_syslat.doctor.check import Check
from pytest_syslat.settings import OPTIONS
from pytest_syslat.tools import find_tool

Answer = TypeVar("Answer")
Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
NAMESPACE = "bench-syscall"
PART_OF = "app.kubernetes.io/part-of=pytest-syslat"
RUN_LIMIT_S = 150.0
END_LIMIT_S = 60.0
GONE_LIMIT_S = 60.0
SETTLE_LIMIT_S = 20.0
REQUEST_LIMIT_S = 10.0
SHORT = (
    "--syslat-lmbench-reps=2",
    "--syslat-openat-mult=1",
    "--syslat-warmup-sec=0",
    "--syslat-min-calls=100",
)
HOW_TO_RUN = (
    "to run these tests: 'make cluster', then "
    "'export KUBECONFIG=~/.cache/pytest-syslat/cluster/kubeconfig', then 'make test'"
)


def wait_until(condition: Callable[[], object], limit_s: float, what: str) -> None:
    """Wait for a condition; fails the test if it does not come true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.05)


def doctor(kubeconfig: str, *arguments: str) -> tuple[int, dict[str, Check]]:
    """Exit code and checks of `syslat doctor`, by name."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_syslat", "doctor", "--json", *arguments],
        env={**os.environ, "KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)["checks"]
    return done.returncode, {each["name"]: Check(**each) for each in found}


# --- The cluster -------------------------------------------------------------------------------


def cluster_cache() -> Path:
    """Where `make cluster` keeps its cluster."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    own = os.environ.get("SYSLAT_CACHE_DIR")
    return (Path(own) if own else Path(caches) / "pytest-syslat") / "cluster"


class Cluster:
    """The cluster of the user's kubeconfig, asked apart from the package's own code."""

    def __init__(self, kubeconfig: str) -> None:
        """Read the kubeconfig; raises what the library raises when it cannot be used."""
        self.kubeconfig = kubeconfig
        settings = client.Configuration()
        config.load_kube_config(kubeconfig, client_configuration=settings)
        settings.retries = urllib3.Retry(total=0)
        self.api = client.ApiClient(settings)
        self.core: Any = client.CoreV1Api(self.api)
        self.context = str(config.list_kube_config_contexts(kubeconfig)[1]["name"])
        files = [Path(each).resolve() for each in kubeconfig.split(os.pathsep) if each]
        self.is_this_machine = all(cluster_cache().resolve() in each.parents for each in files)

    def problem(self) -> str | None:
        """Why it cannot be used."""
        try:
            client.VersionApi(self.api).get_code(_request_timeout=REQUEST_LIMIT_S)
            found = self.namespace()
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            told = str(getattr(error, "reason", error))
            return f"the cluster of {self.kubeconfig} does not answer: {told}; {HOW_TO_RUN}"
        if found is not None:
            return f"the namespace {NAMESPACE} exists: somebody uses it; delete it, or wait"
        return None

    def namespace(self) -> Object | None:
        """The namespace of a run, None if there is none."""
        return self._found(lambda: self.core.read_namespace(NAMESPACE))

    def pods(self) -> dict[str, Object]:
        """The pods of a run by name; those of the tracer are called `bpftrace`."""
        listed = self._plain(self.core.list_namespaced_pod(NAMESPACE))["items"]
        return {
            each["metadata"]["labels"].get("app.kubernetes.io/name", each["metadata"]["name"]): each
            for each in listed
        }

    def uids(self) -> dict[str, str]:
        """What tells each pod of a run from one that was made anew."""
        return {name: pod["metadata"]["uid"] for name, pod in self.pods().items()}

    def contents(self) -> list[str]:
        """What is in the namespace beside what every namespace has."""
        listed = {
            "Pod": self.core.list_namespaced_pod(NAMESPACE),
            "ConfigMap": self.core.list_namespaced_config_map(NAMESPACE),
            "DaemonSet": client.AppsV1Api(self.api).list_namespaced_daemon_set(NAMESPACE),
            "Lease": client.CoordinationV1Api(self.api).list_namespaced_lease(NAMESPACE),
        }
        return [
            f"{kind} {each['metadata']['name']}"
            for kind, answer in listed.items()
            for each in self._plain(answer)["items"]
            if each["metadata"]["name"] != "kube-root-ca.crt"
        ]

    def exists(self, namespace: str) -> bool:
        """Whether there is such a namespace."""
        return self._found(lambda: self.core.read_namespace(namespace)) is not None

    def delete_pod(self, name: str) -> None:
        """As somebody who does not know what it is for."""
        pod = self.pods()[name]["metadata"]["name"]
        self.core.delete_namespaced_pod(pod, NAMESPACE, grace_period_seconds=0)

    def nodes(self) -> list[Object]:
        """All nodes."""
        items: list[Object] = self._plain(self.core.list_node())["items"]
        return items

    def has_image(self, ending: str) -> bool:
        """Whether some node has an image whose name ends so."""
        return any(
            name.endswith(ending)
            for node in self.nodes()
            for image in node["status"].get("images") or []
            for name in image["names"]
        )

    def remove_namespace(self) -> None:
        """Delete it, whatever is in it, and wait until it is gone."""
        with contextlib.suppress(ApiException):
            self.core.delete_namespace(NAMESPACE)
        wait_until(lambda: self.namespace() is None, GONE_LIMIT_S, "the namespace is gone")

    def copied_kubeconfig(self, path: Path, change: Callable[[Object], None]) -> None:
        """Write the kubeconfig with something of its current cluster changed."""
        first = Path(self.kubeconfig.split(os.pathsep)[0])
        content = yaml.safe_load(first.read_text())
        for section, kind in (("clusters", "cluster"), ("users", "user")):
            for each in content[section]:
                for name in ("certificate-authority", "client-certificate", "client-key"):
                    if name in each[kind]:
                        each[kind][name] = str(first.parent / each[kind][name])
        change(content)
        path.write_text(yaml.safe_dump(content))

    def server(self) -> tuple[str, int]:
        """Host and port of the API server."""
        parts = urlsplit(str(self.api.configuration.host))
        assert parts.hostname is not None
        return parts.hostname, parts.port or 443

    def _plain(self, answer: object) -> Object:
        plain: Object = self.api.sanitize_for_serialization(answer)
        return plain

    def _found(self, ask: Callable[[], object]) -> Object | None:
        try:
            return self._plain(ask())
        except ApiException as error:
            if error.status == 404:
                return None
            raise


# --- The node, where it is this machine --------------------------------------------------------


CGROUPS = Path("/sys/fs/cgroup")
POD_CGROUP = re.compile("pod[0-9a-f]{8}[-_][0-9a-f]{4}")
"""Such as `pod` with a UID, or with underscores in the name of a systemd slice."""


@dataclass(frozen=True)
class NodeState:
    """What a run may leave on the node, seen from the host."""

    tracing_programs: frozenset[str]
    """BPF programs on tracepoints."""
    processes: frozenset[str]
    """Processes in the cgroups of pods."""
    cgroups: frozenset[str]
    """Cgroups of pods."""
    audit_rules: frozenset[str]

    @classmethod
    def read(cls) -> NodeState:
        """As it is now."""
        listed = subprocess.run(
            ["bpftool", "-j", "prog", "list"],
            check=True,
            capture_output=True,
            timeout=REQUEST_LIMIT_S,
        )
        return cls(
            tracing_programs=frozenset(
                f"{each['id']} ({each['type']} {each.get('name')})"
                for each in json.loads(listed.stdout)
                if "tracepoint" in each["type"]
            ),
            processes=frozenset(_pod_processes()),
            cgroups=frozenset(
                str(each)
                for each in CGROUPS.rglob("*pod*")
                # On a host with both versions the kubelet leaves those of v2 behind, empty.
                if POD_CGROUP.search(each.name) and CGROUPS / "unified" not in each.parents
            ),
            audit_rules=frozenset(audit_rules()),
        )

    def new_in(self, later: NodeState) -> list[str]:
        """What has been added, in words."""
        return [
            f"{field.name}: {each}"
            for field in fields(self)
            for each in sorted(getattr(later, field.name) - getattr(self, field.name))
        ]


def audit_rules() -> list[str]:
    """The rules of the kernel's audit; none where auditctl isn't there."""
    tool = find_tool("auditctl")
    if tool is None:
        return []
    listed = subprocess.run(
        [tool.path, "-l"],
        env={**os.environ, **tool.env},
        capture_output=True,
        text=True,
        timeout=REQUEST_LIMIT_S,
    )
    return [line for line in listed.stdout.splitlines() if line.strip() not in ("", "No rules")]


def _pod_processes() -> Iterator[str]:
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            cgroup = (directory / "cgroup").read_text()
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if "kubepods" in cgroup and words[0]:
            yield f"{directory.name} {b' '.join(words).decode(errors='replace').strip()[:120]}"


def traced_on_this_node() -> bool:
    """Whether a pod on this machine runs bpftrace."""
    return any(each.split()[1].endswith("bpftrace") for each in _pod_processes())


# --- Runs --------------------------------------------------------------------------------------

WATCH = '''
"""Tells the test what the run is doing, and shortens time limits that it waits for."""

import importlib
import json
import os


def pytest_configure(config):
    from pytest_syslat.report.progress import TerminalProgress

    shown = TerminalProgress.trial_step

    def told(self, key, step, number, total):
        if not step.run:
            with open("steps.txt", "a") as steps:
                steps.write(f"{key.id}: {step.name}\\n")
        shown(self, key, step, number, total)

    TerminalProgress.trial_step = told
    for name, value in json.loads(os.environ.get("SYSLAT_TEST_LIMITS", "{}")).items():
        module, _, attribute = name.rpartition(".")
        loaded = importlib.import_module(f"pytest_syslat.{module}")
        assert hasattr(loaded, attribute)
        setattr(loaded, attribute, value)
'''
TRIAL_LINE = re.compile(r"^\[ *\d+/\d+\] (execve|openat|connect) +\S+ trial .*$", re.MULTILINE)


class Project:
    """A directory of a user's with the benchmarks in it, and pytest runs started there."""

    def __init__(self, directory: Path, kubeconfig: str) -> None:
        self.directory = directory
        self.kubeconfig = kubeconfig
        self.limits: dict[str, float] = {}
        """Time limits of the package, made shorter: `testbeds.pod_channel.RECONNECT_LIMIT_S`."""
        self.results = directory / "result" / "5.5"
        self._output = directory / "output.txt"
        self._started: list[subprocess.Popen[bytes]] = []
        shutil.copytree(
            ROOT / "benchmarks",
            directory / "benchmarks",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        (directory / "watch_run.py").write_text(WATCH)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start pytest."""
        ours = {option.environment for option in OPTIONS} | {"PYTEST_ADDOPTS", "COLUMNS"}
        (self.directory / "steps.txt").write_text("")
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "watch_run"]
                + list(arguments),
                cwd=self.directory,
                env={
                    **{name: value for name, value in os.environ.items() if name not in ours},
                    "KUBECONFIG": self.kubeconfig,
                    "PYTHONUNBUFFERED": "1",
                    "SYSLAT_TEST_LIMITS": json.dumps(self.limits),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *arguments: str, limit_s: float = RUN_LIMIT_S) -> int:
        """Run pytest to its end."""
        return self.end_of(self.start(*arguments), limit_s)

    def end_of(self, process: subprocess.Popen[bytes], limit_s: float = RUN_LIMIT_S) -> int:
        """The exit code of a run; of one that hangs, what it said and where each thread is."""
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            # pytest's faulthandler answers this signal with a traceback of each thread.
            process.send_signal(signal.SIGABRT)
            process.wait(END_LIMIT_S)
            pytest.fail(f"the run did not end within {limit_s:g} s:\n{self.said()}")

    def wait_for_step(self, process: subprocess.Popen[bytes], step: str, *, times: int = 1) -> None:
        """Wait until a run has come so often to a step, such as `openat-vanilla-trial2: traced`."""
        steps = self.directory / "steps.txt"

        def reached() -> bool:
            assert process.poll() is None, self.said()
            return steps.read_text().splitlines().count(step) >= times

        wait_until(reached, RUN_LIMIT_S, step)

    def said(self) -> str:
        """What the last run has printed so far."""
        return self._output.read_text()

    def lines(self, beginning: str) -> list[str]:
        """The lines of the last run that begin so."""
        return [line for line in self.said().splitlines() if line.startswith(beginning)]

    def trial_lines(self) -> list[str]:
        """The lines of the trials that the last run has reported so far."""
        return [found[0] for found in TRIAL_LINE.finditer(self.said())]

    def run_json(self) -> Object:
        """The run's own record."""
        record: Object = json.loads((self.results / "run.json").read_text())
        return record

    def rows(self, file: str) -> list[dict[str, str]]:
        """A result file, line by line."""
        with (self.results / file).open(newline="") as lines:
            return list(csv.DictReader(lines))

    def facts(self) -> dict[str, str]:
        """What the run says of the machine."""
        text = (self.results / "vanilla" / "vanilla_sysinfo.txt").read_text()
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def expect_files_of(self, *trials: str) -> None:
        """The record, the summary and the logs have exactly these trials, such as `connect-1`."""
        measured = {
            f"{trial['syscall']}-{trial['trial']}"
            for trial in self.run_json()["trials"]
            if not trial["refused"]
        }
        assert measured == set(trials)
        rows = self.rows("vanilla/vanilla_summary.csv")
        assert {f"{row['syscall']}-{row['trial']}" for row in rows} == set(trials)
        for trial in trials:
            syscall, number = trial.split("-")
            log = self.results / "vanilla" / f"vanilla_{syscall}_trial{number}.log"
            assert log.stat().st_size > 0

    def refusal(self, *arguments: str) -> str:
        """Run pytest, which must refuse in one line, and return it."""
        code = self.run(*arguments)
        said = self.said()
        assert code == 4, said
        assert "Traceback" not in said
        [line] = self.lines("ERROR: ")
        # Nothing stands below it: the one line is all that there is to read.
        assert said.rstrip().splitlines()[-1] == line, said
        return line.removeprefix("ERROR: ")

    def clean(self) -> str:
        """Remove what runs have left, as the messages say; what it printed is returned."""
        assert self.run("benchmarks", "--syslat-clean") == 0, self.said()
        return self.said()

    def close(self) -> None:
        """End what still runs, in order if it lets itself be ended so."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- A server that goes away -------------------------------------------------------------------


class Relay:
    """A way to the API server that can be cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = 0
        self.restore()

    def restore(self) -> None:
        """Accept connections, at the same port as before."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._listener.listen()
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._connections = self._connections, []
        if listener is not None:
            # A thread that waits in accept holds the listener open, until it is shut down.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, REQUEST_LIMIT_S)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._lock:
                if self._listener is not listener:
                    near.close()
                    far.close()
                    return
                self._connections += [near, far]
            threading.Thread(target=self._pass_on, args=[near, far], daemon=True).start()

    @staticmethod
    def _pass_on(near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        key.data.sendall(data)
                    except OSError:
                        return
