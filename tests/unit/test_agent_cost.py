from __future__ import annotations

import json

import pytest

from pytest_syslat.agent_cost import (
    AgentCost,
    SamplerFailed,
    Usage,
    dropped_between,
    kernel_use,
    parse_usage,
)
from pytest_syslat.agents.protocol import KernelTime
from pytest_syslat.plan import TrialKey
from pytest_syslat.records import AGENT_COLUMNS, agent_frame
from pytest_syslat.trial import Trial

ALL_KNOWN = AgentCost(
    calls_per_s=1234.5678,
    cpu_s=1.25,
    duration_s=5.0,
    peak_memory_bytes=123_456_789,
    threads=21,
    threads_on_core=("falco", "falco"),
    kernel_runs=4000,
    kernel_time_ns=1_000_000,
    dropped=7,
)


def trial(cost: AgentCost | None, *, arm: str = "falco", number: int = 1) -> Trial:
    """A trial of which only key and cost matter."""
    made = object.__new__(Trial)
    object.__setattr__(made, "key", TrialKey("openat", arm, number))
    object.__setattr__(made, "cost", cost)
    return made


def test_derived_figures() -> None:
    # 1.25 s of 5 s are a quarter of a core; a million ns by 4,000 runs are 250.
    assert ALL_KNOWN.cpu_pct_of_core == 25.0
    assert ALL_KNOWN.peak_memory_mb == pytest.approx(123.456789)
    assert ALL_KNOWN.kernel_ns_per_run == 250.0


def test_what_is_not_known_has_no_derived_figure() -> None:
    nothing = AgentCost(calls_per_s=10.0)
    assert nothing.cpu_pct_of_core is None
    assert nothing.peak_memory_mb is None
    assert nothing.kernel_ns_per_run is None
    assert AgentCost(kernel_runs=0, kernel_time_ns=0).kernel_ns_per_run is None
    assert AgentCost(cpu_s=0.0, duration_s=2.0).cpu_pct_of_core == 0.0


def test_plain_values() -> None:
    plain = ALL_KNOWN.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["threads_on_core"] == ["falco", "falco"]
    assert AgentCost().as_dict()["threads_on_core"] is None


ANSWER = {
    "processes": 2,
    "cpu_s": 0.5,
    "duration_s": 2.0,
    "peak_memory_bytes": 4096,
    "threads": 3,
    "threads_on_core": ["a b"],
}


def test_the_samplers_answer() -> None:
    assert parse_usage(json.dumps(ANSWER)) == Usage(0.5, 2.0, 4096, 3, ("a b",))


def test_no_process_is_no_cost_of_nothing() -> None:
    with pytest.raises(SamplerFailed, match="none of its processes was found"):
        parse_usage(json.dumps(ANSWER | {"processes": 0}))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (KernelTime(100, 5000), KernelTime(150, 9000), (50, 4000)),
        (KernelTime(100, 5000), KernelTime(100, 5000), (0, 0)),
        (None, KernelTime(150, 9000), (None, None)),
        (KernelTime(100, 5000), None, (None, None)),
        # Loaded anew.
        (KernelTime(100, 5000), KernelTime(20, 700), (None, None)),
    ],
)
def test_kernel_use(
    before: KernelTime | None, after: KernelTime | None, expected: tuple[int | None, int | None]
) -> None:
    assert kernel_use(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(10, 10, 0), (10, 13, 3), (10, 2, None), (None, 2, None), (2, None, None)],
)
def test_dropped_between(before: int | None, after: int | None, expected: int | None) -> None:
    assert dropped_between(before, after) == expected


def test_the_file_of_costs() -> None:
    quiet = AgentCost(cpu_s=0.0, duration_s=4.0, threads=1, threads_on_core=())
    frame = agent_frame([trial(ALL_KNOWN), trial(quiet, number=2), trial(None, number=3)])
    text = frame.to_csv(index=False, float_format="%.3f", lineterminator="\n")
    assert text.splitlines() == [
        ",".join(AGENT_COLUMNS),
        "falco,openat,1,1.250,25.000,123.457,21,falco;falco,1234.568,7,4000,250.000",
        "falco,openat,2,0.000,0.000,,1,none,,,,",
        "falco,openat,3,,,,,,,,,",
    ]


def test_an_arm_of_which_nothing_is_known_and_no_trials() -> None:
    [line] = (
        agent_frame([trial(AgentCost(calls_per_s=2.0), arm="vanilla")])
        .to_csv(index=False, header=False, float_format="%.3f")
        .splitlines()
    )
    assert line == "vanilla,openat,1,,,,,,2.000,,,"
    assert list(agent_frame([]).columns) == list(AGENT_COLUMNS)
