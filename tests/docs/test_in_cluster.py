"""Commands of the documentation that need a cluster: the one that KUBECONFIG names."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from .support import ROOT, commands

LIMIT_S = 60.0
CACHE = os.environ.get("SYSLAT_CACHE_DIR") or os.path.expanduser("~/.cache/pytest-syslat")


@pytest.fixture(scope="module")
def kubectl_path(users_kubeconfig: str | None) -> str:
    """PATH with kubectl, where there is a cluster: else a failure in CI, a skip elsewhere."""
    path = f"{os.environ['PATH']}{os.pathsep}{CACHE}/cluster/bin"
    problem = None
    if not users_kubeconfig:
        problem = "KUBECONFIG names no cluster: 'make cluster' starts one"
    elif shutil.which("kubectl", path=path) is None:
        problem = "there is no kubectl"
    if problem and os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    if problem:
        pytest.skip(problem)
    return path


def test_kubectl(kubectl_path: str, users_kubeconfig: str) -> None:
    """As they stand, but nothing is made: objects are checked by kubectl or the server only."""
    found = [each.text for each in commands() if each.text.startswith("kubectl ")]
    # A stand-in that hangs must be there for it.
    found = [each for each in found if " patch " not in each]
    assert found
    for command in dict.fromkeys(found):
        verb = next(word for word in command.split() if word in ("apply", "create", "config", "get"))
        dry = " --dry-run=client" if verb in ("apply", "create") else ""
        done = subprocess.run(
            ["bash", "-c", command + dry],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": users_kubeconfig, "PATH": kubectl_path},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
