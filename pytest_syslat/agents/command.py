"""An agent that is a program on this host: started for its arm, ended after it."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_syslat.agents.protocol import AgentError, Processes
from pytest_syslat.testbeds.protocol import (
    Completed,
    Process,
    Role,
    Testbed,
    TestbedError,
    last_line,
)
from pytest_syslat.tools import search_path

STOP_LIMIT_S = 20.0
ASK_LIMIT_S = 20.0
LOG_BYTES = 262_144
ONLINE = Path("/sys/devices/system/cpu/online")
# An observer prints a line a call: a file with all of them would fill the disk, and a terminal's
# pace would hold it up. So the beginning is kept and the rest is thrown away.
KEEP_BEGINNING = """
pid_file=$1; log=$2; bytes=$3; cores=$4; shift 4
sh -c 'echo $$ >"$0"; exec setpriv --pdeathsig KILL taskset --cpu-list "$@"' \\
    "$pid_file" "$cores" "$@" 2>&1 |
    { head -c "$bytes" >"$log"; exec cat >/dev/null; }
"""


class CommandCarrier:
    """One program, in the foreground."""

    is_foreign = True

    def __init__(self, testbed: Testbed, name: str, command: str) -> None:
        """Nothing is started yet; raises AgentError where it cannot be.

        Args:
            testbed: This host.
            name: The agent's, for messages.
            command: Program and arguments; `{policy}` stands for the policy's file.
        """
        if testbed.cluster is not None:
            raise AgentError(f"{name}: a command is measured on a host: add --syslat-testbed=local")
        self._testbed = testbed
        self._command = command
        self.name = name
        self.user: str | None = None
        self._directory = (
            testbed.workdir / f"agent-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        )
        self._process: Process | None = None
        self._pid: int | None = None

    def prepare(self, running: Callable[[], None]) -> None:  # noqa: ARG002
        """Look whether the program is there; nothing is installed."""
        program = shlex.split(self._command)[0]
        if self._testbed.find_tool(program) is None:
            raise AgentError(f"{self.name}: {program} was not found: install it, or give its path")

    def start(self, policy: Path | None) -> None:
        """Start it; it may run on every core, as it would without us."""
        argv = shlex.split(self._command)
        if policy is None and any("{policy}" in word for word in argv):
            raise AgentError(f"{self.name}: the command needs a policy")
        path = str(policy) if policy else ""
        argv = [word.replace("{policy}", path) for word in argv]
        tool = self._testbed.find_tool(argv[0])
        if tool is None:
            raise AgentError(f"{self.name}: {argv[0]} was not found")
        self._pid = None
        for file in (self._pid_file, self._log_file):
            self._testbed.write(file, b"", role=Role.TRACER)
        cores = self._testbed.read(ONLINE, role=Role.NODE).decode().strip()
        try:
            self._process = self._testbed.start(
                ["sh", "-c", KEEP_BEGINNING, "sh"]
                + [str(self._pid_file), str(self._log_file), str(LOG_BYTES), cores]
                + [tool.path, *argv[1:]],
                # Many observers need tracefs.
                role=Role.TRACER,
                stdout=self._directory / "stdout",
                stderr=self._directory / "stderr",
                env={**tool.env, "PATH": search_path()},
            )
        except TestbedError as error:
            raise AgentError(f"{self.name}: {error}") from error

    @property
    def _pid_file(self) -> Path:
        return self._directory / "pid"

    @property
    def _log_file(self) -> Path:
        return self._directory / "log"

    def apply(self, policy: Path | None) -> None:
        """It has read its policy at its start."""

    def policy_status(self) -> str | None:
        """There is no server to ask."""
        return None

    def withdraw(self) -> None:
        """Its policy ends with it."""

    def problem(self) -> str | None:
        """Whether it runs; raises AgentError once it has ended."""
        if self._process is None:
            return "it has not been started"
        if self._process.poll() is not None:
            raise AgentError(f"{self.name} has ended: {last_line(self.log()) or 'it said nothing'}")
        if self._pid is None:
            text = self._testbed.read(self._pid_file, role=Role.TRACER).strip()
            if not text:
                return "it has not begun"
            self._pid = int(text)
        if self._testbed.state(Path(f"/proc/{self._pid}"), role=Role.NODE) is None:
            raise AgentError(f"{self.name} has ended, and what it has started runs on")
        return None

    def stop(self) -> None:
        """Ask it to end, and see to it that all that it started does."""
        process = self._process
        if process is None:
            return
        try:
            # The number of one that has ended may be somebody else's by now.
            if self._pid is not None and process.poll() is None:
                self._testbed.run(
                    ["kill", f"-{signal.SIGTERM}", str(self._pid)],
                    role=Role.NODE,
                    timeout_s=ASK_LIMIT_S,
                )
                process.wait(STOP_LIMIT_S)
        finally:
            process.end()
            self._process = self._pid = None

    def remains(self) -> str | None:
        """Whether it still runs."""
        return "its program still runs" if self._process is not None else None

    def log(self) -> str:
        """The first 256 KiB of what it has printed."""
        with contextlib.suppress(TestbedError):
            return self._testbed.read(self._log_file, role=Role.TRACER).decode(errors="replace")
        return ""

    def execute(self, argv: Sequence[str]) -> Completed:
        """Run a program on the host."""
        return self._testbed.run(argv, role=Role.TRACER, timeout_s=ASK_LIMIT_S)

    def address(self) -> str:
        """This host."""
        return "127.0.0.1"

    def processes(self) -> Processes:
        """The program and what it has started."""
        return Processes(roots=(self._pid,) if self._pid is not None else ())

    def facts(self) -> dict[str, Any]:
        """The command."""
        return {"command": self._command}

    def remove(self) -> None:
        """End it, if it still runs."""
        self.stop()
