"""What the kernel's text files tell of cores and cgroups."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from pytest_syslat.testbeds.protocol import CoreTimes


def number_of(lines: Iterable[str], name: str) -> int | None:
    """A number in lines of `name number`."""
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def core_times(
    stat: Iterable[str], cpu_stat: Iterable[str], core: int, ticks_a_second: int
) -> CoreTimes | None:
    """Times of a core and of a cgroup.

    Args:
        stat: Lines of `/proc/stat`.
        cpu_stat: Lines of the cgroup's `cpu.stat` (v2).
        core: The measured core.
        ticks_a_second: Unit of `/proc/stat`.

    Returns:
        None where a number is missing.
    """
    used_us = number_of(cpu_stat, "usage_usec")
    fields = next((line.split() for line in stat if line.startswith(f"cpu{core} ")), None)
    if used_us is None or fields is None:
        return None
    ticks_s = [int(ticks) / ticks_a_second for ticks in fields[1:9]]
    idle_s, stolen_s = ticks_s[3] + ticks_s[4], ticks_s[7]
    return CoreTimes(
        elapsed_s=sum(ticks_s),
        busy_s=sum(ticks_s) - idle_s - stolen_s,
        stolen_s=stolen_s,
        workload_s=used_us / 1e6,
    )


def cgroup2_mount(mountinfo: Iterable[str]) -> PurePosixPath | None:
    """Where cgroup v2 is mounted: the only hierarchy, or the unified one of a hybrid host.

    Args:
        mountinfo: Lines of `/proc/PID/mountinfo`.
    """
    for line in mountinfo:
        fields, _, source = line.partition(" - ")
        if source.split()[0] == "cgroup2":
            return PurePosixPath(fields.split()[4])
    return None


def cpu1_mount(mountinfo: Iterable[str]) -> PurePosixPath | None:
    """Where the `cpu` controller of cgroup v1 is mounted, if it is."""
    for line in mountinfo:
        fields, _, source = line.partition(" - ")
        kind, _, options = source.split(maxsplit=2)
        if kind == "cgroup" and "cpu" in options.split(","):
            return PurePosixPath(fields.split()[4])
    return None


def cgroup_path(cgroup: Iterable[str], controller: str) -> PurePosixPath | None:
    """A process's cgroup of a v1 controller, or of v2 for an empty name.

    Args:
        cgroup: Lines of `/proc/PID/cgroup`.
        controller: Such as `cpu`.
    """
    for line in cgroup:
        _, controllers, path = line.strip().split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def with_ancestors(mount: PurePosixPath, path: PurePosixPath) -> list[PurePosixPath]:
    """A cgroup's directory and those of all cgroups above it, the mount's own included."""
    directory = mount / str(path).lstrip("/")
    directories = [directory, *directory.parents]
    return directories[: directories.index(mount) + 1]
