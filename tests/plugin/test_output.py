"""What stands on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from .support import Project

CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-seed=1", "--syslat-trials=2"]
TRIAL_LINE = re.compile(
    r"\[[1-4]/4\] connect (vanilla|auditd) trial [12]: "
    r"p50 1[01]\.000 µs, p99 2[02]\.000 µs, user 2[02]\.000 µs, 1,000 calls(, .+ left)?"
)
ESCAPE = "\x1b"


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def trial_lines(lines: Sequence[str]) -> list[str]:
    """The lines in which a trial is told about, as they stand."""
    return [line for line in lines if "µs" in line and "trial " in line]


def without_colours(text: str) -> str:
    return re.sub(rf"{ESCAPE}\[[0-9;]*m", "", text)


def summary_of(result: pytest.RunResult) -> list[str]:
    """The lines of our section, the last before pytest's own."""
    begin = next(
        index for index, line in enumerate(result.outlines) if "syslat: latency of" in line
    )
    lines = result.outlines[begin + 1 :]
    end = next(index for index, line in enumerate(lines) if line.startswith("==="))
    while not lines[end - 1]:
        end -= 1
    return lines[:end]


def test_the_header(project: Project) -> None:
    result = project.run(*CONNECT)
    result.stdout.fnmatch_lines(
        [
            "collected 12 items / 8 deselected / 4 selected",
            "syslat: made-up testbed on nowhere, kernel 0.0.0, bpftrace v*, lmbench 0.0, core 2",
            "syslat: arms vanilla, auditd, 2 trials, seed 1",
        ]
    )
    assert not any("warning" in line for line in result.outlines)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"governor": "powersave"}, "the governor is powersave"),
        ({"boost (cpufreq)": "1"}, "turbo is on"),
        (
            {"governor": "powersave", "turbo off (intel_pstate)": "0"},
            "the governor is powersave and turbo is on",
        ),
    ],
)
def test_a_core_whose_frequency_may_change(
    project: Project, facts: dict[str, str], words: str
) -> None:
    project.table(facts=facts)
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=1")
    result.stdout.fnmatch_lines([f"syslat: warning: {words}: *"])


@pytest.mark.parametrize("verbosity", [[], ["-v"], ["-vv"], ["-s"], ["-rA"]])
def test_each_trial_has_a_line_of_its_own(project: Project, verbosity: list[str]) -> None:
    result = project.run(*CONNECT, *verbosity)
    result.assert_outcomes(passed=4, deselected=8)
    lines = trial_lines(result.outlines)
    assert len(lines) == 4
    for line in lines:
        assert TRIAL_LINE.fullmatch(line), line
    assert [line[:5] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    # What is left is told as long as something is: 30 s a trial here.
    assert [line.rpartition("calls")[2] for line in lines] == [
        ", 2 min left",
        ", 60 s left",
        ", 30 s left",
        "",
    ]


def test_verbose_names_each_item(project: Project) -> None:
    result = project.run(*CONNECT, "-v")
    passed = [line for line in result.outlines if line.startswith("PASSED")]
    assert len(passed) == 4
    names = [line for line in result.outlines if "::test_latency[connect-" in line]
    assert len(names) == 4


def test_no_dots_beside_lines_of_trials(project: Project) -> None:
    project.write("benchmarks/test_theirs.py", "def test_theirs():\n    pass\n")
    result = project.run(*CONNECT, "--syslat-budget=connect:p50<=+50%", "-k", "connect or theirs")
    result.assert_outcomes(passed=6, deselected=8)
    # One for the ordinary test, one for the verdict, none for a trial.
    dots = [line.partition("[")[0].strip() for line in result.outlines if "%]" in line]
    assert [re.sub(r"^\S+\.py", "", each).strip() for each in dots] == [".", "."]


def test_quiet(project: Project) -> None:
    result = project.run(*CONNECT, "-q")
    result.assert_outcomes(passed=4, deselected=8)
    assert trial_lines(result.outlines) == []
    # The table and the place of the files remain.
    result.stdout.fnmatch_lines(
        ["syscall  arm  *", "connect  vanilla *", "connect  auditd *", "files: *"]
    )


def test_without_a_terminal_reporter(project: Project) -> None:
    result = project.run(*CONNECT, "-p", "no:terminal")
    assert result.ret == pytest.ExitCode.OK
    assert len(project.measured) == 4
    assert result.outlines == []


def test_the_table(project: Project) -> None:
    project.setenv("COLUMNS", "120")
    project.table(calls={"auditd": 2000}, ns={"connect-auditd": [12_000, 12_500]})
    result = project.run(*CONNECT[:1], *CONNECT[3:])
    result.assert_outcomes(passed=12)
    lines = summary_of(result)
    header = re.split(" {2,}", lines[0].strip())
    assert header == [
        *("syscall", "arm", "p50 µs", "p99 µs", "mean µs", "user µs"),
        *("Δp50 µs", "Δp50 %", "verdict", "calls"),
    ]
    # Means over trials: (12 + 12.5) / 2, and 1.11 times that; the paired ratio is the geometric
    # mean sqrt(1.2 * 1.25) = sqrt(1.5) = 1.224745.
    assert [" ".join(line.split()) for line in lines[1:7]] == [
        "execve vanilla 10.000 20.000 11.100 20.000 - - - 2,000",
        "execve auditd 11.000 22.000 12.210 22.000 +1.000 +10.0 - 4,000",
        "openat vanilla 10.000 20.000 11.100 20.000 - - - 2,000",
        "openat auditd 11.000 22.000 12.210 22.000 +1.000 +10.0 - 4,000",
        "connect vanilla 10.000 20.000 11.100 20.000 - - - 2,000",
        "connect auditd 12.250 24.500 13.598 22.000 +2.247 +22.5 - 4,000",
    ]
    assert re.fullmatch(
        r"switching \(median\), beside the trials: auditd on [0-9.]+ s, off [0-9.]+ s", lines[7]
    )
    assert lines[8:] == [f"files: {project.results}"]
    # Columns are flush with each other.
    assert len({len(line) for line in lines[:7]}) == 1


FALCO_LIKE = {
    "calls_per_s": 100_000.4,
    "cpu_s": 1.5,
    "duration_s": 6.0,
    "peak_memory_bytes": 150_000_000,
    "threads": 12,
    "threads_on_core": ["a", "b"],
    "dropped": 1_000,
}


def test_the_table_of_costs(project: Project) -> None:
    cheaper = {**FALCO_LIKE, "cpu_s": 0.5, "threads_on_core": [], "peak_memory_bytes": 140_000_000}
    project.table(
        cost={"connect-auditd": [FALCO_LIKE, cheaper], "vanilla": {"calls_per_s": 123_456.0}},
        refuse={"openat-auditd-trial1": [1, 2]},
    )
    result = project.run(*CONNECT[:1], *CONNECT[3:])
    lines = summary_of(result)
    begin = lines.index("") + 1
    # Means of 1.5 and 0.5 s, and of 25 and 8.3 %; the larger memory, two threads, 2,000 drops.
    assert [" ".join(line.split()) for line in lines[begin : begin + 5]] == [
        "syscall arm CPU s % core peak MB on core calls/s dropped",
        "execve vanilla - - - - 123,456 -",
        "openat vanilla - - - - 123,456 -",
        "connect vanilla - - - - 123,456 -",
        "connect auditd 1.00 16.7 150.0 2 100,000 2,000",
    ]
    assert len({len(line) for line in lines[begin : begin + 5]}) == 1


def test_no_table_of_costs_for_vanilla_alone(project: Project) -> None:
    project.table(cost={"vanilla": {"calls_per_s": 123_456.0}})
    lines = summary_of(project.run("benchmarks", "-k", "connect"))
    assert not any("CPU s" in line for line in lines)


def test_a_paced_run_says_so(project: Project) -> None:
    result = project.run(*CONNECT, "--syslat-rate=250")
    result.stdout.fnmatch_lines(
        ["syslat: arms vanilla, auditd, 2 trials, 250 operations a second, seed 1"]
    )
    assert "paced at 250" in project.events


def test_warnings_stand_under_the_table_one_line_a_code(project: Project) -> None:
    project.table(
        findings={
            "connect-auditd-trial1": [
                ["warning", "other-load", "2 other tasks wanted to run"],
                ["undecided", "agent-dropped", "auditd dropped 7 events"],
                ["note", "page-cache-kept", "only for the files"],
            ],
            "connect-auditd-trial2": [["warning", "other-load", "3 other tasks wanted to run"]],
        }
    )
    result = project.run(*CONNECT)
    lines = summary_of(result)
    assert lines[-4:-2] == [
        "warning: connect-auditd-trial1: 2 other tasks wanted to run (and 1 more trial)",
        "warning: connect-auditd-trial1: auditd dropped 7 events",
    ]
    assert [line.split()[0] for line in lines[:-4]] == ["p50", "syscall", "connect", "connect"]
    assert lines[-2].startswith("switching ")
    assert lines[-1].startswith("files: ")


@pytest.mark.parametrize(("calls", "warned"), [(3000, False), (4000, True)])
def test_counts_that_differ_more_than_threefold(project: Project, calls: int, warned: bool) -> None:
    project.table(calls={"auditd": calls})
    result = project.run(*CONNECT)
    expected = f"vanilla 2,000, auditd {2 * calls:,}"
    found = [line for line in summary_of(result) if "more than threefold" in line]
    if warned:
        [line] = found
        assert line.startswith("warning: connect: numbers of calls differ more than threefold: ")
        assert set(line.rpartition(": ")[2].split(", ")) == set(expected.split(", "))
    else:
        assert found == []


def test_colours_only_where_they_are_wanted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.table(ns={"auditd": [10_500, 11_500]})
    chosen = [*CONNECT, "--syslat-budget=connect:p50<=+1%"]
    # pytester says no to colours by this variable; a pipe must be enough.
    for name in ("PY_COLORS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    plain = project.run(*chosen)
    plain.assert_outcomes(passed=5, deselected=8)
    assert ESCAPE not in plain.stdout.str()
    coloured = project.run(*chosen, "--color=yes")
    yellow = [line for line in coloured.outlines if line.startswith(f"{ESCAPE}[33mconnect")]
    assert [without_colours(line).split()[1] for line in yellow] == ["auditd"]
    without_codes = list(map(without_colours, coloured.outlines))
    assert set(trial_lines(without_codes)) == set(trial_lines(plain.outlines))
