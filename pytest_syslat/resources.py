"""Files that are shipped beside the code: bpftrace programs, policies, benchmarks.

A copy in the user's rootdir wins over the shipped one, so that a tracer or a policy can be changed
without touching the installed package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(relative: str, rootdir: Path) -> Path:
    """The path of a shipped file such as `bpftrace/trace_openat.bt`.

    Args:
        relative: Path below the project's root.
        rootdir: pytest's rootdir.

    Raises:
        FileNotFoundError: It is neither there nor shipped.
    """
    # In an editable install the shipped files stand beside the package, not inside it.
    for root in (rootdir, PACKAGE / "shipped", PACKAGE.parent):
        path = root / relative
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is not shipped with this installation")
