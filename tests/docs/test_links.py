"""Links lead somewhere: to a file of the checkout, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from .support import ROOT, pages, without_blocks

ALL = [*pages(), ROOT / "CHANGELOG.md"]
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
EXTERNAL = {
    "https://keepachangelog.com/en/1.1.0/",
    "https://semver.org/spec/v2.0.0.html",
}
"""All places outside that the pages lead to. They are not fetched: look at a new one yourself."""


def links(page: Path) -> list[str]:
    # What stands in code is no link.
    text = re.sub(r"`[^`\n]*`", lambda code: code[0].replace("(", " "), page.read_text())
    return LINK.findall(without_blocks(text))


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub makes them."""
    made: set[str] = set()
    for heading in HEADING.findall(without_blocks(page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while (again := f"{slug}-{number}" if number else slug) in made:
            number += 1
        made.add(again)
    return made


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = page.parent / unquote(parts.path) if parts.path else page
        if not target.exists():
            broken.append(f"{link}: there is no such file")
        elif parts.fragment and parts.fragment not in anchors(target):
            broken.append(f"{link}: there is no such heading")
    assert broken == []


def test_links_to_the_outside_are_known() -> None:
    outside = {link for page in ALL for link in links(page) if urlsplit(link).scheme}
    assert outside == EXTERNAL


def test_a_heading_becomes_the_anchor_that_github_makes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `<label>_summary.csv`\n## Who spends it?\n### auditd (`x/y.py`)\n## Who spends it?\n"
        "```sh\n# no heading\n```\n"
    )
    assert anchors(page) == {
        "label_summarycsv", "who-spends-it", "who-spends-it-1", "auditd-xypy",
    }  # fmt: skip
