"""The mark: a call of our own that fails, by which a tracer is spoken to.

It is made in the workload's place by a process with a name of its own, so that no call of the
workload, whatever it returns, is taken for it.
"""

from __future__ import annotations

from pytest_syslat.syscall_numbers import NumbersMissing, number_of
from pytest_syslat.syscalls import MARK_SOCKET, OPENAT, Syscall
from pytest_syslat.testbeds.protocol import Testbed, TestbedError
from pytest_syslat.tracer_script import MARK_COMM

MARK_PROGRAM = f"""
import ctypes, os, socket, sys
held = socket.socket()
os.dup2(held.fileno(), {MARK_SOCKET})
libc = ctypes.CDLL(None)
numbers = [ctypes.c_long(int(each)) for each in sys.argv[1:]]
libc.prctl(15, b"{MARK_COMM}", 0, 0, 0)
libc.syscall(*numbers)
os._exit(0)
"""


def mark_command(testbed: Testbed, syscall: Syscall) -> list[str]:
    """The command that makes a mark for a syscall's tracer: of the syscall itself, or of openat.

    Raises:
        TestbedError: The node's architecture has no such syscall, or no numbers are installed.
    """
    marked = OPENAT if syscall.mark is None else syscall
    assert marked.mark is not None
    names = (marked.tracepoint, marked.name)
    try:
        numbers = [number_of(name, testbed.machine) for name in names]
    except NumbersMissing as problem:
        raise TestbedError(str(problem)) from None
    number = next((each for each in numbers if each is not None), None)
    if number is None:
        raise TestbedError(
            f"{syscall.name} is no syscall of {testbed.machine}: leave out its mark, then the "
            "tracer is marked by an openat"
        )
    arguments = [str(number), *map(str, marked.mark)]
    return [testbed.python, "-I", "-S", "-c", MARK_PROGRAM, *arguments]
