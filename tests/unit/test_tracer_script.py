"""The bpftrace programs that are made of the catalogue's entries."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_syslat.marks import mark_command
from pytest_syslat.raw_log import stored_map_keys
from pytest_syslat.settings import Settings
from pytest_syslat.syscall_catalogue import described_syscalls
from pytest_syslat.syscalls import CONNECT, EXECVE, NULL_SYSCALL, OPENAT, Syscall
from pytest_syslat.sysinfo import collect_sysinfo
from pytest_syslat.testbeds.protocol import Completed, Filter, Testbed, TestbedError
from pytest_syslat.tracer import EventLog, Tracer, TracerError
from pytest_syslat.tracer_script import script, script_name

ROOT = Path(__file__).resolve().parents[2]
ADDED = described_syscalls(ROOT)
MINE = Syscall("fcntl", command=("lat_fcntl",))


def block(text: str, event: str) -> str:
    """What stands in the probe at an event."""
    [found] = re.findall(
        rf"^tracepoint:syscalls:{event}\n(.*?)^}}$", text, re.MULTILINE | re.DOTALL
    )
    return str(found)


def test_the_files_are_what_is_run() -> None:
    """`python tools/write_scripts.py` writes them anew."""
    made: dict[str, str] = runpy.run_path(str(ROOT / "tools/write_scripts.py"))["scripts"]()
    there = {path.name: path.read_text() for path in (ROOT / "bpftrace").glob("*.bt")}
    assert there == made


def test_names_of_files() -> None:
    assert script_name(OPENAT, "distribution") == "trace_openat.bt"
    assert script_name(OPENAT, "events") == "events_openat.bt"
    assert script_name(OPENAT, "distribution", whole_operation=True) == "trace_openat_close.bt"
    assert script_name(EXECVE, "distribution", whole_operation=True) == "trace_execve.bt"
    assert script_name(OPENAT, "events", whole_operation=True) == "events_openat.bt"


@pytest.mark.parametrize("mode", ["distribution", "events"])
@pytest.mark.parametrize(
    "syscall", [OPENAT, EXECVE, CONNECT, NULL_SYSCALL, MINE, *ADDED.values()], ids=str
)
def test_what_all_programs_have_in_common(syscall: Syscall, mode: str) -> None:
    text = script(syscall, mode)
    assert text.count("{") == text.count("}")
    assert "BEGIN" not in text.replace("No BEGIN and END", "")
    # At exit the clock is read first of all.
    entry, exit_ = (block(text, event) for event in syscall.events)
    assert f'comm == "{syscall.comm}"' in entry
    assert exit_.split(";")[0].split() == ["{", "$end", "=", "nsecs"]
    # By the total the end of an answer is known.
    printed = re.findall(r"print\((@\w+)\);", text)
    assert printed[-1] == "@total"
    counted = set(re.findall(r"(@\w+)(?:\[[^\]]*\])? = (?:count|sum)\(", text))
    assert set(printed) == counted
    assert "(uint64)$1" in text


def test_the_measured_event_may_have_another_name_than_the_entry() -> None:
    text = script(Syscall("stat", command=("a",), tracepoint="newstat"), "distribution")
    assert re.findall(r"^tracepoint:syscalls:(\w+)$", text, re.MULTILINE) == [
        "sys_enter_newstat",
        "sys_exit_newstat",
        "sys_exit_openat",
    ]


def test_success_decides_what_is_counted_where() -> None:
    text = block(script(ADDED["clone"], "distribution"), "sys_exit_clone")
    assert "if (args->ret > 0) {" in text
    # The new task's own return is none of the call.
    assert "args->ret != 0" in text
    assert "args->ret != 0" not in script(OPENAT, "distribution")


@pytest.mark.parametrize(
    ("success", "succeeded"),
    [("ret >= 0", [0, 5]), ("ret > 0", [5]), ("ret == 5", [5]), ("ret == -3", [-3])],
)
def test_events_are_sorted_by_what_counts_as_success(success: str, succeeded: list[int]) -> None:
    log = EventLog(Syscall("fcntl", command=("a",), success=success))
    # Latencies tell the return values apart.
    dump = log.last_dump(b"103 -3\n100 0\n105 5\n@total: 3\n")
    latencies = dump.succeeded.quantile_ns(0.0), dump.succeeded.max_ns
    assert latencies == (100 + abs(succeeded[0]), 100 + abs(succeeded[-1]))
    assert dump.succeeded.count == len(succeeded)
    assert sum(dump.failures.values()) == 3 - len(succeeded)
    assert set(dump.failures) == {-each for each in (-3, 0, 5) if each not in succeeded}
    assert np.sum(list(dump.failures.values())) + dump.succeeded.count == dump.total


class Node:
    python, machine = "python3", "x86_64"
    version = "0.17.0"

    def run(self, *_: Any, **__: Any) -> Completed:
        return Completed((), 0, f"bpftrace v{self.version}\n", "")


def marked(syscall: Syscall, machine: str = "x86_64") -> list[str]:
    node = Node()
    node.machine = machine
    argv = mark_command(cast("Testbed", node), syscall)
    return argv[argv.index("-c") + 2 :]


def test_the_mark_is_a_call_of_the_syscall_or_an_openat() -> None:
    assert marked(ADDED["close"]) == ["3", "-100"]
    assert marked(ADDED["close"], "aarch64") == ["57", "-100"]
    assert marked(ADDED["clone"]) == ["56", "65536"]
    assert marked(MINE) == marked(NULL_SYSCALL) == marked(OPENAT) == ["257", "-100", "0", "0"]
    # Its tracepoint has no syscall's name, so its own name counts.
    stat = Syscall("stat", command=("a",), tracepoint="newstat", mark=(0, 0))
    assert marked(stat) == ["4", "0", "0"]
    with pytest.raises(TestbedError, match="stat is no syscall of aarch64: leave out its mark"):
        marked(stat, "aarch64")


def test_a_program_of_the_user_wins(tmp_path: Path) -> None:
    tracer = Tracer(cast("Testbed", Node()), tmp_path, "distribution")
    assert tracer.script(ADDED["close"]) == script(ADDED["close"], "distribution")
    own = tmp_path / "bpftrace" / "trace_close.bt"
    own.parent.mkdir()
    own.write_text('/* mine */ comm == "syslat-mark"')
    assert tracer.script(ADDED["close"]) == own.read_text()
    assert tracer.script(OPENAT) == script(OPENAT, "distribution")


def test_a_copy_that_nobody_has_changed_is_none_of_the_users(tmp_path: Path) -> None:
    """Else a changed definition would still be measured by the old program."""
    tracer = Tracer(cast("Testbed", Node()), tmp_path, "distribution")
    own = tmp_path / "bpftrace" / "trace_close.bt"
    own.parent.mkdir()
    own.write_text(script(ADDED["close"], "distribution"))
    changed = Syscall("close", command=("lat_syscall", "open"), other="args->fd == 7", mark=(-1,))
    assert tracer.script(changed) == script(changed, "distribution")
    assert "args->fd == 7" in tracer.script(changed)
    for edited in (own.read_text().replace("65536", "32768"), own.read_text() + "\n"):
        own.write_text(edited)
        assert tracer.script(changed) == edited


def test_a_program_that_answers_no_mark_is_refused_at_once(tmp_path: Path) -> None:
    own = tmp_path / "bpftrace" / "trace_close.bt"
    own.parent.mkdir()
    own.write_text("args->ret == -14")
    tracer = Tracer(cast("Testbed", Node()), tmp_path, "distribution")
    with pytest.raises(TracerError, match=rf"^{own} does not answer the marks of this version"):
        tracer.script(ADDED["close"])


@pytest.mark.parametrize(("version", "keys"), [("0.19.1", 11), ("0.20.0", 22)])
def test_the_limit_on_keys_is_that_of_the_environment(
    version: str, keys: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable that this version of bpftrace reads; ours without it."""
    node = Node()
    node.version = version
    tracer = Tracer(cast("Testbed", node), tmp_path, "distribution")
    for name in ("BPFTRACE_MAP_KEYS_MAX", "BPFTRACE_MAX_MAP_KEYS"):
        monkeypatch.delenv(name, raising=False)
    assert tracer.map_keys == 32768
    monkeypatch.setenv("BPFTRACE_MAP_KEYS_MAX", "11")
    monkeypatch.setenv("BPFTRACE_MAX_MAP_KEYS", "22")
    assert tracer.map_keys == keys
    for name in ("BPFTRACE_MAP_KEYS_MAX", "BPFTRACE_MAX_MAP_KEYS"):
        monkeypatch.setenv(name, "many")
    with pytest.raises(TracerError, match=r"^BPFTRACE_\w+ is 'many': give a whole number"):
        assert tracer.map_keys


def test_the_limit_on_keys_is_among_the_facts_of_a_run() -> None:
    """Whoever reads the logs again has another environment."""
    testbed: Any = SimpleNamespace(
        name="local",
        node="a-node",
        machine="x86_64",
        core=2,
        facts=dict,
        scope=SimpleNamespace(filter=Filter.CGROUP),
        read=lambda *_, **__: b"",
        run=lambda *_, **__: Completed((), 0, "", ""),
    )
    workload: Any = SimpleNamespace(
        version=str,
        directory=Path("/lmbench"),
        checksums=dict,
        calibration=SimpleNamespace(environment={}),
        measured_file=Path("/file"),
    )
    tracer: Any = SimpleNamespace(version="bpftrace v0.17.0", mode="events", map_keys=4)
    facts = collect_sysinfo(testbed, workload, tracer, {}, Settings())
    assert stored_map_keys(facts) == 4
