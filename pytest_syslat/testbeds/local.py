"""This host as a testbed: a cgroup and a network namespace of the run's own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from pytest_syslat.testbeds import readings
from pytest_syslat.testbeds.cores import cores_beside, parse_core_list
from pytest_syslat.testbeds.host_files import HostFiles
from pytest_syslat.testbeds.protocol import (
    PLACED,
    WORKLOAD_GROUP,
    Completed,
    CoreTimes,
    Filter,
    Process,
    Role,
    TestbedError,
    TimeLimit,
    WorkloadScope,
)
from pytest_syslat.testbeds.stopped_services import restore_all

NEEDED_PROGRAMS = ("nsenter", "setpriv", "taskset", "unshare")
STARTUP_LIMIT_S = 10.0
END_LIMIT_S = 10.0
WAIT_PAUSE_S = 0.01
NAMESPACE_HOLDER = "import signal; print('ready', flush=True); signal.pause()"
PREFIX = "syslat-run-"
LOCK = Path("/run/pytest-syslat.lock")
STAT = Path("/proc/stat")


def usable_cores() -> list[int]:
    """The cores that this process may use, in ascending order."""
    return sorted(os.sched_getaffinity(0))


def may_be_pinned_to(core: int) -> bool:
    """Whether the kernel lets a process run on a core."""
    pinned = subprocess.run(
        ["taskset", "--cpu-list", str(core), "true"], capture_output=True, check=False
    )
    return pinned.returncode == 0


def smt_siblings(core: int) -> set[int]:
    """The cores that share a physical core with `core`, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return parse_core_list(path.read_text())
    except (OSError, ValueError):
        return {core}


def cgroup2_mount() -> Path | None:
    """Where cgroup v2 is mounted on this host."""
    found = readings.cgroup2_mount(_lines_of(Path("/proc/self/mountinfo")))
    return Path(found) if found else None


class LocalProcess:
    """A background process on this host, in a session of its own."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; what it has left running ends with it."""
        if self._popen.returncode is None and has_ended(self._popen.pid):
            end_group(self._popen)
        return self._popen.returncode

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None if it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(WAIT_PAUSE_S)
        return self.poll()

    def end(self) -> None:
        """Kill it and all that it started: they share a process group."""
        end_group(self._popen)


def has_ended(pid: int) -> bool:
    """Whether a child has ended, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_group(popen: subprocess.Popen[bytes]) -> None:
    """Kill the process group that `popen` leads, and reap the leader.

    Once the leader has been reaped, the group's number may be somebody else's.
    """
    if popen.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    # A task stuck in the kernel must not hold up the rest of the cleanup.
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(END_LIMIT_S)


class LocalTestbed(HostFiles):
    """Runs everything on this host.

    The workload lives in a cgroup v2 child of its own, which the tracer filters by, and in a
    network namespace of its own: a private port, private counters, private TIME_WAIT sockets.
    Where no cgroup v2 is mounted, a pid namespace takes the cgroup's place. tracefs is mounted,
    where it is missing, in a mount namespace that only the tracer sees.
    """

    __test__: ClassVar[bool] = False
    name = "local"
    endpoint = None
    cluster = None
    generation = 0

    def __init__(self, *, core: int, run_id: str) -> None:
        self.core = core
        self.node = platform.node()
        self.machine = platform.machine()
        self.python = sys.executable
        missing = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
        if missing:
            raise TestbedError(
                f"{', '.join(missing)} not found: install the package util-linux and run again"
            )
        if os.geteuid() != 0:
            raise TestbedError("measuring on this host needs root: run pytest as root (sudo -E)")
        self._lock = take_lock()
        self.swept = sweep_leftovers()
        """What a killed run had left here."""
        self._affinity = os.sched_getaffinity(0)
        self._other_cores, self.core_problem = cores_beside(
            core, sorted(self._affinity), smt_siblings(core)
        )
        os.sched_setaffinity(0, self._other_cores)
        self.workdir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{run_id}-"))
        # A stranger's program run by root in the workload role must reach the measured file.
        self.workdir.chmod(0o755)
        self._cgroup: Path | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        try:
            self._make_cgroup(run_id)
            self._make_network_namespace()
            self.swept += restore_all(self)
        except BaseException:
            self.close()
            raise

    def _make_cgroup(self, run_id: str) -> None:
        mount = cgroup2_mount()
        if mount is None:
            return
        cgroup = mount / f"{PREFIX}{run_id}"
        try:
            cgroup.mkdir()
        except OSError as error:
            raise TestbedError(f"cannot make the cgroup {cgroup}: {error.strerror}") from error
        self._cgroup = cgroup

    def _make_network_namespace(self) -> None:
        namespaces = ["--net"] if self._cgroup else ["--net", "--pid", "--fork", "--kill-child"]
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "--"]
            + [self.python, "-I", "-S", "-c", NAMESPACE_HOLDER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._holder = holder
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            reason = holder.stderr.read().decode(errors="replace").strip()
            raise TestbedError(f"cannot make a network namespace: {reason}")
        prepared = self.run(
            [self.python, "-I", "-S", "-c", PREPARE_NETWORK],
            role=Role.SERVER,
            timeout_s=STARTUP_LIMIT_S,
        )
        if not prepared.ok:
            raise TestbedError(f"cannot prepare the network namespace: {prepared.complaint}")

    @property
    def scope(self) -> WorkloadScope:
        """The cgroup's id, or the pid namespace's inode."""
        if self._cgroup is not None:
            # The id that bpf_get_current_cgroup_id() returns is the directory's inode.
            return WorkloadScope(Filter.CGROUP, self._cgroup.stat().st_ino)
        namespace = Path(f"/proc/{self._holder_pid}/ns/pid_for_children").stat()
        return WorkloadScope(Filter.PID_NAMESPACE, namespace.st_ino)

    @property
    def _holder_pid(self) -> int:
        if self._holder is None:
            raise TestbedError("the testbed is closed")
        return self._holder.pid

    def _command(self, argv: Sequence[str], role: Role) -> list[str]:
        """Wrap a command so that it runs in its role; every wrapper replaces itself."""
        enter_network = ["nsenter", f"--net=/proc/{self._holder_pid}/ns/net"]
        beside = ["taskset", "--cpu-list", ",".join(map(str, self._other_cores))]
        # Whatever happens to this process, even SIGKILL, nothing that it started stays behind.
        with_us = ["setpriv", "--pdeathsig", "KILL"]
        if role is Role.WORKLOAD:
            with_us += ["--regid", str(WORKLOAD_GROUP), "--clear-groups"]
            pinned = ["taskset", "--cpu-list", str(self.core), *argv]
            if self._cgroup is None:
                children = f"--pid=/proc/{self._holder_pid}/ns/pid_for_children"
                return [*with_us, *enter_network, children, *pinned]
            join = f'echo 0 > "{self._cgroup}/cgroup.procs" && exec "$@"'
            return ["sh", "-c", join, "sh", *with_us, *enter_network, *pinned]
        if role is Role.SERVER:
            return [*with_us, *enter_network, *beside, *argv]
        if role is Role.TRACER:
            return seeing_tracefs([*with_us, *beside, *argv])
        return [*with_us, *beside, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program to its end."""
        with self._popen(
            self._command(argv, role), env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as popen:
            try:
                stdout, stderr = popen.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                program = Path(argv[0]).name
                raise TimeLimit(f"{program} did not end within {timeout_s:g} s") from error
            finally:
                if popen.returncode is None:
                    end_group(popen)
        return Completed(
            tuple(argv),
            popen.returncode,
            stdout.decode(errors="replace"),
            stderr.decode(errors="replace"),
        )

    def start(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program in the background, its output in files."""
        with stdout.open("wb") as out, stderr.open("wb") as err:
            return LocalProcess(self._popen(self._command(argv, role), env, out, err))

    def _popen(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # Ctrl-C in the terminal must reach pytest alone, which then ends the rest in order.
                start_new_session=True,
            )
        except OSError as error:
            raise TestbedError(f"cannot run {command[0]}: {error.strerror}") from error

    def write(
        self,
        path: Path,
        data: bytes,
        *,
        role: Role,  # noqa: ARG002
        executable: bool = False,
    ) -> None:
        """Write a file, with its directories."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755 if executable else 0o644)
        except OSError as error:
            raise TestbedError(f"cannot write {path}: {error.strerror}") from error

    def remove(self, path: Path, *, role: Role) -> None:  # noqa: ARG002
        """Remove a file or an empty directory."""
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()

    def renew(self) -> None:
        """Nobody else uses what this run made."""

    def core_times(self) -> CoreTimes | None:
        """From /proc/stat and the cgroup's cpu.stat."""
        if self._cgroup is None:
            return None
        return readings.core_times(
            _lines_of(STAT),
            _lines_of(self._cgroup / "cpu.stat"),
            self.core,
            os.sysconf("SC_CLK_TCK"),
        )

    def throttled_count(self) -> int | None:
        """Sum of `nr_throttled` over the cgroups that can throttle the workload."""
        counts = [
            count
            for directory in self._cpu_cgroups()
            if (count := readings.number_of(_lines_of(directory / "cpu.stat"), "nr_throttled"))
            is not None
        ]
        return sum(counts) if counts else None

    def _cpu_cgroups(self) -> list[Path]:
        """The workload's v2 cgroups, and this process's v1 `cpu` cgroups, which it inherits."""
        directories: list[PurePosixPath] = []
        mount = cgroup2_mount()
        if self._cgroup is not None and mount is not None:
            # In a container the quota sits on the mount's own directory.
            path = self._cgroup.relative_to(mount)
            directories = readings.with_ancestors(PurePosixPath(mount), PurePosixPath(path))
        mount1 = readings.cpu1_mount(_lines_of(Path("/proc/self/mountinfo")))
        path1 = readings.cgroup_path(_lines_of(Path("/proc/self/cgroup")), "cpu")
        if mount1 is not None and path1 is not None:
            directories += readings.with_ancestors(mount1, path1)
        return [Path(directory) for directory in directories]

    def drop_page_cache(self) -> str | None:
        """Write back dirty pages and drop the page cache of this host."""
        os.sync()
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        except OSError as error:
            return f"the page cache cannot be dropped here: {error.strerror}"
        return None

    def close(self) -> None:
        """Remove namespace, cgroup and working directory; safe to call twice."""
        if self._holder is not None:
            holder, self._holder = self._holder, None
            end_group(holder)
            for pipe in (holder.stdout, holder.stderr):
                if pipe is not None:
                    pipe.close()
        if self._cgroup is not None:
            cgroup, self._cgroup = self._cgroup, None
            remove_cgroup(cgroup)
        shutil.rmtree(self.workdir, ignore_errors=True)
        os.sched_setaffinity(0, self._affinity)
        self._lock.close()


def take_lock() -> IO[str]:
    """Hold the host's lock: two runs at once would spoil each other's figures."""
    try:
        lock = LOCK.open("a+")
    except OSError as error:
        raise TestbedError(f"cannot open the lock {LOCK}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise TestbedError(
            f"another run measures on this host (pid {holder}): wait until it has ended"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def sweep_leftovers() -> list[str]:
    """Remove what a killed run left; called with the lock held, so nobody uses it."""
    removed = []
    mount = cgroup2_mount()
    for cgroup in mount.glob(f"{PREFIX}*") if mount else ():
        remove_cgroup(cgroup)
        removed.append(f"cgroup {cgroup}")
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        end_processes_of(directory)
        removed += remove_placed(directory / PLACED)
        shutil.rmtree(directory, ignore_errors=True)
        removed.append(f"directory {directory}")
    return removed


def remove_placed(listed: Path) -> list[str]:
    """Remove what a killed run had put in place outside its directory, in reverse order."""
    if listed.parent.lstat().st_uid != os.geteuid():
        # Somebody else's list must not make root remove files.
        return []
    removed = []
    for line in reversed(_lines_of(listed)):
        place = Path(line)
        with contextlib.suppress(OSError):
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()
            removed.append(str(place))
    return removed


def end_processes_of(directory: Path) -> None:
    """Kill the processes that were started with a directory of a run among their arguments.

    Nearly all of them have died with the run, by the signal that they asked for; a daemon that
    changes its credentials loses that request.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(directory) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def remove_cgroup(cgroup: Path) -> None:
    """End what still runs in a cgroup of ours and remove it; raises TestbedError."""
    deadline = time.monotonic() + STARTUP_LIMIT_S
    while True:
        for pid in _lines_of(cgroup / "cgroup.procs"):
            # A process of a pid namespace that we don't see is shown as 0: that would be ourselves.
            if pid != "0":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TestbedError(f"cannot remove {cgroup}: {error.strerror}") from error
            time.sleep(0.02)
        else:
            return


def tracefs_is_mounted() -> bool:
    """Whether bpftrace finds the tracepoints without our help."""
    return any(
        Path(root, "events/syscalls").is_dir()
        for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
    )


def seeing_tracefs(argv: Sequence[str]) -> list[str]:
    """A command for which tracefs is mounted, if need be in a mount namespace of its own."""
    if tracefs_is_mounted():
        return list(argv)
    mount = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", *argv]


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


# Base Debian has no `ip`: the interface is prepared with the ioctl SIOCSIFFLAGS (0x8914) and the
# flags IFF_UP | IFF_RUNNING (0x41). The limit on backlogs belongs to the namespace: a deep backlog
# outlasts the moments in which the server does not get a core.
PREPARE_NETWORK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
with open("/proc/sys/net/core/somaxconn", "w") as limit:
    limit.write("65535")
"""
