"""The catalogue of syscalls: what is traced, and which lmbench program makes the calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Syscall:
    """One syscall that can be measured.

    `mark_arguments` make the call fail with EFAULT: the tracer's own mark, which no lmbench
    program ever produces.
    """

    name: str
    comm: str
    """Name of the lmbench program, as the kernel knows it at entry."""
    number_by_machine: dict[str, int]
    """The syscall's number, by `uname -m`."""
    mark_arguments: tuple[int, ...]
    measured_call: str
    """What the measured call is, in words for messages."""
    operation: str | None = None
    """Name of the bpftrace program that sums all syscalls of lmbench's operation, if there is one:
    then traced means can be compared with lmbench's own figure."""

    @property
    def events(self) -> tuple[str, str]:
        """The tracepoints at entry and at exit, in the group `syscalls`."""
        return f"sys_enter_{self.name}", f"sys_exit_{self.name}"


AT_FDCWD = -100
MARK_SOCKET = 100
"""File descriptor under which the marking process holds a TCP socket."""

SYSCALLS: dict[str, Syscall] = {
    syscall.name: syscall
    for syscall in (
        Syscall(
            name="execve",
            comm="lat_proc",
            number_by_machine={"x86_64": 59, "aarch64": 221},
            mark_arguments=(0, 0, 0),
            measured_call="execve of lmbench's helper program",
        ),
        Syscall(
            name="openat",
            comm="lat_syscall",
            number_by_machine={"x86_64": 257, "aarch64": 56},
            mark_arguments=(AT_FDCWD, 0, 0),
            measured_call="openat of the measured file",
            operation="openat_close",
        ),
        Syscall(
            name="connect",
            comm="lat_connect",
            number_by_machine={"x86_64": 42, "aarch64": 203},
            mark_arguments=(MARK_SOCKET, 0, 16),
            measured_call="connect to the TCP server",
        ),
    )
}

NULL_SYSCALL = Syscall(
    name="getppid",
    comm="lat_syscall",
    # Of openat, by which the tracer is marked here: getppid itself cannot fail.
    number_by_machine=SYSCALLS["openat"].number_by_machine,
    mark_arguments=SYSCALLS["openat"].mark_arguments,
    measured_call="getppid, which does nothing",
)
"""No arm is measured with it: it shows the tracer's own floor."""
