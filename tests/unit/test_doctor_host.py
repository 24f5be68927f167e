"""What `syslat doctor` says of hosts of many kinds; what they are is made up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_syslat.doctor import host, packages
from pytest_syslat.doctor.check import Check, ask, ok
from pytest_syslat.kernel_audit import KernelAudit
from pytest_syslat.placement import Holder
from pytest_syslat.settings import Settings
from pytest_syslat.syscall_catalogue import described_syscalls
from pytest_syslat.syscalls import OPENAT, Syscall
from pytest_syslat.testbeds.host_view import HostView
from pytest_syslat.testbeds.protocol import Completed, FileState, Filter, Role, TestbedError
from pytest_syslat.tools import LMBENCH_PROGRAMS, ToolMissing

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "cores online": "0-3",
    "SMT siblings of the core": "2",
    "SMT": "off",
    "governor": "performance",
    "turbo off (intel_pstate)": "1",
    "boost (cpufreq)": "unknown",
    "clock source": "tsc",
    "mitigation of meltdown": "Mitigation: PTI",
    "mitigation of mds": "Vulnerable",
}
ROOT_STATUS = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n"


class View:
    """A host that answers what a test says."""

    core = 2
    core_problem: str | None = None
    beside = (0, 1, 3)
    machine = "x86_64"
    workdir = Path("/nonexistent")
    scope = SimpleNamespace(filter=Filter.CGROUP)

    def __init__(self, **answers: Completed | None) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.lmbench: Path | None = None
        self.tools: set[str] = {"auditctl"}

    def as_view(self) -> HostView:
        return cast("HostView", self)

    def run(self, argv: Any, **_: Any) -> Completed:
        self.asked = list(argv)
        answer = self.answers.get(Path(argv[0]).name)
        if answer is None:
            raise TestbedError(f"cannot run {argv[0]}: No such file or directory")
        return answer

    def find_tool(self, name: str) -> object:
        return name if name in self.tools else None

    def find_lmbench(self, chosen: Path | None) -> Path:
        if self.lmbench is None:
            raise ToolMissing("lmbench was not found: run 'make provision'")
        return self.lmbench

    def libraries_of(self, program: Path) -> dict[str, str]:
        return {}

    def state(self, path: Path, *, role: Role) -> FileState | None:
        return FileState(0, 0, 0o755, True) if path.exists() else None

    def read(self, path: Path, *, role: Role) -> bytes:
        return path.read_bytes()


def said(stdout: str, *, ok: bool = True) -> Completed:
    return Completed((), 0 if ok else 1, stdout, "" if ok else "it went wrong\n")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What files of the kernel hold; others are not there."""
    made: dict[str, str] = {}
    monkeypatch.setattr(host, "_content", lambda path: made.get(str(path), ""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def told(checks: Iterable[Check]) -> list[tuple[str, str]]:
    """Names and states; each that is not fine names a mend."""
    found = list(checks)
    assert all(bool(each.mend) == (each.status != "ok") for each in found)
    return [(each.name, str(each.status)) for each in found]


@pytest.mark.parametrize(
    ("release", "machine", "status"),
    [
        ("6.1.0-13-amd64", "x86_64", "ok"),
        ("5.15.0", "aarch64", "ok"),
        ("4.19.0", "x86_64", "warning"),
        ("4.17.3", "x86_64", "problem"),
        ("6.1.0", "riscv64", "problem"),
        ("", "x86_64", "problem"),
    ],
)
def test_kernel(release: str, machine: str, status: str, files: dict[str, str]) -> None:
    files["/proc/sys/kernel/osrelease"] = release
    view = View()
    view.machine = machine
    assert told(host._kernel(view.as_view())) == [("kernel", status)]


@pytest.mark.parametrize(
    ("scope", "status"), [(Filter.CGROUP, "warning"), (Filter.PID_NAMESPACE, "problem")]
)
def test_without_btf(scope: Filter, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    view = View()
    view.scope = SimpleNamespace(filter=scope)
    assert told(host._btf(view.as_view())) == [("BTF", status)]


@pytest.mark.parametrize(
    ("answer", "user", "status", "words"),
    [
        (said(""), 0, "ok", "execve, openat, connect"),
        (said("sys_enter_connect\n"), 0, "problem", "missing: sys_enter_connect"),
        (said("", ok=False), 0, "problem", "no events of syscalls"),
        (said("", ok=False), 1000, "problem", "without root"),
    ],
)
def test_tracepoints(
    answer: Completed,
    user: int,
    status: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (check,) = host._tracepoints(View(sh=answer).as_view(), Settings(), tmp_path)
    assert check.status == status
    assert words in check.found


CLOSE = described_syscalls(ROOT)["close"]
MINE = Syscall("fcntl", command=("lat_fcntl",))
OPENAT_EVENTS = ["sys_enter_openat", "sys_exit_openat"]
CLOSE_EVENTS = ["sys_enter_close", "sys_exit_close"]


@pytest.mark.parametrize(
    ("settings", "events"),
    [
        # The file that was just opened is told by its openat.
        (Settings(syscalls=(CLOSE,)), OPENAT_EVENTS + CLOSE_EVENTS),
        # Without a mark of its own it is marked by an openat that fails.
        (Settings(syscalls=(MINE,)), ["sys_enter_fcntl", "sys_exit_fcntl", "sys_exit_openat"]),
        (Settings(syscalls=(OPENAT,)), OPENAT_EVENTS),
        # With both placements closes are summed, too.
        (Settings(syscalls=(OPENAT,), placement="both"), OPENAT_EVENTS + CLOSE_EVENTS),
    ],
)
def test_events_that_are_looked_for_are_those_that_are_attached(
    settings: Settings, events: list[str], tmp_path: Path
) -> None:
    view = View(sh=said(""))
    list(host._tracepoints(view.as_view(), settings, tmp_path))
    assert view.asked[4:] == events


def test_events_of_a_program_of_the_user(tmp_path: Path) -> None:
    program = tmp_path / "bpftrace/trace_fcntl.bt"
    program.parent.mkdir()
    program.write_text(
        "// tracepoint:syscalls:sys_enter_old\n/* tracepoint:syscalls:sys_exit_old */\n"
        "tracepoint:syscalls:sys_enter_*,\ntracepoint:syscalls:sys_exit_fcntl64 { }\n"
    )
    view = View(sh=said(""))
    list(host._tracepoints(view.as_view(), Settings(syscalls=(MINE,)), tmp_path))
    assert view.asked[4:] == ["sys_exit_fcntl64"]


def test_the_program_of_an_added_syscall_is_looked_for(tmp_path: Path) -> None:
    """A run would be refused without it."""
    usage = said("", ok=False)
    view = View(**dict.fromkeys(LMBENCH_PROGRAMS, usage), sh=said(""))
    view.lmbench = tmp_path
    (tmp_path / "lat_proc").write_bytes(b"")
    settings = Settings(syscalls=(MINE,))
    (check,) = host._lmbench(view.as_view(), settings)
    assert (check.name, check.status) == ("lmbench", "problem")
    assert check.found == (
        f"{tmp_path}/lat_fcntl is not there or cannot be executed: the syscall fcntl is called by "
        "it"
    )
    (tmp_path / "lat_fcntl").touch()
    assert told(host._lmbench(view.as_view(), settings))[0] == ("lmbench", "ok")


@pytest.mark.parametrize(
    ("user", "content", "status", "words"),
    [
        (0, ROOT_STATUS, "ok", "CAP_BPF, CAP_PERFMON"),
        (1000, ROOT_STATUS, "problem", "user id 1000"),
        # What a container has by default.
        (0, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n", "problem", "CAP_SYS_ADMIN, CAP_NET_ADMIN"),
        (0, ROOT_STATUS.replace("\t0\n", "\t2\n"), "warning", "seccomp"),
    ],
)
def test_rights(
    user: int,
    content: str,
    status: str,
    words: str,
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    files["/proc/self/status"] = content
    (check,) = host._rights()
    assert check.status == status
    assert words in check.found


def test_a_locked_down_kernel(files: dict[str, str]) -> None:
    files["/proc/self/status"] = ROOT_STATUS
    files["/sys/kernel/security/lockdown"] = "none integrity [confidentiality]"
    assert told(host._rights()) == [("rights", "problem")]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (None, "problem", "not found"),
        (said("", ok=False), "problem", "not found"),
        (said("bpftrace v0.13.1\n"), "problem", "too old"),
        (said("bpftrace v0.14.0\n"), "ok", "0.14 to 0.27"),
        (said("bpftrace v0.27.2\n"), "ok", "v0.27.2"),
        (said("bpftrace v0.28.0\n"), "warning", "newer than any"),
    ],
)
def test_bpftrace(answer: Completed | None, status: str, words: str) -> None:
    (check,) = host._bpftrace(View(bpftrace=answer).as_view())
    assert check.status == status
    assert words in check.found


def test_tools_that_are_missing(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    view = View()
    view.tools = set()
    assert told(host._lmbench(view.as_view(), Settings())) == [("lmbench", "problem")]
    assert told(host._bpftool(view.as_view())) == [("bpftool", "warning")]
    assert told(host._audit(view.as_view())) == [("kernel audit", "warning")]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert told(host._util_linux()) == [("util-linux", "problem")]


@pytest.mark.parametrize(
    ("enabled", "rules", "status"),
    [
        (0, [], "ok"),
        (1, [], "ok"),
        (1, ["-a always,exit -S execve"], "warning"),
        (2, [], "warning"),
    ],
)
def test_kernel_audit(
    enabled: int,
    rules: list[str],
    status: str,
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KernelAudit, "__init__", lambda self, testbed: None)
    monkeypatch.setattr(KernelAudit, "status", lambda self: {"enabled": enabled, "pid": 7})
    monkeypatch.setattr(KernelAudit, "rules", lambda self: rules)
    (check,) = host._audit(View().as_view())
    assert check.status == status
    assert f"{len(rules)} rules, daemon pid 7" in check.found


@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({}, "ok", "governor performance"),
        ({"governor": "powersave"}, "warning", "powersave"),
        ({"turbo off (intel_pstate)": "0"}, "warning", "turbo is on"),
        ({"governor": "unknown", "turbo off (intel_pstate)": "unknown"}, "ok", "not told"),
    ],
)
def test_frequency(
    changed: Mapping[str, str], status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "core_facts", lambda view: {**FACTS, **changed})
    (check,) = host._frequency(View().as_view())
    assert check.status == status
    assert words in check.found


@pytest.mark.parametrize(
    ("wanted", "siblings", "alone", "expected"),
    [
        (2, "2", False, ["ok", "ok", "ok"]),
        (9, "2", False, ["warning", "ok", "ok"]),
        (2, "2-3", False, ["ok", "ok", "warning"]),
        (2, "2", True, ["ok", "warning", "ok"]),
    ],
)
def test_cores(
    wanted: int,
    siblings: str,
    alone: bool,
    expected: list[str],
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = {**FACTS, "SMT siblings of the core": siblings}
    monkeypatch.setattr(host, "core_facts", lambda view: facts)
    monkeypatch.setattr(host, "usable_cores", lambda: [0, 1, 2, 3])
    view = View()
    view.core_problem = "tracer and server run on core 2 as well" if alone else None
    checks = host._core(view.as_view(), Settings(pin_core=wanted))
    assert told(checks) == list(zip(("core", "cores beside it", "SMT"), expected, strict=True))


def test_a_quota_of_cpu_time(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials in which the workload is throttled are refused."""
    monkeypatch.setattr(host, "core_facts", lambda view: FACTS)
    monkeypatch.setattr(host, "cgroup2_mount", lambda: Path("/sys/fs/cgroup"))
    files["/proc/self/cgroup"] = "0::/user.slice\n"
    files["/sys/fs/cgroup/user.slice/cpu.max"] = "max 100000"
    assert "CPU quota" not in dict(told(host._core(View().as_view(), Settings())))
    files["/sys/fs/cgroup/user.slice/cpu.max"] = "50000 100000"
    assert dict(told(host._core(View().as_view(), Settings())))["CPU quota"] == "warning"


@pytest.mark.parametrize(("clock", "status"), [("tsc", "ok"), ("hpet", "warning")])
def test_clock(clock: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "core_facts", lambda view: {**FACTS, "clock source": clock})
    assert told(host._clock(View().as_view())) == [("clock source", status)]


def test_mitigations_are_told(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "core_facts", lambda view: FACTS)
    files["/proc/cmdline"] = "quiet mitigations=off"
    (check,) = host._mitigations(View().as_view())
    assert check.found.startswith("2 known, 1 of them open, switched off")


def test_no_cgroup_v2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cgroup2_mount", lambda: None)
    assert told(host._cgroups()) == [("cgroups", "warning")]


def test_port_and_time_wait(files: dict[str, str]) -> None:
    files["/proc/net/netstat"] = (
        "TcpExt: ListenOverflows ListenDrops TCPSynRetrans\nTcpExt: 1 2 3\n"
    )
    files["/proc/net/sockstat"] = "TCP: inuse 5 orphan 0 tw 12 alloc 7 mem 1\n"
    names = ("port 31237", "TIME_WAIT")
    assert told(host._port()) == [(names[0], "ok"), (names[1], "ok")]
    # 31237 is 7A05; state 0A listens.
    files["/proc/net/tcp"] = "head\n 0: 0100007F:7A05 00000000:0000 0A 0 0 0 0 0 4711 1\n"
    files["/proc/net/sockstat"] = "TCP: inuse 5 orphan 0 tw 2001 alloc 7 mem 1\n"
    assert told(host._port()) == [(names[0], "warning"), (names[1], "warning")]


@pytest.mark.parametrize(
    ("user", "idle", "stolen", "status"),
    [(5, 95, 0, "ok"), (30, 70, 0, "warning"), (0, 80, 20, "warning")],
)
def test_other_load(
    user: int,
    idle: int,
    stolen: int,
    status: str,
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pass_time(seconds: float) -> None:
        files["/proc/stat"] = f"cpu2 {100 + user} 0 0 {1000 + idle} 0 0 0 {stolen}\n"

    monkeypatch.setattr("time.sleep", pass_time)
    files["/proc/stat"] = "cpu2 100 0 0 1000 0 0 0 0\n"
    assert told(host._load(View().as_view())) == [("other load", status)]


@pytest.mark.parametrize(
    ("holders", "status", "words"),
    [
        ([], "ok", "none"),
        (None, "warning", "cannot be listed"),
        ([Holder(7, "falco", "sys_enter", raw=True)], "warning", "falco (pid 7) on sys_enter"),
    ],
)
def test_other_tracers(
    holders: list[Holder] | None, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "list_holders", lambda view: holders)
    (check,) = host._tracers(View().as_view())
    assert check.status == status
    assert words in check.found


def test_agents_that_run_already(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [(1, "init"), (8, "falco"), (9, "tetragon"), (10, "falcon")]
    monkeypatch.setattr(host, "_processes", lambda: iter(processes))
    (check,) = host._agents()
    assert check.found == "running already: falco (pid 8), tetragon (pid 9)"
    monkeypatch.setattr(host, "_processes", lambda: iter([(1, "init")]))
    assert told(host._agents()) == [("agents", "ok")]


def test_another_run(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by the kernel's list of locks: to try the lock could keep a run out."""
    lock = tmp_path / "lock"
    monkeypatch.setattr(host, "LOCK", lock)
    assert told(host._other_runs()) == [("other runs", "ok")]
    lock.touch()
    inode = lock.stat().st_ino
    files["/proc/locks"] = f"1: FLOCK  ADVISORY  WRITE 99 00:19:{inode}1 0 EOF\n"
    assert told(host._other_runs()) == [("other runs", "ok")]
    files["/proc/locks"] += f"2: FLOCK  ADVISORY  WRITE 4711 00:19:{inode} 0 EOF\n"
    (check,) = host._other_runs()
    assert (check.status, "4711" in check.found) == ("problem", True)


def test_what_a_killed_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    view = View()
    monkeypatch.setattr(view, "state", lambda path, role: None, raising=False)
    monkeypatch.setattr(view, "read", lambda path, role: b'["falco"]', raising=False)
    monkeypatch.setattr(host, "cgroup2_mount", lambda: tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "syslat-run-1").mkdir()
    (tmp_path / "tmp" / "syslat-run-1-x").mkdir(parents=True)
    (check,) = host._leftovers(view.as_view())
    assert check.status == "warning"
    assert "syslat clean" in check.mend
    for each in ("cgroup ", "directory ", "the stop of unit falco"):
        assert each in check.found


@pytest.mark.parametrize(
    ("free", "status"), [(10**10, "ok"), (10**8, "warning"), (10**6, "problem")]
)
def test_space(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(f_bavail=free, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda place: state)
    settings = Settings(result_dir=tmp_path / "not" / "yet")
    assert told(host._space(settings)) == [("TMPDIR", status), ("result directory", status)]


def test_cores_are_listed_as_the_kernel_does() -> None:
    assert host._listed([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_a_check_that_fails_is_told_and_ends_no_other() -> None:
    def broken() -> list[Check]:
        raise ValueError("first line\nsecond")

    def refused() -> list[Check]:
        raise TestbedError("it is forbidden; kubectl apply -k manifests/rbac")

    found = ask([("a", broken), ("b", refused), ("c", lambda: [ok("c", "fine")])])
    assert [(each.name, str(each.status), each.found) for each in found] == [
        ("a", "problem", "the check itself failed (ValueError: first line)"),
        ("b", "problem", "it is forbidden"),
        ("c", "ok", "fine"),
    ]
    assert found[1].mend == "kubectl apply -k manifests/rbac"


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "requires", lambda name: ["pytest>=9", 'helm>=1; extra == "x"'])
    (check,) = packages.packages()
    assert (check.status, check.found.partition(",")[0]) == ("ok", "all 1 required ones")
    monkeypatch.setattr(packages, "requires", lambda name: ["pytest>=99", "no-such-package"])
    (check,) = packages.packages()
    assert check.status == "problem"
    assert "is not >=99; no-such-package is missing" in check.found
