"""What every testbed can do: run and start programs in a role, and hand over files.

Agents, tracer and workload know a testbed only through this protocol, so each of them works on
every testbed that can carry it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from pytest_syslat.tools import Tool

if TYPE_CHECKING:
    from pytest_syslat.testbeds.outside import ClusterAccess

WORKLOAD_GROUP = 31237
"""Group id under which the workload runs: by it, rules of the node tell its tasks from others."""


PLACED = "placed-outside"
"""File in the working directory: what was put in place outside of it, a path a line, in order."""


class Role(enum.Enum):
    """As whom a program runs, or a file is seen; a testbed knows what that means on its node."""

    WORKLOAD = "workload"
    """On the measured core, in the cgroup and the network namespace that are measured."""
    SERVER = "server"
    """Where the TCP server is, never on the measured core."""
    TRACER = "tracer"
    """On the node with tracefs at hand, never on the measured core."""
    NODE = "node"
    """On the node itself, as its administrator, never on the measured core."""


class Filter(enum.Enum):
    """How the tracer tells the workload's calls from a stranger's."""

    CGROUP = "cgroup"
    PID_NAMESPACE = "pid namespace"


@dataclass(frozen=True, slots=True)
class WorkloadScope:
    """What identifies the workload's processes inside the kernel."""

    filter: Filter
    number: int
    """The cgroup v2 id, or the inode of the pid namespace."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.returncode == 0

    @property
    def complaint(self) -> str:
        """The last line that it wrote to stderr, else its exit code: for messages."""
        return last_line(self.stderr) or f"exit code {self.returncode}"


@dataclass(frozen=True, slots=True)
class FileState:
    """What a role sees of a file."""

    owner: int
    """User id of its owner."""
    reader: int
    """User id under which the role looks at it."""
    mode: int
    """Permission bits."""
    executable: bool
    """Whether the role may execute it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP server of the testbed's own."""

    address: str
    inode: int
    """Inode of its listening socket: proves later that the listener is ours."""


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Seconds since boot, or since the workload's cgroup was made."""

    elapsed_s: float
    """All time of the measured core, idle or not."""
    busy_s: float
    """Time in which the measured core ran anything."""
    stolen_s: float
    """Time in which the hypervisor ran somebody else."""
    workload_s: float
    """CPU time of the workload, its marks included."""


class TestbedError(Exception):
    """The testbed cannot do what was asked; the text is one line for the user."""

    __test__: ClassVar[bool] = False


class NodeLost(TestbedError):
    """The node cannot be reached: whatever was asked of it, more of it is in vain for now."""


class TimeLimit(TestbedError):
    """A program did not end within its time limit and was ended."""


class Process(Protocol):
    """A program that runs in the background."""

    @property
    def pid(self) -> int:
        """Its process id on the node."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; its exit code, or None if it still runs after `timeout_s`."""

    def end(self) -> None:
        """End it for certain, and all that it started."""


class Testbed(Protocol):
    """A node on which arms are measured, with all that this run made on it."""

    __test__: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """`local` or `kubernetes`."""

    @property
    def node(self) -> str:
        """The node's name: it travels with each trial and its files."""

    @property
    def core(self) -> int:
        """The measured core."""

    @property
    def core_problem(self) -> str | None:
        """Why tracer and server disturb the measured core, if they must: one sentence."""

    @property
    def scope(self) -> WorkloadScope:
        """What the tracer filters by."""

    @property
    def workdir(self) -> Path:
        """A directory of this run that every role has; what is in it may differ by role."""

    @property
    def python(self) -> str:
        """A Python interpreter that every role reaches."""

    @property
    def machine(self) -> str:
        """The node's hardware name, as `uname -m` tells it."""

    @property
    def endpoint(self) -> Endpoint | None:
        """The server that the testbed itself runs; None where one must be started."""

    @property
    def cluster(self) -> ClusterAccess | None:
        """By which agents in the cluster are installed and switched; None on a host."""

    @property
    def generation(self) -> int:
        """Grows when the workload's place had to be made anew: its files are gone then."""

    def renew(self) -> None:
        """Called before each trial: what somebody else has removed is put back.

        Raises:
            TestbedError: It could not be put back.
        """

    def facts(self) -> dict[str, str]:
        """What a figure depends on and only the testbed knows, by name, for sysinfo."""

    def find_lmbench(self, chosen: Path | None) -> Path:
        """The directory of lmbench's programs as the workload sees it; raises ToolMissing."""

    def find_tool(self, name: str) -> Tool | None:
        """A program that the node's administrator can run; None if it isn't there."""

    def libraries_of(self, program: Path) -> dict[str, str]:
        """Variables by which a program that isn't installed finds its libraries."""

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program to its end.

        Args:
            argv: Program and arguments; no shell is involved.
            role: As whom it runs.
            timeout_s: After so many seconds it is ended.
            env: Variables beside the inherited ones.

        Raises:
            TimeLimit: It did not end in time.
            TestbedError: It could not be started.
        """

    def start(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program in the background, its output in files on the node."""

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        """The content of a file, as `role` sees it, from `offset` on; raises TestbedError."""

    def write(self, path: Path, data: bytes, *, role: Role, executable: bool = False) -> None:
        """Write a file where `role` sees it, with its directories; raises TestbedError."""

    def remove(self, path: Path, *, role: Role) -> None:
        """Remove a file or an empty directory; nothing happens if it isn't there."""

    def state(self, path: Path, *, role: Role) -> FileState | None:
        """What `role` sees of a file; None if it isn't there."""

    def core_times(self) -> CoreTimes | None:
        """Times of the measured core and of the workload so far; None where they aren't told."""

    def throttled_count(self) -> int | None:
        """How often the workload's cgroup was throttled so far; None where it has no quota."""

    def drop_page_cache(self) -> str | None:
        """Drop the node's page cache; None, or the reason why that is not permitted."""

    def close(self) -> None:
        """Remove all that this run made on the node."""


def last_line(text: str) -> str:
    """The last line that is not blank, for messages; empty where there is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
