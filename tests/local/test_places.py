"""Both placements with the real tracer: proven, and what each of them sees."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from pytest_syslat.agents.calibration import Calibration
from pytest_syslat.attribution import attribute
from pytest_syslat.bpf_programs import list_programs
from pytest_syslat.confirmation import confirm
from pytest_syslat.findings import Severity
from pytest_syslat.placement import Placement, list_holders
from pytest_syslat.plan import TrialKey
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.tracer import Tracer
from pytest_syslat.trial import Bench, TracerFirst, Trial

from .support import ROOT, RUN_LIMIT_S, call_exactly, detail, wait_until
from .test_calibration import SWITCH
from .test_main_job import Project
from .test_placement import EVENT, stranger_on

WORK = 10000
"""About 14 µs, many times what the tracer itself sees of an openat."""


@pytest.fixture
def nobody_else(testbed: LocalTestbed) -> None:
    """Another tracer of this host would disturb."""
    holders = list_holders(testbed)
    if holders:
        pytest.skip(f"others trace syscalls here: {', '.join(map(str, holders))}")


def switched_on(agent: Calibration) -> None:
    agent.activate()
    wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "calibration is ready")


def tracer_first(agent: Calibration) -> TracerFirst:
    return TracerFirst(agent.deactivate, lambda: switched_on(agent), with_user=False)


@pytest.fixture
def at_entry(testbed: LocalTestbed) -> Iterator[Calibration]:
    agent = Calibration(testbed, ROOT, place="entry", work=WORK)
    yield agent
    agent.remove()


def seen_ns(trial: Trial) -> int:
    assert not trial.refused, trial.reasons
    return trial.distribution.quantile_ns(0.5)


@pytest.mark.usefixtures("nobody_else")
def test_work_at_entry_is_seen_only_by_a_tracer_that_came_first(
    bench: Bench, at_entry: Calibration
) -> None:
    key = TrialKey("openat", "entry", 1)
    switched_on(at_entry)
    last = bench.measure(key, at_entry)
    first = bench.measure(key, at_entry, tracer_first=tracer_first(at_entry))
    assert (last.placement, first.placement) == (Placement.LAST, Placement.FIRST)
    assert seen_ns(first) > 4 * seen_ns(last)
    assert (bool(last.runs_untraced), first.runs_untraced) == (True, ())

    # The kernel itself tells both orders; calibration has no program at exit.
    for trial, placement in ((last, Placement.LAST), (first, Placement.FIRST)):
        assert trial.order is not None
        assert {each.event: each.placement for each in trial.order} == {
            "sys_enter_openat": placement,
            "sys_exit_openat": None,
        }


@pytest.mark.usefixtures("nobody_else")
def test_a_stranger_leaves_the_order_unknown_and_is_named(
    bench: Bench, testbed: LocalTestbed, at_entry: Calibration
) -> None:
    key = TrialKey("openat", "entry", 1)
    with stranger_on(testbed, f"tracepoint:syscalls:{EVENT}") as pid:
        switched_on(at_entry)
        for how in (None, tracer_first(at_entry)):
            trial = bench.measure(key, at_entry, tracer_first=how)
            assert trial.placement is Placement.UNKNOWN
            [finding] = [each for each in trial.findings if each.code == "other-tracers"]
            assert finding.severity is Severity.WARNING
            assert f"(pid {pid}) on {EVENT}" in finding.detail
            # The agent itself is nobody's stranger.
            assert "openat" not in finding.detail


@pytest.mark.usefixtures("nobody_else")
def test_an_agent_that_did_not_come_after_the_tracer_is_found_out(
    bench: Bench, at_entry: Calibration
) -> None:
    """What the lists of holders cannot tell, the order within the event does."""
    switched_on(at_entry)
    # It was never switched off.
    how = TracerFirst(lambda: None, lambda: None, with_user=False)
    trial = bench.measure(TrialKey("openat", "entry", 1), at_entry, tracer_first=how)
    assert trial.placement is Placement.UNKNOWN
    assert "sys_enter_openat" in detail(trial, "other-tracers")
    assert trial.order is not None
    assert trial.order[0].placement is Placement.LAST


def test_the_closes_of_counted_opens_are_summed(testbed: LocalTestbed) -> None:
    syscall = SYSCALLS["openat"]
    tracing = Tracer(testbed, ROOT, "distribution").attach(syscall, whole_operation=True)
    try:
        tracing.begin()
        call_exactly(testbed, "openat", syscall.comm, succeeding=700, failing=30, other=9)
        assert tracing.calls_so_far() == 730
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert (trace.succeeded.count, trace.other, trace.closes) == (700, 9, 700)
    assert 50 * trace.closes < trace.close_ns < 1_000_000 * trace.closes


@pytest.mark.usefixtures("nobody_else")
def test_loads_confirm_both_placements(bench: Bench) -> None:
    found = confirm(bench, [Placement.LAST, Placement.FIRST])
    assert found.problem is None
    assert [(str(each.placement), each.place) for each in found.loads] == [
        *(("last", place) for place in ("entry", "exit")),
        *(("first", place) for place in ("entry", "exit")),
    ]
    assert [found.contradiction(each) for each in (Placement.LAST, Placement.FIRST)] == [None] * 2
    assert all(each.load_ns > 1000 for each in found.loads)
    # A null syscall is far below the microsecond that a busy machine takes for an openat.
    assert found.floor is not None
    assert 0.01 < found.floor.p50_us < 5
    assert found.floor.traced_us > found.floor.untraced_us > 0.01


def test_work_is_attributed_to_the_program_that_does_it(
    bench: Bench, testbed: LocalTestbed, at_entry: Calibration
) -> None:
    switch = SWITCH.read_text()
    known = {each.id for each in list_programs(testbed) or ()}
    switched_on(at_entry)
    found = attribute(bench, SYSCALLS["openat"], "entry", at_entry, known)
    assert found.calls > 1000
    ours = [each for each in found.shares if each.owner == "agent"]
    [at_openat] = [each for each in ours if each.attached_to == ("tracepoint sys_enter_openat",)]
    # Every traced open, and those of the loader and of others beside them.
    assert at_openat.runs_per_call is not None
    assert 1.0 <= at_openat.runs_per_call < 1.5
    assert at_openat.ns_per_call == max(each.ns_per_call for each in found.shares)
    tracer = {each.attached_to for each in found.shares if each.owner == "tracer"}
    assert tracer == {(f"tracepoint {event}",) for event in SYSCALLS["openat"].events}
    assert SWITCH.read_text() == switch


@pytest.mark.long
def test_the_split_finds_the_work_where_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = Project(tmp_path_factory.mktemp("split"))
    arms = {"entry": f"calibration:entry-{WORK}", "exit": f"calibration:exit-{WORK}"}
    try:
        project.run(
            *(f"--agent={label}={arm}" for label, arm in arms.items()),
            *("-k", "openat", "--syslat-trials=4", "--syslat-placement=both"),
            *("--syslat-lmbench-reps=3", "--syslat-openat-mult=1", "--syslat-warmup-sec=0"),
            *("--syslat-pin-core=999", "--syslat-testbed=local"),
        )
        trials = {
            (trial["label"], trial["trial"]): trial
            for trial in project.run_json()["trials"]
            if not trial["refused"] and trial["first"] and not trial["first"]["refused"]
        }
        for arm, at_entry in (("entry", True), ("exit", False)):
            shares = []
            for block in range(1, 5):
                if not {(arm, block), ("vanilla", block)} <= set(trials):
                    continue
                ours, vanilla = trials[arm, block], trials["vanilla", block]
                # p50 of the traced calls, since a busy machine lengthens single ones a lot.
                last, first = (
                    a["figures_us"]["p50"] - b["figures_us"]["p50"]
                    for a, b in ((ours, vanilla), (ours["first"], vanilla["first"]))
                )
                shares.append(first / (first + last) if at_entry else last / (first + last))
            assert len(shares) >= 3, project.said()
            assert statistics.median(shares) > 0.85, shares
        told = {each["agent"]: each for each in project.run_json()["split"]}
        assert told["entry"]["whole_operation"]
        assert told["entry"]["entry"]["mean_us"] > told["exit"]["entry"]["mean_us"]
        assert told["exit"]["exit"]["mean_us"] > told["entry"]["exit"]["mean_us"]
    finally:
        project.close()
