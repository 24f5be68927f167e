"""Syscalls in TOML files: the shipped ones, a user's own, and what is wrong with one, in a line."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_syslat.agents.policy_words import names_syscall, silent_policies
from pytest_syslat.marks import mark_command
from pytest_syslat.resources import resource
from pytest_syslat.settings import Settings
from pytest_syslat.syscall_catalogue import (
    INTERNAL,
    SyscallProblem,
    check,
    described_syscalls,
    read_syscall,
)
from pytest_syslat.syscall_numbers import is_syscall, number_of
from pytest_syslat.syscalls import CONNECT, EXECVE, OPENAT, SYSCALLS, Syscall, in_order
from pytest_syslat.testbeds.protocol import TestbedError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ["clone", "close"]
MINE = 'command = "lat_fcntl"\n'


def described(directory: Path, text: str, name: str = "fcntl") -> Syscall:
    path = directory / f"{name}.toml"
    path.write_text(text)
    return read_syscall(path)


def problem_of(directory: Path, text: str, name: str = "fcntl") -> str:
    with pytest.raises(SyscallProblem) as problem:
        described(directory, text, name)
    told = str(problem.value)
    assert "\n" not in told
    return told.removeprefix(str(directory / f"{name}.toml"))


# --- The three, and shipped files ----------------------------------------------------------------


@pytest.mark.parametrize("syscall", SYSCALLS.values(), ids=str)
def test_the_three_pass_the_check_that_others_must_pass(syscall: Syscall) -> None:
    check(syscall, "built in")
    assert syscall.mark is not None


def test_all_shipped_ones_are_found(tmp_path: Path) -> None:
    assert sorted(described_syscalls(tmp_path)) == SHIPPED


def test_the_shipped_close() -> None:
    close = described_syscalls(ROOT)["close"]
    assert close.command == ("lat_syscall", "open", "{file}")
    assert (close.comm, close.events) == ("lat_syscall", ("sys_enter_close", "sys_exit_close"))
    assert (close.follows_openat, close.mark, close.paced) == (True, (-100,), "open")
    assert not close.needs_server


def test_the_shipped_clone() -> None:
    clone = described_syscalls(ROOT)["clone"]
    assert (clone.command, clone.comm) == (("lat_proc", "fork"), "lat_proc")
    assert (clone.success, clone.returns_in_child, clone.paced) == ("ret > 0", True, "")
    # CLONE_THREAD of linux/sched.h, without CLONE_SIGHAND.
    assert clone.mark == (0x00010000,)


def test_a_file_of_the_user_wins_over_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "syscalls").mkdir()
    described(tmp_path / "syscalls", 'command = "lat_syscall stat {file}"\n', "close")
    described(tmp_path / "syscalls", MINE)
    found = described_syscalls(tmp_path)
    assert sorted(found) == ["clone", "close", "fcntl"]
    assert found["close"].command == ("lat_syscall", "stat", "{file}")
    assert found["clone"] == described_syscalls(ROOT)["clone"]


# --- One of the user's ---------------------------------------------------------------------------


def test_little_is_needed(tmp_path: Path) -> None:
    assert described(tmp_path, MINE) == Syscall(
        name="fcntl",
        command=("lat_fcntl",),
        call="fcntl",
        comm="lat_fcntl",
        tracepoint="fcntl",
        success="ret >= 0",
    )


def test_whatever_can_be_said(tmp_path: Path) -> None:
    text = """
    command = ["/opt/my/lat_something_long", "--file={file}", "{server}"]
    call = "stat of the measured file"
    comm = "worker"
    tracepoint = "newstat"
    success = "ret == 0"
    other = "args->filename == 0"
    other_calls = "calls without a name"
    task_per_call = true
    returns_in_child = false
    mark = [0, 0]
    """
    found = described(tmp_path, text, "stat")
    assert found.command == ("/opt/my/lat_something_long", "--file={file}", "{server}")
    assert (found.comm, found.program) == ("worker", "lat_something_long")
    assert found.events == ("sys_enter_newstat", "sys_exit_newstat")
    assert found.needs_server
    assert found.mark == (0, 0)


def test_a_name_is_cut_as_the_kernel_cuts_it(tmp_path: Path) -> None:
    assert described(tmp_path, 'command = "/opt/lat_something_long"\n').comm == "lat_something_l"


def test_each_key_is_documented() -> None:
    told = (ROOT / "docs/syscalls.md").read_text()
    keys = [each.name for each in fields(Syscall) if each.name not in INTERNAL]
    assert [key for key in keys if f"| `{key}` |" not in told] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("command = 1 = 2", " cannot be read: "),
        ("", ": the key 'command' is missing"),
        (MINE + 'nr = "3"', ": no key 'nr': allowed is command, call, comm, tracepoint, success"),
        (MINE + 'name = "other"', ": no key 'name': allowed is "),
        (MINE + "call = 3", ": call: a text is needed"),
        (MINE + "follows_openat = 1", ": follows_openat: true or false is needed"),
        ("command = 3", ": command: a text or a list of texts is needed"),
        ("command = [3]", ": command: a text or a list of texts is needed"),
        ("command = []", ": command: a program and its arguments are needed, such as "),
        ("command = ''", ": command: a program and its arguments are needed, such as "),
        ("command = 'a \"b'", ": command: No closing quotation"),
        ("command = 'bin/a'", ": command: 'bin/a' is not valid: the name of a program of lmbench"),
        ("command = '/opt/../a'", ": command: '/opt/../a' is not valid: the name of a program"),
        ("command = 'a {path}'", ": command: '{path}' stands for nothing: allowed is {file} and"),
        ("command = 'a {file'", ": command: '{file' stands for nothing: allowed is {file} and"),
        (MINE + "comm = 'sixteen_letters_'", ": comm: 'sixteen_letters_' is not valid: a program"),
        (MINE + "comm = 'a\"b'", ": comm: 'a\"b' is not valid: a program's name of 1 to 15 bytes"),
        (MINE + "tracepoint = 'Close'", ": tracepoint: 'Close' is not valid: small letters, "),
        (MINE + "tracepoint = 'a{}'", ": tracepoint: 'a{}' is not valid: small letters, "),
        (MINE + "success = '>= 0'", ": success: '>= 0' is not valid: 'ret', a comparison (>=, "),
        (MINE + "success = 'ret < 0'", ": success: 'ret < 0' is not valid: 'ret', a comparison"),
        (MINE + "success = 'ret >= -1'", ": success: 'ret >= -1' is not valid: it holds for calls"),
        (MINE + "success = 'ret >= -4095'", ": success: 'ret >= -4095' is not valid: it holds fo"),
        (MINE + "success = 'ret > -2'", ": success: 'ret > -2' is not valid: it holds for calls"),
        (MINE + "success = 'ret != 0'", ": success: 'ret != 0' is not valid: 'ret', a comparison"),
        (MINE + "comm = 'syslat-mark'", ": comm: 'syslat-mark' is the name of the process that"),
        ("command = '/opt/syslat-mark'", ": comm: 'syslat-mark' is the name of the process that"),
        (MINE + "success = 'ret >= x'", ": success: 'ret >= x' is not valid: 'ret', a comparison"),
        (MINE + "other = '1) { exit(); } if (1'", ": other: '1) { exit(); } if (1' is not valid"),
        (MINE + "other = '1 // 2'", ": other: '1 // 2' is not valid: one expression of bpftrace"),
        (MINE + "other_calls = 'end */'", ": other_calls: one line of text is needed"),
        (MINE + "mark = 3", ": mark: a list of whole numbers is needed"),
        (MINE + "mark = [true]", ": mark: up to 6 whole numbers are needed"),
        (MINE + "mark = [0, 0, 0, 0, 0, 0, 0]", ": mark: up to 6 whole numbers are needed"),
        (MINE + f"mark = [{2**63 - 1}, -{2**63}, 'x']", ": mark: up to 6 whole numbers"),
        (MINE + "paced = 'fork'", ": paced: 'fork' is not valid: allowed is open, exec, connect"),
        (MINE + "paced = 'open'", ": paced: 'open' is made by lat_syscall, and comm is 'lat_fcn"),
        (
            MINE + "other = '1'\nfollows_openat = true",
            ": other: leave it out with follows_openat, which tells the measured calls",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    assert problem_of(tmp_path, text).startswith(told)


@pytest.mark.parametrize(
    "success", ["ret >= 0", "ret > -1", "ret > 3", "ret == 0", "ret == -4", "ret == -4095"]
)
def test_no_failed_call_or_one_that_is_meant_counts_as_good(tmp_path: Path, success: str) -> None:
    assert described(tmp_path, f"{MINE}success = '{success}'").success == success


def test_an_installation_without_the_tables_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the checkout, before it is installed again."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "system_calls"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "system_calls", None)
    assert problem_of(tmp_path, MINE + "mark = [-1]") == (
        ": mark: the Python package system-calls is missing: install pytest-syslat again "
        "(pip install -e . in its checkout)"
    )
    node: Any = SimpleNamespace(machine="x86_64", python="python3")
    with pytest.raises(TestbedError, match=r"^the Python package system-calls is missing: "):
        mark_command(node, OPENAT)
    # Without a mark no number is needed to read it.
    described(tmp_path, MINE)


def test_wrong_names(tmp_path: Path) -> None:
    assert problem_of(tmp_path, MINE, "openat") == (
        ": openat is one of the three that are built in: choose another name"
    )
    assert problem_of(tmp_path, MINE, "my-close").startswith(": name: 'my-close' is not valid: ")
    assert problem_of(tmp_path, MINE + "mark = [0]", "mine") == (
        ": mark: no syscall is called 'mine': leave the mark out, then it is made by an openat"
    )
    # The tracepoint's name counts, too.
    assert described(tmp_path, MINE + "mark = [0]\ntracepoint = 'fcntl'", "mine").mark == (0,)


@pytest.mark.parametrize(
    "wrong",
    [{"command": "lat_fcntl"}, {"comm": 3}, {"success": None}, {"other": 3}, {"mark": "x"}],
)
def test_an_entry_made_in_python_is_checked_as_strictly(wrong: dict[str, Any]) -> None:
    entry = Syscall(**{"name": "fcntl", "command": ("lat_fcntl",), **wrong})
    if wrong == {"success": None}:
        object.__setattr__(entry, "success", None)
    with pytest.raises(SyscallProblem, match=rf"^here: {next(iter(wrong))}: "):
        check(entry, "here")


def test_lists_are_taken_for_tuples() -> None:
    entry = Syscall("fcntl", command=["lat_fcntl"], mark=[-1])  # type: ignore[arg-type]
    check(entry, "here")
    assert (entry.command, entry.mark) == (("lat_fcntl",), (-1,))


def test_settings_name_what_is_measured() -> None:
    close = described_syscalls(ROOT)["close"]
    settings = Settings(syscalls=(OPENAT, close))
    assert settings.syscall_names == ("openat", "close")
    assert settings.syscall("close") is close
    assert settings.as_dict()["syscalls"] == ["openat", "close"]
    assert Settings().syscalls == (EXECVE, OPENAT, CONNECT)
    # The tenfold repetition is for openat alone: others get more runs where calls are missing.
    assert (settings.runs("openat"), settings.runs("close")) == (100, 10)


def test_order_of_names() -> None:
    assert in_order(["zeta", "openat", "close", "execve", "openat"]) == [
        "execve",
        "openat",
        "close",
        "zeta",
    ]


def test_words_tell_two_definitions_apart() -> None:
    close = described_syscalls(ROOT)["close"]
    told = {
        each.words
        for each in (
            close,
            Syscall("close", command=("lat_syscall", "open", "{file}")),
            Syscall("close", command=("lat_syscall", "open")),
            Syscall("close", command=("lat_syscall", "open"), success="ret == 0"),
            Syscall("close", command=("lat_syscall", "open"), other="args->fd == 3"),
            Syscall("close", command=("lat_syscall", "open"), tracepoint="close_range"),
        )
    }
    assert len(told) == 6


# --- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "x86_64", "aarch64"),
    # From asm/unistd_64.h and asm-generic/unistd.h.
    [
        ("execve", 59, 221),
        ("openat", 257, 56),
        ("connect", 42, 203),
        ("close", 3, 57),
        ("clone", 56, 220),
        ("fork", 57, None),
        ("newstat", None, None),
    ],
)
def test_numbers(name: str, x86_64: int | None, aarch64: int | None) -> None:
    assert (number_of(name, "x86_64"), number_of(name, "aarch64")) == (x86_64, aarch64)
    assert is_syscall(name) is (x86_64 is not None)


# --- Policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ("-a always,exit -S openat,close -F key=x", True),
        ("-a always,exit -S openat -F key=x\n# not close", False),
        ("condition: evt.type in (open, close) # why", True),
        ("call: sys_close", True),
        ("call: __x64_sys_close", True),
        ("call: sys_enter_close", True),
        ("call: close_range", False),
        ("call: fd_close", False),
        ("enclose", False),
    ],
)
def test_a_policy_names_a_syscall(policy: str, named: bool) -> None:
    assert names_syscall(policy, Syscall("close", command=("a",))) is named


@pytest.mark.parametrize(
    "policy",
    [
        "policies/auditd/bench.rules",
        "policies/falco/host.yaml",
        "policies/falco/bench.yaml",
        "policies/tetragon/host.yaml",
        "policies/tetragon/bench.yaml",
    ],
)
def test_shipped_policies_name_the_three_and_no_more(policy: str) -> None:
    text = resource(policy, ROOT).read_text()
    others = described_syscalls(ROOT).values()
    assert [str(each) for each in (*SYSCALLS.values(), *others) if names_syscall(text, each)] == [
        "execve",
        "openat",
        "connect",
    ]


def test_only_added_syscalls_are_looked_for(tmp_path: Path) -> None:
    rules = tmp_path / "my.rules"
    rules.write_text("-S clone\n")
    added = tuple(described_syscalls(ROOT).values())
    assert silent_policies({"mine": rules}, (*SYSCALLS.values(), *added)) == {
        ("mine", "close"): "the policy of mine (my.rules) does not name close: its overhead here "
        "is that of hooks which it has for every call, at entry, exit or inside"
    }


def test_shipped_files_need_no_more_than_toml() -> None:
    for name in SHIPPED:
        assert tomllib.loads((ROOT / f"syscalls/{name}.toml").read_text())
