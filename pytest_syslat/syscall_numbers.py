"""Numbers of syscalls: the tracer's mark is made by number, since libc has no function for some.

They come from the kernel's own tables, which the library `system-calls` carries: a node tells them
nowhere (neither tracefs nor BTF has them), and a lean image has no header files.
"""

from __future__ import annotations

ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
"""The kernel's name of an architecture by `uname -m`: those that were tried."""


class NumbersMissing(Exception):
    """The library with the kernel's tables is not there; the text is one line for the user."""

    def __init__(self) -> None:
        super().__init__(
            "the Python package system-calls is missing: install pytest-syslat again "
            "(pip install -e . in its checkout)"
        )


def is_syscall(name: str) -> bool:
    """Whether any Linux has a syscall of that name; raises NumbersMissing."""
    try:
        from system_calls.tables.names import syscalls_names
    except ModuleNotFoundError:
        raise NumbersMissing from None

    return name in syscalls_names


def number_of(name: str, machine: str) -> int | None:
    """The number of a syscall.

    Args:
        name: Such as `openat`.
        machine: As `uname -m` tells it; one of `ARCHITECTURES`.

    Returns:
        None if that architecture has no such syscall.

    Raises:
        NumbersMissing: No table of them is installed.
    """
    try:
        from system_calls import NoSuchSystemCall, NotSupportedSystemCall, syscalls
    except ModuleNotFoundError:
        raise NumbersMissing from None

    try:
        return int(syscalls().get(name, ARCHITECTURES[machine]))
    except (NoSuchSystemCall, NotSupportedSystemCall):
        return None
