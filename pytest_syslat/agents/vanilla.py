"""The node with no agent: the baseline of every comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_syslat.agents.protocol import KernelTime, Processes
from pytest_syslat.testbeds.protocol import Testbed


class Vanilla:
    """Nothing is installed and nothing is switched."""

    def __init__(self, testbed: Testbed, rootdir: Path) -> None:
        """Made like any agent; the node needs no change."""

    def prepare(self) -> None:
        """Nothing to install."""

    def activate(self) -> None:
        """Nothing to switch on: arms that leave traces clear them when they are switched off."""

    def ready(self) -> str | None:
        """Always ready."""
        return None

    def idle(self) -> str | None:
        """Always idle."""
        return None

    def drops(self) -> int | None:
        """There is nobody to drop events."""
        return None

    def processes(self) -> Processes:
        """There are none."""
        return Processes()

    def kernel_time(self) -> KernelTime | None:
        """There are no programs."""
        return None

    def facts(self) -> dict[str, Any]:
        """Nothing that isn't known of the node."""
        return {}

    def deactivate(self) -> None:
        """Nothing to switch off."""

    def remove(self) -> None:
        """Nothing to remove."""

    def version(self) -> str:
        """No agent, hence no version."""
        return "no agent"
