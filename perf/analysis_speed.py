"""Speed of the analysis: a distribution's cost must not grow with its calls, logs are read in bulk.

python perf/analysis_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pytest_syslat.distribution import Distribution
from pytest_syslat.summary import summary_rows
from pytest_syslat.tracer import parse_events

KEYS = 5000
LINES = 10_000_000


def seconds(work: Callable[[], object]) -> float:
    """The best of three times."""
    times_s = []
    for _ in range(3):
        begin_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - begin_s)
    return min(times_s)


def main() -> None:
    """Measure and print ratios of one run."""
    few = Distribution.from_counts({400 + key: 2 for key in range(KEYS)})
    many = Distribution.from_counts({400 + key: 20_000 for key in range(KEYS)})
    few_s = seconds(lambda: summary_rows("vanilla", "openat", 1, few))
    many_s = seconds(lambda: summary_rows("vanilla", "openat", 1, many))
    print(f"summary of {many.count:,} calls over {few.count:,} calls: {many_s / few_s:.2f}x")
    numbers = np.random.default_rng(1).integers(400, 4000, LINES)
    log = b"".join(b"%d 3\n" % number for number in numbers.tolist())
    begin_s = time.perf_counter()
    latencies_ns, _ = parse_events(log)
    bulk_s = time.perf_counter() - begin_s
    assert latencies_ns.size == LINES
    begin_s = time.perf_counter()
    for line in log[: len(log) // 10].splitlines():
        int(line.split()[0])
    by_line_s = 10 * (time.perf_counter() - begin_s)
    print(f"{LINES:,} lines of events: {bulk_s:.1f} s, {by_line_s / bulk_s:.1f}x line by line")


if __name__ == "__main__":
    main()
