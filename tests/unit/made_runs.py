"""Result directories made by hand: what a run leaves, with numbers chosen by a test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_syslat.settings import Settings

SHAPE = {1: 900, 2: 90, 3: 10}
"""Of 1,000 calls so many take so many times the latency: p50 and p90 once, p99 twice."""
SYSTEM = {"kernel": "6.1", "node": "made-up", "agent falco": "1.0"}


def calls(latency_ns: int) -> dict[int, int]:
    return {times * latency_ns: count for times, count in SHAPE.items()}


def map_dump(counts: Mapping[int, int], **counters: int) -> str:
    """One dump as `bpftrace -f json` prints it."""
    maps = [
        {"@ns": {str(ns): count for ns, count in counts.items()}},
        {"@other": 0},
        *({f"@{name}": number} for name, number in counters.items()),
        {"@total": sum(counts.values())},
    ]
    return "".join(json.dumps({"type": "map", "data": each}) + "\n" for each in maps)


def map_log(recorded: Mapping[int, int], before: Mapping[int, int] | None = None) -> bytes:
    """The log of a trial: attached, a run that does not count, the recorded calls, the end."""
    before = {7_000: 3} if before is None else before
    final = {ns: recorded.get(ns, 0) + before.get(ns, 0) for ns in {*recorded, *before}}
    dumps = [map_dump({}), map_dump(before), map_dump(final), map_dump(final)]
    head = '{"type": "attached_probes", "data": {"probes": 2}}\n'
    return (head + "\n".join(dumps)).encode()


def event_log(
    recorded: Mapping[int, int],
    before: Sequence[int] = (7_000, 7_000),
    returned: int = 3,
    failed: Sequence[int] = (),
) -> bytes:
    """The log of a trial: each recorded call has `returned`; `failed` ones, of 50 ns, otherwise."""

    def lines(latencies_ns: Sequence[int]) -> str:
        return "".join(f"{ns} {returned}\n" for ns in latencies_ns)

    latencies = [ns for ns, count in recorded.items() for _ in range(count)]
    total = len(before) + len(latencies) + len(failed)
    others = "".join(f"50 {each}\n" for each in failed)
    return (
        "Attaching 2 probes...\n@other: 0\n@total: 0\n"
        f"{lines(before)}@other: 0\n@total: {len(before)}\n"
        f"{lines(latencies)}{others}@other: 0\n@total: {total}\n\n@other: 0\n@total: {total}\n\n"
    ).encode()


def stderr(untraced_us: Sequence[float], traced_us: Sequence[float]) -> str:
    return "".join(
        f"lmbench {condition} {number}: TCP/IP connection cost: {value:.4f} microseconds\n"
        for condition, values in (("untraced", untraced_us), ("traced", traced_us))
        for number, value in enumerate(values, start=1)
    )


def entry(
    label: str, trial: int, latency_ns: int, user_us: float, **changed: Any
) -> dict[str, Any]:
    """A trial of connect in run.json; its figures are those of `SHAPE`."""
    return {
        "syscall": "connect",
        "label": label,
        "trial": trial,
        "node": "made-up",
        "testbed": "local",
        "placement": "last",
        "placement_wanted": "last",
        "program_order": None,
        "attempt": 1,
        "started_at_s": 1_700_000_000.0 + trial,
        "duration_s": 1.0,
        "refused": False,
        "calls": 1000,
        "other_calls": 0,
        "figures_us": {
            "p50": latency_ns / 1000,
            "p90": latency_ns / 1000,
            "p99": 2 * latency_ns / 1000,
            # (900 + 2 * 90 + 3 * 10) / 1000
            "mean": 1.11 * latency_ns / 1000,
            "user": user_us,
        },
        "cost": None,
        "findings": [],
        "operation_us": None,
        "user_mean_us": user_us,
        "first": None,
        **changed,
    }


def make_run(
    root: Path,
    *,
    vanilla_ns: Sequence[int],
    agent_ns: Sequence[int],
    budgets: Sequence[str] = (),
    system: Mapping[str, str] = SYSTEM,
    tracer: str = "distribution",
    **changed: Any,
) -> Path:
    """Write run.json, logs and lmbench's output of connect in vanilla and falco; no CSV file."""
    entries = []
    for label, latencies_ns in (("vanilla", vanilla_ns), ("falco", agent_ns)):
        arm = root / label
        arm.mkdir(parents=True)
        (arm / f"{label}_sysinfo.txt").write_text("kernel: 6.1\n")
        for trial, latency_ns in enumerate(latencies_ns, start=1):
            user_us = latency_ns / 500
            log = (map_log if tracer == "distribution" else event_log)(calls(latency_ns))
            (arm / f"{label}_connect_trial{trial}.log").write_bytes(log)
            (arm / f"{label}_connect_trial{trial}.stderr").write_text(
                stderr([user_us - 0.5, user_us, user_us + 0.5], [user_us + 9])
            )
            entries.append(entry(label, trial, latency_ns, user_us))
    settings = {
        **Settings(agents=("falco",), trials=len(vanilla_ns), tracer=tracer).as_dict(),
        "budgets": list(budgets),
    }
    run = {
        "schema": 1,
        "complete": True,
        "settings": settings,
        "system": dict(system),
        "plan": [f"connect-{each['label']}-trial{each['trial']}" for each in entries],
        "plan_is_complete": True,
        "trials": entries,
        "replaced_trials": [],
        "repeats": {},
        "switching_s": 0.0,
        "switches": [],
        **changed,
    }
    (root / "run.json").write_text(json.dumps(run))
    return root
