"""Where all our lines on the terminal go: pytest's own writer, by way of rich.

pytest decides on colours (`--color`, `NO_COLOR`, `FORCE_COLOR`, `PY_COLORS`, `TERM=dumb`, a pipe)
and on the width, so that our lines look like those around them.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import pytest
    from rich.console import Console, RenderableType

NARROWEST = 80
"""Nothing is squeezed below that: a narrower terminal wraps our lines."""
HEIGHT = 25
IN_ASCII: Mapping[str, str] = {
    "µ": "u",
    "Δ": "d",
    "…": "...",
    "→": "->",
    "×": "x",
    "≤": "<=",
    "–": "-",
    "·": "-",
}


def encodable(text: str, encoding: str) -> str:
    """The text with what `encoding` does not have written in ASCII."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_encodable(each, encoding) for each in text)
    return text


def _encodable(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return IN_ASCII.get(character, "?")
    return character


class Screen:
    """Writes lines and tables; knows width, colours and encoding of what it writes to."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        width: int,
        colour: bool = False,
        encoding: str = "utf-8",
        wraps: bool = False,
    ) -> None:
        """Write by `write`; with `wraps`, lines of words are wrapped, for a person to read."""
        self.width = max(width, NARROWEST)
        self._write = write
        self._colour = colour
        self._encoding = encoding
        self._wraps = wraps

    @classmethod
    def of(cls, reporter: pytest.TerminalReporter) -> Screen:
        """What pytest itself writes to."""
        writer = reporter._tw
        return cls(
            reporter.write,
            width=writer.fullwidth,
            colour=writer.hasmarkup,
            encoding=encoding_of(writer._file),
            wraps=bool(reporter.isatty),
        )

    def text(self, text: str) -> str:
        """The text as it can be written here."""
        return encodable(text, self._encoding)

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line: in a log it stays one, however long, so that it can be searched for."""
        from rich.text import Text

        written = self.text(text)
        if self._wraps and len(written) > self.width:
            written = "\n".join(
                textwrap.wrap(
                    written,
                    self.width,
                    subsequent_indent="  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        self.write(Text(written, style=style))

    def write(self, content: RenderableType) -> None:
        """Write what rich can render; its texts have gone through `text`."""
        console = self.console(io.StringIO())
        with console.capture() as captured:
            console.print(content, soft_wrap=True)
        written = captured.get()
        self._write(written if self._colour else strip_ends(written))

    def console(self, file: TextIO) -> Console:
        """A console of rich with the same width and colours."""
        return console(file, width=self.width, colour=self._colour)


def console(file: TextIO, *, width: int, colour: bool, live: bool = False) -> Console:
    """Make a console of rich that leaves nothing to rich's own guesses: pytest has decided.

    Args:
        file: Where it writes to.
        width: In columns.
        colour: Whether codes for colours may be written.
        live: Whether the cursor may be moved.
    """
    from rich.console import Console

    class KeepingCursor(Console):
        """A run that is killed must not leave a terminal without a cursor."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    return KeepingCursor(
        file=file,
        width=width,
        height=HEIGHT,
        color_system="standard" if colour else None,
        no_color=not colour,
        force_terminal=colour or live,
        force_interactive=live,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def encoding_of(file: TextIO) -> str:
    """The encoding of a file; UTF-8 where it has none, as a buffer in memory."""
    return getattr(file, "encoding", None) or "utf-8"


def strip_ends(text: str) -> str:
    """The same lines without the spaces at their ends, with which rich fills a table's cells."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
