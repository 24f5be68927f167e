"""Waiting until an agent is on, or off, which it tells only when it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_while(reason: Callable[[], str | None], limit_s: float, pause_s: float) -> str | None:
    """Ask again and again why something is not so yet; at least once, however short the limit.

    Returns:
        None as soon as there is no reason any more, else the last one, when the time is over.
    """
    deadline = time.monotonic() + limit_s
    while (why := reason()) is not None:
        if time.monotonic() > deadline:
            return why
        time.sleep(pause_s)
    return None
