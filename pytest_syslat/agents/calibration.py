"""An agent of known cost: a bpftrace program that computes for a chosen time in each call.

What the tracer measures of it must be what the kernel itself accounts to its programs. The work is
that of no real agent: it touches no memory, drops nothing and tells nobody. Its programs take every
call of the node, so that the kernel's average is the cost of a measured call, too.

Beside the work each run costs its dispatch and, since the kernel keeps statistics while this agent
is on, 20 to 30 ns for them, twice where the tracer's own entry program runs inside the interval.
That is constant and outside of what the kernel accounts: a line through figures at several amounts
of work has it as its intercept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_syslat.agents.protocol import AgentError, KernelTime, Processes
from pytest_syslat.agents.waiting import wait_while
from pytest_syslat.bpf_programs import BpfProgram, list_programs
from pytest_syslat.bpf_statistics import BpfStatistics, run_time
from pytest_syslat.marks import mark_command
from pytest_syslat.syscalls import SYSCALLS, Syscall
from pytest_syslat.testbeds.protocol import Process, Role, Testbed, TestbedError, last_line

NAME = "calibration"
PLACES = {"entry": ("enter",), "exit": ("exit",), "both": ("enter", "exit")}
"""Which of a syscall's two tracepoints the work is done at."""
DEFAULT_PLACE = "exit"
DEFAULT_WORK = 1000
MOST_WORK = 20000
"""The verifier walks through each repetition; this many leave room below its million steps."""
COMMAND_LIMIT_S = 30.0
UNLOAD_LIMIT_S = 15.0
POLL_S = 0.05
# Each step needs the one before it, and the result is used, or so the compiler must believe: it
# can neither shorten the loop nor leave it out. There is no BEGIN block: the build of Ubuntu 22.04
# cannot run it.
PROBE = """
tracepoint:syscalls:sys_{tracepoint}
{{
  $x = nsecs;
  $i = 0;
  while ($i < {work}) {{
    $x = $x * 6364136223846793005 + 1442695040888963407;
    $i++;
  }}
  if ($x == 0) {{
    @result = $x;
  }}
}}
"""


def parse_calibration(text: str) -> tuple[str, int]:
    """Place and work of an arm's name: `calibration`, or such as `calibration:exit-800`.

    The work counts repetitions of one multiplication and addition, about 1.5 ns each at 3 GHz.

    Raises:
        ValueError: It is no such name; the text is one line for the user.
    """
    if text == NAME:
        return DEFAULT_PLACE, DEFAULT_WORK
    found = re.fullmatch(rf"{NAME}:({'|'.join(PLACES)})-([0-9]{{1,6}})", text)
    if found is None or not 1 <= int(found[2]) <= MOST_WORK:
        raise ValueError(
            f"'{text}' is no calibration: write '{NAME}:PLACE-WORK' with {', '.join(PLACES)} for "
            f"PLACE and 1 to {MOST_WORK} for WORK, such as '{NAME}:exit-800'"
        )
    return found[1], int(found[2])


class Calibration:
    """Work of a chosen amount at the entry or the exit of the measured syscalls, or at both."""

    def __init__(
        self,
        testbed: Testbed,
        _rootdir: Path,
        place: str = DEFAULT_PLACE,
        work: int = DEFAULT_WORK,
        syscalls: Sequence[Syscall] = tuple(SYSCALLS.values()),
    ) -> None:
        """Made like any agent, and with place and amount of the work, and at which syscalls."""
        self._testbed = testbed
        self._place = place
        self._work = work
        self._syscalls = tuple(syscalls)
        self._stdout = testbed.workdir / f"{NAME}.stdout"
        self._stderr = testbed.workdir / f"{NAME}.stderr"
        self._statistics = BpfStatistics(testbed)
        self._process: Process | None = None
        self._programs: tuple[BpfProgram, ...] = ()
        """Those of the last activation, once they were seen attached."""

    def _tracepoints(self) -> list[str]:
        # Several entries may be of one syscall.
        names = dict.fromkeys(each.tracepoint for each in self._syscalls)
        return [f"{side}_{name}" for name in names for side in PLACES[self._place]]

    def prepare(self) -> None:
        """Nothing is installed; bpftrace must be there."""
        self.version()

    def activate(self) -> None:
        """Start bpftrace, and let the kernel keep statistics."""
        self._statistics.hold()
        source = "".join(
            PROBE.format(tracepoint=tracepoint, work=self._work)
            for tracepoint in self._tracepoints()
        )
        self._process = self._testbed.start(
            ["bpftrace", "-e", source],
            role=Role.TRACER,
            stdout=self._stdout,
            stderr=self._stderr,
        )

    def ready(self) -> str | None:
        """Whether all its programs are attached, and have run."""
        if self._process is None:
            return "calibration is switched off"
        if self._process.poll() is not None:
            told = self._testbed.read(self._stderr, role=Role.TRACER).decode(errors="replace")
            return f"calibration's bpftrace has ended: {last_line(told) or 'no reason given'}"
        problem = self._statistics.problem()
        if problem:
            return problem
        loaded = list_programs(self._testbed)
        if loaded is None:
            return "bpftool cannot tell whether calibration is attached"
        pid = self._process.pid
        ours = tuple(each for each in loaded if pid in (holder for holder, _ in each.holders))
        attached = {place for each in ours for place in each.attached_to}
        wanted = {f"tracepoint sys_{tracepoint}" for tracepoint in self._tracepoints()}
        if not wanted <= attached:
            return f"{len(wanted & attached)} of {len(wanted)} calibration programs are attached"
        self._programs = ours
        if any(each.runs for each in ours):
            return None
        # bpftool opens files, but need not make any of the calls; a mark's call is one of them.
        self._testbed.run(
            mark_command(self._testbed, self._syscalls[0]),
            role=Role.WORKLOAD,
            timeout_s=COMMAND_LIMIT_S,
        )
        return "calibration has not run yet"

    def idle(self) -> str | None:
        """Whether bpftrace has ended and its programs are unloaded."""
        if self._process is not None:
            return "calibration runs"
        try:
            return self._still_loaded()
        except TestbedError as error:
            return str(error)

    def _still_loaded(self) -> str | None:
        """Whether a program of the last activation is; raises TestbedError."""
        if not self._programs:
            return None
        loaded = list_programs(self._testbed)
        if loaded is None:
            raise TestbedError("bpftool cannot tell whether calibration's programs are unloaded")
        left = {each.id for each in loaded} & {each.id for each in self._programs}
        return "calibration's programs are still loaded" if left else None

    def drops(self) -> int | None:
        """It makes no events."""
        return None

    def processes(self) -> Processes:
        """bpftrace, which does nothing but keep its programs loaded."""
        return Processes(roots=() if self._process is None else (self._process.pid,))

    def kernel_time(self) -> KernelTime | None:
        """Runs and time of all its programs: the work is the same in each of them."""
        if self._process is None or not self._programs:
            return None
        return run_time(self._testbed, [each.id for each in self._programs])

    def facts(self) -> dict[str, Any]:
        """Place, work, and the programs with what they are attached to."""
        return {
            "place": self._place,
            "work": self._work,
            "programs": [
                {"id": each.id, "name": each.name, "attached_to": list(each.attached_to)}
                for each in self._programs
            ],
        }

    def deactivate(self) -> None:
        """End bpftrace, wait until its programs are unloaded, and keep no statistics any more."""
        try:
            if self._process is not None:
                process, self._process = self._process, None
                process.end()
        finally:
            self._statistics.release()
        if wait_while(self._still_loaded, UNLOAD_LIMIT_S, POLL_S) is not None:
            raise AgentError(
                f"calibration's programs were still loaded {UNLOAD_LIMIT_S:g} s after its end"
            )

    def remove(self) -> None:
        """Switch it off; nothing else was changed."""
        self.deactivate()

    def version(self) -> str:
        """bpftrace's version, with place and work."""
        try:
            told = self._testbed.run(
                ["bpftrace", "--version"], role=Role.TRACER, timeout_s=COMMAND_LIMIT_S
            )
        except TestbedError as error:
            raise AgentError(f"calibration: {error}") from error
        if not told.ok:
            raise AgentError(f"calibration: bpftrace does not run: {told.complaint}")
        return f"{told.stdout.strip()}, {self._work} steps at {self._place}"
