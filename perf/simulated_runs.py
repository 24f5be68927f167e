"""Runs that are drawn by chance, and methods that judge thousands of them at once.

For tests/unit/test_false_alarms.py and perf/false_alarms.py. A run is vanilla and one agent in
blocks. What a block has in common (drift) falls on both arms; each trial varies on its own (2 % of
its latency, 5 % for p99). The figures of one trial are strongly correlated, those of different
syscalls weakly.

Nothing here is taken from the package, so that both can be held against each other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Vanilla's latency in µs and the spread of a trial, by figure: p50, p90, p99, mean, user.
LEVELS = (1.0, 1.3, 3.0, 1.1, 0.6)
SPREADS = (0.02, 0.02, 0.05, 0.02, 0.02)
SYSCALL_US = (56.0, 0.47, 12.0)
CALLS_TOGETHER = 0.1


@dataclass(frozen=True)
class Scenario:
    """How trials vary.

    Attributes:
        name: What it is called in tables.
        noise: Shape of the variation from trial to trial, of variance 1 and mean 0: ``normal``;
            ``heavy`` (Student's t with 3 degrees of freedom); ``skewed`` (a lognormal with a sigma
            of 0.5: skewness 1.75); ``hits`` (one trial in ten is slower by five of the others'
            standard deviations: skewness 2).
        vanilla_spread: Factor on the spread of vanilla's trials.
        agent_spread: Factor on the spread of the agent's.
        figures_together: Correlation of the figures of one trial.
        unit: Of the budget. Under ``%`` all variation is of factors, under ``us`` of sums.
    """

    name: str
    noise: Literal["normal", "heavy", "skewed", "hits"] = "normal"
    vanilla_spread: float = 1.0
    agent_spread: float = 1.0
    figures_together: float = 0.8
    unit: Literal["%", "us"] = "%"


SYMMETRIC = (
    Scenario("normal"),
    Scenario("normal, budget in µs", unit="us"),
    Scenario("independent cells", figures_together=CALLS_TOGETHER),
    Scenario("nearly equal cells", figures_together=0.98),
    Scenario("heavy tails", noise="heavy"),
    Scenario("skewed arms", noise="skewed"),
    Scenario("hit trials in both arms", noise="hits"),
    Scenario("agent varies 3 times as much", agent_spread=3.0),
    Scenario("heavy tails, agent varies 3 times as much", noise="heavy", agent_spread=3.0),
)
"""Block differences are symmetric: either both arms vary alike, or each symmetrically."""

SKEWED = (
    Scenario("agent skewed, vanilla quiet", noise="skewed", vanilla_spread=0.1),
    Scenario("vanilla skewed, agent quiet", noise="skewed", agent_spread=0.1),
    Scenario("agent hit, vanilla quiet", noise="hits", vanilla_spread=0.1),
    Scenario("vanilla hit, agent quiet", noise="hits", agent_spread=0.1),
)
"""Block differences are skewed, to the right or to the left: a documented limit."""


@dataclass(frozen=True)
class Runs:
    """Figures of trials in µs: arrays of runs × cells × blocks."""

    vanilla_us: Floats
    agent_us: Floats


def draw(
    scenario: Scenario,
    random: np.random.Generator,
    *,
    runs: int,
    blocks: int,
    budget: float,
    excess_sd: float | Floats = 0.0,
    syscalls: int = 3,
    figures: int = 5,
) -> Runs:
    """Draw runs of syscalls × figures cells.

    Args:
        scenario: How trials vary.
        random: Where chance comes from.
        runs: How many runs.
        blocks: Blocks of each run.
        budget: The budget, in the scenario's unit.
        excess_sd: How far the true overhead lies above the budget, in standard deviations of the
            cell's block difference; one number, or one for each cell.
        syscalls: Up to 3.
        figures: Up to 5.
    """
    level_us = np.outer(SYSCALL_US[:syscalls], LEVELS[:figures]).reshape(-1, 1)
    spread = np.tile(SPREADS[:figures], syscalls).reshape(-1, 1)
    shape = (runs, syscalls, figures, blocks)
    vanilla = scenario.vanilla_spread * spread * _noise(scenario, random, shape)
    agent = scenario.agent_spread * spread * _noise(scenario, random, shape)
    sd = spread * math.hypot(scenario.vanilla_spread, scenario.agent_spread)
    excess = np.broadcast_to(excess_sd, (syscalls * figures,)).reshape(-1, 1) * sd
    # From block to block 5 %, and a slope through the run of up to 20 % up or down.
    slope = random.uniform(-0.2, 0.2, (runs, 1, 1)) * np.linspace(0, 1, blocks)
    drift = np.exp(slope + random.normal(0, 0.05, (runs, 1, blocks)))
    if scenario.unit == "%":
        return Runs(
            level_us * drift * np.exp(vanilla),
            level_us * drift * (1 + budget / 100) * np.exp(agent + excess),
        )
    return Runs(
        level_us * (drift + np.maximum(vanilla, -0.5)),
        level_us * (drift + np.maximum(agent, -0.5) + excess) + budget,
    )


def _noise(
    scenario: Scenario, random: np.random.Generator, shape: tuple[int, int, int, int]
) -> Floats:
    """Variation of trials with variance 1, mean 0 and correlated cells: runs × cells × blocks."""
    runs, syscalls, figures, blocks = shape
    together, apart = CALLS_TOGETHER, scenario.figures_together - CALLS_TOGETHER
    normal = (
        math.sqrt(together) * random.standard_normal((runs, 1, 1, blocks))
        + math.sqrt(apart) * random.standard_normal((runs, syscalls, 1, blocks))
        + math.sqrt(1 - together - apart) * random.standard_normal(shape)
    ).reshape(runs, syscalls * figures, blocks)
    if scenario.noise == "heavy":
        # One denominator a trial: a bad trial is bad in all its figures.
        shared = random.chisquare(3, (runs, syscalls, 1, blocks)) / 3
        return normal / np.sqrt(shared).repeat(figures, axis=1).reshape(normal.shape) / math.sqrt(3)
    if scenario.noise == "skewed":
        sigma = 0.5
        mean, variance = math.exp(sigma**2 / 2), math.exp(sigma**2) * math.expm1(sigma**2)
        return (np.exp(sigma * normal) - mean) / math.sqrt(variance)
    if scenario.noise == "hits":
        share, size = 0.1, 5.0
        hit = (random.random((runs, syscalls, 1, blocks)) < share).repeat(figures, axis=1)
        variance = 1 + size**2 * share * (1 - share)
        return (normal + size * (hit.reshape(normal.shape) - share)) / math.sqrt(variance)
    return normal


def differences(runs: Runs, budget: float, unit: Literal["%", "us"]) -> Floats:
    """Block differences less the budget, on the scale on which they are judged."""
    if unit == "%":
        return np.log(runs.agent_us / runs.vanilla_us) - math.log1p(budget / 100)
    return runs.agent_us - runs.vanilla_us - budget


def t_values(excess: Floats) -> Floats:
    """Student's t of each cell: runs × cells."""
    blocks = excess.shape[-1]
    values: Floats = excess.mean(axis=-1) / (excess.std(axis=-1, ddof=1) / math.sqrt(blocks))
    return values


def bonferroni(excess: Floats, alpha: float) -> Floats:
    """Critical value of |t|, the same in all runs: a quantile of t at alpha / cells."""
    _, cells, blocks = excess.shape
    return np.full(len(excess), stats.t.ppf(1 - alpha / (2 * cells), blocks - 1))


def sidak(excess: Floats, alpha: float) -> Floats:
    """The same at 1 - (1 - alpha)^(1 / cells), which is exact for independent cells."""
    _, cells, blocks = excess.shape
    level = 1 - (1 - alpha) ** (1 / cells)
    return np.full(len(excess), stats.t.ppf(1 - level / 2, blocks - 1))


def sign_flips(excess: Floats, alpha: float, most: int = 1024) -> Floats:
    """Critical value of each run: quantile of max |t| over sign flips of the centred residuals.

    A flip takes all cells of a block at once, so that their correlation is kept. All 2^(blocks - 1)
    flips (a flip and its opposite are the same), or `most` of them, drawn by chance.
    """
    runs, _, blocks = excess.shape
    if 2 ** (blocks - 1) <= most:
        signs = np.array(list(itertools.product((1.0,), *[(1.0, -1.0)] * (blocks - 1))))
    else:
        signs = np.random.default_rng(blocks).choice((1.0, -1.0), (most, blocks))
    residuals = (excess - excess.mean(axis=-1, keepdims=True)).swapaxes(1, 2)
    critical = np.empty(runs)
    for first in range(0, runs, 200):
        part = residuals[first : first + 200]
        mean = signs @ part / blocks
        variance = ((part**2).sum(axis=1)[:, None] - blocks * mean**2) / (blocks - 1)
        largest = np.abs(mean / np.sqrt(variance / blocks)).max(axis=2)
        critical[first : first + 200] = np.quantile(
            largest, 1 - alpha, axis=1, method="inverted_cdf"
        )
    return critical


def simulated_maximum(
    excess: Floats, alpha: float, *, shrunk: bool = False, draws: int = 1000
) -> Floats:
    """Critical value of each run: quantile of max |t| of normal blocks with its own correlation.

    With `shrunk` the estimated correlations are drawn towards 0 by the share that makes their
    expected squared error smallest (Schäfer and Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4).
    """
    runs, cells, blocks = excess.shape
    random = np.random.default_rng(cells)
    among_blocks = random.standard_normal((draws, blocks, blocks))
    on_its_own = random.standard_normal((draws, blocks, cells))
    critical = np.empty(runs)
    for run in range(runs):
        scores = (excess[run].T - excess[run].mean(axis=1)) / excess[run].std(axis=1, ddof=1)
        share = _shrinkage(scores) if shrunk else 0.0
        drawn = math.sqrt(1 - share) * (among_blocks @ scores) / math.sqrt(blocks - 1)
        drawn += math.sqrt(share) * on_its_own
        largest = np.abs(t_values(drawn.swapaxes(1, 2))).max(axis=1)
        critical[run] = np.quantile(largest, 1 - alpha)
    return critical


def _shrinkage(scores: Floats) -> float:
    blocks, cells = scores.shape
    products = scores[:, :, None] * scores[:, None, :]
    off_diagonal = ~np.eye(cells, dtype=bool)
    variance = blocks / (blocks - 1) ** 3 * ((products - products.mean(axis=0)) ** 2).sum(axis=0)
    correlation = products.mean(axis=0) * blocks / (blocks - 1)
    size = float((correlation[off_diagonal] ** 2).sum())
    return min(1.0, float(variance[off_diagonal].sum()) / size) if size else 1.0


def monte_carlo_error(share: float, runs: int) -> float:
    """Standard error of a share that was counted in so many runs."""
    return math.sqrt(share * (1 - share) / runs)
