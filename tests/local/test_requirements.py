"""Where a real part is missing, these tests fail in CI and are skipped elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support import RUN_LIMIT_S


@pytest.mark.parametrize("ci", [None, "true"], ids=["at home", "in CI"])
def test_missing_tools_fail_in_ci_and_skip_elsewhere(tmp_path: Path, ci: str | None) -> None:
    """No program is found in PATH, and a cache directory that is empty holds none either."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PATH": str(tmp_path), "SYSLAT_CACHE_DIR": str(tmp_path)}
    if ci:
        environment["CI"] = ci
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfEs"]
        + [str(Path(__file__).with_name("test_testbed.py"))]
        + ["-k", "test_next_run_may_start_once_the_first_is_closed"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert done.returncode == (1 if ci else 0), done.stdout
    assert ("1 error" if ci else "1 skipped") in done.stdout.splitlines()[-1]
    assert re.search(r"taskset.*bpftrace.* not found: run 'make provision'", done.stdout)
