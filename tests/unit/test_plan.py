from itertools import groupby

import pytest

from pytest_syslat.plan import Plan, TrialKey, all_keys, build_plan

ARMS = ("vanilla", "auditd", "falco")
SYSCALLS = ("execve", "openat", "connect")


def plan_of(
    trials: list[TrialKey] | None = None,
    *,
    judged: tuple[tuple[str, str], ...] = (),
    blocks: int = 4,
    seed: int = 1,
) -> Plan:
    """A plan of the three arms; of all trials unless some are chosen."""
    return build_plan(
        trials=all_keys(ARMS, blocks) if trials is None else trials,
        judged=judged,
        arms=ARMS,
        blocks=blocks,
        seed=seed,
    )


def arms_of(plan: Plan) -> list[list[str]]:
    """The order of arms in each block."""
    return [
        [arm for arm, _ in groupby(block, lambda key: key.arm)]
        for _, block in groupby(plan.order, lambda key: key.trial)
    ]


def test_ids_and_partners() -> None:
    key = TrialKey("connect", "auditd", 3)
    assert key.id == "connect-auditd-trial3"
    assert key.partner == TrialKey("connect", "vanilla", 3)
    assert key.partner.partner == key.partner


def test_all_keys_are_arms_times_syscalls_times_blocks() -> None:
    keys = all_keys(("vanilla", "auditd"), 2)
    assert len(keys) == len(set(keys)) == 2 * 3 * 2
    assert {key.trial for key in keys} == {1, 2}
    assert {key.syscall for key in keys} == set(SYSCALLS)
    assert all_keys(("vanilla",), 0) == []


def test_complete_plan() -> None:
    plan = plan_of()
    assert plan.complete
    assert sorted(plan.order) == sorted(all_keys(ARMS, 4))
    # Blocks one after the other, each arm once in a block, its syscalls in the catalogue's order.
    assert [trial for trial, _ in groupby(plan.order, lambda key: key.trial)] == [1, 2, 3, 4]
    assert [sorted(arms) for arms in arms_of(plan)] == [sorted(ARMS)] * 4
    for _, visit in groupby(plan.order, lambda key: (key.trial, key.arm)):
        assert tuple(key.syscall for key in visit) == SYSCALLS


def test_order_of_arms_is_shuffled_anew_for_each_block() -> None:
    arms = arms_of(plan_of(blocks=60))
    # 60 shuffles of 3 arms: that one of the 6 orders is missing has probability 6 (5/6)^60 = 1e-4,
    # and the seed is fixed.
    assert len({tuple(block) for block in arms}) == 6


def test_seed_decides_the_order() -> None:
    assert plan_of(seed=7).order == plan_of(seed=7).order
    assert plan_of(seed=7, blocks=20).order != plan_of(seed=8, blocks=20).order


def test_order_does_not_depend_on_the_selection() -> None:
    everything = plan_of()
    for chosen in (
        [key for key in all_keys(ARMS, 4) if key.syscall == "connect"],
        [key for key in all_keys(ARMS, 4) if key.trial == 3],
        [key for key in all_keys(ARMS, 4) if key.arm != "falco"],
    ):
        part = plan_of(chosen)
        assert part.order == tuple(key for key in everything.order if key in chosen)
        assert not part.complete


def test_fewer_blocks_are_the_first_ones_of_more() -> None:
    assert plan_of(blocks=2).order == plan_of(blocks=4).order[: 2 * 9]


@pytest.mark.parametrize("arm", ["auditd", "falco"])
def test_vanilla_is_measured_beside_each_trial_of_an_agent(arm: str) -> None:
    key = TrialKey("openat", arm, 2)
    assert set(plan_of([key]).order) == {key, TrialKey("openat", "vanilla", 2)}


def test_vanilla_needs_nobody() -> None:
    key = TrialKey("openat", "vanilla", 2)
    assert plan_of([key]).order == (key,)


def test_a_judged_cell_needs_all_its_blocks() -> None:
    plan = plan_of([], judged=(("connect", "falco"),))
    assert set(plan.order) == {
        TrialKey("connect", arm, trial) for arm in ("vanilla", "falco") for trial in (1, 2, 3, 4)
    }
    assert not plan.complete


def test_judging_all_cells_is_complete() -> None:
    judged = tuple((syscall, arm) for syscall in SYSCALLS for arm in ("auditd", "falco"))
    assert plan_of([], judged=judged).complete


def test_nothing_selected_measures_nothing() -> None:
    plan = plan_of([])
    assert plan.order == ()
    assert not plan.complete


def test_one_missing_trial_makes_it_incomplete() -> None:
    # Vanilla's own trials come back as partners; an agent's does not.
    keys = all_keys(ARMS, 4)
    assert plan_of([key for key in keys if key.arm != "vanilla"]).complete
    assert not plan_of([key for key in keys if key != TrialKey("execve", "falco", 4)]).complete


def test_block() -> None:
    plan = plan_of()
    assert plan.block(2) == plan.order[9:18]
    assert plan.block(5) == ()
