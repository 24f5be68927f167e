"""What is known of a syscall that can be measured, and the three that are measured by default.

Others come from `syscalls/NAME.toml` and from conftests, see `syscall_catalogue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

FILE, SERVER = "{file}", "{server}"
"""What stands in a command for the measured file and for the TCP server's address."""
DEFINITION = "definition of "
"""How the fact of sysinfo begins that tells the `words` of a syscall that is not built in."""
LONGEST_COMM = 15
"""Bytes that the kernel keeps of a program's name."""


@dataclass(frozen=True, slots=True)
class Syscall:
    """One syscall that can be measured: what is traced, and which program makes the calls."""

    name: str
    """As in test ids, budgets and files."""
    command: tuple[str, ...]
    """A program of lmbench (or the absolute path of one that prints its figure as lmbench does) and
    its arguments; `{file}` stands for a file that is there, `{server}` for the address of a TCP
    server that is started then."""
    call: str = ""
    """What the measured call is, in words for messages; empty: `NAME`."""
    comm: str = ""
    """Name of the process that makes the calls, as the kernel knows it at entry; empty: the
    program's."""
    tracepoint: str = ""
    """What stands behind `sys_enter_` and `sys_exit_`; empty: the name."""
    success: str = "ret >= 0"
    """Which return values are those of a call that succeeded."""
    other: str = ""
    """A bpftrace expression that holds at entry for calls of the process that are not measured,
    such as `args->flags & 0x80000`; they are counted apart."""
    other_calls: str = ""
    """Which calls these are, in words."""
    follows_openat: bool = False
    """Whether only calls are measured whose `fd` the task's last openat (without O_CLOEXEC) has
    returned, one for each openat."""
    returns_in_child: bool = False
    """Whether it returns a second time, with 0, in a new task: that is no return of the call."""
    task_per_call: bool = False
    """Whether each call is made by a task of its own."""
    mark: tuple[int, ...] | None = None
    """Arguments with which a call fails at once and changes nothing: by such a call the plugin
    speaks to its tracer. None: it does so by an openat."""
    paced: str = ""
    """Which operation of `--syslat-rate` makes the calls, too: `open`, `exec` or `connect`."""
    operation: str | None = None
    """Name of the bpftrace program that sums all syscalls of lmbench's operation, if there is one:
    then traced means can be compared with lmbench's own figure."""

    def __post_init__(self) -> None:
        """Fill in what follows from the rest."""
        for field in ("command", "mark"):
            if isinstance(value := getattr(self, field), list):
                object.__setattr__(self, field, tuple(value))
        program = PurePosixPath(str(self.command[0])).name if self.command else ""
        for field, value in (
            ("comm", program[:LONGEST_COMM]),
            ("tracepoint", self.name),
            ("call", self.name),
        ):
            if not getattr(self, field):
                object.__setattr__(self, field, value)

    def __str__(self) -> str:
        return self.name

    @property
    def events(self) -> tuple[str, str]:
        """The tracepoints at entry and at exit, in the group `syscalls`."""
        return f"sys_enter_{self.tracepoint}", f"sys_exit_{self.tracepoint}"

    @property
    def program(self) -> str:
        """What is run, by its file's name."""
        return PurePosixPath(self.command[0]).name

    @property
    def needs_server(self) -> bool:
        """Whether its program connects to the TCP server."""
        return any(SERVER in word for word in self.command)

    @property
    def words(self) -> str:
        """All that decides what is measured, on one line: figures of two definitions differ."""
        parts = [" ".join(self.command), f"by {self.comm}", f"at {self.tracepoint}", self.success]
        if self.other:
            parts.append(f"but {self.other}")
        flags = ("follows_openat", "returns_in_child", "task_per_call")
        return ", ".join([*parts, *(flag for flag in flags if getattr(self, flag))])


AT_FDCWD = -100
MARK_SOCKET = 100
"""File descriptor under which the marking process holds a TCP socket."""

OPENAT = Syscall(
    name="openat",
    command=("lat_syscall", "open", FILE),
    call="openat of the measured file",
    other="args->flags & 0x80000",
    other_calls="opens with O_CLOEXEC: the dynamic loader's, never lmbench's",
    mark=(AT_FDCWD, 0, 0),
    paced="open",
    operation="openat_close",
)
EXECVE = Syscall(
    name="execve",
    command=("lat_proc", "exec"),
    call="execve of lmbench's helper program",
    task_per_call=True,
    mark=(0, 0, 0),
    paced="exec",
)
CONNECT = Syscall(
    name="connect",
    command=("lat_connect", SERVER),
    call="connect to the TCP server",
    other="args->addrlen != 16",
    other_calls="connects that are not to an IPv4 address: name services', never lmbench's",
    mark=(MARK_SOCKET, 0, 16),
    paced="connect",
)
SYSCALLS: dict[str, Syscall] = {each.name: each for each in (EXECVE, OPENAT, CONNECT)}
"""The three that are measured unless others are asked for."""

NULL_SYSCALL = Syscall(
    name="getppid",
    command=("lat_syscall", "null"),
    call="getppid, which does nothing",
)
"""No arm is measured with it: it shows the tracer's own floor."""


def names_of(syscalls: Iterable[Syscall]) -> tuple[str, ...]:
    """Their names, in their order."""
    return tuple(each.name for each in syscalls)


def in_order(names: Iterable[str], first: Sequence[str] = tuple(SYSCALLS)) -> list[str]:
    """Names without repeats: those of `first` in its order, then others by the alphabet."""
    given = set(names)
    return [name for name in first if name in given] + sorted(given - set(first))
