"""Who is on the syscall events decides what a trial may say of the tracer's place."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_syslat import trial as trial_module
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.placement import Holder, Placement
from pytest_syslat.plan import TrialKey
from pytest_syslat.program_order import ProgramOrder
from pytest_syslat.progress import silent
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.trial import TracerFirst, _TrialRun

STRANGER = Holder(999, "stranger", "sys_exit_openat", raw=False)
TRACER = [Holder(5, "bpftrace", event, raw=False) for event in SYSCALLS["openat"].events]
TRACING: Any = SimpleNamespace(pid=5)
HOW = TracerFirst(lambda: None, lambda: None, with_user=False)


def trial_run(
    monkeypatch: pytest.MonkeyPatch,
    lists: Sequence[list[Holder]],
    *,
    first: bool = False,
    order: tuple[int, ...] = (),
) -> _TrialRun:
    """A trial of vanilla on a node where the lists of holders are these, one after the other."""
    answers = iter(lists)
    monkeypatch.setattr(trial_module, "list_holders", lambda _testbed: next(answers))
    tracers = [{"pid": 5, "prog_id": 50}, {"pid": 7, "prog_id": 70}]
    monkeypatch.setattr(trial_module, "bpftool_list", lambda *_: tracers)
    monkeypatch.setattr(
        trial_module,
        "read_order",
        lambda _testbed, events, ours: tuple(
            ProgramOrder(event, order, frozenset(ours)) for event in events
        ),
    )
    bench: Any = SimpleNamespace(
        testbed=None,
        settings=SimpleNamespace(placement="both"),
        tracer=SimpleNamespace(attach=lambda *_, **__: TRACING),
    )
    key = TrialKey("openat", "vanilla", 1)
    vanilla: Any = Vanilla
    return _TrialRun(
        bench,
        SYSCALLS["openat"],
        key,
        vanilla(None, None),
        silent,
        HOW if first else None,
    )


def codes(run: _TrialRun) -> list[tuple[str, str]]:
    return [(each.code, str(each.severity)) for each in run.findings]


def test_nobody_else_proves_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    last = trial_run(monkeypatch, [[], []], order=(50,))
    last._check_place()
    last._check_order(TRACING)
    last._check_place_again()
    first = trial_run(monkeypatch, [[], TRACER, TRACER, []], first=True, order=(50,))
    first._attach_first(HOW)
    first._check_order(TRACING)
    first._check_place_again()
    assert (last.placement, first.placement) == (Placement.LAST, Placement.FIRST)
    assert last.findings == first.findings == []


@pytest.mark.parametrize("order", [(50, 70), (70, 50, 70)])
def test_order_that_the_kernel_tells_wins_over_the_lists(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    run = trial_run(monkeypatch, [[], []], order=order)
    run._check_place()
    run._check_order(TRACING)
    assert run.placement is Placement.UNKNOWN
    assert codes(run) == [("placement-contradicted", "undecided")]
    assert "sys_enter_openat runs" in run.findings[0].detail


@pytest.mark.parametrize("lists", [[[], [STRANGER]], [[STRANGER], []]], ids=["comes", "leaves"])
def test_somebody_who_comes_or_leaves_while_calls_are_traced(
    monkeypatch: pytest.MonkeyPatch, lists: list[list[Holder]]
) -> None:
    run = trial_run(monkeypatch, lists)
    run._check_place()
    run._check_place_again()
    assert run.placement is Placement.UNKNOWN
    assert codes(run)[-1] == ("other-tracers", "warning")
    assert "stranger (pid 999) on sys_exit_openat" in run.findings[-1].detail


def test_somebody_who_comes_while_the_agent_is_switched_on_is_not_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists = [[], TRACER, [*TRACER, STRANGER], [STRANGER]]
    run = trial_run(monkeypatch, lists, first=True)
    run._attach_first(HOW)
    run._check_place_again()
    assert run.placement is Placement.UNKNOWN
    assert codes(run) == [("other-tracers", "warning")]


def test_a_list_that_does_not_know_the_tracer_contradicts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trial_run(monkeypatch, [[], []], order=(70,))
    monkeypatch.setattr(trial_module, "bpftool_list", lambda *_: [{"pid": 7, "prog_id": 70}])
    run._check_place()
    run._check_order(TRACING)
    assert (run.placement, run.order, run.findings) == (Placement.LAST, None, [])
