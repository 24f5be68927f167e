"""Figures into pytest-benchmark: a row a measured trial, through its fixture, marker and hooks.

Nothing is measured a second time. `benchmark.pedantic` is given a target that does nothing and a
timer that replays latencies of the trial, so that table, JSON, comparison and histogram of
pytest-benchmark are made of the calls that the tracer counted. Nothing is read back.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from pytest_syslat.settings import VANILLA

if TYPE_CHECKING:
    from pytest_syslat.distribution import Distribution
    from pytest_syslat.gate import CellResult
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial

MOST_VALUES = 9998
"""Values that stand for a trial. Of a remainder of 2 by 4, see `representatives_s`."""

ROW_FIXTURE = "_syslat_row"
DEFAULT_COLUMNS = ("min", "median")
"""What fits 80 columns. Its mean and deviation hang on the slowest call."""

MACHINE_FACTS = (
    "pytest-syslat",
    "testbed",
    "node",
    "kernel",
    "architecture",
    "distribution",
    "CPU",
    "cores online",
    "measured core",
    "SMT",
    "governor",
    "turbo off (intel_pstate)",
    "boost (cpufreq)",
    "bpftrace",
    "lmbench",
)
"""Facts of sysinfo that travel on; with these the versions of the agents."""

AGENT_FACT = "agent "
OUR_FACTS = "syslat"
"""Their key in pytest-benchmark's `machine_info`."""

_ROWS: pytest.StashKey[dict[str, tuple[TrialKey, dict[str, Any]]]] = pytest.StashKey()
"""What each item, by its node id, has told of which trial."""

_COMPARED: pytest.StashKey[list[Mapping[str, str]]] = pytest.StashKey()


def is_on(config: pytest.Config) -> bool:
    """Whether pytest-benchmark takes part: `-p no:benchmark` switches it off."""
    return config.getoption("benchmark_only", None) is not None


def representatives_s(distribution: Distribution) -> list[float]:
    """Latencies in seconds, ascending, that stand for all calls of a trial; at most 9,998.

    They are observed latencies, evenly spaced by rank. Minimum, lower quartile, median, upper
    quartile and maximum as pytest-benchmark computes them are those of the trial. That takes an
    even number of values whose halves are odd: each half then has its quartile in its middle, and
    the two values about the middle of all are the median. Fewer than six calls are given as they
    are. The mean is close, but the slowest call counts as one of so many values, not as one of all
    calls.
    """
    import numpy as np

    calls = distribution.count
    if calls < 6:
        ns = np.repeat(distribution.values_ns, distribution.counts)
    else:
        half = (min(calls, MOST_VALUES) - 2) // 4 * 2 + 1
        quarter = (half - 1) // 2
        anchors = [0, quarter, half - 1, half, half + quarter, 2 * half - 1]
        shares = np.interp(np.arange(2 * half), anchors, [0.0, 0.25, 0.5, 0.5, 0.75, 1.0])
        ns = distribution.values_ns[np.searchsorted(np.cumsum(distribution.counts), shares * calls)]
    seconds: list[float] = (ns / 1e9).tolist()
    return seconds


class Replay:
    """A timer between whose readings lie the durations that it was given.

    Without any left it tells the time, for a test that has something else timed.
    """

    def __init__(self) -> None:
        self._readings: Iterator[float] = iter(())

    def __call__(self) -> float:
        """A reading in seconds."""
        return next(self._readings, time.perf_counter())

    def __repr__(self) -> str:
        """The name of the timer in pytest-benchmark's files."""
        return "latencies traced by pytest-syslat"

    def load(self, durations_s: Sequence[float]) -> None:
        """Replay these: a reading of 0 before each, which takes nothing from its digits."""
        self._readings = chain.from_iterable((0.0, duration_s) for duration_s in durations_s)


class Row:
    """What a test gives to pytest-benchmark: its first trial that was not refused."""

    def __init__(self) -> None:
        self.trial: Trial | None = None

    def measured(self, trial: Trial) -> None:
        """Take a trial for the row, unless there is one."""
        if self.trial is None and not trial.refused:
            self.trial = trial


class WithBenchmark:
    """A pytest plugin whose fixture asks for `benchmark`, so that each item of ours has it."""

    @pytest.fixture(name=ROW_FIXTURE)
    def row(self, benchmark: Any, request: pytest.FixtureRequest) -> Iterator[Row]:
        """The row of a test; entered once the test is over."""
        row = Row()
        yield row
        mark = request.node.get_closest_marker("benchmark")
        timer = mark.kwargs.get("timer") if mark else None
        if not isinstance(timer, Replay):
            return
        rows = request.config.stash.setdefault(_ROWS, {})
        item = request.node.nodeid
        # A rerun has the trial of the run before.
        if row.trial is None or item in rows:
            _leave_out(benchmark)
        else:
            rows[item] = (row.trial.key, _enter(benchmark, timer, row.trial))


class WithoutBenchmark:
    """The same where pytest-benchmark is switched off."""

    @pytest.fixture(name=ROW_FIXTURE)
    def row(self) -> Row:
        """A row that goes nowhere."""
        return Row()


def mark(items: Sequence[pytest.Item]) -> None:
    """Give each item of ours a timer that replays; other marks of the user hold.

    A test that asks for `benchmark` itself keeps it for what it times.
    """
    for item in items:
        if ROW_FIXTURE in getattr(item, "fixturenames", ()) and not _asks_for_benchmark(item):
            given = item.get_closest_marker("benchmark")
            options = {**(given.kwargs if given else {}), "timer": Replay(), "cprofile": False}
            item.add_marker(pytest.mark.benchmark(**options), append=False)


def _asks_for_benchmark(item: pytest.Item) -> bool:
    return "benchmark" in inspect.signature(item.function).parameters  # type: ignore[attr-defined]


def _enter(benchmark: Any, timer: Replay, trial: Trial) -> dict[str, Any]:
    """Have a trial shown; what is returned can be added to until the session ends."""
    key = trial.key
    if benchmark.group is None:
        benchmark.group = key.syscall
    # The parameter is an object of ours, which says nothing in a file.
    benchmark.params = {"syscall": key.syscall, "arm": key.arm, "trial": key.trial}
    durations_s = representatives_s(trial.distribution)
    extra_info: dict[str, Any] = benchmark.extra_info
    extra_info |= {
        **benchmark.params,
        "node": trial.node,
        "testbed": trial.testbed,
        "placement": str(trial.placement),
        "attempt": trial.attempt,
        "calls": trial.distribution.count,
        **{
            f"{figure}_us": round(value_us, 6)
            for figure in ("p50", "p90", "p99", "mean", "user")
            if (value_us := trial.figure_us(figure)) is not None
        },
        "stddev_us": round(trial.distribution.stddev_ns / 1000, 6),
    }
    timer.load(durations_s)
    benchmark.pedantic(lambda: None, rounds=len(durations_s))
    return extra_info


class _NothingToShow(Exception):
    """Not pytest.fail: pytest-benchmark knows a target that fails by its Exception."""


def _leave_out(benchmark: Any) -> None:
    """Have nothing shown: as after a target that fails. Not to use the fixture is warned of."""

    def fail() -> None:
        raise _NothingToShow

    with contextlib.suppress(_NothingToShow):
        benchmark.pedantic(fail)


def note_verdict(config: pytest.Config, result: CellResult, name: str = "verdict") -> None:
    """Add a verdict to the rows of the agent's trials behind it, by figure.

    Args:
        config: pytest's.
        result: Of the cell that was judged.
        name: In `extra_info`.
    """
    cell = result.cell
    for key, extra_info in config.stash.get(_ROWS, {}).values():
        if (key.syscall, key.arm) == (cell.syscall, cell.agent):
            extra_info.setdefault(name, {})[cell.figure] = str(result.verdict)


def machine_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """What pytest-benchmark's `machine_info` is told of the node that was measured."""
    return {
        name: value
        for name, value in facts.items()
        if name in MACHINE_FACTS
        or (name.startswith(AGENT_FACT) and name != f"{AGENT_FACT}{VANILLA}")
    }


def put_off_comparison(
    config: pytest.Config, machine_info: MutableMapping[str, Any], compared: Mapping[str, Any]
) -> None:
    """Let pytest-benchmark compare its own facts alone: ours are known once the run has begun."""
    machine_info.pop(OUR_FACTS, None)
    if OUR_FACTS in compared:
        config.stash.setdefault(_COMPARED, []).append(compared[OUR_FACTS])
        machine_info[OUR_FACTS] = compared[OUR_FACTS]


def comparison_warnings(config: pytest.Config, facts: Mapping[str, str]) -> list[str]:
    """How the node of a run of `--benchmark-compare` differs from this one, a line a run."""
    now = machine_facts(facts)
    found = []
    for then in config.stash.get(_COMPARED, []):
        # An agent that only one of the runs had says nothing about the rows of both.
        names = [name for name in now if name in then and then[name] != now[name]]
        if names:
            told = ", ".join(f"{name} is {then[name]} there, {now[name]} here" for name in names)
            found.append(f"--benchmark-compare: the earlier run was made otherwise: {told}")
    return found
