"""Services of the host that a run has stopped: noted first, so that each of them runs again."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

START_LIMIT_S = 120.0
SAVED_STATE = Path("/run/pytest-syslat-services.json")
"""Units that ran before a run stopped them; outlives a killed run, until the next or a reboot."""


def remember(testbed: Testbed, unit: str) -> None:
    """Note that a unit ran before this run stopped it."""
    _write(testbed, sorted({*remembered(testbed), unit}))


def remembered(testbed: Testbed) -> list[str]:
    """The units that a run has stopped and that run again at its end."""
    try:
        units = json.loads(testbed.read(SAVED_STATE, role=Role.NODE))
    except (TestbedError, ValueError):
        return []
    return [str(unit) for unit in units]


def restore(testbed: Testbed, unit: str) -> bool:
    """Start a unit that was remembered; whether it was. Raises TestbedError."""
    units = remembered(testbed)
    if unit not in units:
        return False
    done = testbed.run(["systemctl", "start", unit], role=Role.NODE, timeout_s=START_LIMIT_S)
    if not done.ok:
        raise TestbedError(
            f"unit {unit} ran before and cannot be started again: {done.complaint}; start it, or "
            f"remove {SAVED_STATE}"
        )
    units.remove(unit)
    _write(testbed, units)
    return True


def restore_all(testbed: Testbed) -> list[str]:
    """Start what a killed run has stopped, and say what; raises TestbedError."""
    restored, problems = [], []
    for unit in remembered(testbed):
        try:
            restore(testbed, unit)
        except TestbedError as error:
            problems.append(str(error))
        else:
            restored.append(f"the stop of unit {unit}, which runs again")
    if problems:
        raise TestbedError("; ".join(problems))
    return restored


def _write(testbed: Testbed, units: list[str]) -> None:
    if units:
        testbed.write(SAVED_STATE, json.dumps(units).encode(), role=Role.NODE)
    else:
        testbed.remove(SAVED_STATE, role=Role.NODE)
