"""Agents of the user's own: the hook, the order of calls, and what happens when they fail."""

from __future__ import annotations

import re

import pytest

from .support import CLOSED, Project, key_of, trial_ids, usage_errors

AGENT = """
import time
from pathlib import Path

from pytest_syslat.agents.protocol import AgentError, Processes
from syslat_fakes import event


class Mine:
    name = "mine"

    def __init__(self, testbed, rootdir):
        event(f"{self.name} made for {testbed.name} in {rootdir}")

    def prepare(self):
        event(f"{self.name} prepare")

    def activate(self):
        event(f"{self.name} activate")

    def ready(self):
        return None

    def idle(self):
        return None

    def drops(self):
        return None

    def processes(self):
        return Processes()

    def kernel_time(self):
        return None

    def facts(self):
        return {}

    def deactivate(self):
        event(f"{self.name} deactivate")

    def remove(self):
        event(f"{self.name} remove")

    def version(self):
        return "mine 1.0"

"""
HOOK = """
def pytest_syslat_agents(config):
    return {"mine": Mine}
"""


def with_agent(project: Project, body: str = "", hook: str = HOOK) -> None:
    """Write a conftest with an agent whose methods `body` replaces."""
    project.write("conftest.py", AGENT + body + hook)


def calls(project: Project, name: str = "mine") -> list[str]:
    """The calls of an agent's methods, in order."""
    return [
        event.removeprefix(f"{name} ")
        for event in project.events
        if event.startswith(f"{name} ") and "made for" not in event
    ]


CHOSEN = ["benchmarks", "-k", "connect", "--agent=mine", "--syslat-seed=1", "--syslat-trials=3"]


def test_it_becomes_an_arm(project: Project) -> None:
    with_agent(project)
    project.run(*CHOSEN).assert_outcomes(passed=6, deselected=12)
    assert set(project.measured) == trial_ids(
        trials=3, arms=("vanilla", "mine"), syscalls=["connect"]
    )
    assert project.events[:5] == [
        "testbed opened",
        f"mine made for made-up in {project.path}",
        "server started",
        "audit opened",
        "mine prepare",
    ]
    assert project.events[-5:] == ["mine remove", *CLOSED]
    active = False
    for event in project.events:
        if event in ("mine activate", "mine deactivate"):
            assert active == (event == "mine deactivate"), "switched twice to the same state"
            active = not active
        elif event.startswith("measure"):
            assert active == ("-mine-" in event)
    assert (project.results / "mine/mine_summary.csv").is_file()
    assert "agent mine: mine 1.0\n" in (project.results / "vanilla/vanilla_sysinfo.txt").read_text()


def test_a_hook_in_the_directory_of_the_benchmark(project: Project) -> None:
    """pytest reads it when it collects, after the options."""
    project.write("benchmarks/conftest.py", AGENT + HOOK)
    project.run("--agent=mine", "-k", "connect", "--syslat-trials=1").assert_outcomes(
        passed=2, deselected=4
    )


def test_all_means_ours_and_theirs(project: Project) -> None:
    with_agent(project)
    result = project.run("benchmarks", "-k", "connect", "--agent=all", "--syslat-trials=1")
    result.assert_outcomes(passed=3, deselected=6)
    assert set(project.measured) == trial_ids(
        trials=1, arms=("vanilla", "auditd", "mine"), syscalls=["connect"]
    )
    assert calls(project, "mine")[-1] == calls(project, "auditd")[-1] == "remove"


def test_an_arm_that_is_not_selected_is_not_installed(project: Project) -> None:
    with_agent(project)
    result = project.run("benchmarks", "-k", "connect-auditd", "--agent=all", "--syslat-trials=1")
    result.assert_outcomes(passed=1, deselected=8)
    assert calls(project, "auditd") == ["prepare", "activate", "remove"] or calls(
        project, "auditd"
    ) == ["prepare", "activate", "deactivate", "remove"]
    assert calls(project, "mine") == []


def test_names_of_theirs_are_offered(project: Project) -> None:
    with_agent(project)
    [line] = usage_errors(project.run("benchmarks", "--agent=your"))
    assert line == (
        "--syslat-agent: unknown agent 'your': allowed is auditd, calibration, falco, kloudknox, "
        "mine, tetragon, vanilla2, daemonset:NAMESPACE/NAME, service:UNIT, command:PROGRAM, or all"
    )


def test_none_from_a_hook_adds_nothing(project: Project) -> None:
    project.write("conftest.py", "def pytest_syslat_agents():\n    return None\n")
    project.run("benchmarks", "-k", "connect", "--agent=all", "--syslat-trials=1").assert_outcomes(
        passed=2, deselected=4
    )


def test_the_baseline_s_name_is_taken(project: Project) -> None:
    with_agent(project, hook=HOOK.replace('"mine"', '"vanilla"'))
    [line] = usage_errors(project.run("benchmarks"))
    assert line == (
        "pytest_syslat_agents: 'vanilla' is the name of the baseline: choose another name"
    )
    assert project.events == []


def test_it_is_removed_when_a_test_fails(project: Project) -> None:
    with_agent(project)
    project.table(refuse={"connect-mine-trial1": [1, 2]})
    result = project.run(*CHOSEN, "-x")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert calls(project)[-1] == "remove"
    assert calls(project).count("remove") == 1


def test_it_is_removed_after_ctrl_c(project: Project) -> None:
    with_agent(project)
    project.table(interrupt=2)
    result = project.run(*CHOSEN, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert project.events[-5:] == ["mine remove", *CLOSED]


def test_a_second_ctrl_c_does_not_cut_the_cleanup(project: Project) -> None:
    body = """
    def remove(self):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)
        event("mine remove")
"""
    with_agent(project, body)
    result = project.run(*CHOSEN, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.OK
    assert project.events[-5:] == ["mine remove", *CLOSED]
    assert len(project.run_json()["trials"]) == 6


def test_it_cannot_be_installed(project: Project) -> None:
    body = """
    def prepare(self):
        event("mine prepare")
        raise AgentError("mine: no room for it")
"""
    with_agent(project, body)
    assert usage_errors(project.run(*CHOSEN)) == ["mine: no room for it"]
    assert calls(project) == ["prepare", "remove"]
    assert project.events[-4:] == CLOSED
    assert project.measured == []
    assert not project.results.exists()


def test_it_cannot_even_be_made(project: Project) -> None:
    body = """
    def __init__(self, testbed, rootdir):
        raise AgentError("mine: its policy is missing")
"""
    with_agent(project, body)
    assert usage_errors(project.run(*CHOSEN)) == ["mine: its policy is missing"]
    assert project.events == ["testbed opened", "testbed closed"]


def test_what_it_leaves_behind_is_told_though_it_could_not_be_installed(project: Project) -> None:
    body = """
    def prepare(self):
        raise AgentError("mine: no room for it")

    def remove(self):
        raise AgentError("mine: half of it is stuck")
"""
    with_agent(project, body)
    result = project.run(*CHOSEN)
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "mine: no room for it" in output
    assert "mine could not be removed: mine: half of it is stuck" in output


@pytest.mark.parametrize("kind", ["AgentError", "RuntimeError"])
def test_one_that_cannot_be_removed_does_not_keep_the_others(project: Project, kind: str) -> None:
    body = f"""
    def remove(self):
        event(f"{{self.name}} remove")
        raise {kind}("it is stuck")


class Other(Mine):
    name = "other"

    def remove(self):
        event("other remove")
"""
    with_agent(
        project, body, "def pytest_syslat_agents():\n    return {'mine': Mine, 'other': Other}\n"
    )
    result = project.run(*CHOSEN, "--agent=other")
    result.assert_outcomes(passed=9, deselected=18)
    assert calls(project)[-1] == calls(project, "other")[-1] == "remove"
    assert project.events[-4:] == CLOSED
    result.stdout.fnmatch_lines(["left behind: mine could not be removed: it is stuck"])


def test_it_is_never_ready(project: Project) -> None:
    body = """
    def ready(self):
        return "its policy does not load"
"""
    with_agent(project, body)
    result = project.run("benchmarks", "--agent=mine", "-k", "connect", "--syslat-trials=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1, deselected=4)
    result.stdout.re_match_lines(
        [
            r"connect-mine-trial1 is refused: agent-not-ready: .*its policy does not load",
            r"connect  vanilla +10\.000 .*",
            r"connect  mine +- .* refused +0",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert {row["code"] for row in project.rows("mine/mine_validity.csv")} == {"agent-not-ready"}
    # Vanilla was not measured while it was switched on.
    active = False
    for event in project.events:
        if event in ("mine activate", "mine deactivate"):
            active = event == "mine activate"
        elif event.startswith("measure connect-vanilla"):
            assert not active


def test_what_never_comes_up_is_not_tried_for_ever(project: Project) -> None:
    body = """
    def activate(self):
        event("mine activate")
        raise AgentError("mine: its image cannot be had")
"""
    with_agent(project, body)
    result = project.run("benchmarks", "--agent=mine", "--syslat-trials=3")
    assert project.events.count("mine activate") == 2
    refused = [line for line in result.outlines if "REFUSED" in line]
    assert all("agent-not-ready: mine: its image cannot be had" in line for line in refused)
    assert sum("(not tried again)" in line for line in refused) == len(refused) - 2
    assert len(project.rows("vanilla/vanilla_user.csv")) > 0


def test_a_trial_does_not_begin_before_it_is_ready(project: Project) -> None:
    """Not even one after a trial that was refused because it wasn't ready."""
    # The limit here is 0.2 s. Ready after 0.3 s, it would be ready when the second trial ends.
    body = """
    since = None
    told = False

    def activate(self):
        event("mine activate")
        self.since = self.since or time.monotonic()

    def ready(self):
        if time.monotonic() < self.since + 0.3:
            return "it is still loading"
        if not self.told:
            event("mine ready")
            self.told = True
        return None
"""
    with_agent(project, body)
    project.table(sleep_s={"openat-mine-trial1": 0.5})
    project.run("benchmarks", "--agent=mine", "--syslat-trials=1")
    valid = [
        f"{trial['syscall']}-mine-trial1"
        for trial in project.run_json()["trials"]
        if trial["label"] == "mine" and not trial["refused"]
    ]
    assert valid, "it is ready long before the end"
    events = project.events
    for trial in valid:
        last_begin = len(events) - 1 - events[::-1].index(f"measure {trial}")
        assert "mine ready" in events[:last_begin]


@pytest.mark.parametrize("kind", ["AgentError", "TestbedError"])
def test_vanilla_is_not_measured_under_an_agent_that_came_half_up(
    project: Project, kind: str
) -> None:
    """Whatever `activate` did before it failed is undone before anybody else's trial begins."""
    body = f"""
    def activate(self):
        from pytest_syslat.testbeds.protocol import TestbedError

        event("mine activate")
        raise {kind}("mine: the second of two rules was not taken")
"""
    with_agent(project, body)
    result = project.run(*CHOSEN)
    result.assert_outcomes(passed=3, failed=3, deselected=12)
    result.stdout.fnmatch_lines(
        [
            (
                "connect-mine-trial1 is refused: agent-not-ready: "
                "mine: the second of two rules was not taken"
            )
        ]
    )
    half_up = False
    for event in project.events:
        if event == "mine activate":
            half_up = True
        elif event == "mine deactivate":
            half_up = False
        elif event.startswith("measure"):
            assert key_of(event.removeprefix("measure ")).arm == "vanilla"
            assert not half_up, "vanilla was measured with half of the agent switched on"


def test_an_activation_that_failed_is_made_again_from_the_start(project: Project) -> None:
    """Though the arm is the active one already, and says that it is ready."""
    body = """
    attempts = 0

    def activate(self):
        self.attempts += 1
        event("mine half up")
        if self.attempts == 1:
            raise AgentError("mine: a rule was not taken")
        event("mine up")
"""
    with_agent(project, body)
    project.run("benchmarks", "--agent=mine", "--syslat-trials=1")
    state = ""
    for event in project.events:
        if event in ("mine half up", "mine up", "mine deactivate"):
            state = event
        elif event.startswith("measure"):
            assert state in (["mine up"] if "-mine-" in event else ["", "mine deactivate"])
    assert len([each for each in project.measured if "-mine-" in each]) == 3


def test_it_cannot_be_switched_off(project: Project) -> None:
    body = """
    def deactivate(self):
        event("mine deactivate")
        raise AgentError("mine: it does not let go")
"""
    with_agent(project, body)
    result = project.run(*CHOSEN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # From the first time that it was on, vanilla cannot be measured any more.
    first = project.events.index("mine activate")
    assert not any("-vanilla-" in event for event in project.events[first:])
    assert re.search(
        r"connect-vanilla-trial\d is refused: agent-not-ready: mine: it does not let go",
        result.stdout.str(),
    )


def test_a_mistake_in_it_refuses_its_own_trials_only(project: Project) -> None:
    body = """
    def activate(self):
        event("mine activate")
        self.no_such_attribute
"""
    with_agent(project, body)
    result = project.run(*CHOSEN)
    result.assert_outcomes(passed=3, failed=3, deselected=12)
    result.stdout.fnmatch_lines(
        ["connect-mine-trial1 is refused: unexpected: mine: AttributeError(*"]
    )
    assert "Traceback" not in result.stdout.str()
    assert project.events[-5:] == ["mine remove", *CLOSED]


def test_a_trial_is_refused_while_an_agent_that_should_be_off_is_not(project: Project) -> None:
    body = """
    was_on = False

    def activate(self):
        self.was_on = True

    def idle(self):
        return "a program of it is still attached" if self.was_on else None
"""
    with_agent(project, body)
    result = project.run(*CHOSEN)
    refused = {
        f"{trial['syscall']}-{trial['label']}-trial{trial['trial']}"
        for trial in project.run_json()["trials"]
        if trial["refused"]
    }
    # Vanilla was measured well until the agent was switched on for the first time.
    plan = project.run_json()["plan"]
    first = next(index for index, each in enumerate(plan) if "-mine-" in each)
    assert refused == {each for each in plan[first:] if "-vanilla-" in each}
    assert refused
    reason = "other-arm-active: mine should be off: a program of it is still attached"
    assert result.outlines.count(f"{min(refused)} is refused: {reason}") == 1
