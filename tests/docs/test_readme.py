"""The README is for the first five minutes."""

from __future__ import annotations

import re

from .support import ROOT

README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_it_has_one_picture_of_the_report() -> None:
    [(text, path)] = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README)
    assert path == "docs/images/report.png"
    assert len(text) > 20, "who cannot see it must know what it shows"
    assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
    assert (ROOT / path).stat().st_size < 500_000
