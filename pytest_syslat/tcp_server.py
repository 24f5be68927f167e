"""Starts and watches the TCP server that lat_connect dials."""

from __future__ import annotations

import time
from pathlib import Path

from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import Process, Role, Testbed, TestbedError, last_line

LAT_CONNECT_PORT = 31237
"""lat_connect has this port built in; `bw_tcp -s` listens on another one."""
LOOPBACK = "127.0.0.1"
START_LIMIT_S = 15.0
POLL_S = 0.01
PROGRAM = "manifests/programs/tcp_server.py"


def server_address(testbed: Testbed) -> str:
    """Where lat_connect finds the server."""
    return testbed.endpoint.address if testbed.endpoint else LOOPBACK


class TcpServer:
    """The server of a testbed; its start fails if somebody else holds the port.

    A testbed that runs a server itself (a pod) is only asked for it; on others it is started.
    """

    def __init__(self, testbed: Testbed, rootdir: Path) -> None:
        self._testbed = testbed
        self._rootdir = rootdir
        self._process: Process | None = None
        self._inode: int | None = None

    @property
    def address(self) -> str:
        """What lat_connect dials."""
        return server_address(self._testbed)

    @property
    def inode(self) -> int | None:
        """Inode of the listening socket; None while nothing listens."""
        return self._testbed.endpoint.inode if self._testbed.endpoint else self._inode

    def start(self) -> None:
        """Start it and wait until it listens; raises TestbedError."""
        if self._testbed.endpoint:
            return
        program = self._testbed.workdir / "tcp_server.py"
        content = resource(PROGRAM, self._rootdir).read_bytes()
        self._testbed.write(program, content, role=Role.SERVER)
        stdout = self._testbed.workdir / "tcp_server.stdout"
        stderr = self._testbed.workdir / "tcp_server.stderr"
        self._process = self._testbed.start(
            [self._testbed.python, "-I", "-S", str(program), LOOPBACK, str(LAT_CONNECT_PORT)],
            role=Role.SERVER,
            stdout=stdout,
            stderr=stderr,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            said = self._testbed.read(stdout, role=Role.SERVER).decode().split()
            if len(said) == 2:
                self._inode = int(said[1])
                return
            if self._process.poll() is not None:
                told = self._testbed.read(stderr, role=Role.SERVER).decode(errors="replace")
                reason = last_line(told) or "it ended at once"
                raise TestbedError(f"the TCP server did not start: {reason}")
            time.sleep(POLL_S)
        self.stop()
        raise TestbedError(f"the TCP server was not ready within {START_LIMIT_S:g} s")

    def stop(self) -> None:
        """End it; safe to call twice."""
        if self._process is not None:
            self._process.end()
            self._process = None
        self._inode = None
