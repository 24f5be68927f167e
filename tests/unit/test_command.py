"""The command line of `syslat`: words, exit codes, one line where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat import __version__
from pytest_syslat.cli import clean, doctor
from pytest_syslat.cli.answer import Answer, ExitCode, Line
from pytest_syslat.cli.console import write_answer
from pytest_syslat.cli.main import COMMANDS, main
from pytest_syslat.doctor.check import Check, Status
from pytest_syslat.settings import OPTIONS
from pytest_syslat.testbeds import choice

from .made_runs import make_run

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Told:
    """Runs `syslat` in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def problem(result: tuple[int, str, str]) -> str:
    """The one line with which a command refused."""
    code, out, err = result
    assert (code, out) == (4, "")
    assert err.startswith("syslat: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.removeprefix("syslat: ").rstrip()


def test_version(told: Told) -> None:
    assert told("--version") == (0, f"syslat {__version__}\n", "")


@pytest.mark.parametrize("command", [None, *(each.NAME for each in COMMANDS)])
def test_help_fits_80_columns(
    command: str | None, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = told(*filter(None, [command]), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "exit codes:" in out
    assert "%%" not in out
    if command is None:
        assert all(each.HELP in " ".join(out.split()) for each in COMMANDS)
    else:
        assert "--json" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND: see syslat --help"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["doctor", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["analyze"], "required: DIR: see syslat analyze --help"),
        (["doctor", "--syslat-test=local"], "unrecognized arguments"),
        (["doctor", "--syslat-pin-core=two"], "--syslat-pin-core: 'two' is not valid"),
        (["doctor", "--syslat-testbed=moon"], "allowed is auto or local or kubernetes"),
        (["doctor", "--agent=nobody"], "--syslat-agent: unknown agent 'nobody'"),
        (["clean", "--syslat-testbed=local", "--syslat-node=x"], "has no meaning on this host"),
        (["compare", "one"], "two or more are needed"),
        (["compare", "one", "two"], "there is no directory one"),
        (["analyze", "nowhere"], "nowhere/run.json cannot be read: No such file"),
        (["analyze", "--write", "--output=x", "y"], "not allowed with argument --write"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str, told: Told) -> None:
    assert words in problem(told(*arguments))


@pytest.mark.parametrize("command", ["analyze", "report"])
def test_what_is_no_run_is_one_line(command: str, told: Told, tmp_path: Path) -> None:
    for content, words in (
        ("no JSON", "is no JSON"),
        ("[]", "schema"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1}', "holds no "),
        ('{"schema": 1, "settings": {}, "system": {}, "trials": [{}]}', "is not as a run"),
    ):
        (tmp_path / "run.json").write_text(content)
        assert words in problem(told(command, tmp_path)), content
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    assert "run.json cannot be read" in problem(told(command, tmp_path))


def test_a_part_of_run_json_that_is_damaged_is_one_line(told: Told, tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", vanilla_ns=[10_000], agent_ns=[11_000])
    run = json.loads((root / "run.json").read_text())
    changes: tuple[dict[str, Any], ...] = (
        {"plan": ["x"]},
        {"settings": {"trials": "many"}},
        {"cells": [{}]},
    )
    for change in changes:
        (root / "run.json").write_text(json.dumps({**run, **change}))
        assert "run.json is not as a run writes it" in problem(told("analyze", root)), change
        assert "run.json is not as a run writes it" in problem(told("compare", root, root)), change


def test_all_options_of_a_run_are_taken(told: Told) -> None:
    """So that its command line can be used as it is; each is read as for a run."""
    known = {option.flag for option in OPTIONS}
    assert {"--syslat-trials", "--syslat-budget", "--syslat-keep"} <= known
    refused = told("doctor", "--syslat-trials=7", "--syslat-keep", "--syslat-budget=x")
    assert "--syslat-budget: 'x' is not valid" in problem(refused)


def test_settings_are_those_of_the_project(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ini keys and variables, as for `pytest benchmarks`; the command line wins."""
    monkeypatch.setattr(choice, "clean", lambda settings: (f"core {settings.pin_core}", []))
    assert "core 2" in told("clean")[1]
    monkeypatch.setenv("PIN_CORE", "3")
    assert "core 3" in told("clean")[1]
    (tmp_path / "pytest.ini").write_text("[pytest]\nsyslat_pin_core = 5\n")
    assert "core 5" in told("clean")[1]
    assert "core 7" in told("clean", "--syslat-pin-core=7")[1]
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    assert "pytest cannot read its settings here: " in problem(told("clean"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nsyslat_pin_core = x\n")
    assert "ini option syslat_pin_core (--syslat-pin-core): 'x'" in problem(told("clean"))


def test_clean_tells_what_it_removed(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "clean", lambda settings: ("this host", ["cgroup x", "rule y"]))
    code, out, err = told("clean")
    assert (code, err) == (0, "")
    assert out == "removed cgroup x\nremoved rule y\nnothing is left of earlier runs on this host\n"
    code, out, err = told("clean", "--json")
    assert json.loads(out) == {
        "schema": clean.SCHEMA,
        "command": "clean",
        "place": "this host",
        "removed": ["cgroup x", "rule y"],
    }


def test_plugins_that_print_leave_the_document_alone(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "clean", lambda settings: ("this host", []))
    (tmp_path / "conftest.py").write_text("import os\nprint('hello')\n")
    code, out, _ = told("clean", "--json")
    assert code == 0
    assert json.loads(out)["removed"] == []


def test_ctrl_c(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(choice, "clean", pressed)
    assert told("clean") == (2, "", "syslat: interrupted\n")


def test_an_error_of_our_own_is_no_regression(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> Any:
        raise AttributeError("made up")

    monkeypatch.setattr(choice, "clean", wrong)
    monkeypatch.delenv("SYSLAT_TRACEBACK", raising=False)
    code, out, err = told("clean")
    assert (code, out) == (3, "")
    assert err == (
        "syslat: internal error: AttributeError: made up: SYSLAT_TRACEBACK=1 shows where; "
        "please report it\n"
    )
    monkeypatch.setenv("SYSLAT_TRACEBACK", "1")
    code, _, err = told("clean")
    assert code == 3
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("please report it\n")


@pytest.mark.parametrize("command", ["doctor", "compare"])
@pytest.mark.parametrize("where", ["typed", "addopts", "ini"])
def test_nothing_is_cleaned_where_settings_are_read(
    where: str, command: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin itself cleans under `--syslat-clean`, before anybody else has a say."""
    cleaned: list[object] = []

    def clean_up(settings: object) -> tuple[str, list[str]]:
        cleaned.append(settings)
        return "this host", []

    monkeypatch.setattr(choice, "clean", clean_up)
    monkeypatch.setattr(doctor, "_examined", lambda project: ("this host", CHECKS[:1]))
    arguments: list[object] = [command, "--syslat-testbed=local", "--syslat-strict"]
    if command == "compare":
        root = make_run(tmp_path / "run", vanilla_ns=[10_000], agent_ns=[11_000])
        arguments += [root, root]
    if where == "typed":
        arguments.append("--syslat-clean")
    else:
        line = "addopts = --syslat-clean" if where == "addopts" else "syslat_clean = true"
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{line}\n")
    code, _, err = told(*arguments)
    assert (code, err, cleaned) == (0, "", [])


CHECKS = [
    Check("kernel", Status.OK, "6.1"),
    Check("core", Status.WARNING, "there is no core 2", "say so"),
    Check("lmbench", Status.PROBLEM, "not found", "install it"),
]


@pytest.mark.parametrize(
    ("count", "code", "word"), [(3, 1, "cannot"), (2, 0, "can"), (1, 0, "can")]
)
def test_doctor_tells_each_check_with_its_mend(
    count: int, code: int, word: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_examined", lambda project: ("this host", CHECKS[:count]))
    result, out, _ = told("doctor")
    assert result == code
    if count == 3:
        assert out.splitlines() == [
            "measuring on this host",
            "✔ kernel   6.1",
            "! core     there is no core 2",
            "           → say so",
            "✘ lmbench  not found",
            "           → install it",
            "it cannot be measured here: 1 problem, 1 warning, 1 fine",
        ]
    result, out, _ = told("doctor", "--json")
    found = json.loads(out)
    assert result == code
    assert found["schema"] == 1
    assert found["can_measure"] is (word == "can")
    assert found["checks"][0] == {"name": "kernel", "status": "ok", "found": "6.1", "mend": ""}


class Stream:
    """A stream as a terminal of some encoding."""

    def __init__(self, encoding: str, *, is_terminal: bool) -> None:
        self.encoding = encoding
        self.is_terminal = is_terminal
        self.text = ""

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> None:
        self.text += text.encode(self.encoding).decode(self.encoding)

    def flush(self) -> None:
        pass


def shown(
    monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8", *, is_terminal: bool = False
) -> str:
    stream = Stream(encoding, is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    write_answer(
        Answer({}, [Line("✔ 3 µs → Δ", doctor.STYLES["problem"])], ExitCode.OK), as_json=False
    )
    return stream.text


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(monkeypatch) == "✔ 3 µs → Δ\n"
    assert shown(monkeypatch, is_terminal=True) == "\x1b[31m✔ 3 µs → Δ\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(monkeypatch, is_terminal=True) == "✔ 3 µs → Δ\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(monkeypatch, is_terminal=True) == "✔ 3 µs → Δ\n"


def test_signs_where_the_stream_cannot_carry_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, "ascii") == "ok  3 us -> d\n"


def test_module_and_closed_pipe(tmp_path: Path) -> None:
    """In a process of its own: whoever reads has gone before anything is written."""
    root = make_run(tmp_path / "run", vanilla_ns=[10_000], agent_ns=[11_000])
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_syslat", "compare", root, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
