"""What carries an agent's processes: a DaemonSet, a service, or a command.

A carrier knows how they are installed, started and stopped; whether the agent that runs in them
works is asked by what its description says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pytest_syslat.agents.protocol import Processes
from pytest_syslat.testbeds.protocol import Completed


class Carrier(Protocol):
    """Installs, starts and stops the processes of one agent; several arms may share it."""

    user: str | None
    """The arm that has it switched on."""
    is_foreign: bool
    """Whether somebody else has installed it; then it may have been on before. On a host always so,
    in a cluster known once it is prepared."""

    def prepare(self, running: Callable[[], None]) -> None:
        """Install it, if need be, and leave it off; done once. Raises AgentError.

        Args:
            running: Called while it runs for the first time, before it is stopped, if it does.
        """

    def start(self, policy: Path | None) -> None:
        """Start it, with a policy that it reads when it starts; raises AgentError."""

    def apply(self, policy: Path | None) -> None:
        """Give it, once it runs, a policy that it takes while it runs; raises AgentError."""

    def problem(self) -> str | None:
        """Why it does not run as it was started, if it doesn't; raises AgentError if in vain."""

    def policy_status(self) -> str | None:
        """What the server says of the policy's object; None if it is none or says nothing."""

    def withdraw(self) -> None:
        """Take its policy away."""

    def stop(self) -> None:
        """Stop it and wait until its processes are gone; raises AgentError."""

    def remains(self) -> str | None:
        """Why it is not stopped, if it isn't."""

    def log(self) -> str:
        """What it has printed since it was started."""

    def execute(self, argv: Sequence[str]) -> Completed:
        """Run a program where it runs; raises TestbedError."""

    def address(self) -> str:
        """The address on which the node reaches its ports."""

    def processes(self) -> Processes:
        """Its processes while it runs."""

    def facts(self) -> dict[str, Any]:
        """What is known of it while it runs."""

    def remove(self) -> None:
        """Undo `prepare`, whatever has happened; raises AgentError."""
