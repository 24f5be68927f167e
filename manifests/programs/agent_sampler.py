"""Watches an agent's processes on the node: runs by itself, with nothing but a Python interpreter.

Started as root, `python3 -I -S agent_sampler.py QUESTION`, where QUESTION is JSON:

    {"cgroup_marks": ["pod3f2a"], "roots": [4711], "core": 2}

It prints `ready` once it has looked for the first time. At SIGTERM it looks for the last time and
prints what the agent has used in between, as JSON, see `Sampler.told`.

It must not disturb what is measured. Seen with an agent of 20 threads that all run, on a node of 83
processes: a look takes 0.6 ms of another core, and every tenth one, which searches all of /proc,
3 ms more. That is 0.2 % of the core. Hence it reads as few files as it can, and memory as RSS,
which stands in a line that is read anyway. For PSS the kernel would walk the agent's page tables
under their lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PERIOD_S = 0.5
LOOKS_A_SEARCH = 10
ROUNDING_TICKS = 2
"""User and system time of ended children are each rounded down."""
NODE_CGROUPS = "/node/cgroup"
"""Where the node's own cgroups are mounted in a pod."""
LONGEST = 16384


@dataclass(frozen=True, slots=True)
class Stat:
    """What is needed of `/proc/PID/stat`; times are in clock ticks."""

    name: str
    parent: int
    session: int
    ticks: int
    """Time of all its threads, ended ones too."""
    children_ticks: int
    """Time of the children that it has waited for, and of theirs."""
    threads: int
    start: int
    """Ticks since boot."""
    pages: int
    core: int
    """On which it ran last."""

    @property
    def total(self) -> int:
        """Its own time, and that of its ended children."""
        return self.ticks + self.children_ticks


def parse_stat(text: str) -> Stat:
    """Parse a line of `/proc/PID/stat`; the name in it may hold blanks and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        name=text[text.index("(") + 1 : text.rindex(")")],
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=int(fields[11]) + int(fields[12]),
        children_ticks=int(fields[13]) + int(fields[14]),
        threads=int(fields[17]),
        start=int(fields[19]),
        pages=int(fields[21]),
        core=int(fields[36]),
    )


def family(stats: Mapping[int, Stat], roots: Iterable[int], known: Iterable[int]) -> set[int]:
    """The processes that belong to roots.

    Args:
        stats: All processes of the node.
        roots: Process ids. A session that a root leads or led belongs to it, whoever is the parent.
        known: Processes that belonged to them before: they stay, also when their parent has gone.
    """
    own = set(roots)
    found = {pid for pid in {*own, *known} if pid in stats}
    found |= {pid for pid, stat in stats.items() if stat.session in own}
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    waiting = list(found)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


class ProcessTime:
    """CPU time of a changing set of processes, from what `/proc/PID/stat` tells of them.

    Exact to 20 ms a process. A process that ends is in the time of whoever of the agent waits for
    it; where nobody does, what it used after the last look is not known, nor is one that lived
    between two looks.
    """

    def __init__(self, began: int) -> None:
        """Args: `began` is the moment, in ticks since boot, before which all time is left out."""
        self._began = began
        self._before: dict[int, Stat] = {}
        self._left_out = 0
        self._lost = 0

    @property
    def ticks(self) -> int:
        """Used so far."""
        alive = sum(stat.total for stat in self._before.values())
        return alive + self._lost - self._left_out

    def look(self, now: Mapping[int, Stat]) -> None:
        """Account what all of them have used by now."""
        before = self._before
        gone = {
            pid: stat
            for pid, stat in before.items()
            if pid not in now or now[pid].start != stat.start
        }
        expected: Counter[int] = Counter()
        for stat in gone.values():
            heir = stat.parent
            while heir in gone:
                heir = gone[heir].parent
            expected[heir] += stat.total
        for heir, ticks in expected.items():
            inherited = 0
            if heir in now:
                inherited = now[heir].children_ticks
                inherited -= before[heir].children_ticks if heir in before else 0
            if inherited + ROUNDING_TICKS < ticks:
                self._lost += ticks
        for pid, stat in now.items():
            if (pid not in before or pid in gone) and stat.start < self._began:
                self._left_out += stat.total
        self._before = dict(now)


def cgroup_mounts(mountinfo: Iterable[str]) -> tuple[str | None, str | None]:
    """Where cgroup v2 and the v1 controller cpuacct are mounted, the node's own before a pod's."""
    mount2: str | None = None
    mount1: str | None = None
    for line in sorted(mountinfo, key=lambda each: NODE_CGROUPS not in each):
        fields, _, source = line.strip().partition(" - ")
        kind, _, options = source.split(maxsplit=2)
        if kind == "cgroup2" and mount2 is None:
            mount2 = fields.split()[4]
        elif kind == "cgroup" and "cpuacct" in options.split(",") and mount1 is None:
            mount1 = fields.split()[4]
    return mount2, mount1


def usage_files(
    cgroup: Iterable[str], marks: Iterable[str], mounts: tuple[str | None, str | None]
) -> list[str]:
    """Files that tell the CPU time of the cgroup that a mark names; the best one first.

    That cgroup is the one whose name ends the mark. All processes in it and below have the mark in
    their path, so all of them are the agent's.

    Args:
        cgroup: Lines of `/proc/PID/cgroup`.
        marks: Texts that tell the agent's cgroups.
        mounts: As `cgroup_mounts` returns them.
    """
    found: list[str] = []
    for line in cgroup:
        _, controllers, path = line.split(":", 2)
        at = [path.index(mark) + len(mark) for mark in marks if mark in path]
        if not at:
            continue
        end = path.find("/", min(at))
        path = path if end < 0 else path[:end]
        if not controllers and mounts[0]:
            found.insert(0, f"{mounts[0]}{path}/cpu.stat")
        elif "cpuacct" in controllers.split(",") and mounts[1]:
            found.append(f"{mounts[1]}{path}/cpuacct.usage")
    return found


def used_ns(text: str) -> int:
    """The CPU time in a `cpu.stat` (v2, microseconds) or a `cpuacct.usage` (v1, nanoseconds)."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "usage_usec":
            return int(number) * 1000
    return int(text)


def read(path: str) -> str | None:
    """A small file of the kernel's; None where it isn't there any more."""
    # Without Python's buffered layers, which cost more than the kernel's own work.
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, LONGEST).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def processes() -> list[int]:
    """All process ids of the node."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (speed)


def stat_of(path: str) -> Stat | None:
    """The stat line of a process or thread; None if it has gone."""
    text = read(f"{path}/stat")
    return parse_stat(text) if text else None


class Sampler:
    """Follows the agent's processes from look to look."""

    def __init__(self, marks: list[str], roots: list[int], core: int) -> None:
        self._marks = marks
        self._roots = roots
        self._core = core
        with open("/proc/self/mountinfo") as lines:  # noqa: PTH123 (pathlib takes 10 ms to load)
            self._mounts = cgroup_mounts(lines)
        own = stat_of("/proc/self")
        assert own is not None
        self._time = ProcessTime(own.start)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._members: dict[int, bool] = {}
        """Process ids, and whether a cgroup's file tells their time."""
        self._first_ns: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self._ran: dict[int, str] = {}
        """What each thread had run, by its id, as of the last look."""
        self._looked_at: set[int] = set()
        self._on_core: dict[int, str] = {}
        self._found = 0
        self._peak_memory = 0
        self._peak_threads = 0
        self._began_s = self._ended_s = time.monotonic()

    def search(self) -> None:
        """Find the agent's processes anew."""
        members = {}
        pids = processes()
        for pid in pids if self._marks else ():
            lines = (read(f"/proc/{pid}/cgroup") or "").splitlines()
            if any(mark in line for line in lines for mark in self._marks):
                members[pid] = self._watch(usage_files(lines, self._marks, self._mounts))
        if self._roots:
            stats = {pid: stat for pid in pids if (stat := stat_of(f"/proc/{pid}"))}
            before = [pid for pid, in_cgroup in self._members.items() if not in_cgroup]
            for pid in family(stats, self._roots, before):
                members.setdefault(pid, False)
        self._members = members

    def _watch(self, files: list[str]) -> bool:
        """Follow the first of these files that can be read; whether there is one."""
        for file in files:
            if file in self._first_ns:
                return True
            text = read(file)
            if text is not None:
                self._first_ns[file] = self._last_ns[file] = used_ns(text)
                return True
        return False

    def look(self) -> None:
        """Note what the processes that are known have used."""
        for file in self._last_ns:
            text = read(file)
            if text is not None:
                self._last_ns[file] = used_ns(text)
        seen = {pid: stat for pid in self._members if (stat := stat_of(f"/proc/{pid}"))}
        self._time.look({pid: stat for pid, stat in seen.items() if not self._members[pid]})
        self._ended_s = time.monotonic()
        self._found = max(self._found, len(seen))
        memory = sum(stat.pages for stat in seen.values()) * self._page
        self._peak_memory = max(self._peak_memory, memory)
        self._peak_threads = max(self._peak_threads, sum(stat.threads for stat in seen.values()))
        for pid in seen:
            self._look_at_threads(pid)
        self._looked_at = set(seen)

    def _look_at_threads(self, pid: int) -> None:
        """See which threads have run since the last look, and whether on the measured core."""
        tasks = f"/proc/{pid}/task"
        tids: list[str] = []
        with contextlib.suppress(OSError):
            tids = os.listdir(tasks)  # noqa: PTH208 (speed)
        for tid in tids:
            # Nanoseconds; the ticks of a stat line stand still for a thread that runs shortly.
            told = read(f"{tasks}/{tid}/schedstat")
            ran = told.split()[0] if told else ""
            number = int(tid)
            before = self._ran.get(number, "0" if pid in self._looked_at else ran)
            self._ran[number] = ran
            if ran != before and number not in self._on_core:
                stat = stat_of(f"{tasks}/{tid}")
                if stat and stat.core == self._core:
                    self._on_core[number] = stat.name

    def told(self) -> dict[str, object]:
        """What was found, with units in the names; `processes` is 0 where there was none."""
        in_cgroups_ns = sum(last - self._first_ns[file] for file, last in self._last_ns.items())
        return {
            "processes": self._found,
            "cpu_s": in_cgroups_ns / 1e9 + self._time.ticks / os.sysconf("SC_CLK_TCK"),
            "duration_s": self._ended_s - self._began_s,
            "peak_memory_bytes": self._peak_memory,
            "threads": self._peak_threads,
            "threads_on_core": sorted(self._on_core.values()),
        }


def main() -> None:
    """Look until SIGTERM comes."""
    question = json.loads(sys.argv[1])
    # Waited for, never delivered: it cannot cut a look short.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    sampler = Sampler(question["cgroup_marks"], question["roots"], question["core"])
    sampler.search()
    sampler.look()
    print("ready", flush=True)
    looks = 0
    while signal.sigtimedwait([signal.SIGTERM], PERIOD_S) is None:
        looks += 1
        if looks % LOOKS_A_SEARCH == 0:
            sampler.search()
        sampler.look()
    sampler.search()
    sampler.look()
    print(json.dumps(sampler.told()), flush=True)


if __name__ == "__main__":
    main()
