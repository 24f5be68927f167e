from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from pytest_syslat.agents.protocol import KernelTime
from pytest_syslat.bpf_statistics import BpfStatistics, run_time
from pytest_syslat.testbeds.protocol import Completed, Role, Testbed, TestbedError


class FakeProcess:
    pid = 77

    def __init__(self, testbed: FakeTestbed) -> None:
        self._testbed = testbed
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def end(self) -> None:
        self._testbed.events.append("end")


class FakeTestbed:
    """A node whose holding process says what the test wants, and that has the switch."""

    python = "python3"
    workdir = Path("/nowhere")

    def __init__(self, said: str, *, machine: str = "x86_64", switch: str | None = "0") -> None:
        self.machine = machine
        self.switch = switch
        self.events: list[str] = []
        self.process = FakeProcess(self)
        self._said = said

    def start(self, argv: Sequence[str], *, role: Role, stdout: Path, stderr: Path) -> FakeProcess:
        assert role is Role.NODE
        self.events.append(f"start {argv[-1]}")
        if self._said != "held\n":
            self.process.code = 1
        return self.process

    def read(self, path: Path, *, role: Role) -> bytes:
        if path.suffix == ".stderr":
            return b"Traceback\nMemoryError\n"
        return self._said.encode()

    def remove(self, path: Path, *, role: Role) -> None:
        pass

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        assert argv[:2] == ["sh", "-c"]
        words = argv[2].split()
        if self.switch is None:
            return Completed(tuple(argv), 2, "", "sh: cannot open it: No such file\n")
        if words[0] == "cat":
            return Completed(tuple(argv), 0, f"{self.switch}\n", "")
        self.switch = words[1]
        return Completed(tuple(argv), 0, "", "")


def statistics_on(testbed: FakeTestbed) -> BpfStatistics:
    return BpfStatistics(cast("Testbed", testbed))


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 321), ("aarch64", 280)])
def test_a_process_holds_them_and_the_switch_stays(machine: str, number: int) -> None:
    testbed = FakeTestbed("held\n", machine=machine)
    with statistics_on(testbed) as statistics:
        assert testbed.events == [f"start {number}"]
        assert testbed.switch == "0"
        assert statistics.problem() is None
        statistics.hold()
    assert testbed.events == [f"start {number}", "end"]
    statistics.release()
    assert testbed.events == [f"start {number}", "end"]


@pytest.mark.parametrize("before", ["0", "1"])
def test_an_older_kernel_s_switch_is_put_back(before: str) -> None:
    testbed = FakeTestbed("refused: Invalid argument\n", switch=before)
    with statistics_on(testbed) as statistics:
        assert testbed.switch == "1"
        assert statistics.problem() is None
    assert testbed.switch == before


def test_a_machine_whose_number_is_not_known_uses_the_switch() -> None:
    testbed = FakeTestbed("held\n", machine="riscv64")
    with statistics_on(testbed):
        assert testbed.switch == "1"
    assert testbed.switch == "0"
    assert testbed.events == []


def test_a_kernel_that_keeps_none() -> None:
    testbed = FakeTestbed("refused: Operation not permitted\n", switch=None)
    with pytest.raises(TestbedError, match="no BPF statistics are kept by this kernel: sh: cannot"):
        statistics_on(testbed).hold()
    assert testbed.events == ["start 321", "end"]


def test_a_process_that_fails_is_no_old_kernel() -> None:
    testbed = FakeTestbed("")
    with pytest.raises(TestbedError, match="could not be switched on: MemoryError"):
        statistics_on(testbed).hold()
    assert testbed.switch == "0"
    assert testbed.events == ["start 321", "end"]


def test_a_process_that_ends_is_noticed() -> None:
    testbed = FakeTestbed("held\n")
    statistics = statistics_on(testbed)
    statistics.hold()
    testbed.process.code = -9
    assert statistics.problem() == "the process that holds the kernel's BPF statistics has ended"


class ShowingTestbed:
    def __init__(self, text: str) -> None:
        self._text = text

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        assert list(argv) == ["bpftool", "-j", "prog", "show"]
        assert role is Role.TRACER
        return Completed(tuple(argv), 0, self._text, "")


def time_of(text: str, *programs: int) -> KernelTime | None:
    return run_time(cast("Testbed", ShowingTestbed(text)), programs)


LOADED = json.dumps(
    [
        {"id": 3, "type": "kprobe", "run_time_ns": 700, "run_cnt": 7},
        {"id": 4, "type": "tracepoint", "run_time_ns": 5_000_000_000_000, "run_cnt": 1_000_000_000},
        {"id": 5, "type": "tracepoint"},
    ]
)


def test_runs_and_time_are_summed() -> None:
    assert time_of(LOADED, 3, 4) == KernelTime(1_000_000_007, 5_000_000_000_700)
    assert time_of(LOADED, 3) == KernelTime(7, 700)


def test_bpftool_leaves_out_zeros() -> None:
    assert time_of(LOADED, 5) == KernelTime(0, 0)


def test_a_program_that_is_gone_leaves_no_sum() -> None:
    assert time_of(LOADED, 3, 6) is None


@pytest.mark.parametrize("text", ["", "{", "null", '{"error": "no permission"}'])
def test_an_answer_that_is_no_list(text: str) -> None:
    assert time_of(text, 3) is None
