"""The kernel's audit, which any run must know of: once on, it slows tasks until the next reboot.

Every task forked after audit has been enabled carries an audit context and takes the slow path of
every syscall (kernel/auditsc.c, audit_alloc), even when audit is off again. So vanilla would not be
vanilla on a host where audit was ever on. A rule `never,task` keeps the context from new tasks; it
is narrowed to the group under which the workload runs, so that no other process of the host loses
its own auditing.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from pytest_syslat.testbeds.protocol import (
    WORKLOAD_GROUP,
    Completed,
    Role,
    Testbed,
    TestbedError,
)
from pytest_syslat.tools import Tool

QUIET_CONDITION = f"gid={WORKLOAD_GROUP}"
QUIET_RULE = ("never,task", "-F", QUIET_CONDITION)
KEY = "syslat-bench"
LOCKED = 2
"""Value of `enabled` when no rule can be changed until the next reboot."""
COMMAND_LIMIT_S = 30.0
SAVED_STATE = Path("/run/pytest-syslat-audit.json")
"""What the host had before a run changed it; outlives a killed run, until the next or a reboot."""


class AuditError(TestbedError):
    """auditctl refused; the text is one line for the user."""


class KernelAudit:
    """auditctl on a testbed. `available` is False where it cannot be used."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._kept_off = False
        # An arm may let audit in without a rule of its own; whoever else asks must know it.
        self._admitted = testbed.workdir / "audit-admitted"
        self._auditctl: Tool | None = testbed.find_tool("auditctl")

    @property
    def available(self) -> bool:
        """Whether auditctl is there, the kernel answers it, and rules may be changed."""
        if self._auditctl is None:
            return False
        try:
            return self.status()["enabled"] != LOCKED
        except TestbedError:
            return False

    def open(self) -> None:
        """Clear what a killed run left, and keep audit off the workload; raises AuditError."""
        self.restore_host()
        self.quieten()

    def close(self) -> None:
        """Remove our rules and put the host's state back; raises AuditError."""
        self._kept_off = False
        self.remove_rules()
        self.restore_host()

    def clean(self) -> list[str]:
        """Remove what a killed run left, and return what it was; raises AuditError."""
        before = self.rules()
        changed = self._testbed.state(SAVED_STATE, role=Role.NODE) is not None
        self.close()
        left = self.rules()
        removed = [f"audit rule '{rule}'" for rule in before if rule not in left]
        return removed + (["changes to the audit switch and backlog"] if changed else [])

    def quieten(self) -> None:
        """Swap all our rules for the one that keeps audit off the workload."""
        self._kept_off = True
        self._testbed.remove(self._admitted, role=Role.NODE)
        self.remove_rules(but_quiet=True)
        if not self.is_quiet():
            self.control("-a", *QUIET_RULE)

    def admit(self) -> None:
        """Remove the rule that keeps audit off the workload."""
        self._testbed.write(self._admitted, b"", role=Role.NODE)
        if self.is_quiet():
            self.control("-d", *QUIET_RULE)

    def problem(self) -> str | None:
        """Why audit reaches the workload though this run has kept it off, if it does."""
        if self._testbed.state(self._admitted, role=Role.NODE) is not None:
            return None
        if not self._kept_off or any(
            is_quiet_rule(rule) or is_keyed_rule(rule) for rule in self.rules()
        ):
            return None
        return "somebody has deleted the rule that keeps the kernel's audit off the workload"

    def is_quiet(self) -> bool:
        """Whether that rule is loaded."""
        return any(is_quiet_rule(rule) for rule in self.rules())

    def keyed_rules(self) -> list[str]:
        """The rules that carry our key."""
        return [rule for rule in self.rules() if is_keyed_rule(rule)]

    def remove_rules(self, *, but_quiet: bool = False) -> None:
        """Delete our rules, and nobody else's."""
        for rule in self.rules():
            if is_keyed_rule(rule) or (is_quiet_rule(rule) and not but_quiet):
                self.control("-d", *shlex.split(rule)[1:])

    def save_host(self) -> None:
        """Remember the host's switch and backlog before they are changed."""
        status = self.status()
        kept = {name: status[name] for name in ("enabled", "backlog_limit")}
        self._testbed.write(SAVED_STATE, json.dumps(kept).encode(), role=Role.NODE)

    def restore_host(self) -> None:
        """Put back what was saved, by this run or by one that was killed; delete its rules."""
        try:
            saved = json.loads(self._testbed.read(SAVED_STATE, role=Role.NODE))
        except (TestbedError, ValueError):
            return
        self.remove_rules()
        self.control("-b", str(saved["backlog_limit"]))
        self.control("-e", str(saved["enabled"]))
        self._testbed.remove(SAVED_STATE, role=Role.NODE)

    def rules(self) -> list[str]:
        """All rules of the host, as `auditctl -l` prints them."""
        listed = self.control("-l").stdout.splitlines()
        return [line.strip() for line in listed if line.strip() and line.strip() != "No rules"]

    def status(self) -> dict[str, int]:
        """The numbers of `auditctl -s`, with those that an old kernel lacks taken as 0."""
        names = ("enabled", "pid", "backlog_limit", "lost", "backlog", "backlog_wait_time_actual")
        shown = dict.fromkeys(names, 0)
        for line in self.control("-s").stdout.splitlines():
            name, _, value = line.partition(" ")
            if value.strip().isdigit():
                shown[name] = int(value)
        return shown

    def version(self) -> str:
        """The version that auditctl tells."""
        return self.control("-v").stdout.strip().replace("auditctl", "auditd")

    def control(self, *arguments: str) -> Completed:
        """Run auditctl; raises AuditError."""
        if self._auditctl is None:
            raise AuditError("auditctl was not found: run 'make provision' (tools/provision.sh)")
        done = self._testbed.run(
            [self._auditctl.path, *arguments],
            role=Role.NODE,
            timeout_s=COMMAND_LIMIT_S,
            env=self._auditctl.env,
        )
        if not done.ok:
            raise AuditError(f"auditctl {' '.join(arguments)}: {done.complaint}")
        return done


def is_quiet_rule(rule: str) -> bool:
    """Whether a rule, as `auditctl -l` prints it, is the one that keeps audit off the workload."""
    return rule.startswith(("-a never,task", "-a task,never")) and QUIET_CONDITION in rule.split()


def is_keyed_rule(rule: str) -> bool:
    """Whether a rule carries our key."""
    return f"key={KEY}" in rule.split()
