"""`python -m pytest_syslat`: the command `syslat`, where its script is not on PATH."""

from __future__ import annotations

import sys

from pytest_syslat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
