"""Whether a run measures on this host or on a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_syslat.settings import Settings
from pytest_syslat.testbeds.choice import chosen_testbed, open_testbed
from pytest_syslat.testbeds.kubeconfig import current_context, kubeconfig_paths
from pytest_syslat.testbeds.protocol import TestbedError

NAMED = "apiVersion: v1\nkind: Config\ncurrent-context: {}\n"
UNNAMED = "apiVersion: v1\nkind: Config\ncurrent-context: ''\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a kubeconfig, and no variable."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG")
    return tmp_path


def in_home(home: Path, content: str) -> Path:
    path = home / ".kube" / "config"
    path.parent.mkdir()
    path.write_text(content)
    return path


# --- The kubeconfig ------------------------------------------------------------------------------


def test_without_a_kubeconfig(home: Path) -> None:
    assert kubeconfig_paths() == []
    assert current_context() is None


@pytest.mark.parametrize("variable", [None, ""], ids=["no variable", "an empty one"])
def test_kubeconfig_of_the_home_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    path = in_home(home, NAMED.format("home"))
    if variable is not None:
        monkeypatch.setenv("KUBECONFIG", variable)
    assert kubeconfig_paths() == [path]
    assert current_context() == "home"


def test_variable_wins_even_if_it_names_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_home(home, NAMED.format("home"))
    monkeypatch.setenv("KUBECONFIG", str(home / "missing"))
    assert kubeconfig_paths() == []
    assert current_context() is None


def test_several_files_and_the_first_that_names_a_context(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {
        "broken": "a: [",
        "text": "just text",
        "unnamed": UNNAMED,
        "empty": "",
        "first": NAMED.format("first"),
        "second": NAMED.format("second"),
    }
    files = [home / name for name in contents]
    for file in files:
        file.write_text(contents[file.name])
    named = os.pathsep.join(["", str(home / "missing"), *map(str, files), str(home)])
    monkeypatch.setenv("KUBECONFIG", named)
    assert kubeconfig_paths() == files
    assert current_context() == "first"


# --- The testbed ---------------------------------------------------------------------------------

CLUSTER_OPTIONS = {
    "kube_context": "--syslat-kube-context",
    "node": "--syslat-node",
    "image": "--syslat-image",
    "keep": "--syslat-keep",
}


def given(testbed: str, option: str | None) -> Settings:
    return {
        None: Settings(testbed=testbed),
        "kube_context": Settings(testbed=testbed, kube_context="lab"),
        "node": Settings(testbed=testbed, node="worker"),
        "image": Settings(testbed=testbed, image="debian:trixie-slim"),
        "keep": Settings(testbed=testbed, keep=True),
        "drop_caches": Settings(testbed=testbed, drop_caches=True),
    }[option]


@pytest.mark.parametrize(
    ("testbed", "cluster", "option", "chosen"),
    [
        ("auto", False, None, "local"),
        ("auto", True, None, "kubernetes"),
        ("local", False, None, "local"),
        ("local", True, None, "local"),
        ("kubernetes", False, None, "kubernetes"),
        ("kubernetes", True, None, "kubernetes"),
        # Whoever names a part of a cluster must not be measured on this host in silence.
        *(("auto", False, option, "kubernetes") for option in CLUSTER_OPTIONS),
        *(("auto", True, option, "kubernetes") for option in CLUSTER_OPTIONS),
        *(("kubernetes", False, option, "kubernetes") for option in CLUSTER_OPTIONS),
        # On a host the page cache is dropped anyway.
        ("auto", False, "drop_caches", "local"),
        ("local", True, "drop_caches", "local"),
    ],
)
def test_chosen_testbed(
    home: Path, testbed: str, cluster: bool, option: str | None, chosen: str
) -> None:
    if cluster:
        in_home(home, NAMED.format("home"))
    assert chosen_testbed(given(testbed, option)) == chosen


@pytest.mark.parametrize("option", CLUSTER_OPTIONS)
def test_options_of_a_cluster_on_this_host(home: Path, option: str) -> None:
    with pytest.raises(TestbedError) as caught:
        chosen_testbed(given("local", option))
    told = str(caught.value)
    assert told.startswith(f"{CLUSTER_OPTIONS[option]}: has no meaning on this host")
    assert "--syslat-testbed=kubernetes" in told
    assert "\n" not in told


def test_tests_see_no_cluster_of_the_user() -> None:
    """Whatever the environment that these tests were started in says."""
    assert kubeconfig_paths() == []


@pytest.mark.parametrize(
    ("testbed", "mend"),
    [("auto", "; to measure this host instead: --syslat-testbed=local"), ("kubernetes", ")")],
)
def test_server_of_an_old_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, testbed: str, mend: str
) -> None:
    """Nobody listens on the port of a socket that was just closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n"
        "contexts: [{name: lab, context: {cluster: c, user: u}}]\n"
        f'clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{port}"}}}}]\n'
        "users: [{name: u, user: {token: x}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    closers: list[Callable[[], list[str]]] = []
    with pytest.raises(TestbedError) as caught:
        open_testbed(
            Settings(testbed=testbed), tmp_path, warn=[], keep_note=[], register=closers.append
        )
    assert str(caught.value).endswith(mend)
    assert "does not answer" in str(caught.value)
    # What closes it was registered before it was opened; nothing had been made.
    assert [close() for close in closers] == [[]]
