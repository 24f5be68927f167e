"""Questions to an API server: here one that says what the test tells it to."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocketConnectionClosedException

from pytest_syslat.testbeds import cluster_api
from pytest_syslat.testbeds.cluster_api import (
    AlreadyThere,
    ClusterApi,
    NotFound,
    Unreachable,
    exit_code,
)
from pytest_syslat.testbeds.protocol import TestbedError, TimeLimit

from .servers import Object, Quiet, served

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "workload", "namespace": "n", "uid": "1-2-3"},
}


# --- What an exec says at its end ----------------------------------------------------------------


def failed(*causes: object) -> str:
    return json.dumps(
        {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ('{"metadata":{},"status":"Success"}', 0),
        (failed({"reason": "ExitCode", "message": "3"}), 3),
        (
            failed({"reason": "Other", "message": "x"}, {"reason": "ExitCode", "message": "137"}),
            137,
        ),
        # It was never run, or the connection ended before it did.
        (failed(), None),
        (failed({"message": "no reason"}), None),
        ('{"status":"Failure","message":"container not found"}', None),
        ('{"status":"Failure","details":null}', None),
        ("", None),
        ("Internal error occurred: error dialing backend", None),
        ("[1, 2]", None),
        ("{", None),
    ],
)
def test_exit_code(status: str, code: int | None) -> None:
    assert exit_code(status) == code


# --- A server of the test's own ------------------------------------------------------------------


def resource(name: str, kind: str, namespaced: bool = True) -> Object:
    verbs = ["create", "delete", "get", "list", "patch"]
    return {
        "name": name,
        "singularName": "",
        "namespaced": namespaced,
        "kind": kind,
        "verbs": verbs,
    }


def resources(group: str, *listed: Object) -> Object:
    return {"kind": "APIResourceList", "groupVersion": group, "resources": list(listed)}


DISCOVERY: dict[str, Object] = {
    "/version": {"gitVersion": "v1.20.2", "major": "1", "minor": "20"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "groups": []},
    "/api/v1": resources(
        "v1", resource("pods", "Pod"), resource("namespaces", "Namespace", namespaced=False)
    ),
}


class Server(ThreadingHTTPServer):
    """Says what it is told to, one answer a request; after the last one, that again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, Object | bytes]] = []
        self.asked: list[str] = []


class Handler(Quiet, BaseHTTPRequestHandler):
    def answer(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path in DISCOVERY and server.answers and server.answers[0][0] != 401:
            self.say(200, DISCOVERY[path])
            return
        server.asked.append(f"{self.command} {path}{'?' if query else ''}{query}")
        self.say(*(server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]))

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - names of the library

    def say(self, code: int, body: Object | bytes) -> None:
        if code == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    with served(Server()) as server:
        yield server


def kubeconfig(path: Path, port: int) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(content))


@pytest.fixture
def api(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterApi]:
    kubeconfig(tmp_path / "kubeconfig", server.server_port)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    # The library keeps what a server can do in a file there.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cluster_api, "PAUSE_S", 0.01)
    api = ClusterApi(None)
    yield api
    api.close()


def status(code: int, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}


def test_object_is_read(server: Server, api: ClusterApi) -> None:
    server.answers = [(200, POD)]
    assert api.get("Pod", "workload", "n") == POD
    assert api.find("Pod", "workload", "n") == POD
    assert server.asked == ["GET /api/v1/namespaces/n/pods/workload"] * 2


def test_objects_are_listed_by_their_labels(server: Server, api: ClusterApi) -> None:
    server.answers = [(200, {"kind": "PodList", "apiVersion": "v1", "items": [POD, POD]})]
    assert api.list("Pod", "n", "a=b") == [POD, POD]
    assert server.asked == ["GET /api/v1/namespaces/n/pods?labelSelector=a%3Db"]


def test_object_that_is_not_there(server: Server, api: ClusterApi) -> None:
    server.answers = [status(404, 'pods "workload" not found')]
    with pytest.raises(NotFound, match=r'^cannot read Pod workload: pods "workload" not found$'):
        api.get("Pod", "workload", "n")
    assert api.find("Pod", "workload", "n") is None
    assert api.delete(POD) is False


def test_object_that_is_there_already(server: Server, api: ClusterApi) -> None:
    server.answers = [status(409, 'pods "workload" already exists')]
    with pytest.raises(
        AlreadyThere, match=r'^cannot create Pod workload: pods "workload" already exists$'
    ):
        api.create(POD)


def test_what_the_account_may_not_do(server: Server, api: ClusterApi) -> None:
    server.answers = [status(403, 'pods is forbidden: User "x" cannot list')]
    with pytest.raises(TestbedError) as caught:
        api.list("Pod", "n")
    told = str(caught.value)
    assert told.startswith('cannot list Pods: pods is forbidden: User "x" cannot list; ')
    assert "kubectl apply -k manifests/rbac" in told
    assert "\n" not in told
    assert len(server.asked) == 1, "asking again would not help"


def test_account_that_is_not_accepted(server: Server, api: ClusterApi) -> None:
    server.answers = [status(401, "Unauthorized")]
    with pytest.raises(TestbedError, match=r"the account of the kubeconfig is not accepted$"):
        api.version()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(422, "Pod is invalid: spec"), "cannot apply Pod workload: Pod is invalid: spec"),
        # A proxy before the server speaks no JSON.
        ((400, b"<html>"), "cannot apply Pod workload: Bad Request"),
        ((400, b"[1]"), "cannot apply Pod workload: Bad Request"),
    ],
)
def test_other_refusals(
    server: Server, api: ClusterApi, answer: tuple[int, Object | bytes], told: str
) -> None:
    server.answers = [answer]
    with pytest.raises(TestbedError) as caught:
        api.apply(POD)
    assert str(caught.value) == told


@pytest.mark.parametrize("code", [0, 429, 500, 502, 503, 504])
def test_server_that_is_away_for_a_moment_is_asked_again(
    server: Server, api: ClusterApi, code: int
) -> None:
    passing = status(code, "not now") if code else (0, {})
    server.answers = [passing, passing, (200, POD)]
    assert api.get("Pod", "workload", "n") == POD
    assert len(server.asked) == 3


def test_server_that_stays_away(
    server: Server, api: ClusterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_api, "PATIENCE_S", 0.1)
    server.answers = [status(503, "etcd is away")]
    with pytest.raises(TestbedError, match=r"^cannot read Pod workload: etcd is away$"):
        api.get("Pod", "workload", "n")
    assert len(server.asked) > 1


def test_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        kubeconfig(tmp_path / "kubeconfig", port)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(cluster_api, "PATIENCE_S", 0.1)
        monkeypatch.setattr(cluster_api, "PAUSE_S", 0.01)
        api = ClusterApi(None)
        with pytest.raises(Unreachable) as at_once:
            api.version()
        with pytest.raises(Unreachable) as later:
            api.get("Pod", "workload", "n")
        with pytest.raises(Unreachable) as in_pod:
            api.connect("workload", "n", "workload", ["true"])
        api.close()
    server = f"http://127.0.0.1:{port} does not answer"
    assert str(at_once.value).startswith(f"cannot ask context test: {server}")
    assert str(later.value).startswith(f"cannot read Pod workload: {server}")
    assert str(in_pod.value).startswith(f"cannot run a program in pod workload: {server}")
    for caught in (at_once, later, in_pod):
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("code", "kind"), [(403, TestbedError), (404, NotFound)])
def test_pod_that_cannot_be_connected_to(
    server: Server, api: ClusterApi, code: int, kind: type[TestbedError]
) -> None:
    """The library puts the reason into a text; it is not that the server does not answer."""
    server.answers = [status(code, "pods is none")]
    with pytest.raises(kind) as caught:
        api.connect("workload", "n", "workload", ["true"])
    told = str(caught.value)
    assert told.startswith("cannot run a program in pod workload: ")
    assert "does not answer" not in told
    assert "\n" not in told


# --- Programs in pods ----------------------------------------------------------------------------


class Exec:
    """What the library makes of an exec."""

    def __init__(self, error: str = "", *, ends: bool = True, breaks: bool = False) -> None:
        self._error = error
        self._ends = ends
        self._breaks = breaks
        self._open = True
        self.sock = self
        self.is_shut_down = False

    def run_forever(self, timeout: float) -> None:
        if self._breaks:
            raise WebSocketConnectionClosedException("Connection to remote host was lost.")
        self._open = not self._ends

    def is_open(self) -> bool:
        return self._open

    def read_channel(self, channel: int) -> str:
        return self._error

    def read_stdout(self, timeout: float) -> str:
        return "out\n"

    def read_stderr(self, timeout: float) -> str:
        return "err\n"

    def close(self, timeout: float) -> None:
        self._open = False

    def shutdown(self) -> None:
        self.is_shut_down = True


def run(api: ClusterApi, monkeypatch: pytest.MonkeyPatch, made: Exec) -> Any:
    monkeypatch.setattr(ClusterApi, "connect", lambda *_: made)
    try:
        return api.run("workload", "n", "workload", ["cat", "file"], 1)
    finally:
        assert made.is_shut_down, "the socket would stay open"


def test_program_in_a_pod(api: ClusterApi, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(api, monkeypatch, Exec(failed({"reason": "ExitCode", "message": "3"})))
    assert (done.argv, done.returncode, done.stdout, done.stderr) == (
        ("cat", "file"),
        3,
        "out\n",
        "err\n",
    )


def test_program_in_a_pod_that_takes_too_long(
    api: ClusterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TimeLimit, match=r"^cat did not end within 1 s in pod workload$"):
        run(api, monkeypatch, Exec(ends=False))


def test_connection_that_ends_before_the_program(
    api: ClusterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match=r"^the connection to pod workload was lost$"):
        run(api, monkeypatch, Exec(""))


def test_connection_that_breaks(api: ClusterApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TestbedError, match=r"the connection to pod workload was lost"):
        run(api, monkeypatch, Exec(breaks=True))


# --- The kubeconfig ------------------------------------------------------------------------------


def refused(context: str | None) -> str:
    with pytest.raises(TestbedError) as caught:
        ClusterApi(context)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_kubeconfig() -> None:
    assert refused(None) == (
        "--syslat-testbed: no kubeconfig: set KUBECONFIG, or add --syslat-testbed=local"
    )


def test_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    kubeconfig(path, 1)
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert ClusterApi(None).context == "test"
    assert ClusterApi("test").context == "test"
    assert refused("lab") == "--syslat-kube-context: no context 'lab': allowed is test"
    path.write_text(path.read_text().replace('"current-context": "test"', '"current-context": ""'))
    assert refused(None) == (
        "--syslat-kube-context: the kubeconfig names no current context: give one of test"
    )
    assert ClusterApi("test").server == "http://127.0.0.1:1"


def test_current_context_is_the_first_that_a_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for kubectl: another one would be another cluster."""
    files = [tmp_path / "first", tmp_path / "second"]
    for number, file in enumerate(files, start=1):
        kubeconfig(file, number)
        file.write_text(file.read_text().replace('"test"', f'"test{number}"'))
        file.write_text(file.read_text().replace('"c"', f'"c{number}"'))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))
    assert (ClusterApi(None).context, ClusterApi(None).server) == ("test1", "http://127.0.0.1:1")
    assert ClusterApi("test2").server == "http://127.0.0.1:2"
    assert refused("lab").endswith("allowed is test1, test2")


@pytest.mark.parametrize("content", ["", "[]", "a: [", "kind: Config\ncurrent-context: x\n"])
def test_kubeconfig_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert refused(None).startswith(f"the kubeconfig {path} cannot be used: ")
