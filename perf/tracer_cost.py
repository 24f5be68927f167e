"""What tracing costs the workload: lmbench's own figure, traced over untraced.

    python perf/tracer_cost.py [ROUNDS]

Each round measures `lat_syscall open` untraced, under empty probes, under the distribution tracer
and under the events tracer, in an order shuffled anew. Printed are the medians over the rounds, the
ratios to the untraced median, and the calls measured per second of wall time. Needs root and a
quiet machine.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.cores import choose_core
from pytest_syslat.testbeds.local import LocalTestbed, may_be_pinned_to, usable_cores
from pytest_syslat.tools import find_lmbench
from pytest_syslat.tracer import Tracer
from pytest_syslat.tracer_script import MARK_COMM
from pytest_syslat.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
RUNS = 10
OPENAT = SYSCALLS["openat"]
# The mark must be answered, or attaching could not be proven; no other call passes the filter.
EMPTY_PROBES = f"""
tracepoint:syscalls:sys_enter_openat
/cgroup == (uint64)$1 && comm == "{MARK_COMM}"/ {{ @total = count(); }}
tracepoint:syscalls:sys_exit_openat
/cgroup == (uint64)$1 && comm == "{MARK_COMM}"/ {{ print(@total); }}
"""


def figure_us(workload: Workload) -> float:
    """Median of lmbench's figures over RUNS runs, µs per open and close."""
    figures = [workload.run(OPENAT).us_per_op for _ in range(RUNS)]
    return statistics.median(figure for figure in figures if figure is not None)


def main(rounds: int) -> None:
    """Measure and print."""
    core, _ = choose_core(2, usable_cores(), may_be_pinned_to)
    testbed = LocalTestbed(core=core, run_id="perf")
    figures_us: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as empty_root:
        script = Path(empty_root, "bpftrace", "trace_openat.bt")
        script.parent.mkdir()
        script.write_text(EMPTY_PROBES)
        workload = None
        try:
            workload = Workload(testbed, find_lmbench(None))
            tracers = {
                "untraced": None,
                "empty probes": Tracer(testbed, Path(empty_root), "distribution"),
                "distribution": Tracer(testbed, ROOT, "distribution"),
                "events": Tracer(testbed, ROOT, "events"),
            }
            for _ in range(rounds):
                for name in random.sample(sorted(tracers), k=len(tracers)):
                    tracer = tracers[name]
                    if tracer is None:
                        figures_us.setdefault(name, []).append(figure_us(workload))
                        continue
                    tracing = tracer.attach(OPENAT)
                    workload.run(OPENAT)
                    tracing.begin()
                    begin_s = time.monotonic()
                    figures_us.setdefault(name, []).append(figure_us(workload))
                    calls = tracing.calls_so_far()
                    rates.setdefault(name, []).append(calls / (time.monotonic() - begin_s))
                    tracing.stop()
        finally:
            if workload is not None:
                workload.close()
            testbed.close()
    base_us = statistics.median(figures_us["untraced"])
    for name in ("untraced", "empty probes", "distribution", "events"):
        median_us = statistics.median(figures_us[name])
        line = f"{name:<13} {median_us:8.3f} µs  {median_us / base_us:6.2f}x"
        if name in ("distribution", "events"):
            line += f"  {statistics.median(rates[name]):12,.0f} calls/s"
        spread = " ".join(f"{value:.3f}" for value in figures_us[name])
        print(f"{line}   ({spread})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
