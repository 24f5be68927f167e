"""The arms of a session: install each agent once, switch between them, remove all at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.agents.protocol import Agent, AgentError, AgentFactory
from pytest_syslat.agents.waiting import wait_while
from pytest_syslat.settings import VANILLA
from pytest_syslat.testbeds.protocol import Testbed

READY_LIMIT_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Switch:
    """One switching of an agent, with the proof that it is on or off."""

    arm: str
    state: str
    """`on` or `off`."""
    duration_s: float


class Arms:
    """Owns the agents and knows which arm is active."""

    def __init__(
        self, testbed: Testbed, factories: Mapping[str, AgentFactory], rootdir: Path
    ) -> None:
        self._agents: dict[str, Agent] = {
            name: make(testbed, rootdir) for name, make in factories.items()
        }
        self._touched: list[str] = []
        self.active = VANILLA
        self.switches: list[Switch] = []
        self._settled = True

    def agent(self, arm: str) -> Agent:
        """The agent of an arm."""
        return self._agents[arm]

    def prepare(self) -> None:
        """Install all agents, switched off; raises AgentError."""
        for name, agent in self._agents.items():
            self._touched.append(name)
            agent.prepare()

    def activate(self, arm: str) -> bool:
        """Make an arm the active one and wait until it is ready.

        Returns:
            Whether anything had to be switched.

        Raises:
            AgentError: It did not become ready.
        """
        switch = arm != self.active or not self._settled
        if switch:
            # An activation that failed halfway is undone before the next one.
            self._settled = False
            self._timed("off", self._agents[self.active].deactivate)
            self.active = arm
            self._timed("on", self._agents[arm].activate)
        reason = wait_while(self._agents[arm].ready, READY_LIMIT_S, POLL_S)
        if reason is not None:
            raise AgentError(f"{arm} was not ready within {READY_LIMIT_S:g} s: {reason}")
        self._settled = True
        return switch

    def unsettle(self) -> None:
        """The workload's place was made anew: an agent's policy must find it once more."""
        self._settled = self.active == VANILLA

    def _timed(self, state: str, switch: Callable[[], None]) -> None:
        begin_s = time.monotonic()
        switch()
        if self.active != VANILLA:
            self.switches.append(Switch(self.active, state, time.monotonic() - begin_s))

    def not_idle(self) -> str | None:
        """Why an arm that should be off isn't, if one isn't."""
        for name, agent in self._agents.items():
            reason = None if name == self.active else agent.idle()
            if reason:
                return f"{name} should be off: {reason}"
        return None

    def versions(self) -> dict[str, str]:
        """Version of each agent, by arm."""
        return {name: agent.version() for name, agent in self._agents.items()}

    def close(self) -> list[str]:
        """Remove all agents, whatever happened before; what could not be removed is returned."""
        left = []
        while self._touched:
            name = self._touched.pop()
            try:
                self._agents[name].remove()
            except Exception as error:  # a stranger's agent must not keep the others from going
                left.append(f"{name} could not be removed: {error}")
        self.active = VANILLA
        return left
