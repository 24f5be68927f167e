"""The parts of the local testbed that need no root."""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path

import pytest

from pytest_syslat.testbeds import local
from pytest_syslat.testbeds.local import (
    LocalTestbed,
    cgroup2_mount,
    smt_siblings,
    usable_cores,
)
from pytest_syslat.testbeds.protocol import CoreTimes


def test_siblings_of_a_core_that_the_kernel_does_not_know() -> None:
    assert smt_siblings(99_999) == {99_999}


def test_siblings_as_the_kernel_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def text_of(path: Path) -> str:
        read.append(str(path))
        return "2,6\n"

    monkeypatch.setattr(Path, "read_text", text_of)
    assert smt_siblings(2) == {2, 6}
    assert read == ["/sys/devices/system/cpu/cpu2/topology/thread_siblings_list"]


def test_usable_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 0, 3})
    assert usable_cores() == [0, 3, 5]


ROOT_LINE = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
V1_LINE = "30 25 0:26 / /sys/fs/cgroup/cpu rw,nosuid shared:5 - cgroup cgroup rw,cpu\n"


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        ("29 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"),
        # Optional fields stand before the dash: none, or several.
        (
            "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw,nsdelegate\n",
            "/sys/fs/cgroup/unified",
        ),
        ("29 22 0:25 / /a rw shared:4 master:1 - cgroup2 cgroup2 rw\n", "/a"),
        ("", None),
    ],
)
def test_cgroup2_mount(monkeypatch: pytest.MonkeyPatch, line: str, mount: str | None) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: ROOT_LINE + V1_LINE + line)
    assert cgroup2_mount() == (Path(mount) if mount else None)


def test_core_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 10 ms.

    200 + 10 + 300 + 4000 + 50 + 20 + 30 + 40 ticks are 46.5 s, of which 40.5 s are idle and
    0.4 s stolen; guest time is part of user time.
    """
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 1 1 1 1 1 1 1 1 0 0\n"
        "cpu2 200 10 300 4000 50 20 30 40 100 0\n"
        "cpu21 5 5 5 5 5 5 5 5 0 0\n"
        "intr 1\n"
    )
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\n")
    monkeypatch.setattr(local, "STAT", stat)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    testbed = LocalTestbed.__new__(LocalTestbed)
    testbed.core = 2
    testbed._cgroup = tmp_path
    times = testbed.core_times()
    assert times is not None
    assert astuple(times) == pytest.approx(
        astuple(CoreTimes(elapsed_s=46.5, busy_s=46.5 - 40.5 - 0.4, stolen_s=0.4, workload_s=2.5))
    )
    # A core that went offline, and a kernel without cgroup v2.
    testbed.core = 3
    assert testbed.core_times() is None
    testbed.core = 2
    (tmp_path / "cpu.stat").unlink()
    assert testbed.core_times() is None
    testbed._cgroup = None
    assert testbed.core_times() is None
