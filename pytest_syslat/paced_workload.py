"""The workload at a given rate: a program of ours in place of lmbench's, which has no pace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_syslat.resources import resource
from pytest_syslat.syscalls import SYSCALLS, Syscall
from pytest_syslat.tcp_server import server_address
from pytest_syslat.testbeds.protocol import Role, Testbed
from pytest_syslat.workload import Run, Workload

PROGRAM = "manifests/programs/paced_calls.py"
ACHIEVED = re.compile(r", ([0-9]+\.[0-9]) of [0-9]+ operations a second: ")


class PacedWorkload(Workload):
    """Makes lmbench's operations, so many a second, for a second a run."""

    def __init__(
        self,
        testbed: Testbed,
        directory: Path,
        rate: int,
        rootdir: Path,
        syscalls: Sequence[Syscall] = tuple(SYSCALLS.values()),
    ) -> None:
        """Put all in place.

        Args:
            testbed: Where it runs.
            directory: Where lmbench's programs stand, as the workload sees it.
            rate: Operations a second.
            rootdir: Whose copy of the program wins over the shipped one.
            syscalls: What is measured; each must be `paced`.

        Raises:
            WorkloadError: lmbench cannot be used: its helper program is executed here, too.
            TestbedError: The testbed failed.
        """
        self._rate = rate
        self._content = resource(PROGRAM, rootdir).read_bytes()
        self._program = testbed.workdir / Path(PROGRAM).name
        super().__init__(testbed, directory, syscalls)

    def place_files(self) -> None:
        """Put the program in place, and what it needs; raises WorkloadError, TestbedError."""
        self._testbed.write(self._program, self._content, role=Role.WORKLOAD)
        super().place_files()

    def command(self, syscall: Syscall) -> list[str]:
        """The command that makes the calls of `syscall`."""
        # Where lat_proc names no helper the call fails, as it does in lat_proc.
        target = {"exec": str(self.helper), "open": str(self.measured_file)}.get(syscall.paced)
        if target is None:
            target = server_address(self._testbed)
        program = [self._testbed.python, "-I", "-S", str(self._program)]
        return [*program, syscall.comm, str(self._rate), target]

    def run(self, syscall: Syscall) -> Run:
        """Make a second's operations; never raises for what the program does, only NodeLost."""
        run = super().run(syscall)
        achieved = ACHIEVED.search(run.output)
        return replace(run, achieved_per_s=float(achieved[1])) if achieved else run

    def libraries(self, syscall: Syscall) -> dict[str, str]:  # noqa: ARG002
        """Python needs none of lmbench's."""
        return {}
