"""What an agent must be able to do to be measured as an arm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pytest_syslat.testbeds.protocol import Testbed


class AgentError(Exception):
    """The agent cannot be used; the text is one line for the user."""


class Agent(Protocol):
    """An agent with its policy.

    Order of calls: `prepare` once; then any number of `activate` … `deactivate` pairs; `remove`
    once at the end, also after a failure or Ctrl-C, whatever has been called before.
    """

    def prepare(self) -> None:
        """Install it, switched off; raises AgentError."""

    def activate(self) -> None:
        """Switch it on, its policy included; raises AgentError."""

    def ready(self) -> str | None:
        """None if it runs and its policy is active, else the reason why not."""

    def idle(self) -> str | None:
        """None if it is off and adds nothing to a syscall, else the reason why not.

        Asked at the end of each trial of another arm: what is proven only for the active arm
        would let a half switched-off agent into vanilla's figures.
        """

    def drops(self) -> int | None:
        """Events that it has dropped since it was started; None where it doesn't count them."""

    def deactivate(self) -> None:
        """Switch it off; raises AgentError."""

    def remove(self) -> None:
        """Undo `prepare` and put back the node's own state; raises AgentError."""

    def version(self) -> str:
        """Its version, for the result files."""


AgentFactory = Callable[[Testbed, Path], Agent]
"""Makes an agent for a testbed; the path is pytest's rootdir, whose policies win."""
