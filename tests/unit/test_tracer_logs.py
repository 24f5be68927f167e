"""Reading what bpftrace prints, in both formats, and the answers that a trial is made of."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from pytest_syslat.distribution import Distribution
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import Completed, Process, Role, Testbed, TimeLimit
from pytest_syslat.tracer import (
    EventLog,
    MapLog,
    TracerError,
    Tracing,
    parse_events,
    parse_version,
)

ENOENT, EACCES = 2, 13
ATTACHED = b'{"type": "attached_probes", "data": {"probes": 2}}\n'


def counts(**by_ns: int) -> Distribution:
    """`counts(ns_472=3)` is a distribution of three calls of 472 ns."""
    return Distribution.from_counts({int(name[3:]): count for name, count in by_ns.items()})


def maps(
    ns: Mapping[int, int],
    failed: Mapping[str, int] | None = None,
    *,
    total: int,
    other: int | None = None,
    start: Mapping[int, int] | None = None,
) -> bytes:
    """A dump as `bpftrace -f json` prints it: empty maps are left out, a line a map."""
    shown: list[dict[str, object]] = []
    if ns:
        shown.append({"@ns": {str(key): count for key, count in ns.items()}})
    if failed:
        shown.append({"@failed": dict(failed)})
    if other is not None:
        shown.append({"@other": other})
    if start:
        shown.append({"@start": {str(key): value for key, value in start.items()}})
    shown.append({"@total": total})
    lines = [json.dumps({"type": "map", "data": data}) for data in shown]
    return "".join(f"{line}\n" for line in lines).encode()


class TestMapLog:
    log = MapLog()

    def test_one_dump(self) -> None:
        text = ATTACHED + maps(
            {472: 3, 480: 1, 65664: 2}, {"2,950": 4, "13,1000": 1, "2,960": 1}, total=12, other=45
        )
        assert self.log.holds_dump(text)
        dump = self.log.last_dump(text)
        assert dump.succeeded == counts(ns_472=3, ns_480=1, ns_65664=2)
        # Latencies of failed calls are told apart in the map, not in the result.
        assert dump.failures == {ENOENT: 5, EACCES: 1}
        assert (dump.other, dump.total, dump.stamps) == (45, 12, 0)
        # 6 succeeded and 6 failed.
        assert dump.arrived == 12

    def test_closes_that_were_summed(self) -> None:
        text = b"".join(
            json.dumps({"type": "map", "data": {name: value}}).encode() + b"\n"
            for name, value in (
                ("@ns", {"500": 2}),
                ("@close_ns", 730),
                ("@close_calls", 2),
                ("@total", 2),
            )
        )
        dump = self.log.last_dump(text)
        assert (dump.closes, dump.close_ns) == (2, 730)
        later = self.log.last_dump(text + maps({500: 2}, total=2))
        assert (later.closes, later.close_ns) == (0, 0)

    def test_first_dump_of_all(self) -> None:
        """Nothing has been counted, so only the total is printed."""
        text = ATTACHED + maps({}, total=0)
        assert self.log.holds_dump(text)
        dump = self.log.last_dump(text)
        assert dump.succeeded == Distribution.empty()
        assert (dump.failures, dump.other, dump.total) == ({}, 0, 0)

    def test_the_last_of_several_dumps_counts(self) -> None:
        text = (
            maps({500: 2}, {"2,700": 1}, total=3)
            + maps({500: 2, 600: 5}, {"2,700": 1, "13,700": 2}, total=10)
            + b"\n\n"
            + maps({500: 2, 600: 6}, total=11, start={28013: 3383209165232, 28022: 1})
        )
        dump = self.log.last_dump(text)
        assert dump.succeeded == counts(ns_500=2, ns_600=6)
        # This dump shows no failures: nothing of an earlier one is mixed in.
        assert dump.failures == {}
        assert (dump.total, dump.stamps) == (11, 2)

    @pytest.mark.parametrize("kept", [0, 10, 60])
    def test_a_dump_that_is_still_under_way_is_no_dump(self, kept: int) -> None:
        whole = maps({500: 2}, total=2)
        later = maps({500: 7, 600: 1}, total=8)
        first_line, rest = later.split(b"\n", 1)
        parts = [first_line[:kept], first_line + b"\n" + rest[: len(rest) - 4]]
        for part in parts:
            assert not self.log.holds_dump(part)
            assert self.log.last_dump(whole + part).total == 2
            assert self.log.last_dump(whole + part).succeeded == counts(ns_500=2)

    def test_nothing_yet(self) -> None:
        for text in (b"", ATTACHED, b"Attaching 2 probes...\n"):
            assert not self.log.holds_dump(text)
            assert self.log.last_dump(text).total == 0

    def test_lost_events_are_summed(self) -> None:
        lost = b'{"type": "lost_events", "data": {"events": %d}}\n'
        text = ATTACHED + lost % 3 + maps({500: 2}, total=2) + lost % 40
        assert self.log.lost(text) == 43
        assert self.log.lost(ATTACHED) == 0
        assert self.log.last_dump(text).total == 2

    def test_lines_of_other_kinds_are_passed_over(self) -> None:
        text = (
            b"WARNING: odd\n"
            b'{"type": "printf", "data": "hello"}\n'
            b'{"type": "map", "data": {"@mine": {"1": 2}}}\n'
            b"[1, 2]\n" + maps({500: 2}, total=2)
        )
        assert self.log.last_dump(text).succeeded == counts(ns_500=2)


EVENTS = b"""\
Attaching 2 probes...
@other: 0
@total: 0
472 3
480 3
950 -2
472 4

@other: 7
@total: 4
"""


class TestEventLog:
    log = EventLog(SYSCALLS["openat"])

    def test_one_dump(self) -> None:
        assert self.log.holds_dump(EVENTS)
        dump = self.log.last_dump(EVENTS)
        assert dump.succeeded == counts(ns_472=2, ns_480=1)
        assert dump.failures == {ENOENT: 1}
        assert (dump.other, dump.total, dump.stamps, dump.arrived) == (7, 4, 0, 4)

    def test_later_calls_are_added_to_earlier_ones(self) -> None:
        """Lines are printed once, maps anew at each mark."""
        later = b"500 3\n700 -13\n@other: 9\n@total: 6\n\n\n@other: 9\n@start[812]: 99\n@total: 6\n"
        dump = self.log.last_dump(EVENTS + later)
        assert dump.succeeded == counts(ns_472=2, ns_480=1, ns_500=1)
        assert dump.failures == {ENOENT: 1, EACCES: 1}
        assert (dump.other, dump.total, dump.stamps, dump.arrived) == (9, 6, 1, 6)

    def test_no_calls_yet(self) -> None:
        dump = self.log.last_dump(b"Attaching 2 probes...\n@total: 0\n")
        assert dump.succeeded == Distribution.empty()
        assert (dump.failures, dump.total) == ({}, 0)

    @pytest.mark.parametrize("text", [b"", b"472 3\n", b"@other: 7\n", b"@tot", b"@total: 1"])
    def test_what_is_no_whole_dump(self, text: bytes) -> None:
        """Without its line end the number may go on."""
        assert not self.log.holds_dump(text)

    @pytest.mark.parametrize(
        "tail", [b"500 3\n", b"500 1", b"500 -", b"500 ", b"50", b"@oth", b"@total: 1"]
    )
    def test_what_comes_after_the_last_dump_does_not_count_yet(self, tail: bytes) -> None:
        """Also when bpftrace was killed in the middle of a line: 500 1 may be 500 13."""
        dump = self.log.last_dump(EVENTS + tail)
        assert dump.succeeded == counts(ns_472=2, ns_480=1)
        assert dump.failures == {ENOENT: 1}
        assert (dump.other, dump.total) == (7, 4)

    def test_lost_events_are_summed(self) -> None:
        text = EVENTS + b"Lost 12 events\n500 3\nLost 5 events\n@total: 22\n"
        assert self.log.lost(text) == 17
        assert self.log.lost(EVENTS) == 0
        assert self.log.last_dump(text).total == 22
        assert self.log.last_dump(text).arrived == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"Attaching 2 probes...\n\n@total: 0\n", []),
        (b"472 3\n", [(472, 3)]),
        (b"472 3", [(472, 3)]),
        (
            b"472 3\n\nLost 2 events\n480 -14\n@total: 2\n65000000000 0\n",
            [(472, 3), (480, -14), (65_000_000_000, 0)],
        ),
        (b"@start[28013]: 3383209165232\n1 2\n", [(1, 2)]),
    ],
)
def test_parse_events(text: bytes, expected: list[tuple[int, int]]) -> None:
    latencies_ns, results = parse_events(text)
    assert latencies_ns.dtype == results.dtype == np.int64
    assert list(zip(latencies_ns.tolist(), results.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("bpftrace v0.17.0\n", (0, 17)),
        ("bpftrace v0.14.0-105-g9c54", (0, 14)),
        ("bpftrace v0.20.2\n", (0, 20)),
        ("bpftrace 1.2\n", (1, 2)),
    ],
)
def test_parse_version(text: str, number: tuple[int, int]) -> None:
    assert parse_version(text) == number


def test_no_version() -> None:
    with pytest.raises(TracerError, match="'bpftrace: unknown option'"):
        parse_version("bpftrace: unknown option\n")


class FakeBpftrace:
    """A testbed on which only bpftrace runs: it prints the next text at each mark and signal.

    `None` stands for a mark that is not answered because bpftrace is killed by it.
    """

    python = "python3"

    def __init__(
        self, directory: Path, answers: Sequence[bytes | None], last: bytes | None
    ) -> None:
        self.stdout, self.stderr = directory / "stdout", directory / "stderr"
        self.stdout.write_bytes(b"")
        self.stderr.write_bytes(b"")
        self._answers = list(answers)
        self._last = last
        self.code: int | None = None
        self.marks: list[Sequence[str]] = []
        self.ended = False
        self.slow = False
        self.printed = self.stdout.read_bytes()

    pid = 4711

    def _print(self, text: bytes | None) -> None:
        if text is None:
            self.code = -signal.SIGKILL
        else:
            self.printed += text
            with self.stdout.open("ab") as file:
                file.write(text)

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        if self.slow:
            raise TimeLimit("python3 did not end within 20 s")
        assert role is Role.WORKLOAD
        self.marks.append(argv)
        self._print(self._answers.pop(0))
        return Completed(tuple(argv), 0, "", "")

    machine = "x86_64"

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        assert role is Role.TRACER
        return path.read_bytes()[offset:]

    def remove(self, path: Path, *, role: Role) -> None:
        assert role is Role.TRACER
        path.unlink()

    def poll(self) -> int | None:
        return self.code

    def signal(self, number: int) -> None:
        assert number == signal.SIGINT
        self._print(self._last)
        if self.code is None:
            self.code = 0

    def wait(self, timeout_s: float) -> int | None:
        return self.code

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def tracing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Tracing, FakeBpftrace]]:
    """Make a running bpftrace that gives certain answers to marks, and a last one at its end."""

    def made(
        answers: Sequence[bytes | None],
        last: bytes | None,
        *,
        mode: str = "distribution",
        map_keys: int = 4096,
    ) -> tuple[Tracing, FakeBpftrace]:
        fake = FakeBpftrace(tmp_path, answers, last)
        running = Tracing(
            cast("Testbed", fake),
            SYSCALLS["openat"],
            cast("Process", fake),
            mode,
            fake.stdout,
            fake.stderr,
            map_keys,
        )
        return running, fake

    return made


Made = Callable[..., tuple[Tracing, FakeBpftrace]]


def test_a_trial_is_the_difference_to_the_dump_before_it(tracing: Made) -> None:
    running, fake = tracing(
        [
            # Warm-up: 10 calls of 500 ns and 2 failed ones.
            maps({500: 10}, {"2,900": 2}, total=12, other=3),
            maps({500: 14, 600: 6}, {"2,900": 2}, total=22, other=5),
        ],
        maps({500: 14, 600: 6}, {"2,900": 2, "13,800": 1}, total=23, other=6),
    )
    running.begin()
    assert running.calls_so_far() == 10
    assert running.failed_so_far() == 0
    trace, printed, complaints = running.stop()
    assert trace.succeeded == counts(ns_500=4, ns_600=6)
    assert trace.failures == {EACCES: 1}
    assert (trace.total, trace.other, trace.lost) == (11, 3, 0)
    assert trace.arrived == 11
    # One more than when the last run had ended.
    assert trace.after_last_run == 1
    assert trace.problem is None
    assert not trace.stamps_full
    assert printed == fake.printed
    # What has been fetched is deleted on the node.
    assert not fake.stdout.exists()
    assert not fake.stderr.exists()
    assert complaints == ""
    assert fake.ended


def test_the_same_with_a_line_a_call(tracing: Made) -> None:
    running, _ = tracing(
        [
            b"500 3\n500 3\n900 -2\n@other: 3\n@total: 3\n",
            b"600 3\n700 3\n800 -2\n@other: 5\n@total: 6\n",
        ],
        b"\n\n@other: 5\n@total: 6\n",
        mode="events",
    )
    running.begin()
    assert running.calls_so_far() == 3
    assert running.failed_so_far() == 1
    trace, _, _ = running.stop()
    assert trace.succeeded == counts(ns_600=1, ns_700=1)
    assert trace.failures == {ENOENT: 1}
    assert (trace.total, trace.other, trace.after_last_run) == (3, 2, 0)


def test_a_mark_is_a_call_of_the_traced_syscall_that_fails(tracing: Made) -> None:
    running, fake = tracing([maps({}, total=0)], maps({}, total=0))
    running.begin()
    [argv] = fake.marks
    # openat is 257 on x86-64; AT_FDCWD is -100, and a path at address 0 gives EFAULT.
    assert list(argv[-4:]) == ["257", "-100", "0", "0"]
    assert 'prctl(15, b"syslat-mark"' in argv[-5]


def test_a_full_map_of_stamps(tracing: Made) -> None:
    last = maps({500: 2}, total=2, start=dict.fromkeys(range(4), 1))
    for keys, full in ((5, False), (4, True)):
        running, _ = tracing([maps({}, total=0)], last, map_keys=keys)
        running.begin()
        assert running.stop()[0].stamps_full is full


def test_calls_that_do_not_arrive_are_told_apart(tracing: Made) -> None:
    lost = b'{"type": "lost_events", "data": {"events": 9}}\n'
    running, _ = tracing([maps({}, total=0)], lost + maps({500: 4}, total=13))
    running.begin()
    trace, _, _ = running.stop()
    assert (trace.total, trace.arrived, trace.lost) == (13, 4, 9)


def test_bpftrace_that_dies_between_two_marks(tracing: Made) -> None:
    running, fake = tracing([maps({500: 1}, total=1), maps({500: 9}, total=9)], None)
    running.begin()
    assert running.calls_so_far() == 8
    fake.code = -signal.SIGSEGV
    fake.stderr.write_text("couldn't set RLIMIT_MEMLOCK for bpftrace.\nout of memory\n\n")
    trace, _, complaints = running.stop()
    # What it had told before is kept, and refused by this.
    assert trace.problem == "bpftrace ended early, by signal SIGSEGV: out of memory"
    assert trace.succeeded == counts(ns_500=8)
    assert "RLIMIT_MEMLOCK" in complaints


def test_bpftrace_that_dies_at_a_mark(tracing: Made) -> None:
    running, _ = tracing([maps({500: 1}, total=1), None], None)
    running.begin()
    with pytest.raises(TracerError, match="bpftrace ended by signal SIGKILL: it said nothing"):
        running.calls_so_far()


def test_bpftrace_that_dies_in_the_middle_of_a_line(tracing: Made) -> None:
    """The trial is refused because of its death, with what arrived before."""
    running, fake = tracing([b"@total: 0\n", b"500 3\n600 3\n@total: 2\n70"], None, mode="events")
    running.begin()
    assert running.calls_so_far() == 2
    fake.code = -signal.SIGKILL
    trace, _, _ = running.stop()
    assert trace.succeeded == counts(ns_500=1, ns_600=1)
    assert trace.problem == "bpftrace ended early, by signal SIGKILL: it said nothing"


def test_bpftrace_that_ends_with_an_error(tracing: Made) -> None:
    running, fake = tracing([maps({}, total=0)], maps({500: 1}, total=1))
    running.begin()

    def end_badly(number: int) -> None:
        fake._print(maps({500: 1}, total=1))
        fake.code = 1

    fake.signal = end_badly  # type: ignore[method-assign]
    trace, _, _ = running.stop()
    assert trace.problem is not None
    assert trace.problem.endswith("with exit code 1: it said nothing")


def test_a_mark_that_cannot_be_made(tracing: Made) -> None:
    running, fake = tracing([], None)
    fake.slow = True
    with pytest.raises(TracerError, match="mark could not be made: python3 did not end within"):
        running.begin()
