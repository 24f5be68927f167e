"""The kernel's audit with auditd: a real agent that runs anywhere, without Kubernetes.

The host may use audit itself. So only rules that carry our key are added and deleted, a daemon
that is there already is used as it is, and what was changed is put back at the end.
"""

from __future__ import annotations

import shlex
import signal
import time
from pathlib import Path
from typing import Any

from pytest_syslat.agents.protocol import AgentError, KernelTime, Processes
from pytest_syslat.kernel_audit import KEY, LOCKED, KernelAudit, is_quiet_rule
from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import Process, Role, Testbed, TestbedError, last_line

BENCH_RULES = Path("policies/auditd/bench.rules")
BACKLOG_LIMIT = 8192
"""What distributions set for a busy host; the kernel's own default of 64 overflows at once."""
COMMAND_LIMIT_S = 30.0
START_LIMIT_S = 20.0
STOP_LIMIT_S = 20.0
DRAIN_LIMIT_S = 30.0
POLL_S = 0.05
NEEDED_SPACE_MB = 200
"""A daemon whose disk is full goes on without writing: it would look cheap."""

DAEMON_CONFIGURATION = """\
local_events = yes
write_logs = yes
log_file = {directory}/audit.log
log_group = root
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 32
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


class AuditDaemon:
    """The host's audit and its daemon; all arms of auditd share them."""

    def __init__(self, testbed: Testbed) -> None:
        """Nothing is asked yet."""
        self._testbed = testbed
        self._directory = testbed.workdir / "auditd"
        self.audit = KernelAudit(testbed)
        self.user: object = None
        """The arm that has its rules loaded."""
        self._process: Process | None = None
        self._prepared = False

    def prepare(self) -> None:
        """Start the daemon unless there is one, with audit still kept off the workload."""
        if self._prepared:
            return
        status = self.audit.status()
        if status["enabled"] == LOCKED:
            raise AgentError("auditd: the audit rules are locked until the next reboot")
        for rule in self.audit.rules():
            if rule.startswith(("-a never,task", "-a task,never")) and not is_quiet_rule(rule):
                raise AgentError(
                    f"auditd: the host's own rule '{rule}' switches audit off for tasks: "
                    f"remove it (auditctl -d{rule.removeprefix('-a')}) and run again"
                )
        self.audit.save_host()
        self._prepared = True
        self.audit.quieten()
        if status["pid"] == 0:
            self._start()
        self.audit.control("-e", "1")
        if status["backlog_limit"] < BACKLOG_LIMIT:
            self.audit.control("-b", str(BACKLOG_LIMIT))

    def _start(self) -> None:
        program = self._testbed.find_tool("auditd")
        if program is None:
            raise AgentError("auditd was not found: run 'make provision' (tools/provision.sh)")
        self._testbed.write(
            self._directory / "auditd.conf",
            DAEMON_CONFIGURATION.format(directory=self._directory).encode(),
            role=Role.NODE,
        )
        self._testbed.write(self._directory / "plugins.d" / ".keep", b"", role=Role.NODE)
        self._check_space()
        stderr = self._directory / "stderr"
        self._process = self._testbed.start(
            [program.path, "-n", "-c", str(self._directory)],
            role=Role.NODE,
            stdout=self._directory / "stdout",
            stderr=stderr,
            env=program.env,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while self.audit.status()["pid"] == 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._testbed.read(stderr, role=Role.NODE).decode(errors="replace")
                raise AgentError(f"auditd did not start: {last_line(said) or 'no reason given'}")
            time.sleep(POLL_S)

    def _check_space(self) -> None:
        shown = self._testbed.run(
            ["df", "-Pm", str(self._directory)], role=Role.NODE, timeout_s=COMMAND_LIMIT_S
        )
        free_mb = int(shown.stdout.splitlines()[-1].split()[3])
        if free_mb < NEEDED_SPACE_MB:
            raise AgentError(
                f"auditd: {free_mb} MB are free in {self._directory.parent.parent}, its log needs "
                f"{NEEDED_SPACE_MB} MB: set TMPDIR to a place with more"
            )

    def problem(self) -> str | None:
        """Whether the daemon that we have started has ended."""
        if self._process is not None and self._process.poll() is not None:
            return "auditd has ended"
        return None

    def remove(self) -> None:
        """Delete our rules, end our daemon, and put back the host's switch and backlog."""
        if not self._prepared:
            return
        self.user = None
        try:
            self.audit.quieten()
        finally:
            if self._process is not None:
                daemon, self._process = self._process, None
                daemon.signal(signal.SIGTERM)
                daemon.wait(STOP_LIMIT_S)
                daemon.end()
            self._prepared = False
            self.audit.restore_host()


class Auditd:
    """auditd with rules for the measured syscalls."""

    def __init__(
        self,
        testbed: Testbed,
        rootdir: Path,
        rules: Path | None = BENCH_RULES,
        daemon: AuditDaemon | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            testbed: The host.
            rootdir: Whose copy of the rules wins over the shipped one.
            rules: The policy; None: audit is on, without a rule of ours.
            daemon: Shared with other arms of auditd; None: its own.
        """
        self._testbed = testbed
        self._policy = resource(str(rules), rootdir) if rules else None
        self._daemon = daemon or AuditDaemon(testbed)
        self._audit = self._daemon.audit

    def prepare(self) -> None:
        """Start the daemon unless there is one, with audit still kept off the workload."""
        if self._testbed.name != "local":
            raise AgentError("auditd is measured on a host only: add --syslat-testbed=local")
        self._policy_lines()
        self._daemon.prepare()

    def activate(self) -> None:
        """Swap the rule that keeps audit off the workload for the rules of the policy."""
        self._daemon.user = self
        self._audit.admit()
        for line in self._policy_lines():
            self._audit.control(*shlex.split(line), "-k", KEY)

    def ready(self) -> str | None:
        """Whether daemon, switch and rules are in place."""
        problem = self._daemon.problem()
        if problem:
            return problem
        try:
            status = self._audit.status()
            loaded = len(self._audit.keyed_rules())
            quiet = self._audit.is_quiet()
        except TestbedError as error:
            return str(error)
        if status["pid"] == 0:
            return "no audit daemon runs"
        if status["enabled"] != 1:
            return "audit is switched off"
        if quiet:
            return "audit is kept off the workload"
        wanted = len(self._policy_lines())
        return None if loaded == wanted else f"{loaded} of {wanted} audit rules are loaded"

    def idle(self) -> str | None:
        """Whether audit is kept off the workload; always so while another arm has its rules."""
        if self._daemon.user not in (None, self):
            return None
        try:
            if self._audit.keyed_rules():
                return "auditd's rules are loaded"
            return None if self._audit.is_quiet() else "audit is not kept off the workload"
        except TestbedError as error:
            return str(error)

    def drops(self) -> int | None:
        """Events that the kernel could not hand to the daemon."""
        return self._audit.status()["lost"]

    def processes(self) -> Processes:
        """The daemon; what the kernel's own thread kauditd does is nobody's."""
        pid = self._audit.status()["pid"]
        return Processes(roots=(pid,) if pid else ())

    def kernel_time(self) -> KernelTime | None:
        """The kernel's audit is no BPF program."""
        return None

    def facts(self) -> dict[str, Any]:
        """The rules as the kernel lists them."""
        return {"rules": self._audit.keyed_rules()}

    def deactivate(self) -> None:
        """Take the rules away and wait until the daemon has written what was queued."""
        self._audit.quieten()
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while self._audit.status()["backlog"] and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self._daemon.user = None

    def remove(self) -> None:
        """Put the host's audit back, for all arms."""
        self._daemon.remove()

    def version(self) -> str:
        """The version that auditctl tells."""
        return self._audit.version()

    def _policy_lines(self) -> list[str]:
        if self._policy is None:
            return []
        lines = [line.strip() for line in self._policy.read_text().splitlines()]
        rules = [line for line in lines if line and not line.startswith("#")]
        watches = [line for line in rules if line.startswith("-w")]
        if watches:
            raise AgentError(
                f"auditd: '{watches[0]}' in {self._policy.name} is a watch: "
                "write it as '-a always,exit -F path=… -F perm=…'"
            )
        return rules
