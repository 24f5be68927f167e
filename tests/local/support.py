"""What the tests with real parts share: small benches, exact callers, and the host's state."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

from pytest_syslat.agents.protocol import Agent
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.findings import Severity
from pytest_syslat.kernel_audit import SAVED_STATE, KernelAudit
from pytest_syslat.paced_workload import PacedWorkload
from pytest_syslat.plan import TrialKey
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.syscalls import SYSCALLS, Syscall
from pytest_syslat.tcp_server import TcpServer
from pytest_syslat.testbeds.local import (
    NEEDED_PROGRAMS,
    PREFIX,
    LocalTestbed,
    cgroup2_mount,
    take_lock,
    usable_cores,
)
from pytest_syslat.testbeds.protocol import Completed, Role, TestbedError
from pytest_syslat.tools import ToolMissing, find_lmbench, find_tool
from pytest_syslat.tracer import Tracer
from pytest_syslat.trial import Bench, Trial
from pytest_syslat.workload import Workload, built_in_helper

Made = TypeVar("Made")

ROOT = Path(__file__).parents[2]
CORES = usable_cores()
"""Read once: while a testbed is open, this process keeps off the measured core."""
LAST_CORE = CORES[-1]
"""The core that the tests measure on."""
LOCK_LIMIT_S = 180.0
SETTLE_LIMIT_S = 15.0
RUN_LIMIT_S = 60.0
MARK = "SYSLAT_TEST_MARK"
"""Variable by which everything that a test started, however indirectly, is found again."""


def lacking() -> str | None:
    """What is missing for measuring on this host, and the command that mends it."""
    if os.geteuid() != 0:
        return "measuring on this host needs root: run 'sudo -E make test'"
    missing = [name for name in (*NEEDED_PROGRAMS, "bpftrace", "bpftool") if not shutil.which(name)]
    missing += [name for name in ("auditctl", "auditd") if find_tool(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: run 'make provision', then 'make test'"
    try:
        find_lmbench(None)
    except ToolMissing as error:
        return str(error)
    return None


def wait_until(condition: Callable[[], object], limit_s: float, what: str) -> None:
    """Wait for a condition; fails the test if it does not come true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.02)


# --- Measuring ---------------------------------------------------------------------------------


@contextlib.contextmanager
def host_to_ourselves() -> Iterator[None]:
    """Hold the host's lock, as soon as nobody else measures here."""
    with _retried(take_lock):
        yield


def opened(
    testbed_class: type[LocalTestbed] = LocalTestbed, run_id: str = "selftest"
) -> LocalTestbed:
    """A testbed on the last core, as soon as nobody else measures here."""
    return _retried(lambda: testbed_class(core=LAST_CORE, run_id=run_id))


def _retried(start: Callable[[], Made]) -> Made:
    """Start something that needs the host's lock, again until the lock is free."""
    deadline = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            return start()
        except TestbedError as error:
            if "another run" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def bench_on(
    testbed: LocalTestbed,
    *,
    tracer: str = "distribution",
    rate: int | None = None,
    syscalls: Sequence[Syscall] = tuple(SYSCALLS.values()),
) -> Iterator[Bench]:
    """All that a trial needs, with settings that keep it short."""
    settings = Settings(
        syscalls=tuple(syscalls),
        lmbench_reps=2,
        openat_mult=1,
        min_calls=1,
        warmup_s=0.0,
        pin_core=testbed.core,
        rate=rate,
    )
    directory = find_lmbench(None)
    workload = (
        Workload(testbed, directory, syscalls)
        if rate is None
        else PacedWorkload(testbed, directory, rate, ROOT, syscalls)
    )
    server = TcpServer(testbed, ROOT)
    try:
        server.start()
        yield Bench(
            settings,
            testbed,
            workload,
            Tracer(testbed, ROOT, tracer),
            server,
            KernelAudit(testbed),
            ROOT,
        )
    finally:
        server.stop()
        workload.close()


def server_with(inode: int | None) -> TcpServer:
    """A server that somebody else runs, as the one that a trial expects."""
    return cast("TcpServer", SimpleNamespace(inode=inode))


def measure(
    bench: Bench,
    syscall: str,
    *,
    arm: str = VANILLA,
    agent: Agent | None = None,
    at: Callable[[str], None] = lambda _step: None,
) -> Trial:
    """One real trial; `at` is told each step before it begins."""

    def tell(name: str, *, run: int = 0, runs: int = 0, calls: int | None = None) -> None:
        if not run:
            at(name)

    return bench.measure(
        TrialKey(syscall, arm, 1), agent or Vanilla(bench.testbed, ROOT), progress=tell
    )


def invalid_codes(trial: Trial) -> set[str]:
    """Codes of the findings that refuse the trial."""
    return {each.code for each in trial.findings if each.severity is Severity.INVALID}


def detail(trial: Trial, code: str) -> str:
    """The sentence of the finding with this code."""
    [found] = [each.detail for each in trial.findings if each.code == code]
    return found


# --- Programs of the tests' own ----------------------------------------------------------------

CALLER = r"""
import ctypes, os, socket, sys, time

name, comm, directory, succeeding, failing, other = sys.argv[1:]
libc = ctypes.CDLL(None)

def openat(path, flags=0):
    descriptor = libc.open(path.encode(), flags)
    if descriptor >= 0:
        os.close(descriptor)

def connect(family, address):
    with socket.socket(family) as connection:
        try:
            connection.connect(address)
        except OSError:
            pass

def execve(path):
    child = os.fork()
    if child == 0:
        try:
            os.execv(path, [path])
        finally:
            os._exit(1)
    os.waitpid(child, 0)

present, missing = directory + "/present", directory + "/missing"
open(present, "w").close()
calls = {
    "openat": (
        lambda: openat(present),
        lambda: openat(missing),
        lambda: openat(present, os.O_CLOEXEC),
    ),
    "connect": (
        lambda: connect(socket.AF_INET, ("127.0.0.1", 31237)),
        lambda: connect(socket.AF_INET, ("127.0.0.1", 1)),
        lambda: connect(socket.AF_UNIX, missing),
    ),
    "execve": (lambda: execve("/bin/true"), lambda: execve(missing), None),
}[name]
libc.prctl(15, comm.encode(), 0, 0, 0)
for call, count in zip(calls, map(int, (succeeding, failing, other))):
    for _ in range(count):
        call()
"""
"""Takes an lmbench program's name and makes exactly so many calls; none of them is lmbench's."""


def call_exactly(
    testbed: LocalTestbed,
    name: str,
    comm: str,
    succeeding: int,
    failing: int = 0,
    other: int = 0,
) -> None:
    """Make so many calls in the workload's place: of each kind exactly as many as said."""
    done = testbed.run(
        [testbed.python, "-I", "-S", "-c", CALLER, name, comm, str(testbed.workdir)]
        + [str(succeeding), str(failing), str(other)],
        role=Role.WORKLOAD,
        timeout_s=RUN_LIMIT_S,
    )
    if not done.ok:
        raise AssertionError(f"the caller failed: {done.stderr}")


LISTENER = r"""
import os, socket, struct, sys, time

address, reset, backlog, pause_after = sys.argv[1], *map(int, sys.argv[2:])
with socket.socket() as listener:
    if reset:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address, 31237))
    listener.listen(backlog)
    print(os.fstat(listener.fileno()).st_ino, flush=True)
    accepted, previous = 0, None
    while True:
        # A reset that comes while the client is inside connect would make that call fail.
        connection = listener.accept()[0]
        if previous is not None:
            previous.close()
        previous = connection
        accepted += 1
        if accepted == pause_after:
            time.sleep(0.2)
"""


@contextlib.contextmanager
def listener_of_another(
    testbed: LocalTestbed,
    address: str = "127.0.0.1",
    *,
    reset: bool = True,
    backlog: int = 4096,
    pause_after: int = 0,
) -> Iterator[int]:
    """A server that isn't the package's on lat_connect's port, in the workload's network.

    Args:
        testbed: Where it runs.
        address: On which it listens.
        reset: Whether it resets connections, which leaves none in TIME_WAIT.
        backlog: Connections that may wait to be accepted.
        pause_after: It stops accepting for a moment, once, after so many connections.

    Yields:
        The inode of its socket.
    """
    stdout, stderr = testbed.workdir / "listener.stdout", testbed.workdir / "listener.stderr"
    process = testbed.start(
        [testbed.python, "-I", "-S", "-c", LISTENER, address]
        + [str(int(reset)), str(backlog), str(pause_after)],
        role=Role.SERVER,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        wait_until(
            lambda: stdout.read_text().strip() or process.poll() is not None,
            RUN_LIMIT_S,
            "the listener is ready",
        )
        said = stdout.read_text().strip()
        if not said:
            raise AssertionError(f"the listener did not start: {stderr.read_text()}")
        yield int(said)
    finally:
        process.end()


def kernel_counter(testbed: LocalTestbed, file: str, prefix: str, name: str) -> int:
    """One of the TCP counters of the workload's network, read and parsed apart from the package."""
    shown = testbed.run(["cat", f"/proc/net/{file}"], role=Role.SERVER, timeout_s=RUN_LIMIT_S)
    names, numbers = (
        line.split() for line in shown.stdout.splitlines() if line.startswith(f"{prefix}:")
    )
    return int(numbers[names.index(name)])


def child_with(argument: str) -> int:
    """The process id of this process's only child with such a word on its command line."""
    [found] = [
        pid
        for pid in _processes()
        if _status(pid).get("PPid") == str(os.getpid()) and argument in _command_line(pid)
    ]
    return found


def kill_child(pid: int) -> None:
    """SIGKILL to a child, and wait until it is dead; whoever started it reaps it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


# --- Audit -------------------------------------------------------------------------------------


def auditctl(*arguments: str, check: bool = True) -> Completed:
    """Run auditctl on this host."""
    tool = find_tool("auditctl")
    if tool is None:
        raise AssertionError("auditctl was not found")
    done = subprocess.run(
        [tool.path, *arguments],
        env={**os.environ, **tool.env},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"auditctl {' '.join(arguments)}: {done.stderr}")
    return Completed(tuple(arguments), done.returncode, done.stdout, done.stderr)


def audit_rules() -> list[str]:
    """The audit rules that are loaded, as auditctl lists them."""
    return [line for line in auditctl("-l").stdout.splitlines() if line != "No rules"]


def audit_switch() -> dict[str, int]:
    """Whether audit is on, its daemon and its backlog."""
    shown = dict(line.split(maxsplit=1) for line in auditctl("-s").stdout.splitlines() if line)
    return {name: int(shown[name]) for name in ("enabled", "pid", "backlog_limit")}


# --- The host ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostState:
    """Everything on this host that a run may touch."""

    cgroups: frozenset[str]
    run_directories: frozenset[str]
    helper_files: frozenset[str]
    """lmbench's helper program and its directory, which the package may have to make."""
    tracing_programs: frozenset[str]
    """BPF programs on tracepoints."""
    listeners: frozenset[str]
    """Listeners on lat_connect's port in the host's own network."""
    saved_files: frozenset[str]
    """What a run notes of the host while it measures."""
    affinity: tuple[int, ...]
    """The cores of this process."""
    audit_switch: tuple[tuple[str, int], ...]
    audit_rules: tuple[str, ...]

    @classmethod
    def read(cls) -> HostState:
        """As it is now."""
        mount = cgroup2_mount()
        listed = subprocess.run(
            ["bpftool", "-j", "prog", "list"],
            check=True,
            capture_output=True,
            timeout=RUN_LIMIT_S,
        )
        return cls(
            cgroups=frozenset(str(each) for each in mount.rglob(f"{PREFIX}*") if each.is_dir())
            if mount
            else frozenset(),
            run_directories=frozenset(map(str, Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))),
            helper_files=_helper_files(),
            tracing_programs=frozenset(
                f"{each['id']} ({each['type']} {each.get('name')})"
                for each in json.loads(listed.stdout)
                if "tracepoint" in each["type"]
            ),
            listeners=_listeners(),
            saved_files=frozenset([str(SAVED_STATE)] if SAVED_STATE.exists() else []),
            affinity=tuple(usable_cores()),
            audit_switch=tuple(audit_switch().items()),
            audit_rules=tuple(audit_rules()),
        )

    def changes(self, later: HostState) -> list[str]:
        """What differs, in words."""
        found = []
        for field in fields(self):
            before, after = getattr(self, field.name), getattr(later, field.name)
            if isinstance(before, frozenset):
                found += [f"{field.name}: {each} is new" for each in sorted(after - before)]
                found += [f"{field.name}: {each} is gone" for each in sorted(before - after)]
            elif before != after:
                found.append(f"{field.name}: {before} became {after}")
        return found

    def put_back(self) -> None:
        """Undo what a killed run of the package left, where a test has failed to."""
        for rule in audit_rules():
            if rule not in self.audit_rules:
                auditctl("-d", *rule.split()[1:], check=False)
        for option, name in (("-b", "backlog_limit"), ("-e", "enabled")):
            if dict(self.audit_switch)[name] != audit_switch()[name]:
                auditctl(option, str(dict(self.audit_switch)[name]), check=False)
        for path in sorted(_helper_files() - self.helper_files, reverse=True):
            Path(path).rmdir() if Path(path).is_dir() else Path(path).unlink()
        if str(SAVED_STATE) not in self.saved_files:
            SAVED_STATE.unlink(missing_ok=True)


def changes_since(before: HostState) -> list[str]:
    """What has changed on this host for good: the kernel takes a moment to free programs."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        with host_to_ourselves():
            found = before.changes(HostState.read())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def marked_processes() -> list[str]:
    """What still runs of all that was started since the mark was set, by anybody."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for pid in _processes():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if mark in variables and pid != os.getpid():
            found.append(f"{pid} {_command_line(pid)[:120]}")
    zombies = [
        f"{pid} (a zombie)"
        for pid in _processes()
        if (status := _status(pid)).get("PPid") == str(os.getpid()) and status["State"][0] == "Z"
    ]
    return found + zombies


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(ended)"
    return b" ".join(words).decode(errors="replace")


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def helper_path() -> Path:
    """Where lmbench's lat_proc looks for the program that it executes."""
    helper = built_in_helper((find_lmbench(None) / "lat_proc").read_bytes())
    if helper is None:
        raise AssertionError("lat_proc names no helper program")
    return helper


def _helper_files() -> frozenset[str]:
    helper = helper_path()
    return frozenset(str(place) for place in (helper, *helper.parents) if place.exists())


def _listeners() -> frozenset[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        lines: Sequence[str] = Path(f"/proc/net/{table}").read_text().splitlines()
        found |= {
            match[0]
            for line in lines
            if (match := re.search(r"[0-9A-F]+:7A05 [0-9A-F:]+ 0A ", line))
        }
    return frozenset(found)
