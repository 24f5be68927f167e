"""bpftrace: start it, wait until it is attached, ask it, stop it, account for every call.

The tracer is spoken to by marks: a syscall of our own that fails, made in the workload's place by a
process with a name of its own. bpftrace prints its maps when it sees one. The first answer proves
that the probes are attached; later ones tell how many calls were counted so far. The last dump is
bpftrace's own, when it ends. What a trial recorded is the difference between the last dump and the
one that was taken before recording began.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pytest_syslat.distribution import Distribution
from pytest_syslat.marks import mark_command
from pytest_syslat.syscall_numbers import ARCHITECTURES
from pytest_syslat.syscalls import Syscall
from pytest_syslat.testbeds.protocol import (
    Filter,
    Process,
    Role,
    Testbed,
    TestbedError,
    TimeLimit,
)
from pytest_syslat.tracer_script import IN_SCOPE, MARK_COMM, own_script, script, script_name

OLDEST_VERSION = (0, 14)
NEWEST_TRIED = (0, 27)
RENAMED_MAP_KEYS = (0, 20)
MAP_KEYS = 32768
MAP_KEYS_FACT = "bpftrace map keys"
"""Under this name the facts of a run tell how many keys a map could hold."""
ATTACH_LIMIT_S = 60.0
ANSWER_LIMIT_S = 10.0
FIRST_ANSWER_LIMIT_S = 0.5
MARK_LIMIT_S = 20.0
STOP_LIMIT_S = 15.0
POLL_S = 0.01
RUNTIME_ERRORS = ("helper_error", "runtime_error")
PID_NAMESPACE_FILTER = (
    "((struct task_struct *)curtask)->nsproxy->pid_ns_for_children->ns.inum == (uint64)$1"
)
SUCCEEDED: dict[str, Callable[[NDArray[np.int64], int], NDArray[np.bool_]]] = {
    ">=": np.greater_equal,
    ">": np.greater,
    "==": np.equal,
}
"""Comparisons of `Syscall.success`."""


class TracerError(Exception):
    """bpftrace failed; the text is one line for the user."""


@dataclass(frozen=True)
class Dump:
    """What bpftrace had counted at one moment, since it was attached."""

    succeeded: Distribution
    failures: dict[int, int]
    """Failed calls by errno; by what they returned, with the sign changed, if that is no errno."""
    other: int
    total: int
    stamps: int = 0
    """Start stamps that are held, of tasks that have ended, too; told by the last dump only."""
    closes: int = 0
    """Calls of close that belong to a counted openat; 0 where they are not traced."""
    close_ns: int = 0
    """Their latencies in sum."""

    @property
    def arrived(self) -> int:
        """Calls in the maps; less than `total` where a map was too small."""
        return self.succeeded.count + sum(self.failures.values())


@dataclass(frozen=True)
class Trace:
    """What one trial recorded."""

    succeeded: Distribution
    failures: dict[int, int]
    """Failed calls of the measured operation by errno."""
    other: int
    """Calls of the same syscall that aren't the measured operation (the loader's opens)."""
    total: int
    """All measured calls, counted in the kernel apart from the rest."""
    lost: int
    """Events that bpftrace itself reports as lost."""
    after_last_run: int
    """Calls counted after the last run of the workload had ended."""
    problem: str | None
    """Why bpftrace ended otherwise than it was told to."""
    stamps_full: bool = False
    """Whether the map of start stamps was full: calls of further tasks were not counted at all."""
    closes: int = 0
    """Calls of close that belong to a succeeded openat; 0 where they are not traced."""
    close_ns: int = 0
    """Their latencies in sum."""

    @property
    def arrived(self) -> int:
        """Calls whose latency is known."""
        return self.succeeded.count + sum(self.failures.values())


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of `bpftrace --version`; raises TracerError."""
    found = re.search(r"v?([0-9]+)\.([0-9]+)", text)
    if found is None:
        raise TracerError(f"bpftrace does not tell its version but {text.strip()!r}")
    return int(found[1]), int(found[2])


def bpftrace_version(testbed: Testbed, role: Role) -> str:
    """What `bpftrace --version` prints; raises TracerError if it isn't there, or too old."""
    try:
        answer = testbed.run(["bpftrace", "--version"], role=role, timeout_s=MARK_LIMIT_S)
    except TestbedError:
        answer = None
    if answer is None or not answer.ok:
        raise TracerError("bpftrace was not found: install it (apt-get install bpftrace)")
    version = answer.stdout.strip()
    if parse_version(version) < OLDEST_VERSION:
        raise TracerError(f"{version} is too old: 0.14 or newer is needed")
    return version


class Tracer:
    """bpftrace on a testbed."""

    def __init__(self, testbed: Testbed, rootdir: Path, mode: str) -> None:
        """Find out the version; raises TracerError.

        Args:
            testbed: Where it runs.
            rootdir: Whose copies of the bpftrace programs win over the shipped ones.
            mode: `distribution` or `events`.
        """
        self._testbed = testbed
        self._rootdir = rootdir
        self.mode = mode
        self.version = bpftrace_version(testbed, Role.TRACER)
        if testbed.machine not in ARCHITECTURES:
            raise TracerError(
                f"the syscall numbers of {testbed.machine} are not known: "
                f"{' and '.join(ARCHITECTURES)} are"
            )
        self._number = parse_version(self.version)

    @property
    def map_keys(self) -> int:
        """How many keys a map can hold: ours, unless the variable of this bpftrace is set.

        Raises:
            TracerError: It is set to something else than a number.
        """
        given = os.environ.get(self._map_keys_variable, str(MAP_KEYS))
        if not given.isdecimal():
            raise TracerError(
                f"{self._map_keys_variable} is {given!r}: give a whole number, or unset it"
            )
        return int(given)

    @property
    def _map_keys_variable(self) -> str:
        renamed = self._number >= RENAMED_MAP_KEYS
        return "BPFTRACE_MAX_MAP_KEYS" if renamed else "BPFTRACE_MAP_KEYS_MAX"

    def script(self, syscall: Syscall, *, whole_operation: bool = False) -> str:
        """The bpftrace program of a syscall, in the tracer's mode: the user's own before ours.

        Args:
            syscall: Which.
            whole_operation: Whether the other syscalls of lmbench's operation are summed, too,
                where there is a program for that: of `openat`, unless each call is an event.

        Raises:
            TracerError: The user's own does not answer marks.
        """
        own = own_script(syscall, self.mode, self._rootdir, whole_operation=whole_operation)
        if own is None:
            return script(syscall, self.mode, whole_operation=whole_operation)
        text = own.read_text()
        if MARK_COMM not in text:
            raise TracerError(
                f"{own} does not answer the marks of this version, made by a process called "
                f"{MARK_COMM}: copy the shipped program anew"
            )
        return text

    def check(self, syscall: Syscall) -> None:
        """Attach once and detach: does this node take the program, and answer its mark?

        Raises:
            TracerError: It does not; the text names the syscall.
        """
        try:
            self.attach(syscall).end()
        except TracerError as error:
            raise TracerError(f"the syscall {syscall} cannot be traced: {error}") from None

    def attach(self, syscall: Syscall, *, whole_operation: bool = False) -> Tracing:
        """Start bpftrace and wait until both probes answer a mark; raises TracerError.

        `whole_operation` is that of `script`.
        """
        source = self.script(syscall, whole_operation=whole_operation)
        scope = self._testbed.scope
        if scope.filter is Filter.PID_NAMESPACE:
            source = source.replace(IN_SCOPE, PID_NAMESPACE_FILTER)
        name = script_name(syscall, self.mode, whole_operation=whole_operation)
        program = self._testbed.workdir / name
        self._testbed.write(program, source.encode(), role=Role.TRACER)
        output_format = "json" if self.mode == "distribution" else "text"
        stdout = self._testbed.workdir / "bpftrace.stdout"
        stderr = self._testbed.workdir / "bpftrace.stderr"
        process = self._testbed.start(
            ["bpftrace", "-f", output_format, str(program), str(scope.number)],
            role=Role.TRACER,
            stdout=stdout,
            stderr=stderr,
            env={self._map_keys_variable: str(self.map_keys)},
        )
        tracing = Tracing(self._testbed, syscall, process, self.mode, stdout, stderr, self.map_keys)
        try:
            tracing.await_attached()
        except BaseException:
            process.end()
            raise
        return tracing


class Tracing:
    """A running bpftrace."""

    def __init__(
        self,
        testbed: Testbed,
        syscall: Syscall,
        process: Process,
        mode: str,
        stdout: Path,
        stderr: Path,
        map_keys: int,
    ) -> None:
        self._testbed = testbed
        self._map_keys = map_keys
        self._syscall = syscall
        self._process = process
        self._reader = EventLog(syscall) if mode == "events" else MapLog()
        self._stdout = _Output(testbed, stdout)
        self._stderr = _Output(testbed, stderr)
        self._base: Dump | None = None
        self._last: Dump | None = None

    @property
    def pid(self) -> int:
        """bpftrace's process id on the node."""
        return self._process.pid

    def await_attached(self) -> None:
        """Mark until an answer comes: then both probes are attached; raises TracerError."""
        deadline = time.monotonic() + ATTACH_LIMIT_S
        while time.monotonic() < deadline:
            self._check_alive()
            if self._stdout.so_far() and self._mark(FIRST_ANSWER_LIMIT_S) is not None:
                return
            time.sleep(POLL_S)
        raise TracerError(
            f"bpftrace did not answer within {ATTACH_LIMIT_S:g} s: it is not attached, or the call "
            "of its mark does not fail"
        )

    def begin(self) -> None:
        """Record from here on: what was counted before is left out."""
        self._base = self._asked()

    def calls_so_far(self) -> int:
        """Calls since `begin`."""
        assert self._base is not None
        self._last = self._asked()
        return self._last.total - self._base.total

    def failed_so_far(self) -> int:
        """Failed calls since `begin`, as of the last `calls_so_far`."""
        assert self._base is not None
        assert self._last is not None
        return sum(self._last.failures.values()) - sum(self._base.failures.values())

    def _asked(self) -> Dump:
        dump = self._mark(ANSWER_LIMIT_S)
        if dump is None:
            self._check_alive()
            raise TracerError(f"bpftrace did not answer within {ANSWER_LIMIT_S:g} s")
        return dump

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise TracerError(f"bpftrace ended {_ended(code)}: {self._complaint()}")

    def _complaint(self) -> str:
        lines = self._stderr.so_far().decode(errors="replace").splitlines()
        # Harmless where CAP_SYS_RESOURCE is missing, and printed each time.
        told = [line for line in lines if line.strip() and "RLIMIT_MEMLOCK" not in line]
        # Below an error its place is shown.
        errors = [line for line in told if "ERROR" in line]
        return (errors or told or ["it said nothing"])[-1].strip()

    def _mark(self, limit_s: float) -> Dump | None:
        """Make the failing call and wait for the dump that answers it."""
        offset = len(self._stdout.so_far())
        try:
            self._testbed.run(
                mark_command(self._testbed, self._syscall),
                role=Role.WORKLOAD,
                timeout_s=MARK_LIMIT_S,
            )
        except TimeLimit as error:
            raise TracerError(f"the tracer's mark could not be made: {error}") from error
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self._reader.holds_dump(self._stdout.so_far(offset)):
                return self._reader.last_dump(self._stdout.so_far())
            if self._process.poll() is not None:
                return None
            time.sleep(POLL_S)
        return None

    def stop(self) -> tuple[Trace, bytes, str]:
        """End bpftrace in order and read its last dump.

        Returns:
            What was recorded since `begin`, and all that bpftrace printed, unchanged, on stdout
            and on stderr.

        Raises:
            TracerError: Nothing of use was printed.
        """
        assert self._base is not None
        code = self._process.poll()
        died = code is not None
        # A signal that comes while bpftrace is about to sleep is acted on at the next one only.
        deadline = time.monotonic() + STOP_LIMIT_S
        while code is None and time.monotonic() < deadline:
            self._process.signal(signal.SIGINT)
            code = self._process.wait(STOP_LIMIT_S / 5)
        self._process.end()
        printed = self._stdout.so_far()
        problem = None
        if died or code is None or code != 0:
            how = (
                "did not stop when told to"
                if code is None
                else f"ended {'early, ' if died else ''}{_ended(code)}"
            )
            problem = f"bpftrace {how}: {self._complaint()}"
        problem = problem or self._reader.error(printed)
        if not self._reader.holds_dump(printed):
            raise TracerError(problem or "bpftrace printed no figures")
        final = self._reader.last_dump(printed)
        expected = self._last.total if self._last is not None else final.total
        told = self.printed()
        self.remove_output()
        return (
            Trace(
                succeeded=final.succeeded.without(self._base.succeeded),
                failures=failures_between(self._base.failures, final.failures),
                other=final.other - self._base.other,
                total=final.total - self._base.total,
                lost=self._reader.lost(printed),
                after_last_run=final.total - expected,
                problem=problem,
                stamps_full=final.stamps >= self._map_keys,
                closes=final.closes - self._base.closes,
                close_ns=final.close_ns - self._base.close_ns,
            ),
            *told,
        )

    def end(self) -> None:
        """End bpftrace for certain."""
        self._process.end()

    def printed(self) -> tuple[bytes, str]:
        """All that bpftrace printed so far, on stdout and on stderr."""
        return self._stdout.so_far(), self._stderr.so_far().decode(errors="replace")

    def remove_output(self) -> None:
        """Delete on the node what has been fetched."""
        self._stdout.remove()
        self._stderr.remove()


class _Output:
    """A growing file on the node, of which each part is fetched once."""

    def __init__(self, testbed: Testbed, path: Path) -> None:
        self._testbed = testbed
        self._path = path
        self._fetched = bytearray()

    def so_far(self, offset: int = 0) -> bytes:
        """What has been written up to now, from `offset` on."""
        self._fetched += self._testbed.read(self._path, len(self._fetched), role=Role.TRACER)
        return bytes(self._fetched[offset:])

    def remove(self) -> None:
        self._testbed.remove(self._path, role=Role.TRACER)


class MapLog:
    """Reads the JSON that the `trace_*.bt` programs print: maps, the total last."""

    def holds_dump(self, text: bytes) -> bool:
        """Whether a whole dump has arrived."""
        return bool(re.search(rb'"@total": [0-9]+\}\}', text))

    def last_dump(self, text: bytes) -> Dump:
        """Parse the last dump in `text`."""
        maps: dict[str, Any] = {}
        dump = Dump(Distribution.empty(), {}, 0, 0)
        for message in _json_lines(text):
            if message.get("type") != "map" or not isinstance(message.get("data"), dict):
                continue
            maps.update(message["data"])
            if "@total" in maps:
                dump = self._dump(maps)
                maps = {}
        return dump

    def _dump(self, maps: dict[str, Any]) -> Dump:
        latencies: dict[str, int] = maps.get("@ns") or {}
        failed: dict[str, int] = maps.get("@failed") or {}
        failures: dict[int, int] = {}
        for key, count in failed.items():
            errno = int(key.split(",")[0])
            failures[errno] = failures.get(errno, 0) + count
        return Dump(
            Distribution.from_counts({int(ns): count for ns, count in latencies.items()}),
            failures,
            maps.get("@other", 0),
            maps["@total"],
            len(maps.get("@start") or {}),
            maps.get("@close_calls", 0),
            maps.get("@close_ns", 0),
        )

    def lost(self, text: bytes) -> int:
        """Events that bpftrace reports as lost."""
        return sum(
            int(message["data"]["events"])
            for message in _json_lines(text)
            if message.get("type") == "lost_events"
        )

    def error(self, text: bytes) -> str | None:
        """What failed inside the kernel while calls were counted, if anything did."""
        for message in _json_lines(text):
            if message.get("type") in RUNTIME_ERRORS:
                return f"bpftrace reported a failure in the kernel: {json.dumps(message)[:200]}"
        return None


class EventLog:
    """Reads the text that the `events_*.bt` programs print: a line a call, counters at marks."""

    LINE = re.compile(rb"^@(total|other): ([0-9]+)\n", re.MULTILINE)
    TOTAL = re.compile(rb"^@total: [0-9]+\n", re.MULTILINE)
    STAMP = re.compile(rb"^@start\[[0-9a-fx]+\]: ", re.MULTILINE)
    LOST = re.compile(rb"^Lost ([0-9]+) events$", re.MULTILINE)

    def __init__(self, syscall: Syscall) -> None:
        """With the syscall, which tells what counts as success."""
        _, comparison, number = syscall.success.split()
        self._succeeded = SUCCEEDED[comparison]
        self._compared_with = int(number)

    def holds_dump(self, text: bytes) -> bool:
        """Whether a whole dump has arrived, with the lines of the calls before it."""
        return any(name == b"total" for name, _ in self.LINE.findall(text))

    def last_dump(self, text: bytes) -> Dump:
        """Parse all lines up to the last dump; what comes after may still be under way."""
        other = total = 0
        text = text[: max((match.end() for match in self.TOTAL.finditer(text)), default=0)]
        for name, number in self.LINE.findall(text):
            if name == b"total":
                total = int(number)
            else:
                other = int(number)
        latencies_ns, results = parse_events(text)
        failed = ~self._succeeded(results, self._compared_with)
        errnos, counts = np.unique(-results[failed], return_counts=True)
        return Dump(
            Distribution.from_samples(latencies_ns[~failed]),
            dict(zip(errnos.tolist(), counts.tolist(), strict=True)),
            other,
            total,
            len(self.STAMP.findall(text)),
        )

    def lost(self, text: bytes) -> int:
        """Events that bpftrace reports as lost."""
        return sum(int(number) for number in self.LOST.findall(text))

    def error(self, text: bytes) -> str | None:  # noqa: ARG002
        """In text mode bpftrace warns of failures in the kernel on stderr."""
        return None


def parse_events(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read a log of events in bulk.

    Args:
        text: Lines `latency_ns return_value`, between lines of other kinds.

    Returns:
        Latencies in ns and return values, both int64, in order of arrival.
    """
    # Lines of other kinds are few: cut them out, then let pandas' C parser take the rest.
    cleaned = re.sub(rb"^[^0-9\n][^\n]*\n?|^\n", b"", text, flags=re.MULTILINE)
    if not cleaned.strip():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    frame = pd.read_csv(
        io.BytesIO(cleaned), sep=" ", header=None, names=["ns", "result"], dtype=np.int64
    )
    return frame["ns"].to_numpy(), frame["result"].to_numpy()


def _json_lines(text: bytes) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith(b"{"):
            try:
                message = json.loads(line)
            except ValueError:
                # The last line may still be under way.
                continue
            if isinstance(message, dict):
                yield message


def failures_between(before: dict[int, int], after: dict[int, int]) -> dict[int, int]:
    """Failed calls by errno that were counted from one dump to a later one."""
    counted = {errno: count - before.get(errno, 0) for errno, count in after.items()}
    return {errno: count for errno, count in counted.items() if count}


def _ended(code: int) -> str:
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
