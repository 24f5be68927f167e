"""Options: what they take, where they come from, and how wrong ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_syslat.settings import OPTIONS, Option

from .support import VARIABLES, Project, usage_errors

WHOLE_FROM_1 = "a whole number of at least 1 is needed"
WHOLE_FROM_0 = "a whole number of at least 0 is needed"
SECONDS = "a number of seconds, 0 or more, is needed"
ALL_AGENTS = (
    "auditd, calibration, falco, kloudknox, tetragon, vanilla2, daemonset:NAMESPACE/NAME, "
    "service:UNIT, command:PROGRAM, or all"
)


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--syslat-trials", "-1", WHOLE_FROM_1),
        ("--syslat-trials", "0", WHOLE_FROM_1),
        ("--syslat-trials", "abc", WHOLE_FROM_1),
        ("--syslat-trials", "2.5", WHOLE_FROM_1),
        ("--syslat-trials", "", WHOLE_FROM_1),
        ("--syslat-warmup-sec", "-0.5", SECONDS),
        ("--syslat-warmup-sec", "nan", SECONDS),
        ("--syslat-warmup-sec", "inf", SECONDS),
        ("--syslat-warmup-sec", "soon", SECONDS),
        ("--syslat-lmbench-reps", "0", WHOLE_FROM_1),
        ("--syslat-openat-mult", "ten", WHOLE_FROM_1),
        ("--syslat-rate", "0", WHOLE_FROM_1),
        ("--syslat-rate", "0.5", WHOLE_FROM_1),
        ("--syslat-pin-core", "-1", WHOLE_FROM_0),
        ("--syslat-min-calls", "0", WHOLE_FROM_1),
        ("--syslat-seed", "-1", WHOLE_FROM_0),
        ("--syslat-testbed", "moon", "auto or local"),
        ("--syslat-tracer", "strace", "distribution or events"),
        ("--syslat-placement", "middle", "last or first or both"),
        ("--syslat-baseline", "yesterday", "yesterday: give the result directory of a run"),
        ("--syslat-against", "yesterday", "yesterday: give the result directory of a run"),
        ("--syslat-growth-budget", "connect:p50", "'<=+' is missing"),
        ("--syslat-agent", "", "a name is needed"),
        ("--syslat-budget", "connect:p50", "'<=+' is missing"),
        ("--syslat-budget", "p50<=+10%", "':' is missing"),
        (
            "--syslat-budget",
            "chmod:p50<=+10%",
            "allowed are clone, close, connect, execve, openat and *",
        ),
        ("--syslat-budget", "connect:p75<=+10%", "allowed are p50, p90, p99, mean, user and *"),
        ("--syslat-budget", "connect:p50<=-10%", "an overhead of 0 or more is allowed"),
        ("--syslat-budget", "connect:p50<=+10ms", "allowed are '%' and 'us'"),
        ("--syslat-result-dir", "", "a name is needed"),
    ],
)
def test_a_wrong_value_on_the_command_line(
    project: Project, flag: str, value: str, allowed: str
) -> None:
    result = project.run("benchmarks", f"{flag}={value}")
    [line] = usage_errors(result)
    assert line.startswith(f"{flag}: {value!r} is not valid: ")
    assert allowed in line
    assert project.events == []
    assert not project.results.exists()


@pytest.mark.parametrize("flag", ["--agent", "--syslat-agent"])
def test_an_unknown_agent(project: Project, flag: str) -> None:
    result = project.run("benchmarks", f"{flag}=auditd", f"{flag}=nobody")
    assert usage_errors(result) == [
        f"--syslat-agent: unknown agent 'nobody': allowed is {ALL_AGENTS}"
    ]


@pytest.mark.parametrize(
    ("ini", "value", "allowed"),
    [
        ("syslat_trials", "many", WHOLE_FROM_1),
        ("syslat_warmup_sec", "-1", SECONDS),
        ("syslat_budget", "chmod:p50<=+10%", "unknown syscall 'chmod'"),
        ("syslat_strict", "perhaps", "true or false"),
    ],
)
def test_a_wrong_value_in_the_ini_file(
    project: Project, ini: str, value: str, allowed: str
) -> None:
    project.pytester.makeini(f"[pytest]\n{ini} = {value}\n")
    [line] = usage_errors(project.run("benchmarks", warmup=True))
    flag = "--" + ini.replace("_", "-")
    assert line.startswith(f"ini option {ini} ({flag}): {value!r} is not valid: ")
    assert allowed in line
    assert not project.results.exists()


def test_an_unknown_agent_in_the_ini_file(project: Project) -> None:
    project.pytester.makeini("[pytest]\nsyslat_agent =\n    auditd\n    nobody\n")
    [line] = usage_errors(project.run("benchmarks", warmup=True))
    assert f"unknown agent 'nobody': allowed is {ALL_AGENTS}" in line


def test_a_number_in_native_toml_is_taken_or_refused_in_one_line(project: Project) -> None:
    """`[tool.pytest]` of pytest 9 keeps TOML's own types; pytest wants texts for ours."""
    project.write("pyproject.toml", "[tool.pytest]\nsyslat_trials = 2\n")
    result = project.run("benchmarks", "-k", "connect", warmup=True)
    if result.ret != pytest.ExitCode.OK:
        [line] = usage_errors(result)
        assert "syslat_trials" in line
    else:
        assert project.run_json()["settings"]["trials"] == 2


@pytest.mark.parametrize("warmup_option", [True, False])
@pytest.mark.parametrize(
    ("variable", "flag", "value", "allowed"),
    [
        ("TRIALS", "--syslat-trials", "abc", WHOLE_FROM_1),
        ("WARMUP_SEC", "--syslat-warmup-sec", "-3", SECONDS),
        ("LMBENCH_REPS", "--syslat-lmbench-reps", "0", WHOLE_FROM_1),
        ("OPENAT_MULT", "--syslat-openat-mult", "1.5", WHOLE_FROM_1),
        ("PIN_CORE", "--syslat-pin-core", "first", WHOLE_FROM_0),
    ],
)
def test_a_wrong_value_in_the_environment(
    project: Project, variable: str, flag: str, value: str, allowed: str, warmup_option: bool
) -> None:
    """Refused when pytest starts if an option is given, when our test is collected if not."""
    project.setenv(variable, value)
    given = ["--syslat-seed=1"] if warmup_option else []
    [line] = usage_errors(project.run("benchmarks", *given, warmup=True))
    assert line == f"variable {variable} ({flag}): {value!r} is not valid: {allowed}"


def test_a_result_directory_below_a_file(project: Project) -> None:
    place = project.write("occupied", "not a directory")
    [line] = usage_errors(project.run("benchmarks", "--syslat-result-dir=occupied/by/file"))
    assert line == f"--syslat-result-dir: {place} is not a directory: give a directory"
    assert place.read_text() == "not a directory"
    assert project.events == []


def test_a_result_directory_with_somebody_elses_files(project: Project) -> None:
    place = project.write("theirs/thesis.txt", "years of work")
    [line] = usage_errors(project.run("benchmarks", "-k", "connect", "--syslat-result-dir=theirs"))
    assert line == (f"--syslat-result-dir: {place.parent} is not empty and holds no earlier run")
    assert [path.name for path in place.parent.iterdir()] == ["thesis.txt"]
    assert project.measured == []
    assert project.events[-1] == "testbed closed"


def test_an_lmbench_directory_that_is_missing(project: Project) -> None:
    [line] = usage_errors(project.run("benchmarks", "--syslat-lmbench-dir=nowhere"))
    assert line == (
        "--syslat-lmbench-dir: lat_proc, lat_syscall, lat_connect not found in "
        f"{project.pytester.path / 'nowhere'}: give the directory of lmbench's programs"
    )


def test_an_lmbench_directory_without_lmbench(project: Project) -> None:
    directory = project.write("tools/lat_proc", "not executable").parent
    [line] = usage_errors(
        project.run("benchmarks", "-k", "connect", f"--syslat-lmbench-dir={directory}")
    )
    assert line == (
        f"--syslat-lmbench-dir: lat_proc, lat_syscall, lat_connect not found in {directory}: "
        "give the directory of lmbench's programs"
    )
    assert project.events[-1] == "testbed closed"


XDIST_REFUSED = (
    "-n: measuring in parallel spoils every figure: run the benchmarks without pytest-xdist (-n 0)"
)


@pytest.mark.parametrize("arguments", [["-n", "2"], ["--dist=each", "--tx=2*popen"]])
def test_xdist_is_refused_at_once_beside_an_option_of_ours(
    project: Project, arguments: list[str]
) -> None:
    pytest.importorskip("xdist")
    result = project.run("benchmarks", "--syslat-trials=1", *arguments)
    assert usage_errors(result) == [XDIST_REFUSED]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-n", "2"], id="all"),
        pytest.param(["-n", "1", "-k", "test_overhead"], id="judging items alone"),
    ],
)
def test_xdist_is_refused_when_our_items_are_collected(
    project: Project, arguments: list[str]
) -> None:
    pytest.importorskip("xdist")
    project.pytester.makeini("[pytest]\nsyslat_agent = auditd\nsyslat_budget = connect:p50<=+10%\n")
    result = project.run_apart("benchmarks", *arguments, warmup=True)
    assert usage_errors(result) == [XDIST_REFUSED]
    assert project.events == []
    assert not project.results.exists()


@pytest.mark.parametrize("arguments", [["-n0"], ["-n0", "--dist=loadfile"], ["--dist=loadfile"]])
def test_xdist_that_distributes_nothing_is_fine(project: Project, arguments: list[str]) -> None:
    pytest.importorskip("xdist")
    # In a process of its own: xdist leaves a log file of pytest's open under --dist alone.
    result = project.run_apart("benchmarks", "-k", "connect", "--syslat-trials=1", *arguments)
    result.assert_outcomes(passed=1, deselected=2)
    assert project.measured == ["connect-vanilla-trial1"]


def settings_of(project: Project, *arguments: str) -> dict[str, Any]:
    result = project.run("benchmarks", "-k", "connect and trial1", *arguments, warmup=True)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    settings: dict[str, Any] = project.run_json()["settings"]
    return settings


def test_the_documented_defaults(project: Project) -> None:
    settings = settings_of(project)
    seed = settings.pop("seed")
    assert isinstance(seed, int)
    assert settings == {
        "agents": [],
        "syscalls": ["execve", "openat", "connect"],
        "charts": [],
        "ready": [],
        "trials": 5,
        "until": None,
        "warmup_s": 30.0,
        "lmbench_reps": 10,
        "openat_mult": 10,
        "rate": None,
        "pin_core": 2,
        "testbed": "auto",
        "kube_context": None,
        "node": None,
        "image": None,
        "drop_caches": False,
        "tracer": "distribution",
        "placement": "last",
        "attribute": False,
        "budgets": [],
        "min_calls": 1000,
        "baseline": None,
        "against": None,
        "growth_budgets": [],
        "force": False,
        "result_dir": str(project.results),
        "lmbench_dir": None,
        "strict": False,
        "keep": False,
        "clean": False,
    }
    assert settings_of(project)["seed"] != seed


def test_variables_of_the_original_script(project: Project) -> None:
    for name, value in zip(VARIABLES, ("3", "1.5", "7", "4", "1"), strict=True):
        project.setenv(name, value)
    settings = settings_of(project)
    chosen = ("trials", "warmup_s", "lmbench_reps", "openat_mult", "pin_core")
    assert [settings[name] for name in chosen] == [3, 1.5, 7, 4, 1]


def test_an_empty_variable_is_no_value(project: Project) -> None:
    project.setenv("TRIALS", "")
    assert settings_of(project)["trials"] == 5


def test_command_line_over_ini_over_environment(project: Project) -> None:
    project.setenv("TRIALS", "4")
    assert settings_of(project)["trials"] == 4
    project.pytester.makeini(
        "[pytest]\nsyslat_trials = 3\nsyslat_strict = yes\n"
        "syslat_agent = auditd\nsyslat_budget =\n    connect:p50<=+10%\n    openat:user<=+1us\n"
    )
    from_ini = settings_of(project)
    assert (from_ini["trials"], from_ini["strict"]) == (3, True)
    assert from_ini["agents"] == ["auditd"]
    assert from_ini["budgets"] == ["connect:p50<=+10%", "openat:user<=+1us"]
    from_command_line = settings_of(
        project, "--syslat-trials=2", "--syslat-budget=execve:p99<=+5%", "--syslat-agent=vanilla"
    )
    assert from_command_line["trials"] == 2
    # A repeatable option on the command line replaces the list of the ini file.
    assert from_command_line["budgets"] == ["execve:p99<=+5%"]
    assert from_command_line["agents"] == []


@pytest.mark.parametrize(
    ("arguments", "trials"),
    [
        ([], 5),
        (["--agent=auditd"], 5),
        (["--syslat-budget=connect:p50<=+1%"], 5),
        (["--agent=auditd", "--syslat-budget=connect:p50<=+1%"], 8),
        (["--agent=auditd", "--syslat-budget=connect:p50<=+1%", "--syslat-trials=3"], 3),
    ],
)
def test_more_trials_when_budgets_are_judged(
    project: Project, arguments: list[str], trials: int
) -> None:
    assert settings_of(project, *arguments)["trials"] == trials


def test_a_core_that_does_not_exist_gives_a_warning(project: Project) -> None:
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=1", "--syslat-pin-core=64")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "syslat: * core 3",
            (
                "warning: --syslat-pin-core: core 64 does not exist or may not be used here: "
                "core 3 is used"
            ),
        ]
    )


@pytest.mark.parametrize("place", ["conftest.py", "benchmarks/conftest.py"])
def test_an_agent_option_of_the_users_own(project: Project, place: str) -> None:
    project.write(
        place,
        """
def pytest_addoption(parser):
    parser.addoption("--agent", default="nobody", help="theirs")
    parser.addini("wanted", "for the test")
""",
    )
    project.write(
        "benchmarks/test_theirs.py",
        """
def test_agent(pytestconfig):
    assert pytestconfig.getoption("--agent") == pytestconfig.getini("wanted")
""",
    )
    chosen = ["benchmarks", "-k", "test_agent or (connect and trial1)", "--syslat-trials=1"]
    result = project.run(*chosen, "--agent=007", "-o", "wanted=007")
    result.assert_outcomes(passed=2, deselected=2)
    assert project.measured == ["connect-vanilla-trial1"]

    result = project.run(*chosen, "--syslat-agent=auditd", "-o", "wanted=nobody")
    result.assert_outcomes(passed=3, deselected=4)
    assert sorted(project.measured) == ["connect-auditd-trial1", "connect-vanilla-trial1"]


def test_the_short_form_of_agent(project: Project) -> None:
    result = project.run("--agent", "auditd", "--syslat-trials=1", "benchmarks", "-k", "connect")
    result.assert_outcomes(passed=2, deselected=4)
    assert sorted(project.measured) == ["connect-auditd-trial1", "connect-vanilla-trial1"]


def test_help_tells_of_every_option(project: Project) -> None:
    project.setenv("COLUMNS", "80")
    result = project.run("--help", warmup=True)
    text = " ".join(result.stdout.str().split())
    for option in OPTIONS:
        shown = text.split(f" {option.flag}" if option.is_flag else f" {option.flag}=", 1)[1]
        told = shown.split(" --syslat-")[0] if option.is_flag else shown
        first_sentence = option.help.split(". ")[0]
        assert first_sentence in told, option.flag
        in_ini = text.split(f" {option.ini} (", 1)[1]
        assert first_sentence in in_ini[: len(first_sentence) + 20], option.ini
        if not option.is_flag:
            assert f"Default: {option.default}. Example: {option.flag}={option.example}" in text
    assert "--syslat-budget='connect:p50<=+10%'" in text
    assert "syslat_budget = connect:p50<=+10%." in text
    assert "%%" not in text
    result.stdout.fnmatch_lines(["*--agent=NAME*"])


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_help_is_short_and_its_example_is_valid(option: Option) -> None:
    assert option.help[0].isupper() or option.help.startswith("How")
    assert option.help.endswith(".")
    assert len(option.help) <= 220
    if option.is_flag:
        assert (option.default, option.example) == (None, None)
    else:
        assert option.default
        assert option.example
        option.parse(option.example.strip("'"))


@pytest.mark.parametrize("place", ["ini file", "variable"])
def test_the_short_form_of_agent_beside_the_command_line(project: Project, place: str) -> None:
    if place == "variable":
        project.setenv("PYTEST_ADDOPTS", "--agent=auditd")
    else:
        project.pytester.makeini("[pytest]\naddopts = --agent auditd\n")
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=1")
    result.assert_outcomes(passed=2, deselected=4)


def test_a_wrong_variable_in_workers_of_xdist(project: Project) -> None:
    pytest.importorskip("xdist")
    project.setenv("TRIALS", "abc")
    [line] = usage_errors(project.run_apart("benchmarks", "-n", "1", warmup=True))
    # Whichever of the two reasons comes first.
    assert line == XDIST_REFUSED or line.startswith("variable TRIALS (--syslat-trials): 'abc'")
