"""What the program says, the page on troubleshooting explains."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from .support import DOCS, ROOT

PAGE = (DOCS / "troubleshooting.md").read_text()
FLAT = re.sub(r"\s+", " ", PAGE.replace("`", "").replace("\\\n", "\n")).lower()
WEIGHTS = {"invalid", "undecided", "warning", "note"}
TO_THE_USER = {
    "AgentError", "AuditError", "DirectoryProblem", "NotFound", "StoredProblem", "TestbedError",
    "ToolMissing", "TracerError", "UnknownAgent", "Unreachable", "UsageError", "WorkloadError",
}  # fmt: skip
"""Exceptions whose text ends on the terminal. Mistakes in descriptions have one entry for all."""
INTERNAL = {"the testbed is closed"}
"""What nobody sees unless our own code is wrong."""
GAP = "\0"
"""Stands where a message has a name or a number."""


@dataclass(frozen=True, slots=True)
class Message:
    """A literal message of the source."""

    place: str
    text: str

    @property
    def leading_words(self) -> list[str]:
        """Its own words between names and numbers; too short ones could stand anywhere."""
        pieces = re.split(rf"[{GAP}:,;()]", self.text)
        stripped = [re.sub(r"\s+", " ", piece).strip(" '\".").lower() for piece in pieces]
        leading = [" ".join(words.split()[:4]) for words in stripped]
        return [words for words in leading if len(words) >= 10]


@functools.cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Name, place and node of each call in the source."""
    found = []
    for path in sorted((ROOT / "pytest_syslat").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                found.append((name, f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def literal(node: ast.expr) -> str | None:
    """The text of a literal with gaps; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (literal(node.left) or GAP) + (literal(node.right) or GAP)
    return None


def messages() -> list[Message]:
    found = []
    for name, place, call in calls():
        text = literal(call.args[0]) if name in TO_THE_USER and call.args else None
        if text is not None and text not in INTERNAL:
            found.append(Message(place, text))
    return found


def codes() -> set[str]:
    """The codes of all findings: what stands first in a call that makes one, or is a code there."""
    found = set()
    for name, _, call in calls():
        text = literal(call.args[0]) if name in WEIGHTS and len(call.args) == 2 else None
        if text is not None and GAP not in text:
            found.add(text)
    # Some are looked up in a table before the finding is made.
    for path in ("validity.py", "trial.py", "experiment.py"):
        text = (ROOT / "pytest_syslat" / path).read_text()
        found |= {code for code in documented_codes("method.md") if f'"{code}"' in text}
    return found


def documented_codes(page: str) -> set[str]:
    text = (DOCS / page).read_text()
    if page == "method.md":
        text = text.partition("\n## Findings")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    else:
        rows = re.findall(r"^- (.*)$", text, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", row)}


@pytest.mark.parametrize("page", ["troubleshooting.md", "method.md"])
def test_each_finding_has_an_entry(page: str) -> None:
    assert len(codes()) > 40
    assert codes() - documented_codes(page) == set()


def test_each_finding_of_the_table_is_in_the_source() -> None:
    source = "".join(path.read_text() for path in (ROOT / "pytest_syslat").rglob("*.py"))
    gone = {code for code in documented_codes("method.md") if f'"{code}' not in source}
    assert gone == set()


def test_each_message_has_an_entry() -> None:
    found = messages()
    assert len(found) > 150
    unknown = [
        f"{message.place}: {message.text!r}"
        for message in found
        if message.leading_words and not any(words in FLAT for words in message.leading_words)
    ]
    assert not unknown, "\n".join(["docs/troubleshooting.md has no entry for", *unknown])


def test_a_message_that_is_not_there_is_found_out() -> None:
    made_up = Message("here", f"the flux capacitor of {GAP} is empty: fill it")
    assert made_up.leading_words == ["the flux capacitor of"]
    assert not any(words in FLAT for words in made_up.leading_words)


def test_the_program_was_really_read(tmp_path: Path) -> None:
    assert any("measuring on this host needs root" in each.text for each in messages())
