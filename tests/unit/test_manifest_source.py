"""Manifests of agents, from a directory or a server: their order, checksums and images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_syslat.agents.description import Manifests
from pytest_syslat.agents.manifest_source import load_manifests
from pytest_syslat.testbeds.protocol import TestbedError

from .servers import Quiet, served

FIRST = b"kind: Namespace\nmetadata: {name: n}\n---\n---\nkind: Account\nmetadata: {name: a}\n"
SECOND = b"""
kind: DaemonSet
metadata: {name: d, labels: {image: "a:latest"}}
spec:
  containers:
    - {name: one, image: "a:latest"}
    - {name: two, image: "b:latest", args: ["a:latest"]}
  image: {repository: "a:latest"}
"""
FILES = {"1.yaml": FIRST, "2.yaml": SECOND}
MEND = "give a copy with --syslat-chart NAME=DIRECTORY"


def sums(*data: bytes) -> tuple[str, ...]:
    return tuple(hashlib.sha256(each).hexdigest() for each in data)


class Handler(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.removeprefix("/deploy/")
        if name not in (*FILES, "cut.yaml"):
            self.send_error(404)
            return
        data = FILES.get(name, b"kind")
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + (100 if name == "cut.yaml" else 0)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def url() -> Iterator[str]:
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/deploy"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "deploy"
    directory.mkdir()
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    return directory


def kinds(manifests: Manifests, chosen: str | None, rootdir: Path) -> list[str]:
    return [body["kind"] for body in load_manifests(manifests, chosen, rootdir)]


def test_order_of_files_and_of_objects_in_them(directory: Path) -> None:
    for files, expected in (
        (("1.yaml", "2.yaml"), ["Namespace", "Account", "DaemonSet"]),
        (("2.yaml", "1.yaml"), ["DaemonSet", "Namespace", "Account"]),
    ):
        assert kinds(Manifests(f"{directory}/", files), None, Path("/nowhere")) == expected


def test_directory_below_the_projects_root(directory: Path) -> None:
    assert kinds(Manifests("deploy", ("2.yaml",)), None, directory.parent) == ["DaemonSet"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_files_of_a_server(url: str, ending: str) -> None:
    manifests = Manifests(url + ending, ("1.yaml", "2.yaml"), sums(FIRST, SECOND))
    assert kinds(manifests, None, Path("/nowhere")) == ["Namespace", "Account", "DaemonSet"]


def test_users_own_copy_is_taken_as_it_is(url: str, directory: Path) -> None:
    manifests = Manifests(url, ("1.yaml",), sums(b"something else"))
    assert kinds(manifests, str(directory), Path("/nowhere")) == ["Namespace", "Account"]
    elsewhere = Manifests("/not/there", ("1.yaml",), sums(b"something else"))
    assert kinds(elsewhere, url, Path("/nowhere")) == ["Namespace", "Account"]


def test_another_checksum(directory: Path) -> None:
    manifests = Manifests(str(directory), ("1.yaml", "2.yaml"), sums(FIRST, FIRST))
    [wanted], [found] = sums(FIRST), sums(SECOND)
    with pytest.raises(TestbedError) as caught:
        load_manifests(manifests, None, directory)
    assert str(caught.value) == (
        f"2.yaml is not the file that was checked: its SHA-256 is {found} and not {wanted}"
    )


def test_images_are_replaced_wherever_they_are_named(directory: Path) -> None:
    manifests = Manifests(str(directory), ("2.yaml",), images=("a:latest=r/a@sha256:0=1",))
    [body] = load_manifests(manifests, None, directory)
    assert body["spec"] == {
        "containers": [
            {"name": "one", "image": "r/a@sha256:0=1"},
            {"name": "two", "image": "b:latest", "args": ["a:latest"]},
        ],
        "image": {"repository": "a:latest"},
    }


def told(manifests: Manifests) -> str:
    with pytest.raises(TestbedError) as caught:
        load_manifests(manifests, None, Path("/nowhere"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file(directory: Path, url: str) -> None:
    assert told(Manifests(str(directory), ("3.yaml",))) == (
        f"{directory}/3.yaml cannot be read: No such file or directory; {MEND}"
    )
    assert told(Manifests(url, ("3.yaml",))) == f"{url}/3.yaml cannot be read: Not Found; {MEND}"


def test_answer_that_is_cut_off(url: str) -> None:
    assert told(Manifests(url, ("cut.yaml",))).startswith(f"{url}/cut.yaml cannot be read: Incomp")


def test_server_that_is_not_there() -> None:
    assert "Connection refused" in told(Manifests("http://127.0.0.1:9", ("1.yaml",)))


def test_file_that_is_no_yaml(directory: Path) -> None:
    (directory / "bad.yaml").write_text("a: [1\nb: {\n")
    assert told(Manifests(str(directory), ("bad.yaml",))).startswith("bad.yaml is no YAML: while ")
