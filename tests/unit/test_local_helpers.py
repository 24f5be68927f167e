"""The parts of the local testbed that need no root: cores, lists, and numbers of the kernel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import pytest

from pytest_syslat.testbeds import local
from pytest_syslat.testbeds.local import (
    LocalTestbed,
    cgroup2_mount,
    choose_core,
    cores_beside,
    parse_core_list,
    smt_siblings,
    usable_cores,
)
from pytest_syslat.testbeds.protocol import CoreTimes


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0\n", {0}),
        ("0-3,8\n", {0, 1, 2, 3, 8}),
        ("2,6", {2, 6}),
        ("0-1,4-5,12", {0, 1, 4, 5, 12}),
        ("7-7", {7}),
    ],
)
def test_parse_core_list(text: str, cores: set[int]) -> None:
    assert parse_core_list(text) == cores


@pytest.mark.parametrize("text", ["", "\n", "a", "-1"])
def test_what_is_no_core_list(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_core_list(text)


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Cores to which a process may be pinned beside the usable ones."""
    cores: set[int] = set()
    monkeypatch.setattr(local, "may_be_pinned_to", lambda core: core in cores)
    return cores


def test_the_core_that_was_asked_for(isolated: set[int]) -> None:
    assert choose_core(2, [0, 1, 2, 3]) == (2, None)
    assert choose_core(0, [0]) == (0, None)


def test_an_isolated_core_may_be_asked_for(isolated: set[int]) -> None:
    isolated.add(7)
    assert choose_core(7, [0, 1]) == (7, None)


@pytest.mark.parametrize(("usable", "chosen"), [([0, 1], 1), ([0, 5], 5), ([3, 1], 3)])
def test_the_last_core_in_place_of_one_that_does_not_exist(
    isolated: set[int], usable: Sequence[int], chosen: int
) -> None:
    core, warning = choose_core(2, usable)
    assert core == chosen
    assert warning == (f"core 2 does not exist or may not be used here: core {chosen} is used")


@pytest.fixture
def siblings(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """SMT siblings by core; a core that isn't named has none."""
    table: dict[int, set[int]] = {}
    monkeypatch.setattr(local, "smt_siblings", lambda core: table.get(core, {core}))
    return table


def test_cores_without_siblings(siblings: dict[int, set[int]]) -> None:
    assert cores_beside(2, [0, 1, 2, 3]) == ([0, 1, 3], None)
    assert cores_beside(1, [0, 1]) == ([0], None)


def test_the_sibling_is_left_alone(siblings: dict[int, set[int]]) -> None:
    siblings[2] = {2, 6}
    assert cores_beside(2, [0, 2, 4, 6]) == ([0, 4], None)


def test_the_sibling_when_there_is_nothing_else(siblings: dict[int, set[int]]) -> None:
    siblings[1] = {0, 1}
    cores, problem = cores_beside(1, [0, 1])
    assert cores == [0]
    assert problem == "tracer and server run on the SMT sibling of core 1: no other is left"


def test_the_only_core(siblings: dict[int, set[int]]) -> None:
    cores, problem = cores_beside(0, [0])
    assert cores == [0]
    assert problem == "tracer and server run on core 0 as well: it is the only one"


def test_an_isolated_core_is_not_among_the_usable_ones(siblings: dict[int, set[int]]) -> None:
    siblings[7] = {3, 7}
    assert cores_beside(7, [0, 3]) == ([0], None)


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
