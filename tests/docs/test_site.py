"""The site is built as people build it, and nothing in it asks the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .support import DOCS, copy_of_the_checkout, environment

OTHERS = {"index.md", "contributing.md", "changelog.md"}
"""The table of contents, and pages that only include a file."""


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_begins_with_what_its_reader_will_have(page: Path) -> None:
    if page.name not in OTHERS:
        title, _, text = page.read_text().partition("\n\n")
        assert re.fullmatch("# .+", title)
        assert text.startswith("At the end of this page ")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose `.venv` is the environment of these tests."""
    place = copy_of_the_checkout(tmp_path_factory.mktemp("checkout"))
    programs = place / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "sphinx-build").write_text(f'#!/bin/sh\nexec {sys.executable} -m sphinx "$@"\n')
    (programs / "sphinx-build").chmod(0o755)
    (place / ".venv/.ready").touch()
    return place


def make_docs(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "docs"], cwd=checkout, env=environment(checkout), capture_output=True, text=True
    )


def test_make_docs_and_its_warnings(checkout: Path) -> None:
    """One after the other: the second build reads the changed pages only."""
    done = make_docs(checkout)
    assert done.returncode == 0, done.stderr
    site = checkout / "build/docs"
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in site.glob("*.html")}
    for page in site.glob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*(?:src|href)="([^"]+)"', page.read_text())
        assert [each for each in loaded if re.match("(https?:)?//", each)] == [], page.name

    page = checkout / "docs/hooks.md"
    page.write_text(page.read_text() + "\n[a](method.md#nowhere) and [b](nothing.md)\n")
    (checkout / "docs/forgotten.md").write_text("# Forgotten\n")
    done = make_docs(checkout)
    assert done.returncode != 0
    for told in ("nowhere", "nothing", "forgotten"):
        assert told in done.stderr
