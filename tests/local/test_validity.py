"""Each condition that spoils a trial is provoked for real, and must refuse the trial."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import pytest

from pytest_syslat.network import read_tcp_counters
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.tcp_server import LAT_CONNECT_PORT, TcpServer
from pytest_syslat.testbeds.cores import parse_core_list
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Role, TestbedError
from pytest_syslat.trial import Bench

from .support import (
    CORES,
    LAST_CORE,
    ROOT,
    bench_on,
    child_with,
    detail,
    invalid_codes,
    kernel_counter,
    kill_child,
    listener_of_another,
    measure,
    opened,
    server_with,
)


@pytest.mark.parametrize("syscall", SYSCALLS)
def test_sound_trial_is_not_refused(bench: Bench, syscall: str) -> None:
    """What the others are compared with: nothing is wrong, and nothing is found."""
    trial = measure(bench, syscall)
    assert invalid_codes(trial) == set()
    assert trial.distribution.count > 0
    assert trial.distribution.min_ns > 0
    assert len(trial.runs_untraced) == len(trial.runs_traced) == 2
    # lmbench's operation contains the call, so untraced it costs at least what is far below it.
    assert trial.user_us is not None
    assert trial.user_us > 0


def test_missing_helper_is_refused(bench: Bench) -> None:
    """Every execve fails with ENOENT, yet lmbench exits 0 with a plausible figure."""
    helper = bench.workload.helper
    assert helper is not None
    aside = helper.with_name("hello.aside")
    helper.rename(aside)
    try:
        trial = measure(bench, "execve")
    finally:
        aside.rename(helper)
    assert all(run.us_per_op for run in trial.runs_traced)
    assert invalid_codes(trial) == {"failed-calls"}
    assert re.fullmatch(
        r"([\d,]+) of \1 calls \(100\.0%\) of execve of lmbench's helper program failed "
        r"in arm vanilla, \1 of them with ENOENT \(No such file or directory\)",
        detail(trial, "failed-calls"),
    )
    assert trial.distribution.count == 0


def test_connecting_to_nobody_is_refused(bench: Bench) -> None:
    bench.server.stop()
    trial = measure(bench, "connect")
    assert all(run.us_per_op for run in trial.runs_traced)
    assert invalid_codes(trial) == {"failed-calls", "no-listener"}
    assert re.fullmatch(
        r"([\d,]+) of \1 calls \(100\.0%\) of connect to the TCP server failed in arm vanilla, "
        r"\1 of them with ECONNREFUSED \(Connection refused\)",
        detail(trial, "failed-calls"),
    )
    assert detail(trial, "no-listener") == "nothing listens on the server's port"
    assert trial.distribution.count == 0


def test_server_that_dies_in_mid_trial_is_noticed(bench: Bench) -> None:
    def at(step: str) -> None:
        if step == "traced":
            kill_child(child_with("tcp_server.py"))

    trial = measure(bench, "connect", at=at)
    assert invalid_codes(trial) == {"failed-calls", "no-listener"}
    assert "ECONNREFUSED" in detail(trial, "failed-calls")


def test_overflowing_server_is_refused(bench: Bench, testbed: LocalTestbed) -> None:
    """The server pauses once, its backlog fills: a connect takes a second, and succeeds."""
    names = ("ListenOverflows", "ListenDrops", "TCPSynRetrans")
    bench.server.stop()
    with listener_of_another(testbed, backlog=1024, pause_after=300) as inode:
        bench.server = server_with(inode)
        trial = measure(bench, "connect")
        # The namespace is the run's own and the trial is the first in it.
        counts = [kernel_counter(testbed, "netstat", "TcpExt", name) for name in names]
    assert min(counts) >= 1
    assert invalid_codes(trial) == {"listen-overflow", "listen-drop", "syn-retransmit"}
    assert [
        detail(trial, code) for code in ("listen-overflow", "listen-drop", "syn-retransmit")
    ] == [
        f"{counts[0]:,} connections overflowed the server's backlog",
        f"{counts[1]:,} connections were dropped by the server's socket",
        f"{counts[2]:,} SYNs were sent again, each a second later",
    ]


def test_sockets_in_time_wait_are_refused(bench: Bench, testbed: LocalTestbed) -> None:
    """A server that closes as usual leaves a socket behind for each connection."""
    bench.server.stop()
    with listener_of_another(testbed, reset=False) as inode:
        bench.server = server_with(inode)
        while kernel_counter(testbed, "snmp", "Tcp", "ActiveOpens") <= 2000:
            bench.workload.run(SYSCALLS["connect"])
        trial = measure(bench, "connect")
    assert invalid_codes(trial) == {"time-wait"}
    told = re.match(r"([\d,]+) sockets in TIME_WAIT, more than 2,000", detail(trial, "time-wait"))
    assert told is not None
    connects = kernel_counter(testbed, "snmp", "Tcp", "ActiveOpens")
    assert 2000 < int(told[1].replace(",", "")) <= connects


def test_many_connects_leave_no_time_wait_and_meet_no_cliff(
    bench: Bench, testbed: LocalTestbed
) -> None:
    """After 14,100 connects half the ports are spent: each connect would take 100 times as long."""
    figures_us: list[float] = []
    while (
        len(figures_us) < 10 or kernel_counter(testbed, "snmp", "Tcp", "ActiveOpens") <= 15_000
    ) and len(figures_us) < 100:
        run = bench.workload.run(SYSCALLS["connect"])
        assert run.complaint is None
        assert run.us_per_op is not None
        figures_us.append(run.us_per_op)
    assert kernel_counter(testbed, "snmp", "Tcp", "ActiveOpens") > 15_000
    assert figures_us[-1] < 10 * figures_us[0]
    assert read_tcp_counters(testbed, LAT_CONNECT_PORT).time_wait < 2000


def test_map_that_is_too_small_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """bpftrace drops new keys in silence; the two counts differ."""
    for name in ("BPFTRACE_MAP_KEYS_MAX", "BPFTRACE_MAX_MAP_KEYS"):
        monkeypatch.setenv(name, "64")
    trial = measure(bench, "openat")
    assert invalid_codes(trial) - {"lost-events"} == {"miscounted"}  # newer versions tell
    told = re.match(
        r"the kernel counted ([\d,]+) calls, but the latencies of ([\d,]+) arrived",
        detail(trial, "miscounted"),
    )
    assert told is not None
    counted, arrived = (int(number.replace(",", "")) for number in told.groups())
    assert arrived == trial.distribution.count < counted
    assert trial.distribution.values_ns.size <= 64


def test_tracer_killed_in_mid_trial_is_refused(bench: Bench) -> None:
    def at(step: str) -> None:
        if step == "traced":
            kill_child(child_with(".bt"))

    trial = measure(bench, "openat", at=at)
    assert invalid_codes(trial) == {"tracer-failed"}
    assert "SIGKILL" in detail(trial, "tracer-failed")
    assert trial.distribution.count == 0


def test_server_does_not_start_beside_somebody_elses(testbed: LocalTestbed) -> None:
    server = TcpServer(testbed, ROOT)
    try:
        with (
            listener_of_another(testbed),
            pytest.raises(TestbedError, match=r"the TCP server did not start.*in use"),
        ):
            server.start()
        assert server.inode is None
        # The port is free again: nothing but the listener was in the way.
        server.start()
    finally:
        server.stop()


def test_somebody_elses_listener_in_place_of_ours_is_refused(
    bench: Bench, testbed: LocalTestbed
) -> None:
    """The connects succeed, but not to our server."""
    inode = bench.server.inode
    bench.server.stop()
    with listener_of_another(testbed):
        bench.server = server_with(inode)
        trial = measure(bench, "connect")
    assert invalid_codes(trial) == {"foreign-listener"}
    assert trial.distribution.count > 0


@pytest.mark.parametrize("since", ["warm-up", "traced"])
def test_listener_beside_ours_is_refused(bench: Bench, testbed: LocalTestbed, since: str) -> None:
    """It may come at any time: once the trial has begun, or before the calls that are traced."""
    with contextlib.ExitStack() as stack:

        def at(step: str) -> None:
            if step == since:
                stack.enter_context(listener_of_another(testbed, "127.0.0.2"))

        trial = measure(bench, "connect", at=at)
    assert invalid_codes(trial) == {"foreign-listener"}
    assert detail(trial, "foreign-listener") == "a listener that isn't ours holds the server's port"


class UnpinnedTestbed(LocalTestbed):
    """Forgets to keep the workload on its core."""

    def _command(self, argv: Sequence[str], role: Role) -> list[str]:
        if role is Role.WORKLOAD:
            argv = ["taskset", "--cpu-list", ",".join(map(str, CORES)), *argv]
        return super()._command(argv, role)


@pytest.fixture
def unpinned_bench() -> Iterator[Bench]:
    testbed = opened(UnpinnedTestbed)
    try:
        with bench_on(testbed) as bench:
            yield bench
    finally:
        testbed.close()


@pytest.mark.skipif(len(CORES) == 1, reason="with one core everything is pinned")
def test_workload_that_is_not_pinned_is_refused(unpinned_bench: Bench) -> None:
    trial = measure(unpinned_bench, "openat")
    assert invalid_codes(trial) == {"not-pinned"}
    told = re.fullmatch(
        rf"the workload may run on cores (\S+), not on {LAST_CORE} alone",
        detail(trial, "not-pinned"),
    )
    assert told is not None
    assert parse_core_list(told[1]) == set(CORES)
