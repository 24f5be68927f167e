"""The BPF programs that are loaded on a node: what they are attached to, and who holds them."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_syslat.testbeds.protocol import Testbed


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """One loaded program."""

    id: int
    """Never given twice between two boots."""
    kind: str
    """As bpftool names it: `tracepoint`, `kprobe`, `tracing`, `lsm`, `cgroup_skb` and so on."""
    name: str
    attached_to: tuple[str, ...]
    """Such as `tracepoint sys_enter_openat` or `fentry security_file_open`; may be empty."""
    holders: tuple[tuple[int, str], ...]
    """Process ids on the node, with their names; empty for a pinned program."""
    runs: int | None
    """None where the kernel keeps no statistics."""
    run_time_ns: int | None


def list_programs(testbed: Testbed) -> list[BpfProgram] | None:
    """All programs of the node by id; None where bpftool cannot tell."""
    raise NotImplementedError
