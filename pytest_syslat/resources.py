"""Files that are shipped beside the code: bpftrace programs, policies, benchmarks.

A copy in the user's rootdir wins over the shipped one, so that a tracer or a policy can be changed
without touching the installed package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def _roots(rootdir: Path) -> tuple[Path, ...]:
    # In an editable install the shipped files stand beside the package, not inside it.
    return (rootdir, PACKAGE / "shipped", PACKAGE.parent)


def resource(relative: str, rootdir: Path) -> Path:
    """The path of a shipped file such as `bpftrace/trace_openat.bt`.

    Args:
        relative: Path below the project's root.
        rootdir: pytest's rootdir.

    Raises:
        FileNotFoundError: It is neither there nor shipped.
    """
    for root in _roots(rootdir):
        path = root / relative
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is not shipped with this installation")


def resource_directories(relative: str, rootdir: Path) -> list[Path]:
    """All directories of that name, the user's own first; what stands in them adds up."""
    mine, shipped, beside = ((root / relative).resolve() for root in _roots(rootdir))
    # Beside an installed package stand other packages.
    found = dict.fromkeys((mine, shipped if shipped.is_dir() else beside))
    return [path for path in found if path.is_dir()]
