"""What the tests of the documentation share: its pages, their blocks, the commands in them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHELL = ("sh", "bash", "console", "shell")
SHORT = {"TRIALS": "1", "WARMUP_SEC": "0", "LMBENCH_REPS": "1", "OPENAT_MULT": "1"}
"""The documented variables, which lose to options: runs are as short as they can be."""

_BLOCK = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[\w{}-]*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    """From the root of the checkout."""
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page, as it would be typed in one line."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def pages() -> list[Path]:
    """All pages that people read: README, CONTRIBUTING, and the site's."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks in one of these languages, of all pages."""
    return [block for page in pages() for block in blocks_of(page) if block.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, without their indentation."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        yield Block(
            str(page.relative_to(ROOT)),
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            textwrap.dedent(found["text"]),
        )


def without_blocks(text: str) -> str:
    """A page's text with empty lines where its blocks were."""
    return _BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text)


def commands() -> list[Command]:
    """Every command of every page: of shell blocks, and of `run` and `script` in YAML."""
    found = [
        Command(block.page, text) for block in blocks(*SHELL) for text in _typed_lines(block.text)
    ]
    for block in blocks("yaml", "yml"):
        for text in _scripts(yaml.safe_load(block.text)):
            found += [Command(block.page, line) for line in _typed_lines(text)]
    return found


def _typed_lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        command = " ".join(_without_comment(line.removeprefix("$ ")).split())
        if command:
            yield command


def _without_comment(line: str) -> str:
    # A comment begins with a # that begins a word, outside of quotes.
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (index == 0 or line[index - 1].isspace()):
            return line[:index]
    return line


def _scripts(node: Any) -> Iterator[str]:
    """Texts under the keys of GitHub and GitLab that are given to a shell."""
    if isinstance(node, list):
        for each in node:
            yield from _scripts(each)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script", "before_script", "after_script"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from _scripts(value)


def simple_commands(text: str) -> list[list[str]]:
    """The words of each part of a line that `&&` or `;` joins; variables are left as they are."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def copy_of_the_checkout(place: Path) -> Path:
    """A copy of all files that are, or would be, in git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.split("\0"):
        source, target = ROOT / name, place / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return place


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """For commands in a copy of the checkout: its package, short runs, no settings of ours.

    `make test` hands its own options to every make below it, these tests' too: not with this.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "GITHUB_", "COV_", "COVERAGE_", "MAKE", "MFLAGS"))
    }
    return {**kept, **SHORT, "PYTHONPATH": str(checkout), **more}
