"""What the terminal says of stored runs: what was compared, and how far overheads have grown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pytest_syslat.comparison import Comparison
from pytest_syslat.gate import Verdict
from pytest_syslat.settings import TRIALS_WHEN_JUDGED as BLOCKS_TO_DECIDE
from pytest_syslat.settings import VANILLA
from pytest_syslat.unpaired import GrowthResult

WEAKER = (
    "two runs, so weaker than pairs: what shifted between them is in the figures and not in the "
    "intervals"
)


def comparison_lines(
    comparison: Comparison, growth: Sequence[GrowthResult]
) -> Iterator[tuple[str, Verdict | None]]:
    """The lines about stored runs, each with the verdict that it tells; none without a run."""
    if comparison.baseline is not None:
        run = comparison.baseline.stored
        counts = ", ".join(
            f"{syscall} {len(run.arm(syscall, VANILLA))}"
            for syscall in sorted({key.syscall for key in run.trials if key.arm == VANILLA})
        )
        what = f"the stored vanilla of {run.path} (of {run.date}, trials: {counts})"
        yield f"compared with {what}: {WEAKER}", None
    if comparison.against is None:
        return
    run = comparison.against.stored
    agents = sorted({each.tested.cell.agent for each in growth})
    versions = "; ".join(f"{agent}: {comparison.version_of(agent)}" for agent in agents)
    yield f"growth since {run.path} (of {run.date}, {versions or 'no agent'}): {WEAKER}", None
    for each in growth:
        if each.tested.verdict is not None:
            yield growth_sentence(each), each.tested.verdict


def growth_sentence(result: GrowthResult) -> str:
    """A cell's growth and the verdict on it, in one line."""
    tested = result.tested
    figures = "-"
    if not math.isnan(tested.delta_us):
        figures = (
            f"overhead {_both(result.overhead_before_us, result.overhead_before_pct)} → "
            f"{_both(result.overhead_now_us, result.overhead_now_pct)}, "
            f"growth {_both(tested.delta_us, tested.delta_pct)}"
        )
        # The interval from a few blocks is so wide that its figures only confuse.
        if tested.blocks >= BLOCKS_TO_DECIDE and not math.isnan(tested.ci_low_us):
            figures += (
                f", 95 % interval {tested.ci_low_us:+.3f} … {tested.ci_high_us:+.3f} µs "
                f"({tested.ci_low_pct:+.1f} … {tested.ci_high_pct:+.1f} %)"
            )
    reasons = f": {'; '.join(tested.reasons)}" if tested.reasons else ""
    return (
        f"{tested.cell.id} growth {tested.verdict} (growth budget {tested.budget}, "
        f"{result.blocks_before} and {result.blocks_now} blocks): {figures}{reasons}"
    )


def _both(value_us: float, value_pct: float) -> str:
    return f"{value_us:+.3f} µs ({value_pct:+.1f} %)"
