"""An agent that is a systemd service of this host: stopped for other arms, started for its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_syslat.agents.protocol import AgentError, Processes
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError, last_line
from pytest_syslat.testbeds.stopped_services import remember, restore

SYSTEMCTL_LIMIT_S = 120.0
ASK_LIMIT_S = 20.0
UP = ("active", "activating", "reloading")


class ServiceCarrier:
    """One unit. It must be there; it is neither installed nor enabled."""

    is_foreign = True

    def __init__(self, testbed: Testbed, name: str, unit: str) -> None:
        """Nothing is asked yet; raises AgentError where there is no such thing."""
        if testbed.cluster is not None:
            raise AgentError(f"{name}: a service is measured on a host: add --syslat-testbed=local")
        self._testbed = testbed
        self._unit = unit
        self.name = name
        self.user: str | None = None
        self._prepared = False
        self._since = ""
        self._starts = ""

    def prepare(self, running: Callable[[], None]) -> None:
        """Remember whether it runs, and stop it."""
        if self._prepared:
            return
        if self._testbed.find_tool("systemctl") is None:
            raise AgentError(f"{self.name}: systemctl was not found: this host has no systemd")
        if self._shown("LoadState") != "loaded":
            raise AgentError(f"{self.name}: systemd knows no unit {self._unit}: give its full name")
        # Set first: what is remembered from here on is put back by `remove`.
        self._prepared = True
        if self._shown("ActiveState") in UP:
            remember(self._testbed, self._unit)
            running()
        self.stop()

    def start(self, policy: Path | None) -> None:
        """Start it; its policy is its own configuration."""
        if policy is not None:
            raise AgentError(
                f"{self.name}: a service reads its own configuration: leave the policy out"
            )
        self._since = self._told(["date", "+%Y-%m-%d %H:%M:%S"]).strip()
        self._control("start")
        self._starts = self._shown("InvocationID")

    def apply(self, policy: Path | None) -> None:
        """Its policy is its own configuration."""

    def policy_status(self) -> str | None:
        """There is no server to ask."""
        return None

    def withdraw(self) -> None:
        """Its policy is its own configuration."""

    def problem(self) -> str | None:
        """Whether it is active, and has not been started anew."""
        state = self._shown("ActiveState")
        if state == "failed":
            said = last_line(self.log()) or "its journal is empty"
            raise AgentError(f"{self.name}: unit {self._unit} has failed: {said}")
        if state != "active":
            return f"unit {self._unit} is {state}"
        again = self._shown("InvocationID") != self._starts
        return f"unit {self._unit} was started anew meanwhile" if again else None

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self._control("stop")

    def remains(self) -> str | None:
        """Whether systemd still has it up."""
        state = self._shown("ActiveState")
        return None if state in ("inactive", "failed") else f"unit {self._unit} is {state}"

    def log(self) -> str:
        """Its journal since it was started."""
        return self._told(
            ["journalctl", "--unit", self._unit, "--since", self._since, "--output", "cat"]
        )

    def execute(self, argv: Sequence[str]) -> Completed:
        """Run a program on the host."""
        return self._testbed.run(argv, role=Role.NODE, timeout_s=ASK_LIMIT_S)

    def address(self) -> str:
        """This host."""
        return "127.0.0.1"

    def processes(self) -> Processes:
        """All in the unit's cgroup."""
        group = self._shown("ControlGroup")
        return Processes(cgroup_marks=(group,) if group else ())

    def facts(self) -> dict[str, Any]:
        """The unit and where its file is."""
        return {"unit": self._unit, "unit file": self._shown("FragmentPath")}

    def remove(self) -> None:
        """Start it again if it ran before."""
        if self._prepared:
            self._prepared = False
            try:
                restore(self._testbed, self._unit)
            except TestbedError as error:
                raise AgentError(f"{self.name}: {error}") from error

    def _control(self, verb: str) -> None:
        done = self._testbed.run(
            ["systemctl", verb, self._unit], role=Role.NODE, timeout_s=SYSTEMCTL_LIMIT_S
        )
        if not done.ok:
            raise AgentError(f"{self.name}: systemctl {verb} {self._unit}: {done.complaint}")

    def _shown(self, name: str) -> str:
        return self._told(["systemctl", "show", "--value", "--property", name, self._unit]).strip()

    def _told(self, argv: Sequence[str]) -> str:
        done = self._testbed.run(argv, role=Role.NODE, timeout_s=ASK_LIMIT_S)
        if not done.ok:
            raise AgentError(f"{self.name}: {argv[0]}: {done.complaint}")
        return done.stdout
