"""Calls of our own, made where the workload makes its calls: an agent that is on must see them."""

from __future__ import annotations

from pytest_syslat.tcp_server import LAT_CONNECT_PORT, server_address
from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

ROUNDS = 20
LIMIT_S = 30.0
CALLS = """
import os, socket, sys
address, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        os.execv("/bin/true", ["/bin/true"])
    os.waitpid(child, 0)
    os.close(os.open("/etc/passwd", os.O_RDONLY))
    with socket.socket() as client:
        client.settimeout(1)
        client.connect_ex((address, port))
"""


def make_calls(testbed: Testbed) -> None:
    """Execute a program, open a file and connect, `ROUNDS` times each; raises TestbedError.

    Whether the connection is accepted does not matter: the call is seen either way.
    """
    where = [server_address(testbed), str(LAT_CONNECT_PORT)]
    done = testbed.run(
        [testbed.python, "-I", "-S", "-c", CALLS, *where, str(ROUNDS)],
        role=Role.WORKLOAD,
        timeout_s=LIMIT_S,
    )
    if not done.ok:
        raise TestbedError(f"the canary calls could not be made: {done.complaint}")
