"""What a command has to say: a document for scripts, the same in lines for people, an exit code."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ExitCode(enum.IntEnum):
    """Those of pytest that have a meaning here, too."""

    OK = 0
    """Done; nothing is wrong."""
    PROBLEMS = 1
    """Done; problems, differences or regressions were found."""
    INTERRUPTED = 2
    """Ctrl-C."""
    INTERNAL = 3
    """An error of our own: nothing was found out."""
    USAGE = 4
    """It could not be done: a wrong option, a file that cannot be read, a host that refuses."""


class Problem(Exception):
    """A command cannot do what was asked; the text is one line for the user."""


class Style(enum.Enum):
    """How a line looks on a terminal with colours: SGR parameters."""

    PLAIN = ""
    BOLD = "1"
    GOOD = "32"
    WARNING = "33"
    BAD = "31"


@dataclass(frozen=True, slots=True)
class Line:
    """A line for people, without its end."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has found."""

    document: Mapping[str, Any]
    """Plain values; `schema` comes first."""
    lines: Sequence[Line]
    code: ExitCode = ExitCode.OK


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 2, gap: str = "  "
) -> list[str]:
    """The lines of a table, the head first.

    Args:
        head: Names of the columns.
        rows: Cells, as many as names.
        words: How many columns at the left hold words and are flush left; numbers are flush right.
        gap: What stands between columns.
    """
    widths = [max(len(cells[index]) for cells in (head, *rows)) for index in range(len(head))]
    return [
        gap.join(
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (head, *rows)
    ]
