"""What an agent must be able to do to be measured as an arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pytest_syslat.testbeds.protocol import Testbed


class AgentError(Exception):
    """The agent cannot be used; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Which processes of the node are the agent's, for its own cost; both empty: none is known."""

    cgroup_marks: tuple[str, ...] = ()
    """Texts, one of which stands in `/proc/PID/cgroup` of each of them, such as a pod's uid."""
    roots: tuple[int, ...] = ()
    """Process ids; their children, and children's children, belong to the agent, too."""


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What the kernel has accounted to the agent's BPF programs since they were loaded."""

    runs: int
    run_time_ns: int


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

    def processes(self) -> Processes:
        """Its processes while it is on."""

    def kernel_time(self) -> KernelTime | None:
        """Time and runs of its BPF programs; None unless the kernel is asked to keep them."""

    def facts(self) -> dict[str, Any]:
        """What is known of it only while it is on, for run.json: image, BPF programs and so on."""

    def deactivate(self) -> None:
        """Switch it off; raises AgentError."""

    def remove(self) -> None:
        """Undo `prepare` and put back the node's own state; raises AgentError."""

    def version(self) -> str:
        """Its version, for the result files."""


AgentFactory = Callable[[Testbed, Path], Agent]
"""Makes an agent for a testbed; the path is pytest's rootdir, whose policies win."""
