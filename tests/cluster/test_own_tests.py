"""A user's own tests with the fixtures for the parts of a run."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .support import Cluster, Project

OWN_TESTS = """
import re
from pathlib import Path

from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import Filter, Role


def cores(testbed, role, process="self"):
    shown = testbed.run(["cat", f"/proc/{process}/status"], role=role, timeout_s=20).stdout
    listed = re.search(r"^Cpus_allowed_list:\\s*(\\S+)$", shown, re.MULTILINE)[1]
    found = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_testbed(testbed):
    assert testbed.name == "kubernetes"
    assert testbed.throttled_count() == 0 or testbed.throttled_count() > 0
    assert testbed.core_times().workload_s > 0


def test_scope_is_the_cgroup_of_the_workload(testbed):
    if testbed.scope.filter is not Filter.CGROUP:
        return
    # A process of the workload's pod is in it, and it has this inode on the node.
    find = (
        "for process in /proc/[0-9]*; do grep -q '^Groups:.*31237' $process/status 2>/dev/null &&"
        " grep -q sleep $process/comm && sed -n 's/^0:://p' $process/cgroup; done"
    )
    shown = testbed.run(["sh", "-c", find], role=Role.NODE, timeout_s=20).stdout
    paths = {path for path in shown.split() if "kubepods" in path}
    stat = "for path; do stat -c %i /node/cgroup$path /node/cgroup/unified$path; done 2>/dev/null"
    inodes = testbed.run(
        ["sh", "-c", stat, "sh", *paths], role=Role.NODE, timeout_s=20
    ).stdout.split()
    assert str(testbed.scope.number) in inodes


def test_measured_core_belongs_to_the_workload(testbed):
    assert cores(testbed, Role.WORKLOAD) == {testbed.core}
    online = testbed.read(Path("/sys/devices/system/cpu/online"), role=Role.NODE).decode().strip()
    if online != "0":
        for role in (Role.TRACER, Role.NODE, Role.SERVER):
            assert testbed.core not in cores(testbed, role)
        # The server itself, not only what is started beside it.
        assert testbed.core not in cores(testbed, Role.SERVER, process=1)


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


def test_that_fails(workload):
    assert workload.run(SYSCALLS["openat"]).us_per_op < 0
"""


@pytest.mark.long
def test_own_tests_on_a_cluster(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    (project.directory / "test_mine.py").write_text(OWN_TESTS)
    junit = tmp_path / "junit.xml"
    assert project.run("test_mine.py", "-p", "no:randomly", f"--junitxml={junit}") == 1
    said = project.said()
    outcomes = {
        case.attrib["name"]: [child.tag for child in case]
        for case in ET.parse(junit).iter("testcase")  # noqa: S314 - written by the run above
    }
    failing = {name for name, children in outcomes.items() if children}
    assert failing == {"test_that_fails"}, said
    assert len(outcomes) == 6
    assert "left behind" not in said
    assert cluster.namespace() is None
