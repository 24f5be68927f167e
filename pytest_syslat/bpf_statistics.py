"""How often the node's BPF programs run, and for how long: kept by the kernel while it is asked to.

Keeping them costs each run of each program two looks at the clock, 20 to 30 ns, whoever's program
it is. So whoever wants them keeps them only as long as needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from pytest_syslat.agents.protocol import KernelTime
from pytest_syslat.testbeds.protocol import Process, Role, Testbed, TestbedError, last_line

SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280}
"""Of bpf(2), by machine."""
COMMAND_LIMIT_S = 30.0
START_LIMIT_S = 20.0
POLL_S = 0.02
SWITCH = "/proc/sys/kernel/bpf_stats_enabled"
HELD = "held"
REFUSED = "refused"
HOLDER_PROGRAM = f"""
import ctypes, os, signal, sys
# BPF_ENABLE_STATS (32) with BPF_STATS_RUN_TIME (0): the statistics end with the descriptor.
attributes = ctypes.create_string_buffer(4)
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(ctypes.c_long(int(sys.argv[1])), 32, attributes, 4) < 0:
    print("{REFUSED}:", os.strerror(ctypes.get_errno()), flush=True)
    sys.exit(1)
print("{HELD}", flush=True)
while True:
    signal.pause()
"""


class BpfStatistics:
    """Makes the kernel keep the statistics while it is held: a context manager.

    They belong to a small process on the node and end with it, however this one ends. Only where
    the kernel refuses that (it is older than 5.8) is `kernel.bpf_stats_enabled` set, and put back.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._process: Process | None = None
        self._stdout = testbed.workdir / "bpf-statistics.stdout"
        self._stderr = testbed.workdir / "bpf-statistics.stderr"
        self._switch_before: str | None = None

    def hold(self) -> None:
        """Begin to keep them; raises TestbedError."""
        if self._process is not None or self._switch_before is not None:
            return
        number = SYSCALL_NUMBERS.get(self._testbed.machine)
        if number is None:
            self._set_switch()
            return
        self._process = self._testbed.start(
            [self._testbed.python, "-I", "-S", "-c", HOLDER_PROGRAM, str(number)],
            role=Role.NODE,
            stdout=self._stdout,
            stderr=self._stderr,
        )
        try:
            if not self._await_answer(self._process):
                self._end_process()
                self._set_switch()
        except BaseException:
            self.release()
            raise

    def _await_answer(self, process: Process) -> bool:
        """Whether the process holds them; False where the kernel refuses."""
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            said = self._testbed.read(self._stdout, role=Role.NODE).decode()
            if said.endswith("\n"):
                return said.strip() == HELD
            if ended:
                break
            time.sleep(POLL_S)
        told = self._testbed.read(self._stderr, role=Role.NODE).decode(errors="replace")
        reason = last_line(told) or "no reason given"
        raise TestbedError(f"the kernel's BPF statistics could not be switched on: {reason}")

    def _set_switch(self) -> None:
        before = self._shell(f"cat {SWITCH}").strip()
        self._shell(f"echo 1 >{SWITCH}")
        self._switch_before = before

    def _shell(self, command: str) -> str:
        done = self._testbed.run(["sh", "-c", command], role=Role.NODE, timeout_s=COMMAND_LIMIT_S)
        if not done.ok:
            raise TestbedError(f"no BPF statistics are kept by this kernel: {done.complaint}")
        return done.stdout

    def problem(self) -> str | None:
        """Why they aren't kept any more since `hold`, if so."""
        if self._process is not None and self._process.poll() is not None:
            return "the process that holds the kernel's BPF statistics has ended"
        return None

    def release(self) -> None:
        """Leave it as it was before."""
        self._end_process()
        if self._switch_before is not None:
            before, self._switch_before = self._switch_before, None
            self._shell(f"echo {before} >{SWITCH}")

    def _end_process(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.end()
            for path in (self._stdout, self._stderr):
                self._testbed.remove(path, role=Role.NODE)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def run_time(testbed: Testbed, programs: Iterable[int]) -> KernelTime | None:
    """Runs and nanoseconds of programs together, since they were loaded.

    Args:
        testbed: On whose node they are.
        programs: Their ids.

    Returns:
        None if one of them isn't loaded (any more), or if bpftool cannot tell. Without a run, or
        where the kernel keeps no statistics, both are 0.

    Raises:
        TestbedError: bpftool could not be run.
    """
    shown = testbed.run(
        ["bpftool", "-j", "prog", "show"], role=Role.TRACER, timeout_s=COMMAND_LIMIT_S
    )
    try:
        loaded = {entry["id"]: entry for entry in json.loads(shown.stdout or "[]")}
        # bpftool leaves the fields out while they are 0.
        asked = [loaded[number] for number in programs]
    except (ValueError, TypeError, KeyError):
        return None
    return KernelTime(
        runs=sum(entry.get("run_cnt", 0) for entry in asked),
        run_time_ns=sum(entry.get("run_time_ns", 0) for entry in asked),
    )
