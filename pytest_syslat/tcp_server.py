"""Starts and watches the TCP server that lat_connect dials."""

from __future__ import annotations

import time
from pathlib import Path

from pytest_syslat.testbeds.protocol import Process, Role, Testbed, TestbedError

LAT_CONNECT_PORT = 31237
"""lat_connect has this port built in; `bw_tcp -s` listens on another one."""
ADDRESS = "127.0.0.1"
START_LIMIT_S = 15.0
POLL_S = 0.01


class TcpServer:
    """The server process on a testbed; its start fails if somebody else holds the port."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._process: Process | None = None
        self.inode: int | None = None

    def start(self) -> None:
        """Start it and wait until it listens; raises TestbedError."""
        program = self._testbed.workdir / "tcp_server_program.py"
        self._testbed.write(program, Path(__file__).with_name("tcp_server_program.py").read_bytes())
        stdout = self._testbed.workdir / "tcp_server.stdout"
        stderr = self._testbed.workdir / "tcp_server.stderr"
        self._process = self._testbed.start(
            [self._testbed.python, "-I", "-S", str(program), ADDRESS, str(LAT_CONNECT_PORT)],
            role=Role.SERVER,
            stdout=stdout,
            stderr=stderr,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            said = self._testbed.read(stdout).decode().split()
            if len(said) == 2:
                self.inode = int(said[1])
                return
            if self._process.poll() is not None:
                lines = self._testbed.read(stderr).decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "it ended at once"
                raise TestbedError(f"the TCP server did not start: {reason}")
            time.sleep(POLL_S)
        self.stop()
        raise TestbedError(f"the TCP server was not ready within {START_LIMIT_S:g} s")

    def stop(self) -> None:
        """End it; safe to call twice."""
        if self._process is not None:
            self._process.end()
            self._process = None
        self.inode = None
