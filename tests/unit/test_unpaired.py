"""Two-sample intervals and verdicts, against scipy, by hand and in simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from scipy import stats

from pytest_syslat.budget import Budget, parse_budget
from pytest_syslat.gate import Cell, CellResult, Verdict
from pytest_syslat.unpaired import (
    GROWTH_COLUMNS,
    GrowthCell,
    GrowthData,
    GrowthResult,
    StoredBaselineData,
    growth_rows,
    judge_growth,
    judge_stored_baseline,
    welch,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL = Cell("connect", "tetragon", "p50")

# Eight values each: mean 12 and sum of squares 28, variance 4; mean 15 and sum of squares 112,
# variance 16. Standard error sqrt(4/8 + 16/8) = sqrt 2.5 = 1.581139, degrees of freedom
# 2.5^2 / ((0.5^2 + 2^2) / 7) = 6.25 * 7 / 4.25 = 10.294118.
NARROW_US = np.array([10.0, 14.0, 10.0, 14.0, 12.0, 12.0, 9.5505103, 14.4494897])
WIDE_US = 3 * 1.0 + 12 + 2 * (NARROW_US - 12)
ERROR_US = 1.581139
FREEDOM = 10.294118
# Student's t at 97.5 % with 10.294 degrees of freedom lies between those of a printed table for
# 10 (2.2281) and 11 (2.2010); linear in 1 / freedom it is 2.2195.
T_975 = 2.2195


def percent(amount: float) -> Budget:
    return Budget("*", "*", amount, "%")


def microseconds(amount: float) -> Budget:
    return Budget("*", "*", amount, "us")


def stored(budget: Budget | None = None, cell: Cell = CELL) -> StoredBaselineData:
    return StoredBaselineData(cell=cell, budget=budget, vanilla_us=NARROW_US, agent_us=WIDE_US)


def judge_one(data: StoredBaselineData, *, min_blocks: int = 8) -> CellResult:
    (result,) = judge_stored_baseline([data], min_blocks=min_blocks)
    return result


def grown(
    before: tuple[NDArray[np.float64], NDArray[np.float64]],
    now: tuple[NDArray[np.float64], NDArray[np.float64]],
    budget: Budget | None = None,
    cell: Cell = CELL,
) -> GrowthData:
    return GrowthData(
        cell=cell,
        budget=budget,
        vanilla_before_us=before[0],
        agent_before_us=before[1],
        vanilla_us=now[0],
        agent_us=now[1],
    )


def judge_one_growth(data: GrowthData, *, min_blocks: int = 8) -> GrowthResult:
    (result,) = judge_growth([data], min_blocks=min_blocks)
    return result


def test_by_hand_in_microseconds() -> None:
    samples = welch(NARROW_US, WIDE_US)
    assert samples.difference == pytest.approx(3.0)
    assert samples.standard_error == pytest.approx(ERROR_US, abs=1e-6)
    assert samples.freedom == pytest.approx(FREEDOM, abs=1e-5)
    result = judge_one(stored(microseconds(4)))
    assert (result.blocks, result.verdict) == (8, Verdict.INCONCLUSIVE)
    assert result.vanilla_us == pytest.approx(12.0)
    assert result.agent_us == pytest.approx(15.0)
    assert result.delta_pct == pytest.approx(25.0)
    assert result.ci_low_us == pytest.approx(3 - T_975 * ERROR_US, abs=2e-3)
    assert result.ci_high_us == pytest.approx(3 + T_975 * ERROR_US, abs=2e-3)
    assert result.ci_high_pct == pytest.approx(100 * result.ci_high_us / 12)


@pytest.mark.parametrize("sizes", [(8, 8), (5, 30), (30, 9)])
@pytest.mark.parametrize("unit", ["%", "us"])
def test_agrees_with_scipy(sizes: tuple[int, int], unit: Literal["%", "us"]) -> None:
    generator = np.random.default_rng(sizes)
    vanilla_us = generator.lognormal(2.0, 0.05, sizes[0])
    agent_us = generator.lognormal(2.1, 0.15, sizes[1])
    budget = Budget("*", "*", 7.0 if unit == "%" else 0.5, unit)
    data = StoredBaselineData(cell=CELL, budget=budget, vanilla_us=vanilla_us, agent_us=agent_us)
    others = [replace(data, cell=Cell("openat", f"other{n}", "p50")) for n in range(2)]
    result = judge_stored_baseline([data, *others], min_blocks=2)[0]

    samples = (np.log(agent_us), np.log(vanilla_us)) if unit == "%" else (agent_us, vanilla_us)
    # Three cells share 5 %.
    expected = stats.ttest_ind(*samples, equal_var=False).confidence_interval(1 - 0.05 / 3)
    margin = math.log(1.07) if unit == "%" else 0.5
    shifted = stats.ttest_ind(
        samples[0] - margin, samples[1], equal_var=False, alternative="greater"
    )
    if unit == "%":
        limits_pct = 100 * (np.exp([expected.low, expected.high]) - 1)
        assert [result.ci_low_pct, result.ci_high_pct] == pytest.approx(limits_pct, rel=1e-6)
        assert result.delta_us == pytest.approx(stats.gmean(agent_us) - stats.gmean(vanilla_us))
    else:
        assert [result.ci_low_us, result.ci_high_us] == pytest.approx(
            [expected.low, expected.high], rel=1e-6
        )
    assert result.p_adjusted == pytest.approx(min(1, 6 * shifted.pvalue), rel=1e-5)


@pytest.mark.parametrize("unit", ["%", "us"])
def test_growth_agrees_with_scipy(unit: Literal["%", "us"]) -> None:
    generator = np.random.default_rng(7)
    # The machine has become twice as fast, which no block difference of ratios sees.
    before = generator.lognormal(3.0, 0.3, 9), generator.lognormal(3.2, 0.3, 9)
    now = generator.lognormal(2.3, 0.2, 14), generator.lognormal(2.6, 0.2, 14)
    budget = Budget("*", "*", 4.0 if unit == "%" else 0.3, unit)
    result = judge_one_growth(grown(before, now, budget))
    if unit == "%":
        samples = [np.log(agent / vanilla) for vanilla, agent in (now, before)]
    else:
        samples = [agent - vanilla for vanilla, agent in (now, before)]
    expected = stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    assert (result.blocks_before, result.blocks_now, result.tested.blocks) == (9, 14, 9)
    tested = result.tested
    if unit == "%":
        assert [tested.ci_low_pct, tested.ci_high_pct] == pytest.approx(
            100 * (np.exp([expected.low, expected.high]) - 1), rel=1e-6
        )
        assert tested.agent_us == pytest.approx(stats.gmean(now[1]))
        ratios = [stats.gmean(agent) / stats.gmean(vanilla) for vanilla, agent in (before, now)]
        assert tested.delta_pct == pytest.approx(100 * (ratios[1] / ratios[0] - 1))
        assert tested.vanilla_us == pytest.approx(stats.gmean(now[0]) * ratios[0])
        assert [result.overhead_before_pct, result.overhead_now_pct] == pytest.approx(
            [100 * (ratio - 1) for ratio in ratios]
        )
    else:
        assert [tested.ci_low_us, tested.ci_high_us] == pytest.approx(
            [expected.low, expected.high], rel=1e-6
        )
        assert [result.overhead_before_us, result.overhead_now_us] == pytest.approx(
            [(agent - vanilla).mean() for vanilla, agent in (before, now)]
        )
        assert tested.agent_us == pytest.approx(now[1].mean())


def test_growth_by_hand() -> None:
    """Vanilla 10 µs and the agent 11, then vanilla 20 and the agent 24: 1.2 / 1.1 is 1.0909."""
    tens, twenties = np.full(8, 10.0), np.full(8, 20.0)
    result = judge_one_growth(grown((tens, tens * 1.1), (twenties, twenties * 1.2), percent(9)))
    assert result.tested.delta_pct == pytest.approx(100 / 11)
    assert result.tested.vanilla_us == pytest.approx(22.0)
    assert result.tested.delta_us == pytest.approx(2.0)
    assert (result.overhead_before_us, result.overhead_now_us) == pytest.approx((1.0, 4.0))
    assert result.tested.verdict is Verdict.REGRESSED
    assert result.tested.reasons == (
        "the overhead has grown by at least +9.09 %, above the budget *:*<=+9%",
    )
    in_us = judge_one_growth(grown((tens, tens * 1.1), (twenties, twenties * 1.2), microseconds(3)))
    # 4 µs less 1 µs is exactly the budget, in every block.
    assert in_us.tested.verdict is Verdict.PASSED
    assert in_us.tested.delta_us == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("budget", "verdict"),
    [
        (microseconds(7), Verdict.PASSED),
        (microseconds(6), Verdict.INCONCLUSIVE),
        (percent(100), Verdict.PASSED),
    ],
)
def test_verdicts(budget: Budget, verdict: Verdict) -> None:
    """The interval in µs is -0.51 to 6.51."""
    assert judge_one(stored(budget)).verdict is verdict


def test_a_regression_and_its_sentence() -> None:
    data = replace(stored(microseconds(3)), agent_us=WIDE_US + 10)
    result = judge_one(data)
    assert result.verdict is Verdict.REGRESSED
    # 13 less 2.2195 standard errors is 9.491.
    assert result.reasons == ("the overhead is at least +9.491 µs, above the budget *:*<=+3us",)


def test_runs_that_are_not_alike_decide_nothing() -> None:
    unlike = ("forced: the kernel differs",)
    passing = replace(stored(microseconds(99)), incomparable=unlike)
    failing = replace(stored(microseconds(0)), agent_us=WIDE_US + 90, incomparable=unlike)
    unjudged = replace(stored(), incomparable=unlike)
    for data, verdict in (
        (passing, Verdict.INCONCLUSIVE),
        (failing, Verdict.INCONCLUSIVE),
        (unjudged, None),
    ):
        result = judge_one(data)
        assert (result.verdict, result.reasons) == (verdict, unlike)
        assert math.isfinite(result.ci_low_us)


def test_an_undecided_finding_keeps_a_cell_from_passing_but_not_from_regressing() -> None:
    why = ("few calls",)
    assert judge_one(replace(stored(microseconds(7)), undecided=why)).reasons == why
    assert judge_one(replace(stored(microseconds(7)), undecided=why)).verdict == "inconclusive"
    far = replace(stored(microseconds(0)), agent_us=WIDE_US + 90, undecided=why)
    assert judge_one(far).verdict is Verdict.REGRESSED


@pytest.mark.parametrize("sizes", [(7, 8), (8, 7), (1, 8), (8, 1)])
def test_too_few_values_on_either_side(sizes: tuple[int, int]) -> None:
    data = replace(
        stored(microseconds(99)), vanilla_us=NARROW_US[: sizes[0]], agent_us=WIDE_US[: sizes[1]]
    )
    result = judge_one(data)
    assert (result.verdict, result.blocks) == (Verdict.INCONCLUSIVE, min(sizes))
    assert result.reasons == (
        f"{sizes[0]} stored and {sizes[1]} new values, 8 of each are needed to decide",
    )
    assert math.isnan(result.ci_low_us) == (min(sizes) < 2)
    assert math.isnan(result.p_adjusted) == (min(sizes) < 2)


def test_nothing_on_a_side_is_invalid() -> None:
    empty = np.array([])
    result = judge_one(replace(stored(percent(5)), vanilla_us=empty))
    assert result.verdict is Verdict.INVALID
    assert result.reasons == ("the stored run has no value of p50 for connect",)
    result = judge_one_growth(grown((NARROW_US, WIDE_US), (empty, empty), percent(5))).tested
    assert result.verdict is Verdict.INVALID
    assert result.reasons == ("this run has no value of p50 for connect",)
    assert math.isnan(result.delta_us)


def test_a_refused_trial_is_invalid() -> None:
    result = judge_one(replace(stored(percent(500)), refused=("it was refused",)))
    assert (result.verdict, result.reasons) == (Verdict.INVALID, ("it was refused",))


def test_the_family_is_that_of_the_cells_that_can_be_decided() -> None:
    alone = judge_one(stored(microseconds(4)))
    short = replace(stored(microseconds(4), Cell("openat", "a", "p50")), agent_us=WIDE_US[:3])
    unjudged = stored(None, Cell("openat", "b", "p50"))
    with_others = judge_stored_baseline([stored(microseconds(4)), short, unjudged])[0]
    assert with_others.ci_low_us == alone.ci_low_us
    of_two = judge_stored_baseline(
        [stored(microseconds(4)), stored(microseconds(4), Cell("openat", "c", "p50"))]
    )[0]
    assert of_two.ci_low_us < alone.ci_low_us


def test_a_hidden_cost_holds_back_the_traced_figure() -> None:
    steady = np.full(8, 10.0)
    traced = grown((steady, steady), (steady, steady), percent(5))
    user_cell = Cell("connect", "tetragon", "user")
    user = grown((steady, steady), (steady, steady * 2), percent(5), user_cell)
    [held] = judge_growth([traced], watched=[user])
    assert held.tested.verdict is Verdict.INCONCLUSIVE
    assert held.tested.reasons[0].startswith("cost outside the interval")
    [free] = judge_growth([traced])
    assert free.tested.verdict is Verdict.PASSED


def test_p_adjusted_and_the_lower_limit_agree() -> None:
    generator = np.random.default_rng(3)
    verdicts = set()
    for _ in range(100):
        data = replace(
            stored(percent(5)),
            vanilla_us=generator.lognormal(2.0, 0.02, 8),
            agent_us=generator.lognormal(2.0 + math.log(1.08), 0.02, 8),
        )
        result = judge_one(data)
        assert (result.p_adjusted < 0.05) == (result.verdict is Verdict.REGRESSED)
        verdicts.add(result.verdict)
    assert verdicts == {Verdict.REGRESSED, Verdict.INCONCLUSIVE}


def test_false_alarms_at_the_budget_and_power_at_the_detectable_effect() -> None:
    """With arms of different spread and size, a Welch interval errs as often as stated.

    500 runs of 4 cells at the truth: 2.5 % expected on each side, Monte-Carlo error 0.7 %. And
    in 500 comparisons 80 % of the effects that are called detectable are found, error 1.8 %.
    """
    generator = np.random.default_rng(11)
    runs, spread, sizes = 500, (0.02, 0.05), (8, 12)
    above = below = found = 0
    for _ in range(runs):
        cells = [
            welch(
                *(generator.normal(2.0, sd, size) for sd, size in zip(spread, sizes, strict=True))
            )
            for _ in range(4)
        ]
        half_widths = [cell.half_width(0.05 / 8) for cell in cells]
        above += any(c.difference > half for c, half in zip(cells, half_widths, strict=True))
        below += any(c.difference < -half for c, half in zip(cells, half_widths, strict=True))
    assert 0.005 < above / runs < 0.045
    assert 0.005 < below / runs < 0.045

    # A sample with exactly these spreads: its error and freedom are the true ones.
    typical = welch(
        *(
            sd * stats.zscore(np.arange(size), ddof=1)
            for sd, size in zip(spread, sizes, strict=True)
        )
    )
    effect = typical.detectable(0.025)
    for _ in range(runs):
        samples = welch(
            generator.normal(2.0, spread[0], 8), generator.normal(2.0 + effect, spread[1], 12)
        )
        found += samples.difference > samples.half_width(0.025)
    assert found / runs == pytest.approx(0.8, abs=0.05)


def test_a_growth_cell_is_not_the_cell() -> None:
    assert GrowthCell("connect", "a", "p50") != Cell("connect", "a", "p50")
    assert GrowthCell("connect", "a", "p50").id == "connect-a-p50"


def test_growth_rows() -> None:
    steady = np.full(8, 10.0)
    result = judge_one_growth(grown((steady, steady * 1.1), (steady, steady * 1.2), percent(5)))
    [row] = growth_rows([result], "last")
    assert tuple(row) == GROWTH_COLUMNS
    assert (row["placement"], row["budget"], row["verdict"]) == ("last", "*:*<=+5%", "regressed")
    assert row["expected_us"] == pytest.approx(11.0)
    assert row["growth_us"] == pytest.approx(1.0)
    [row] = growth_rows([judge_one_growth(grown((steady, steady), (steady, steady)))], "unknown")
    assert (row["budget"], row["verdict"]) == ("", "")


@pytest.mark.parametrize(("alpha", "min_blocks"), [(0.0, 8), (1.0, 8), (0.05, 1)])
def test_wrong_levels(alpha: float, min_blocks: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        judge_stored_baseline([stored()], alpha=alpha, min_blocks=min_blocks)


def test_growth_within_the_rounding_of_four_figures_is_none() -> None:
    """Recorded in steps of 0.256 µs; the true overhead has grown by 0.002 µs.

    Each of the four figures may be off by half a step, so their sum by two steps.
    """
    data = GrowthData(
        cell=GrowthCell("connect", "auditd", "p50"),
        budget=parse_budget("connect:p50<=+0.2us", ("connect",)),
        vanilla_before_us=np.full(8, 70.144),
        agent_before_us=np.full(8, 75.008),
        vanilla_us=np.full(8, 69.888),
        agent_us=np.full(8, 75.264),
        step_us=0.256,
    )
    [result] = judge_growth([data])
    assert result.tested.delta_us == pytest.approx(0.512)
    assert result.tested.ci_low_us <= 0.0
    assert result.tested.verdict is Verdict.INCONCLUSIVE
    assert result.tested.p_adjusted == 1.0
