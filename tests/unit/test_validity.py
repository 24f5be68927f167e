from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import Finding, Severity
from pytest_syslat.network import TcpCounters
from pytest_syslat.settings import VANILLA
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import CoreTimes
from pytest_syslat.tracer import Trace
from pytest_syslat.validity import (
    check_agent_cores,
    check_audit_waits,
    check_drops,
    check_load,
    check_network,
    check_pinning,
    check_rate,
    check_runs,
    check_throttling,
    check_trace,
    describe_errno,
)
from pytest_syslat.workload import Run

EXECVE = SYSCALLS["execve"]
EPERM, ENOENT, EACCES, EFAULT = 1, 2, 13, 14
SERVER = 4711


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(str(finding.severity), finding.code) for finding in findings]


def calls(count: int) -> Distribution:
    return Distribution.from_counts({500: count})


def trace(
    succeeded: int, failures: dict[int, int] | None = None, total: int | None = None
) -> Trace:
    """A sound trace of so many calls, all of them accounted for unless `total` says otherwise."""
    failed = failures or {}
    return Trace(
        succeeded=calls(succeeded),
        failures=failed,
        other=0,
        total=succeeded + sum(failed.values()) if total is None else total,
        lost=0,
        after_last_run=0,
        problem=None,
    )


def test_a_sound_trace() -> None:
    assert check_trace(trace(1000), EXECVE, 1000, VANILLA) == []


def test_no_samples() -> None:
    findings = check_trace(trace(0), EXECVE, 1000, VANILLA)
    assert codes(findings) == [("invalid", "no-samples")]
    assert findings[0].detail == "no execve of lmbench's helper program was traced"


def test_a_tracer_that_died() -> None:
    died = replace(trace(5000), problem="bpftrace ended early by signal SIGKILL: it said nothing")
    assert codes(check_trace(died, EXECVE, 1000, VANILLA)) == [("invalid", "tracer-died")]
    nothing = replace(trace(0), problem="bpftrace ended early with exit code 1: no")
    assert codes(check_trace(nothing, EXECVE, 1000, VANILLA)) == [
        ("invalid", "tracer-died"),
        ("invalid", "no-samples"),
    ]


@pytest.mark.parametrize(
    ("succeeded", "failed", "expected"),
    [
        # One in a thousand is allowed, for any number of thousands.
        (999, 1, "note"),
        (1998, 2, "note"),
        (6993, 7, "note"),
        (998, 2, "invalid"),
        (1996, 3, "invalid"),
        (99_900, 100, "note"),
        (99_899, 101, "invalid"),
        (0, 1000, "invalid"),
    ],
)
def test_failed_calls(succeeded: int, failed: int, expected: str) -> None:
    findings = check_trace(trace(succeeded, {EACCES: failed}), EXECVE, 1, VANILLA)
    named = [(str(each.severity), each.code) for each in findings if "failed" in each.code]
    code = {"note": "some-failed-calls", "invalid": "failed-calls"}[expected]
    assert named == [(expected, code)]


def test_failed_calls_name_the_share_and_the_most_frequent_reason() -> None:
    # 150 of 1,600 are 9.375 %.
    [finding] = check_trace(trace(1450, {EACCES: 50, ENOENT: 100}), EXECVE, 1000, VANILLA)
    assert finding.detail == (
        "150 of 1,600 calls (9.4%) of execve of lmbench's helper program failed in arm vanilla, "
        "100 of them with ENOENT (No such file or directory)"
    )


def test_failed_calls_under_an_agent_ask_for_its_policy() -> None:
    [finding] = check_trace(trace(0, {EPERM: 1204}), EXECVE, 1, "tetragon")[:1]
    assert finding.code == "failed-calls"
    assert finding.detail == (
        "1,204 of 1,204 calls (100.0%) of execve of lmbench's helper program failed in arm "
        "tetragon, 1,204 of them with EPERM (Operation not permitted): "
        "does its policy block the workload?"
    )


def test_a_few_failed_calls_are_noted_with_their_reasons() -> None:
    [finding] = check_trace(trace(49_997, {ENOENT: 1, EACCES: 2}), EXECVE, 1000, VANILLA)
    assert finding.severity is Severity.NOTE
    assert finding.detail == (
        "3 of 50,000 calls failed: 1 ENOENT (No such file or directory), "
        "2 EACCES (Permission denied)"
    )


def test_lost_events() -> None:
    findings = check_trace(replace(trace(5000), lost=1), EXECVE, 1000, VANILLA)
    assert codes(findings) == [("invalid", "lost-events")]


@pytest.mark.parametrize("total", [4999, 5001])
def test_one_call_too_many_or_too_few_is_miscounted(total: int) -> None:
    findings = check_trace(trace(5000, total=total), EXECVE, 1000, VANILLA)
    assert codes(findings) == [("invalid", "miscounted")]
    assert f"the kernel counted {total:,} calls" in findings[0].detail
    assert "latencies of 5,000 arrived" in findings[0].detail


def test_failed_calls_count_as_arrived() -> None:
    assert codes(check_trace(trace(5000, {ENOENT: 1}, total=5001), EXECVE, 1000, VANILLA)) == [
        ("note", "some-failed-calls")
    ]


def test_a_full_map_of_stamps() -> None:
    findings = check_trace(replace(trace(5000), stamps_full=True), EXECVE, 1000, VANILLA)
    assert codes(findings) == [("invalid", "miscounted")]


def test_calls_after_the_last_run_are_somebody_elses() -> None:
    findings = check_trace(replace(trace(5000), after_last_run=1), EXECVE, 1000, VANILLA)
    assert codes(findings) == [("invalid", "foreign-samples")]


@pytest.mark.parametrize(
    ("count", "min_calls", "expected"),
    [
        (1000, 1000, []),
        (999, 1000, [("undecided", "few-calls")]),
        # Whatever was wanted, p99 needs 1,000.
        (999, 100, [("undecided", "few-calls")]),
        (1000, 100, []),
        (4999, 5000, [("warning", "few-calls")]),
        (5000, 5000, []),
    ],
)
def test_few_calls(count: int, min_calls: int, expected: list[tuple[str, str]]) -> None:
    assert codes(check_trace(trace(count), EXECVE, min_calls, VANILLA)) == expected


def test_all_that_is_wrong_is_told() -> None:
    bad = replace(
        trace(100, {ENOENT: 900}, total=1100), lost=100, after_last_run=5, stamps_full=True
    )
    assert {code for _, code in codes(check_trace(bad, EXECVE, 1000, VANILLA))} == {
        "failed-calls",
        "lost-events",
        "miscounted",
        "foreign-samples",
        "few-calls",
    }


def test_describe_errno() -> None:
    assert describe_errno(EFAULT) == "EFAULT (Bad address)"
    assert describe_errno(4095).startswith("4095 (")


def test_runs_with_figures() -> None:
    assert check_runs([Run(11.5, None), Run(12.0, None)], VANILLA) == []


def test_a_run_without_a_figure() -> None:
    findings = check_runs(
        [Run(11.5, "odd"), Run(None, "lat_connect printed no figure: exit code 0")], VANILLA
    )
    assert codes(findings) == [("invalid", "lmbench-failed")]
    assert findings[0].detail == (
        "1 of 2 runs of the workload gave no figure in arm vanilla: "
        "lat_connect printed no figure: exit code 0"
    )


def test_a_run_without_a_figure_under_an_agent() -> None:
    [finding] = check_runs([Run(None, "lat_syscall ended with -9: exit code -9")], "tetragon")
    assert finding.detail == (
        "1 of 1 runs of the workload gave no figure in arm tetragon: "
        "lat_syscall ended with -9: exit code -9: does its policy block the workload?"
    )


def paced(*achieved_per_s: float | None) -> list[Run]:
    return [Run(10.0, None, achieved_per_s=each) for each in achieved_per_s]


@pytest.mark.parametrize(
    ("untraced", "traced", "missed"),
    [
        ((100.0, 100.0), (100.0, 100.0), None),
        # 95 of 100 are enough, on average.
        ((100.0, 90.0), (95.0, 95.0), None),
        ((100.0, 89.8), (100.0, 100.0), "94.9 of 100 operations a second were made with no tracer"),
        ((100.0, 100.0), (80.0, 60.0), "70.0 of 100 operations a second were made while tracing"),
        # A run without a figure is told about elsewhere.
        ((None, 100.0), (None, None), None),
    ],
)
def test_rate(
    untraced: tuple[float | None, ...], traced: tuple[float | None, ...], missed: str | None
) -> None:
    findings = check_rate(paced(*untraced), paced(*traced), 100)
    if missed is None:
        assert findings == []
    else:
        assert codes(findings) == [("warning", "rate-missed")]
        assert findings[0].detail.startswith(missed)


def test_no_rate_was_asked_for() -> None:
    assert check_rate(paced(None), paced(None), None) == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, None),
        ((), None),
        (("falco",), "1 thread of falco ran on the measured core 2 (falco): "),
        (("rpc", "falco", "rpc"), "3 threads of falco ran on the measured core 2 (falco, rpc): "),
    ],
)
def test_an_agent_on_the_measured_core(names: tuple[str, ...] | None, told: str | None) -> None:
    findings = check_agent_cores(AgentCost(threads_on_core=names), 2, "falco")
    if told is None:
        assert findings == []
    else:
        assert codes(findings) == [("warning", "agent-on-core")]
        assert findings[0].detail == told + "that takes time from the workload"


def test_a_run_with_a_complaint() -> None:
    findings = check_runs(
        [Run(11.5, None), Run(12.0, "lat_connect: odd"), Run(12.0, "later")], VANILLA
    )
    assert [(str(each.severity), each.detail) for each in findings] == [
        ("warning", "lat_connect: odd")
    ]


def counters(**changes: int) -> TcpCounters:
    quiet = {"listen_overflows": 7, "listen_drops": 7, "syn_retransmits": 3, "time_wait": 0}
    return TcpCounters(**(quiet | changes), listener_inodes=frozenset({SERVER}))


def test_a_quiet_network() -> None:
    """Counters since boot may stand anywhere; they must not move."""
    assert check_network(counters(), counters(), SERVER) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("listen_overflows", "listen-overflow"),
        ("listen_drops", "listen-drop"),
        ("syn_retransmits", "syn-retransmit"),
    ],
)
def test_a_counter_that_moves(name: str, code: str) -> None:
    moved = counters(**{name: getattr(counters(), name) + 1})
    findings = check_network(counters(), moved, SERVER)
    assert codes(findings) == [("invalid", code)]
    assert findings[0].detail.startswith("1 ")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 500, []),
        (0, 501, [("warning", "time-wait-grows")]),
        (1500, 2000, []),
        (1499, 2000, [("warning", "time-wait-grows")]),
        (2000, 2000, []),
        (2000, 2001, [("invalid", "time-wait")]),
        # They may be gone when the trial ends: it began among them.
        (2001, 0, [("invalid", "time-wait")]),
        (900, 0, []),
    ],
)
def test_time_wait(before: int, after: int, expected: list[tuple[str, str]]) -> None:
    findings = check_network(counters(time_wait=before), counters(time_wait=after), SERVER)
    assert codes(findings) == expected


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    ("inodes", "code"),
    [
        (set(), "no-listener"),
        ({SERVER + 1}, "foreign-listener"),
        ({SERVER, SERVER + 1}, "foreign-listener"),
    ],
)
def test_listeners_before_and_after(position: int, inodes: set[int], code: str) -> None:
    moments = [counters(), counters()]
    moments[position] = replace(moments[position], listener_inodes=frozenset(inodes))
    assert codes(check_network(moments[0], moments[1], SERVER)) == [("invalid", code)]


def test_a_server_of_ours_that_is_not_known_is_nobodys() -> None:
    assert ("invalid", "foreign-listener") in codes(check_network(counters(), counters(), None))


@pytest.mark.parametrize(
    ("allowed", "strays"),
    [(["2", "2"], None), (["0-3", "2"], "0-3"), (["2", "2,3"], "2,3"), (["2", "3"], "3")],
)
def test_pinning(allowed: list[str], strays: str | None) -> None:
    findings = check_pinning(allowed, 2)
    if strays is None:
        assert findings == []
    else:
        assert codes(findings) == [("invalid", "not-pinned")]
        assert f"on cores {strays}, not on 2 alone" in findings[0].detail


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [(0, 0, False), (5, 5, False), (5, 6, True), (None, 6, False), (5, None, False)],
)
def test_throttling(before: int | None, after: int | None, throttled: bool) -> None:
    expected = [("invalid", "throttled")] if throttled else []
    assert codes(check_throttling(before, after)) == expected


@pytest.mark.parametrize(
    ("before", "after", "calls_traced", "expected"),
    [
        (None, None, 1000, []),
        (None, 10, 1000, []),
        (10, None, 1000, []),
        (10, 10, 1000, []),
        # One in a thousand.
        (10, 11, 1000, [("note", "agent-dropped")]),
        (10, 11, 999, [("undecided", "agent-dropped")]),
        (10, 60, 50_000, [("note", "agent-dropped")]),
        (10, 61, 50_000, [("undecided", "agent-dropped")]),
        (10, 9, 1000, [("undecided", "agent-restarted")]),
        (0, 1, 0, [("undecided", "agent-dropped")]),
    ],
)
def test_drops(
    before: int | None, after: int | None, calls_traced: int, expected: list[tuple[str, str]]
) -> None:
    assert codes(check_drops(before, after, calls_traced, "auditd")) == expected


def test_drops_tell_how_many_of_how_many() -> None:
    [finding] = check_drops(100, 1304, 98_000, "falco")
    # 1,204 of 98,000 are 1.2286 %.
    assert finding.detail == (
        "falco dropped 1,204 events during 98,000 traced calls (1.23%), more than 0.1%: "
        "with drops it looks faster than it is"
    )
    [finding] = check_drops(0, 20, 50_000, "falco")
    assert finding.detail == "falco dropped 20 events during 50,000 traced calls (0.04%)"


def times(elapsed_s: float, busy_s: float, stolen_s: float, workload_s: float) -> CoreTimes:
    """Times that began long ago: only differences count."""
    return CoreTimes(
        elapsed_s=10_000 + elapsed_s,
        busy_s=4000 + busy_s,
        stolen_s=300 + stolen_s,
        workload_s=20 + workload_s,
    )


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (times(100, 90, 0, 90), []),
        # 5 s of 100 are the limit.
        (times(100, 95, 0, 90), []),
        (times(100, 96, 0, 90), [("warning", "other-load")]),
        (times(100, 90, 5, 90), []),
        (times(100, 90, 6, 90), [("warning", "steal")]),
        (times(100, 60, 30, 50), [("warning", "other-load"), ("warning", "steal")]),
        # The workload's clock may run ahead of the core's ticks.
        (times(100, 90, 0, 91), []),
        (times(0, 0, 0, 0), []),
        (None, []),
    ],
)
def test_load(after: CoreTimes | None, expected: list[tuple[str, str]]) -> None:
    assert codes(check_load(times(0, 0, 0, 0), after)) == expected


def test_load_is_told_in_per_cent() -> None:
    findings = check_load(times(0, 0, 0, 0), times(200, 120, 40, 90))
    assert "15%" in findings[0].detail
    assert "20%" in findings[1].detail


def test_load_without_a_beginning() -> None:
    assert check_load(None, times(100, 100, 0, 0)) == []


@pytest.mark.parametrize(
    ("before", "after", "waited"),
    [(None, 5, False), (5, None, False), (5, 5, False), (5, 6, True), (6, 5, False)],
)
def test_audit_waits(before: int | None, after: int | None, waited: bool) -> None:
    expected = [("warning", "audit-backlog")] if waited else []
    assert codes(check_audit_waits(before, after)) == expected


def test_drops_beside_the_untraced_figure_have_a_code_of_their_own() -> None:
    [found] = check_drops(0, 11, 10_000, "guard", "untraced")
    assert found.code == "agent-dropped-untraced"
    assert found.severity is Severity.UNDECIDED
    assert found.detail.startswith("guard dropped 11 events during 10,000 untraced calls (0.11%)")
