from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from pytest_syslat.agents import calibration
from pytest_syslat.agents.calibration import Calibration, parse_calibration
from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.bpf_programs import BpfProgram
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calibration", ("exit", 1000)),
        ("calibration:entry-200", ("entry", 200)),
        ("calibration:exit-800", ("exit", 800)),
        ("calibration:both-20000", ("both", 20000)),
    ],
)
def test_names_of_arms(text: str, expected: tuple[str, int]) -> None:
    assert parse_calibration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "calibrations",
        "calibration:",
        "calibration:exit",
        "calibration:exit-",
        "calibration:exit-0",
        "calibration:exit-20001",
        "calibration:exit--5",
        "calibration:exit-1.5",
        "calibration:middle-100",
        "calibration:exit-٣",
    ],
)
def test_other_names_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="write 'calibration:PLACE-WORK'") as raised:
        parse_calibration(text)
    assert str(raised.value) == (
        f"'{text}' is no calibration: write 'calibration:PLACE-WORK' with entry, exit, both for "
        "PLACE and 1 to 20000 for WORK, such as 'calibration:exit-800'"
    )


class FakeProcess:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def end(self) -> None:
        self.code = -9


class FakeNode:
    """A node that starts what it is told, and whose bpftool lists what the test wants."""

    python = "python3"
    machine = "x86_64"
    workdir = Path("/nowhere")

    def __init__(self) -> None:
        self.bpftrace = FakeProcess(50)
        self.holder = FakeProcess(51)
        self.source = ""
        self.made: list[list[str]] = []
        """Numbers and arguments of the calls that were made in the workload's place."""
        self.version: Completed | TestbedError = Completed((), 0, "bpftrace v0.17.0\n", "")
        self.loaded: list[BpfProgram] | None = []

    def start(self, argv: Sequence[str], *, role: Role, stdout: Path, stderr: Path) -> FakeProcess:
        if role is Role.NODE:
            return self.holder
        assert role is Role.TRACER
        assert list(argv[:2]) == ["bpftrace", "-e"]
        self.source = argv[2]
        return self.bpftrace

    def read(self, path: Path, *, role: Role) -> bytes:
        return b"held\n" if path.name == "bpf-statistics.stdout" else b"first\nERROR: no\n"

    def remove(self, path: Path, *, role: Role) -> None:
        pass

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        if role is Role.WORKLOAD:
            self.made.append(list(argv[-4:]))
            return Completed((), 0, "", "")
        assert list(argv) == ["bpftrace", "--version"]
        if isinstance(self.version, TestbedError):
            raise self.version
        return self.version

    def load(self, *tracepoints: str, pid: int = 50, runs: int | None = 7) -> None:
        """Let programs be attached, those of openat having run."""
        self.loaded = [
            BpfProgram(
                number,
                "tracepoint",
                tracepoint,
                (f"tracepoint {tracepoint}",),
                ((pid, "bpftrace"),),
                runs if tracepoint.endswith("openat") else None,
                None,
            )
            for number, tracepoint in enumerate(tracepoints, start=1)
        ]


EXITS = ("sys_exit_execve", "sys_exit_openat", "sys_exit_connect")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    node = FakeNode()
    monkeypatch.setattr(calibration, "list_programs", lambda _testbed: node.loaded)
    return node


def active(node: FakeNode) -> Calibration:
    agent = Calibration(cast("Testbed", node), Path(), "exit", 300)
    agent.activate()
    return agent


def test_one_program_for_each_syscall(node: FakeNode) -> None:
    active(node)
    probes = [line for line in node.source.splitlines() if line.startswith("tracepoint")]
    assert probes == [f"tracepoint:syscalls:{name}" for name in EXITS]
    assert node.source.count("while ($i < 300)") == 3


def test_ready_is_what_the_kernel_says(node: FakeNode) -> None:
    agent = active(node)
    assert agent.ready() == "0 of 3 calibration programs are attached"
    node.load(*EXITS, pid=60)
    assert agent.ready() == "0 of 3 calibration programs are attached"
    node.load(*EXITS[:2])
    assert agent.ready() == "2 of 3 calibration programs are attached"
    node.load(*EXITS, runs=None)
    assert node.made == []
    assert agent.ready() == "calibration has not run yet"
    # bpftool need not make any of the calls: execve, 59 on x86-64, of no file.
    assert node.made == [["59", "0", "0", "0"]]
    node.load(*EXITS)
    assert agent.ready() is None
    assert agent.facts()["programs"][1] == {
        "id": 2,
        "name": "sys_exit_openat",
        "attached_to": ["tracepoint sys_exit_openat"],
    }


def test_what_it_needs_may_fail_while_it_is_on(node: FakeNode) -> None:
    agent = active(node)
    node.loaded = None
    assert agent.ready() == "bpftool cannot tell whether calibration is attached"
    node.holder.code = 1
    assert agent.ready() == "the process that holds the kernel's BPF statistics has ended"
    node.bpftrace.code = 1
    assert agent.ready() == "calibration's bpftrace has ended: ERROR: no"


def test_it_is_not_off_while_a_program_is_left(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "UNLOAD_LIMIT_S", 0.1)
    agent = active(node)
    node.load(*EXITS)
    assert agent.ready() is None
    with pytest.raises(AgentError, match=r"were still loaded 0\.1 s after its end"):
        agent.deactivate()
    assert node.bpftrace.code == -9
    assert node.holder.code == -9
    assert agent.idle() == "calibration's programs are still loaded"
    node.loaded = None
    assert agent.idle() == "bpftool cannot tell whether calibration's programs are unloaded"
    node.loaded = []
    assert agent.idle() is None
    agent.remove()


def test_version(node: FakeNode) -> None:
    agent = Calibration(cast("Testbed", node), Path(), "both", 50)
    assert agent.version() == "bpftrace v0.17.0, 50 steps at both"
    node.version = Completed((), 1, "", "bpftrace: broken\n")
    with pytest.raises(AgentError, match="calibration: bpftrace does not run: bpftrace: broken"):
        agent.prepare()
    node.version = TestbedError("cannot run bpftrace: No such file or directory")
    with pytest.raises(AgentError, match="calibration: cannot run bpftrace"):
        agent.prepare()
