"""The kubectl commands of the documentation: accepted as they stand, but nothing is made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .support import Cluster

ROOT = Path(__file__).parents[2]
CACHE = os.environ.get("SYSLAT_CACHE_DIR") or Path("~/.cache/pytest-syslat").expanduser()
PATH = f"{os.environ['PATH']}{os.pathsep}{CACHE}/cluster/bin"
LIMIT_S = 60.0
COMMANDS = sorted(
    {
        line
        for page in (ROOT / "docs").glob("*.md")
        for line in re.findall(r"^kubectl .*$", page.read_text(), re.MULTILINE)
        # It frees what a stand-in of an agent holds, and there is none.
        if " patch " not in line
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_kubectl(command: str, cluster: Cluster) -> None:
    if shutil.which("kubectl", path=PATH) is None:
        pytest.fail("there is no kubectl in PATH, nor in the cache of 'make cluster'")
    makes = re.search(r" (apply|create) ", command) is not None
    done = subprocess.run(
        ["bash", "-c", command + (" --dry-run=client" if makes else "")],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": cluster.kubeconfig, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
