#!/usr/bin/env python3
"""relay.py LISTEN NETNS TARGET: pass TCP connections on into another network namespace.

The socket that listens is opened here, in the caller's namespace. Then the process moves into the
other one, so that every connection that it makes from then on starts there. LISTEN and TARGET are
HOST:PORT. It knows nothing of what it passes on, so websockets and watches work.
"""

import asyncio
import ctypes
import os
import resource
import socket
import sys

CLONE_NEWNET = 0x40000000


def address(text: str) -> tuple[str, int]:
    """Split HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def enter(path: str) -> None:
    """Move this process into the network namespace that a file stands for."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(path, os.O_RDONLY)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    os.close(namespace)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, and pass that on: the other direction may still live."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def serve(listener: socket.socket, target: tuple[str, int]) -> None:
    """Pass on every connection until the process is ended."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
            writers.append(far_writer)
            copies = [
                asyncio.create_task(copy(reader, far_writer)),
                asyncio.create_task(copy(far_reader, writer)),
            ]
            done, pending = await asyncio.wait(copies, return_when=asyncio.FIRST_EXCEPTION)
            for task in pending:
                task.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            if any(task.exception() for task in done):
                # What was cut off must not look like a regular end.
                for each in writers:
                    each.transport.abort()
        except OSError:
            writer.transport.abort()
        finally:
            for each in writers:
                each.close()

    server = await asyncio.start_server(relay, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Listen here, then move, then pass on."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        listener = socket.create_server(address(sys.argv[1]), backlog=1024)
        enter(sys.argv[2])
    except OSError as error:
        sys.exit(f"relay: error: {sys.argv[1]}: {error}")
    asyncio.run(serve(listener, address(sys.argv[3])))


if __name__ == "__main__":
    main()
