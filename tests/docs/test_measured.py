"""Commands of the documentation that work on this host for real: they measure, clean, look."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_syslat.testbeds.local import take_lock
from pytest_syslat.testbeds.protocol import TestbedError
from pytest_syslat.tools import ToolMissing, find_lmbench

from .support import ROOT, blocks, commands, copy_of_the_checkout, environment

LIMIT_S = 120.0
ONE_TRIAL = 'pytest benchmarks -k "openat and trial1" --syslat-warmup-sec=0'
QUICK_START = (
    "pytest benchmarks --syslat-testbed=local -k connect --syslat-trials=1 --syslat-warmup-sec=0"
)
WITH_AGENT = "pytest benchmarks --agent=auditd -k connect"
OBSERVER = (
    "pytest benchmarks --syslat-testbed=local -k openat "
    "--agent='opensnoop=command:stdbuf -oL opensnoop' --syslat-ready='opensnoop=log:^PID'"
)


@pytest.fixture(scope="module", autouse=True)
def real_parts() -> None:
    """Without root and tools nothing here can run: a failure in CI, a skip elsewhere."""
    problem = None
    try:
        find_lmbench(None)
    except ToolMissing as error:
        problem = str(error)
    if os.geteuid() != 0 or not shutil.which("bpftrace"):
        problem = "root and bpftrace are needed: 'sudo -E make test'"
    if problem and os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    if problem:
        pytest.skip(problem)


def new_checkout(place: Path) -> Path:
    """A copy, in which `pytest` and `syslat` are those of this environment."""
    copy_of_the_checkout(place)
    programs = place / "build/bin"
    programs.mkdir(parents=True)
    for name, module in (("pytest", "pytest"), ("syslat", "pytest_syslat")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    return place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkout(tmp_path_factory.mktemp("checkout"))


def typed(command: str, checkout: Path, *, exit_codes: tuple[int, ...] = (0,)) -> str:
    """Type a command that a page has; returns what it printed."""
    assert command in {each.text for each in commands()}, "no page has this command any more"
    return shell(command, checkout, exit_codes=exit_codes)


def shell(command: str, checkout: Path, *, exit_codes: tuple[int, ...] = (0,)) -> str:
    path = f"{checkout / 'build/bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=checkout,
        env=environment(checkout, PATH=path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode in exit_codes, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_quick_start(checkout: Path) -> None:
    printed = typed(QUICK_START, checkout)
    assert re.search(r"^connect +vanilla +\d+\.\d+ +\d", printed, re.MULTILINE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own with one measured trial."""
    checkout = new_checkout(tmp_path_factory.mktemp("measured"))
    typed(ONE_TRIAL, checkout)
    return checkout


def test_a_log_read_by_hand(measured: Path) -> None:
    """files.md has a program that reads a log: it finds what the summary says."""
    [program] = [block for block in blocks("python") if "p50 {ns / 1000:.3f}" in block.text]
    (measured / "read_log.py").write_text(program.text)
    text = (ROOT / program.page).read_text()
    [line] = re.findall(r"`(python3 read_log\.py [^`]+)`", text)
    printed = shell(line, measured)
    with (measured / "result/5.5/vanilla/vanilla_summary.csv").open(newline="") as file:
        [row] = [row for row in csv.DictReader(file) if row["filter"] == "raw"]
    assert printed.strip() == f"{row['count']} calls, p50 {row['p50_us']} µs"


def test_parts_of_ours_in_a_test_of_the_users_own(checkout: Path) -> None:
    """Without the one whose limit is a time: this machine may be busy."""
    [block] = [block for block in blocks("python") if "tracer.attach(" in block.text]
    (checkout / "test_mine.py").write_text(block.text)
    assert "1 passed" in shell("pytest test_mine.py -k 'not fast'", checkout)


def test_clean(checkout: Path) -> None:
    for command in (
        "pytest benchmarks --syslat-clean",
        "pytest benchmarks --syslat-testbed=local --syslat-clean",
    ):
        assert "nothing is left of earlier runs on this host" in typed(command, checkout)


def test_provision(checkout: Path) -> None:
    """All is there, so nothing is installed."""
    assert "missing" not in typed("tools/provision.sh --check", checkout)
    typed("tools/provision.sh", checkout)


SYSLAT = sorted({each.text for each in commands() if each.text.startswith("syslat ")})


@pytest.mark.parametrize("command", SYSLAT)
def test_syslat(command: str, measured: Path) -> None:
    """On runs that were measured; 1 says that something was found, 4 would be a refusal."""
    for name in re.findall(r"result/[\w./-]*\w", command):
        if not (measured / name).exists():
            shutil.copytree(measured / "result/5.5", measured / name)
    # Whatever is asked of a cluster is refused here, after the words were understood.
    on_cluster = re.search("kube|--syslat-node", command)
    printed = typed(command, measured, exit_codes=(0, 1, 4) if on_cluster else (0, 1))
    assert printed or on_cluster


def test_putting_audit_back_by_hand(checkout: Path) -> None:
    """The block as a whole: without a killed run its rules aren't there, which does no harm."""
    [block] = [block for block in blocks("sh") if "auditctl -d never" in block.text]
    try:
        lock = take_lock()
    except TestbedError as error:
        pytest.fail(str(error))
    with lock:
        before = shell("auditctl -l", checkout, exit_codes=(0, 1, 127))
        shell(block.text, checkout, exit_codes=(0, 1))
        assert shell("auditctl -l", checkout, exit_codes=(0, 1, 127)) == before


@pytest.mark.long
@pytest.mark.parametrize("command", [WITH_AGENT, OBSERVER])
def test_with_an_agent(command: str, checkout: Path) -> None:
    """One block decides nothing, so nothing fails."""
    shell("tools/provision.sh --for-tests", checkout)
    printed = typed(command, checkout)
    assert re.search(r"^(connect|openat) +(auditd|opensnoop) +\d", printed, re.MULTILINE)


@pytest.mark.long
def test_the_agent_in_python(checkout: Path) -> None:
    """CONTRIBUTING has an agent that is complete."""
    [block] = [block for block in blocks("python") if "class Opens" in block.text]
    conftest = checkout / "benchmarks/conftest.py"
    conftest.write_text(block.text)
    printed = shell("pytest benchmarks --agent=opens -k connect", checkout)
    conftest.unlink()
    assert re.search(r"^connect +opens +\d", printed, re.MULTILINE)


@pytest.mark.long
def test_make_bench(checkout: Path) -> None:
    """With the environment of these tests in the place of its own, and one block."""
    programs = checkout / ".venv/bin"
    programs.mkdir(parents=True)
    shutil.copy(checkout / "build/bin/pytest", programs / "pytest")
    (checkout / ".venv/.ready").touch()
    printed = typed("make bench", checkout)
    assert re.search(r"^execve +auditd +\d", printed, re.MULTILINE)
    assert (checkout / "result/5.5/run.json").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "command", ["python perf/startup_cost.py", "python perf/analysis_speed.py"]
)
def test_self_benchmarks(command: str, checkout: Path) -> None:
    """With one round, where the number of rounds is an argument."""
    assert command in {each.text for each in commands()}
    rounds = " 1" if "startup" in command else ""
    assert shell(command.replace("python", sys.executable, 1) + rounds, checkout)
