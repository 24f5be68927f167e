from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_syslat.resolution import step_us

TRACES = sorted((Path(__file__).parents[2] / "bpftrace").glob("trace_*.bt"))


@pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("latency_ns", "step_ns"),
    [
        (65_536, 256),
        (300_000, 256),
        (1_048_576, 4096),
        (16_777_216, 65_536),
        (268_435_456, 1_048_576),
    ],
)
def test_steps_are_those_of_the_bpftrace_programs(
    trace: Path, latency_ns: int, step_ns: int
) -> None:
    limits = [int(limit) for limit in re.findall(r"\$ns < (\d+)\)", trace.read_text())]
    shifts = [int(shift) for shift in re.findall(r"\$ns >> (\d+)\) <<", trace.read_text())]
    steps = [2**shift for shift in shifts]
    below = [step for limit, step in zip(limits, steps, strict=False) if latency_ns < limit]
    assert [*below, steps[-1]][0] == step_ns
    assert step_us("p99", latency_ns / 1000, "distribution") == step_ns / 1000


@pytest.mark.parametrize(
    ("figure", "largest_us", "tracer", "expected_us"),
    [
        ("p50", 65.535, "distribution", 0.001),
        ("p50", 0.0, "distribution", 0.001),
        ("p50", 700.0, "events", 0.001),
        ("mean", 700.0, "distribution", 0.0),
        # "Simple open/close: 0.5700 microseconds"
        ("user", 700.0, "distribution", 0.0001),
    ],
)
def test_steps_of_the_other_figures(
    figure: str, largest_us: float, tracer: str, expected_us: float
) -> None:
    assert step_us(figure, largest_us, tracer) == expected_us
