"""Programs that are used without being installed: the project's own cache of unpacked packages.

`tools/provision.sh` fills it. Nothing in it starts by itself, unlike an installed auditd.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

LMBENCH_PROGRAMS = ("lat_proc", "lat_syscall", "lat_connect")
TOOLS_TREE = "tools"
TREE_DIRECTORIES = ("usr/sbin", "sbin", "usr/bin", "bin")
"""Where programs stand in the cache's tree."""
SYSTEM_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


class ToolMissing(Exception):
    """A program is not there; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and the variables that it needs to find its libraries."""

    path: str
    env: dict[str, str] = field(default_factory=dict)


def cache_dir() -> Path:
    """The cache: `$SYSLAT_CACHE_DIR`, else `pytest-syslat` below the user's cache directory."""
    chosen = os.environ.get("SYSLAT_CACHE_DIR")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pytest-syslat"


def is_cached(path: Path) -> bool:
    """Whether a program stands in the cache, where its libraries may be, too."""
    return path.is_relative_to(cache_dir() / TOOLS_TREE)


def library_path() -> dict[str, str]:
    """The variable by which cached programs find cached libraries."""
    tree = cache_dir() / TOOLS_TREE
    libraries = [str(path) for path in sorted(tree.glob("**/lib/*-linux-gnu*")) if path.is_dir()]
    return {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}


def find_tool(name: str) -> Tool | None:
    """Find a program: installed on this host, else in the cache."""
    searched = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES])
    installed = shutil.which(name, path=searched)
    if installed:
        return Tool(installed)
    tree = cache_dir() / TOOLS_TREE
    for directory in TREE_DIRECTORIES:
        program = tree / directory / name
        if os.access(program, os.X_OK):
            return Tool(str(program), library_path())
    return None


def search_path() -> str:
    """PATH with the cache behind it, for programs that start others by name."""
    tree = cache_dir() / TOOLS_TREE
    cached = (str(tree / directory) for directory in TREE_DIRECTORIES)
    return os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES, *cached])


def find_lmbench(chosen: Path | None) -> Path:
    """The directory in which lmbench's programs stand on this host.

    Args:
        chosen: `--syslat-lmbench-dir`; nothing else is searched when it is given.

    Raises:
        ToolMissing: It isn't there.
    """
    if chosen is not None:
        missing = [name for name in LMBENCH_PROGRAMS if not os.access(chosen / name, os.X_OK)]
        if missing:
            raise ToolMissing(
                f"--syslat-lmbench-dir: {', '.join(missing)} not found in {chosen}: "
                "give the directory of lmbench's programs"
            )
        return chosen
    on_path = shutil.which("lat_syscall")
    candidates = [Path(on_path).parent] if on_path else []
    for root in (Path("/"), cache_dir() / TOOLS_TREE):
        # Under sudo -u without -H the cache is somebody else's.
        with contextlib.suppress(OSError):
            candidates += sorted((root / "usr/lib/lmbench/bin").glob("*"))
    for directory in candidates:
        if all(os.access(directory / name, os.X_OK) for name in LMBENCH_PROGRAMS):
            return directory
    raise ToolMissing(
        "lmbench was not found: run 'make provision' (tools/provision.sh), "
        "or give its directory with --syslat-lmbench-dir"
    )
