"""The arm auditd, with the kernel's own audit: its cost is seen, and the host gets its own back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_syslat.agents.auditd import BACKLOG_LIMIT, Auditd, AuditDaemon
from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.arms import Arms
from pytest_syslat.kernel_audit import KEY, QUIET_CONDITION, QUIET_RULE, KernelAudit
from pytest_syslat.settings import VANILLA
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import TestbedError
from pytest_syslat.trial import Bench

from .support import (
    ROOT,
    RUN_LIMIT_S,
    HostState,
    audit_rules,
    audit_switch,
    auditctl,
    child_with,
    detail,
    invalid_codes,
    kill_child,
    measure,
    wait_until,
)

GENEROUS = 5.0
"""By this factor two figures of the same arm never differ, even on a busy machine."""


@pytest.fixture
def auditd(host_before: HostState, testbed: LocalTestbed) -> Iterator[Auditd]:
    """The agent, installed; removed at the latest when the test has ended."""
    agent = Auditd(testbed, ROOT)
    yield agent
    agent.remove()


def wait_until_ready(agent: Auditd) -> None:
    wait_until(lambda: agent.ready() is None, RUN_LIMIT_S, "auditd is ready")


def keeps_vanilla_vanilla() -> list[str]:
    """The rules that keep audit off the tasks of a workload that starts from now on."""
    return [
        rule
        for rule in audit_rules()
        if rule.startswith("-a never,task") and QUIET_CONDITION in rule
    ]


def observes() -> list[str]:
    """The rules of the policy."""
    return [rule for rule in audit_rules() if rule.endswith(f"key={KEY}")]


def expect_audit_as_in(state: HostState) -> None:
    assert tuple(audit_rules()) == state.audit_rules
    assert tuple(audit_switch().items()) == state.audit_switch


def test_two_policies_share_the_daemon_and_the_host_s_state(
    host_before: HostState, testbed: LocalTestbed
) -> None:
    daemon = AuditDaemon(testbed)
    with_rules = Auditd(testbed, ROOT, daemon=daemon)
    without = Auditd(testbed, ROOT, rules=None, daemon=daemon)
    try:
        with_rules.prepare()
        without.prepare()
        with_rules.activate()
        wait_until_ready(with_rules)
        assert without.idle() is None, "another arm has the daemon"
        with_rules.deactivate()
        assert with_rules.idle() is without.idle() is None
        without.activate()
        wait_until_ready(without)
        assert observes() == keeps_vanilla_vanilla() == []
        assert KernelAudit(testbed).problem() is None, "audit was let in on purpose"
        without.deactivate()
    finally:
        without.remove()
        with_rules.remove()
    daemon.audit.remove_rules()
    expect_audit_as_in(host_before)


def test_cost_is_seen_and_gone_when_switched_off(
    host_before: HostState, bench: Bench, auditd: Auditd
) -> None:
    assert keeps_vanilla_vanilla() == observes() == []

    auditd.prepare()
    assert len(keeps_vanilla_vanilla()) == 1
    assert observes() == []
    assert audit_switch()["enabled"] == 1
    assert audit_switch()["backlog_limit"] >= BACKLOG_LIMIT
    assert audit_switch()["pid"] > 0
    assert auditd.ready() is not None  # its policy is not active yet
    assert auditd.version().startswith("auditd ")
    before = measure(bench, "openat")

    auditd.activate()
    wait_until_ready(auditd)
    assert keeps_vanilla_vanilla() == []
    assert len(observes()) == 1
    drops = auditd.drops()
    assert drops is not None
    assert drops >= 0
    during = measure(bench, "openat", arm="auditd", agent=auditd)

    auditd.deactivate()
    assert len(keeps_vanilla_vanilla()) == 1
    assert observes() == []
    after = measure(bench, "openat")

    auditd.remove()
    expect_audit_as_in(host_before)

    for trial in (before, during, after):
        assert invalid_codes(trial) == set()
    vanilla_ns = before.distribution.quantile_ns(0.5)
    assert during.distribution.quantile_ns(0.5) > 1.5 * vanilla_ns
    assert before.user_us is not None
    assert during.user_us is not None
    assert after.user_us is not None
    assert during.user_us > 1.5 * before.user_us
    # Without the rule `never,task` vanilla would stay slower for good.
    assert before.user_us / GENEROUS < after.user_us < during.user_us
    assert after.user_us < before.user_us * GENEROUS


def test_it_can_be_switched_many_times(
    host_before: HostState, testbed: LocalTestbed, auditd: Auditd
) -> None:
    auditd.prepare()
    for _ in range(3):
        auditd.activate()
        wait_until_ready(auditd)
        assert auditd.idle() == "auditd's rules are loaded"
        assert (len(keeps_vanilla_vanilla()), len(observes())) == (0, 1)
        auditd.deactivate()
        assert (len(keeps_vanilla_vanilla()), len(observes())) == (1, 0)
        assert auditd.ready() == "audit is kept off the workload"
        assert auditd.idle() is None


def test_removing_twice_or_untouched_is_harmless(host_before: HostState, auditd: Auditd) -> None:
    auditd.remove()
    auditd.prepare()
    auditd.activate()
    auditd.remove()
    auditd.remove()
    expect_audit_as_in(host_before)


def test_failure_in_the_middle_of_the_policy_is_undone(
    host_before: HostState, testbed: LocalTestbed, tmp_path: Path
) -> None:
    """A policy of the user's own whose second rule the kernel does not know."""
    policy = tmp_path / "policies" / "auditd" / "bench.rules"
    policy.parent.mkdir(parents=True)
    policy.write_text(
        "-a always,exit -F arch=b64 -S execve\n-a always,exit -F arch=b64 -S no_such_syscall\n"
    )
    arms = Arms(testbed, {VANILLA: Vanilla, "auditd": Auditd}, tmp_path)
    arms.prepare()
    with pytest.raises((AgentError, TestbedError), match=r"auditctl .*no_such_syscall"):
        arms.activate("auditd")
    assert len(observes()) == 1
    assert arms.close() == []
    expect_audit_as_in(host_before)


def test_daemon_that_dies_refuses_the_trial(
    host_before: HostState, bench: Bench, auditd: Auditd
) -> None:
    def at(step: str) -> None:
        if step == "traced":
            kill_child(child_with("/auditd"))

    if dict(host_before.audit_switch)["pid"]:
        pytest.skip("the host has an audit daemon of its own, which is not ours to kill")
    auditd.prepare()
    auditd.activate()
    wait_until_ready(auditd)
    trial = measure(bench, "openat", arm="auditd", agent=auditd, at=at)
    assert invalid_codes(trial) == {"agent-not-ready"}
    assert detail(trial, "agent-not-ready") == "auditd has ended"
    auditd.remove()
    expect_audit_as_in(host_before)


@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        (("-e", "0"), "audit is switched off"),
        (
            (
                "-d",
                "always,exit",
                "-F",
                "arch=b64",
                "-F",
                QUIET_CONDITION,
                "-S",
                "execve,openat,connect",
                "-k",
                KEY,
            ),
            "0 of 1 audit rules are loaded",
        ),
    ],
    ids=["switched off", "rule deleted"],
)
def test_arm_that_somebody_disturbs_is_not_ready(
    auditd: Auditd, sabotage: tuple[str, ...], reason: str
) -> None:
    auditd.prepare()
    auditd.activate()
    wait_until_ready(auditd)
    auditctl(*sabotage)
    assert auditd.ready() == reason


def test_what_a_killed_run_left_is_put_back_by_the_next(
    host_before: HostState, testbed: LocalTestbed
) -> None:
    killed = Auditd(testbed, ROOT)
    killed.prepare()
    killed.activate()
    wait_until_ready(killed)
    if not dict(host_before.audit_switch)["pid"]:
        kill_child(child_with("/auditd"))

    audit = KernelAudit(testbed)
    audit.open()
    assert observes() == []
    assert len(keeps_vanilla_vanilla()) == 1
    assert tuple(audit_switch().items()) == host_before.audit_switch
    killed.remove()  # reaps its daemon, which is dead
    audit.close()
    expect_audit_as_in(host_before)


def test_stray_rules_of_ours_do_not_stay_in_force(host_before: HostState, auditd: Auditd) -> None:
    auditctl("-a", *QUIET_RULE)
    auditctl("-a", "always,exit", "-F", "arch=b64", "-S", "mkdir", "-k", KEY)
    auditd.prepare()
    assert len(keeps_vanilla_vanilla()) == 1
    assert observes() == []
    auditd.remove()
    expect_audit_as_in(host_before)


@pytest.fixture
def host_rule(request: pytest.FixtureRequest, testbed: LocalTestbed) -> Iterator[str]:
    """A rule of the host's administrator, as auditctl lists it."""
    options: tuple[str, ...] = request.param
    before = audit_rules()
    auditctl("-a", *options)
    [listed] = [rule for rule in audit_rules() if rule not in before]
    yield listed
    auditctl("-d", *options, check=False)


@pytest.mark.parametrize(
    "host_rule",
    [("never,task",), ("never,task", "-F", "uid!=4242")],
    ids=["for all", "for nearly all"],
    indirect=True,
)
def test_hosts_rule_that_switches_audit_off_is_refused_and_kept(
    host_before: HostState, host_rule: str, auditd: Auditd
) -> None:
    """Under such a rule the kernel would observe nothing, and auditd look as if it were free."""
    with pytest.raises(AgentError) as refused:
        auditd.prepare()
    assert f"the host's own rule '{host_rule}' switches audit off" in str(refused.value)
    auditd.remove()
    assert sorted(audit_rules()) == sorted([*host_before.audit_rules, host_rule])
    assert tuple(audit_switch().items()) == host_before.audit_switch


@pytest.mark.parametrize(
    "host_rule",
    [
        ("always,exit", "-F", "arch=b64", "-S", "settimeofday", "-k", "of-the-host"),
        ("always,exit", "-F", "arch=b64", "-S", "settimeofday", "-k", f"{KEY}-of-another"),
    ],
    ids=["another key", "a key that begins like ours"],
    indirect=True,
)
def test_hosts_own_rule_survives(host_before: HostState, host_rule: str, auditd: Auditd) -> None:
    auditd.prepare()
    auditd.activate()
    assert host_rule in audit_rules()
    wait_until_ready(auditd)
    auditd.deactivate()
    auditd.remove()
    assert sorted(audit_rules()) == sorted([*host_before.audit_rules, host_rule])
