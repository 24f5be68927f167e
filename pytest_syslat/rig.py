"""What a session measures with; each part is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from pytest_syslat.paced_workload import PacedWorkload
from pytest_syslat.settings import Settings
from pytest_syslat.tcp_server import TcpServer
from pytest_syslat.testbeds.protocol import Testbed, TestbedError
from pytest_syslat.tracer import Tracer
from pytest_syslat.workload import Workload


class Rig:
    """The parts on a testbed that somebody else opens and closes."""

    def __init__(self, testbed: Testbed, settings: Settings, rootdir: Path) -> None:
        self.testbed = testbed
        self.settings = settings
        self.rootdir = rootdir
        self._finalizers: list[Callable[[], None]] = []
        self._generation = testbed.generation

    @cached_property
    def tracer(self) -> Tracer:
        """bpftrace; raises TracerError."""
        return Tracer(self.testbed, self.rootdir, self.settings.tracer)

    @cached_property
    def workload(self) -> Workload:
        """lmbench, with its files in place; raises WorkloadError, ToolMissing, TestbedError."""
        directory = self.testbed.find_lmbench(self.settings.lmbench_dir)
        rate = self.settings.rate
        workload = (
            Workload(self.testbed, directory, self.settings.syscalls)
            if rate is None
            else PacedWorkload(self.testbed, directory, rate, self.rootdir, self.settings.syscalls)
        )
        self._finalizers.append(workload.close)
        return workload

    @cached_property
    def server(self) -> TcpServer:
        """The TCP server, listening; raises TestbedError."""
        server = TcpServer(self.testbed, self.rootdir)
        self._finalizers.append(server.stop)
        server.start()
        return server

    def renew(self) -> bool:
        """Before each trial: put back what somebody else has removed.

        Returns:
            Whether anything had to be put back.

        Raises:
            TestbedError, WorkloadError: It could not be put back.
        """
        self.testbed.renew()
        if self.testbed.generation == self._generation:
            return False
        self.workload.place_files()
        self._generation = self.testbed.generation
        return True

    def close(self) -> list[str]:
        """Stop and remove all parts; what could not be removed is returned."""
        left = []
        while self._finalizers:
            try:
                self._finalizers.pop()()
            except (TestbedError, OSError) as error:
                left.append(str(error))
        return left
