"""False alarms and power of this project's verdicts, beside those of other methods.

    python perf/false_alarms.py [RUNS]

Prints three tables; with the default of 10,000 runs they take about 20 minutes of one core. Nothing
is measured, so the machine need not be quiet.

1. Ways to make intervals that hold for all cells at once, on block differences of 15 cells.
2. Looks at 8, 16 and 32 blocks: when runs end, and what they find.
3. The gate itself beside tests that pool all calls, as they are often used: 12 cells (3 syscalls ×
   4 agents, p50), 8 blocks, 1,000 calls a trial, 2 % variation from trial to trial.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

import numpy as np
from scipy import stats
from simulated_runs import (
    SKEWED,
    SYMMETRIC,
    Bools,
    Floats,
    bonferroni,
    differences,
    draw,
    monte_carlo_error,
    sidak,
    sign_flips,
    simulated_maximum,
    t_values,
)

from pytest_syslat.budget import Budget
from pytest_syslat.gate import Cell, CellData, Verdict, judge
from pytest_syslat.sequential import LOOKS, alpha_of_look

ALPHA = 0.05
BUDGET_PCT = 10.0
SEED = 20
CELLS = 15
CANDIDATES: dict[str, tuple[Callable[[Floats, float], Floats], int]] = {
    "t, Bonferroni (ours)": (bonferroni, 1),
    "t, Šidák": (sidak, 1),
    "max t of sign flips": (sign_flips, 1),
    # One in four of the runs: each simulates a thousand.
    "max t of simulated normals": (simulated_maximum, 4),
    "the same, shrunken correlation": (functools.partial(simulated_maximum, shrunk=True), 4),
}
FAR_BELOW_SD = -10.0
SYSCALLS, AGENTS, BLOCKS, CALLS = 3, 4, 8, 1000
CALL_SIGMA = 0.2
TRIAL_SIGMA = 0.02


def intervals(runs: int) -> None:
    """Print how often any of 15 intervals misses the truth, and how often an excess is found."""
    scenarios = {each.name: each for each in (*SYMMETRIC, *SKEWED)}
    names = ("independent cells", "normal", "nearly equal cells", "heavy tails")
    print("| blocks | alpha | method |", " | ".join((*names, "vanilla skewed")), "| power |")
    print("|---|---|---|", "---|" * (len(names) + 2), sep="")
    for blocks, excess_sd in ((8, 1.9), (16, 1.15)):
        random = np.random.default_rng(SEED)
        on_budget = [
            differences(
                draw(scenarios[name], random, runs=runs, blocks=blocks, budget=BUDGET_PCT),
                BUDGET_PCT,
                "%",
            )
            for name in (*names, "vanilla skewed, agent quiet")
        ]
        one_over = np.full(CELLS, FAR_BELOW_SD)
        one_over[0] = excess_sd
        effect = differences(
            draw(
                scenarios["normal"],
                random,
                runs=runs,
                blocks=blocks,
                budget=BUDGET_PCT,
                excess_sd=one_over,
            ),
            BUDGET_PCT,
            "%",
        )
        for alpha in (ALPHA, ALPHA / 3):
            for method, (critical_value, thinning) in CANDIDATES.items():
                missed = [
                    np.mean(
                        np.abs(t_values(excess[::thinning])).max(axis=1)
                        > critical_value(excess[::thinning], alpha)
                    )
                    for excess in on_budget
                ]
                found = np.mean(
                    t_values(effect[::thinning])[:, 0] > critical_value(effect[::thinning], alpha)
                )
                shares = " | ".join(f"{100 * share:.1f}" for share in (*missed, found))
                print(f"| {blocks} | {100 * alpha:.1f} % | {method} | {shares} |", flush=True)
    for count in (runs, runs // 4):
        error = 100 * monte_carlo_error(ALPHA, count)
        print(f"Standard error of 5 % in {count:,} runs: {error:.2f} %")


def looks(runs: int) -> None:
    """Print when runs end, and what they find, with one cell above its budget."""
    columns = ("effect", *(f"ends at {look}, %" for look in LOOKS), "blocks", "regressed, %")
    columns += ("8 fixed, %", "32 fixed, %", "regressed at 8, open at 16, %")
    print("|", " | ".join(columns), "|")
    print("|", "---|" * len(columns), sep="")
    critical = [stats.t.ppf(1 - alpha_of_look(ALPHA) / (2 * CELLS), blocks - 1) for blocks in LOOKS]
    for excess_sd in (0.0, 0.5, 0.8, 1.2, 1.9, 2.5):
        one_over = np.full(CELLS, FAR_BELOW_SD)
        one_over[0] = excess_sd
        t_by_look = _t_by_look(runs, one_over)
        decided = [
            (np.abs(t) > limit).all(axis=1) for t, limit in zip(t_by_look, critical, strict=True)
        ]
        found = [t[:, 0] > limit for t, limit in zip(t_by_look, critical, strict=True)]
        end = np.select(decided[:-1], LOOKS[:-1], LOOKS[-1])
        regressed = np.select(decided[:-1], found[:-1], found[-1])
        fixed = [
            stats.nct.sf(
                stats.t.ppf(1 - ALPHA / (2 * CELLS), blocks - 1),
                blocks - 1,
                excess_sd * math.sqrt(blocks),
            )
            for blocks in (LOOKS[0], LOOKS[-1])
        ]
        shares = [np.mean(end == look) for look in LOOKS]
        lost = np.mean(found[0] & ~found[1])
        cells = [f"{100 * share:.1f}" for share in shares] + [f"{end.mean():.1f}"]
        cells += [f"{100 * share:.1f}" for share in (regressed.mean(), *fixed, lost)]
        print(f"| {excess_sd:g} |", " | ".join(cells), "|", flush=True)
    t_by_look = _t_by_look(runs, np.zeros(CELLS))
    missed = np.any(
        [(np.abs(t) > limit).any(axis=1) for t, limit in zip(t_by_look, critical, strict=True)],
        axis=0,
    ).mean()
    print(f"All cells at the budget: {100 * missed:.1f} % of runs miss at any look")
    excess = _excess(np.random.default_rng(SEED), runs, 0.0, syscalls=1, figures=1)
    by_block = [
        t_values(excess[:, :, :blocks])[:, 0] / stats.t.ppf(1 - ALPHA / 2, blocks - 1)
        for blocks in range(LOOKS[0], LOOKS[-1] + 1)
    ]
    missed, alarms = (
        np.mean(np.max(np.abs(by_block), axis=0) > 1),
        np.mean(np.max(by_block, axis=0) > 1),
    )
    print(
        f"One cell at the budget, tested at 5 % after each block: missed in {100 * missed:.1f} %, "
        f"called regressed in {100 * alarms:.1f} %"
    )


def _t_by_look(runs: int, excess_sd: Floats) -> list[Floats]:
    excess = _excess(np.random.default_rng(SEED), runs, excess_sd)
    return [t_values(excess[:, :, :blocks]) for blocks in LOOKS]


def _excess(
    random: np.random.Generator,
    runs: int,
    excess_sd: float | Floats,
    *,
    syscalls: int = 3,
    figures: int = 5,
) -> Floats:
    drawn = draw(
        SYMMETRIC[0],
        random,
        runs=runs,
        blocks=LOOKS[-1],
        budget=BUDGET_PCT,
        excess_sd=excess_sd,
        syscalls=syscalls,
        figures=figures,
    )
    return differences(drawn, BUDGET_PCT, "%")


def pooled(runs: int) -> None:
    """Print how often each method calls any cell regressed that is not, and finds one that is."""
    one_over = np.full((SYSCALLS, AGENTS), -0.2)
    # 6 % over the budget: two standard deviations of a block difference.
    one_over[0, 0] = 0.06
    random = np.random.default_rng(SEED)
    tables = {
        "A/A": _alarms(runs, random, 0.0, 0.0, "normal"),
        "at the budget": _alarms(runs, random, BUDGET_PCT, 0.0, "normal"),
        "heavy tails": _alarms(runs, random, BUDGET_PCT, 0.0, "heavy"),
        "vanilla skewed": _alarms(runs, random, BUDGET_PCT, 0.0, "skewed"),
        "one over": _alarms(runs, random, BUDGET_PCT, one_over, "normal"),
    }
    print("| method |", " | ".join(list(tables)[:-1]), "| one over: the others | found |")
    print("|---|", "---|" * (len(tables) + 1), sep="")
    for method in tables["A/A"]:
        false = [table[method].any(axis=(1, 2)) for name, table in tables.items()][:-1]
        others = tables["one over"][method].copy()
        found = others[:, 0, 0].copy()
        others[:, 0, 0] = False
        shares = [np.mean(each) for each in (*false, others.any(axis=(1, 2)), found)]
        print(f"| {method} |", " | ".join(f"{100 * share:.1f}" for share in shares), "|")
    error = 100 * monte_carlo_error(ALPHA, runs)
    print(f"Standard error of 5 % in {runs:,} runs: {error:.1f} %")


def _alarms(
    runs: int,
    random: np.random.Generator,
    budget_pct: float,
    excess: float | Floats,
    noise: str,
) -> dict[str, Bools]:
    """Which cells each method calls regressed: runs × syscalls × agents.

    `excess` is the log of the true ratio less that of the budget.
    """
    margin = math.log1p(budget_pct / 100)
    regressed: dict[str, list[Bools]] = {}
    for _ in range(runs):
        drift = random.normal(0, 0.05, (BLOCKS, 1, 1))
        vanilla = drift + _variation(random, (BLOCKS, SYSCALLS, 1), noise)
        shape = (BLOCKS, SYSCALLS, AGENTS)
        quiet = "normal" if noise == "skewed" else noise
        spread = 0.1 if noise == "skewed" else 1.0
        agent = drift + margin + excess + spread * _variation(random, shape, quiet)
        calls = np.exp(
            np.concatenate((vanilla, agent), axis=2)[..., None]
            + random.normal(0, CALL_SIGMA, (BLOCKS, SYSCALLS, 1 + AGENTS, CALLS))
        )
        for method, cells in _judged(calls, budget_pct).items():
            regressed.setdefault(method, []).append(cells)
    return {method: np.array(cells) for method, cells in regressed.items()}


def _variation(random: np.random.Generator, shape: tuple[int, ...], noise: str) -> Floats:
    if noise == "heavy":
        return TRIAL_SIGMA * random.standard_t(3, shape) / math.sqrt(3)
    if noise == "skewed":
        sigma = 0.5
        mean, variance = math.exp(sigma**2 / 2), math.exp(sigma**2) * math.expm1(sigma**2)
        skewed = random.lognormal(0, sigma, shape) - mean
        return TRIAL_SIGMA * skewed / math.sqrt(variance)
    return random.normal(0, TRIAL_SIGMA, shape)


def _judged(calls: Floats, budget_pct: float) -> dict[str, Bools]:
    """What each method says of one run: calls are blocks × syscalls × arms × calls."""
    # An observed value, as in the gate's own figures.
    middle = (CALLS - 1) // 2
    p50_us = np.partition(calls, middle, axis=3)[..., middle]
    budget = Budget("*", "*", budget_pct, "%")
    results = judge(
        [
            CellData(
                Cell(f"syscall{syscall}", f"agent{agent}", "p50"),
                budget,
                p50_us[:, syscall, 0],
                p50_us[:, syscall, 1 + agent],
            )
            for syscall in range(SYSCALLS)
            for agent in range(AGENTS)
        ]
    )
    grid = (SYSCALLS, AGENTS)
    ours = np.array([result.verdict is Verdict.REGRESSED for result in results]).reshape(grid)
    ratios = np.log(p50_us[:, :, 1:] / p50_us[:, :, :1])
    excess = np.moveaxis(ratios - math.log1p(budget_pct / 100), 0, -1).reshape(1, -1, BLOCKS)
    t = t_values(excess).reshape(grid)
    flips = sign_flips(excess, ALPHA)[0]
    welch, ranks = np.empty(grid), np.empty(grid)
    for syscall in range(SYSCALLS):
        vanilla = calls[:, syscall, 0].ravel() * (1 + budget_pct / 100)
        for agent in range(AGENTS):
            loaded = calls[:, syscall, 1 + agent].ravel()
            welch[syscall, agent] = _upward(
                stats.ttest_ind(loaded, vanilla, equal_var=False, alternative="greater").pvalue
            )
            ranks[syscall, agent] = _upward(
                stats.mannwhitneyu(
                    loaded, vanilla, alternative="greater", method="asymptotic"
                ).pvalue
            )
    cells = SYSCALLS * AGENTS
    return {
        "paired t, Bonferroni (ours: `judge`)": ours,
        "paired, max t of sign flips": t > flips,
        "paired t, each cell by itself": t > stats.t.ppf(1 - ALPHA / 2, BLOCKS - 1),
        "Welch on all calls": welch < ALPHA,
        "Welch on all calls, Bonferroni": welch < ALPHA / cells,
        "Mann-Whitney on all calls": ranks < ALPHA,
        "Mann-Whitney on all calls, Bonferroni": ranks < ALPHA / cells,
    }


def _upward(one_sided: float) -> float:
    """The two-sided p value where the agent is slower; 1 where it is not."""
    return min(1.0, 2 * one_sided)


def main() -> None:
    """Print the tables."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    intervals(runs)
    print()
    looks(2 * runs)
    print()
    pooled(runs // 10)


if __name__ == "__main__":
    main()
