"""Confirms once a session, by loads of known place, what the lists say of the tracer's place.

A load at entry must be seen by a tracer that came before it, and not by one that came after it; of
a load at exit the reverse holds. The load is the `calibration` agent, whose time the kernel itself
accounts. Beside that the tracer's own floor is measured: what it sees of a syscall that does
nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pytest_syslat.agents.calibration import Calibration
from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.agents.waiting import wait_while
from pytest_syslat.placement import Placement
from pytest_syslat.syscalls import NULL_SYSCALL, OPENAT, Syscall
from pytest_syslat.testbeds.protocol import NodeLost, TestbedError
from pytest_syslat.tracer import Trace, TracerError
from pytest_syslat.trial import Bench

SYSCALL = OPENAT
"""The order is one for all events of the kernel, so one syscall shows it for each."""
WORK = 10000
"""Steps of the load: about 14 µs, many times what the tracer sees of an openat without it, and what
that differs by from one look to the next where the core sleeps between two calls."""
RUNS = 3
SEEN_SHARE = 0.5
"""A load is seen if at least so much of it is in the traced median, and else it is not."""
READY_LIMIT_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """How much of a load the tracer saw in a placement."""

    placement: Placement
    place: str
    """`entry` or `exit`."""
    load_ns: float
    """What the kernel accounts to a run of the load."""
    seen_ns: float
    """By how much the traced p50 was above that without a load."""

    @property
    def is_as_expected(self) -> bool:
        """Whether what was seen is what the placement means."""
        expected = (self.placement is Placement.LAST) == (self.place == "exit")
        return (self.seen_ns >= SEEN_SHARE * self.load_ns) == expected

    def __str__(self) -> str:
        return (
            f"with the tracer {self.placement}, {self.seen_ns / 1000:.3f} of "
            f"{self.load_ns / 1000:.3f} µs of work at {self.place} were seen"
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """A syscall that does nothing (getppid), by the same probes."""

    p50_us: float
    """What the tracer sees of it."""
    mean_us: float
    untraced_us: float
    """lmbench's own figure with no tracer attached."""
    traced_us: float
    """The same under the tracer: what is more is what the tracer adds to a call."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the loads and the null syscall showed."""

    loads: tuple[LoadSeen, ...] = ()
    floor: Floor | None = None
    """None at a given rate and with one line a call: these have other floors."""
    problem: str | None = None
    """Why it was not come to its end, if so."""

    def contradiction(self, placement: Placement) -> str | None:
        """What speaks against figures of a placement, in words; None if nothing does."""
        for load in self.loads:
            if load.placement is placement and not load.is_as_expected:
                return str(load)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "loads": [{**asdict(load), "as_expected": load.is_as_expected} for load in self.loads],
            "floor": asdict(self.floor) if self.floor else None,
            "problem": self.problem,
        }


def confirm(bench: Bench, placements: Sequence[Placement]) -> Confirmation:
    """Measure both loads in each placement, and the floor; every agent must be off.

    Raises:
        NodeLost: The node cannot be reached. Any other failure is told as the `problem`.
    """
    loads: list[LoadSeen] = []
    floor: Floor | None = None
    problem: str | None = None
    try:
        if bench.settings.rate is None and bench.tracer.mode == "distribution":
            floor = _floor(bench)
        without_ns = _p50_ns(_traced(bench, SYSCALL))
        for placement in placements:
            for place in ("entry", "exit"):
                seen = _seen(bench, placement, place, without_ns)
                if not seen.is_as_expected:
                    # A busy machine can do that, once.
                    without_ns = _p50_ns(_traced(bench, SYSCALL))
                    seen = _seen(bench, placement, place, without_ns)
                loads.append(seen)
    except NodeLost:
        raise
    except (AgentError, TestbedError, TracerError) as error:
        problem = str(error)
    return Confirmation(tuple(loads), floor, problem)


def _floor(bench: Bench) -> Floor:
    untraced = [bench.workload.run(NULL_SYSCALL).us_per_op for _ in range(RUNS)]
    traced: list[float | None] = []
    trace = _traced(bench, NULL_SYSCALL, traced)
    p50_ns = _p50_ns(trace)
    return Floor(
        p50_us=p50_ns / 1000,
        mean_us=trace.succeeded.mean_ns / 1000,
        untraced_us=_median(untraced),
        traced_us=_median(traced),
    )


def _median(figures: Sequence[float | None]) -> float:
    known = [each for each in figures if each is not None]
    if not known:
        raise TestbedError("lmbench's null syscall gave no figure")
    return statistics.median(known)


def _p50_ns(trace: Trace) -> float:
    if trace.succeeded.count == 0:
        raise TracerError("no call was traced")
    return float(trace.succeeded.quantile_ns(0.5))


def _traced(bench: Bench, syscall: Syscall, figures: list[float | None] | None = None) -> Trace:
    """Trace some runs; what lmbench says of them is added to `figures`."""
    tracing = bench.tracer.attach(syscall)
    try:
        tracing.begin()
        for _ in range(RUNS):
            run = bench.workload.run(syscall)
            if figures is not None:
                figures.append(run.us_per_op)
        return tracing.stop()[0]
    finally:
        tracing.end()


def _seen(bench: Bench, placement: Placement, place: str, without_ns: float) -> LoadSeen:
    load_ns, p50_ns = _under_load(bench, placement, place)
    return LoadSeen(placement, place, load_ns, p50_ns - without_ns)


def _under_load(bench: Bench, placement: Placement, place: str) -> tuple[float, float]:
    """What the kernel accounts to a run of the load, and the traced p50; both in ns."""
    load = Calibration(bench.testbed, bench.rootdir, place, WORK, (SYSCALL,))
    tracing = None
    try:
        if placement is Placement.LAST:
            _switch_on(load)
        tracing = bench.tracer.attach(SYSCALL)
        if placement is Placement.FIRST:
            _switch_on(load)
        tracing.begin()
        before = load.kernel_time()
        for _ in range(RUNS):
            bench.workload.run(SYSCALL)
        after = load.kernel_time()
        if before is None or after is None or after.runs <= before.runs:
            raise TestbedError("the kernel does not tell the time of its BPF programs")
        load_ns = (after.run_time_ns - before.run_time_ns) / (after.runs - before.runs)
        return load_ns, _p50_ns(tracing.stop()[0])
    finally:
        if tracing is not None:
            tracing.end()
        load.remove()


def _switch_on(load: Calibration) -> None:
    load.activate()
    reason = wait_while(load.ready, READY_LIMIT_S, POLL_S)
    if reason is not None:
        raise AgentError(f"the load was not ready within {READY_LIMIT_S:g} s: {reason}")
