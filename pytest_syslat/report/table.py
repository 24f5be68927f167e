"""Tables that fit: numbers lose digits before they lose a line, and never their unit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_syslat.report.screen import Screen

if TYPE_CHECKING:
    from rich.table import Table as RichTable

ABSENT = "-"
DIGITS = 4
"""Significant digits of a shortened number."""
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
SUFFIX_FROM = 1e5
NAME_ENOUGH = 16
PROSE_ENOUGH = 32
NARROWEST = 8
"""No column of words is folded into less than that."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in a table; None and nan are shown as absent."""

    value: float | None
    decimals: int
    signed: bool = False

    def shown(self, *, shortened: bool) -> str:
        """The number as text, all its decimals or its four leading digits."""
        if self.value is None or math.isnan(self.value):
            return ABSENT
        value, decimals, suffix = self.value, self.decimals, ""
        if shortened and math.isfinite(value):
            for factor, each in SUFFIXES:
                if abs(value) >= max(factor, SUFFIX_FROM):
                    value, suffix, decimals = value / factor, each, DIGITS
                    break
            before_point = len(f"{abs(value):.0f}")
            decimals = max(0, min(decimals, DIGITS - before_point))
        return f"{value:{'+' if self.signed else ''},.{decimals}f}{suffix}"


Value = str | Amount


@dataclass(frozen=True, slots=True)
class Column:
    """One column: of numbers, which stand flush right, or of words."""

    title: str
    """With its unit behind the last space."""
    words: bool = False
    enough: int | None = None
    """Of words: where room is scarce, they are folded into lines of this width; None: never."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row and the style in which all of it is written."""

    values: Sequence[Value]
    style: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the ways to write a table."""

    gap: int
    shortened: bool
    """Whether numbers are shortened."""
    tall: bool
    """Whether units stand below the titles."""


LAYOUTS = (
    Layout(gap=2, shortened=False, tall=False),
    Layout(gap=2, shortened=False, tall=True),
    Layout(gap=2, shortened=True, tall=True),
    Layout(gap=1, shortened=True, tall=True),
)
"""From the roomiest to the narrowest."""


def write_table(screen: Screen, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Write a table in the roomiest layout that fits; words are folded where they must."""
    for layout in LAYOUTS:
        titles = [_title(screen, column, layout) for column in columns]
        cells = [[_shown(screen, value, layout) for value in row.values] for row in rows]
        widths = [_width(texts) for texts in zip(titles, *cells, strict=True)]
        room = screen.width - layout.gap * (len(columns) - 1)
        if layout is LAYOUTS[-1] or sum(map(_enough, columns, widths)) <= room:
            for index, width in _folding(columns, widths, room):
                for texts in cells:
                    texts[index] = folded(texts[index], width)
            screen.write(_table(columns, titles, cells, rows, layout))
            return


def _enough(column: Column, width: int) -> int:
    return width if column.enough is None else min(width, column.enough)


def _folding(
    columns: Sequence[Column], widths: Sequence[int], room: int
) -> Iterator[tuple[int, int]]:
    """The columns that are folded, and into which width: all room is given to them, in order."""
    given = list(map(_enough, columns, widths))
    for index, column in enumerate(columns):
        if column.enough is None:
            continue
        spare = room - sum(given)
        given[index] = max(min(widths[index], NARROWEST), min(widths[index], given[index] + spare))
        if given[index] < widths[index]:
            yield index, given[index]


def folded(name: str, width: int) -> str:
    """A name on lines of at most `width`, broken behind a sign where there is one."""
    lines = [""]
    for piece in _pieces(name, width):
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _pieces(name: str, width: int) -> Iterator[str]:
    for piece in re.findall(r"[^-+._/:=@ ]*[-+._/:=@ ]?", name):
        for begin in range(0, len(piece), width):
            yield piece[begin : begin + width]


def shortened_name(name: str, width: int) -> str:
    """A name in one line, without its middle if it is longer than `width`."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[len(name) - end :]}"


def _shown(screen: Screen, value: Value, layout: Layout) -> str:
    return screen.text(
        value.shown(shortened=layout.shortened) if isinstance(value, Amount) else value
    )


def _title(screen: Screen, column: Column, layout: Layout) -> str:
    title = screen.text(column.title)
    return title.replace(" ", "\n") if layout.tall and not column.words else title


def _width(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.split("\n"))


def _table(
    columns: Sequence[Column],
    titles: Sequence[str],
    cells: Sequence[Sequence[str]],
    rows: Sequence[Row],
    layout: Layout,
) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, layout.gap, 0, 0), header_style="bold")
    for column, title in zip(columns, titles, strict=True):
        table.add_column(
            Text(title),
            justify="left" if column.words else "right",
            no_wrap=True,
        )
    for texts, row in zip(cells, rows, strict=True):
        table.add_row(*map(Text, texts), style=row.style)
    return table
