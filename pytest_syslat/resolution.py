"""The step in which a figure is recorded: two figures nearer than that cannot be told apart."""

from __future__ import annotations

LMBENCH_STEP_US = 0.0001
"""lmbench prints four decimals of a µs (`micro` in its lib_timing.c)."""

_CLOCK_STEP_NS = 1
# (from, step), coarsest first, where the maps of bpftrace/trace_*.bt leave whole ns.
_MAP_STEPS_NS = ((2**28, 2**20), (2**24, 2**16), (2**20, 2**12), (2**16, 2**8))


def step_us(figure: str, largest_us: float, tracer: str) -> float:
    """Give the coarsest step in which a figure of trials is recorded.

    Args:
        figure: p50, p90, p99, mean (traced) or user (untraced).
        largest_us: The largest value of the figure among the trials, in µs.
        tracer: ``distribution`` (steps of at most 1/256 from 65,536 ns on) or ``events``.

    Returns:
        The step in µs. That of a mean is 0: over a thousand calls and more the rounding of single
        ones averages out.
    """
    if figure == "mean":
        return 0.0
    if figure == "user":
        return LMBENCH_STEP_US
    step_ns = _CLOCK_STEP_NS
    if tracer == "distribution":
        largest_ns = largest_us * 1000
        step_ns = next((step for begin, step in _MAP_STEPS_NS if largest_ns >= begin), step_ns)
    return step_ns / 1000
