"""Makes so many operations a second: runs by itself, with nothing but a Python interpreter.

Started as `python3 -I -S paced_calls.py COMM RATE TARGET`, it makes the operation of the lmbench
program COMM at RATE a second, for one second, and prints the mean time of an operation in lmbench's
form:

    lat_syscall, 100.0 of 100 operations a second: 9.1532 microseconds

The tracer knows the workload by lmbench's name, so this program takes that name, but only when all
is loaded and has been tried: what it does before and afterwards is not counted. TARGET is the file
to open, the program to execute, or the address to connect to.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import sys
import time
from collections.abc import Callable

PR_SET_NAME = 15
PR_SET_TIMERSLACK = 29
OWN_NAME = "paced_calls"
PORT = 31237
TRIES = 3
SECOND_NS = 1_000_000_000
TRIES_NS = 50_000_000
NOT_EXECUTED = 97
"""Exit code of a child whose execve has failed; lmbench's helper never ends with it."""

libc = ctypes.CDLL(None, use_errno=True)


def open_and_close(path: str) -> Callable[[], None]:
    """As `lat_syscall open`; Python's own open would add O_CLOEXEC, which the tracer leaves out."""
    name = os.fsencode(path)

    def operation() -> None:
        descriptor = libc.open(name, os.O_RDONLY)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        libc.close(descriptor)

    return operation


def fork_and_execute(path: str) -> Callable[[], None]:
    """As `lat_proc exec`: the helper's greeting goes nowhere, and its environment is empty."""

    def operation() -> None:
        child = os.fork()
        if child == 0:
            try:
                os.close(1)
                os.execve(path, [path], {})  # noqa: S606 (lmbench's own helper)
            finally:
                os._exit(NOT_EXECUTED)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == NOT_EXECUTED:
            raise OSError(0, "the helper was not executed")

    return operation


def connect_and_close(address: str) -> Callable[[], None]:
    """As `lat_connect`; the server resets the connection later, so none stays in TIME_WAIT."""

    def operation() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.connect((address, PORT))

    return operation


OPERATIONS = {
    "lat_syscall": open_and_close,
    "lat_proc": fork_and_execute,
    "lat_connect": connect_and_close,
}


def call_myself(name: str) -> None:
    """Take a name, as the kernel knows it."""
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def pace(
    operation: Callable[[], None], count: int, within_ns: int
) -> tuple[int, int, int, list[str]]:
    """Make `count` operations, evenly over a time.

    The moments at which they are due stand fast from the beginning: a late one does not delay the
    next, and what has piled up is made up for without a pause, for a twentieth of the time at most.

    Returns:
        Operations made, ns that they took in sum, ns from the begin to the last of them, and what
        has failed.
    """
    clock, sleep = time.perf_counter_ns, time.sleep
    done = spent_ns = 0
    failures: list[str] = []
    begin = called = now = clock()
    while done < count and now - begin < within_ns * 21 // 20:
        due = begin + (done + 1) * within_ns // count
        if now < due:
            sleep((due - now) / SECOND_NS)
        called = clock()
        try:
            operation()
        except OSError as error:
            failures.append(str(error.strerror))
        now = clock()
        spent_ns += now - called
        done += 1
    return done, spent_ns, called - begin, failures


def main() -> None:
    """Try, take the name, pace, give the name back and tell."""
    comm, rate, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    operation = OPERATIONS[comm](target)
    pace(operation, TRIES, TRIES_NS)
    # By default the kernel may wake a sleeper up to 50 µs late, to wake others with it.
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    call_myself(comm)
    done, spent_ns, took_ns, failures = pace(operation, rate, SECOND_NS)
    call_myself(OWN_NAME)
    print(
        f"{comm}, {done * SECOND_NS / took_ns:.1f} of {rate} operations a second: "
        f"{spent_ns / done / 1000:.4f} microseconds"
    )
    if failures:
        print(f"{len(failures)} of {done} operations failed: {failures[0]}")


if __name__ == "__main__":
    main()
