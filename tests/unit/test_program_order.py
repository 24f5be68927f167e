"""What the kernel tells of the order of an event's programs, and what it says of the tracer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import pytest

from pytest_syslat.placement import Placement
from pytest_syslat.program_order import ProgramOrder, contradiction, read_order
from pytest_syslat.testbeds.protocol import Completed, NodeLost, Role, Testbed, TestbedError

EVENTS = ("sys_enter_openat", "sys_exit_openat")


class FakeTestbed:
    """A node whose kernel answers as the test wants."""

    python = "python3"

    def __init__(self, answer: str | Exception, *, machine: str = "x86_64", code: int = 0) -> None:
        self.machine = machine
        self._answer = answer
        self._code = code
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        assert role is Role.TRACER
        self.asked = list(argv)
        if isinstance(self._answer, Exception):
            raise self._answer
        return Completed(tuple(argv), self._code, self._answer, "")


def read(testbed: FakeTestbed) -> tuple[ProgramOrder, ...] | None:
    return read_order(cast("Testbed", testbed), EVENTS, {7, 8})


@pytest.mark.parametrize(
    ("programs", "placement"),
    [
        ((7,), None),
        ((3, 7), Placement.LAST),
        ((3, 4, 7, 8), Placement.LAST),
        ((7, 3), Placement.FIRST),
        ((8, 3, 4), Placement.FIRST),
        ((3, 7, 4), Placement.UNKNOWN),
        ((7, 3, 8), Placement.UNKNOWN),
        # The tracer itself is not there: nothing is proven.
        ((3, 4), Placement.UNKNOWN),
        ((), Placement.UNKNOWN),
    ],
)
def test_where_the_tracer_stands(programs: tuple[int, ...], placement: Placement | None) -> None:
    order = ProgramOrder("sys_enter_openat", programs, frozenset({7, 8}))
    assert order.placement is placement


def test_the_answer_is_kept_in_the_kernels_order() -> None:
    testbed = FakeTestbed(json.dumps({EVENTS[0]: [9, 3, 7], EVENTS[1]: [7]}))
    orders = read(testbed)
    assert orders is not None
    assert [(each.event, each.programs) for each in orders] == [
        (EVENTS[0], (9, 3, 7)),
        (EVENTS[1], (7,)),
    ]
    assert orders[0].as_dict() == {"event": EVENTS[0], "programs": [9, 3, 7], "tracer": [7]}
    # perf_event_open is number 298 on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl).
    assert testbed.asked[-3:] == ["298", *EVENTS]


@pytest.mark.parametrize(
    "testbed",
    [
        FakeTestbed("", code=1),
        FakeTestbed("no JSON"),
        FakeTestbed(TestbedError("python3 did not end within 30 s")),
        FakeTestbed("{}", machine="riscv64"),
    ],
)
def test_a_kernel_that_does_not_tell(testbed: FakeTestbed) -> None:
    assert read(testbed) is None


def test_a_lost_node_is_no_missing_answer() -> None:
    with pytest.raises(NodeLost):
        read(FakeTestbed(NodeLost("the node is gone")))


def test_what_contradicts_is_named() -> None:
    alone = ProgramOrder("sys_exit_openat", (7,), frozenset({7}))
    behind = ProgramOrder("sys_enter_openat", (3, 7), frozenset({7}))
    assert contradiction([alone, behind], Placement.LAST) is None
    assert contradiction([alone, behind], Placement.FIRST) == (
        "sys_enter_openat runs program 3, the tracer"
    )
    assert contradiction([], Placement.FIRST) is None
