"""Misbehaviour to order, named by the environment variable STANDIN_TROUBLE.

Several words are separated by commas:

    never-ready     it runs, but never says that it is ready, and answers nobody
    never-works     it says that it is ready; its programs and policies are never loaded
    crash           it ends with exit code 1 after a second, each time it is started
    crash-after=N   it ends after N seconds
    drops=N         its counters of lost events rise by N a second
    stubborn        it ignores SIGTERM
"""

from __future__ import annotations

import os
import threading
import time


class Trouble:
    """What was ordered."""

    def __init__(self) -> None:
        words = os.environ.get("STANDIN_TROUBLE", "").split(",")
        self._ordered = dict(word.strip().partition("=")[::2] for word in words)
        self._began = time.monotonic()
        if "crash" in self._ordered:
            self._crash_after(1.0)
        elif "crash-after" in self._ordered:
            self._crash_after(float(self._ordered["crash-after"]))

    def _crash_after(self, seconds: float) -> None:
        def crash() -> None:
            print("panic: as ordered by STANDIN_TROUBLE", flush=True)
            os._exit(1)

        timer = threading.Timer(seconds, crash)
        timer.daemon = True
        timer.start()

    @property
    def never_ready(self) -> bool:
        """Whether it shall never get ready."""
        return "never-ready" in self._ordered

    @property
    def never_works(self) -> bool:
        """Whether it shall get ready and do nothing."""
        return "never-works" in self._ordered

    @property
    def stubborn(self) -> bool:
        """Whether only SIGKILL shall end it."""
        return "stubborn" in self._ordered

    def drops(self) -> int:
        """How many events it claims to have lost so far."""
        rate = float(self._ordered.get("drops") or 0)
        return int(rate * (time.monotonic() - self._began))
