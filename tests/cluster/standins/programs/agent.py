"""What all stand-ins share: how they end, log and serve what they count."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from .trouble import Trouble

PASS_S = 0.3

Answer = tuple[int, str]
Pages = Mapping[str, Callable[[], Answer]]


def log(line: str) -> None:
    """Write a line to the container's log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Ending:
    """Tells when the agent shall end: as process 1 it gets no signal that it does not handle."""

    def __init__(self, trouble: Trouble) -> None:
        self._event = threading.Event()
        if trouble.stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGINT, self._told)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

    def passed(self, seconds: float = PASS_S) -> bool:
        """Wait a moment; whether it shall end."""
        return self._event.wait(seconds)


def serve(port: int, pages: Pages) -> None:
    """Serve pages by their path, in the background."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = pages.get(self.path, lambda: (404, "Not Found\n"))()
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Probes come every few seconds: none of them is logged."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def metric(name: str, value: int, kind: str = "counter", **labels: str) -> str:
    """One metric in Prometheus' text format."""
    listed = ",".join(f'{key}="{text}"' for key, text in labels.items())
    braced = f"{{{listed}}}" if listed else ""
    return f"# HELP {name} A stand-in's.\n# TYPE {name} {kind}\n{name}{braced} {value}\n"
