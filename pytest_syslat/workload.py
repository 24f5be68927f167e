"""lmbench: find it, calibrate it once, run it pinned, read its own figure."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_syslat.syscalls import Syscall
from pytest_syslat.tcp_server import ADDRESS
from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError, TimeLimit
from pytest_syslat.tools import TOOLS_TREE, cache_dir, is_cached, library_path

PROGRAMS = ("lat_proc", "lat_syscall", "lat_connect")
CALIBRATION_PROGRAMS = ("timing_o", "loop_o")
SHORTEST_INTERVAL_US = 5000
"""The shortest timing interval that lmbench's own calibration ever chooses.

Left to itself lmbench asks its `enough` program, which on a virtual machine easily answers
1,000,000: the same figure, two hundred times slower.
"""
RUN_LIMIT_S = 60.0
CALIBRATION_LIMIT_S = 30.0
FIGURE = re.compile(r": ([0-9]+(?:\.[0-9]+)?) microseconds")
HELPER_PATH = re.compile(rb"(?<![\w./-])(/[\w./-]*/hello)\0")


class WorkloadError(Exception):
    """lmbench cannot be used; the text is one line for the user."""


def find_lmbench(chosen: Path | None) -> Path:
    """The directory in which lmbench's programs stand.

    Args:
        chosen: `--syslat-lmbench-dir`; nothing else is searched when it is given.

    Raises:
        WorkloadError: It isn't there.
    """
    if chosen is not None:
        missing = [name for name in PROGRAMS if not os.access(chosen / name, os.X_OK)]
        if missing:
            raise WorkloadError(
                f"--syslat-lmbench-dir: {', '.join(missing)} not found in {chosen}: "
                "give the directory of lmbench's programs"
            )
        return chosen
    on_path = shutil.which("lat_syscall")
    candidates = [Path(on_path).parent] if on_path else []
    for root in (Path("/"), cache_dir() / TOOLS_TREE):
        candidates += sorted((root / "usr/lib/lmbench/bin").glob("*"))
    for directory in candidates:
        if all(os.access(directory / name, os.X_OK) for name in PROGRAMS):
            return directory
    raise WorkloadError(
        "lmbench was not found: run 'make provision' (tools/provision.sh), "
        "or give its directory with --syslat-lmbench-dir"
    )


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
    """One run of an lmbench program."""

    us_per_op: float | None
    """lmbench's own figure; None if it printed none."""
    complaint: str | None
    """What went wrong, if anything."""
    output: str = ""
    """All that it printed."""


class Workload:
    """lmbench on a testbed, with the files that it needs in place.

    What it puts in place outside the testbed's own directory (the helper program of
    `lat_proc exec`, whose path is built in) is removed by `close`.
    """

    def __init__(self, testbed: Testbed, directory: Path) -> None:
        self._testbed = testbed
        self.directory = directory
        self.measured_file = testbed.workdir / "measured-file"
        testbed.write(self.measured_file, b"opened by lat_syscall\n")
        self._made: list[Path] = []
        self.helper = built_in_helper((directory / "lat_proc").read_bytes())
        self.helper_problem = self._place_helper()
        try:
            self.calibration = self._calibrate()
        except BaseException:
            self.close()
            raise

    def _place_helper(self) -> str | None:
        """Put the program that `lat_proc exec` executes where this build looks for it."""
        if self.helper is None:
            return "lat_proc names no helper program"
        shipped = self.directory / "hello"
        if self.helper.exists():
            return self._check_helper(self.helper, shipped)
        if not shipped.is_file():
            return f"{self.helper} is missing and no copy stands beside lat_proc"
        for parent in [*reversed(self.helper.parents), self.helper]:
            if not parent.exists():
                self._made.append(parent)
        self._testbed.write(self.helper, shipped.read_bytes(), executable=True)
        return None

    @staticmethod
    def _check_helper(helper: Path, shipped: Path) -> str | None:
        """What stands at the helper's path is executed as root, and measured: it must be ours."""
        state = helper.stat()
        if shipped.is_file() and helper.read_bytes() != shipped.read_bytes():
            raise WorkloadError(f"{helper} is not lmbench's own helper: remove it and run again")
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            raise WorkloadError(f"{helper} can be changed by others: remove it and run again")
        return None if os.access(helper, os.X_OK) else f"{helper} is not executable"

    def _calibrate(self) -> Calibration:
        environment = {"ENOUGH": str(SHORTEST_INTERVAL_US)}
        answers = []
        for name in CALIBRATION_PROGRAMS:
            program = self.directory / name
            if not os.access(program, os.X_OK):
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
        operation = {
            "lat_proc": ["exec"],
            "lat_syscall": ["open", str(self.measured_file)],
            "lat_connect": [ADDRESS],
        }[syscall.comm]
        return [str(self.directory / syscall.comm), *operation]

    def run(self, syscall: Syscall) -> Run:
        """Run lmbench once, pinned; never raises for what lmbench does."""
        command = self.command(syscall)
        try:
            done = self._testbed.run(
                command,
                role=Role.WORKLOAD,
                timeout_s=RUN_LIMIT_S,
                env={**self._libraries(syscall), **self.calibration.environment},
            )
        except TimeLimit as error:
            return Run(None, str(error))
        except TestbedError as error:
            return Run(None, f"{syscall.comm} could not be run: {error}")
        output = done.stdout + done.stderr
        printed = FIGURE.search(output)
        if not done.ok:
            why = f"{syscall.comm} ended with {done.returncode}: {done.complaint}"
            return Run(None, why, output)
        if printed is None:
            return Run(None, f"{syscall.comm} printed no figure: {done.complaint}", output)
        rest = [line for line in output.splitlines() if line.strip() and not FIGURE.search(line)]
        return Run(float(printed[1]), f"{syscall.comm}: {rest[0]}" if rest else None, output)

    def _libraries(self, syscall: Syscall) -> dict[str, str]:
        """lat_connect needs libtirpc, which a lean system has in the cache only.

        The others must not get it: a longer search for libraries would be measured with them.
        """
        needed = syscall.comm == "lat_connect" and is_cached(self.directory)
        return library_path() if needed else {}

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
        prefix = Path(*self.directory.resolve().parts[:-4])
        for changelog in prefix.glob("share/doc/lmbench/changelog.Debian*"):
            data = changelog.read_bytes()
            text = gzip.decompress(data) if changelog.suffix == ".gz" else data
            named = re.match(rb"lmbench \(([^)]+)\)", text)
            if named:
                return named[1].decode()
        return "unknown"

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the programs that are run, by name: they are unmodified."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._programs()
            if path.is_file()
        }

    def _programs(self) -> Sequence[Path]:
        helper = [self.helper] if self.helper else []
        return [*(self.directory / name for name in PROGRAMS), *helper]

    def close(self) -> None:
        """Remove what was put in place outside the testbed's directory."""
        while self._made:
            path = self._made.pop()
            if path.is_dir():
                # Somebody else may have begun to use the directory meanwhile.
                if not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)


def built_in_helper(program: bytes) -> Path | None:
    """The path of the helper that this build of lat_proc executes (`/tmp/hello` upstream)."""
    found = HELPER_PATH.search(program)
    return Path(found[1].decode()) if found else None
