"""An agent's own cost, of agents whose cost is known; and a workload that keeps its pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_syslat.agents.protocol import Processes
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.local import LocalTestbed, cgroup2_mount, remove_cgroup
from pytest_syslat.testbeds.protocol import Process, Role
from pytest_syslat.trial import Bench, Trial

from .support import (
    LAST_CORE,
    ROOT,
    RUN_LIMIT_S,
    bench_on,
    child_with,
    detail,
    invalid_codes,
    kill_child,
    measure,
    wait_until,
)

AGENT = r"""
import ctypes, os, signal, sys, threading, time

directory, name = sys.argv[1:]

def await_file(file):
    while not os.path.exists(f"{directory}/{file}"):
        time.sleep(0.01)

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def burn_later(seconds):
    await_file("begin")
    burn(seconds)

child = os.fork()
if child == 0:
    burn_later(0.5)
    os._exit(0)
held = bytearray(100_000_000)
held[::4096] = b"x" * len(held[::4096])
thread = threading.Thread(target=burn_later, args=[0.3])
thread.start()
# The kernel keeps the name of a thread, and the main thread's stands for the process.
ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
open(directory + "/ready", "w").close()
burn_later(0.2)
thread.join()
os.waitpid(child, 0)
# Nobody waits for these: the kernel forgets what they have used.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if name == "unwaited":
    for _ in range(10):
        if os.fork() == 0:
            burn(0.02)
            os._exit(0)
    time.sleep(1)
open(directory + "/done", "w").close()
time.sleep(1000)
"""
"""Holds 100 MB and, once told, burns 1 s: a main thread, one that ends, and a child that ends."""
BURNT_S = 1.0
UNWAITED_S = 0.2
OVERHEAD_S = 0.15
"""What the waiting and the interpreters themselves use at most."""


class Burner(Vanilla):
    """An agent of which all is known."""

    def __init__(self, testbed: LocalTestbed, name: str, *, core: int | None = None) -> None:
        super().__init__(testbed, ROOT)
        self._directory = testbed.workdir / "burner"
        self._directory.mkdir()
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        self.process: Process = testbed.start(
            [*pinned, testbed.python, "-I", "-S", "-c", AGENT, str(self._directory), name],
            role=Role.NODE,
            stdout=testbed.workdir / "burner.stdout",
            stderr=testbed.workdir / "burner.stderr",
        )
        self._await("ready")
        self.known = Processes(roots=(self.process.pid,))

    def _await(self, file: str) -> None:
        wait_until((self._directory / file).exists, RUN_LIMIT_S, f"the agent is {file}")

    def burn(self) -> None:
        (self._directory / "begin").touch()
        self._await("done")

    def processes(self) -> Processes:
        return self.known

    def ready(self) -> str | None:
        return None if self.process.poll() is None else "it has ended"


@pytest.fixture
def burner(testbed: LocalTestbed) -> Iterator[Callable[..., Burner]]:
    """Starts agents, and ends them."""
    started = []

    def start(name: str, *, core: int | None = None) -> Burner:
        started.append(Burner(testbed, name, core=core))
        return started[-1]

    yield start
    for each in started:
        each.process.end()


def measured(bench: Bench, agent: Burner, step: str = "attaching") -> Trial:
    """A trial in which the agent burns what it burns when a step begins."""

    def at(name: str) -> None:
        if name == step:
            agent.burn()

    return measure(bench, "openat", arm="burner", agent=agent, at=at)


def test_cost_of_an_agent_by_its_processes(bench: Bench, burner: Callable[..., Burner]) -> None:
    trial = measured(bench, burner("agent"))
    assert invalid_codes(trial) == set()
    cost = trial.cost
    assert cost is not None
    assert cost.cpu_s is not None
    # The child is known only by its father, who has waited for it.
    assert BURNT_S - 0.06 <= cost.cpu_s <= BURNT_S + OVERHEAD_S
    assert cost.peak_memory_mb is not None
    assert 100 <= cost.peak_memory_mb <= 140
    assert cost.threads == 3
    assert cost.threads_on_core == ()
    assert cost.duration_s is not None
    assert BURNT_S / 2 <= cost.duration_s <= trial.duration_s
    assert cost.calls_per_s is not None
    assert cost.calls_per_s > 0
    assert "agent-on-core" not in {each.code for each in trial.findings}


def test_cost_of_an_agent_by_its_cgroup(
    bench: Bench, burner: Callable[..., Burner], tmp_path: Path
) -> None:
    """There the kernel keeps what nobody waits for, too."""
    mount = cgroup2_mount()
    assert mount is not None
    group = mount / "agent-of-the-tests"
    group.mkdir()
    try:
        agent = burner("unwaited")
        (group / "cgroup.procs").write_text(str(agent.process.pid))
        # Its child is in another cgroup: it does not belong to the agent.
        agent.known = Processes(cgroup_marks=("agent-of-the-",))
        before_us = used_us(group)
        trial = measured(bench, agent)
        after_us = used_us(group)
    finally:
        for each in (group / "cgroup.procs").read_text().split():
            (mount / "cgroup.procs").write_text(each)
        remove_cgroup(group)
    assert trial.cost is not None
    assert trial.cost.cpu_s is not None
    known_s = (after_us - before_us) / 1e6
    assert known_s >= 0.5 + UNWAITED_S
    assert known_s - 0.1 <= trial.cost.cpu_s <= known_s


def used_us(group: Path) -> int:
    """CPU time of a cgroup, read apart from the package."""
    lines = (group / "cpu.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])


def test_agent_on_the_measured_core(bench: Bench, burner: Callable[..., Burner]) -> None:
    trial = measured(bench, burner("on-the-core", core=LAST_CORE))
    assert trial.cost is not None
    assert trial.cost.threads_on_core is not None
    assert "on-the-core" in trial.cost.threads_on_core
    told = detail(trial, "agent-on-core")
    assert f"of burner ran on the measured core {LAST_CORE} (" in told
    assert "on-the-core" in told


def test_agent_that_dies_in_mid_trial(bench: Bench, burner: Callable[..., Burner]) -> None:
    agent = burner("agent")

    def at(step: str) -> None:
        if step == "attaching":
            agent.burn()
            time.sleep(0.6)  # until the sampler has looked
            agent.process.end()

    trial = measure(bench, "openat", arm="burner", agent=agent, at=at)
    assert invalid_codes(trial) == {"agent-not-ready"}
    assert trial.cost is not None
    assert trial.cost.cpu_s is not None
    assert BURNT_S - 0.06 <= trial.cost.cpu_s <= BURNT_S + OVERHEAD_S


def test_sampler_that_dies_does_not_refuse_the_trial(
    bench: Bench, burner: Callable[..., Burner]
) -> None:
    def at(step: str) -> None:
        if step == "attaching":
            kill_child(child_with("agent_sampler.py"))

    trial = measure(bench, "openat", arm="burner", agent=burner("agent"), at=at)
    assert invalid_codes(trial) == set()
    assert detail(trial, "agent-cost-unknown") == (
        "CPU and memory of burner: the sampler ended early: it said nothing"
    )
    assert trial.cost is not None
    assert trial.cost.cpu_s is None
    assert trial.cost.calls_per_s is not None


def test_agent_whose_processes_are_not_there(bench: Bench, burner: Callable[..., Burner]) -> None:
    agent = burner("agent")
    agent.known = Processes(cgroup_marks=("no-cgroup-has-this-name",))
    trial = measure(bench, "openat", arm="burner", agent=agent)
    assert invalid_codes(trial) == set()
    assert detail(trial, "agent-cost-unknown") == (
        "CPU and memory of burner: none of its processes was found"
    )


def test_vanilla_has_no_sampler(bench: Bench) -> None:
    def at(step: str) -> None:
        with pytest.raises(ValueError, match="not enough values"):
            child_with("agent_sampler.py")

    trial = measure(bench, "openat", at=at)
    assert invalid_codes(trial) == set()
    assert trial.cost is not None
    assert trial.cost.calls_per_s is not None
    assert (trial.cost.cpu_s, trial.cost.threads, trial.cost.dropped) == (None, None, None)


@pytest.mark.parametrize("syscall", SYSCALLS)
def test_paced_workload_makes_what_is_offered(testbed: LocalTestbed, syscall: str) -> None:
    """Two runs of a second each: the tracer counts all of their calls, and nothing else."""
    rate = 50
    with bench_on(testbed, rate=rate) as bench:
        trial = measure(bench, syscall)
    assert invalid_codes(trial) == set()
    assert trial.distribution.count == 2 * rate
    assert trial.other_calls == 0
    assert trial.user_us is not None
    assert trial.user_us > 0
    for run in (*trial.runs_untraced, *trial.runs_traced):
        assert run.complaint is None
        assert run.achieved_per_s == pytest.approx(rate, rel=0.05)
    assert "rate-missed" not in {each.code for each in trial.findings}


def test_paced_workload_that_cannot_keep_up(testbed: LocalTestbed) -> None:
    """No core executes so many programs in a second."""
    with bench_on(testbed, rate=100_000) as bench:
        trial = measure(bench, "execve")
    assert invalid_codes(trial) == set()
    assert 0 < trial.distribution.count < 100_000
    assert "of 100,000 operations a second were made" in detail(trial, "rate-missed")


def test_paced_calls_that_fail_are_refused(testbed: LocalTestbed) -> None:
    with bench_on(testbed, rate=50) as bench:
        bench.server.stop()
        trial = measure(bench, "connect")
    assert invalid_codes(trial) == {"failed-calls", "no-listener"}
    assert detail(trial, "failed-calls") == (
        "100 of 100 calls (100.0%) of connect to the TCP server failed in arm vanilla, "
        "100 of them with ECONNREFUSED (Connection refused)"
    )
