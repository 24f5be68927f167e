"""Whether a stored run was made under the conditions of this one: the differences, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_syslat.settings import Settings
from pytest_syslat.stored import StoredRun
from pytest_syslat.syscalls import DEFINITION

MATCHED_SETTINGS = (
    "placement",
    "tracer",
    "rate",
    "lmbench_reps",
    "openat_mult",
    "min_calls",
    "warmup_s",
    "drop_caches",
)
"""Settings that change what a trial is. The number of trials and the seed do not."""

MATCHED_FACTS = (
    "testbed",
    "node",
    "kernel",
    "kernel build",
    "architecture",
    "CPU",
    "cores online",
    "measured core",
    "SMT siblings of the core",
    "SMT",
    "governor",
    "turbo off (intel_pstate)",
    "boost (cpufreq)",
    "clock source",
    "kernel command line",
    "distribution",
    "image id",
    "image has the tools",
    "workload's quality of service",
    "workload's seccomp mode",
    "page cache",
    "tracer filters by",
    "bpftrace",
    "lmbench",
    "lmbench ENOUGH",
    "file system of the measured file",
)
"""Facts of sysinfo that change a latency; with these all that begin as in `MATCHED_PREFIXES`."""

MATCHED_PREFIXES = ("SHA-256 of ", "mitigation of ")

_UNSAID = "not told"
_DEFAULT_PLACEMENT = "last"
_LONGEST = 60


def setting_differences(stored: StoredRun, settings: Settings) -> list[str]:
    """What was asked for otherwise, one phrase each, such as `lmbench_reps is 10 there, 2 here`.

    A setting that the stored run does not know is taken at its default: it did not exist then.
    """
    default = _plain(Settings())
    now = _plain(settings)
    then = {name: stored.settings.get(name, default.get(name)) for name in MATCHED_SETTINGS}
    return list(_differences(then, {name: now.get(name) for name in MATCHED_SETTINGS}))


def fact_differences(stored: StoredRun, facts: Mapping[str, str]) -> list[str]:
    """What was otherwise on the node, one phrase each."""
    prefixed = sorted(
        name for name in {*stored.system, *facts} if name.startswith(MATCHED_PREFIXES)
    )
    # A syscall that only one of the runs has measured is not compared.
    defined = [
        name for name in sorted(facts) if name.startswith(DEFINITION) and name in stored.system
    ]
    names = (*MATCHED_FACTS, *prefixed, *defined)
    return list(
        _differences(
            {name: stored.system.get(name) for name in names},
            {name: facts.get(name) for name in names},
        )
    )


def _plain(settings: Settings) -> dict[str, Any]:
    return {"placement": _DEFAULT_PLACEMENT, **settings.as_dict()}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, before in then.items():
        if before != now[name]:
            yield f"{name} is {_shown(before)} there, {_shown(now[name])} here"


def _shown(value: object) -> str:
    text = _UNSAID if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
