"""`syslat` with real parts: what doctor finds on this host, and a run computed from its logs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import (
    LAST_CORE,
    RUN_LIMIT_S,
    HostState,
    changes_since,
    host_to_ourselves,
)
from .test_main_job import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


def syslat(*arguments: object, **env: str) -> tuple[int, Any]:
    """Exit code and document of a command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_syslat", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        env={**os.environ, **env},
        cwd="/",
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_doctor_says_that_this_host_can_measure(host_before: HostState) -> None:
    with host_to_ourselves():
        # The lock that keeps others out is held by this process: that alone is wrong.
        code, found = syslat("doctor", f"--syslat-pin-core={LAST_CORE}", "--syslat-testbed=local")
        checks = {each["name"]: each for each in found["checks"]}
        wrong = [name for name, each in checks.items() if each["status"] == "problem"]
        assert (code, wrong) == (1, ["other runs"])
        assert str(os.getpid()) in checks["other runs"]["found"]
    for name in ("kernel", "tracepoints", "rights", "bpftrace", "lmbench", "core", "cgroups"):
        assert checks[name]["status"] in ("ok", "warning"), checks[name]
    assert f"core {LAST_CORE} would be measured" in checks["core"]["found"]
    assert changes_since(host_before) == []


def test_doctor_sees_what_is_in_the_way(host_before: HostState, tmp_path: Path) -> None:
    (tmp_path / "syslat-run-gone-x").mkdir()
    with socket.create_server(("127.0.0.1", 31237)):
        _, found = syslat("doctor", "--syslat-testbed=local", TMPDIR=str(tmp_path))
    states = {each["name"]: each["status"] for each in found["checks"]}
    assert (states["port 31237"], states["leftovers"]) == ("warning", "warning")
    _, found = syslat("doctor", "--syslat-testbed=local")
    states = {each["name"]: each["status"] for each in found["checks"]}
    assert (states["port 31237"], states["leftovers"]) == ("ok", "ok")


@pytest.mark.long
def test_a_real_run_is_what_its_logs_say(project: Project) -> None:
    """Under both placements, whose logs have a program of their own; then it is tampered with."""
    code = project.run(
        "--syslat-testbed=local",
        "--agent=vanilla2",
        "--syslat-budget=*:*<=+900%",
        "--syslat-trials=2",
        "--syslat-lmbench-reps=1",
        "--syslat-openat-mult=1",
        "--syslat-min-calls=50",
        "--syslat-warmup-sec=0",
        "--syslat-placement=both",
        *("-k", "connect or openat"),
    )
    assert code == 0, project.said()
    root = project.directory / "result/5.5"
    code, found = syslat("analyze", root)
    assert (code, found["differences"], found["logs_unread"]) == (0, [], {})
    assert (found["trials"], found["logs_read"]) == (8, 16)

    summary = root / "vanilla/vanilla_summary.csv"
    text = summary.read_text()
    first = text.splitlines()[1].split(",")
    first[5] = f"{float(first[5]) + 1:.3f}"
    summary.write_text(text.replace(text.splitlines()[1], ",".join(first)))
    code, found = syslat("analyze", root)
    assert code == 1
    (difference,) = found["differences"]
    assert difference["file"] == "vanilla/vanilla_summary.csv"
    assert difference["place"].endswith("p50_us")
    assert difference["stored"] == first[5]

    summary.write_text(text)
    (root / "vanilla2/vanilla2_connect_trial1.log").unlink()
    code, found = syslat("analyze", root)
    assert code == 1
    assert list(found["logs_unread"].values()) == ["it is missing"]
