"""The kernel's audit with auditd: a real agent that runs anywhere, without Kubernetes.

The host may use audit itself. So only rules that carry our mark are added and deleted, a daemon
that is there already is used as it is, and what was changed is put back at the end.

Once audit has been enabled it stays in part until reboot: every task forked later carries an audit
context and takes the slow path of every syscall (kernel/auditsc.c, audit_alloc). A rule
`never,task` prevents that. It is loaded whenever the arm is off, so that vanilla stays vanilla.
"""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path

from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import Completed, Process, Role, Testbed, TestbedError
from pytest_syslat.tools import Tool, find_tool

KEY_PREFIX = "syslat-bench"
# Rules of the task list take no key: a condition that holds for every user but one marks ours.
MARK = "uid!=31237"
NEVER_TASK = ("never,task", "-F", MARK)
BACKLOG_LIMIT = 8192
"""What distributions set for a busy host; the kernel's own default of 64 overflows at once."""
LOCKED = 2
COMMAND_LIMIT_S = 30.0
START_LIMIT_S = 20.0
STOP_LIMIT_S = 20.0
POLL_S = 0.05

DAEMON_CONFIGURATION = """\
local_events = yes
write_logs = yes
log_file = {directory}/audit.log
log_group = root
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 64
num_logs = 2
max_log_file_action = ROTATE
priority_boost = 4
name_format = NONE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = SUSPEND
disk_error_action = SUSPEND
plugin_dir = {directory}/plugins.d
q_depth = 2000
overflow_action = IGNORE
"""


class Auditd:
    """auditd with rules for the measured syscalls."""

    def __init__(self, testbed: Testbed, rootdir: Path) -> None:
        self._testbed = testbed
        self._policy = resource("policies/auditd/bench.rules", rootdir)
        self._key = KEY_PREFIX
        self._directory = testbed.workdir / "auditd"
        self._auditctl: Tool | None = None
        self._daemon: Process | None = None
        self._before: dict[str, int] | None = None

    def prepare(self) -> None:
        """Start the daemon unless there is one, and load the rule that keeps vanilla vanilla."""
        self._auditctl = _found("auditctl")
        status = self._status()
        if status["enabled"] == LOCKED:
            raise AgentError("auditd: the audit rules are locked until the next reboot")
        self._remove_our_rules()
        for rule in self._rules():
            if re.match(r"-a (never,task|task,never)", rule):
                raise AgentError(
                    f"auditd: the host's own rule '{rule}' switches audit off for every task: "
                    "remove it (auditctl -d) and run again"
                )
        self._before = status
        if status["pid"] == 0:
            self._start_daemon()
        self._control("-e", "1")
        if status["backlog_limit"] < BACKLOG_LIMIT:
            self._control("-b", str(BACKLOG_LIMIT))
        self._control("-a", *NEVER_TASK)

    def _start_daemon(self) -> None:
        program = _found("auditd")
        self._testbed.write(
            self._directory / "auditd.conf",
            DAEMON_CONFIGURATION.format(directory=self._directory).encode(),
        )
        self._testbed.run(
            ["mkdir", "-p", str(self._directory / "plugins.d")],
            role=Role.NODE,
            timeout_s=COMMAND_LIMIT_S,
        )
        stderr = self._directory / "stderr"
        self._daemon = self._testbed.start(
            [program.path, "-n", "-c", str(self._directory)],
            role=Role.NODE,
            stdout=self._directory / "stdout",
            stderr=stderr,
            env=program.env,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while self._status()["pid"] == 0:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                told = self._testbed.read(stderr).decode(errors="replace").strip().splitlines()
                raise AgentError(f"auditd did not start: {told[-1] if told else 'no reason given'}")
            time.sleep(POLL_S)

    def activate(self) -> None:
        """Swap the rule that keeps audit off for the rules of the policy."""
        self._control("-d", *NEVER_TASK)
        for line in self._policy_lines():
            self._control(*shlex.split(line), "-k", self._key)

    def ready(self) -> str | None:
        """Whether daemon, switch and rules are in place."""
        try:
            status = self._status()
            loaded = [rule for rule in self._rules() if f"key={self._key}" in rule]
        except AgentError as error:
            return str(error)
        if self._daemon is not None and self._daemon.poll() is not None:
            return "auditd has ended"
        if status["pid"] == 0:
            return "no audit daemon runs"
        if status["enabled"] != 1:
            return "audit is switched off"
        wanted = len(self._policy_lines())
        if len(loaded) != wanted:
            return f"{len(loaded)} of {wanted} audit rules are loaded"
        return None

    def drops(self) -> int | None:
        """Events that the kernel could not hand to the daemon."""
        return self._status()["lost"]

    def deactivate(self) -> None:
        """Swap the policy's rules for the rule that keeps audit off."""
        self._remove_our_rules()
        self._control("-a", *NEVER_TASK)

    def remove(self) -> None:
        """Delete our rules, end our daemon, and put back the host's switch and backlog."""
        if self._auditctl is None:
            return
        try:
            self._remove_our_rules()
        finally:
            self._stop_daemon()
            if self._before is not None:
                before, self._before = self._before, None
                self._control("-b", str(before["backlog_limit"]))
                self._control("-e", str(before["enabled"]))

    def _stop_daemon(self) -> None:
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            daemon.signal(signal.SIGTERM)
            daemon.wait(STOP_LIMIT_S)
            daemon.end()

    def version(self) -> str:
        """The version that auditctl tells."""
        return self._control("-v").stdout.strip().replace("auditctl", "auditd")

    def _policy_lines(self) -> list[str]:
        lines = self._policy.read_text().splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def _rules(self) -> list[str]:
        listed = self._control("-l").stdout.splitlines()
        return [line.strip() for line in listed if line.strip() and line.strip() != "No rules"]

    def _remove_our_rules(self) -> None:
        for rule in self._rules():
            if f"key={KEY_PREFIX}" in rule or (rule.startswith("-a never,task") and MARK in rule):
                self._control("-d", *shlex.split(rule)[1:])

    def _status(self) -> dict[str, int]:
        """The numbers of `auditctl -s`, with those that an old kernel lacks taken as 0."""
        shown = dict.fromkeys(("enabled", "pid", "backlog_limit", "lost", "backlog"), 0)
        for line in self._control("-s").stdout.splitlines():
            name, _, value = line.partition(" ")
            if value.strip().isdigit():
                shown[name] = int(value)
        return shown

    def _control(self, *arguments: str) -> Completed:
        tool = self._auditctl or _found("auditctl")
        try:
            done = self._testbed.run(
                [tool.path, *arguments],
                role=Role.NODE,
                timeout_s=COMMAND_LIMIT_S,
                env=tool.env,
            )
        except TestbedError as error:
            raise AgentError(f"auditd: {error}") from error
        if not done.ok:
            raise AgentError(f"auditd: auditctl {' '.join(arguments)}: {done.complaint}")
        return done


def _found(name: str) -> Tool:
    tool = find_tool(name)
    if tool is None:
        raise AgentError(f"{name} was not found: run 'make provision' (tools/provision.sh)")
    return tool
