"""A real load in the kernel: a bpftrace program on entry and exit of the three system calls.

An agent that costs nothing would let a test pass that measures nothing. So each exit does some
microseconds of work, before the stamp of a tracer that was attached later.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

SYSCALLS = ("execve", "openat", "connect")
# The workload of pytest-syslat has this group and no other process of a node has.
WORKLOAD_GROUP = 31237
TRACING = Path("/sys/kernel/tracing")
END_LIMIT_S = 0.5
# It must not stay in the kernel when the agent is killed.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")

# Each pass writes one element of a map. `work` has one for each pass, so none is optimized away.
WORK = "$i = 0; while ($i < %d) { @work[$i] = $i; $i++; }"


def _program(passes: int, of_workload_only: bool) -> str:
    """The text of the bpftrace program."""
    condition = f"/gid == {WORKLOAD_GROUP}/ " if of_workload_only else ""
    work = WORK % passes
    lines = []
    for syscall in SYSCALLS:
        lines += [
            f"tracepoint:syscalls:sys_enter_{syscall} {condition}{{ @entries = count(); }}",
            f"tracepoint:syscalls:sys_exit_{syscall} {condition}{{ {work} @events = count();",
            f"    if (gid == {WORKLOAD_GROUP}) {{ @{syscall} = count(); }} }}",
        ]
    prints = " ".join(f"print(@{name});" for name in ("events", *SYSCALLS))
    return "\n".join([*lines, f"interval:ms:200 {{ {prints} }}", "END { clear(@work); }"])


class Load:
    """The running program, and what it has counted so far."""

    def __init__(self, passes: int, *, of_workload_only: bool = False) -> None:
        """Start it; `attached` tells when the kernel runs it."""
        if not (TRACING / "events").exists():
            subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACING)], check=True)
        self._counts: dict[str, int] = {}
        self._attached = threading.Event()
        self._process = subprocess.Popen(
            [*WITH_PARENT, "bpftrace", "-f", "json", "-e", _program(passes, of_workload_only)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if message.get("type") == "map":
                    for name, count in message["data"].items():
                        if isinstance(count, int):
                            self._counts[name.removeprefix("@")] = count
                    self._attached.set()

    @property
    def attached(self) -> bool:
        """Whether all its probes are there: what it prints comes from the last one attached."""
        return self._attached.is_set() and self.running

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def wait_attached(self, limit_s: float = 30.0) -> None:
        """Wait for it; a program that the kernel refuses ends the agent, as a real one's would."""
        if not self._attached.wait(limit_s):
            sys.exit("the BPF program does not get attached")

    def count(self, name: str) -> int:
        """How many `events` there were, or calls of the workload by the name of the call."""
        return self._counts.get(name, 0)

    def calls(self) -> int:
        """How many of the three calls the workload has made."""
        return sum(self.count(syscall) for syscall in SYSCALLS)

    def end(self) -> None:
        """Take it out of the kernel."""
        self._process.terminate()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
