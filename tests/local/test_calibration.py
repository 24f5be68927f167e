"""Work of a known amount is found again in the figures, and where it is done decides in which."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pytest_syslat.agents.calibration import Calibration
from pytest_syslat.bpf_programs import BpfProgram, list_programs
from pytest_syslat.bpf_statistics import BpfStatistics, run_time
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Role

from .support import ROOT, RUN_LIMIT_S, wait_until
from .test_main_job import Project

SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")

# --- The proof ---------------------------------------------------------------------------------

EXIT_WORK = (300, 4000, 10000, 20000)
"""About 0.5 to 28 µs: the machine's own changes of speed must be small beside the range."""
ENTRY_WORK = 10000
BLOCKS = 4
FEWEST_BLOCKS = 3
TOLERANCE = 0.1
ARMS = {
    **{f"exit-{work}": f"calibration:exit-{work}" for work in EXIT_WORK},
    "entry": f"calibration:entry-{ENTRY_WORK}",
}


@dataclass(frozen=True)
class Point:
    """One trial beside vanilla's in the same block, in ns."""

    kernel_ns: float
    """What the kernel accounts to a run of the agent's program."""
    traced_ns: float
    """By how much the traced mean is above vanilla's."""
    user_ns: float
    """By how much the user's cost is above vanilla's."""


def line_through(blocks: Iterable[Sequence[Point]]) -> tuple[float, float]:
    """Slope and intercept (ns) of what is traced over what the kernel accounts.

    A line is laid through each block, so that a change of the machine's speed between two blocks
    moves none; the medians of all lines are told, so that one disturbed block does not count.
    """
    lines = [
        np.polyfit([each.kernel_ns for each in block], [each.traced_ns for each in block], 1)
        for block in blocks
        if len(block) >= len(EXIT_WORK) - 1
    ]
    assert len(lines) >= FEWEST_BLOCKS, f"only {len(lines)} blocks are complete"
    return (
        statistics.median(float(line[0]) for line in lines),
        statistics.median(float(line[1]) for line in lines),
    )


def is_one(slope: float) -> bool:
    """Whether the figures agree with the kernel's."""
    return abs(slope - 1) <= TOLERANCE


def points_of(project: Project, arms: Sequence[str]) -> list[list[Point]]:
    """The trials of these arms that count, by block."""
    kernel_ns = {
        (arm, int(row["trial"])): float(row["bpf_ns_per_run"])
        for arm in arms
        for row in project.rows(f"{arm}/{arm}_agent.csv")
        if row["bpf_ns_per_run"]
    }
    figures = {
        (trial["label"], trial["trial"]): trial["figures_us"]
        for trial in project.run_json()["trials"]
        if not trial["refused"]
    }

    def point(arm: str, block: int) -> Point:
        ours, vanilla = figures[arm, block], figures["vanilla", block]
        return Point(
            kernel_ns[arm, block],
            1000 * (ours["mean"] - vanilla["mean"]),
            1000 * (ours["user"] - vanilla["user"]),
        )

    return [
        [point(arm, block) for arm in arms if {(arm, block), ("vanilla", block)} <= set(figures)]
        for block in range(1, BLOCKS + 1)
    ]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """openat beside several amounts of work at exit, and beside one at entry."""
    project = Project(tmp_path_factory.mktemp("calibration"))
    (project.directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    arms = [f"--agent={label}={arm}" for label, arm in ARMS.items()]
    try:
        # A refused trial fails its test, and is no failure here as long as enough are left.
        project.run(
            *(*arms, "-k", "openat", f"--syslat-trials={BLOCKS}"),
            *("--syslat-lmbench-reps=1", "--syslat-openat-mult=1", "--syslat-warmup-sec=0"),
            *("--syslat-min-calls=1000", "--syslat-pin-core=999", "--syslat-testbed=local"),
        )
        yield project
    finally:
        project.close()


def test_the_traced_figure_rises_by_what_the_kernel_accounts(measured: Project) -> None:
    blocks = points_of(measured, [f"exit-{work}" for work in EXIT_WORK])
    slope, intercept_ns = line_through(blocks)
    print(f"slope {slope:.3f}, intercept {intercept_ns:.0f} ns")
    assert is_one(slope), f"slope {slope:.3f} in {blocks}"


def test_work_at_entry_is_paid_by_the_user_and_not_traced(measured: Project) -> None:
    """The tracer came last: its start stamp is taken after the agent's entry program has ended."""
    points = [point for block in points_of(measured, ["entry"]) for point in block]
    assert len(points) >= FEWEST_BLOCKS, measured.said()
    traced = statistics.median(each.traced_ns / each.kernel_ns for each in points)
    user = statistics.median(each.user_ns / each.kernel_ns for each in points)
    assert traced < 0.25, points
    assert user > 0.75, points


def made_up(slope: float, *, seed: int) -> list[list[Point]]:
    """Blocks as this kind of machine gives them, of a tracer that sees `slope` of the work.

    Each trial finds the machine at one of two speeds, 0.7 µs apart, and one block is spoilt.
    """
    random = np.random.default_rng(seed)
    blocks = []
    for _ in range(BLOCKS):
        vanilla = 760 + 700 * random.integers(2)
        kernel = [1.4 * work * random.uniform(0.97, 1.03) for work in EXIT_WORK]
        traced = [60 + slope * ns + 760 + 700 * random.integers(2) - vanilla for ns in kernel]
        blocks.append([Point(*pair, 0) for pair in zip(kernel, traced, strict=True)])
    blocks[0] = [Point(each.kernel_ns, 3 * each.traced_ns, 0) for each in blocks[0]]
    return blocks


@pytest.mark.parametrize("seed", range(20))
def test_the_proof_tells_a_wrong_slope_from_a_right_one(seed: int) -> None:
    for slope, right in ((0.8, False), (1.0, True), (1.2, False)):
        assert is_one(line_through(made_up(slope, seed=seed))[0]) is right, slope


def test_the_proof_needs_enough_blocks() -> None:
    blocks = [block[:2] for block in made_up(1.0, seed=1)]
    with pytest.raises(AssertionError, match="only 0 blocks are complete"):
        line_through(blocks)


# --- The agent ---------------------------------------------------------------------------------


@pytest.fixture
def agent(testbed: LocalTestbed) -> Iterator[Calibration]:
    agent = Calibration(testbed, ROOT, place="both", work=50)
    yield agent
    agent.remove()


def programs_of(testbed: LocalTestbed, pid: int) -> list[BpfProgram]:
    programs = list_programs(testbed)
    assert programs is not None
    return [each for each in programs if pid in (holder for holder, _ in each.holders)]


def test_it_is_attached_while_it_is_on(testbed: LocalTestbed, agent: Calibration) -> None:
    agent.prepare()
    assert agent.idle() is None
    assert agent.ready() == "calibration is switched off"
    assert agent.kernel_time() is None
    agent.activate()
    wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "calibration is ready")
    assert agent.idle() == "calibration runs"
    [pid] = agent.processes().roots
    comm = Path(f"/proc/{pid}/comm").read_text().strip()
    programs = programs_of(testbed, pid)
    assert {(each.kind, each.attached_to) for each in programs} == {
        ("tracepoint", (f"tracepoint sys_{side}_{name}",))
        for side in ("enter", "exit")
        for name in SYSCALLS
    }
    assert {each.holders for each in programs} == {((pid, comm),)}
    assert [each["id"] for each in agent.facts()["programs"]] == [each.id for each in programs]
    assert agent.version().endswith(", 50 steps at both")

    before = agent.kernel_time()
    testbed.read(Path("/proc/self/stat"), role=Role.NODE)
    after = agent.kernel_time()
    assert before is not None
    assert after is not None
    assert after.runs > before.runs
    assert after.run_time_ns > before.run_time_ns

    agent.deactivate()
    assert agent.idle() is None
    assert {each.id for each in list_programs(testbed) or []}.isdisjoint(
        each.id for each in programs
    )
    assert run_time(testbed, [each.id for each in programs]) is None


def test_it_can_be_switched_on_again(agent: Calibration) -> None:
    for _ in range(2):
        agent.activate()
        wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "calibration is ready")
        agent.deactivate()
        assert agent.idle() is None


def test_a_bpftrace_that_has_ended_is_noticed(agent: Calibration) -> None:
    agent.activate()
    wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "calibration is ready")
    os.kill(agent.processes().roots[0], signal.SIGKILL)
    wait_until(
        lambda: (agent.ready() or "").startswith("calibration's bpftrace has ended"),
        RUN_LIMIT_S,
        "its end is noticed",
    )


# --- The statistics ----------------------------------------------------------------------------


def test_statistics_are_kept_while_they_are_held(testbed: LocalTestbed) -> None:
    """Shown by a program that counts openat: bpftool makes these calls itself."""
    switch = SWITCH.read_text()
    if switch.strip() != "0":
        pytest.skip(f"this host keeps BPF statistics all the time: {SWITCH} is {switch.strip()}")
    stdout, stderr = testbed.workdir / "counter.stdout", testbed.workdir / "counter.stderr"
    counter = testbed.start(
        ["bpftrace", "-e", "tracepoint:syscalls:sys_enter_openat { @ = count(); }"],
        role=Role.TRACER,
        stdout=stdout,
        stderr=stderr,
    )

    def runs() -> int:
        told = run_time(testbed, numbers)
        assert told is not None
        return told.runs

    try:
        wait_until(
            lambda: any(each.attached_to for each in programs_of(testbed, counter.pid)),
            RUN_LIMIT_S,
            "the counter is attached",
        )
        numbers = [each.id for each in programs_of(testbed, counter.pid)]
        assert (runs(), runs()) == (0, 0)
        with BpfStatistics(testbed) as held:
            assert SWITCH.read_text() == switch
            first = runs()
            assert runs() > first
            assert held.problem() is None
        last = runs()
        assert runs() == last
        assert SWITCH.read_text() == switch
    finally:
        counter.end()
