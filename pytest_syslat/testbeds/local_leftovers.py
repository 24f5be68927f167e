"""Clearing this host of what a killed run left."""

from __future__ import annotations

from pytest_syslat.kernel_audit import KernelAudit
from pytest_syslat.testbeds.local import LocalTestbed, usable_cores


def clean_host() -> list[str]:
    """Remove it, and return what it was; raises TestbedError, also while a run is at work."""
    testbed = LocalTestbed(core=usable_cores()[-1], run_id="clean")
    removed = list(testbed.swept)
    try:
        audit = KernelAudit(testbed)
        if audit.available:
            removed += audit.clean()
    finally:
        testbed.close()
    return removed
