"""All syscalls that can be measured: the three, those of `syscalls/NAME.toml`, those of conftests.

A file in the user's rootdir wins over a shipped one of the same name. Whatever is wrong with an
entry is told in one line that names where it stands and which key.
"""

from __future__ import annotations

import operator
import re
import shlex
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

import pytest

from pytest_syslat.resources import resource_directories
from pytest_syslat.syscall_numbers import NumbersMissing, is_syscall
from pytest_syslat.syscalls import FILE, LONGEST_COMM, SERVER, SYSCALLS, Syscall
from pytest_syslat.tracer_script import MARK_COMM

DIRECTORY = "syscalls"
HOOK = "pytest_syslat_syscalls"
NAME = re.compile(r"[a-z][a-z0-9_]*")
COMM = re.compile(rf"[A-Za-z0-9_.:+-]{{1,{LONGEST_COMM}}}")
SUCCESS = re.compile(r"ret (>=|>|==) (-?[0-9]{1,18})")
COMPARISONS = {">=": operator.ge, ">": operator.gt, "==": operator.eq}
ERRORS = range(-4095, 0)
"""What a syscall returns that has failed: MAX_ERRNO of linux/err.h."""
PLACEHOLDER = re.compile(r"\{[^}]*\}?")
PACED = {"open": "lat_syscall", "exec": "lat_proc", "connect": "lat_connect"}
"""The operations of `--syslat-rate`, by the name under which our program makes them."""
MOST_ARGUMENTS = 6
INTERNAL = {"name", "operation"}
"""Fields that no file sets: a file's name is the syscall's, and an operation needs a program."""


class SyscallProblem(Exception):
    """An entry cannot be used; the text is one line that names where it stands and the key."""


def find_syscalls(config: pytest.Config) -> dict[str, Syscall]:
    """All syscalls by name, the three first and others by the alphabet.

    Raises:
        pytest.UsageError: An entry is wrong, or two have the same name.
    """
    try:
        added = described_syscalls(config.rootpath)
        for each in _hooked(config):
            if each.name in SYSCALLS:
                raise SyscallProblem(f"{HOOK}: {each.name} {TAKEN}")
            if each.name in added:
                raise SyscallProblem(
                    f"{HOOK}: {each.name} is there already, from {DIRECTORY}/ or "
                    "another conftest: choose another name"
                )
            added[each.name] = each
    except SyscallProblem as problem:
        raise pytest.UsageError(str(problem)) from None
    return {**SYSCALLS, **dict(sorted(added.items()))}


TAKEN = "is one of the three that are built in: choose another name"


def _hooked(config: pytest.Config) -> Iterable[Syscall]:
    # Without a conftest of ours the hook is not asked: pytest has added no such function.
    for answer in config.hook.pytest_syslat_syscalls(config=config):
        if answer is None:
            continue
        if isinstance(answer, Syscall) or not isinstance(answer, Iterable):
            raise SyscallProblem(f"{HOOK}: a list of Syscall is needed, not {answer!r}")
        for each in answer:
            if not isinstance(each, Syscall):
                raise SyscallProblem(f"{HOOK}: a list of Syscall is needed, not of {each!r}")
            check(each, f"{HOOK}, {each.name!r}")
            yield each


def described_syscalls(rootdir: Path) -> dict[str, Syscall]:
    """Those of all `syscalls/NAME.toml`, the user's own before shipped ones; SyscallProblem."""
    found: dict[str, Path] = {}
    for directory in resource_directories(DIRECTORY, rootdir):
        for path in sorted(directory.glob("*.toml")):
            found.setdefault(path.stem, path)
    return {name: read_syscall(path) for name, path in found.items()}


def read_syscall(path: Path) -> Syscall:
    """Read and check a file; raises SyscallProblem."""
    try:
        loaded = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SyscallProblem(f"{path} cannot be read: {error}") from None
    hints = get_type_hints(Syscall)
    keys = [each.name for each in fields(Syscall) if each.name not in INTERNAL]
    for key in loaded:
        if key not in keys:
            raise SyscallProblem(f"{path}: no key {key!r}: allowed is {', '.join(keys)}")
    if "command" not in loaded:
        raise SyscallProblem(f"{path}: the key 'command' is missing")
    values = {
        key: _value(key, value, hints[key], f"{path}: {key}") for key, value in loaded.items()
    }
    if path.stem in SYSCALLS:
        raise SyscallProblem(f"{path}: {path.stem} {TAKEN}")
    made = Syscall(path.stem, **values)
    check(made, str(path))
    return made


def _value(key: str, value: Any, wanted: Any, place: str) -> Any:
    if key == "command" and isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise SyscallProblem(f"{place}: {error}") from None
    if key == "mark" and isinstance(value, list):
        return tuple(value)
    if (
        key == "command"
        and isinstance(value, list)
        and all(isinstance(each, str) for each in value)
    ):
        return tuple(value)
    words = {
        str: "a text",
        bool: "true or false",
        tuple[str, ...]: "a text or a list of texts",
    }
    if wanted not in (str, bool) or type(value) is not wanted:
        needed = words.get(wanted, "a list of whole numbers")
        raise SyscallProblem(f"{place}: {needed} is needed")
    return value


def check(entry: Syscall, origin: str) -> None:
    """Whether an entry can be used as it stands; raises SyscallProblem.

    What only the node can tell is found out there: whether it has the tracepoint and the program,
    and whether bpftrace takes the expression.
    """
    for field in ("name", "tracepoint"):
        if not isinstance(text := _given(entry, field), str) or not NAME.fullmatch(text):
            raise SyscallProblem(
                f"{origin}: {field}: {text!r} is not valid: small letters, digits and "
                "_ are needed, such as close"
            )
    _check_command(entry, origin)
    if not isinstance(_given(entry, "comm"), str) or not COMM.fullmatch(entry.comm):
        raise SyscallProblem(
            f"{origin}: comm: {entry.comm!r} is not valid: a program's name of 1 to {LONGEST_COMM} "
            "bytes is needed, as in /proc/PID/comm"
        )
    if entry.comm == MARK_COMM:
        raise SyscallProblem(
            f"{origin}: comm: {MARK_COMM!r} is the name of the process that speaks to the tracer: "
            "call the program otherwise"
        )
    _check_success(entry, origin)
    if not isinstance(_given(entry, "other"), str) or re.search(r"[{};\n]|/\*|//", entry.other):
        raise SyscallProblem(
            f"{origin}: other: {entry.other!r} is not valid: one expression of bpftrace is needed, "
            "such as 'args->flags & 0x80000'"
        )
    for field in ("call", "other_calls"):
        if not isinstance(text := _given(entry, field), str) or re.search(r"\n|\*/", text):
            raise SyscallProblem(f"{origin}: {field}: one line of text is needed")
    if entry.other and entry.follows_openat:
        raise SyscallProblem(
            f"{origin}: other: leave it out with follows_openat, which tells the measured calls"
        )
    if entry.paced and entry.paced not in PACED:
        raise SyscallProblem(
            f"{origin}: paced: {entry.paced!r} is not valid: allowed is {', '.join(PACED)}"
        )
    if entry.paced and entry.comm != PACED[entry.paced]:
        raise SyscallProblem(
            f"{origin}: paced: {entry.paced!r} is made by {PACED[entry.paced]}, and comm is "
            f"{entry.comm!r}: leave paced out"
        )
    _check_mark(entry, origin)


def _given(entry: Syscall, field: str) -> Any:
    """A field of an entry that a conftest has made, of whatever type."""
    return getattr(entry, field)


def _check_success(entry: Syscall, origin: str) -> None:
    """No failed call may be counted as good, but one whose error is the intended answer."""
    given = _given(entry, "success")
    found = SUCCESS.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise SyscallProblem(
            f"{origin}: success: {given!r} is not valid: 'ret', a comparison (>=, >, ==) and a "
            "number are needed, such as 'ret >= 0'"
        )
    holds, number = COMPARISONS[found[1]], int(found[2])
    if found[1] != "==" and any(holds(error, number) for error in ERRORS):
        raise SyscallProblem(
            f"{origin}: success: {given!r} is not valid: it holds for calls that fail, which "
            "return -1 to -4095: 'ret >= 0' is needed, or 'ret == -4' where error 4 is meant"
        )


def _check_command(entry: Syscall, origin: str) -> None:
    words = _given(entry, "command")
    if (
        not isinstance(words, tuple)
        or not words
        or not all(isinstance(each, str) for each in words)
    ):
        raise SyscallProblem(
            f"{origin}: command: a program and its arguments are needed, such as "
            f"'lat_syscall open {FILE}'"
        )
    program = PurePosixPath(words[0])
    if not words[0] or ".." in program.parts or ("/" in words[0] and not program.is_absolute()):
        raise SyscallProblem(
            f"{origin}: command: {words[0]!r} is not valid: the name of a program of lmbench or an "
            "absolute path is needed"
        )
    for word in words[1:]:
        for found in PLACEHOLDER.findall(word):
            if found not in (FILE, SERVER):
                raise SyscallProblem(
                    f"{origin}: command: {found!r} stands for nothing: allowed is {FILE} and "
                    f"{SERVER}"
                )


def _check_mark(entry: Syscall, origin: str) -> None:
    if entry.mark is None:
        return
    if (
        not isinstance(_given(entry, "mark"), tuple)
        or not all(type(each) is int and -(2**63) <= each < 2**63 for each in entry.mark)
        or len(entry.mark) > MOST_ARGUMENTS
    ):
        raise SyscallProblem(
            f"{origin}: mark: up to {MOST_ARGUMENTS} whole numbers are needed, the arguments of a "
            "call that fails, such as [-1]"
        )
    try:
        known = is_syscall(entry.tracepoint) or is_syscall(entry.name)
    except NumbersMissing as problem:
        raise SyscallProblem(f"{origin}: mark: {problem}") from None
    if not known:
        raise SyscallProblem(
            f"{origin}: mark: no syscall is called {entry.name!r}: leave the mark out, then it is "
            "made by an openat"
        )
