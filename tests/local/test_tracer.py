"""The tracer: every call of the workload is counted once, and nobody else's."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_syslat.settings import VANILLA
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.tcp_server import TcpServer
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Filter, Role
from pytest_syslat.tools import find_lmbench, library_path
from pytest_syslat.tracer import Tracer
from pytest_syslat.trial import Bench
from pytest_syslat.validity import check_trace

from .support import (
    CORES,
    LAST_CORE,
    ROOT,
    RUN_LIMIT_S,
    call_exactly,
    child_with,
    kill_child,
    opened,
    wait_until,
)

BPFTRACES = [
    "bpftrace",
    *filter(None, os.environ.get("SYSLAT_TEST_BPFTRACE", "").split(os.pathsep)),
]
"""bpftrace as PATH finds it, and further versions that somebody wants to be tested."""
ERRNO_OF_FAILING = {"openat": 2, "connect": 111, "execve": 2}
CALLS = {
    "openat": {"succeeding": 1200, "failing": 35, "other": 7},
    "connect": {"succeeding": 600, "failing": 25, "other": 5},
    "execve": {"succeeding": 90, "failing": 15},
}


@pytest.fixture
def server(testbed: LocalTestbed) -> Iterator[TcpServer]:
    server = TcpServer(testbed, ROOT)
    server.start()
    yield server
    server.stop()


def record_exactly(testbed: LocalTestbed, name: str, mode: str) -> None:
    """Trace a program that makes a known number of calls, and check every figure of the trace."""
    syscall, calls = SYSCALLS[name], CALLS[name]
    tracing = Tracer(testbed, ROOT, mode).attach(syscall)
    try:
        # What comes before the trial is not the trial's.
        call_exactly(testbed, name, syscall.comm, **dict.fromkeys(calls, 3))
        tracing.begin()
        call_exactly(testbed, name, syscall.comm, **calls)
        recorded = calls["succeeding"] + calls["failing"]
        assert tracing.calls_so_far() == recorded
        assert tracing.failed_so_far() == calls["failing"]
        trace, log = tracing.stop()[:2]
    finally:
        tracing.end()

    assert trace.problem is None
    assert trace.succeeded.count == calls["succeeding"]
    assert trace.failures == {ERRNO_OF_FAILING[name]: calls["failing"]}
    assert trace.other == calls.get("other", 0)
    assert trace.total == trace.arrived == recorded
    assert trace.lost == trace.after_last_run == 0
    assert trace.succeeded.min_ns > 0
    assert log
    assert not [
        each for each in check_trace(trace, syscall, 1, VANILLA) if each.code == "miscounted"
    ]


@pytest.mark.parametrize("mode", ["distribution", "events"])
@pytest.mark.parametrize("name", ["execve", "connect"])
def test_every_call_is_counted_once(
    testbed: LocalTestbed, server: TcpServer, name: str, mode: str
) -> None:
    record_exactly(testbed, name, mode)


@pytest.mark.parametrize("mode", ["distribution", "events"])
@pytest.mark.parametrize("command", BPFTRACES, ids=lambda command: Path(command).name)
def test_every_openat_is_counted_once(
    testbed: LocalTestbed,
    command: str,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With each version of bpftrace that `SYSLAT_TEST_BPFTRACE` names, beside the installed one."""
    if command != "bpftrace":
        (tmp_path / "bpftrace").symlink_to(command)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    told = subprocess.run(
        [command, "--version"], capture_output=True, text=True, timeout=RUN_LIMIT_S
    )
    assert Tracer(testbed, ROOT, mode).version == told.stdout.strip()
    record_exactly(testbed, "openat", mode)


def test_long_latency_is_kept_to_one_part_in_256(testbed: LocalTestbed) -> None:
    """An open that is blocked for a time that the blocked program takes itself."""
    program = """
import ctypes, os, sys, time
fifo = sys.argv[1]
os.mkfifo(fifo)
if os.fork() == 0:
    time.sleep(0.15)
    os._exit(os.open(fifo, os.O_WRONLY) < 0)
libc = ctypes.CDLL(None)
libc.prctl(15, b"lat_syscall", 0, 0, 0)
begin_ns = time.perf_counter_ns()
libc.open(fifo.encode(), os.O_RDONLY)
print(time.perf_counter_ns() - begin_ns)
"""
    tracing = Tracer(testbed, ROOT, "distribution").attach(SYSCALLS["openat"])
    try:
        tracing.begin()
        told = testbed.run(
            [testbed.python, "-I", "-S", "-c", program, str(testbed.workdir / "fifo")],
            role=Role.WORKLOAD,
            timeout_s=RUN_LIMIT_S,
        )
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    own_ns = int(told.stdout)
    assert own_ns > 100_000_000
    assert trace.succeeded.count == 1
    # Around the call the program needs some µs; on a busy core it may also wait there.
    assert own_ns / 2 < trace.succeeded.max_ns < own_ns * 257 / 256


class Stranger:
    """Somebody's lmbench on another core and outside the workload's cgroup."""

    def __init__(self, file: Path) -> None:
        others = [core for core in CORES if core != LAST_CORE] or [LAST_CORE]
        program = find_lmbench(None) / "lat_syscall"
        # `-N` repeats the measurement: it runs until it is ended.
        self._process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, others))]
            + [str(program), "-N", "1000000", "open", str(file)],
            env={**os.environ, **library_path(), "ENOUGH": "5000", "TIMING_O": "0", "LOOP_O": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        wait_until(lambda: self.cpu_s() > 0.02, RUN_LIMIT_S, "the stranger makes calls")

    def cpu_s(self) -> float:
        """The CPU time of its processes so far: lmbench measures in a child."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self._process.pid:
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        assert self._process.poll() is None
        os.killpg(self._process.pid, 9)
        self._process.wait()


def expect_workload_alone(testbed: LocalTestbed) -> None:
    """A stranger's calls are not counted, alone or beside the workload's."""
    measured = testbed.workdir / "strangers-file"
    measured.touch()
    tracing = Tracer(testbed, ROOT, "distribution").attach(SYSCALLS["openat"])
    stranger = Stranger(measured)
    try:
        tracing.begin()
        begun_s = stranger.cpu_s()
        wait_until(
            lambda: stranger.cpu_s() > begun_s + 0.1, RUN_LIMIT_S, "the stranger makes calls"
        )
        assert tracing.calls_so_far() == 0
        call_exactly(testbed, "openat", "lat_syscall", 500, 4, 3)
        assert tracing.calls_so_far() == 504
        trace = tracing.stop()[0]
    finally:
        stranger.end()
        tracing.end()
    assert trace.succeeded.count == 500
    assert trace.failures == {2: 4}
    assert trace.other == 3
    assert trace.after_last_run == 0


def test_strangers_lat_syscall_is_not_counted(testbed: LocalTestbed) -> None:
    assert testbed.scope.filter is Filter.CGROUP
    expect_workload_alone(testbed)


@pytest.fixture
def testbed_without_cgroups(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTestbed]:
    """As on a host without cgroup v2: a pid namespace takes the cgroup's place."""
    with monkeypatch.context() as patch:
        patch.setattr("pytest_syslat.testbeds.local.cgroup2_mount", lambda: None)
        testbed = opened()
        yield testbed
        testbed.close()


def test_pid_namespace_serves_where_no_cgroup_does(testbed_without_cgroups: LocalTestbed) -> None:
    assert testbed_without_cgroups.scope.filter is Filter.PID_NAMESPACE
    expect_workload_alone(testbed_without_cgroups)


def test_calls_after_the_last_run_are_foreign(bench: Bench, testbed: LocalTestbed) -> None:
    """Somebody else runs lmbench in the workload's own cgroup after the workload has ended."""
    tracing = bench.tracer.attach(SYSCALLS["openat"])
    try:
        tracing.begin()
        bench.workload.run(SYSCALLS["openat"])
        assert tracing.calls_so_far() > 0
        call_exactly(testbed, "openat", "lat_syscall", 1234)
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    [finding] = [
        each
        for each in check_trace(trace, SYSCALLS["openat"], 1, VANILLA)
        if each.code == "foreign-samples"
    ]
    assert finding.detail == "1,234 calls were counted after the workload had ended"


@pytest.fixture
def few_map_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BPFTRACE_MAP_KEYS_MAX", "BPFTRACE_MAX_MAP_KEYS"):
        monkeypatch.setenv(name, "64")


@pytest.mark.usefixtures("few_map_keys")
def test_tasks_that_have_ended_leave_no_start_stamps(testbed: LocalTestbed) -> None:
    """Each execve has a task of its own: more of them than the map has keys."""
    tracing = Tracer(testbed, ROOT, "events").attach(SYSCALLS["execve"])
    try:
        tracing.begin()
        call_exactly(testbed, "execve", "lat_proc", 150)
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert trace.arrived == trace.total == 150


@pytest.mark.usefixtures("few_map_keys")
def test_calls_that_find_no_room_for_their_start_stamp_are_noticed(testbed: LocalTestbed) -> None:
    """Calls of further tasks are in no count at all, so no two counts would differ.

    All tasks live at once: the place of one that has ended in the kernel is used again.
    """
    program = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.prctl(15, b"lat_syscall", 0, 0, 0)
gate, keeper = os.pipe()
for _ in range(150):
    if os.fork() == 0:
        os.close(keeper)
        failed = libc.open(b"/dev/null", os.O_RDONLY) < 0
        os.read(gate, 1)
        os._exit(failed)
os.close(keeper)
for _ in range(150):
    assert os.wait()[1] == 0
"""
    tracing = Tracer(testbed, ROOT, "events").attach(SYSCALLS["openat"])
    try:
        tracing.begin()
        made = testbed.run(
            [testbed.python, "-I", "-S", "-c", program],
            role=Role.WORKLOAD,
            timeout_s=RUN_LIMIT_S,
        )
        assert made.ok, made.stderr
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert trace.arrived == trace.total < 150
    findings = {
        each.code: each.detail for each in check_trace(trace, SYSCALLS["openat"], 1, VANILLA)
    }
    assert findings["miscounted"] == "the map of start stamps was full: calls were left out"


def test_tracer_that_dies_after_its_last_answer_is_noticed(
    bench: Bench, testbed: LocalTestbed
) -> None:
    tracing = bench.tracer.attach(SYSCALLS["openat"])
    try:
        tracing.begin()
        call_exactly(testbed, "openat", "lat_syscall", 100)
        assert tracing.calls_so_far() == 100
        assert tracing.pid == child_with(".bt")
        kill_child(tracing.pid)
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert trace.succeeded.count == 100
    findings = {
        each.code: each.detail for each in check_trace(trace, SYSCALLS["openat"], 1, VANILLA)
    }
    assert re.match(r"bpftrace ended early, by signal SIGKILL", findings["tracer-died"])


def test_marks_and_idle_time_are_not_counted(testbed: LocalTestbed) -> None:
    tracing = Tracer(testbed, ROOT, "distribution").attach(SYSCALLS["openat"])
    try:
        tracing.begin()
        assert [tracing.calls_so_far() for _ in range(3)] == [0, 0, 0]
        time.sleep(0.1)
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert (trace.total, trace.other, trace.failures) == (0, 0, {})
    codes = [each.code for each in check_trace(trace, SYSCALLS["openat"], 1, VANILLA)]
    assert codes == ["no-samples"]
