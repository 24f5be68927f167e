"""Numbers of syscalls: the tracer's mark is made by number, since libc has no function for some.

They come from the kernel's own tables, which the library `system-calls` carries: a node tells them
nowhere (neither tracefs nor BTF has them), and a lean image has no header files.
"""

from __future__ import annotations

ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
"""The kernel's name of an architecture by `uname -m`: those that were tried."""


def is_syscall(name: str) -> bool:
    """Whether any Linux has a syscall of that name."""
    from system_calls.tables.names import syscalls_names

    return name in syscalls_names


def number_of(name: str, machine: str) -> int | None:
    """The number of a syscall.

    Args:
        name: Such as `openat`.
        machine: As `uname -m` tells it; one of `ARCHITECTURES`.

    Returns:
        None if that architecture has no such syscall.
    """
    from system_calls import NoSuchSystemCall, NotSupportedSystemCall, syscalls

    try:
        return int(syscalls().get(name, ARCHITECTURES[machine]))
    except (NoSuchSystemCall, NotSupportedSystemCall):
        return None
