"""A connection to the runner in a pod (`manifests/programs/pod_runner.py`).

A connection that breaks ends, on the pod's side, all that was started through it. Whoever was
waiting for an answer gets an error, which refuses the trial at hand; the next request connects
anew, for as long as the server may be away.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubernetes.stream.ws_client import ERROR_CHANNEL, WSClient
from websocket import WebSocketException

from pytest_syslat.testbeds.cluster_api import GivenUp, NotFound, hang_up
from pytest_syslat.testbeds.protocol import (
    Completed,
    FileState,
    NodeLost,
    TestbedError,
    TimeLimit,
    last_line,
)

ANSWER_LIMIT_S = 20.0
"""Beside the time that the request itself may take."""
RECONNECT_LIMIT_S = 90.0
PAUSE_S = 1.0
READ_ATTEMPTS = 3
KILLED = -9


class ConnectionLost(NodeLost):
    """The runner cannot be reached any more, and all that it ran has been killed."""


class PodChannel:
    """Sends requests to the runner of one pod, one at a time."""

    def __init__(self, pod: str, dial: Callable[[], WSClient]) -> None:
        """Remember how to connect.

        Args:
            pod: Its name, for messages.
            dial: Starts the runner and returns the connection; raises TestbedError.
        """
        self._pod = pod
        self._dial = dial
        self._connection: WSClient | None = None
        self._text = ""
        self._number = 0
        self._waiting = False
        self.session = 0
        """Number of the connection: what was started through an earlier one is dead."""
        self.place: dict[str, Any] = {}
        """What the runner told of itself when it was connected."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None
    ) -> Completed:
        """Run a program in the pod to its end; raises TimeLimit, TestbedError."""
        done = self.ask(
            "run", argv=list(argv), env=dict(env or {}), timeout_s=timeout_s, patience_s=timeout_s
        )
        if "error" in done:
            # Like a wrapper that cannot execute a program: 127, and the reason.
            return Completed(tuple(argv), 127, "", f"{argv[0]}: {done['error']}")
        if "timeout" in done:
            raise TimeLimit(f"{Path(argv[0]).name} did not end within {timeout_s:g} s")
        return Completed(tuple(argv), done["code"], done["stdout"], done["stderr"])

    def start(
        self,
        argv: Sequence[str],
        *,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str] | None = None,
    ) -> PodProcess:
        """Start a program in the background; raises TestbedError."""
        told = self._expect(
            f"cannot run {argv[0]}",
            "start",
            argv=list(argv),
            env=dict(env or {}),
            stdout=str(stdout),
            stderr=str(stderr),
        )
        return PodProcess(self, told["pid"])

    def read(self, path: Path, offset: int = 0) -> bytes:
        """A file from `offset` on, each part of it proven by length and SHA-256."""
        parts = []
        more = True
        while more:
            data, more = self._part(path, offset)
            parts.append(data)
            offset += len(data)
        return b"".join(parts)

    def _part(self, path: Path, offset: int) -> tuple[bytes, bool]:
        for _ in range(READ_ATTEMPTS):
            told = self._expect(f"cannot read {path}", "read", path=str(path), offset=offset)
            try:
                data = base64.b64decode(told["data"], validate=True)
            except binascii.Error:
                continue
            if len(data) == told["length"] and hashlib.sha256(data).hexdigest() == told["sha256"]:
                return data, bool(told["more"])
        raise TestbedError(f"{path} in pod {self._pod} did not arrive whole")

    def write(self, path: Path, data: bytes, *, executable: bool = False) -> None:
        """Write a file, with its directories; raises TestbedError."""
        self._expect(
            f"cannot write {path}",
            "write",
            path=str(path),
            data=base64.b64encode(data).decode(),
            executable=executable,
        )

    def remove(self, path: Path) -> None:
        """Remove a file or an empty directory, if it is there."""
        self.ask("remove", path=str(path))

    def state(self, path: Path) -> FileState | None:
        """What is seen of a file."""
        told = self.ask("state", path=str(path))
        if not told["there"]:
            return None
        return FileState(told["owner"], told["reader"], told["mode"], told["executable"])

    def inode(self, path: Path) -> int:
        """The inode behind a path; raises TestbedError if there is none."""
        told = self.ask("state", path=str(path))
        if not told["there"]:
            raise TestbedError(f"{path} is not there in pod {self._pod}")
        return int(told["inode"])

    def _expect(self, what: str, operation: str, **fields: Any) -> dict[str, Any]:
        told = self.ask(operation, **fields)
        if "error" in told:
            raise TestbedError(f"{what} in pod {self._pod}: {told['error']}")
        return told

    def ask(self, operation: str, *, patience_s: float = 0.0, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer; raises ConnectionLost.

        Args:
            operation: Its name in `pod_runner.py`.
            patience_s: How long the operation itself may take.
            fields: What it needs.
        """
        if self._waiting:
            # Ctrl-C came while an answer was awaited: what still runs there must not go on.
            self.close()
        if self._connection is None:
            self._connect()
        return self._exchange(operation, patience_s, fields)

    def refresh(self) -> None:
        """Notice now, and not in the midst of a trial, that the connection has been lost."""
        if self._connection is not None:
            with contextlib.suppress(ConnectionLost):
                self.ask("hello")

    def _connect(self) -> None:
        deadline = time.monotonic() + RECONNECT_LIMIT_S
        while True:
            try:
                self._connection = self._dial()
                self._text = ""
                self.place = self._exchange("hello", 0.0, {})
            except TestbedError as error:
                self.close()
                if isinstance(error, NotFound | GivenUp) or time.monotonic() > deadline:
                    raise NodeLost(str(error)) from error
                time.sleep(PAUSE_S)
            else:
                return

    def _exchange(
        self, operation: str, patience_s: float, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._number += 1
        self._waiting = True
        message = json.dumps({"id": self._number, "op": operation, **fields})
        try:
            assert self._connection is not None
            self._connection.write_stdin(message + "\n")
            told = self._answer(time.monotonic() + patience_s + ANSWER_LIMIT_S)
        except (OSError, ValueError, WebSocketException) as error:
            self.close()
            raise self._lost(str(error)) from error
        self._waiting = False
        return told

    def _answer(self, deadline: float) -> dict[str, Any]:
        connection = self._connection
        assert connection is not None
        while True:
            line, newline, rest = self._text.partition("\n")
            if newline:
                self._text = rest
                told = json.loads(line)
                if told.get("id") == self._number:
                    return dict(told)
                continue
            if not connection.is_open():
                complaint = connection.read_stderr(0) or connection.read_channel(ERROR_CHANNEL)
                raise OSError(last_line(complaint) or "closed by the other side")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise OSError("no answer in time")
            connection.update(timeout=left_s)
            self._text += connection.read_channel(1, timeout=0)

    def _lost(self, reason: str) -> ConnectionLost:
        return ConnectionLost(f"the connection to pod {self._pod} was lost: {reason}")

    def close(self) -> None:
        """Disconnect: the runner kills what it started, and ends. Safe to call twice."""
        connection, self._connection = self._connection, None
        self._waiting = False
        self.session += 1
        if connection is not None:
            hang_up(connection)


class PodProcess:
    """A program that runs in the background of a pod."""

    def __init__(self, channel: PodChannel, pid: int) -> None:
        self._channel = channel
        self._session = channel.session
        self.pid = pid

    @property
    def _lost(self) -> bool:
        return self._channel.session != self._session

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.wait(0.0)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if not self._lost:
            self._channel.ask("signal", pid=self.pid, number=int(number))

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None if it still runs after `timeout_s`."""
        if self._lost:
            return KILLED
        told = self._channel.ask("poll", pid=self.pid, timeout_s=timeout_s, patience_s=timeout_s)
        # A runner that doesn't know it: the question came after Ctrl-C and has connected anew.
        code: int | None = told.get("code", KILLED)
        return code

    def end(self) -> None:
        """End it for certain: either it is told to, or the connection that it hung on is gone."""
        if self._lost:
            return
        try:
            self._channel.ask("end", pid=self.pid)
        except TestbedError:
            self._channel.close()
