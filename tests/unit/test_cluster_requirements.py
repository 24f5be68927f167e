"""Without a cluster, the tests that need one fail in CI and are skipped elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTER_TESTS = Path(__file__).resolve().parents[1] / "cluster"


@pytest.fixture
def unreachable(tmp_path: Path) -> Path:
    """A kubeconfig of a server that isn't there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "unreachable"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("ci", [None, "true"], ids=["at home", "in CI"])
@pytest.mark.parametrize("kubeconfig", [None, "missing", "empty", "unreachable"])
def test_missing_cluster_fails_in_ci_and_skips_elsewhere(
    tmp_path: Path, unreachable: Path, kubeconfig: str | None, ci: str | None
) -> None:
    (tmp_path / "empty").touch()
    left_out = ("CI", "KUBECONFIG", "PYTEST_ADDOPTS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment["COLUMNS"] = "500"
    if kubeconfig:
        environment["KUBECONFIG"] = str(tmp_path / kubeconfig)
    if ci:
        environment["CI"] = ci
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfEs"]
        + [str(CLUSTER_TESTS / "test_refusals.py"), "-k", "test_unknown_node"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (1 if ci else 0), done.stdout
    assert ("1 error" if ci else "1 skipped") in done.stdout.splitlines()[-1]
    # The way to have one, in commands.
    for command in ("'make cluster'", "'export KUBECONFIG=", "'make test'"):
        assert command in done.stdout
