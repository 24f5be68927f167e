"""Which processes of the node belong to somebody, by what is known of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pytest_syslat.agents.protocol import Processes
from pytest_syslat.testbeds.protocol import NodeLost, Role, Testbed, TestbedError


def members(testbed: Testbed, processes: Processes, pids: Collection[int]) -> set[int]:
    """Those of some process ids that belong to `processes`: by cgroup, or as descendants.

    Raises:
        NodeLost: The node cannot be reached. A process that has ended belongs to nobody.
    """
    found = set()
    for pid in pids:
        lineage = [pid]
        while lineage[-1] > 1 and lineage[-1] not in processes.roots:
            lineage.append(_parent(testbed, lineage[-1]))
        if lineage[-1] in processes.roots or any(
            mark in _text(testbed, f"/proc/{pid}/cgroup") for mark in processes.cgroup_marks
        ):
            found.add(pid)
    return found


def _parent(testbed: Testbed, pid: int) -> int:
    for line in _text(testbed, f"/proc/{pid}/status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _text(testbed: Testbed, path: str) -> str:
    try:
        return testbed.read(Path(path), role=Role.NODE).decode(errors="replace")
    except NodeLost:
        raise
    except TestbedError:
        return ""
