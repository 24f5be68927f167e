"""`--syslat-syscall`: the three by default, and others, of TOML files and of conftests."""

from __future__ import annotations

import pytest

from .support import (
    CLOSED,
    Project,
    collected,
    key_of,
    trial_ids,
    usage_errors,
)

MINE = 'command = "lat_fcntl"\n'
CONFTEST = """
from pytest_syslat.syscalls import Syscall

def pytest_syslat_syscalls(config):
    return [Syscall({entry})]
"""
FCNTL = 'name="fcntl", command=("lat_fcntl",)'
NAMES = "execve, openat, connect, clone, close"


def items(project: Project, *arguments: str) -> list[str]:
    result = project.run("benchmarks", "--collect-only", "-q", *arguments)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
    return collected(result)


def names(found: list[str]) -> list[str]:
    """What is measured, in the order of the plan."""
    return list(dict.fromkeys(each.partition("[")[2].partition("-")[0] for each in found))


def test_the_three_by_default(project: Project) -> None:
    assert set(names(items(project))) == {"execve", "openat", "connect"}


def test_shipped_ones_take_the_place_of_the_three(project: Project) -> None:
    result = project.run(
        "benchmarks", "--syslat-syscall=close", "--syslat-syscall=clone", "--syslat-trials=1"
    )
    result.assert_outcomes(passed=2)
    assert set(project.measured) == trial_ids(trials=1, syscalls=("close", "clone"))
    # Tried on the node, each once, before anything is measured.
    checks = [each for each in project.events if each.startswith("check")]
    assert sorted(checks) == ["check clone", "check close"]
    first = next(n for n, each in enumerate(project.events) if each.startswith("measure"))
    assert all(each in project.events[:first] for each in checks)
    assert (project.results / "vanilla/vanilla_close_trial1.log").exists()
    stored = project.run_json()
    assert stored["settings"]["syscalls"] == ["clone", "close"]
    assert {row["syscall"] for row in project.rows("vanilla/vanilla_summary.csv")} == {
        "clone",
        "close",
    }
    result.stdout.fnmatch_lines(["clone *vanilla *", "close *vanilla *"])


def test_what_is_built_in_is_not_tried(project: Project) -> None:
    project.run("benchmarks", "--syslat-syscall=openat", "--syslat-trials=1")
    assert project.measured == ["openat-vanilla-trial1"]
    assert not [each for each in project.events if each.startswith("check")]


def test_what_is_deselected_is_not_tried(project: Project) -> None:
    project.run(
        *("benchmarks", "--syslat-syscall=close", "--syslat-syscall=openat"),
        *("--syslat-trials=1", "-k", "openat"),
    )
    assert project.measured == ["openat-vanilla-trial1"]
    assert not [each for each in project.events if each.startswith("check")]


def test_the_order_is_that_of_the_catalogue(project: Project) -> None:
    project.write("syscalls/abc.toml", MINE)
    found = items(
        project,
        *(f"--syslat-syscall={each}" for each in ("close", "connect", "abc", "execve", "close")),
        "--syslat-trials=1",
    )
    assert names(found) == ["execve", "connect", "abc", "close"]


def test_a_file_of_the_user(project: Project) -> None:
    project.write("syscalls/fcntl.toml", MINE)
    assert set(items(project, "--syslat-syscall=fcntl", "--syslat-trials=2")) == {
        f"test_latency[fcntl-vanilla-trial{number}]" for number in (1, 2)
    }


def test_a_conftest(project: Project) -> None:
    project.write("conftest.py", CONFTEST.format(entry=FCNTL))
    project.run("benchmarks", "--syslat-syscall=fcntl", "--syslat-trials=1")
    assert project.measured == ["fcntl-vanilla-trial1"]


def test_a_conftest_beside_the_benchmarks(project: Project) -> None:
    """It is loaded after the options have been read."""
    project.write("benchmarks/conftest.py", CONFTEST.format(entry=FCNTL))
    result = project.run("--syslat-syscall=fcntl", "--syslat-trials=1")
    result.assert_outcomes(passed=1)
    assert project.measured == ["fcntl-vanilla-trial1"]


def test_ini(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nsyslat_syscall =\n    close\n    openat\n")
    assert set(names(items(project))) == {"openat", "close"}
    # The command line wins.
    assert set(names(items(project, "--syslat-syscall=execve"))) == {"execve"}


def test_selection_by_name_and_verdicts(project: Project) -> None:
    result = project.run(
        *("benchmarks", "--agent=auditd", "--syslat-syscall=close", "--syslat-syscall=openat"),
        *(
            "--syslat-budget",
            "close:p50<=+5%",
            "--syslat-budget",
            "openat:p50<=+50%",
            "-k",
            "close",
        ),
        "--syslat-trials=8",
    )
    # 10 µs against 11 µs.
    result.assert_outcomes(passed=16, failed=1, deselected=17)
    assert {key_of(each).syscall for each in project.measured} == {"close"}
    [row] = [each for each in project.rows("overhead.csv") if each["verdict"]]
    assert (row["syscall"], row["figure"], row["verdict"]) == ("close", "p50", "regressed")


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--syslat-syscall=chmod"], []])
def test_unknown_names(project: Project, options: list[str]) -> None:
    project.write("syscalls/fcntl.toml", MINE)
    if not options:
        project.write("pytest.ini", "[pytest]\nsyslat_syscall = chmod\n")
    [line] = usage_errors(project.run("benchmarks", *options))
    where = "--syslat-syscall" if options else "ini option syslat_syscall (--syslat-syscall)"
    assert line == (
        f"{where}: 'chmod' is not valid: allowed is {NAMES}, fcntl; another is added by a file "
        "syscalls/NAME.toml or in a conftest (docs/syscalls.md)"
    )
    assert project.events == []


@pytest.mark.parametrize("option", ["--syslat-budget", "--syslat-growth-budget"])
def test_budgets_of_unknown_syscalls(project: Project, option: str) -> None:
    project.write("conftest.py", CONFTEST.format(entry=FCNTL))
    [line] = usage_errors(project.run("benchmarks", option, "chmod:p50<=+1%"))
    assert line == (
        f"{option}: 'chmod:p50<=+1%' is not valid: unknown syscall 'chmod', allowed are clone, "
        "close, connect, execve, fcntl, openat and *"
    )


def test_a_budget_that_would_judge_nothing(project: Project) -> None:
    options = ["benchmarks", "--agent=auditd", "--syslat-budget", "close:p50<=+10%"]
    [line] = usage_errors(project.run(*options))
    assert line == (
        "--syslat-budget: 'close:p50<=+10%' would judge nothing: close is not measured: add "
        "--syslat-syscall=close"
    )
    # In an ini file it may be there for other runs.
    project.write("pytest.ini", "[pytest]\nsyslat_budget = close:p50<=+10%\n")
    assert set(names(items(project, "--agent=auditd"))) == {"execve", "openat", "connect"}


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("fcntl", "comm = 'a'\n", "fcntl.toml: the key 'command' is missing"),
        ("openat", MINE, "openat.toml: openat is one of the three that are built in: choose "),
        ("x", MINE + "success = '0'\n", "x.toml: success: '0' is not valid: 'ret', a comparison"),
    ],
)
def test_a_wrong_file(project: Project, file: str, text: str, told: str) -> None:
    path = project.write(f"syscalls/{file}.toml", text)
    [line] = usage_errors(project.run("benchmarks"))
    assert line.startswith(f"{path.parent}/{told}")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('name="connect", command=("a",)', "connect is one of the three that are built in: choose"),
        ('name="close", command=("a",)', "close is there already, from syscalls/ or another"),
        ('name="a b", command=("a",)', "'a b': name: 'a b' is not valid: small letters, digits"),
        ('name="x", command="a b"', "'x': command: a program and its arguments are needed, such"),
        ('name="x", command=("a",), mark=(1.5,)', "'x': mark: up to 6 whole numbers are needed"),
    ],
)
def test_a_wrong_entry_of_a_conftest(project: Project, entry: str, told: str) -> None:
    project.write("conftest.py", CONFTEST.format(entry=entry))
    [line] = usage_errors(project.run("benchmarks"))
    hook = "pytest_syslat_syscalls"
    assert line.startswith((f"{hook}: {told}", f"{hook}, {told}"))


@pytest.mark.parametrize("answer", ["Syscall('x', command=('a',))", "3", "['x']"])
def test_a_conftest_that_answers_otherwise(project: Project, answer: str) -> None:
    project.write("conftest.py", CONFTEST.replace("[Syscall({entry})]", answer))
    [line] = usage_errors(project.run("benchmarks"))
    assert line.startswith("pytest_syslat_syscalls: a list of Syscall is needed, not ")


def test_a_conftest_that_answers_nothing(project: Project) -> None:
    project.write("conftest.py", CONFTEST.replace("[Syscall({entry})]", "None"))
    assert set(names(items(project))) == {"execve", "openat", "connect"}


def test_a_rate_at_which_nothing_makes_the_calls(project: Project) -> None:
    options = ["benchmarks", "--syslat-rate=100", "--syslat-syscall=close"]
    [line] = usage_errors(project.run(*options, "--syslat-syscall=clone"))
    assert line == (
        "--syslat-rate: no program makes clone at a given rate: leave out --syslat-rate, or "
        "measure others by --syslat-syscall"
    )
    assert project.run(*options, "--syslat-trials=1").ret == pytest.ExitCode.OK


def test_a_node_that_does_not_know_it(project: Project) -> None:
    project.table(not_traced=["close"])
    result = project.run("benchmarks", "--syslat-syscall=close", "--syslat-syscall=openat")
    [line] = usage_errors(result)
    assert line == "the syscall close cannot be traced: made-up reason"
    assert project.measured == []
    assert project.events[-len(CLOSED) + 1 :] == CLOSED[1:]


# --- Beside others -------------------------------------------------------------------------------


def test_a_policy_that_does_not_name_it(project: Project) -> None:
    """Told with the trials of the arm, and of no other."""
    project.write("policies/auditd/bench.rules", "-a always,exit -S clone\n")
    result = project.run(
        *("benchmarks", "--agent=auditd", "--agent=vanilla2", "--syslat-trials=1"),
        *(f"--syslat-syscall={each}" for each in ("openat", "close", "clone")),
    )
    result.assert_outcomes(passed=9)
    told = [
        (row["syscall"], row["severity"], row["detail"])
        for row in project.rows("auditd/auditd_validity.csv")
        if row["code"] == "policy-silent"
    ]
    sentence = (
        "the policy of auditd (bench.rules) does not name close: its overhead here is that of "
        "hooks which it has for every call, at entry, exit or inside"
    )
    assert told == [("close", "warning", sentence)]
    result.stdout.fnmatch_lines([f"warning: close-auditd-trial1: {sentence}"])
    for arm in ("vanilla", "vanilla2"):
        assert "policy-silent" not in (project.results / arm / f"{arm}_validity.csv").read_text()


def test_a_stored_run_that_lacks_it(project: Project) -> None:
    project.run("benchmarks", "--agent=auditd", "--syslat-trials=2")
    (project.path / "result/5.5").rename(project.path / "before")
    base = ["benchmarks", "--agent=auditd", "--syslat-trials=2", "--syslat-syscall=openat"]
    against = ["--syslat-against=before", "--syslat-growth-budget", "*:p50<=+5%"]
    result = project.run(*base, *against)
    assert result.ret != pytest.ExitCode.USAGE_ERROR
    assert project.measured
    for flags in (against, ["--syslat-baseline=before", "--syslat-budget", "*:p50<=+50%"]):
        [line] = usage_errors(project.run(*base, "--syslat-syscall=close", *flags))
        assert "close" in line
        assert line.startswith(flags[0].partition("=")[0])
        assert project.measured == []


@pytest.mark.long
def test_workers_are_refused_for_added_syscalls_only(project: Project) -> None:
    """Tests of others whose ids look like ours run in parallel as ever."""
    pytest.importorskip("xdist")
    project.write("syscalls/fcntl.toml", MINE)
    project.write("pytest.ini", "[pytest]\nsyslat_syscall = fcntl\n")
    project.write(
        "test_other.py",
        "import pytest\n"
        "@pytest.mark.parametrize('x', [1], ids=['slow-path-mean'])\n"
        "def test_other(x): pass\n",
    )
    project.run_apart("test_other.py", "-n1", warmup=True).assert_outcomes(passed=1)
    result = project.run_apart("benchmarks", "-n1", warmup=True)
    [line] = usage_errors(result)
    assert line.startswith("-n: measuring in parallel spoils every figure")
