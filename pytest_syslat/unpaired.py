"""Comparison with a stored run: two samples, Welch intervals for all cells, verdicts.

Between two runs there is no pair: nothing of one was measured in the same minute as something of
the other. So the samples are compared as independent ones of unequal spread. What shifts a whole
run (another boot, another temperature) is in the estimate, and not in the interval.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from pytest_syslat.gate import (
    ALPHA,
    DECIMALS,
    Cell,
    CellResult,
    Verdict,
    family_members,
    hold_back_hidden_cost,
    interval_in_unit_of,
    noncentrality,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_syslat.budget import Budget

GROWTH_COLUMNS = (
    "agent",
    "syscall",
    "figure",
    "placement",
    "blocks_before",
    "blocks_now",
    "overhead_before_us",
    "overhead_now_us",
    "overhead_before_pct",
    "overhead_now_pct",
    "expected_us",
    "agent_us",
    "growth_us",
    "growth_pct",
    "ci_low_us",
    "ci_high_us",
    "ci_low_pct",
    "ci_high_pct",
    "mde_us",
    "budget",
    "p_adjusted",
    "verdict",
)
"""The columns of growth.csv, in order."""


@dataclass(frozen=True)
class GrowthCell(Cell):
    """A cell of which it is asked how far the overhead has grown since a stored run.

    Never equal to the plain cell of the same figure.
    """


@dataclass(frozen=True)
class TwoSamples:
    """The difference of two means, by Welch.

    Attributes:
        difference: Mean of the second sample less that of the first.
        standard_error: ``sqrt(v1 / n1 + v2 / n2)`` with the sample variances; nan if a sample has
            fewer than two values.
        freedom: Degrees of freedom after Welch (1947, Biometrika 34) and Satterthwaite; nan
            without a standard error, and if it is 0.
    """

    difference: float
    standard_error: float
    freedom: float

    def half_width(self, alpha_per_side: float) -> float:
        """Half the interval that misses the truth with `alpha_per_side` on each side."""
        if self.standard_error == 0:
            return 0.0
        return float(stats.t.isf(alpha_per_side, self.freedom)) * self.standard_error

    def detectable(self, alpha_per_side: float) -> float:
        """The smallest excess that the one-sided test at this level finds with 80 % power.

        By the noncentral t distribution with the same degrees of freedom; they are estimated, so
        this is an approximation.
        """
        if self.standard_error == 0:
            return 0.0
        return noncentrality(self.freedom, alpha_per_side) * self.standard_error

    def p_above(self, margin: float) -> float:
        """One-sided p value of a difference above `margin`; nan without a standard error."""
        if self.standard_error == 0:
            return 0.0 if self.difference > margin else 1.0
        return float(stats.t.sf((self.difference - margin) / self.standard_error, self.freedom))


def welch(
    first: NDArray[np.float64], second: NDArray[np.float64], *, least_variance: float = 0.0
) -> TwoSamples:
    """Compare two independent samples whose spreads may differ.

    Args:
        first: The values of the earlier sample.
        second: Those of the later one.
        least_variance: What the rounding of recorded figures alone makes, where they seem equal.

    Returns:
        The difference ``mean(second) - mean(first)`` and its error; all nan if a sample is empty.
    """
    if not (first.size and second.size):
        return TwoSamples(math.nan, math.nan, math.nan)
    difference = round(_mean(second) - _mean(first), DECIMALS)
    if min(first.size, second.size) < 2:
        return TwoSamples(difference, math.nan, math.nan)
    parts = [max(_variance(values), least_variance) / values.size for values in (first, second)]
    if sum(parts) == 0:
        return TwoSamples(difference, 0.0, math.nan)
    weights = [
        part**2 / (values.size - 1) for part, values in zip(parts, (first, second), strict=True)
    ]
    return TwoSamples(difference, math.sqrt(sum(parts)), sum(parts) ** 2 / sum(weights))


@dataclass(frozen=True)
class _Contrast:
    """A cell on the scale on which it is tested: log ratios, or differences in µs.

    `margin`, `step` and the samples are on that scale; `reference_us` is what 0 stands for. No
    limit of an interval is nearer to the estimate than a step.
    """

    relative: bool
    samples: TwoSamples
    reference_us: float
    margin: float
    step: float

    def cost_us(self, difference: float) -> float:
        """Convert a difference on the scale of the test to µs above the reference."""
        if not self.relative:
            return difference
        with np.errstate(over="ignore"):
            return float(self.reference_us * np.expm1(difference))

    def cost_pct(self, difference: float) -> float:
        """Convert a difference on the scale of the test to per cent of the reference."""
        # An agent that was faster than its vanilla by more than today's vanilla leaves nothing.
        if not self.reference_us > 0:
            return math.nan
        return 100 * self.cost_us(difference) / self.reference_us


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared(ABC):
    """What is known of a cell that is compared with a stored run.

    Attributes:
        cell: The cell.
        budget: What is allowed, or None if the cell is only to be estimated.
        refused: One sentence for each trial of this run behind the cell that was refused.
        undecided: One sentence for each reason why the cell cannot pass.
        incomparable: One sentence for each reason why the two runs are not alike: with any, the
            cell neither passes nor regresses.
        step_us: The step in which the figure is recorded.
    """

    cell: Cell
    budget: Budget | None
    refused: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()
    step_us: float = 0.0

    @property
    def relative(self) -> bool:
        """Whether it is tested in log ratios."""
        return self.budget is None or self.budget.unit == "%"

    @property
    def margin(self) -> float:
        """The budget on the scale of the test."""
        amount = self.budget.amount if self.budget else 0.0
        return round(math.log1p(amount / 100) if self.relative else amount, DECIMALS)

    def step(self, *values_us: NDArray[np.float64]) -> float:
        """The step on the scale of the test, where it is largest: at the smallest value."""
        if not self.relative or not self.step_us:
            return self.step_us
        return self.step_us / min((values.min() for values in values_us if values.size), default=1)

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """How many values there are: stored ones, then those of this run."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """The words before a limit in a sentence."""

    @abstractmethod
    def contrast(self) -> _Contrast:
        """The two samples on the scale of the test."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredBaselineData(Compared):
    """An agent of this run beside the vanilla of a stored one.

    Attributes:
        vanilla_us: The figure in the stored vanilla, in µs, one value a trial.
        agent_us: The figure in the agent's arm of this run, in µs, one value a trial.
    """

    vanilla_us: NDArray[np.float64]
    agent_us: NDArray[np.float64]

    @property
    def sizes(self) -> tuple[int, int]:
        """Trials of the stored vanilla, and of the agent."""
        return self.vanilla_us.size, self.agent_us.size

    @property
    def subject(self) -> str:
        """The words before a limit in a sentence."""
        return "the overhead is"

    def contrast(self) -> _Contrast:
        """The two arms; without a budget in µs by their logarithms."""
        scaled = np.log if self.relative else np.asarray
        step = self.step(self.vanilla_us, self.agent_us)
        samples = welch(scaled(self.vanilla_us), scaled(self.agent_us), least_variance=step**2 / 12)
        return _Contrast(
            self.relative,
            samples,
            _centre_us(self.vanilla_us, self.relative),
            self.margin,
            step,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class GrowthData(Compared):
    """An agent beside its own vanilla, in a stored run and in this one.

    Attributes:
        vanilla_before_us: The figure in the stored run's vanilla, in µs, one value a block.
        agent_before_us: The same of its agent, of the same blocks in the same order.
        vanilla_us: The figure in this run's vanilla, in µs, one value a block.
        agent_us: The same of its agent, of the same blocks in the same order.
    """

    vanilla_before_us: NDArray[np.float64]
    agent_before_us: NDArray[np.float64]
    vanilla_us: NDArray[np.float64]
    agent_us: NDArray[np.float64]

    @property
    def sizes(self) -> tuple[int, int]:
        """Blocks of the stored run, and of this one."""
        return self.vanilla_before_us.size, self.vanilla_us.size

    @property
    def subject(self) -> str:
        """The words before a limit in a sentence."""
        return "the overhead has grown by"

    def differences(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The block differences of both runs, on the scale of the test."""
        pairs = (
            (self.vanilla_before_us, self.agent_before_us),
            (self.vanilla_us, self.agent_us),
        )
        before, now = (
            (np.log(agent / vanilla) if self.relative else agent - vanilla).round(DECIMALS)
            for vanilla, agent in pairs
        )
        return before, now

    def contrast(self) -> _Contrast:
        """The block differences of both runs.

        The reference is what the agent's call would take now with the overhead of the stored run.
        """
        before, now = self.differences()
        vanilla_us = _centre_us(self.vanilla_us, self.relative)
        overhead = _mean(before)
        reference_us = vanilla_us * math.exp(overhead) if self.relative else vanilla_us + overhead
        step = self.step(
            self.vanilla_before_us, self.agent_before_us, self.vanilla_us, self.agent_us
        )
        samples = welch(before, now, least_variance=step**2 / 6)
        # Four rounded figures make a growth, where two make an overhead.
        return _Contrast(self.relative, samples, reference_us, self.margin, 2 * step)

    def overheads_us(self) -> tuple[float, float]:
        """The overhead in the stored run and in this one, µs."""
        before_us, now_us = (
            vanilla_us * math.expm1(_mean(difference)) if self.relative else _mean(difference)
            for vanilla_us, difference in zip(self._vanillas_us(), self.differences(), strict=True)
        )
        return before_us, now_us

    def overheads_pct(self) -> tuple[float, float]:
        """The same in per cent of the vanilla of each run."""
        before_pct, now_pct = (
            100 * overhead_us / vanilla_us
            for overhead_us, vanilla_us in zip(
                self.overheads_us(), self._vanillas_us(), strict=True
            )
        )
        return before_pct, now_pct

    def _vanillas_us(self) -> tuple[float, float]:
        return (
            _centre_us(self.vanilla_before_us, self.relative),
            _centre_us(self.vanilla_us, self.relative),
        )


@dataclass(frozen=True)
class GrowthResult:
    """How far the overhead of a cell has grown since a stored run, and the verdict on it.

    Attributes:
        tested: The test: `vanilla_us` is what the agent's call would take in this run with the
            overhead of the stored one, `agent_us` what it takes, `delta_us` and `delta_pct` the
            growth, and the rest as for an overhead. `blocks` is the smaller of the two numbers.
        blocks_before: Blocks of the stored run behind it.
        blocks_now: Blocks of this run.
        overhead_before_us: The overhead in the stored run, in µs.
        overhead_now_us: The overhead in this run.
        overhead_before_pct: The overhead in the stored run, in per cent of its vanilla.
        overhead_now_pct: The overhead in this run, in per cent of its vanilla.
    """

    tested: CellResult
    blocks_before: int
    blocks_now: int
    overhead_before_us: float
    overhead_now_us: float
    overhead_before_pct: float
    overhead_now_pct: float


def judge_stored_baseline(
    family: Sequence[StoredBaselineData],
    *,
    watched: Sequence[StoredBaselineData] = (),
    alpha: float = ALPHA,
    min_blocks: int = 8,
) -> list[CellResult]:
    """Judge overheads against a stored vanilla; all intervals hold at once, as in `gate.judge`.

    Under a budget of N per cent, and without a budget, the samples are the natural logarithms of
    the trials' figures and the margin is ``ln(1 + N / 100)``; under one of N µs they are the
    figures and the margin is N. Estimate, interval and test are Welch's, with Bonferroni's
    correction for the m cells that are judged and can be. Verdicts are those of `gate.judge`,
    and inconclusive in either direction where the runs are not alike.

    Args:
        family: All cells of a run that are looked at together.
        watched: `user` cells outside the family that have a budget all the same.
        alpha: Probability that any interval of the family misses the truth.
        min_blocks: With fewer trials in either arm nothing is decided.

    Returns:
        The results in the order of `family`; `blocks` is the smaller number of trials.
    """
    return _judge(family, watched, alpha, min_blocks)


def judge_growth(
    family: Sequence[GrowthData],
    *,
    watched: Sequence[GrowthData] = (),
    alpha: float = ALPHA,
    min_blocks: int = 8,
) -> list[GrowthResult]:
    """Judge how far overheads have grown since a stored run; all intervals hold at once.

    Each run has its own vanilla in each block. The samples are the block differences of the two
    runs: ``ln(agent / vanilla)`` under a budget of N per cent and without one, with the margin
    ``ln(1 + N / 100)``; ``agent - vanilla`` under one of N µs. So +5 % means that agent over
    vanilla is 1.05 times what it was. Else as `judge_stored_baseline`.

    Returns:
        The results in the order of `family`.
    """
    results = _judge(family, watched, alpha, min_blocks)
    return [
        GrowthResult(tested, *data.sizes, *data.overheads_us(), *data.overheads_pct())
        for data, tested in zip(family, results, strict=True)
    ]


def growth_rows(results: Sequence[GrowthResult], placement: str) -> list[dict[str, object]]:
    """Arrange results as the rows of growth.csv.

    Args:
        results: What `judge_growth` returned.
        placement: Where the tracer stood in all trials of both runs, or ``unknown``.

    Returns:
        One dictionary a result, with `GROWTH_COLUMNS` as keys in that order. Numbers are not
        rounded; a missing budget or verdict is an empty string.
    """
    return [
        {
            "agent": each.tested.cell.agent,
            "syscall": each.tested.cell.syscall,
            "figure": each.tested.cell.figure,
            "placement": placement,
            "blocks_before": each.blocks_before,
            "blocks_now": each.blocks_now,
            "overhead_before_us": each.overhead_before_us,
            "overhead_now_us": each.overhead_now_us,
            "overhead_before_pct": each.overhead_before_pct,
            "overhead_now_pct": each.overhead_now_pct,
            "expected_us": each.tested.vanilla_us,
            "agent_us": each.tested.agent_us,
            "growth_us": each.tested.delta_us,
            "growth_pct": each.tested.delta_pct,
            "ci_low_us": each.tested.ci_low_us,
            "ci_high_us": each.tested.ci_high_us,
            "ci_low_pct": each.tested.ci_low_pct,
            "ci_high_pct": each.tested.ci_high_pct,
            "mde_us": each.tested.mde_us,
            "budget": str(each.tested.budget) if each.tested.budget else "",
            "p_adjusted": each.tested.p_adjusted,
            "verdict": each.tested.verdict.value if each.tested.verdict else "",
        }
        for each in results
    ]


def _judge(
    family: Sequence[Compared], watched: Sequence[Compared], alpha: float, min_blocks: int
) -> list[CellResult]:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha:g}")
    if min_blocks < 2:
        raise ValueError(f"min_blocks must be at least 2, not {min_blocks}")
    results, witnesses = (_judge_together(group, alpha, min_blocks) for group in (family, watched))
    return hold_back_hidden_cost(results, [*results, *witnesses])


def _judge_together(cells: Sequence[Compared], alpha: float, min_blocks: int) -> list[CellResult]:
    in_family = family_members(
        [bool(data.budget) for data in cells],
        [
            bool(data.budget and not data.refused and min(data.sizes) >= min_blocks)
            for data in cells
        ],
    )
    return [
        replace(_judge_cell(data, sum(in_family), alpha, min_blocks), in_family=member)
        for data, member in zip(cells, in_family, strict=True)
    ]


def _judge_cell(data: Compared, family_size: int, alpha: float, min_blocks: int) -> CellResult:
    contrast = data.contrast()
    samples, margin = contrast.samples, contrast.margin
    alpha_per_side = alpha / (2 * family_size)
    random = samples.half_width(alpha_per_side)
    # In this order: of nan, which is the error of one value, max() would make the step.
    half = max(random, contrast.step)
    low, high = samples.difference - half, samples.difference + half
    delta_us = contrast.cost_us(samples.difference)
    detectable = samples.detectable(alpha_per_side) + max(0.0, contrast.step - random)
    excess_us = contrast.cost_us(margin + detectable)
    result = CellResult(
        cell=data.cell,
        blocks=min(data.sizes),
        vanilla_us=contrast.reference_us,
        agent_us=contrast.reference_us + delta_us,
        delta_us=delta_us,
        delta_pct=contrast.cost_pct(samples.difference),
        ci_low_us=contrast.cost_us(low),
        ci_high_us=contrast.cost_us(high),
        ci_low_pct=contrast.cost_pct(low),
        ci_high_pct=contrast.cost_pct(high),
        mde_us=excess_us - contrast.cost_us(margin),
        budget=data.budget,
        p_adjusted=math.nan,
        verdict=None,
        alpha=alpha,
        family_size=family_size,
        # A figure from unlike runs says so wherever it is shown, judged or not.
        reasons=data.incomparable,
    )
    if data.budget is None:
        return result
    # Within a step of the budget no level makes the lower limit lie above it.
    nearer = samples.difference - margin <= contrast.step
    p_adjusted = 1.0 if nearer else min(1.0, 2 * family_size * samples.p_above(margin))
    result = replace(
        result, p_adjusted=math.nan if math.isnan(samples.standard_error) else p_adjusted
    )
    against = (*data.incomparable, *data.undecided)
    if data.refused or not all(data.sizes):
        return replace(
            result,
            verdict=Verdict.INVALID,
            reasons=data.refused or (_nothing_sentence(data), *data.incomparable),
        )
    if min(data.sizes) < min_blocks:
        stored, new = data.sizes
        count = f"{stored} stored and {new} new values, {min_blocks} of each are needed to decide"
        return replace(result, verdict=Verdict.INCONCLUSIVE, reasons=(count, *against))
    if data.incomparable:
        return replace(result, verdict=Verdict.INCONCLUSIVE, reasons=against)
    low_text, high_text = interval_in_unit_of(data.budget, result)
    if low > margin:
        excess = f"{data.subject} at least {low_text}, above the budget {data.budget}"
        return replace(result, verdict=Verdict.REGRESSED, reasons=(excess, *against))
    if high > margin:
        straddle = (
            f"{data.subject} between {low_text} and {high_text}, "
            f"the budget {data.budget} lies inside"
        )
        return replace(result, verdict=Verdict.INCONCLUSIVE, reasons=(straddle, *against))
    if against:
        return replace(result, verdict=Verdict.INCONCLUSIVE, reasons=against)
    return replace(result, verdict=Verdict.PASSED)


def _nothing_sentence(data: Compared) -> str:
    where = "the stored run" if not data.sizes[0] else "this run"
    return f"{where} has no value of {data.cell.figure} for {data.cell.syscall}"


def _centre_us(values_us: NDArray[np.float64], relative: bool) -> float:
    """The geometric mean where ratios are tested, else the arithmetic one; nan of nothing."""
    return math.exp(_mean(np.log(values_us))) if relative else _mean(values_us)


def _mean(values: NDArray[np.float64]) -> float:
    if not values.size:
        return math.nan
    # The mean of n equal numbers need not be that number in floating point.
    return float(values[0] if np.ptp(values) == 0 else values.mean())


def _variance(values: NDArray[np.float64]) -> float:
    return 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))
