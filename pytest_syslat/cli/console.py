"""Writing to a terminal, a file or a pipe: colour and signs as far as they can be shown."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, TextIO

from pytest_syslat.cli.answer import Answer, Line, Style

# For streams that cannot carry them, such as one in the C locale.
ASCII = str.maketrans(
    {
        "✔": "ok ",
        "✘": "NO ",
        "µ": "u",
        "Δ": "d",
        "→": "->",
        "…": "...",
        "−": "-",
        "·": "-",
        "±": "+-",
    }
)


def write_answer(answer: Answer, *, as_json: bool) -> None:
    """Write it to stdout: as one JSON document and nothing else, or as lines.

    Whoever reads may have closed the pipe: then the rest is not wanted.
    """
    if as_json:
        text = json.dumps(answer.document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    else:
        colours = has_colours(sys.stdout)
        text = "".join(f"{_styled(line, colours=colours)}\n" for line in answer.lines)
    try:
        sys.stdout.write(_shown(text, sys.stdout))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_problem(text: str) -> None:
    """Write one line to stderr."""
    line = " ".join(text.split())
    with contextlib.suppress(OSError):
        sys.stderr.write(_shown(f"syslat: {line}\n", sys.stderr))
        sys.stderr.flush()


def has_colours(stream: TextIO) -> bool:
    """Whether colours are wanted: on a terminal that is not dumb, without NO_COLOR."""
    return (
        stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"
    )


def _styled(line: Line, *, colours: bool) -> str:
    if not colours or line.style is Style.PLAIN:
        return line.text
    return f"\x1b[{line.style.value}m{line.text}\x1b[0m"


def _shown(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, errors="replace").decode(encoding)
    return text
