"""Chooses the program by the name that it was called by."""

from __future__ import annotations

import sys
from pathlib import Path

from . import falco, kloudknox, tetragon

PROGRAMS = {
    "falco": falco.main,
    "hubble-export-stdout": tetragon.exporter,
    "kloudknox": kloudknox.agent,
    "kloudknox-operator": kloudknox.operator,
    "tetra": tetragon.tetra,
    "tetragon": tetragon.agent,
    "tetragon-operator": tetragon.operator,
}


def main() -> None:
    """Run it."""
    PROGRAMS[Path(sys.argv[0]).name]()
