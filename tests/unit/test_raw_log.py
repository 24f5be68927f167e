"""What a trial recorded, read from its log alone."""

from __future__ import annotations

import json

import pytest

from pytest_syslat.raw_log import RawLogProblem, read_log, stored_map_keys
from pytest_syslat.syscalls import CONNECT, Syscall

from .made_runs import calls, event_log, map_dump, map_log

RECORDED = calls(10_000)


def test_what_came_before_recording_is_left_out() -> None:
    trace = read_log(map_log(RECORDED, {7_000: 3, 10_000: 5}), "distribution", CONNECT)
    found = trace.succeeded
    assert dict(zip(found.values_ns.tolist(), found.counts.tolist(), strict=True)) == RECORDED
    assert (trace.total, trace.arrived, trace.lost, trace.after_last_run) == (1000, 1000, 0, 0)
    assert trace.problem is None


def test_marks_that_were_answered_twice_do_not_matter() -> None:
    log = map_dump({}).encode() + map_log(RECORDED)
    assert read_log(log, "distribution", CONNECT).succeeded.count == 1000


def test_runs_that_were_added_belong_to_the_trial() -> None:
    """For the least number of calls: then there is a dump after each lot."""
    steps = [{}, {7_000: 3}, {7_000: 3, 8_000: 40}, {7_000: 3, 8_000: 90}, {7_000: 3, 8_000: 90}]
    trace = read_log("".join(map(map_dump, steps)).encode(), "distribution", CONNECT)
    assert (trace.succeeded.count, trace.total, trace.after_last_run) == (90, 90, 0)


def test_a_run_before_recording_that_counted_nothing() -> None:
    steps: list[dict[int, int]] = [{}, {}, {8_000: 40}, {8_000: 40}]
    trace = read_log("".join(map(map_dump, steps)).encode(), "distribution", CONNECT)
    assert trace.succeeded.count == 40


def test_calls_after_the_last_run_are_told() -> None:
    steps = [{}, {7_000: 3}, {7_000: 13}, {7_000: 15}]
    trace = read_log("".join(map(map_dump, steps)).encode(), "distribution", CONNECT)
    assert (trace.total, trace.after_last_run) == (12, 2)


def test_latencies_that_are_missing_in_the_map_show() -> None:
    log = map_log(RECORDED).replace(b'"10000": 900', b'"10000": 899')
    trace = read_log(log, "distribution", CONNECT)
    assert (trace.total, trace.arrived) == (1000, 999)


def test_sums_of_closes() -> None:
    steps = [
        map_dump({}, close_calls=0, close_ns=0),
        map_dump({7_000: 3}, close_calls=3, close_ns=300),
        *[map_dump({7_000: 13}, close_calls=13, close_ns=1500)] * 2,
    ]
    trace = read_log("".join(steps).encode(), "distribution", CONNECT)
    assert (trace.closes, trace.close_ns) == (10, 1200)


def test_lines_of_events() -> None:
    trace = read_log(event_log({10_000: 3, 12_000: 1}), "events", CONNECT)
    assert (trace.succeeded.count, trace.total, trace.succeeded.mean_ns) == (4, 4, 10_500)


def test_lines_of_events_are_read_in_bulk() -> None:
    """There are millions of them: an object for each would take gigabytes."""

    class Log(bytes):
        def splitlines(self, keepends: bool = False) -> list[bytes]:
            raise AssertionError("an object for each line")

    trace = read_log(Log(event_log({10_000: 3, 12_000: 1})), "events", CONNECT)
    assert trace.succeeded.count == 4


def test_failed_events_are_apart() -> None:
    log = event_log({10_000: 3, 12_000: 1}).replace(b"12000 3", b"12000 -111")
    trace = read_log(log, "events", CONNECT)
    assert (trace.succeeded.count, trace.failures, trace.arrived) == (3, {111: 1}, 4)


@pytest.mark.parametrize(
    ("success", "good", "failures"),
    [
        ("ret >= 0", 3, {4: 5}),
        ("ret == 0", 2, {4: 5, -7: 1}),
        ("ret > 0", 1, {4: 5, 0: 2}),
        ("ret == -4", 5, {0: 2, -7: 1}),
    ],
)
def test_an_event_is_a_success_by_the_syscalls_definition(
    success: str, good: int, failures: dict[int, int]
) -> None:
    """Recorded are two calls that return 0, one that returns 7 and five that return -4."""
    returned = ["100 0\n"] * 2 + ["100 7\n"] + ["100 -4\n"] * 5
    before = "@total: 0\n" + "900 3\n" + "@total: 1\n"
    log = f"{before}{''.join(returned)}@total: 9\n\n@total: 9\n\n".encode()
    trace = read_log(log, "events", Syscall("mine", command=("a",), success=success))
    # The call before recording returned 3, which is good by half of the definitions.
    assert (trace.succeeded.count, trace.failures, trace.total) == (good, failures, 8)


@pytest.mark.parametrize(("system", "full"), [({}, False), ({"bpftrace map keys": "4"}, True)])
def test_stamps_are_full_by_the_limit_of_that_run(system: dict[str, str], full: bool) -> None:
    stamps = json.dumps({"type": "map", "data": {"@start": dict.fromkeys("abcd", 1)}})
    log = map_log(RECORDED)
    last = log.rindex(b'{"type": "map", "data": {"@total"')
    log = log[:last] + stamps.encode() + b"\n" + log[last:]
    trace = read_log(log, "distribution", CONNECT, stored_map_keys(system))
    assert trace.stamps_full is full


@pytest.mark.parametrize(
    ("log", "mode", "reason"),
    [
        (b"", "distribution", "no figures"),
        (b"\x00\x01 nonsense\n", "events", "no figures"),
        (map_log(RECORDED)[:-9], "distribution", "cut off"),
        (map_dump({}).encode() * 3, "distribution", "cut off"),
        (event_log({10_000: 3}).rpartition(b"\n@other")[0][:-1], "events", "cut off"),
        (map_log(RECORDED), "events", "no figures of the tracer events"),
        (map_log(RECORDED).replace(b'"10000": 900', b'"10000": "x"'), "distribution", "read"),
    ],
)
def test_logs_that_are_none(log: bytes, mode: str, reason: str) -> None:
    with pytest.raises(RawLogProblem, match=reason):
        read_log(log, mode, CONNECT)
