"""Texts as a 6.x kernel prints them, with columns left out where they are many."""

from __future__ import annotations

from typing import cast

import pytest

from pytest_syslat.network import COUNTER_FILES, TcpCounters, parse_tcp_counters, read_tcp_counters
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError

PORT = 31237  # 0x7A05

NETSTAT = """\
TcpExt: SyncookiesSent EmbryonicRsts TW ListenOverflows ListenDrops TCPSynRetrans TCPOrigDataSent
TcpExt: 0 2 391 1111 1113 7 52012
IpExt: InNoRoutes InTruncatedPkts InOctets OutOctets
IpExt: 0 0 915281 915281
"""
SOCKSTAT = """\
sockets: used 164
TCP: inuse 9 orphan 0 tw 2345 alloc 12 mem 1
UDP: inuse 2 mem 3
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
"""
LISTEN, ESTABLISHED, TIME_WAIT = "0A", "01", "06"
LOOPBACK, ANY = "0100007F", "00000000"


def table(*sockets: tuple[str, str, str, int]) -> str:
    """A file such as /proc/net/tcp, of sockets with local and remote address, state and inode."""
    lines = [
        (
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
            "   uid  timeout inode"
        )
    ]
    for number, (ours, theirs, state, inode) in enumerate(sockets):
        lines.append(
            f"{number:4}: {ours} {theirs} {state} 00000000:00000000 00:00000000 00000000"
            f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0"
        )
    return "".join(f"{line}\n" for line in lines)


# 0x7A04 is the port below ours, 0x16 is 22, 0xC350 somebody's own.
TCP = table(
    (f"{LOOPBACK}:7A05", f"{ANY}:0000", LISTEN, 48213),
    (f"{ANY}:0016", f"{ANY}:0000", LISTEN, 19023),
    (f"{LOOPBACK}:7A05", f"{LOOPBACK}:C350", ESTABLISHED, 48300),
    (f"{LOOPBACK}:7A05", f"{LOOPBACK}:C352", TIME_WAIT, 0),
    (f"{LOOPBACK}:7A04", f"{ANY}:0000", LISTEN, 48214),
    (f"{LOOPBACK}:C350", f"{LOOPBACK}:7A05", LISTEN, 48215),
)
TCP6 = table(
    (f"{ANY * 4}:7A05", f"{ANY * 4}:0000", LISTEN, 51000),
    (f"{ANY * 3}01000000:0016", f"{ANY * 4}:0000", LISTEN, 19025),
)
FILES = {
    "/proc/net/netstat": NETSTAT,
    "/proc/net/sockstat": SOCKSTAT,
    "/proc/net/tcp": TCP,
    "/proc/net/tcp6": TCP6,
}


def test_counters_and_listeners() -> None:
    assert parse_tcp_counters(FILES, PORT) == TcpCounters(
        listen_overflows=1111,
        listen_drops=1113,
        syn_retransmits=7,
        time_wait=2345,
        listener_inodes=frozenset({48213, 51000}),
    )


def test_another_port() -> None:
    assert parse_tcp_counters(FILES, PORT - 1).listener_inodes == {48214}
    assert parse_tcp_counters(FILES, 22).listener_inodes == {19023, 19025}
    assert parse_tcp_counters(FILES, 80).listener_inodes == frozenset()


@pytest.mark.parametrize("change", [{"/proc/net/tcp6": ""}, None], ids=["empty", "missing"])
def test_without_ipv6(change: dict[str, str] | None) -> None:
    files = dict(FILES)
    if change is None:
        del files["/proc/net/tcp6"]
    else:
        files |= change
    assert parse_tcp_counters(files, PORT).listener_inodes == {48213}


@pytest.mark.parametrize("name", ["ListenOverflows", "ListenDrops", "TCPSynRetrans"])
def test_a_counter_that_the_kernel_does_not_have(name: str) -> None:
    files = FILES | {"/proc/net/netstat": NETSTAT.replace(name, "Other")}
    with pytest.raises(TestbedError, match=name):
        parse_tcp_counters(files, PORT)


@pytest.mark.parametrize("name", ["/proc/net/netstat", "/proc/net/sockstat"])
def test_an_empty_file(name: str) -> None:
    with pytest.raises(TestbedError):
        parse_tcp_counters(FILES | {name: ""}, PORT)


def test_no_file_at_all() -> None:
    """As when the reader could not be started in the server's place."""
    with pytest.raises(TestbedError):
        parse_tcp_counters({}, PORT)


class FakeTestbed:
    """Answers as the shell does that is asked for all files at once."""

    def __init__(
        self,
        contents: dict[str, str],
        *,
        client: dict[str, str] | None = None,
        returncode: int = 0,
    ) -> None:
        self._contents = {Role.SERVER: contents, Role.WORKLOAD: client or contents}
        self._returncode = returncode

    def run(self, argv: list[str], *, role: Role, timeout_s: float) -> Completed:
        assert argv[-len(COUNTER_FILES) :] == list(COUNTER_FILES)
        printed = "".join(f"== {name}\n{text}" for name, text in self._contents[role].items())
        return Completed(tuple(argv), self._returncode, printed, "")


def test_server_and_workload_in_one_network_namespace() -> None:
    testbed = FakeTestbed(FILES)
    assert read_tcp_counters(cast("Testbed", testbed), PORT) == parse_tcp_counters(FILES, PORT)


def test_each_counter_is_read_where_it_moves() -> None:
    """Server and workload in pods: each has a network namespace of its own."""
    client = {
        "/proc/net/netstat": (
            "TcpExt: TCPSynRetrans ListenOverflows ListenDrops\nTcpExt: 71 72 73\n"
        ),
        "/proc/net/sockstat": "TCP: inuse 1 orphan 0 tw 4000 alloc 3 mem 1\n",
        "/proc/net/tcp": "",
    }
    counters = read_tcp_counters(cast("Testbed", FakeTestbed(FILES, client=client)), PORT)
    server = parse_tcp_counters(FILES, PORT)
    assert counters.listen_overflows == server.listen_overflows != 72
    assert counters.listen_drops == server.listen_drops != 73
    assert counters.syn_retransmits == 71 != server.syn_retransmits
    assert counters.time_wait == 4000 > server.time_wait
    assert counters.listener_inodes == server.listener_inodes


def test_reading_where_ipv6_is_off() -> None:
    testbed = FakeTestbed(FILES | {"/proc/net/tcp6": ""}, returncode=1)
    assert read_tcp_counters(cast("Testbed", testbed), PORT).listener_inodes == {48213}


def test_reading_nothing() -> None:
    with pytest.raises(TestbedError):
        read_tcp_counters(cast("Testbed", FakeTestbed({}, returncode=1)), PORT)
