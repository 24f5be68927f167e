"""Servers that unit tests share: a made-up API server, and small real ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any, TypeVar, cast

from pytest_syslat.testbeds.cluster_api import ClusterApi, NotFound
from pytest_syslat.testbeds.protocol import TestbedError

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
"""On the clock of the made-up API server."""

Object = dict[str, Any]
HttpServer = TypeVar("HttpServer", bound=ThreadingHTTPServer)


class FakeApi:
    """What fakes of ClusterApi have in common; how objects are stored is their own."""

    def as_api(self) -> ClusterApi:
        return cast("ClusterApi", self)

    def now(self) -> datetime:
        return NOW

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        raise NotImplementedError

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        found = self.find(kind, name, namespace)
        if found is None:
            raise NotFound(f"no {kind} {name}")
        return found

    def wait(
        self,
        condition: Callable[[], object],
        limit_s: float,
        problem: Callable[[], str],
        pause_s: float = 0.2,
    ) -> object:
        """Nothing changes meanwhile: what does not hold at once never will."""
        answer = condition()
        if answer is None:
            raise TestbedError(problem())
        return answer


class Quiet:
    """For handlers of requests: without a line on stderr for each."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(server: HttpServer) -> Iterator[HttpServer]:
    """Let a server answer until the test has ended."""
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
