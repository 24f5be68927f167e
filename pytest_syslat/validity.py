"""The checks that a trial must pass: pure functions from evidence to findings.

The limits and what each check guards against come from measurements: lmbench reports failed and
refused calls as plausible latencies, kernels drop events and connections in silence.
"""

from __future__ import annotations

import errno as errno_names
import os
from collections.abc import Iterable, Sequence
from statistics import fmean

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.findings import Finding, invalid, note, undecided, warning
from pytest_syslat.network import TcpCounters
from pytest_syslat.settings import VANILLA
from pytest_syslat.syscalls import Syscall
from pytest_syslat.testbeds.protocol import CoreTimes
from pytest_syslat.tracer import Trace
from pytest_syslat.workload import Run

FAILED_SHARE_LIMIT = 0.001
DROPPED_SHARE_LIMIT = 0.001
TIME_WAIT_LIMIT = 2000
TIME_WAIT_GROWTH_WARNING = 500
P99_CALLS = 1000
FOREIGN_SHARE_WARNING = 0.05
ACHIEVED_SHARE_WARNING = 0.95


def describe_errno(number: int) -> str:
    """`ENOENT (No such file or directory)`; what a call returned, if that is no error's number."""
    if number <= 0:
        return f"the return value {-number}"
    return f"{errno_names.errorcode.get(number, number)} ({os.strerror(number)})"


def _blame(arm: str) -> str:
    """What to ask where the workload fails in an arm: agents with a policy can block it."""
    return "" if arm == VANILLA else ": does its policy block the workload?"


def check_trace(trace: Trace, syscall: Syscall, min_calls: int, arm: str) -> list[Finding]:
    """Whether the recorded calls are all there, are the workload's, and succeeded."""
    findings = []
    if trace.problem:
        findings.append(invalid("tracer-died", trace.problem))
    if trace.total == 0:
        findings.append(invalid("no-samples", f"no {syscall.call} was traced"))
        return findings
    failed = sum(trace.failures.values())
    if failed > FAILED_SHARE_LIMIT * trace.total:
        worst = max(trace.failures, key=lambda number: trace.failures[number])
        findings.append(
            invalid(
                "failed-calls",
                f"{failed:,} of {trace.total:,} calls ({failed / trace.total:.1%}) of "
                f"{syscall.call} failed in arm {arm}, {trace.failures[worst]:,} of them "
                f"with {describe_errno(worst)}{_blame(arm)}",
            )
        )
    elif failed:
        named = ", ".join(f"{count:,} {describe_errno(n)}" for n, count in trace.failures.items())
        findings.append(
            note("some-failed-calls", f"{failed:,} of {trace.total:,} calls failed: {named}")
        )
    if trace.lost:
        findings.append(invalid("lost-events", f"bpftrace lost {trace.lost:,} events"))
    if trace.arrived != trace.total:
        findings.append(
            invalid(
                "miscounted",
                f"the kernel counted {trace.total:,} calls, but the latencies of "
                f"{trace.arrived:,} arrived: events were lost, or the map of latencies was full",
            )
        )
    if trace.stamps_full:
        findings.append(
            invalid("miscounted", "the map of start stamps was full: calls were left out")
        )
    if trace.after_last_run:
        findings.append(
            invalid(
                "foreign-samples",
                f"{trace.after_last_run:,} calls were counted after the workload had ended",
            )
        )
    if trace.succeeded.count < P99_CALLS:
        findings.append(
            undecided(
                "few-calls",
                f"{trace.succeeded.count:,} calls: p99 needs {P99_CALLS:,} (--syslat-min-calls)",
            )
        )
    elif trace.succeeded.count < min_calls:
        findings.append(
            warning("few-calls", f"{trace.succeeded.count:,} calls of {min_calls:,} wanted")
        )
    return findings


def check_runs(runs: Sequence[Run], arm: str) -> list[Finding]:
    """Whether every run of the workload printed a figure and no complaint."""
    without_figure = [run for run in runs if run.us_per_op is None]
    if without_figure:
        return [
            invalid(
                "lmbench-failed",
                f"{len(without_figure)} of {len(runs)} runs of the workload gave no figure in arm "
                f"{arm}: {without_figure[0].complaint}{_blame(arm)}",
            )
        ]
    complaints = [run.complaint for run in runs if run.complaint]
    return [warning("lmbench-complained", complaints[0])] if complaints else []


def check_rate(
    untraced: Iterable[Run], traced: Iterable[Run], offered_per_s: int | None
) -> list[Finding]:
    """Whether the rate that was asked for was made, with the tracer attached and without."""
    if offered_per_s is None:
        return []
    for runs, words in ((untraced, "with no tracer attached"), (traced, "while tracing")):
        achieved = [run.achieved_per_s for run in runs if run.achieved_per_s is not None]
        if achieved and fmean(achieved) < ACHIEVED_SHARE_WARNING * offered_per_s:
            return [
                warning(
                    "rate-missed",
                    f"{fmean(achieved):,.1f} of {offered_per_s:,} operations a second were made "
                    f"{words}: the workload ran as fast as it could, not at its pace",
                )
            ]
    return []


def check_network(
    before: TcpCounters, after: TcpCounters, server_inode: int | None
) -> list[Finding]:
    """Whether connects reached our own server, and none was dropped or waited for a port."""
    findings = []
    for moment in (before, after):
        if moment.listener_inodes - {server_inode}:
            findings.append(
                invalid("foreign-listener", "a listener that isn't ours holds the server's port")
            )
            break
        if not moment.listener_inodes:
            findings.append(invalid("no-listener", "nothing listens on the server's port"))
            break
    for name, code, words in (
        ("listen_overflows", "listen-overflow", "connections overflowed the server's backlog"),
        ("listen_drops", "listen-drop", "connections were dropped by the server's socket"),
        ("syn_retransmits", "syn-retransmit", "SYNs were sent again, each a second later"),
    ):
        grown = getattr(after, name) - getattr(before, name)
        if grown:
            findings.append(invalid(code, f"{grown:,} {words}"))
    if max(before.time_wait, after.time_wait) > TIME_WAIT_LIMIT:
        findings.append(
            invalid(
                "time-wait",
                f"{max(before.time_wait, after.time_wait):,} sockets in TIME_WAIT, more than "
                f"{TIME_WAIT_LIMIT:,}: ports are short and connect searches for one",
            )
        )
    elif after.time_wait - before.time_wait > TIME_WAIT_GROWTH_WARNING:
        findings.append(
            warning(
                "time-wait-grows",
                f"sockets in TIME_WAIT grew from {before.time_wait:,} to {after.time_wait:,}",
            )
        )
    return findings


def check_pinning(allowed_cores: Iterable[str], core: int) -> list[Finding]:
    """Whether the workload could run on the measured core only, before and after."""
    strays = [text for text in allowed_cores if text != str(core)]
    if strays:
        return [
            invalid("not-pinned", f"the workload may run on cores {strays[0]}, not on {core} alone")
        ]
    return []


def check_throttling(before: int | None, after: int | None) -> list[Finding]:
    """Whether the workload's CPU quota held it up."""
    if before is not None and after is not None and after > before:
        return [invalid("throttled", f"the workload was throttled {after - before:,} times")]
    return []


def check_drops(
    before: int | None, after: int | None, calls: int, agent: str, kind: str = "traced"
) -> list[Finding]:
    """Whether the agent saw what it is measured on: dropping is cheap and looks fast."""
    if before is None or after is None:
        return []
    dropped = after - before
    code = "agent-dropped" if kind == "traced" else f"agent-dropped-{kind}"
    if dropped < 0:
        return [undecided("agent-restarted", f"the drop counter of {agent} went back: restarted")]
    if dropped > DROPPED_SHARE_LIMIT * calls:
        return [
            undecided(
                code,
                f"{agent} dropped {dropped:,} events during {calls:,} {kind} calls "
                f"({_share(dropped, calls)}), more than {DROPPED_SHARE_LIMIT:.1%}: "
                "with drops it looks faster than it is",
            )
        ]
    if not dropped:
        return []
    told = f"{agent} dropped {dropped:,} events during {calls:,} {kind} calls"
    return [note(code, f"{told} ({_share(dropped, calls)})")]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "no call was traced"


def check_agent_cores(cost: AgentCost, core: int, agent: str) -> list[Finding]:
    """Whether the agent itself ran where the workload is measured."""
    if not cost.threads_on_core:
        return []
    count = len(cost.threads_on_core)
    names = ", ".join(sorted(set(cost.threads_on_core)))
    return [
        warning(
            "agent-on-core",
            f"{count} {'thread' if count == 1 else 'threads'} of {agent} ran on the measured core "
            f"{core} ({names}): that takes time from the workload",
        )
    ]


def check_load(before: CoreTimes | None, after: CoreTimes | None) -> list[Finding]:
    """Whether anything else ran on the measured core while calls were traced."""
    if before is None or after is None or after.elapsed_s <= before.elapsed_s:
        return []
    elapsed_s = after.elapsed_s - before.elapsed_s
    busy_s = after.busy_s - before.busy_s
    foreign = (busy_s - (after.workload_s - before.workload_s)) / elapsed_s
    stolen = (after.stolen_s - before.stolen_s) / elapsed_s
    findings = []
    if foreign > FOREIGN_SHARE_WARNING:
        findings.append(
            warning("other-load", f"others used {foreign:.0%} of the measured core while tracing")
        )
    if stolen > FOREIGN_SHARE_WARNING:
        findings.append(
            warning("steal", f"the hypervisor took {stolen:.0%} of the measured core while tracing")
        )
    return findings


def check_audit_waits(before: int | None, after: int | None) -> list[Finding]:
    """Whether callers slept until the audit daemon had caught up: that looks like latency."""
    if before is None or after is None or after <= before:
        return []
    return [
        warning(
            "audit-backlog",
            f"calls waited for the audit daemon (backlog_wait_time_actual rose by "
            f"{after - before:,}): mean and p99 show its backlog, not the cost of a call",
        )
    ]
