"""The TCP counters of server and workload, read before and after a trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

LISTEN_STATE = "0A"
READ_LIMIT_S = 10.0
COUNTER_FILES = ("/proc/net/netstat", "/proc/net/sockstat", "/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class TcpCounters:
    """Counters of a network namespace since it was made, and its sockets of the moment."""

    listen_overflows: int
    listen_drops: int
    syn_retransmits: int
    time_wait: int
    listener_inodes: frozenset[int]
    """Inodes of the sockets that listen on the port that was asked for."""


def read_tcp_counters(testbed: Testbed, port: int) -> TcpCounters:
    """Read each counter where it moves; raises TestbedError.

    Server and workload share a network namespace on a host and have one each in pods: an overflow
    is counted by the server, a repeated SYN by the client, and TIME_WAIT by whoever closed first.
    """
    server = _read_counters_of(Role.SERVER, testbed, port)
    client = _read_counters_of(Role.WORKLOAD, testbed, port)
    return replace(
        server,
        syn_retransmits=client.syn_retransmits,
        time_wait=max(server.time_wait, client.time_wait),
    )


def _read_counters_of(role: Role, testbed: Testbed, port: int) -> TcpCounters:
    # /proc/net is that of the reader's namespace, so a reader is run there. IPv6 may be off.
    shown = testbed.run(
        ["sh", "-c", 'for file; do echo "== $file"; cat "$file" 2>/dev/null; done', "sh"]
        + list(COUNTER_FILES),
        role=role,
        timeout_s=READ_LIMIT_S,
    )
    parts = dict(part.split("\n", 1) for part in shown.stdout.split("== ")[1:])
    return parse_tcp_counters(parts, port)


def parse_tcp_counters(files: dict[str, str], port: int) -> TcpCounters:
    """Parse the contents of COUNTER_FILES; raises TestbedError where a counter is missing."""
    try:
        extended = _paired_lines(files["/proc/net/netstat"], "TcpExt:")
        return TcpCounters(
            listen_overflows=extended["ListenOverflows"],
            listen_drops=extended["ListenDrops"],
            syn_retransmits=extended["TCPSynRetrans"],
            time_wait=_time_wait(files["/proc/net/sockstat"]),
            listener_inodes=frozenset(
                inode
                for table in ("/proc/net/tcp", "/proc/net/tcp6")
                for inode in _listeners(files.get(table, ""), port)
            ),
        )
    except KeyError as error:
        raise TestbedError(f"this kernel has no TCP counter {error}") from error


def _paired_lines(text: str, prefix: str) -> dict[str, int]:
    """Parse the kernel's format of a line of names above a line of numbers."""
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith(prefix)]
    names, numbers = lines if len(lines) == 2 else ([], [])
    return dict(zip(names, map(int, numbers), strict=True))


def _time_wait(sockstat: str) -> int:
    for line in sockstat.splitlines():
        if line.startswith("TCP:"):
            fields = line.split()
            return int(fields[fields.index("tw") + 1])
    raise KeyError("tw")


def _listeners(table: str, port: int) -> list[int]:
    inodes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.append(int(fields[9]))
    return inodes
