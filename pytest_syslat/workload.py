"""lmbench: find it, calibrate it once, run it pinned, read its own figure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.syscalls import FILE, SERVER, SYSCALLS, Syscall
from pytest_syslat.tcp_server import server_address
from pytest_syslat.testbeds.protocol import PLACED, NodeLost, Role, Testbed, TestbedError, TimeLimit
from pytest_syslat.tools import LMBENCH_PROGRAMS

CALIBRATION_PROGRAMS = ("timing_o", "loop_o")
SHORTEST_INTERVAL_US = 5000
"""The shortest timing interval that lmbench's own calibration ever chooses.

Left to itself lmbench asks its `enough` program, which on a virtual machine easily answers
1,000,000: the same figure, two hundred times slower.
"""
WITHOUT_LIBRARIES = ("lat_proc", "lat_syscall")
"""Programs of lmbench that need libc alone."""
RUN_LIMIT_S = 60.0
CALIBRATION_LIMIT_S = 30.0
FIGURE = re.compile(r": ([0-9]+(?:\.[0-9]+)?) microseconds")
VERSION_QUESTION = """
for changelog in "$1"/changelog.Debian*; do zcat -f "$changelog" | head -n 1; done 2>/dev/null
"""
HELPER_PATH = re.compile(rb"(?<![\w./-])(/[\w./-]*/hello)\0")


class WorkloadError(Exception):
    """lmbench cannot be used; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """lmbench's timing constants, passed to every run so that none computes its own."""

    enough_us: int
    timing_overhead: str
    loop_overhead: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which lmbench's own driver passes them on."""
        return {
            "ENOUGH": str(self.enough_us),
            "TIMING_O": self.timing_overhead,
            "LOOP_O": self.loop_overhead,
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an lmbench program, or of ours in its place."""

    us_per_op: float | None
    """lmbench's own figure; None if it printed none."""
    complaint: str | None
    """What went wrong, if anything."""
    output: str = ""
    """All that it printed."""
    achieved_per_s: float | None = None
    """Operations a second, where a rate was asked for."""


class Workload:
    """lmbench on a testbed, with the files that it needs in place.

    What it puts in place outside the testbed's own directory (the helper program of
    `lat_proc exec`, whose path is built in) is removed by `close`.
    """

    def __init__(
        self,
        testbed: Testbed,
        directory: Path,
        syscalls: Sequence[Syscall] = tuple(SYSCALLS.values()),
    ) -> None:
        """Put all in place and calibrate lmbench.

        Args:
            testbed: Where it runs.
            directory: Where lmbench's programs stand, as the workload sees it.
            syscalls: What is measured: the programs of these must be there.

        Raises:
            WorkloadError: lmbench cannot be used.
            TestbedError: The testbed failed.
        """
        self._testbed = testbed
        self.directory = directory
        self._syscalls = tuple(syscalls)
        check_programs(testbed, directory, self._syscalls)
        self.measured_file = testbed.workdir / "measured-file"
        self._made: list[Path] = []
        self.helper = built_in_helper(self._read(directory / "lat_proc"))
        self.place_files()
        try:
            self.calibration = self._calibrate()
        except BaseException:
            self.close()
            raise

    def place_files(self) -> None:
        """Put the measured file and the helper in place; raises WorkloadError, TestbedError."""
        self._testbed.write(self.measured_file, b"opened by lat_syscall\n", role=Role.WORKLOAD)
        self.helper_problem = self._place_helper()

    def _read(self, path: Path) -> bytes:
        return self._testbed.read(path, role=Role.WORKLOAD)

    def _place_helper(self) -> str | None:
        """Put the program that `lat_proc exec` executes where this build looks for it."""
        if self.helper is None:
            return "lat_proc names no helper program"
        shipped = self.directory / "hello"
        there = self._testbed.state(shipped, role=Role.WORKLOAD) is not None
        content = self._read(shipped) if there else None
        if self._testbed.state(self.helper, role=Role.WORKLOAD) is not None:
            return check_helper(self._testbed, self.helper, content)
        if content is None:
            return f"{self.helper} is missing and no copy stands beside lat_proc"
        self._made = [
            place
            for place in [*reversed(self.helper.parents), self.helper]
            if self._testbed.state(place, role=Role.WORKLOAD) is None
        ]
        # Written before anything is made: a run that is killed cannot remove it any more.
        listed = "".join(f"{place}\n" for place in self._made)
        self._testbed.write(self._testbed.workdir / PLACED, listed.encode(), role=Role.WORKLOAD)
        self._testbed.write(self.helper, content, role=Role.WORKLOAD, executable=True)
        return None

    def _calibrate(self) -> Calibration:
        environment = {"ENOUGH": str(SHORTEST_INTERVAL_US)}
        answers = []
        for name in CALIBRATION_PROGRAMS:
            program = self.directory / name
            state = self._testbed.state(program, role=Role.WORKLOAD)
            if state is None or not state.executable:
                answers.append("0")
                continue
            done = self._testbed.run(
                [str(program)],
                role=Role.WORKLOAD,
                timeout_s=CALIBRATION_LIMIT_S,
                env={**environment, "TIMING_O": answers[0]} if answers else environment,
            )
            answer = done.stdout.strip() or done.stderr.strip()
            try:
                float(answer)
            except ValueError:
                raise WorkloadError(f"{name} printed no number but {answer!r}") from None
            answers.append(answer)
        return Calibration(SHORTEST_INTERVAL_US, *answers)

    def command(self, syscall: Syscall) -> list[str]:
        """The lmbench command that makes the calls of `syscall`."""
        program, *arguments = syscall.command
        if syscall.needs_server:
            address = server_address(self._testbed)
            arguments = [each.replace(SERVER, address) for each in arguments]
        measured_file = str(self.measured_file)
        arguments = [each.replace(FILE, measured_file) for each in arguments]
        return [str(self.directory / program), *arguments]

    def run(self, syscall: Syscall) -> Run:
        """Run lmbench once, pinned; never raises for what lmbench does, only NodeLost."""
        command = self.command(syscall)
        try:
            done = self._testbed.run(
                command,
                role=Role.WORKLOAD,
                timeout_s=RUN_LIMIT_S,
                env={**self.libraries(syscall), **self.calibration.environment},
            )
        except NodeLost:
            raise
        except TimeLimit as error:
            return Run(None, str(error))
        except TestbedError as error:
            return Run(None, f"{syscall.program} could not be run: {error}")
        output = done.stdout + done.stderr
        printed = FIGURE.search(output)
        if not done.ok:
            why = f"{syscall.program} ended with {done.returncode}: {done.complaint}"
            return Run(None, why, output)
        if printed is None:
            return Run(None, f"{syscall.program} printed no figure: {done.complaint}", output)
        rest = [line for line in output.splitlines() if line.strip() and not FIGURE.search(line)]
        return Run(float(printed[1]), f"{syscall.program}: {rest[0]}" if rest else None, output)

    def libraries(self, syscall: Syscall) -> dict[str, str]:
        """Variables: lat_connect needs libtirpc, which a lean system has in the cache only.

        lat_proc and lat_syscall, which do not, must not get it: a longer search for libraries would
        be measured with them.
        """
        if syscall.program in WITHOUT_LIBRARIES:
            return {}
        return self._testbed.libraries_of(self.directory / syscall.command[0])

    def allowed_cores(self) -> str:
        """The kernel's list of cores on which a process in the workload's place may run."""
        status = self._testbed.run(
            ["cat", "/proc/self/status"], role=Role.WORKLOAD, timeout_s=RUN_LIMIT_S
        )
        found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status.stdout, re.MULTILINE)
        if found is None:
            raise TestbedError(f"the workload's cores cannot be read: {status.complaint}")
        return found[1]

    def version(self) -> str:
        """lmbench's version, which its licence asks to be named with published results."""
        return lmbench_version(self._testbed, self.directory)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the programs that are run, by name: they are unmodified."""
        helper = [self.helper] if self.helper else []
        names = dict.fromkeys([*LMBENCH_PROGRAMS, *(each.command[0] for each in self._syscalls)])
        programs = [*(self.directory / name for name in names), *helper]
        return {
            path.name: hashlib.sha256(self._read(path)).hexdigest()
            for path in programs
            if self._testbed.state(path, role=Role.WORKLOAD) is not None
        }

    def close(self) -> None:
        """Remove what was put in place outside the testbed's directory."""
        # A directory that somebody else has begun to use meanwhile isn't empty, and stays.
        while self._made:
            self._testbed.remove(self._made.pop(), role=Role.WORKLOAD)


def check_programs(testbed: Testbed, directory: Path, syscalls: Sequence[Syscall]) -> None:
    """Whether the programs of added syscalls are there.

    What a program prints that is not there would be one failed trial after the other.

    Args:
        testbed: Where they are run.
        directory: Where lmbench's programs stand.
        syscalls: What is measured. The programs of the three were looked for with the directory.

    Raises:
        WorkloadError: One is not there, or cannot be executed.
    """
    for syscall in syscalls:
        if syscall.name in SYSCALLS:
            continue
        program = directory / syscall.command[0]
        state = testbed.state(program, role=Role.WORKLOAD)
        if state is None or not state.executable:
            raise WorkloadError(
                f"{program} is not there or cannot be executed: the syscall {syscall.name} is "
                "called by it"
            )


def built_in_helper(program: bytes) -> Path | None:
    """The path of the helper that this build of lat_proc executes (`/tmp/hello` upstream)."""
    found = HELPER_PATH.search(program)
    return Path(found[1].decode()) if found else None


def lmbench_version(testbed: Testbed, directory: Path) -> str:
    """The version of the package that lmbench's programs came with, or `unknown`.

    Args:
        testbed: Where they are.
        directory: In which they stand.
    """
    prefix = Path(*directory.parts[:-4])
    told = testbed.run(
        ["sh", "-c", VERSION_QUESTION, "sh", str(prefix / "share/doc/lmbench")],
        role=Role.WORKLOAD,
        timeout_s=RUN_LIMIT_S,
    )
    named = re.search(r"^lmbench \(([^)]+)\)", told.stdout, re.MULTILINE)
    return named[1] if named else "unknown"


def check_helper(testbed: Testbed, helper: Path, shipped: bytes | None) -> str | None:
    """What stands at the helper's path is executed, and measured: it must be lmbench's.

    Args:
        testbed: Where it stands.
        helper: The path that `lat_proc` has built in.
        shipped: The content of lmbench's own helper; None if there is none to compare with.

    Returns:
        Why it cannot be executed, if so.

    Raises:
        WorkloadError: It is somebody else's, or could become it.
    """
    if shipped is not None and testbed.read(helper, role=Role.WORKLOAD) != shipped:
        raise WorkloadError(f"{helper} is not lmbench's own helper: remove it and run again")
    state = testbed.state(helper, role=Role.WORKLOAD)
    if state is None or state.owner not in (0, state.reader) or state.mode & 0o022:
        raise WorkloadError(f"{helper} can be changed by others: remove it and run again")
    return None if state.executable else f"{helper} is not executable"
