"""Charts: what Helm is asked, as a program or as a library, and what comes of its answers."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_syslat.testbeds import helm
from pytest_syslat.testbeds.helm import ChartRequest
from pytest_syslat.testbeds.helm_library import merged_kubeconfig
from pytest_syslat.testbeds.protocol import TestbedError

# One word a line; the values are kept, their file is gone afterwards.
PROGRAM = """#!/bin/sh
for word in "$@"; do echo "$word"; done >"$RECORD/asked"
while [ $# -gt 0 ]; do
    if [ "$1" = --values ]; then cp "$2" "$RECORD/values"; fi
    shift
done
. "$RECORD/answer"
"""
LIBRARY = """
import json, os, pathlib
RECORD = pathlib.Path(os.environ["RECORD"])
class HelmError(Exception):
    pass
class Config:
    def __init__(self, **given):
        self.calls = [given]
    def __enter__(self):
        return self
    def __exit__(self, *_):
        (RECORD / "asked").write_text(json.dumps(self.calls))
    def install(self, *words, **named):
        self.told("install", words, named)
    def uninstall(self, *words, **named):
        self.told("uninstall", words, named)
    def told(self, verb, words, named):
        self.calls.append([verb, words, named])
        answer = RECORD / "answer"
        if answer.exists():
            raise HelmError(answer.read_text())
"""
CHART = ChartRequest(
    "r", "n", "falco", "https://charts", "9.1.0", {"a": {"b": True}}, {"mine": "x"}
)
LOCAL = replace(CHART, chart="/charts/falco-9.1.0.tgz", repository=None, version=None)

Answer = Callable[[str], None]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECORD", str(tmp_path))
    return tmp_path


@pytest.fixture
def program(record: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Helm as a program; what it answers is a piece of shell."""
    (record / "bin").mkdir()
    (record / "bin/helm").write_text(PROGRAM)
    (record / "bin/helm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{record / 'bin'}:/usr/bin:/bin")

    def answer(script: str) -> None:
        (record / "answer").write_text(script)

    answer("exit 0")
    return answer


@pytest.fixture
def without_program(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (record / "empty").mkdir()
    monkeypatch.setenv("PATH", str(record / "empty"))


@pytest.fixture
def library(record: Path, without_program: None, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Helm as a library; what it answers is an error, or nothing."""
    (record / "path").mkdir()
    (record / "path/helm_python.py").write_text(LIBRARY)
    root = str(Path(helm.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{record / 'path'}:{root}")
    monkeypatch.syspath_prepend(record / "path")
    monkeypatch.setenv("KUBECONFIG", f"{record / 'one'}:{record / 'two'}")
    for name in ("one", "two"):
        (record / name).write_text(yaml.safe_dump(kubeconfig(name)))

    def answer(text: str) -> None:
        (record / "answer").write_text(text)

    return answer


def kubeconfig(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}"}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def asked(record: Path) -> list[str]:
    return (record / "asked").read_text().splitlines()


def told(call: Callable[[], object]) -> str:
    with pytest.raises(TestbedError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- The program ---------------------------------------------------------------------------------


def test_installing_from_a_repository(record: Path, program: Answer) -> None:
    """Options that Helm 3 and Helm 4 share."""
    helm.install("my-context", CHART)
    words = asked(record)
    assert words[:3] == ["install", "r", "falco"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    del options["--values"]
    assert options == {
        "--namespace": "n",
        "--kube-context": "my-context",
        "--labels": "mine=x",
        "--repo": "https://charts",
        "--version": "9.1.0",
        "--timeout": "180s",
    }
    assert json.loads((record / "values").read_text()) == {"a": {"b": True}}


def test_installing_from_a_file(record: Path, program: Answer) -> None:
    helm.install("my-context", LOCAL)
    words = asked(record)
    assert words[2] == "/charts/falco-9.1.0.tgz"
    assert not {"--repo", "--version"} & set(words)


def test_uninstalling(record: Path, program: Answer) -> None:
    assert helm.uninstall("my-context", "r", "n") is True
    words = asked(record)
    assert words[:2] == ["uninstall", "r"]
    assert words[2:] == [
        "--namespace",
        "n",
        "--kube-context",
        "my-context",
        "--wait",
        "--timeout",
        "60s",
    ]


def test_release_that_is_not_there(program: Answer) -> None:
    program("echo 'Error: uninstall: Release not loaded: r: release: not found' >&2; exit 1")
    assert helm.uninstall("c", "r", "n") is False


@pytest.mark.parametrize(
    "reason",
    [
        "Kubernetes cluster unreachable: exec: executable login-plugin not found",
        "timed out waiting for the condition",
    ],
)
def test_uninstalling_fails(program: Answer, reason: str) -> None:
    """Nothing else that was not found means that the release is gone."""
    program(f"echo 'Error: {reason}' >&2; exit 1")
    assert told(lambda: helm.uninstall("c", "r", "n")) == (
        f"cannot uninstall the release n/r: {reason}"
    )


def test_installing_fails(program: Answer) -> None:
    program("printf 'WARNING: x\\nError: INSTALLATION FAILED: no such chart\\n\\n' >&2; exit 1")
    assert told(lambda: helm.install("c", CHART)) == (
        "cannot install the chart falco: INSTALLATION FAILED: no such chart"
    )
    program("exit 7")
    assert told(lambda: helm.install("c", CHART)) == ("cannot install the chart falco: exit code 7")


def test_helm_that_does_not_end(program: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "LIMIT_S", -19.7)
    program("exec sleep 60")
    begin_s = time.monotonic()
    assert told(lambda: helm.install("c", CHART)) == (
        "cannot install the chart falco: Helm did not end within 0.3 s"
    )
    assert time.monotonic() - begin_s < 20


def test_program_that_cannot_be_run(record: Path, program: Answer) -> None:
    (record / "bin/helm").write_bytes(b"\x7fELF")
    # Whether it is started directly or by setpriv, and then tried as a shell's script.
    said = told(lambda: helm.install("c", CHART))
    assert re.match("cannot install the chart falco: (Exec format error|.*/bin/helm: )", said)


# --- The library ---------------------------------------------------------------------------------


def test_installing_by_the_library(record: Path, library: Answer) -> None:
    helm.install("two", CHART)
    config, call = json.loads((record / "asked").read_text())
    assert config["namespace"] == "n"
    assert config["kube_context"] == "two"
    merged = yaml.safe_load(config["kubeconfig_content"])
    assert [each["name"] for each in merged["contexts"]] == ["one", "two"]
    assert call == [
        "install",
        ["falco", "r", {"a": {"b": True}}],
        {
            "labels": {"mine": "x"},
            "chart_repo_url": "https://charts",
            "chart_version": "9.1.0",
        },
    ]


def test_uninstalling_by_the_library(record: Path, library: Answer) -> None:
    assert helm.uninstall("two", "r", "n") is True
    _, call = json.loads((record / "asked").read_text())
    assert call == ["uninstall", ["r"], {"wait": "watcher", "timeout": 60}]


def test_errors_of_the_library(library: Answer) -> None:
    library("uninstall: Release not loaded: r: release: not found")
    assert helm.uninstall("two", "r", "n") is False
    library("no\n  such chart")
    assert told(lambda: helm.install("two", CHART)) == (
        "cannot install the chart falco: no such chart"
    )


def test_kubeconfig_of_one_file(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = kubeconfig("one")
    (record / "one").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(record / "one"))
    assert yaml.safe_load(merged_kubeconfig()) == content


def test_files_beside_a_kubeconfig(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = kubeconfig("one")
    content["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    content["users"][0]["user"] = {"client-key": "/keys/mine.key", "token": "t"}
    (record / "one").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(record)
    monkeypatch.setenv("KUBECONFIG", "one")
    merged = yaml.safe_load(merged_kubeconfig())
    assert merged["clusters"][0]["cluster"]["certificate-authority"] == str(record / "ca.crt")
    assert merged["users"][0]["user"] == {"client-key": "/keys/mine.key", "token": "t"}


def test_neither_program_nor_library(
    without_program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call, what in (
        (lambda: helm.install("c", CHART), "install the chart falco"),
        (lambda: helm.uninstall("c", "r", "n"), "uninstall the release n/r"),
    ):
        assert told(call) == (
            f"cannot {what}: Helm is needed to install a chart: install the program helm, or "
            "pip install 'pytest-syslat[helm]'"
        )


def test_library_is_not_loaded_into_this_process(library: Answer) -> None:
    helm.install("two", CHART)
    assert "helm_python" not in sys.modules
