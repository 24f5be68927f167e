"""What is measured for a selection, and in which order, whatever other plugins do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest

from .support import Project, key_of, trial_ids

TWO_ARMS = ("vanilla", "auditd")
OTHER_AGENTS = """
from pytest_syslat.agents.vanilla import Vanilla

def pytest_syslat_agents():
    return {"one": Vanilla, "two": Vanilla}
"""


@pytest.fixture
def project(project: Project) -> Project:
    """Without the files of each trial."""
    project.lean = True
    return project


def arms_by_block(measured: Sequence[str]) -> list[list[str]]:
    """The arms of each block in the order in which they came; checks that nothing is torn."""
    keys = [key_of(each) for each in measured]
    assert len(set(keys)) == len(keys), "a trial was measured twice"
    blocks = [(trial, list(block)) for trial, block in groupby(keys, lambda key: key.trial)]
    assert [trial for trial, _ in blocks] == sorted(trial for trial, _ in blocks)
    arms = []
    for _, block in blocks:
        visits = [arm for arm, _ in groupby(block, lambda key: key.arm)]
        assert len(set(visits)) == len(visits), "an arm was visited twice in a block"
        arms.append(visits)
    return arms


def test_blocks_hold_all_arms_in_an_order_shuffled_anew(project: Project) -> None:
    project.write("conftest.py", OTHER_AGENTS)
    chosen = ["benchmarks", "-k", "connect", "--agent=one", "--agent=two", "--syslat-trials=6"]
    project.run(*chosen, "--syslat-seed=1")
    first = project.measured
    arms = arms_by_block(first)
    assert len(first) == 18
    assert all(set(block) == {"vanilla", "one", "two"} for block in arms)
    assert len({tuple(block) for block in arms}) > 1, "every block has the same order"

    project.run(*chosen, "--syslat-seed=1")
    assert project.measured == first
    project.run(*chosen, "--syslat-seed=2")
    assert project.measured != first
    assert sorted(project.measured) == sorted(first)


def test_the_order_of_arms_does_not_depend_on_the_selection(project: Project) -> None:
    chosen = ["benchmarks", "--agent=auditd", "--syslat-trials=4", "--syslat-seed=5"]
    project.run(*chosen)
    everything = project.measured
    assert set(everything) == trial_ids(trials=4, arms=TWO_ARMS)
    assert arms_by_block(everything) != [["vanilla", "auditd"]] * 4
    assert arms_by_block(everything) != [["auditd", "vanilla"]] * 4
    project.run(*chosen, "-k", "connect")
    assert project.measured == [each for each in everything if each.startswith("connect")]


def test_a_random_seed_is_shown_and_can_be_used_again(project: Project) -> None:
    chosen = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=5"]
    result = project.run(*chosen)
    first = project.measured
    seed = project.run_json()["settings"]["seed"]
    result.stdout.fnmatch_lines([f"syslat: *, seed {seed}"])
    project.run(*chosen, f"--syslat-seed={seed}")
    assert project.measured == first


def test_vanilla_partners_are_measured_though_deselected(project: Project) -> None:
    result = project.run(
        "benchmarks", "-k", "auditd", "--agent=auditd", "--syslat-trials=2", "--syslat-seed=1"
    )
    assert result.parseoutcomes() == {"passed": 6, "deselected": 6}
    assert set(project.measured) == trial_ids(trials=2, arms=TWO_ARMS)
    arms_by_block(project.measured)


def test_deselecting_one_syscall(project: Project) -> None:
    path = "benchmarks/test_syscall_latency.py::test_latency"
    deselected = [f"--deselect={path}[{each}]" for each in trial_ids(trials=1, arms=TWO_ARMS)]
    result = project.run("benchmarks", "--agent=auditd", "--syslat-trials=2", *deselected)
    assert result.parseoutcomes() == {"passed": 6, "deselected": 6}
    assert {key_of(each).trial for each in project.measured} == {2}


def test_deselecting_a_partner_alone_changes_nothing_that_is_measured(project: Project) -> None:
    path = "benchmarks/test_syscall_latency.py::test_latency[connect-vanilla-trial1]"
    result = project.run(
        *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=1"),
        f"--deselect={path}",
    )
    assert result.parseoutcomes() == {"passed": 1, "deselected": 5}
    assert set(project.measured) == {"connect-auditd-trial1", "connect-vanilla-trial1"}


def test_a_single_item_by_its_id(project: Project) -> None:
    path = "benchmarks/test_syscall_latency.py::test_latency[openat-vanilla-trial2]"
    result = project.run(path, "--agent=auditd")
    assert result.parseoutcomes() == {"passed": 1}
    assert project.measured == ["openat-vanilla-trial2"]


def test_judging_alone_pulls_in_its_whole_cell(project: Project) -> None:
    result = project.run(
        *("benchmarks", "-k", "p50", "--agent=auditd", "--syslat-trials=3"),
        *("--syslat-budget=connect:p50<=+50%", "--syslat-budget=openat:p99<=+50%"),
    )
    # 18 measuring items and the judging one of openat are left out.
    assert result.parseoutcomes() == {"passed": 1, "deselected": 19}
    assert set(project.measured) == trial_ids(trials=3, arms=TWO_ARMS, syscalls=["connect"])
    arms_by_block(project.measured)
    [result_of_cell] = [cell for cell in project.run_json()["cells"] if cell["budget"] is not None]
    assert result_of_cell["cell"] == {"syscall": "connect", "agent": "auditd", "figure": "p50"}
    assert result_of_cell["blocks"] == 3


def test_stopping_at_the_first_refused_trial(project: Project) -> None:
    project.table(refuse={"connect-vanilla-trial2": [1, 2]})
    result = project.run("benchmarks", "-k", "connect", "--syslat-trials=4", "-x")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1, "deselected": 8}
    # The second one is tried twice; the others of the plan are left.
    assert project.measured == ["connect-vanilla-trial1"] + ["connect-vanilla-trial2"] * 2
    assert project.run_json()["complete"] is False


@pytest.mark.parametrize(
    "place",
    ["benchmarks", "benchmarks/test_syscall_latency.py", "."],
    ids=["directory", "file", "."],
)
def test_last_failed_measures_one_trial_and_its_partner(project: Project, place: str) -> None:
    chosen = [place, "--agent=auditd", "--syslat-trials=2"]
    project.table(refuse={"connect-auditd-trial2": [1, 2]})
    project.run(*chosen).assert_outcomes(passed=11, failed=1)
    project.table()
    result = project.run(*chosen, "--lf")
    assert result.parseoutcomes()["passed"] == 1
    assert set(project.measured) == {"connect-auditd-trial2", "connect-vanilla-trial2"}


def test_failed_first_keeps_the_order_of_measuring(project: Project) -> None:
    chosen = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=3"]
    seed = "--syslat-seed=3"
    project.table(refuse={"connect-auditd-trial3": [1, 2]})
    project.run(*chosen, seed).assert_outcomes(passed=5, failed=1, deselected=12)
    project.table()
    result = project.run(*chosen, seed, "--ff")
    result.assert_outcomes(passed=6, deselected=12)
    assert len(arms_by_block(project.measured)) == 3


REVERSED = """
import pytest

def pytest_collection_modifyitems(items):
    items.reverse()
"""
REVERSED_LAST = """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    yield
    items.reverse()
"""
FULL = [
    *("benchmarks", "--agent=auditd", "--syslat-trials=2", "--syslat-seed=4"),
    "--syslat-budget=connect:p50<=+50%",
]


@pytest.fixture
def undisturbed(project: Project) -> list[str]:
    """The order of measuring when nobody interferes."""
    project.run(*FULL).assert_outcomes(passed=13)
    arms_by_block(project.measured)
    return project.measured


@pytest.mark.parametrize("randomly_seed", [1, 2])
def test_pytest_randomly_does_not_change_the_order(
    project: Project, undisturbed: list[str], randomly_seed: int
) -> None:
    pytest.importorskip("pytest_randomly")
    result = project.run(*FULL, f"--randomly-seed={randomly_seed}", randomly=True)
    result.assert_outcomes(passed=13)
    assert project.measured == undisturbed


@pytest.mark.parametrize("conftest", [REVERSED, REVERSED_LAST], ids=["before us", "after us"])
def test_reversed_items_do_not_change_the_order(
    project: Project, undisturbed: list[str], conftest: str
) -> None:
    project.write("conftest.py", conftest)
    project.run(*FULL).assert_outcomes(passed=13)
    assert project.measured == undisturbed


def test_pytest_repeat_measures_nothing_twice(project: Project, undisturbed: list[str]) -> None:
    pytest.importorskip("pytest_repeat")
    project.run(*FULL, "--count", "2").assert_outcomes(passed=26)
    assert project.measured == undisturbed


def test_reruns_measure_nothing_more(project: Project, undisturbed: list[str]) -> None:
    pytest.importorskip("pytest_rerunfailures")
    project.table(refuse={"connect-auditd-trial1": [1, 2]})
    result = project.run(*FULL, "--reruns", "1", "--junitxml=junit.xml")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["rerun"]) == (11, 2, 2)
    # The plan's own repeat of the refused trial and its partner, at the end of the block.
    again = sorted(["connect-auditd-trial1", "connect-vanilla-trial1"], key=undisturbed.index)
    assert project.measured == undisturbed[:6] + again + undisturbed[6:]


def test_warming_up_once_an_arm_and_a_tenth_later(project: Project) -> None:
    """A run takes 5 s here: 30 s are 6 runs of connect, 3 s are one."""
    project.run(
        *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=4"),
        "--syslat-seed=4",
        warmup=True,
    )
    runs_before: dict[str, int] = {}
    waiting = 0
    for event in project.events:
        if event.startswith("warm-up"):
            waiting += 1
        elif event.startswith("measure"):
            runs_before[event.removeprefix("measure ")] = waiting
            waiting = 0
    expected: dict[str, int] = {}
    seen: set[str] = set()
    previous = None
    for trial in project.measured:
        arm = key_of(trial).arm
        expected[trial] = 6 if arm not in seen else 1 if arm != previous else 0
        seen.add(arm)
        previous = arm
    assert runs_before == expected
    # Both kinds of transition occur with this seed.
    assert {1, 6} <= set(expected.values())
