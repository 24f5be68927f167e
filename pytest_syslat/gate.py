"""The gate: paired differences per cell, joint intervals for all cells, verdicts."""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pytest_syslat.budget import Budget

CELL_FIGURES = (
    "vanilla_us",
    "agent_us",
    "delta_us",
    "delta_pct",
    "ci_low_us",
    "ci_high_us",
    "ci_low_pct",
    "ci_high_pct",
    "mde_us",
)
"""The figures of a result, in the order in which they are told."""

OVERHEAD_COLUMNS = (
    "agent",
    "syscall",
    "figure",
    "placement",
    "blocks",
    *CELL_FIGURES,
    "budget",
    "p_adjusted",
    "verdict",
)
"""The columns of overhead.csv, in order."""

MOST_BLOCKS = 200
"""Where the search for the number of blocks that would decide ends: nobody measures more."""

ALPHA = 0.05
"""Probability that any interval of a run misses the truth."""

_POWER = 0.80

DECIMALS = 10
"""Differences keep so many decimals (of µs, or of the natural logarithm). That is far below the
nanosecond which clocks resolve, and enough for ln(11/10) and ln(1 + 10 %), or 10.3 - 10.1 and 0.2,
to be the same number: an overhead of exactly the budget in each block must not be decided by how a
division was rounded."""

LIMIT_DECIMALS = {"%": 2, "us": 3}
"""Limits are written with so many, by the unit of the budget: fewer hide on which side they lie."""


class Verdict(StrEnum):
    """What is known about a cell against its budget."""

    PASSED = "passed"
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


WORST_FIRST = (Verdict.INVALID, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.PASSED)
"""While a trial is refused, nothing is known about a cell, so that comes before a regression."""


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Give the verdict that matters most; None if nothing was judged."""
    found = set(verdicts)
    return next((verdict for verdict in WORST_FIRST if verdict in found), None)


def fails(verdict: Verdict | None, *, strict: bool) -> bool:
    """Tell whether a verdict fails a run; an inconclusive one does under `--syslat-strict`."""
    return verdict in (Verdict.INVALID, Verdict.REGRESSED) or (
        strict and verdict is Verdict.INCONCLUSIVE
    )


@dataclass(frozen=True)
class Cell:
    """One figure of one syscall under one agent."""

    syscall: str
    agent: str
    figure: str

    @property
    def id(self) -> str:
        """Name of the cell in test ids, such as ``connect-tetragon-p50``."""
        return f"{self.syscall}-{self.agent}-{self.figure}"


@dataclass(frozen=True, eq=False)
class CellData:
    """What was measured for a cell.

    Attributes:
        cell: The cell.
        budget: What is allowed, or None if the cell is only to be estimated.
        vanilla_us: The figure in the vanilla arm, in µs, one value a block.
        agent_us: The figure in the agent's arm, in µs, of the same blocks in the same order.
        refused: One sentence for each trial behind the cell that was refused.
        undecided: One sentence for each reason why the cell cannot pass.
        step_us: The step in which the figure is recorded, the coarsest if it has several. No
            interval is narrower than one step to each side: where nothing else varies, rounding
            is the same in all blocks, and more blocks do not average it out.

    Raises:
        ValueError: If the two series do not pair up, a value is not a positive finite number, or
            the step is negative or not finite.
    """

    cell: Cell
    budget: Budget | None
    vanilla_us: NDArray[np.float64]
    agent_us: NDArray[np.float64]
    refused: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    step_us: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.step_us < math.inf:
            raise ValueError(
                f"{self.cell.id}: a step is a finite number of µs from 0 on, not {self.step_us:g}"
            )
        if self.vanilla_us.ndim != 1 or self.vanilla_us.shape != self.agent_us.shape:
            raise ValueError(
                f"{self.cell.id}: one value a block is needed in each arm, but the shapes are "
                f"{self.vanilla_us.shape} (vanilla) and {self.agent_us.shape} (agent)"
            )
        for arm, values_us in (("vanilla", self.vanilla_us), ("agent", self.agent_us)):
            wrong = values_us[~(np.isfinite(values_us) & (values_us > 0))]
            if wrong.size:
                raise ValueError(
                    f"{self.cell.id}: latencies are positive finite µs, but {arm} has {wrong[0]:g}"
                )


@dataclass(frozen=True)
class CellResult:
    """The overhead of a cell, with simultaneous limits, and the verdict on it.

    What cannot be computed is nan: all figures without blocks, limits, `p_adjusted` and `mde_us`
    with a single block, and `p_adjusted` without a budget.

    Attributes:
        cell: The cell.
        blocks: Paired blocks behind it.
        vanilla_us: Mean over blocks in the vanilla arm: the arithmetic one under a budget in µs,
            the geometric one else.
        agent_us: The same for the agent's arm.
        delta_us: ``agent_us - vanilla_us``.
        delta_pct: `delta_us` in per cent of `vanilla_us`, like the limits below.
        ci_low_us: Lower limit of the simultaneous interval of `delta_us`.
        ci_high_us: Upper limit.
        ci_low_pct: Lower limit of the simultaneous interval of `delta_pct`.
        ci_high_pct: Upper limit.
        mde_us: Smallest true excess over the budget (over no overhead without one) that this
            test in this family finds with 80 % power.
        budget: What is allowed.
        p_adjusted: Two-sided p value, adjusted for the family, of an overhead above the budget.
        verdict: The verdict, or None without a budget: such a cell isn't judged.
        reasons: Sentences that say why a cell has not passed.
        alpha: Probability that any interval of the family misses the truth.
        family_size: How many cells share `alpha`.
        in_family: Whether this is one of them. The interval of a cell that is not is as wide, but
            nothing is promised of it beside the others.
        more_blocks_can_decide: Whether the verdict is open only because the interval holds the
            budget or because blocks are too few. False for cells that are decided, and for those
            that can at best become what they are: inconclusive, whatever is measured on top.
        blocks_to_decide: Blocks in all, None above `MOST_BLOCKS`, with which a run decides the
            cell with 80 % power, if its mean and spread are the observed ones and the family is
            as large. None as well where more blocks cannot decide.
    """

    cell: Cell
    blocks: int
    vanilla_us: float
    agent_us: float
    delta_us: float
    delta_pct: float
    ci_low_us: float
    ci_high_us: float
    ci_low_pct: float
    ci_high_pct: float
    mde_us: float
    budget: Budget | None
    p_adjusted: float
    verdict: Verdict | None
    reasons: tuple[str, ...]
    alpha: float = ALPHA
    family_size: int = 1
    in_family: bool = True
    more_blocks_can_decide: bool = False
    blocks_to_decide: int | None = None


@dataclass(frozen=True)
class _Sample:
    """A cell on the scale on which it is tested: log ratios, or differences in µs.

    `mean`, `margin` and `step` are on that scale, `sd` is the sample standard deviation of the
    blocks.
    """

    relative: bool
    blocks: int
    vanilla_us: float
    mean: float
    sd: float
    margin: float
    step: float

    @property
    def standard_error(self) -> float:
        return self.sd / math.sqrt(self.blocks) if self.blocks else math.nan

    @property
    def excess(self) -> float:
        """How far the estimate lies above the budget."""
        return self.mean - self.margin

    def half_width(self, alpha_per_side: float) -> float:
        """Give the distance from the estimate to either limit of the interval."""
        random = _quantile(self.blocks, alpha_per_side) * self.standard_error
        # In this order: of nan, which is the spread of one block, max() would make the step.
        return max(random, self.step)

    def detectable(self, blocks: int, alpha_per_side: float) -> float:
        """Give the distance from the budget that this many blocks find with 80 % power."""
        if blocks < 2:
            return math.nan
        found = detectable_effect_sd(blocks, alpha_per_side) * self.sd
        random = _quantile(blocks, alpha_per_side) * self.sd / math.sqrt(blocks)
        return found + max(0.0, self.step - random)

    def cost_us(self, difference: float) -> float:
        """Convert a difference on the scale of the test to µs above vanilla."""
        if not self.relative:
            return difference
        # Limits from two blocks can lie beyond what a float holds; infinity is the answer then.
        with np.errstate(over="ignore"):
            return float(self.vanilla_us * np.expm1(difference))

    def cost_pct(self, difference: float) -> float:
        """Convert a difference on the scale of the test to per cent of vanilla."""
        return 100 * self.cost_us(difference) / self.vanilla_us


def judge(
    family: Sequence[CellData],
    *,
    watched: Sequence[CellData] = (),
    alpha: float = ALPHA,
    min_blocks: int = 8,
) -> list[CellResult]:
    """Judge cells together: all their intervals hold at once with probability ``1 - alpha``.

    The unit is the block. Under a budget of N per cent, and without a budget, a block's difference
    is ``ln(agent / vanilla)`` and the margin ``ln(1 + N / 100)``; under one of N µs it is
    ``agent - vanilla`` and the margin N. Estimate, interval and test come from these differences
    by the paired t method, with Bonferroni's correction for the m cells that are judged and can
    be: quantile ``t_{1 - alpha / (2 m), blocks - 1}``. Without such a cell m counts the judged
    ones, without these all. ``p_adjusted < alpha`` and a lower limit above the budget are the
    same event. No limit is nearer to the estimate than the step in which a figure is recorded.

    Verdicts, the first that applies: invalid if a trial was refused or nothing was measured;
    inconclusive with too few blocks; regressed if the lower limit is above the budget; passed if
    the upper limit is not and nothing else speaks against it; else inconclusive. A traced figure
    does not pass while the user cost of the same syscall and agent is regressed.

    Args:
        family: All cells of a run that are looked at together.
        watched: `user` cells outside the family that have a budget all the same. They are judged
            as a family of their own, only to hold back traced figures that would hide them.
        alpha: Probability that any interval of the family misses the truth.
        min_blocks: Fewer blocks decide nothing; at least 2, since one has no spread.

    Returns:
        The results in the order of `family`.

    Raises:
        ValueError: If `alpha` is not between 0 and 1 or `min_blocks` is below 2.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha:g}")
    if min_blocks < 2:
        raise ValueError(f"min_blocks must be at least 2, not {min_blocks}")
    results = _judge_together(family, alpha, min_blocks)
    witnesses = _judge_together(watched, alpha, min_blocks)
    return hold_back_hidden_cost(results, [*results, *witnesses])


def family_sentence(results: Sequence[CellResult]) -> str:
    """Say which cells share the error probability, and what it is.

    Args:
        results: What `judge` returned.

    Returns:
        Such as ``9 cells are judged together (3 syscalls × 1 agent × 3 figures): their intervals
        all hold at once with 95 %; -k narrows the family``. Without any cell: that none is judged.
    """
    family = [result for result in results if result.in_family]
    if not family:
        return "no cell is judged"
    share = f"{100 * (1 - family[0].alpha):.4g} %"
    verb = "estimated" if family[0].verdict is None else "judged"
    if len(family) == 1:
        return f"1 cell is {verb} ({family[0].cell.id}): its interval holds with {share}"
    kinds = [
        (len({getattr(result.cell, kind) for result in family}), kind)
        for kind in ("syscall", "agent", "figure")
    ]
    is_product = math.prod(count for count, _ in kinds) == len(family)
    counts = [f"{count} {kind}{'' if count == 1 else 's'}" for count, kind in kinds]
    which = " × ".join(counts) if is_product else f"from {', '.join(counts)}"
    return (
        f"{len(family)} cells are {verb} together ({which}): their intervals all hold at once "
        f"with {share}; -k narrows the family"
    )


def detectable_effect_sd(blocks: int, alpha_per_side: float) -> float:
    """Give the smallest effect that a one-sided paired t test finds with 80 % power.

    Args:
        blocks: Pairs in the sample, n.
        alpha_per_side: Level of the one-sided test of this one cell, below 0.5: for a two-sided
            family of m at level alpha, ``alpha / (2 m)``.

    Returns:
        The effect in standard deviations of the paired difference, which is `noncentrality` with
        n - 1 degrees of freedom by ``sqrt(n)``; nan below two blocks.
    """
    if blocks < 2:
        return math.nan
    return noncentrality(blocks - 1, alpha_per_side) / math.sqrt(blocks)


@functools.cache
def noncentrality(freedom: float, alpha_per_side: float) -> float:
    """Give the effect, in standard errors, that a one-sided t test finds with 80 % power.

    The power at an effect of d standard errors is ``P(T > t_{1 - alpha_per_side, freedom})`` with
    T noncentral t and noncentrality d (Cohen 1988, Statistical Power Analysis for the Behavioral
    Sciences, section 2.5); solved for d.

    Args:
        freedom: Degrees of freedom, whole or not (as Welch's are).
        alpha_per_side: Level of the one-sided test, below 0.5.

    Returns:
        d; nan if `freedom` is nan.
    """
    if math.isnan(freedom):
        return math.nan
    quantile = float(stats.t.isf(alpha_per_side, freedom))

    def missing_power(tried: float) -> float:
        return float(stats.nct.sf(quantile, freedom, tried)) - _POWER

    # The test misses only if the mean is unluckily low or the spread unluckily high. Each has half
    # of the allowed probability here, so that the power at this noncentrality is enough.
    half = (1 - _POWER) / 2
    enough = float(
        stats.norm.isf(half) + quantile * math.sqrt(stats.chi2.isf(half, freedom) / freedom)
    )
    return float(optimize.brentq(missing_power, 0.0, enough))


def overhead_rows(results: Sequence[CellResult], placement: str) -> list[dict[str, object]]:
    """Arrange results as the rows of overhead.csv.

    Args:
        results: What `judge` returned.
        placement: Where the tracer stood: ``last``, ``first`` or ``unknown``.

    Returns:
        One dictionary a result, with `OVERHEAD_COLUMNS` as keys in that order. Numbers are not
        rounded; a missing budget or verdict is an empty string.
    """
    return [
        {
            "agent": result.cell.agent,
            "syscall": result.cell.syscall,
            "figure": result.cell.figure,
            "placement": placement,
            "blocks": result.blocks,
            "vanilla_us": result.vanilla_us,
            "agent_us": result.agent_us,
            "delta_us": result.delta_us,
            "delta_pct": result.delta_pct,
            "ci_low_us": result.ci_low_us,
            "ci_high_us": result.ci_high_us,
            "ci_low_pct": result.ci_low_pct,
            "ci_high_pct": result.ci_high_pct,
            "mde_us": result.mde_us,
            "budget": str(result.budget) if result.budget else "",
            "p_adjusted": result.p_adjusted,
            "verdict": result.verdict.value if result.verdict else "",
        }
        for result in results
    ]


def family_members(judged: Sequence[bool], testable: Sequence[bool]) -> Sequence[bool]:
    """Tell which cells share the error probability.

    Args:
        judged: Whether each cell has a budget.
        testable: Whether it also has all that a verdict needs.

    Returns:
        The testable cells; if there is none, the judged ones, and if there is none, all.
    """
    return next((each for each in (testable, judged) if any(each)), [True] * len(judged))


def _judge_together(cells: Sequence[CellData], alpha: float, min_blocks: int) -> list[CellResult]:
    """Judge cells that share the error probability.

    Which of them do depends on no latency, so leaving some out is no peeking.
    """
    judged = [bool(data.budget) for data in cells]
    testable = [
        bool(data.budget and not data.refused and data.vanilla_us.size >= min_blocks)
        for data in cells
    ]
    in_family = family_members(judged, testable)
    return [
        replace(_judge_cell(data, sum(in_family), alpha, min_blocks), in_family=member)
        for data, member in zip(cells, in_family, strict=True)
    ]


def _judge_cell(data: CellData, family_size: int, alpha: float, min_blocks: int) -> CellResult:
    sample = _sample(data)
    alpha_per_side = alpha / (2 * family_size)
    half_width = sample.half_width(alpha_per_side)
    low, high = sample.mean - half_width, sample.mean + half_width
    excess = sample.detectable(sample.blocks, alpha_per_side)
    delta_us = sample.cost_us(sample.mean)
    result = CellResult(
        cell=data.cell,
        blocks=sample.blocks,
        vanilla_us=sample.vanilla_us,
        agent_us=sample.vanilla_us + delta_us,
        delta_us=delta_us,
        delta_pct=sample.cost_pct(sample.mean),
        ci_low_us=sample.cost_us(low),
        ci_high_us=sample.cost_us(high),
        ci_low_pct=sample.cost_pct(low),
        ci_high_pct=sample.cost_pct(high),
        mde_us=sample.cost_us(sample.margin + excess) - sample.cost_us(sample.margin),
        budget=data.budget,
        p_adjusted=_p_adjusted(sample, family_size) if data.budget else math.nan,
        verdict=None,
        reasons=(),
        alpha=alpha,
        family_size=family_size,
    )
    if data.budget is None:
        return result
    if data.refused or not sample.blocks:
        reasons = data.refused or ("no block was measured in both arms",)
        return replace(result, verdict=Verdict.INVALID, reasons=reasons)
    enough = sample.blocks >= min_blocks
    if enough and sample.excess > half_width:
        reasons = (_excess_sentence(result, data.budget), *data.undecided)
        return replace(result, verdict=Verdict.REGRESSED, reasons=reasons)
    if enough and sample.excess <= -half_width:
        verdict = Verdict.INCONCLUSIVE if data.undecided else Verdict.PASSED
        return replace(result, verdict=verdict, reasons=data.undecided)
    # What cannot pass can still regress, but only where the estimate is above the budget.
    can_decide = not data.undecided or sample.excess > 0
    result = replace(
        result,
        verdict=Verdict.INCONCLUSIVE,
        more_blocks_can_decide=can_decide,
        blocks_to_decide=_blocks_to_decide(sample, alpha_per_side, min_blocks)
        if can_decide
        else None,
    )
    if not enough:
        count = "1 block" if sample.blocks == 1 else f"{sample.blocks} blocks"
        reason = f"{count}, {min_blocks} are needed to decide"
    else:
        reason = _straddle_sentence(result, data.budget)
    return replace(result, reasons=(reason, *data.undecided))


def _blocks_to_decide(sample: _Sample, alpha_per_side: float, min_blocks: int) -> int | None:
    """Search for the smallest number of blocks that finds the observed distance to the budget."""
    counts = range(max(min_blocks, sample.blocks + 1), MOST_BLOCKS + 1)
    distance = abs(sample.excess)
    index = bisect_left(
        counts, True, key=lambda blocks: sample.detectable(blocks, alpha_per_side) <= distance
    )
    return counts[index] if index < len(counts) else None


def _sample(data: CellData) -> _Sample:
    relative = data.budget is None or data.budget.unit == "%"
    amount = data.budget.amount if data.budget else 0.0
    blocks = data.vanilla_us.size
    if not blocks:
        return _Sample(relative, 0, math.nan, math.nan, math.nan, math.nan, math.nan)
    if relative:
        differences = np.log(data.agent_us / data.vanilla_us)
        vanilla_us = math.exp(np.log(data.vanilla_us).mean())
        margin = math.log1p(amount / 100)
        step = data.step_us / min(vanilla_us, math.exp(np.log(data.agent_us).mean()))
    else:
        differences = data.agent_us - data.vanilla_us
        vanilla_us = float(data.vanilla_us.mean())
        margin = amount
        step = data.step_us
    differences = differences.round(DECIMALS)
    mean, sd = float(differences.mean()), math.nan
    if blocks > 1:
        sd = float(differences.std(ddof=1))
        if np.ptp(differences) == 0:
            # The mean of n equal numbers need not be that number in floating point.
            mean, sd = float(differences[0]), 0.0
        # Rounding a number to a step adds step²/12 to its variance (Sheppard 1898); a difference
        # is made of two. So a spread below this is not known, and need not be none.
        sd = max(sd, step / math.sqrt(6))
    return _Sample(relative, blocks, vanilla_us, mean, sd, round(margin, DECIMALS), step)


@functools.cache
def _quantile(blocks: int, alpha_per_side: float) -> float:
    """Upper quantile of Student's t with `blocks` - 1 degrees of freedom; nan if that is none."""
    return float(stats.t.isf(alpha_per_side, blocks - 1))


def _p_adjusted(sample: _Sample, family_size: int) -> float:
    if sample.blocks < 2:
        return math.nan
    # Within a step of the budget no level makes the lower limit lie above it.
    if sample.excess <= sample.step:
        return 1.0
    if sample.sd == 0:
        return 0.0
    t = sample.excess / sample.standard_error
    return min(1.0, 2 * family_size * float(special.stdtr(sample.blocks - 1, -t)))


def hold_back_hidden_cost(
    results: Sequence[CellResult], witnesses: Sequence[CellResult]
) -> list[CellResult]:
    """Let no traced figure pass while the user pays more than the budget.

    An agent can work outside the interval that the tracer measures (before its start, or after
    its end); then the traced figure is fine and means nothing.
    """
    regressed_user = {
        (result.cell.syscall, result.cell.agent): "; ".join(result.reasons)
        for result in witnesses
        if result.cell.figure == "user" and result.verdict is Verdict.REGRESSED
    }

    def held_back(result: CellResult) -> CellResult:
        why = regressed_user.get((result.cell.syscall, result.cell.agent))
        if why is None or result.verdict is not Verdict.PASSED:
            return result
        reason = f"cost outside the interval: what the user pays has regressed ({why})"
        return replace(result, verdict=Verdict.INCONCLUSIVE, reasons=(reason,))

    return [held_back(result) for result in results]


def _excess_sentence(result: CellResult, budget: Budget) -> str:
    low, _ = interval_in_unit_of(budget, result)
    return f"the overhead is at least {low}, above the budget {budget}"


def _straddle_sentence(result: CellResult, budget: Budget) -> str:
    low, high = interval_in_unit_of(budget, result)
    sentence = f"the overhead is between {low} and {high}, the budget {budget} lies inside"
    if not result.more_blocks_can_decide:
        return sentence
    if result.blocks_to_decide is None:
        return f"{sentence}; even {MOST_BLOCKS} trials would hardly settle this"
    more = result.blocks_to_decide - result.blocks
    return f"{sentence}; {more} more trials would settle this"


def interval_in_unit_of(budget: Budget, result: CellResult) -> tuple[str, str]:
    """Both limits of a result in the unit of its budget, with sign and unit."""
    decimals = LIMIT_DECIMALS[budget.unit]
    if budget.unit == "%":
        return f"{result.ci_low_pct:+.{decimals}f} %", f"{result.ci_high_pct:+.{decimals}f} %"
    return f"{result.ci_low_us:+.{decimals}f} µs", f"{result.ci_high_us:+.{decimals}f} µs"
