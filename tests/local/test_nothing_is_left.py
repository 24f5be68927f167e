"""Whatever becomes of a run, of each agent of a host nothing is left."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import (
    RUN_LIMIT_S,
    SETTLE_LIMIT_S,
    HostState,
    audit_rules,
    changes_since,
    host_to_ourselves,
    marked_processes,
    wait_until,
)
from .test_main_job import Project
from .test_observers import observer

ONE_TRIAL = (
    *("-k", "openat", "--syslat-trials=1", "--syslat-testbed=local", "--syslat-warmup-sec=0"),
    *("--syslat-lmbench-reps=30", "--syslat-openat-mult=1", "--syslat-pin-core=999"),
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


def arm_of(agent: str) -> list[str]:
    """The options that measure an agent under that name."""
    if agent == "auditd":
        return ["--agent=auditd"]
    if agent == "calibration":
        return [f"--agent={agent}:exit-2000"]
    tool = observer(agent)
    return [f"--agent={agent}=command:stdbuf -oL {tool.path}", f"--syslat-ready={agent}=log:^PID"]


def works(agent: str) -> bool:
    """Whether the agent itself is at work: its process runs, or its rules are loaded."""
    if agent == "auditd":
        return any("31237" in rule and "always" in rule for rule in audit_rules())
    program = "bpftrace" if agent == "calibration" else agent
    return any(program in each for each in marked_processes())


def start(project: Project, agent: str) -> subprocess.Popen[bytes]:
    """A run in whose agent's trial lmbench is at work."""
    process = project.start(*arm_of(agent), *ONE_TRIAL)
    wait_until(lambda: works(agent) or process.poll() is not None, RUN_LIMIT_S, f"{agent} works")
    wait_until(
        lambda: any("lat_syscall" in each for each in marked_processes()) and works(agent),
        RUN_LIMIT_S,
        "its trial is measured",
    )
    assert process.poll() is None, project.said()
    return process


@pytest.mark.long
@pytest.mark.parametrize("agent", ["auditd", "calibration", "opensnoop"])
def test_nothing_is_left_of(agent: str, host_before: HostState, project: Project) -> None:
    process = start(project, agent)
    process.send_signal(signal.SIGINT)
    assert process.wait(RUN_LIMIT_S) == 2
    assert "left behind" not in project.said()
    assert marked_processes() == []
    assert changes_since(host_before) == []

    process = start(project, agent)
    process.kill()
    assert process.wait(RUN_LIMIT_S) == -signal.SIGKILL
    wait_until(lambda: not marked_processes(), SETTLE_LIMIT_S, "all has ended with the run")
    with host_to_ourselves():
        assert host_before.changes(HostState.read()) != []
    assert project.run("--syslat-clean", "--syslat-testbed=local") == 0, project.said()
    assert "syslat: nothing is left of earlier runs" in project.said()
    assert changes_since(host_before) == []


@pytest.mark.long
def test_nothing_is_left_of_an_agent_that_ends_at_once(
    host_before: HostState, project: Project
) -> None:
    """It had loaded its programs by then."""
    command = f"timeout 2 stdbuf -oL {observer('opensnoop').path}"
    code = project.run(f"--agent=brief=command:{command}", *ONE_TRIAL)
    assert code == 1, project.said()
    assert "brief-trial1 is refused: agent-not-ready: brief" in project.said()
    assert marked_processes() == []
    assert changes_since(host_before) == []
