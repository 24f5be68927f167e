"""The same run on terminals, in logs, with other verbosity, colours, widths and encodings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass

import pyte
import pytest

from .support import FAKES, Project

CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1", "--syslat-trials=2"]
BUDGETS = ["--syslat-budget=connect:p50<=+1%", "--syslat-budget=connect:user<=+50%"]
LONG = "falco+my-long-rules.yaml"
ESCAPE = "\x1b"
LIMIT_S = 60.0
HEIGHT = 200
COLOUR_VARIABLES = ("PY_COLORS", "FORCE_COLOR", "NO_COLOR")
COLOUR = re.compile(rf"{ESCAPE}\[[0-9;]*[1-9][0-9;]*m")
HIDDEN_CURSOR = f"{ESCAPE}[?25l"


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Without the files of each trial; pytester's own no to colours is taken back."""
    project.lean = True
    for name in (*COLOUR_VARIABLES, "COLUMNS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    return project


@dataclass(frozen=True)
class Seen:
    """What a run wrote to a terminal, and what remains on its screen."""

    written: str
    screen: list[str]

    @property
    def trials(self) -> list[str]:
        return [line for line in self.screen if " trial " in line and line.startswith("[")]


def on_a_terminal(
    project: Project,
    *arguments: str,
    width: int = 80,
    interrupt_at: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Seen:
    """Run pytest on a terminal of its own; Ctrl-C is typed when a text has been written."""
    command = [sys.executable, "-m", "pytest", "-p", FAKES, "-p", "no:randomly", *CONNECT]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*command, "--syslat-warmup-sec=0", *arguments],
        cwd=project.path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", **(environment or {})},
        preexec_fn=own_the_terminal,  # noqa: PLW1509 - no threads here
    )
    os.close(theirs)
    written = b""
    try:
        # The kernel answers with EIO when the other side is closed.
        with contextlib.suppress(OSError):
            while select.select([ours], [], [], LIMIT_S)[0] and (part := os.read(ours, 65536)):
                written += part
                if interrupt_at is not None and interrupt_at.encode() in written:
                    os.write(ours, b"\x03")
                    interrupt_at = None
        process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    screen = pyte.Screen(width, HEIGHT)
    pyte.ByteStream(screen).feed(written)
    return Seen(written.decode(), [line.rstrip() for line in screen.display])


def section(lines: list[str]) -> list[str]:
    """Our lines at the end of a run."""
    begin = next(index for index, line in enumerate(lines) if "syslat: latency of" in line)
    return lines[begin + 1 :]


def own(result: pytest.RunResult) -> list[str]:
    """Our lines at the end of a run, up to pytest's own."""
    lines = section(result.outlines)
    ends = (index for index, line in enumerate(lines) if re.match(r"===|[0-9]+ passed", line))
    return lines[: next(ends)]


# On a terminal


def test_living_lines_tell_where_the_run_is_and_leave_nothing_behind(project: Project) -> None:
    seen = on_a_terminal(project)
    shown = re.sub(rf"{ESCAPE}\[[0-9;]*[A-Za-z]", "", seen.written)
    assert "connect · auditd · block 1/2 · traced, run 1 of 2" in shown
    assert "connect · vanilla · block 2/2 · traced, run 1 of 2" in shown
    # Calls of the trials before, and what is left: 30 s for each trial.
    assert re.search(r"\[1/4\] +━", shown)
    assert re.search(r"\[3/4\]  2,000 calls  60 s left +━", shown)
    assert not [line for line in seen.screen if "block" in line or "━" in line]
    assert seen.trials == [
        "[1/4] connect auditd trial 1: p50 11.00 p99 22.00 user 22.00 µs, 1,000 calls",
        "[2/4] connect vanilla trial 1: p50 10.00 p99 20.00 user 20.00 µs, 1,000 calls",
        "[3/4] connect auditd trial 2: p50 11.00 p99 22.00 user 22.00 µs, 1,000 calls",
        "[4/4] connect vanilla trial 2: p50 10.00 p99 20.00 user 20.00 µs, 1,000 calls",
    ]
    assert "benchmarks/test_syscall_latency.py" in seen.screen
    # A run that is killed would leave it hidden.
    assert HIDDEN_CURSOR not in seen.written
    assert COLOUR.search(seen.written)


def test_ctrl_c_erases_the_living_lines_first(project: Project) -> None:
    project.table(sleep_s={"connect-auditd-trial2": LIMIT_S})
    seen = on_a_terminal(project, interrupt_at="block 2/2")
    assert not [line for line in seen.screen if "block" in line or "━" in line]
    assert len(seen.trials) == 2
    lines = section(seen.screen)
    assert "connect-auditd-trial2 is refused: interrupted: the run was ended: Ctrl-C" in lines
    assert [line for line in lines if "!!! KeyboardInterrupt !!!" in line]


@pytest.mark.long
def test_a_trial_that_fails_unforeseen_erases_the_living_lines(project: Project) -> None:
    project.write(
        "conftest.py",
        "from pytest_syslat.experiment import Experiment\n"
        "def fail(*_):\n    raise OSError('no space is left')\n"
        "Experiment._store = fail\n",
    )
    seen = on_a_terminal(project, "--tb=line")
    assert "block 1/2" in seen.written
    assert not [line for line in seen.screen if "block" in line or "━" in line]
    assert [line for line in seen.screen if "no space is left" in line]


@pytest.mark.long
def test_a_dumb_terminal_is_a_log(project: Project) -> None:
    seen = on_a_terminal(project, environment={"TERM": "dumb"})
    assert ESCAPE not in seen.written
    assert "block" not in seen.written
    assert "user 20.000 µs, 1,000 calls, 60 s left" in " ".join(seen.written.split())


def test_no_colour_on_a_terminal_keeps_the_living_lines(project: Project) -> None:
    seen = on_a_terminal(project, *BUDGETS, width=120, environment={"NO_COLOR": "1"})
    assert "block 1/2" in seen.written
    assert not COLOUR.search(seen.written)
    # With more room than 80 columns there are all digits.
    assert seen.trials[0] == (
        "[1/4] connect auditd trial 1: p50 11.000 µs, p99 22.000 µs, user 22.000 µs, 1,000 calls"
    )


@pytest.mark.long
def test_quiet_on_a_terminal_has_no_living_lines(project: Project) -> None:
    seen = on_a_terminal(project, "-q")
    assert "block" not in seen.written
    assert seen.trials == []


@pytest.mark.long
@pytest.mark.parametrize("option", ["-sv", "-v", "--capture=tee-sys"])
def test_prints_of_tests_and_living_lines_do_not_mix(project: Project, option: str) -> None:
    project.write(
        "benchmarks/test_theirs.py",
        "def test_theirs(measure, syslat_trial):\n"
        "    print('before', syslat_trial.id)\n"
        "    measure(syslat_trial)\n"
        "    print('after', syslat_trial.id)\n",
    )
    (project.path / "benchmarks/test_syscall_latency.py").unlink()
    seen = on_a_terminal(project, option)
    assert "block 2/2" in seen.written
    assert not [line for line in seen.screen if "block" in line or "━" in line]
    assert len(seen.trials) == 4
    if option == "-sv":
        printed = [line for line in seen.screen if "before " in line or "after " in line]
        assert len(printed) == 8


# In a log


def test_a_log_has_no_control_characters(project: Project) -> None:
    result = project.run_apart(*CONNECT, *BUDGETS, "-vv")
    text = result.stdout.str()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert "block 1/2" not in text
    assert len([line for line in result.outlines if " µs, user " in line]) == 4


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit(project: Project, width: int) -> None:
    project.setenv("COLUMNS", str(width))
    project.write(
        "conftest.py",
        "from pytest_syslat.agents.vanilla import Vanilla\n"
        f"def pytest_syslat_agents():\n    return {{{LONG!r}: Vanilla}}\n",
    )
    project.table(
        ns={LONG: 123_456, "vanilla": 122_001},
        calls={LONG: 123_456_000},
        cost={
            LONG: {
                "calls_per_s": 1_234_567.0,
                "cpu_s": 123.45,
                "duration_s": 10.0,
                "peak_memory_bytes": 12_345_600_000,
                "threads_on_core": ["x"] * 100,
                "dropped": 12_345_678,
            }
        },
        operation_us={"vanilla": 130.0, LONG: [137.0, 138.5]},
        first_operation_us={"vanilla": 131.0, LONG: [1137.0, 1139.0]},
    )
    result = project.run(
        *("benchmarks", "-k", "openat", f"--agent={LONG}", "--syslat-trials=2", "-vv"),
        *("--syslat-budget=*:*<=+1%", "--syslat-placement=both", "--syslat-attribute"),
    )
    lines = own(result)
    tables = [line for line in lines if line[:8].strip() in ("openat", "syscall", "")]
    assert len(tables) > 20
    assert max(map(len, tables)) <= width
    of_agent = [line for line in lines if line.startswith("openat  " if width > 80 else "openat ")]
    [vanilla, agent, *_] = [line.split() for line in of_agent]
    if width == 80:
        assert vanilla[1:6] == ["vanilla", "122.0", "244.0", "135.4", "20.00"]
        assert agent[2:6] == ["123.5", "246.9", "137.0", "22.00"]
        assert agent[-1] == "246.9M"
    else:
        assert vanilla[1:6] == ["vanilla", "122.001", "244.002", "135.421", "20.000"]
        assert agent[1:6] == [LONG, "123.456", "246.912", "137.036", "22.000"]
        assert agent[-1] == "246,912,000"


# Verbosity


def test_quiet_leaves_table_verdicts_and_warnings(project: Project) -> None:
    project.table(
        findings={"connect-auditd-trial1": [["warning", "other-load", "2 other tasks"]]},
        cost={"auditd": {"calls_per_s": 1.0}},
    )
    result = project.run(*CONNECT, *BUDGETS, "-q", "--syslat-attribute")
    lines = own(result)
    assert [line.split()[0] for line in lines] == [
        *("p50", "syscall", "connect", "connect"),
        *("inconclusive,", "warning:", "files:"),
    ]
    assert not [line for line in result.outlines if line.startswith(("syslat:", "[1/4]"))]


def test_quieter_leaves_the_verdicts_alone(project: Project) -> None:
    eight = [*CONNECT[:-1], "--syslat-trials=8"]
    project.table(ns={"auditd": [10_400, 10_600] * 4})
    result = project.run(*eight, *BUDGETS, "-qq")
    lines = [line for line in result.outlines if line.startswith("connect-")]
    # A failed test tells its own, too.
    assert [line.partition(" (budget")[0] for line in lines[-2:]] == [
        "connect-auditd-p50 regressed",
        "connect-auditd-user passed",
    ]
    assert not [line for line in result.outlines if "files:" in line or "syscall " in line]
    assert not [line for line in result.outlines if "syslat: latency" in line]
    nothing_judged = project.run(*CONNECT, "-qq")
    assert not [line for line in nothing_judged.outlines if "connect" in line]


def test_what_is_left_behind_is_told_however_quiet(project: Project) -> None:
    project.write(
        "conftest.py",
        "from pytest_syslat.agents.vanilla import Vanilla\n"
        "from pytest_syslat.agents.protocol import AgentError\n"
        "class Mine(Vanilla):\n"
        "    def remove(self):\n        raise AgentError('it is stuck')\n"
        "def pytest_syslat_agents():\n    return {'mine': Mine}\n",
    )
    chosen = [each.replace("auditd", "mine") for each in CONNECT]
    result = project.run(*chosen, "-qq")
    result.stdout.fnmatch_lines(["left behind: mine could not be removed: it is stuck"])


def test_verbose_adds_intervals_and_reasons(project: Project) -> None:
    project.setenv("COLUMNS", "120")
    project.table(ns={"auditd": [10_400, 10_600]})
    result = project.run(*CONNECT, *BUDGETS, "-v")
    lines = own(result)
    begin = next(index for index, line in enumerate(lines) if "95 % intervals" in line)
    assert lines[begin + 1].split() == [
        *("syscall", "arm", "figure", "Δ", "µs", "from", "µs", "to", "µs", "Δ", "%", "MDE", "µs"),
        *("budget", "verdict"),
    ]
    [p50, user] = [line.split() for line in lines[begin + 2 : begin + 4]]
    # The geometric mean of 1.04 and 1.06.
    assert p50[:4] == ["connect", "auditd", "p50", "+0.500"]
    assert p50[-2:] == ["+1%", "inconclusive"]
    assert user[2] == "user"
    # Each with its reason instead of all in a line.
    assert (
        len([line for line in lines if re.match(r"connect-auditd-\w+ inconclusive \(", line)]) == 2
    )
    plain = own(project.run(*CONNECT, *BUDGETS))
    assert not [line for line in plain if "95 % intervals" in line]
    assert len([line for line in plain if line.startswith("inconclusive, 8 blocks")]) == 1


def test_most_verbose_adds_all_cells_and_findings(project: Project) -> None:
    project.setenv("COLUMNS", "120")
    project.table(
        findings={
            "connect-auditd-trial1": [["note", "page-cache-kept", "only for the files"]],
            "connect-auditd-trial2": [["note", "page-cache-kept", "only for the files"]],
        },
        refuse={"connect-vanilla-trial1": [1]},
    )
    result = project.run(*CONNECT, *BUDGETS, "-vv")
    lines = own(result)
    begin = next(index for index, line in enumerate(lines) if "95 % intervals" in line)
    figures = [line.split()[2] for line in lines[begin + 2 : begin + 7]]
    assert figures == ["p50", "p90", "p99", "mean", "user"]
    told = [line.strip() for line in lines if line.startswith("  connect-")]
    assert "connect-vanilla-trial1 invalid throttled: made-up reason 1" in told
    assert "connect-auditd-trial2 note page-cache-kept: only for the files" in told
    plain = own(project.run(*CONNECT, *BUDGETS, "-v"))
    assert not [line for line in plain if "page-cache-kept" in line]


# Colours


@pytest.mark.parametrize(
    ("variables", "options", "coloured"),
    [
        ({}, [], False),
        ({}, ["--color=yes"], True),
        ({"FORCE_COLOR": "1"}, [], True),
        ({"FORCE_COLOR": "1"}, ["--color=no"], False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": "1"}, ["--color=yes"], True),
        # Only pytest is asked: variables that rich alone knows mean nothing.
        ({"TTY_COMPATIBLE": "1", "COLORTERM": "truecolor"}, [], False),
    ],
)
def test_pytest_decides_on_colours(
    project: Project, variables: Mapping[str, str], options: list[str], coloured: bool
) -> None:
    for name, value in variables.items():
        project.setenv(name, value)
    result = project.run(*CONNECT, *BUDGETS, *options)
    ours = [line for line in result.outlines if "auditd" in line and "inconclusive" in line]
    assert len(ours) == 2
    assert [bool(COLOUR.search(line)) for line in ours] == [coloured] * 2


# Encodings


@pytest.mark.parametrize(
    ("encoding", "unit", "title"),
    [
        ("ascii", "us", "dp50"),
        pytest.param("latin-1", "µs", "dp50", marks=pytest.mark.long),
        pytest.param("utf-8", "µs", "Δp50", marks=pytest.mark.long),
    ],
)
def test_encodings(project: Project, encoding: str, unit: str, title: str) -> None:
    project.setenv("PYTHONIOENCODING", encoding)
    command = [sys.executable, "-m", "pytest", "-p", FAKES, "-p", "no:randomly", *CONNECT, *BUDGETS]
    done = subprocess.run(
        [*command, "--syslat-warmup-sec=0", "-v"],
        cwd=project.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    )
    text = done.stdout.decode(encoding)
    assert f"p50 11.000 {unit}, p99 22.000 {unit}" in text
    assert re.search(rf"{title} +{title}$", text, re.MULTILINE)
    assert "\\x" not in text
    assert "\\u" not in text


# A stored vanilla


def test_a_stored_vanilla_has_a_row(project: Project) -> None:
    project.setenv("COLUMNS", "120")
    project.table(ns={"vanilla": [10_000, 12_000]})
    project.run(*CONNECT, "--syslat-result-dir=old").assert_outcomes(passed=4, deselected=8)
    result = project.run(*CONNECT, "--syslat-baseline=old", "--syslat-result-dir=new")
    rows = [line.split() for line in own(result) if line.startswith("connect ")]
    assert rows[0] == [
        *("connect", "vanilla", "(stored)", "11.000", "22.000", "12.210", "20.000"),
        *("-", "-", "-", "-"),
    ]
    assert rows[1][:3] == ["connect", "auditd", "11.000"]
    assert len(rows) == 2
