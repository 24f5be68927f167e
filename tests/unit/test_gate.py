from __future__ import annotations

import math
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from scipy import stats

from pytest_syslat.budget import Budget
from pytest_syslat.gate import (
    OVERHEAD_COLUMNS,
    Cell,
    CellData,
    CellResult,
    Verdict,
    detectable_effect_sd,
    fails,
    family_sentence,
    judge,
    overhead_rows,
    worst,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CELL = Cell("connect", "tetragon", "p50")

# Student's t with 7 degrees of freedom, from a printed table.
T_975 = 2.3646
T_995 = 3.4995

# Vanilla drifts tenfold over the blocks; only pairing keeps that out of the differences, whose
# mean is 4.5, whose sum of squares is 42, variance 42 / 7 = 6 and standard error sqrt(6 / 8).
DRIFTING_US = np.array([10.0, 20.0, 30.0, 40.0, 55.0, 70.0, 85.0, 100.0])
STEPS_US = DRIFTING_US + np.array([3.0, 1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 6.0])
STEPS_ERROR_US = 0.866025

# Ratios 1.05 and 1.15, four times each: with h = ln(1.15 / 1.05) / 2 the mean log ratio is
# ln(1.05) + h = ln sqrt(1.2075), the variance 8 h^2 / 7 and the standard error h / sqrt(7).
# The geometric mean of 4 and 16 is 8.
ALTERNATING_US = np.array([4.0, 4.0, 16.0, 16.0] * 2)
RATIOS_US = ALTERNATING_US * np.array([1.05, 1.15] * 4)
RATIOS_MEAN = 0.0942761
RATIOS_ERROR = 0.0171921


def percent(amount: float) -> Budget:
    return Budget("*", "*", amount, "%")


def microseconds(amount: float) -> Budget:
    return Budget("*", "*", amount, "us")


def steps(budget: Budget | None = None, cell: Cell = CELL) -> CellData:
    return CellData(cell, budget, DRIFTING_US, STEPS_US)


def ratios(budget: Budget | None = None, cell: Cell = CELL) -> CellData:
    return CellData(cell, budget, ALTERNATING_US, RATIOS_US)


def judge_one(data: CellData, *, min_blocks: int = 8) -> CellResult:
    (result,) = judge([data], min_blocks=min_blocks)
    return result


def others(count: int, budget: Budget | None) -> list[CellData]:
    return [steps(budget, Cell("openat", f"agent{number}", "p50")) for number in range(count)]


# Numbers


def test_cell_id() -> None:
    assert CELL.id == "connect-tetragon-p50"


def test_while_a_trial_is_refused_nothing_is_known() -> None:
    verdicts = [None, Verdict.PASSED, Verdict.REGRESSED, Verdict.INVALID, Verdict.INCONCLUSIVE]
    assert worst(verdicts) is Verdict.INVALID
    assert worst(verdicts[:3]) is Verdict.REGRESSED
    assert worst([Verdict.PASSED, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([None]) is None


@pytest.mark.parametrize("strict", [False, True])
def test_what_fails_a_run(strict: bool) -> None:
    failing = {verdict for verdict in (*Verdict, None) if fails(verdict, strict=strict)}
    expected = {Verdict.REGRESSED, Verdict.INVALID}
    assert failing == (expected | {Verdict.INCONCLUSIVE} if strict else expected)


def test_absolute_budget_by_hand() -> None:
    result = judge_one(steps(microseconds(4)))
    assert result.cell == CELL
    assert result.blocks == 8
    assert result.vanilla_us == pytest.approx(51.25)
    assert result.agent_us == pytest.approx(55.75)
    assert result.delta_us == pytest.approx(4.5)
    assert result.delta_pct == pytest.approx(100 * 4.5 / 51.25)
    assert result.ci_low_us == pytest.approx(4.5 - T_975 * STEPS_ERROR_US, abs=1e-4)
    assert result.ci_high_us == pytest.approx(4.5 + T_975 * STEPS_ERROR_US, abs=1e-4)
    assert result.ci_low_pct == pytest.approx(100 * result.ci_low_us / 51.25)
    assert result.ci_high_pct == pytest.approx(100 * result.ci_high_us / 51.25)


@pytest.mark.parametrize("budget", [percent(10), None])
def test_relative_budget_and_no_budget_by_hand(budget: Budget | None) -> None:
    result = judge_one(ratios(budget))
    low_ratio = math.exp(RATIOS_MEAN - T_975 * RATIOS_ERROR)
    high_ratio = math.exp(RATIOS_MEAN + T_975 * RATIOS_ERROR)
    assert result.vanilla_us == pytest.approx(8.0)
    assert result.agent_us == pytest.approx(8 * math.sqrt(1.2075))
    assert result.delta_us == pytest.approx(result.agent_us - result.vanilla_us, rel=1e-12)
    assert result.delta_pct == pytest.approx(9.8863, abs=1e-4)
    assert result.ci_low_pct == pytest.approx(100 * (low_ratio - 1), abs=1e-3)
    assert result.ci_high_pct == pytest.approx(100 * (high_ratio - 1), abs=1e-3)
    assert result.ci_low_us == pytest.approx(8 * (low_ratio - 1), abs=1e-4)
    assert result.ci_high_us == pytest.approx(8 * (high_ratio - 1), abs=1e-4)


@pytest.mark.parametrize("blocks", [8, 11, 30])
@pytest.mark.parametrize("unit", ["%", "us"])
def test_agrees_with_scipy(blocks: int, unit: Literal["%", "us"]) -> None:
    random = np.random.default_rng(blocks)
    vanilla_us = random.lognormal(3, 0.3, blocks)
    agent_us = vanilla_us * random.lognormal(0.1, 0.08, blocks)
    data = CellData(CELL, Budget("*", "*", 8.0, unit), vanilla_us, agent_us)
    result = judge([data, *others(2, percent(5))])[0]
    if unit == "%":
        test = stats.ttest_1samp(
            np.log(agent_us / vanilla_us), math.log(1.08), alternative="greater"
        )
        paired = stats.ttest_rel(np.log(agent_us), np.log(vanilla_us))
        limits_us = np.expm1(np.array(paired.confidence_interval(1 - 0.05 / 3)))
        limits_us *= stats.gmean(vanilla_us)
    else:
        test = stats.ttest_1samp(agent_us - vanilla_us, 8.0, alternative="greater")
        paired = stats.ttest_rel(agent_us, vanilla_us)
        limits_us = np.array(paired.confidence_interval(1 - 0.05 / 3))
    assert [result.ci_low_us, result.ci_high_us] == pytest.approx(limits_us)
    assert result.p_adjusted == pytest.approx(min(1.0, 6 * test.pvalue))


def test_alpha_sets_the_width() -> None:
    # t with 7 degrees of freedom, 0.95: 1.8946
    (result,) = judge([steps(microseconds(4))], alpha=0.10)
    assert result.ci_high_us == pytest.approx(4.5 + 1.8946 * STEPS_ERROR_US, abs=1e-4)


# The family


def test_more_cells_widen_the_interval_and_raise_p() -> None:
    alone = judge_one(steps(microseconds(2)))
    in_five = judge([steps(microseconds(2)), *others(4, percent(5))])[0]
    assert in_five.ci_low_us == pytest.approx(4.5 - T_995 * STEPS_ERROR_US, abs=1e-4)
    assert in_five.ci_high_us == pytest.approx(4.5 + T_995 * STEPS_ERROR_US, abs=1e-4)
    assert in_five.p_adjusted == pytest.approx(5 * alone.p_adjusted)
    assert in_five.mde_us > alone.mde_us
    assert (alone.verdict, in_five.verdict) == (Verdict.REGRESSED, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    "bystander",
    [
        pytest.param(steps(None), id="no-budget"),
        pytest.param(replace(steps(percent(5)), refused=("no samples",)), id="refused"),
        pytest.param(CellData(CELL, percent(5), DRIFTING_US[:7], STEPS_US[:7]), id="few-blocks"),
        pytest.param(CellData(CELL, percent(5), np.empty(0), np.empty(0)), id="no-blocks"),
    ],
)
def test_untestable_cells_do_not_enlarge_the_family(bystander: CellData) -> None:
    alone = judge_one(steps(microseconds(4)))
    accompanied = judge([bystander, steps(microseconds(4))])[1]
    assert astuple(accompanied) == astuple(alone)


def test_undecided_cell_can_regress_and_so_enlarges_the_family() -> None:
    undecided = [replace(data, undecided=("lost events",)) for data in others(4, percent(5))]
    result = judge([steps(microseconds(4)), *undecided])[0]
    assert result.ci_high_us == pytest.approx(4.5 + T_995 * STEPS_ERROR_US, abs=1e-4)


def test_without_budgets_all_cells_are_the_family() -> None:
    result = judge([ratios(), *others(4, None)])[0]
    high_ratio = math.exp(RATIOS_MEAN + T_995 * RATIOS_ERROR)
    assert result.ci_high_pct == pytest.approx(100 * (high_ratio - 1), abs=1e-3)


def test_if_no_judged_cell_is_testable_the_judged_are_the_family() -> None:
    family = [steps(microseconds(4)), *others(4, percent(5)), *others(3, None)]
    result = judge(family, min_blocks=9)[0]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.ci_high_us == pytest.approx(4.5 + T_995 * STEPS_ERROR_US, abs=1e-4)


def test_results_say_who_shares_the_error() -> None:
    family = [
        steps(microseconds(4)),
        replace(steps(percent(5)), refused=("no samples",)),
        *others(2, percent(5)),
        steps(None),
    ]
    results = judge(family, alpha=0.01)
    assert [result.in_family for result in results] == [True, False, True, True, False]
    assert {(result.family_size, result.alpha) for result in results} == {(3, 0.01)}


def product(*, syscalls: int, agents: int, names: Sequence[str]) -> list[CellData]:
    return [
        steps(percent(5), Cell(f"call{syscall}", f"agent{agent}", name))
        for syscall in range(syscalls)
        for agent in range(agents)
        for name in names
    ]


def test_the_family_in_a_sentence() -> None:
    fifteen = product(syscalls=3, agents=1, names=["p50", "p90", "p99", "mean", "user"])
    assert family_sentence(judge(fifteen)) == (
        "15 cells are judged together (3 syscalls × 1 agent × 5 figures): their intervals all "
        "hold at once with 95 %; -k narrows the family"
    )
    uneven = [replace(fifteen[0], refused=("no samples",)), *fifteen[1:], steps(None)]
    assert family_sentence(judge(uneven, alpha=0.05 / 3)).startswith(
        "14 cells are judged together (from 3 syscalls, 1 agent, 5 figures): their intervals all "
        "hold at once with 98.33 %"
    )
    estimated = [replace(data, budget=None) for data in fifteen[:5]]
    assert family_sentence(judge(estimated)).startswith(
        "5 cells are estimated together (1 syscall × 1 agent × 5 figures): "
    )
    assert family_sentence(judge([steps(percent(5)), *others(4, None)])) == (
        "1 cell is judged (connect-tetragon-p50): its interval holds with 95 %"
    )
    assert family_sentence([]) == "no cell is judged"


def test_empty_family() -> None:
    assert judge([]) == []


def test_results_keep_the_order() -> None:
    family = [ratios(), *others(3, percent(5)), steps(percent(5), Cell("a", "b", "user"))]
    assert [result.cell for result in judge(family)] == [data.cell for data in family]


# Verdicts


@pytest.mark.parametrize(
    ("amount", "expected"),
    # The interval is 2.4522 to 6.5478 µs.
    [
        (2.452, Verdict.REGRESSED),
        (2.453, Verdict.INCONCLUSIVE),
        (4.5, Verdict.INCONCLUSIVE),
        (6.547, Verdict.INCONCLUSIVE),
        (6.548, Verdict.PASSED),
    ],
)
def test_absolute_verdicts(amount: float, expected: Verdict) -> None:
    result = judge_one(steps(microseconds(amount)))
    assert result.verdict is expected
    assert (result.p_adjusted < 0.05) == (expected is Verdict.REGRESSED)
    assert bool(result.reasons) == (expected is not Verdict.PASSED)


@pytest.mark.parametrize(
    ("amount", "expected"),
    # exp(0.0942761 -+ 2.3646 x 0.0171921) - 1: the interval is +5.509 to +14.446 %.
    [
        (5.50, Verdict.REGRESSED),
        (5.52, Verdict.INCONCLUSIVE),
        (14.44, Verdict.INCONCLUSIVE),
        (14.45, Verdict.PASSED),
    ],
)
def test_relative_verdicts(amount: float, expected: Verdict) -> None:
    result = judge_one(ratios(percent(amount)))
    assert result.verdict is expected
    assert (result.p_adjusted < 0.05) == (expected is Verdict.REGRESSED)


@pytest.mark.parametrize(("amount", "unit"), [(12.0, "%"), (2.0, "us")])
def test_p_and_lower_limit_agree_on_many_cells(amount: float, unit: Literal["%", "us"]) -> None:
    random = np.random.default_rng(20)
    vanilla_us = random.lognormal(3, 0.2, (300, 9))
    agent_us = vanilla_us * random.lognormal(0.2, 0.1, (300, 9))
    budget = Budget("*", "*", amount, unit)
    # All 300 in one family would hardly ever decide; three at a time do both often.
    results = [
        result
        for first in range(0, 300, 3)
        for result in judge(
            [
                CellData(CELL, budget, vanilla_us[row], agent_us[row])
                for row in range(first, first + 3)
            ]
        )
    ]
    low = [result.ci_low_pct if unit == "%" else result.ci_low_us for result in results]
    above = [limit > budget.amount for limit in low]
    assert [result.p_adjusted < 0.05 for result in results] == above
    assert [result.verdict is Verdict.REGRESSED for result in results] == above
    assert 30 < sum(above) < 270


def test_p_is_capped() -> None:
    assert judge_one(steps(microseconds(50))).p_adjusted == 1.0


def test_without_budget_a_cell_is_not_judged() -> None:
    result = judge_one(replace(ratios(), refused=("no samples",), undecided=("few calls",)))
    assert (result.verdict, result.reasons, result.budget) == (None, (), None)
    assert math.isnan(result.p_adjusted)
    assert result.mde_us > 0


def test_refused_trial_makes_invalid_whatever_the_figures_say() -> None:
    sentences = ("trial 3: lost 12 events", "trial 4: throttled")
    for amount in (2.0, 50.0):
        data = replace(steps(microseconds(amount)), refused=sentences, undecided=("few calls",))
        result = judge_one(data)
        assert result.verdict is Verdict.INVALID
        assert result.reasons == sentences
        assert result.delta_us == pytest.approx(4.5)


def test_no_blocks_are_invalid_and_all_figures_nan() -> None:
    result = judge_one(CellData(CELL, percent(5), np.empty(0), np.empty(0)))
    assert result.verdict is Verdict.INVALID
    assert result.reasons == ("no block was measured in both arms",)
    assert result.blocks == 0
    assert all(math.isnan(figure) for figure in figures(result))
    assert math.isnan(result.p_adjusted)


def test_one_block_has_an_estimate_but_no_limits() -> None:
    data = CellData(CELL, percent(5), np.array([10.0]), np.array([12.0]))
    result = judge_one(data)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reasons == ("1 block, 8 are needed to decide",)
    assert figures(result)[:4] == pytest.approx((10.0, 12.0, 2.0, 20.0))
    assert all(math.isnan(figure) for figure in (*figures(result)[4:], result.p_adjusted))


def test_too_few_blocks_decide_nothing() -> None:
    vanilla_us = np.full(5, 10.0)
    agent_us = np.array([20.0, 20.1, 19.9, 20.0, 20.2])
    data = CellData(CELL, percent(5), vanilla_us, agent_us, undecided=("lost events",))
    result = judge_one(data)
    assert result.ci_low_pct > 90
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reasons == ("5 blocks, 8 are needed to decide", "lost events")
    assert judge_one(data, min_blocks=5).verdict is Verdict.REGRESSED


def test_undecided_cannot_pass() -> None:
    result = judge_one(replace(steps(microseconds(50)), undecided=("lost events",)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reasons == ("lost events",)


def test_undecided_can_regress() -> None:
    result = judge_one(replace(steps(microseconds(2)), undecided=("lost events",)))
    assert result.verdict is Verdict.REGRESSED
    assert result.reasons == (
        "the overhead is at least +2.452 µs, above the budget *:*<=+2us",
        "lost events",
    )


def test_straddling_interval_is_explained_in_the_unit_of_the_budget() -> None:
    result = judge_one(replace(ratios(percent(10)), undecided=("lost events",)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reasons == (
        "the overhead is between +5.51 % and +14.45 %, the budget *:*<=+10% lies inside",
        "lost events",
    )


# No spread


@pytest.mark.parametrize("blocks", [8, 15, 27])
@pytest.mark.parametrize(
    ("budget", "ratio", "shift_us"),
    [(percent(10), 1.1, 0.0), (microseconds(0.2), 1.0, 0.2), (percent(0), 1.0, 0.0)],
)
def test_exactly_the_budget_in_each_block_passes(
    budget: Budget, ratio: float, shift_us: float, blocks: int
) -> None:
    # None of these ratios and differences is the same number in all blocks before rounding.
    vanilla_us = np.linspace(8.9, 11.3, blocks)
    data = CellData(CELL, budget, vanilla_us, vanilla_us * ratio + shift_us)
    result = judge_one(data)
    assert result.verdict is Verdict.PASSED
    assert result.ci_low_us == result.delta_us == result.ci_high_us
    assert result.ci_low_pct == result.delta_pct == result.ci_high_pct
    assert result.mde_us == 0
    assert result.p_adjusted == 1


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (percent(24.999), Verdict.REGRESSED),
        (percent(25.001), Verdict.PASSED),
        (microseconds(2.499), Verdict.REGRESSED),
        (microseconds(2.501), Verdict.PASSED),
    ],
)
def test_no_spread_decides_by_the_point(budget: Budget, expected: Verdict) -> None:
    result = judge_one(CellData(CELL, budget, np.full(8, 10.0), np.full(8, 12.5)))
    assert result.verdict is expected
    assert result.p_adjusted == (0.0 if expected is Verdict.REGRESSED else 1.0)
    assert figures(result) == pytest.approx((10, 12.5, 2.5, 25, 2.5, 2.5, 25, 25, 0))


def test_limits_beyond_floating_point_are_infinite() -> None:
    vanilla_us = np.array([1e-3, 1e3])
    data = CellData(CELL, percent(5), vanilla_us, vanilla_us[::-1].copy())
    result = judge([data, *others(40, percent(5))], min_blocks=2)[0]
    assert (result.ci_low_pct, result.ci_high_pct) == (-100, math.inf)
    assert result.mde_us == math.inf
    assert result.verdict is Verdict.INCONCLUSIVE


# The step in which figures are recorded


def recorded(
    budget: Budget, agent_us: float, *, vanilla_us: float = 10.0, blocks: int = 8
) -> CellData:
    """The same ns in each block of an arm."""
    vanilla, agent = np.full(blocks, vanilla_us), np.full(blocks, agent_us)
    return CellData(CELL, budget, vanilla, agent, step_us=0.001)


@pytest.mark.parametrize("blocks", [8, 32])
@pytest.mark.parametrize(
    ("difference_ns", "expected"),
    [
        (-1, Verdict.PASSED),
        (0, Verdict.INCONCLUSIVE),
        (1, Verdict.INCONCLUSIVE),
        (2, Verdict.REGRESSED),
    ],
)
def test_equal_figures_are_known_to_a_step_only(
    difference_ns: int, expected: Verdict, blocks: int
) -> None:
    agent_us = 10 + difference_ns / 1000
    result = judge_one(recorded(microseconds(0), agent_us, blocks=blocks))
    assert result.verdict is expected
    assert result.ci_low_us == pytest.approx((difference_ns - 1) / 1000)
    assert result.ci_high_us == pytest.approx((difference_ns + 1) / 1000)
    assert (result.p_adjusted < 0.05) == (expected is Verdict.REGRESSED)


def test_equal_figures_give_no_p_of_nothing() -> None:
    # A spread below that of rounding is not known: two roundings are 0.001 / sqrt(6) together, so
    # t = 0.002 / (0.001 / sqrt(6) / sqrt(8)) = 13.86 with 7 degrees of freedom.
    result = judge_one(recorded(microseconds(0), 10.002))
    assert result.p_adjusted == pytest.approx(2 * stats.t.sf(2 * math.sqrt(48), 7))


def test_step_under_a_relative_budget() -> None:
    # One step of the smaller figure: 0.001 / 10.
    result = judge_one(recorded(percent(24), 12.5))
    assert result.ci_low_pct == pytest.approx(100 * (1.25 * math.exp(-0.0001) - 1))
    assert result.ci_high_pct == pytest.approx(100 * (1.25 * math.exp(0.0001) - 1))
    assert judge_one(recorded(percent(24.99), 12.5)).verdict is Verdict.INCONCLUSIVE
    assert judge_one(recorded(percent(24.98), 12.5)).verdict is Verdict.REGRESSED
    faster = judge_one(recorded(percent(24), 8.0))
    assert faster.ci_high_pct == pytest.approx(100 * (0.8 * math.exp(0.001 / 8) - 1))


def test_step_below_the_spread_changes_nothing() -> None:
    for data in (steps(microseconds(4)), ratios(percent(10))):
        assert astuple(judge_one(replace(data, step_us=0.01))) == astuple(judge_one(data))


def test_what_a_step_leaves_detectable() -> None:
    # A limit is a step away, and what the mean varies by comes on top: with t of 7 degrees of
    # freedom, what finds it is (detectable - 2.3646 / sqrt 8) standard deviations.
    sd_us = 0.001 / math.sqrt(6)
    expected_us = 0.001 + (detectable_effect_sd(8, 0.025) - T_975 / math.sqrt(8)) * sd_us
    result = judge_one(recorded(microseconds(0), 10.002))
    assert result.mde_us == pytest.approx(expected_us, rel=1e-4)


def test_step_with_one_block_has_no_limits() -> None:
    result = judge_one(recorded(microseconds(0), 10.002, blocks=1))
    assert all(math.isnan(figure) for figure in (*figures(result)[4:], result.p_adjusted))


@pytest.mark.parametrize("step_us", [-0.001, math.nan, math.inf])
def test_impossible_step(step_us: float) -> None:
    with pytest.raises(ValueError, match="connect-tetragon-p50: a step is a finite number of µs"):
        CellData(CELL, percent(5), DRIFTING_US, STEPS_US, step_us=step_us)


# How many blocks would decide


def first_with_power(effect_sd: float, alpha_per_side: float, blocks: int) -> int:
    """Blocks from `blocks` + 1 on with which a t test finds the effect four times in five."""
    while True:
        blocks += 1
        quantile = stats.t.ppf(1 - alpha_per_side, blocks - 1)
        power = 1 - stats.nct.cdf(quantile, blocks - 1, effect_sd * math.sqrt(blocks))
        if power >= 0.8:
            return blocks


@pytest.mark.parametrize("amount", [2.46, 3.0, 3.5, 5.5, 6.0, 6.54])
@pytest.mark.parametrize("cells", [1, 3])
def test_blocks_to_decide_on_either_side_of_the_budget(amount: float, cells: int) -> None:
    result = judge([steps(microseconds(amount)), *others(cells - 1, percent(5))])[0]
    # The mean of the steps is 4.5, their standard deviation sqrt(6).
    effect_sd = abs(4.5 - amount) / math.sqrt(6)
    expected = first_with_power(effect_sd, 0.025 / cells, 8)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.more_blocks_can_decide
    assert result.blocks_to_decide == expected
    assert result.reasons[0].endswith(f"lies inside; {expected - 8} more trials would settle this")


def test_blocks_to_decide_do_decide_in_four_of_five_runs() -> None:
    blocks = judge_one(steps(microseconds(3))).blocks_to_decide
    assert blocks is not None
    random = np.random.default_rng(45)
    runs = 2000
    shares = []
    for count in (blocks, blocks - 1):
        excess_us = random.normal(4.5 - 3, math.sqrt(6), (runs, count))
        t = excess_us.mean(axis=1) / (excess_us.std(axis=1, ddof=1) / math.sqrt(count))
        shares.append(np.mean(t > stats.t.ppf(0.975, count - 1)))
    # Monte-Carlo error: sqrt(0.8 x 0.2 / 2,000) = 0.9 %; four of them.
    assert 0.8 - 0.036 <= shares[0] <= 0.83 + 0.036
    assert shares[1] <= 0.8 + 0.036


@pytest.mark.parametrize(("share", "expected"), [(1.0001, 200), (0.9999, None)])
def test_two_hundred_blocks_are_the_most(share: float, expected: int | None) -> None:
    # A standard deviation of 1: sqrt(8 x 7/8 / 7).
    noise = np.array([-1.0, 1.0] * 4) * math.sqrt(7 / 8)
    excess_us = share * detectable_effect_sd(200, 0.025)
    data = CellData(CELL, microseconds(5), np.full(8, 50.0), 55 + excess_us + noise)
    assert judge_one(data).blocks_to_decide == expected


def test_beyond_two_hundred_blocks_there_is_no_number() -> None:
    result = judge_one(steps(microseconds(4.49)))
    assert (result.more_blocks_can_decide, result.blocks_to_decide) == (True, None)
    assert result.reasons[0].endswith("even 200 trials would hardly settle this")
    two_hundred = CellData(
        CELL, microseconds(5), np.full(200, 50.0), 55 + np.array([-1.0, 1.0] * 100)
    )
    assert judge_one(two_hundred).blocks_to_decide is None


def test_too_few_blocks_say_how_many_would_do() -> None:
    clear = CellData(CELL, percent(5), np.full(5, 10.0), np.array([20, 20.1, 19.9, 20, 20.2]))
    result = judge_one(clear)
    assert (result.more_blocks_can_decide, result.blocks_to_decide) == (True, 8)
    one = judge_one(CellData(CELL, percent(5), np.array([10.0]), np.array([12.0])))
    assert (one.more_blocks_can_decide, one.blocks_to_decide) == (True, None)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (steps(microseconds(2)), Verdict.REGRESSED),
        (steps(microseconds(50)), Verdict.PASSED),
        (replace(steps(microseconds(4)), refused=("throttled",)), Verdict.INVALID),
        (CellData(CELL, percent(5), np.empty(0), np.empty(0)), Verdict.INVALID),
        (steps(None), None),
        # It cannot pass, and is not above its budget: it stays what it is.
        (replace(steps(microseconds(50)), undecided=("lost events",)), Verdict.INCONCLUSIVE),
        (replace(steps(microseconds(5)), undecided=("lost events",)), Verdict.INCONCLUSIVE),
    ],
)
def test_what_more_blocks_do_not_decide(data: CellData, verdict: Verdict | None) -> None:
    result = judge_one(data)
    assert (result.verdict, result.more_blocks_can_decide) == (verdict, False)
    assert result.blocks_to_decide is None
    assert not any("settle" in reason for reason in result.reasons)


def test_what_cannot_pass_can_still_be_shown_to_regress() -> None:
    result = judge_one(replace(steps(microseconds(3)), undecided=("lost events",)))
    assert result.more_blocks_can_decide
    assert result.blocks_to_decide == first_with_power(1.5 / math.sqrt(6), 0.025, 8)


def test_a_figure_held_back_is_not_helped_by_more_blocks() -> None:
    user = steps(microseconds(1), Cell("connect", "tetragon", "user"))
    assert not with_user_cost(user, microseconds(50)).more_blocks_can_decide


# Cost outside the interval


def with_user_cost(user: CellData, traced_budget: Budget) -> CellResult:
    return judge([steps(traced_budget), user])[0]


def test_traced_figure_does_not_pass_while_the_user_pays() -> None:
    user = steps(microseconds(1), Cell("connect", "tetragon", "user"))
    result = with_user_cost(user, microseconds(50))
    assert result.verdict is Verdict.INCONCLUSIVE
    (reason,) = result.reasons
    assert reason.startswith("cost outside the interval: ")
    assert "*:*<=+1us" in reason
    assert judge([user, steps(microseconds(50))])[0].verdict is Verdict.REGRESSED


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(steps(microseconds(1), Cell("openat", "tetragon", "user")), id="syscall"),
        pytest.param(steps(microseconds(1), Cell("connect", "falco", "user")), id="agent"),
        pytest.param(steps(microseconds(1), Cell("connect", "tetragon", "p99")), id="figure"),
        pytest.param(steps(microseconds(4), Cell("connect", "tetragon", "user")), id="straddles"),
        pytest.param(steps(None, Cell("connect", "tetragon", "user")), id="not-judged"),
    ],
)
def test_another_or_undecided_user_cost_holds_nothing_back(user: CellData) -> None:
    assert with_user_cost(user, microseconds(50)).verdict is Verdict.PASSED


def test_user_cost_does_not_replace_another_verdict() -> None:
    user = steps(microseconds(1), Cell("connect", "tetragon", "user"))
    assert with_user_cost(user, microseconds(1)).verdict is Verdict.REGRESSED
    straddling = with_user_cost(user, microseconds(4))
    assert straddling.verdict is Verdict.INCONCLUSIVE
    assert "lies inside" in straddling.reasons[0]


# What is refused


@pytest.mark.parametrize("arm", ["vanilla", "agent"])
@pytest.mark.parametrize("wrong", [0.0, -1.5, math.nan, math.inf])
@pytest.mark.parametrize("budget", [percent(5), microseconds(5), None])
def test_impossible_latency(budget: Budget | None, wrong: float, arm: str) -> None:
    series = {"vanilla": DRIFTING_US.copy(), "agent": STEPS_US.copy()}
    series[arm][3] = wrong
    with pytest.raises(ValueError, match=f"connect-tetragon-p50: .* but {arm} has {wrong:g}"):
        CellData(CELL, budget, series["vanilla"], series["agent"])


@pytest.mark.parametrize(
    ("vanilla_us", "agent_us"),
    [
        (DRIFTING_US, STEPS_US[:7]),
        (DRIFTING_US.reshape(2, 4), STEPS_US.reshape(2, 4)),
        (DRIFTING_US, np.empty(0)),
    ],
)
def test_series_that_do_not_pair_up(
    vanilla_us: NDArray[np.float64], agent_us: NDArray[np.float64]
) -> None:
    with pytest.raises(ValueError, match="one value a block is needed in each arm"):
        CellData(CELL, percent(5), vanilla_us, agent_us)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.05, math.nan])
def test_impossible_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        judge([steps()], alpha=alpha)


def test_impossible_min_blocks() -> None:
    with pytest.raises(ValueError, match="min_blocks must be at least 2, not 1"):
        judge([steps()], min_blocks=1)


# Minimal detectable effect


@pytest.mark.parametrize(
    ("blocks", "cells", "printed"),
    # From the field notes: one-sided 5 %, shared by the cells, 80 % power.
    [
        (5, 1, "1.36"),
        (5, 12, "2.76"),
        (5, 36, "3.67"),
        (8, 1, "0.98"),
        (8, 12, "1.65"),
        (8, 36, "2.00"),
        (10, 1, "0.85"),
        (10, 12, "1.37"),
        (10, 36, "1.62"),
        (20, 1, "0.58"),
        (20, 12, "0.86"),
        (20, 36, "0.97"),
    ],
)
def test_detectable_effect_of_the_field_notes(blocks: int, cells: int, printed: str) -> None:
    assert f"{detectable_effect_sd(blocks, 0.05 / cells):.2f}" == printed


@pytest.mark.parametrize("blocks", [0, 1])
def test_detectable_effect_needs_two_blocks(blocks: int) -> None:
    assert math.isnan(detectable_effect_sd(blocks, 0.05))


@pytest.mark.parametrize(("blocks", "alpha_per_side"), [(8, 0.05), (8, 0.025 / 12), (20, 0.025)])
def test_detectable_effect_is_found_in_four_of_five_samples(
    blocks: int, alpha_per_side: float
) -> None:
    random = np.random.default_rng(80)
    effect = detectable_effect_sd(blocks, alpha_per_side)
    samples = random.normal(effect, 1.0, (40_000, blocks))
    t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(blocks))
    found = np.mean(t > stats.t.ppf(1 - alpha_per_side, blocks - 1))
    # Monte-Carlo error: sqrt(0.8 x 0.2 / 40,000) = 0.2 %; five of them.
    assert found == pytest.approx(0.80, abs=0.01)


def test_mde_of_an_absolute_budget() -> None:
    # 12 cells, two-sided 5 %: 0.05 / 24 a side. The sd of the steps is sqrt(6).
    result = judge([steps(microseconds(4)), *others(11, percent(5))])[0]
    assert result.mde_us == pytest.approx(detectable_effect_sd(8, 0.05 / 24) * math.sqrt(6))


@pytest.mark.parametrize(("budget", "factor"), [(percent(10), 1.1), (None, 1.0)])
def test_mde_of_a_relative_budget_is_on_top_of_it(budget: Budget | None, factor: float) -> None:
    sd = RATIOS_ERROR * math.sqrt(8)
    expected_us = 8.0 * factor * math.expm1(detectable_effect_sd(8, 0.025) * sd)
    assert judge_one(ratios(budget)).mde_us == pytest.approx(expected_us, rel=1e-5)


def test_judge_finds_the_effect_that_it_prints() -> None:
    random = np.random.default_rng(17)
    runs, blocks, sd_us = 1500, 10, 0.7
    bystanders = others(2, microseconds(50))
    effect_us = detectable_effect_sd(blocks, 0.05 / 6) * sd_us
    noise_us = random.normal(0.0, sd_us, (runs, blocks))
    vanilla_us = random.uniform(20, 40, (runs, blocks))
    agent_us = vanilla_us + 3.0 + effect_us + noise_us
    results = [
        judge([CellData(CELL, microseconds(3), vanilla_us[run], agent_us[run]), *bystanders])[0]
        for run in range(runs)
    ]
    found = np.mean([result.verdict is Verdict.REGRESSED for result in results])
    # Monte-Carlo error: sqrt(0.8 x 0.2 / 1,500) = 1.0 %; four of them.
    assert found == pytest.approx(0.80, abs=0.041)
    # mde_us varies with the observed sd, whose square is unbiased.
    mean_square_us = math.sqrt(np.mean(np.square([result.mde_us for result in results])))
    assert mean_square_us == pytest.approx(effect_us, rel=0.03)


# False alarms


def test_family_of_twelve_cells_exactly_on_budget() -> None:
    random = np.random.default_rng(12)
    runs, cells, blocks = 1500, 12, 8
    sds = np.geomspace(0.01, 0.2, cells)[:, None]
    drift_us = random.lognormal(3.0, 0.2, (runs, 1, blocks))
    vanilla_us = np.broadcast_to(drift_us, (runs, cells, blocks))
    # In even cells the log ratio is normal around ln 1.1, in odd ones the difference around 5 µs.
    noise = random.normal(0.0, sds, (runs, cells, blocks))
    agent_us = np.where(
        np.arange(cells)[:, None] % 2 == 0, vanilla_us * 1.1 * np.exp(noise), vanilla_us + 5 + noise
    )
    budgets = [percent(10) if cell % 2 == 0 else microseconds(5) for cell in range(cells)]
    verdicts = [
        [
            result.verdict
            for result in judge(
                [
                    CellData(Cell("connect", f"agent{cell}", "p50"), budget, vanilla, agent)
                    for cell, (budget, vanilla, agent) in enumerate(
                        zip(budgets, vanilla_us[run], agent_us[run], strict=True)
                    )
                ]
            )
        ]
        for run in range(runs)
    ]
    false_alarms = np.mean([Verdict.REGRESSED in run for run in verdicts])
    # Monte-Carlo error of 5 %: sqrt(0.05 x 0.95 / 1,500) = 0.56 %; four of them.
    assert false_alarms <= 0.05 + 0.0225
    # An interval that ends on either side of the budget misses it: 1 - (1 - 0.05 / 12)^12.
    missed = np.mean([any(v is not Verdict.INCONCLUSIVE for v in run) for run in verdicts])
    assert missed == pytest.approx(0.0489, abs=0.0225)


# overhead.csv


def test_overhead_columns_are_those_of_the_design() -> None:
    assert ",".join(OVERHEAD_COLUMNS) == (
        "agent,syscall,figure,placement,blocks,vanilla_us,agent_us,delta_us,delta_pct,ci_low_us,"
        "ci_high_us,ci_low_pct,ci_high_pct,mde_us,budget,p_adjusted,verdict"
    )


def test_overhead_row() -> None:
    result = CellResult(
        cell=CELL,
        blocks=8,
        vanilla_us=1.0,
        agent_us=2.0,
        delta_us=3.0,
        delta_pct=4.0,
        ci_low_us=5.0,
        ci_high_us=6.0,
        ci_low_pct=7.0,
        ci_high_pct=8.0,
        mde_us=9.0,
        budget=percent(10),
        p_adjusted=0.011,
        verdict=Verdict.REGRESSED,
        reasons=("too slow",),
    )
    unjudged = replace(result, budget=None, verdict=None)
    first, second = overhead_rows([result, unjudged], "last")
    assert tuple(first) == tuple(second) == OVERHEAD_COLUMNS
    assert ",".join(map(str, first.values())) == (
        "tetragon,connect,p50,last,8,1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,*:*<=+10%,0.011,regressed"
    )
    assert (second["budget"], second["verdict"]) == ("", "")


def figures(result: CellResult) -> tuple[float, ...]:
    return (
        result.vanilla_us,
        result.agent_us,
        result.delta_us,
        result.delta_pct,
        result.ci_low_us,
        result.ci_high_us,
        result.ci_low_pct,
        result.ci_high_pct,
        result.mde_us,
    )
