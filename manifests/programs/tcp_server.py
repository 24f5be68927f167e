"""The TCP server that lat_connect dials: runs by itself, with nothing but a Python interpreter.

Started as `python3 -I -S tcp_server.py ADDRESS PORT`, it prints `ready INODE` (the inode of
its listening socket, which proves later that the listener is ours) and accepts until it is killed.

It resets each connection once the next one has come: with SO_LINGER (1, 0), which accepted sockets
inherit, no connection is left in TIME_WAIT, so the ephemeral ports never run out. Its backlog is as
deep as the kernel allows, so no SYN is dropped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

BACKLOG = 65535
LINGER_RESET = struct.pack("ii", 1, 0)


def serve(address: str, port: int) -> None:
    """Listen, say so, and accept and reset connections for ever."""
    # A server that waits for its core lets the backlog fill up.
    with contextlib.suppress(PermissionError):
        os.nice(-5)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        print("ready", os.fstat(listener.fileno()).st_ino, flush=True)
        previous, _ = listener.accept()
        while True:
            connection, _ = listener.accept()
            # Not the new one: a reset that comes while the client is still inside connect makes
            # that call fail. Whoever dials again has left the connect before.
            previous.close()
            previous = connection


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
