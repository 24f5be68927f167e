"""Syscalls beyond the three, for real: each call is counted, and work of known cost is found."""

from __future__ import annotations

import re
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_syslat.agents.calibration import Calibration
from pytest_syslat.settings import VANILLA
from pytest_syslat.syscall_catalogue import described_syscalls
from pytest_syslat.syscalls import Syscall
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Process, Role
from pytest_syslat.tracer import Trace, Tracer, TracerError
from pytest_syslat.trial import Bench
from pytest_syslat.validity import check_trace

from .support import ROOT, RUN_LIMIT_S, bench_on, detail, invalid_codes, measure, wait_until
from .test_main_job import Project

CLOSE, CLONE = (described_syscalls(ROOT)[name] for name in ("close", "clone"))
NULL = Syscall("getppid", command=("lat_syscall", "null"))
"""It cannot fail, so an openat marks it."""
EBADF, EINVAL = 9, 22


@pytest.fixture
def bench(testbed: LocalTestbed) -> Iterator[Bench]:
    with bench_on(testbed, syscalls=(CLOSE, CLONE, NULL)) as bench:
        yield bench


# --- Known numbers of calls ----------------------------------------------------------------------

CLOSER = r"""
import ctypes, os, sys
file, *numbers = sys.argv[1:]
succeeding, failing, other = map(int, numbers)
libc = ctypes.CDLL(None)
held = [os.dup(0) for _ in range(other)]
libc.prctl(15, b"lat_syscall", 0, 0, 0)
for _ in range(succeeding):
    libc.close(libc.open(file.encode(), os.O_RDONLY))
for _ in range(failing):
    descriptor = libc.open(file.encode(), os.O_RDONLY)
    libc.syscall(436, descriptor, descriptor, 0)  # close_range
    libc.close(descriptor)
for each in held:
    libc.close(each)
os._exit(0)
"""
FORKER = r"""
import ctypes, os, sys
succeeding, failing, other = map(int, sys.argv[1:])
libc = ctypes.CDLL(None)

def fork(count):
    for _ in range(count):
        if libc.fork() == 0:
            os._exit(0)
        os.wait()

measuring = os.fork()
libc.prctl(15, b"lat_proc", 0, 0, 0)
if measuring:
    os.wait()
    fork(other)
else:
    fork(succeeding)
    for _ in range(failing):
        # As the tracer's mark, and no mark: the name is the workload's.
        libc.syscall(NUMBER, 0x10000, 0, 0, 0, 0)
os._exit(0)
"""
CALLERS = {
    "close": (CLOSER, EBADF),
    "clone": (FORKER, EINVAL),
}


@pytest.mark.parametrize(
    ("syscall", "mode"),
    [
        (CLOSE, "distribution"),
        (CLONE, "distribution"),
        pytest.param(CLOSE, "events", marks=pytest.mark.long),
        pytest.param(CLONE, "events", marks=pytest.mark.long),
    ],
    ids=str,
)
def test_every_call_is_counted_once(testbed: LocalTestbed, syscall: Syscall, mode: str) -> None:
    program, errno = CALLERS[syscall.name]
    number = {"x86_64": 56, "aarch64": 220}[testbed.machine]
    file = testbed.workdir / "file-of-the-test"
    file.touch()

    def call(succeeding: int, failing: int, other: int) -> None:
        done = testbed.run(
            [testbed.python, "-I", "-S", "-c", program.replace("NUMBER", str(number))]
            + ([str(file)] if syscall is CLOSE else [])
            + [str(succeeding), str(failing), str(other)],
            role=Role.WORKLOAD,
            timeout_s=RUN_LIMIT_S,
        )
        assert done.ok, done.stderr

    tracing = Tracer(testbed, ROOT, mode).attach(syscall)
    try:
        # What comes before the trial is not the trial's.
        call(3, 3, 3)
        tracing.begin()
        call(300, 20, 7)
        assert tracing.calls_so_far() == 320
        assert tracing.failed_so_far() == 20
        trace = tracing.stop()[0]
    finally:
        tracing.end()
    assert trace.succeeded.count == 300
    assert trace.failures == {errno: 20}
    assert trace.other == 7
    assert trace.total == trace.arrived == 320
    assert trace.problem is None
    [refusal] = [
        each for each in check_trace(trace, syscall, 1, VANILLA) if each.code[:6] == "failed"
    ]
    assert refusal.detail.startswith(f"20 of 320 calls (6.2%) of {syscall.call} failed")


# --- lmbench's own operations --------------------------------------------------------------------

COUNTER = """
tracepoint:raw_syscalls:sys_enter
/cgroup == (uint64)$1 && comm == "{comm}"/
{{
  if (args->id == {close}) {{ @closes = count(); }}
  if (args->id == {clone}) {{ @clones = count(); }}
  if (args->id == {getppid}) {{ @getppids = count(); }}
  if (args->id == {openat} && (args->args[2] & 0x80000) == 0) {{ @opens = count(); }}
}}
tracepoint:sched:sched_process_fork
/cgroup == (uint64)$1 && comm == "{comm}"/
{{
  @forks = count();
}}
"""
"""Written apart from the package's programs: at the raw tracepoint, and where the kernel forks."""
NUMBERS = {
    "x86_64": {"close": 3, "clone": 56, "openat": 257, "getppid": 110},
    "aarch64": {"close": 57, "clone": 220, "openat": 56, "getppid": 173},
}


class Counter:
    """Another bpftrace that counts calls of a program in the workload's cgroup."""

    def __init__(self, testbed: LocalTestbed, comm: str) -> None:
        self._stdout = testbed.workdir / "counter.stdout"
        program = testbed.workdir / "counter.bt"
        program.write_text(COUNTER.format(comm=comm, **NUMBERS[testbed.machine]))
        self.process: Process = testbed.start(
            ["bpftrace", str(program), str(testbed.scope.number)],
            role=Role.TRACER,
            stdout=self._stdout,
            stderr=testbed.workdir / "counter.stderr",
        )

    def counted(self) -> dict[str, int]:
        """End it, and read what it has counted."""
        self.process.signal(signal.SIGINT)
        assert self.process.wait(RUN_LIMIT_S) == 0
        found = re.findall(r"^@(\w+): (\d+)$", self._stdout.read_text(), re.MULTILINE)
        return {name: int(number) for name, number in found}


def traced_beside_a_counter(bench: Bench, syscall: Syscall, runs: int) -> tuple[Trace, Counter]:
    testbed = bench.testbed
    assert isinstance(testbed, LocalTestbed)
    counter = Counter(testbed, syscall.comm)
    try:
        # The counter is attached by the time that the tracer is, which comes later.
        tracing = bench.tracer.attach(syscall)
        try:
            tracing.begin()
            for _ in range(runs):
                assert bench.workload.run(syscall).complaint is None
            tracing.calls_so_far()
            return tracing.stop()[0], counter
        finally:
            tracing.end()
    except BaseException:
        counter.process.end()
        raise


def test_closes_of_lmbench_are_as_many_as_another_program_counts(bench: Bench) -> None:
    trace, counter = traced_beside_a_counter(bench, CLOSE, 2)
    counted = counter.counted()
    assert trace.failures == {}
    # Each open is closed once, and all other closes are told apart.
    assert trace.succeeded.count == counted["opens"] > 1000
    assert trace.succeeded.count + trace.other == counted["closes"]
    assert trace.other > 0


@pytest.mark.long
def test_clones_of_lmbench_are_as_many_as_another_program_counts(bench: Bench) -> None:
    runs = 3
    trace, counter = traced_beside_a_counter(bench, CLONE, runs)
    counted = counter.counted()
    assert trace.failures == {}
    # lmbench's first process forks once a run: the process that measures.
    assert trace.other == runs
    assert trace.succeeded.count == counted["clones"] - runs == counted["forks"] - runs > 50


@pytest.mark.long
def test_a_syscall_that_cannot_fail_is_marked_by_an_openat(bench: Bench) -> None:
    trace, counter = traced_beside_a_counter(bench, NULL, 2)
    assert trace.succeeded.count == trace.total == counter.counted()["getppids"] > 1000
    assert trace.problem is None


# --- Trials --------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("syscall", ["close", "clone"])
def test_a_sound_trial_is_not_refused(bench: Bench, syscall: str) -> None:
    trial = measure(bench, syscall)
    assert invalid_codes(trial) == set()
    assert trial.distribution.count > 50
    # The call is a part of lmbench's operation.
    p50_us, user_us = trial.figure_us("p50"), trial.user_us
    assert p50_us is not None
    assert user_us is not None
    assert 0 < p50_us < user_us
    assert {each.event for each in trial.order or ()} == {
        f"sys_enter_{syscall}",
        f"sys_exit_{syscall}",
    }


FAILING = """#!{python}
import ctypes, os
libc = ctypes.CDLL(None)
libc.prctl(15, b"lat_syscall", 0, 0, 0)
for _ in range(100):
    descriptor = libc.open(b"{file}", os.O_RDONLY)
    libc.syscall(436, descriptor, descriptor, 0)  # close_range
    libc.close(descriptor)
print("As lmbench: 0.5000 microseconds", flush=True)
os._exit(0)
"""


def test_closes_of_bad_descriptors_are_refused(testbed: LocalTestbed) -> None:
    """They fail as the tracer's mark does, and a plausible figure is printed."""
    program, file = testbed.workdir / "failing", testbed.workdir / "file-of-the-test"
    file.touch()
    program.write_text(FAILING.format(python=testbed.python, file=file))
    program.chmod(0o755)
    close = Syscall(
        "close", command=(str(program),), comm="lat_syscall", follows_openat=True, mark=(-100,)
    )
    with bench_on(testbed, syscalls=(close,)) as bench:
        trial = measure(bench, "close")
    assert [run.us_per_op for run in trial.runs_traced] == [0.5, 0.5]
    assert invalid_codes(trial) == {"failed-calls"}
    assert detail(trial, "failed-calls").startswith(
        "200 of 200 calls (100.0%) of close failed in arm vanilla, 200 of them with EBADF"
    )


WORK = (1000, 8000)


@pytest.mark.long
def test_work_of_known_cost_is_found_at_close(bench: Bench, testbed: LocalTestbed) -> None:
    """The slope of what is traced over what the kernel accounts, in the mean of calls."""

    def under(work: int) -> tuple[float, float]:
        agent = Calibration(testbed, ROOT, "exit", work, (CLOSE,))
        try:
            agent.activate()
            wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "calibration is ready")
            tracing = bench.tracer.attach(CLOSE)
            try:
                tracing.begin()
                before = agent.kernel_time()
                for _ in range(2):
                    bench.workload.run(CLOSE)
                after = agent.kernel_time()
                trace = tracing.stop()[0]
            finally:
                tracing.end()
        finally:
            agent.remove()
        assert before is not None
        assert after is not None
        ns = (after.run_time_ns - before.run_time_ns) / (after.runs - before.runs)
        return ns, trace.succeeded.mean_ns

    slopes = []
    for _ in range(3):
        (less_ns, fast_ns), (more_ns, slow_ns) = map(under, WORK)
        slopes.append((slow_ns - fast_ns) / (more_ns - less_ns))
    assert abs(statistics.median(slopes) - 1) < 0.15, slopes


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tracepoint": "nothing"}, "tracepoint not found: syscalls:sys_enter_nothing"),
        ({"other": "args->nothing"}, "nothing"),
    ],
)
def test_what_the_node_does_not_know_is_told_before_measuring(
    testbed: LocalTestbed, wrong: dict[str, str], told: str
) -> None:
    syscall = Syscall("close", command=("lat_syscall", "open", "{file}"), **wrong)  # type: ignore[arg-type]
    with pytest.raises(TracerError) as problem:
        Tracer(testbed, ROOT, "distribution").check(syscall)
    assert str(problem.value).startswith("the syscall close cannot be traced: bpftrace ended")
    assert told in str(problem.value)
    assert "\n" not in str(problem.value)


# --- A whole run ---------------------------------------------------------------------------------

CONFTEST = """
from pytest_syslat.syscalls import Syscall

def pytest_syslat_syscalls(config):
    # lat_syscall reads one byte at a time; the loader reads more.
    return [
        Syscall(
            "read",
            command=("lat_syscall", "read"),
            call="read of a byte",
            success="ret == 1",
            other="args->count != 1",
        )
    ]
"""


def test_a_syscall_of_a_conftest_is_measured_end_to_end(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    try:
        code = project.run(
            *("--syslat-syscall=read", "--syslat-trials=1"),
            *("--syslat-lmbench-reps=2", "--syslat-warmup-sec=0", "--syslat-min-calls=100"),
            *("--syslat-pin-core=999", "--syslat-testbed=local", "-k", "test_latency"),
        )
        assert code == 0, project.said()
        stored = project.run_json()
        assert stored["settings"]["syscalls"] == ["read"]
        assert stored["system"]["definition of read"] == (
            "lat_syscall read, by lat_syscall, at read, ret == 1, but args->count != 1"
        )
        [trial] = stored["trials"]
        assert not trial["refused"]
        assert trial["calls"] > 1000
        # The loader's, and what lmbench's processes tell each other.
        assert 0 < trial["other_calls"] < 0.01 * trial["calls"]
        assert trial["figures_us"]["p50"] > 0
        assert trial["figures_us"]["user"] > 0
    finally:
        project.close()
