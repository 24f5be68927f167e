"""How the pages in this directory become a site: `make docs`. Warnings are errors there."""

from __future__ import annotations

project = "pytest-syslat"
project_copyright = "the authors of pytest-syslat"

extensions = ["myst_parser"]
exclude_patterns: list[str] = []
nitpicky = True

# Anchors as GitHub makes them, so that a link works there and here.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "pytest-syslat"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

# A page may be named in the table of contents before it is written.
suppress_warnings = ["toc.empty_glob"]
