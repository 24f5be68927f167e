"""What is read of the kernel's text files about cores and cgroups."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from pytest_syslat.testbeds.readings import (
    cgroup2_mount,
    cgroup_path,
    core_times,
    cpu1_mount,
    number_of,
    with_ancestors,
)

CPU_STAT = ["usage_usec 2500000", "user_usec 2000000", "nr_throttled 4", "throttled_usec 77"]
STAT = [
    "cpu  900 0 0 0 0 0 0 0 0 0",
    # user nice system idle iowait irq softirq steal guest guest_nice
    "cpu1 100 20 300 4000 50 6 7 80 9 10",
    "cpu10 1 1 1 1 1 1 1 1 1 1",
    "intr 123",
]
V2 = "29 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
UNIFIED = "31 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup rw"
CPU1 = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct"
CPUSET1 = "33 25 0:28 / /sys/fs/cgroup/cpuset rw shared:6 - cgroup cgroup rw,cpuset"
ROOT = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


@pytest.mark.parametrize(
    ("name", "number"),
    # Another name that begins or ends alike is another number.
    [("usage_usec", 2_500_000), ("nr_throttled", 4), ("throttled", None), ("usec", None)],
)
def test_number_of(name: str, number: int | None) -> None:
    assert number_of(CPU_STAT, name) == number


def test_core_times() -> None:
    """Guest time is a part of user time, so it is not added once more."""
    times = core_times(STAT, CPU_STAT, 1, 100)
    assert times is not None
    assert times.elapsed_s == pytest.approx(45.63)
    assert times.busy_s == pytest.approx(1 + 0.2 + 3 + 0.06 + 0.07)
    assert times.stolen_s == pytest.approx(0.8)
    assert times.workload_s == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("stat", "cpu_stat", "core"),
    [(STAT, CPU_STAT, 2), ([], CPU_STAT, 1), (STAT, [], 1), (STAT, ["nr_periods 1"], 1)],
)
def test_core_times_that_are_not_told(stat: list[str], cpu_stat: list[str], core: int) -> None:
    assert core_times(stat, cpu_stat, core, 100) is None


@pytest.mark.parametrize(
    ("mounts", "version2", "version1"),
    [
        ([ROOT, V2], "/sys/fs/cgroup", None),
        ([ROOT, CPUSET1, CPU1, UNIFIED], "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct"),
        # The controller `cpuset` is not `cpu`.
        ([ROOT, CPUSET1], None, None),
        ([ROOT], None, None),
        ([], None, None),
    ],
)
def test_mounts_of_cgroups(mounts: list[str], version2: str | None, version1: str | None) -> None:
    assert cgroup2_mount(mounts) == (PurePosixPath(version2) if version2 else None)
    assert cpu1_mount(mounts) == (PurePosixPath(version1) if version1 else None)


HYBRID = ["4:cpuset:/only\n", "3:cpu,cpuacct:/kubepods/pod1/c1\n", "0::/kubepods.slice/c:1\n"]


@pytest.mark.parametrize(
    ("lines", "controller", "path"),
    [
        (HYBRID, "cpu", "/kubepods/pod1/c1"),
        (HYBRID, "cpuacct", "/kubepods/pod1/c1"),
        (HYBRID, "cpuset", "/only"),
        (HYBRID, "", "/kubepods.slice/c:1"),
        (HYBRID, "memory", None),
        (["1:name=systemd:/init\n"], "", None),
        (["0::/\n"], "", "/"),
        (["0::/\n"], "cpu", None),
    ],
)
def test_cgroup_of_a_process(lines: list[str], controller: str, path: str | None) -> None:
    assert cgroup_path(lines, controller) == (PurePosixPath(path) if path else None)


@pytest.mark.parametrize(
    ("mount", "path", "directories"),
    [
        ("/node/cgroup", "/", ["/node/cgroup"]),
        (
            "/node/cgroup",
            "/kubepods/pod1/c1",
            [
                "/node/cgroup/kubepods/pod1/c1",
                "/node/cgroup/kubepods/pod1",
                "/node/cgroup/kubepods",
                "/node/cgroup",
            ],
        ),
    ],
)
def test_cgroup_with_all_above_it(mount: str, path: str, directories: list[str]) -> None:
    found = with_ancestors(PurePosixPath(mount), PurePosixPath(path))
    assert [str(each) for each in found] == directories
