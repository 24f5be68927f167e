"""What agents are called on the command line and in ini files, and what their arms' tests are."""

from __future__ import annotations

import pytest

from .support import Project, collected, trial_ids, usage_errors

NAMES = "auditd, calibration, falco, kloudknox, tetragon, vanilla2"
SIGN = "[ARM=]log:REGEX, [ARM=]port:NUMBER or [ARM=]file:PATH is needed"


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (
            "--agent=falko",
            (
                f"--syslat-agent: unknown agent 'falko': allowed is {NAMES}, "
                "daemonset:NAMESPACE/NAME, service:UNIT, command:PROGRAM, or all"
            ),
        ),
        (
            "--agent=falco+no.yaml",
            (
                "--syslat-agent: 'falco+no.yaml': there is no file no.yaml: after '+' stands "
                "'none' or a policy's file"
            ),
        ),
        (
            "--agent=daemonset:falco",
            "--syslat-agent: 'daemonset:falco': daemonset:NAMESPACE/NAME is needed",
        ),
        ("--agent=service:", "--syslat-agent: 'service:': service:UNIT is needed"),
        (
            "--agent=command:",
            "--syslat-agent: 'command:': a program is needed, such as command:opensnoop",
        ),
        (
            "--agent=vanilla=auditd",
            "--syslat-agent: 'vanilla=auditd': vanilla is the baseline: give another name",
        ),
        (
            "--syslat-chart=falco",
            (
                "--syslat-chart: 'falco' is not valid: NAME=PATH is needed, such as "
                "falco=./falco-9.1.0.tgz"
            ),
        ),
        (
            "--syslat-chart=falko=https://charts",
            "--syslat-chart: unknown agent 'falko': allowed is falco, kloudknox, tetragon",
        ),
        (
            "--syslat-ready=soon",
            f"--syslat-ready: 'soon' is not valid: {SIGN}",
        ),
        (
            "--syslat-ready=port:99999",
            "--syslat-ready: 'port:99999' is not valid: a port is a number from 1 to 65535",
        ),
        (
            "--syslat-ready=snoop=log:(",
            (
                "--syslat-ready: 'snoop=log:(' is not valid: '(' is no regular expression: "
                "missing ), unterminated subpattern at position 0"
            ),
        ),
    ],
)
def test_wrong_values(project: Project, option: str, told: str) -> None:
    assert usage_errors(project.run("benchmarks", option)) == [told]
    assert project.events == []


def test_chart_that_is_not_there(project: Project) -> None:
    [line] = usage_errors(project.run("benchmarks", "--syslat-chart=falco=./no.tgz"))
    assert line == (
        f"--syslat-chart: 'falco=./no.tgz' is not valid: there is no {project.path / 'no.tgz'}"
    )


def test_same_name_twice(project: Project) -> None:
    [line] = usage_errors(project.run("benchmarks", "--agent=command:a -x", "--agent=command:a"))
    assert line == (
        "--syslat-agent: two arms would be called 'command:a': give one a name, such as "
        "mine=command:a"
    )


def test_agent_that_runs_elsewhere(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syslat_fakes.FakeTestbed.cluster", None, raising=False)
    assert usage_errors(project.run("benchmarks", "--agent=kloudknox")) == [
        "kloudknox is not known to run here: add --syslat-testbed=kubernetes"
    ]
    assert project.events == ["testbed opened", "testbed closed"]


def test_ini_forms(project: Project) -> None:
    project.write("rules/my.rules", "")
    project.write("charts/falco.tgz", "")
    project.pytester.makeini(
        """
        [pytest]
        syslat_agent =
            auditd
            quiet=auditd+rules/my.rules
        syslat_chart =
            falco=charts/falco.tgz
            kloudknox=https://there/deployments
        syslat_ready =
            log:started
            quiet=port:80
        """
    )
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=1")
    result.assert_outcomes(passed=3, deselected=6)
    settings = project.run_json()["settings"]
    assert settings["agents"] == ["auditd", "quiet"]
    assert settings["charts"] == [
        f"falco={project.path / 'charts/falco.tgz'}",
        "kloudknox=https://there/deployments",
    ]
    assert settings["ready"] == ["log:started", "quiet=port:80"]


def test_chart_of_an_ini_file_is_looked_for_below_the_root(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is typed from where pytest is started, as always in pytest."""
    project.write("charts/falco.tgz", "")
    ini = "[pytest]\nsyslat_chart = falco=charts/falco.tgz\n"
    project.pytester.makeini(ini)
    monkeypatch.chdir(project.path / "benchmarks")
    assert project.run(".", "--collect-only").ret == pytest.ExitCode.OK
    [line] = usage_errors(project.run(".", "--syslat-chart=falco=charts/falco.tgz"))
    assert line.endswith(f"there is no {project.path / 'benchmarks/charts/falco.tgz'}")


@pytest.mark.parametrize(
    ("ini", "told"),
    [
        ("syslat_agent = falko", "--syslat-agent: unknown agent 'falko': allowed is "),
        ("syslat_chart = falco", "ini option syslat_chart (--syslat-chart): 'falco' is not valid"),
        (
            "syslat_ready = soon",
            f"ini option syslat_ready (--syslat-ready): 'soon' is not valid: {SIGN}",
        ),
    ],
)
def test_wrong_values_in_the_ini_file(project: Project, ini: str, told: str) -> None:
    project.pytester.makeini(f"[pytest]\n{ini}\n")
    [line] = usage_errors(project.run("benchmarks"))
    assert line.startswith(told)


ARMS = {
    "falco+none": "falco+none",
    "snoop=command:opensnoop -x": "snoop",
    "daemonset:ns/name": "daemonset:ns/name",
    "command:/usr/sbin/opensnoop": "command:opensnoop",
    "calibration:exit-200": "calibration:exit-200",
}


def test_ids_of_arms(project: Project) -> None:
    result = project.run(
        "benchmarks",
        "--collect-only",
        "-q",
        "--syslat-trials=2",
        *(f"--agent={name}" for name in ARMS),
    )
    found = [each.partition("[")[2].rstrip("]") for each in collected(result)]
    assert {each for each in found if "-trial" in each} == trial_ids(
        trials=2, arms=("vanilla", *ARMS.values())
    )
    assert project.events == []


@pytest.mark.parametrize(
    ("expression", "arms"),
    [
        ("snoop and not command", {"snoop"}),
        ("falco", {"falco+none"}),
        ("calibration", {"calibration:exit-200"}),
        ("vanilla or snoop", {"vanilla", "snoop", "command:opensnoop"}),
    ],
)
def test_choosing_arms(project: Project, expression: str, arms: set[str]) -> None:
    result = project.run(
        "benchmarks",
        "--collect-only",
        "-q",
        "--syslat-trials=1",
        "-k",
        f"trial1 and ({expression})",
        *(f"--agent={name}" for name in ARMS),
    )
    found = {each.partition("[")[2].rstrip("]") for each in collected(result)}
    assert found == trial_ids(trials=1, arms=tuple(arms))


def test_described_agent_of_the_project_is_offered(project: Project) -> None:
    project.write("agents/mine.toml", '[host]\ncommand = "mine"\n')
    [line] = usage_errors(project.run("benchmarks", "--agent=falko"))
    assert "allowed is auditd, calibration, falco, kloudknox, mine, tetragon, vanilla2, " in line
    result = project.run(
        "benchmarks", "--agent=mine", "--collect-only", "-q", "--syslat-trials=1", "-k", "trial1"
    )
    assert any("connect-mine-trial1" in each for each in collected(result))


def test_described_agent_of_the_project_that_is_wrong(project: Project) -> None:
    file = project.write("agents/mine.toml", "[host]\ncommand = 1\n")
    assert usage_errors(project.run("benchmarks", "--agent=mine")) == [
        f"{file}, [host]: command: a text is needed"
    ]
    project.run(
        "benchmarks", "--agent=auditd", "-k", "connect", "--syslat-trials=1"
    ).assert_outcomes(passed=2, deselected=4)
