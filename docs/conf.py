"""How the pages in this directory become a site: `make docs`. Warnings are errors there."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "pytest-syslat"
project_copyright = "the authors of pytest-syslat"

extensions = ["myst_parser"]
exclude_patterns: list[str] = []
nitpicky = True

# Anchors as GitHub makes them, so that a link works there and here.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "pytest-syslat"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def adapt(app: Sphinx, page: str, source: list[str]) -> None:
    """Change what a page says of files outside this directory, or not written yet.

    On GitHub `../CONTRIBUTING.md` is the right link, here that file has a page. A page that the
    table of contents names may come with another change; one that it forgets is a warning of
    Sphinx's.
    """
    source[0] = source[0].replace("(../CONTRIBUTING.md", "(contributing.md")
    if page == "index":
        # Read anew each time: a page may have come since.
        app.env.note_reread()
        here = Path(app.srcdir)
        source[0] = "".join(
            line
            for line in source[0].splitlines(keepends=True)
            if not re.fullmatch(r"[a-z-]+\n", line) or (here / f"{line.strip()}.md").exists()
        )


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", adapt)
