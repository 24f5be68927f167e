"""What the sampler makes of the kernel's texts; it runs for real in tests/local."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "manifests" / "programs" / "agent_sampler.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent_sampler", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look the module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sampler = loaded()

LINE = (
    "4711 (tmux: (a) b) S 1 4711 4700 0 -1 4194560 1234 5678 0 0 "
    "250 50 30 7 20 0 12 0 88000 123456789 2500 18446744073709551615 1 1 0 0 0 0 0 0 0 "
    "0 0 0 17 3 0 0 0 0 0\n"
)
"""Fields 14 to 17 are times, 20 threads, 22 the start, 24 pages and 39 the core (proc(5))."""


def test_a_stat_line_whose_name_has_blanks_and_brackets() -> None:
    stat = sampler.parse_stat(LINE)
    assert stat == sampler.Stat(
        name="tmux: (a) b",
        parent=1,
        session=4700,
        ticks=300,
        children_ticks=37,
        threads=12,
        start=88000,
        pages=2500,
        core=3,
    )
    assert stat.total == 337


def process(parent: int, session: int = 1, **changes: int) -> object:
    fields = {"ticks": 0, "children_ticks": 0, "threads": 1, "start": 500, "pages": 0, "core": 0}
    return sampler.Stat(name="x", parent=parent, session=session, **(fields | changes))


def test_a_family() -> None:
    stats = {
        1: process(0),
        10: process(1, session=10),  # the root, which leads a session
        11: process(10, session=10),
        12: process(11, session=12),  # a grandchild with a session of its own
        13: process(1, session=10),  # its parent has gone, its session is the root's
        14: process(13, session=14),
        20: process(1, session=20),  # strangers
        21: process(20, session=20),
        30: process(1, session=30),  # was known, has lost parent and session
        31: process(30, session=30),
    }
    assert sampler.family(stats, [10], [30]) == {10, 11, 12, 13, 14, 30, 31}
    assert sampler.family(stats, [10], []) == {10, 11, 12, 13, 14}
    # The root has gone: its session remains.
    del stats[10]
    assert sampler.family(stats, [10], [11]) == {11, 12, 13, 14}
    assert sampler.family(stats, [99], []) == set()


class TestProcessTime:
    """Ticks of 10 ms; processes that were there when it began have begun at 500, before 1,000."""

    def test_what_was_used_before_is_left_out(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200, children_ticks=30)})
        assert time.ticks == 0
        time.look({10: process(1, ticks=240, children_ticks=33)})
        assert time.ticks == 43

    def test_a_process_that_began_later_counts_from_its_begin(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200)})
        time.look({10: process(1, ticks=200), 11: process(10, ticks=15, start=1001)})
        assert time.ticks == 15
        # An older one that is found late has no such begin.
        time.look(
            {
                10: process(1, ticks=200),
                11: process(10, ticks=15, start=1001),
                12: process(10, ticks=70, start=900),
            }
        )
        assert time.ticks == 15

    def test_a_child_that_was_waited_for_is_its_fathers(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200), 11: process(10, ticks=100)})
        time.look({10: process(1, ticks=205), 11: process(10, ticks=150)})
        assert time.ticks == 55
        # It ended with 160 ticks in all, 60 of them since the begin.
        time.look({10: process(1, ticks=205, children_ticks=160)})
        assert time.ticks == 65

    def test_a_child_that_nobody_waited_for_keeps_what_was_seen(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200), 11: process(10, ticks=100)})
        time.look({10: process(1, ticks=205), 11: process(10, ticks=150)})
        time.look({10: process(1, ticks=210)})
        assert time.ticks == 60
        time.look({10: process(1, ticks=211)})
        assert time.ticks == 61

    def test_a_grandchild_goes_with_its_father(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1), 11: process(10, ticks=40), 12: process(11, ticks=20)})
        # 12 ended with 25 and 11, which waited for it, with 41.
        time.look({10: process(1, children_ticks=66)})
        assert time.ticks == 6

    def test_a_root_that_dies(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200), 11: process(10, ticks=100)})
        time.look({10: process(1, ticks=230), 11: process(10, ticks=130)})
        time.look({11: process(1, ticks=135)})
        assert time.ticks == 65
        time.look({})
        assert time.ticks == 65

    def test_a_process_id_that_is_used_again(self) -> None:
        time = sampler.ProcessTime(1000)
        time.look({10: process(1, ticks=200)})
        time.look({10: process(1, ticks=210)})
        time.look({10: process(1, ticks=3, start=2000)})
        assert time.ticks == 13


HYBRID = [
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n",
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n",
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
]
IN_A_POD = [
    "90 80 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "91 80 0:38 / /node/cgroup rw,relatime - cgroup2 cgroup2 rw\n",
]


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (HYBRID, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpuacct")),
        (IN_A_POD, ("/node/cgroup", None)),
        (["23 1 8:1 / / rw - ext4 /dev/vda rw\n"], (None, None)),
        (
            ["33 31 0:30 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"],
            (None, "/c/cpu,cpuacct"),
        ),
    ],
)
def test_mounts(mountinfo: list[str], expected: tuple[str | None, str | None]) -> None:
    assert sampler.cgroup_mounts(mountinfo) == expected


BOTH = ("/v2", "/v1")


@pytest.mark.parametrize(
    ("cgroup", "marks", "mounts", "expected"),
    [
        # The cgroup of the whole pod, with what ended containers have used.
        (
            ["0::/kubepods/besteffort/pod3f2a-11/0a1b"],
            ["pod3f2a"],
            BOTH,
            ["/v2/kubepods/besteffort/pod3f2a-11/cpu.stat"],
        ),
        (
            ["0::/system.slice/falco.service"],
            ["falco.service"],
            BOTH,
            ["/v2/system.slice/falco.service/cpu.stat"],
        ),
        # The unified hierarchy comes first wherever it stands in the list.
        (
            ["3:cpu,cpuacct:/agent/x", "2:memory:/agent/x", "0::/agent/x"],
            ["agent"],
            BOTH,
            ["/v2/agent/cpu.stat", "/v1/agent/cpuacct.usage"],
        ),
        (["3:cpuacct:/agent/x", "0::/"], ["agent"], BOTH, ["/v1/agent/cpuacct.usage"]),
        (["3:cpuacct:/agent/x", "0::/agent"], ["agent"], (None, None), []),
        # A cgroup below another one that is marked, too: all of the upper one is the agent's.
        (["0::/a/b/c"], ["b/c", "a"], BOTH, ["/v2/a/cpu.stat"]),
        (["0::/stranger"], ["agent"], BOTH, []),
    ],
)
def test_usage_files(
    cgroup: list[str],
    marks: list[str],
    mounts: tuple[str | None, str | None],
    expected: list[str],
) -> None:
    assert sampler.usage_files(cgroup, marks, mounts) == expected


def test_used_time_of_a_cgroup() -> None:
    assert sampler.used_ns("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n") == 1_500_000
    assert sampler.used_ns("123456789\n") == 123_456_789
