"""This host, looked at without taking or making anything: for checks beside runs, by any user."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pytest_syslat.testbeds.cores import cores_beside
from pytest_syslat.testbeds.host_files import HostFiles
from pytest_syslat.testbeds.local import (
    cgroup2_mount,
    seeing_tracefs,
    smt_siblings,
    usable_cores,
)
from pytest_syslat.testbeds.protocol import (
    Completed,
    CoreTimes,
    Filter,
    Process,
    Role,
    TestbedError,
    TimeLimit,
    WorkloadScope,
)

ONLY_LOOKING = "nothing is changed on this host while it is only looked at"


class HostView(HostFiles):
    """A testbed on which programs can be run and files be read, and nothing else.

    No cgroup and no network namespace is made: all roles are this process's own place. Where
    tracefs is not mounted, it is mounted for the one program that asks, in a mount namespace that
    goes with it.
    """

    __test__: ClassVar[bool] = False
    name = "local"
    endpoint = None
    cluster = None
    generation = 0
    python = sys.executable
    workdir = Path("/nonexistent")

    def __init__(self, core: int) -> None:
        self.core = core
        self.node = platform.node()
        self.machine = platform.machine()
        self.beside, self.core_problem = cores_beside(core, usable_cores(), smt_siblings(core))

    @property
    def scope(self) -> WorkloadScope:
        """By what a run would filter; the number is that of nothing."""
        kind = Filter.PID_NAMESPACE if cgroup2_mount() is None else Filter.CGROUP
        return WorkloadScope(kind, 0)

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program to its end; raises TestbedError, TimeLimit."""
        command = seeing_tracefs(argv) if role is Role.TRACER else list(argv)
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeLimit(f"{argv[0]} did not end within {timeout_s:g} s") from None
        except OSError as error:
            raise TestbedError(f"cannot run {command[0]}: {error.strerror}") from error
        return Completed(
            tuple(argv),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def start(self, *_: object, **__: object) -> Process:
        """Refused."""
        raise TestbedError(ONLY_LOOKING)

    def write(self, *_: object, **__: object) -> None:
        """Refused."""
        raise TestbedError(ONLY_LOOKING)

    def remove(self, *_: object, **__: object) -> None:
        """Refused."""
        raise TestbedError(ONLY_LOOKING)

    def renew(self) -> None:
        """Nothing was made."""

    def core_times(self) -> CoreTimes | None:
        """There is no workload."""
        return None

    def throttled_count(self) -> int | None:
        """There is no workload."""
        return None

    def drop_page_cache(self) -> str | None:
        """Refused."""
        return ONLY_LOOKING

    def close(self) -> None:
        """Nothing was made."""
