"""Which processes belong to an agent: by their cgroup, or as descendants of one of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pytest_syslat.agents.protocol import Processes
from pytest_syslat.ownership import members
from pytest_syslat.testbeds.protocol import NodeLost, Role, Testbed, TestbedError

PARENTS = {50: 40, 40: 30, 30: 1, 60: 1, 1: 0}
CGROUPS = {60: "0::/kubepods/pod7/x\n", 50: "0::/user\n", 40: "0::/user\n", 30: "0::/user\n"}


class FakeTestbed:
    def __init__(self, *, lost: bool = False) -> None:
        self._lost = lost

    def read(self, path: Path, *, role: Role) -> bytes:
        assert role is Role.NODE
        pid, name = int(path.parts[2]), path.name
        if self._lost:
            raise NodeLost("the node is gone")
        if pid not in PARENTS:
            raise TestbedError(f"cannot read {path}: No such file or directory")
        if name == "status":
            return f"Name:\tx\nPPid:\t{PARENTS[pid]}\nUid:\t0\n".encode()
        return CGROUPS[pid].encode()


@pytest.mark.parametrize(
    ("processes", "found"),
    [
        (Processes(roots=(30,)), {30, 40, 50}),
        (Processes(roots=(40,)), {40, 50}),
        (Processes(cgroup_marks=("pod7",)), {60}),
        (Processes(cgroup_marks=("pod7",), roots=(50,)), {50, 60}),
        (Processes(roots=(99,)), {99}),
        (Processes(), set()),
    ],
)
def test_members(processes: Processes, found: set[int]) -> None:
    # 99 has ended: it is known by its number alone.
    asked = {30, 40, 50, 60, 99}
    assert members(cast("Testbed", FakeTestbed()), processes, asked) == found


def test_a_lost_node_is_no_answer() -> None:
    with pytest.raises(NodeLost):
        members(cast("Testbed", FakeTestbed(lost=True)), Processes(roots=(1,)), {30})
