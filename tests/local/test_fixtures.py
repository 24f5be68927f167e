"""A user's own tests with the fixtures for the parts of a run, on this host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from pytest_syslat.settings import OPTIONS

from .support import (
    CORES,
    LAST_CORE,
    HostState,
    changes_since,
    host_to_ourselves,
    marked_processes,
)

RUN_LIMIT_S = 120.0
OWN_TESTS = """
import re
import socket
from pathlib import Path

import pytest

from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import Filter, Role


def status(testbed, role, field):
    shown = testbed.run(["cat", "/proc/self/status"], role=role, timeout_s=20).stdout
    return re.search(rf"^{field}:\\s*(\\S+)", shown, re.MULTILINE)[1]


def test_testbed(testbed):
    assert testbed.name == "local"
    assert testbed.node == socket.gethostname()
    assert testbed.throttled_count() in (None, 0)


def test_measured_core_belongs_to_the_workload(testbed):
    assert testbed.core == LAST_CORE
    assert status(testbed, Role.WORKLOAD, "Cpus_allowed_list") == str(LAST_CORE)
    if CORES > 1:
        for role in (Role.TRACER, Role.NODE, Role.SERVER):
            listed = status(testbed, role, "Cpus_allowed_list")
            assert str(LAST_CORE) not in re.split("[-,]", listed)


def test_scope_is_the_cgroup_of_the_workload(testbed):
    if testbed.scope.filter is not Filter.CGROUP:
        pytest.skip("no cgroup v2 here")
    shown = testbed.run(["cat", "/proc/self/cgroup"], role=Role.WORKLOAD, timeout_s=20).stdout
    [path] = re.findall("^0::/(.*)$", shown, re.MULTILINE)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    [mount] = [line.split()[4] for line in mounts if " - cgroup2 " in line][:1]
    assert testbed.scope.number == (Path(mount) / path).stat().st_ino


def test_opens(tracer, workload):
    tracing = tracer.attach(SYSCALLS["openat"])
    tracing.begin()
    workload.run(SYSCALLS["openat"])
    calls = tracing.calls_so_far()
    trace, log, stderr = tracing.stop()
    assert trace.total == trace.arrived == calls > 100
    assert b"@total" in log


def test_connect(tcp_server, workload):
    done = workload.run(SYSCALLS["connect"])
    assert done.complaint is None
    assert done.us_per_op > 0
    assert tcp_server.inode > 0
    assert tcp_server.address == "127.0.0.1"


def test_same_parts_for_all_tests(testbed, syslat_rig):
    assert syslat_rig.testbed is testbed


def test_that_fails(workload):
    assert workload.run(SYSCALLS["openat"]).us_per_op < 0
"""


def run_in(project: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest as a user would, as soon as nobody else measures here."""
    ours = {option.environment for option in OPTIONS} | {"PYTEST_ADDOPTS"}
    with host_to_ourselves():
        pass
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"]
        + list(arguments),
        cwd=project,
        env={name: value for name, value in os.environ.items() if name not in ours},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    return done.returncode, done.stdout


def test_own_tests_on_this_host(tmp_path: Path, host_before: HostState) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    text = OWN_TESTS.replace("LAST_CORE", str(LAST_CORE)).replace("CORES", str(len(CORES)))
    (tmp_path / "test_mine.py").write_text(text)
    junit = tmp_path / "junit.xml"
    code, said = run_in(tmp_path, f"--syslat-pin-core={LAST_CORE}", f"--junitxml={junit}")
    assert code == 1, said
    outcomes = {
        case.attrib["name"]: [child.tag for child in case]
        for case in ET.parse(junit).iter("testcase")  # noqa: S314 - written by the run above
    }
    assert {name for name, tags in outcomes.items() if set(tags) & {"failure", "error"}} == {
        "test_that_fails"
    }, said
    assert len(outcomes) == 7
    assert "left behind" not in said
    assert marked_processes() == []
    assert changes_since(host_before) == []


def test_only_what_is_asked_for_is_put_in_place(tmp_path: Path, host_before: HostState) -> None:
    """A test that takes the testbed alone starts no server and calibrates no lmbench."""
    (tmp_path / "test_mine.py").write_text(
        "def test_lean(testbed, syslat_rig):\n"
        "    assert not {'tracer', 'workload', 'server'} & set(vars(syslat_rig))\n"
    )
    code, said = run_in(tmp_path)
    assert code == 0, said
    assert changes_since(host_before) == []


def test_options_of_a_cluster_fail_the_test_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(testbed):\n    pass\n")
    code, said = run_in(tmp_path, "--syslat-testbed=local", "--syslat-node=any")
    assert code == 1, said
    assert "--syslat-node: has no meaning on this host" in said
    assert "Traceback" not in said
