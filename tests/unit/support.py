"""What unit tests share: a host, a node whose programs are made up, a carrier that is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pytest_syslat.agents.canary import CALLS
from pytest_syslat.agents.protocol import Processes
from pytest_syslat.bpf_programs import HOLDERS_PROGRAM
from pytest_syslat.testbeds.protocol import Completed, FileState, Role, Testbed, TestbedError
from pytest_syslat.tools import Tool

SERVICE = "/system.slice/mine.service"


class Host:
    """Runs programs as they are, without roles."""

    name = "local"
    python = sys.executable
    machine = "made-up"
    endpoint: Any = None
    cluster: Any = None

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir

    def as_testbed(self) -> Testbed:
        return cast("Testbed", self)

    def find_tool(self, name: str) -> Tool | None:
        return Tool(name)

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        return self._ran(argv, role, timeout_s)

    def _ran(self, argv: Sequence[str], role: Role, timeout_s: float) -> Completed:
        """What a program says; here it is run, in a made-up node it is made up."""
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)

    def state(self, path: Path, *, role: Role) -> FileState | None:
        return FileState(0, 0, 0o644, False) if path.exists() else None

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        try:
            return path.read_bytes()[offset:]
        except OSError as error:
            raise TestbedError(f"cannot read {path}: {error.strerror}") from error

    def write(self, path: Path, data: bytes, *, role: Role, executable: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, path: Path, *, role: Role) -> None:
        path.unlink(missing_ok=True)


class Node(Host):
    """A node whose BPF programs and processes are made up."""

    def __init__(self, workdir: Path) -> None:
        super().__init__(workdir)
        self.programs: dict[int, dict[str, Any]] = {}
        self.holders: dict[int, list[int]] = {}
        self.processes: dict[int, tuple[int, str]] = {}
        """Parent and cgroup by process id."""
        self.bpftool = True
        self.canary_works = True
        self.on_calls: Callable[[int], object] = lambda rounds: None
        """Called with the number of rounds whenever canary calls are made."""
        self.statistics = "0"

    def load(self, number: int, pid: int | None = None, kind: str = "tracepoint") -> None:
        """Load a program that a process holds; None: it is pinned."""
        self.programs[number] = {"id": number, "type": kind, "name": f"p{number}"}
        self.holders[number] = [] if pid is None else [pid]

    def unload(self, number: int) -> None:
        del self.programs[number], self.holders[number]

    def ran(self, number: int, times: int) -> None:
        """Let the kernel count runs, if it was asked to."""
        if self.statistics == "1":
            program = self.programs[number]
            program["run_cnt"] = program.get("run_cnt", 0) + times

    def _ran(self, argv: Sequence[str], role: Role, timeout_s: float) -> Completed:
        if argv[0] == "bpftool":
            listed = list(self.programs.values()) if argv[2] == "prog" else []
            return self._said(argv, json.dumps(listed), ok=self.bpftool)
        if argv[0] == "sh":
            command = argv[2]
            if command.startswith("echo "):
                self.statistics = command.split()[1]
            return self._said(argv, self.statistics)
        program, *arguments = argv[4:]
        if program == HOLDERS_PROGRAM:
            held = [(number, pid, "comm") for number, pids in self.holders.items() for pid in pids]
            return self._said(argv, json.dumps(held))
        assert program == CALLS
        assert role is Role.WORKLOAD
        if self.canary_works:
            self.on_calls(int(arguments[2]))
        return self._said(argv, "", ok=self.canary_works)

    def _said(self, argv: Sequence[str], text: str, *, ok: bool = True) -> Completed:
        return Completed(tuple(argv), 0 if ok else 1, text, "" if ok else "it went wrong\n")

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        if path.parts[:2] == ("/", "proc"):
            pid = int(path.parts[2])
            if pid not in self.processes:
                raise TestbedError(f"cannot read {path}")
            parent, group = self.processes[pid]
            text = f"Name:\tx\nPPid:\t{parent}\n" if path.name == "status" else f"0::{group}\n"
            return text.encode()
        return super().read(path, offset, role=role)


class FakeCarrier:
    """Does what it is told, and keeps a list of it."""

    def __init__(self) -> None:
        self.user: str | None = None
        self.events: list[str] = []
        self.printed = ""
        self.trouble: str | None = None
        self.status: str | None = None
        self.running = False
        self.answers: dict[tuple[str, ...], Completed | Callable[[], str]] = {}
        self.roots: tuple[int, ...] = ()
        self.is_foreign = False
        self.on_start: Callable[[], object] = lambda: None
        self.on_prepare: Callable[[], object] = lambda: None
        self.on_prepared: Callable[[], object] = lambda: None
        self.on_stop: Callable[[], object] = lambda: None
        self.on_remove: Callable[[], object] = lambda: None

    def prepare(self, running: Callable[[], None]) -> None:
        self.events.append("prepare")
        self.on_prepare()
        running()
        self.on_prepared()

    def start(self, policy: Path | None) -> None:
        self.events.append(f"start {policy.name if policy else None}")
        self.running = True
        self.on_start()

    def apply(self, policy: Path | None) -> None:
        self.events.append(f"apply {policy.name if policy else None}")

    def problem(self) -> str | None:
        return self.trouble

    def policy_status(self) -> str | None:
        return self.status

    def withdraw(self) -> None:
        self.events.append("withdraw")

    def stop(self) -> None:
        self.events.append("stop")
        self.running = False
        self.on_stop()

    def remains(self) -> str | None:
        return "its pod is still there" if self.running else None

    def log(self) -> str:
        return self.printed

    def execute(self, argv: Sequence[str]) -> Completed:
        answer = self.answers[tuple(argv)]
        if isinstance(answer, Completed):
            return answer
        return Completed(tuple(argv), 0, answer(), "")

    def address(self) -> str:
        return "127.0.0.1"

    def processes(self) -> Processes:
        return Processes(cgroup_marks=(SERVICE,), roots=self.roots)

    def facts(self) -> dict[str, Any]:
        return {"carried by": "a test"}

    def remove(self) -> None:
        self.events.append("remove")
        self.on_remove()
