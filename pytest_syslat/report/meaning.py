"""What findings mean, in the words of docs/method.md; a test holds the two together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANING_BY_CODE: Final[Mapping[str, str]] = {
    "no-samples": "no measured call was counted",
    "failed-calls": "more than 0.1 % of the calls failed",
    "some-failed-calls": "some calls failed, 0.1 % or less",
    "lost-events": "bpftrace says that it lost events",
    "miscounted": "latencies that arrived are not `@total`, or a map was full",
    "foreign-samples": "calls came after the last run had ended",
    "few-calls": "below 1,000 calls; or 1,000 or more, but below `--syslat-min-calls`",
    "lmbench-failed": "a run printed no figure, failed, or took over 60 s",
    "rate-missed": "less than 95 % of `--syslat-rate` was made, traced or untraced",
    "lmbench-complained": "a run printed something beside its figure",
    "listen-overflow": "the server's backlog overflowed",
    "listen-drop": "the server's backlog overflowed",
    "syn-retransmit": "a SYN was sent again, a second later",
    "foreign-listener": "another socket listens on port 31237",
    "no-listener": "nothing listens there",
    "time-wait": "more than 2,000 sockets in TIME_WAIT",
    "time-wait-grows": "they grew by more than 500",
    "not-pinned": "a process in the workload's place may use other cores",
    "throttled": "a CPU quota held the workload up",
    "audit-not-kept-off": "our `never,task` rule is gone, and no arm has taken it away",
    "interrupted": "the run was ended in this trial",
    "agent-not-ready": "not ready in 60 s, or no longer ready at the end",
    "agent-failed": "the agent said so during the trial (`AgentError`)",
    "other-arm-active": "an agent that should be off is not",
    "agent-dropped": "drops above 0.1 % of the traced calls; or it dropped fewer",
    "agent-restarted": "its drop counter went back",
    "agent-on-core": "threads of the agent ran on the measured core",
    "agent-cost-unknown": "its processes were not found, or not watched to the end",
    "audit-backlog": "calls waited for the audit daemon",
    "tracer-failed": "bpftrace did not attach, answer or end in order",
    "tracer-died": "bpftrace did not attach, answer or end in order",
    "testbed-failed": "a program could not be run, or a file read",
    "unexpected": "any other error, in our code or an agent's",
    "other-load": "others used more than 5 % of the core while tracing",
    "steal": "the hypervisor took more than 5 % of it",
    "other-tracers": "others trace syscalls on this node, or came or went",
    "placement-unknown": "bpftool is missing or tells nothing",
    "placement-contradicted": "the kernel runs the programs in another order; or "
    "the session's load was seen where it must not be, or not seen",
    "first-refused": "under `both`: the pass with the tracer first is refused, twice",
    "no-helper": "the program that `lat_proc exec` wants is missing",
    "core-shared": "tracer and server run on the core or its SMT sibling",
    "page-cache-kept": "the page cache could not be dropped",
    "policy-silent": "the policy of the arm does not name the syscall",
    "agent-unproven": "no BPF program, no counter and no sign of readiness shows that it works",
    "log-unread": "`syslat analyze`: the raw log of the trial is missing or damaged",
}
"""When a finding of each code is raised."""

SEVERITY_MEANING: Final[Mapping[str, str]] = {
    "invalid": "the trial is refused, its figures stay out of all statistics",
    "undecided": "the figures are kept, but no verdict that rests on them can be: passed",
    "warning": "to be known when reading the figures",
    "note": "kept for the record",
}
"""What a finding of each weight does."""
