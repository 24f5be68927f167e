"""Numbers with their units, and the sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_syslat.gate import LIMIT_DECIMALS, WORST_FIRST, Verdict
from pytest_syslat.report.model import Curve, Overhead, Report
from pytest_syslat.settings import VANILLA

ABSENT = "–"
GAP = "\u00a0"
"""Between a number and its unit: no line may end there."""
MOST_NAMED = 4
"""So many agents and syscalls are named in a sentence."""


def microseconds(value: float | None) -> str:
    """A latency with its unit: µs with three decimals, as in the CSV files."""
    return ABSENT if value is None else f"{value:,.3f}{GAP}µs"


def signed_us(value: float | None) -> str:
    """A difference in µs, with its sign and three decimals; beyond a million with an exponent."""
    if value is None:
        return ABSENT
    return f"{_minus(value, 3)}{GAP}µs"


def signed_pct(value: float | None) -> str:
    """A difference in per cent, with its sign."""
    if value is None:
        return ABSENT
    return f"{_minus(value, 1)}{GAP}%"


def limit_pct(value: float | None) -> str:
    """A limit in per cent, as exact as the gate writes it."""
    return ABSENT if value is None else f"{_minus(value, LIMIT_DECIMALS['%'])}{GAP}%"


def limit_us(value: float | None) -> str:
    """A limit in µs, as exact as the gate writes it."""
    return ABSENT if value is None else f"{_minus(value, LIMIT_DECIMALS['us'])}{GAP}µs"


def judged_interval(cell: Overhead) -> str:
    """The interval in the unit of the budget, so that the two can be compared."""
    if cell.unit == "us":
        return interval(limit_us(cell.low_us), limit_us(cell.high_us))
    return interval(limit_pct(cell.low_pct), limit_pct(cell.high_pct))


def allowance(budget: str | None) -> str:
    """What a budget allows, such as `+2.5 µs`."""
    allowed = (budget or "").rpartition("<=")[2]
    return allowed.replace("us", f"{GAP}µs").replace("%", f"{GAP}%") or ABSENT


def short_us(value: float | None) -> str:
    """A difference in µs to three digits, for the margin of a plot."""
    return ABSENT if value is None else f"{_three_digits(value)}{GAP}µs"


def short_pct(value: float | None) -> str:
    """A difference in per cent, for the margin of a plot: one decimal, none from 100 on."""
    if value is None:
        return ABSENT
    return f"{_minus(value, 1 if abs(value) < 99.95 else 0)}{GAP}%"


def interval(low: str, high: str) -> str:
    """Two limits that have been written."""
    return ABSENT if ABSENT in (low, high) else f"{low} … {high}"


def duration_ns(value_ns: float) -> str:
    """A latency in the unit that suits it, to three digits."""
    for limit, unit in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms")):
        if value_ns < limit * 0.9995:
            return f"{_digits(value_ns / limit * 1e3)}{GAP}{unit}"
    return f"{_digits(value_ns / 1e9)}{GAP}s"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Such as `1 trial` and `1,200 trials`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(words: Sequence[str]) -> str:
    """Such as `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def headline(report: Report) -> str:
    """What is invalid and what has regressed, in one sentence."""
    judged = report.judged
    if not judged:
        return _without_verdict(report)
    counts = {
        verdict: [each for each in judged if each.verdict is verdict] for verdict in WORST_FIRST
    }
    total = counted(len(judged), "judged figure")
    invalid, regressed = counts[Verdict.INVALID], counts[Verdict.REGRESSED]
    if invalid or regressed:
        parts = []
        if invalid:
            parts.append(f"{len(invalid)} of {total} {_are(invalid)}: {_named(invalid)}")
        if regressed:
            of_all = "" if invalid else f" of {total}"
            parts.append(f"{len(regressed)}{of_all} regressed: {_named(regressed)}")
        rest = [
            f"{len(counts[each])} {each}"
            for each in (Verdict.INCONCLUSIVE, Verdict.PASSED)
            if counts[each]
        ]
        parts += [", ".join(rest)] if rest else []
        return f"{'; '.join(parts)}."
    open_ones = counts[Verdict.INCONCLUSIVE]
    if not open_ones:
        return f"All {total} passed." if len(judged) > 1 else "The only judged figure passed."
    if len(open_ones) == len(judged):
        return f"Undecided: {'all ' if len(judged) > 1 else 'the only '}{_all(len(judged))}."
    passed = len(counts[Verdict.PASSED])
    return (
        f"Nothing regressed, but {len(open_ones)} of {total} {_still(open_ones)}; {passed} passed."
    )


def _all(number: int) -> str:
    return (
        "judged figure is inconclusive"
        if number == 1
        else f"{number} judged figures are inconclusive"
    )


def _are(cells: Sequence[Overhead]) -> str:
    return "is invalid" if len(cells) == 1 else "are invalid"


def _still(cells: Sequence[Overhead]) -> str:
    return "is inconclusive" if len(cells) == 1 else "are inconclusive"


def _without_verdict(report: Report) -> str:
    if not report.trials:
        return "No trial was measured."
    if not report.closed:
        return "The run was ended before its overheads were computed."
    if not report.agents:
        return "Only vanilla was measured: there is no overhead to judge."
    if not report.overheads:
        return "No overhead could be computed: no block has vanilla and an agent."
    return "Nothing was judged: the figures below have no budget (--syslat-budget)."


def _named(cells: Sequence[Overhead]) -> str:
    """Such as `openat under auditd (p50 +12.0 %, user +3.0 %)`, the largest first."""
    groups: dict[tuple[str, str], list[Overhead]] = {}
    for each in sorted(cells, key=lambda cell: -(cell.delta_pct or 0)):
        groups.setdefault((each.syscall, each.agent), []).append(each)
    shown = [
        f"{syscall} under {agent} "
        f"({', '.join(f'{each.name} {short_pct(each.delta_pct)}' for each in members)})"
        for (syscall, agent), members in list(groups.items())[:MOST_NAMED]
    ]
    more = len(groups) - len(shown)
    return listed([*shown, f"{more} more"] if more else shown)


def overhead_sentence(cells: Sequence[Overhead], syscall: str) -> str:
    """What the overheads of a syscall show, in words."""
    known = [each for each in cells if each.delta_pct is not None]
    if not known:
        return f"No overhead on {syscall} could be computed."
    largest = max(known, key=lambda each: each.delta_pct or 0)
    sentence = (
        f"The largest overhead on {syscall} is {signed_pct(largest.delta_pct)} "
        f"({signed_us(largest.delta_us)}), {largest.figure} under {largest.agent}."
    )
    judged = [each for each in cells if each.verdict]
    if judged:
        verdicts = [
            f"{len(of_it)} {verdict}"
            for verdict in WORST_FIRST
            if (of_it := [each for each in judged if each.verdict is verdict])
        ]
        sentence += f" Of {counted(len(judged), 'judged figure')}: {listed(verdicts)}."
    return sentence


def distribution_sentence(curves: Sequence[Curve], syscall: str) -> str:
    """Where the middle of the calls lies in each arm."""
    parts = [
        f"{duration_ns(each.distribution.quantile_ns(0.5))} under {each.arm}" for each in curves
    ]
    return f"Half of the {syscall} calls take at most {listed(parts)}."


def tail_sentence(curves: Sequence[Curve], syscall: str) -> str:
    """Where the slow calls begin in each arm."""
    parts = [
        f"{duration_ns(each.distribution.quantile_ns(0.999))} under {each.arm}" for each in curves
    ]
    return f"One {syscall} call in a thousand takes longer than {listed(parts)}."


def progress_words(report: Report) -> str | None:
    """Why not to take the figures for those of the whole run; None if it is complete."""
    if report.complete:
        return None
    measured = len({(each.syscall, each.arm, each.trial) for each in report.trials})
    sentence = f"This run is incomplete: {measured} of {counted(report.planned, 'planned trial')} "
    sentence += "were measured" if report.planned != measured else "and not all that is configured"
    if report.interrupted:
        sentence += f"; it was ended in {report.interrupted}"
    return f"{sentence}."


def blocks_words(report: Report) -> str:
    """How much stands behind the figures."""
    counts = sorted({each.blocks for each in report.overheads})
    if not counts:
        return counted(len(report.trials), "trial")
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{shown} {'block' if counts == [1] else 'blocks'}"


def method_lines(report: Report) -> tuple[str, ...]:
    """The method in five lines."""
    paired = all(each.role != "baseline" for each in report.stored)
    return (
        _COUNTED,
        _BLOCKS if paired else _STORED_BLOCKS,
        _FIGURES,
        _PAIRS if paired else _STORED_PAIRS,
        _VERDICTS,
    )


_COUNTED = (
    "lmbench makes the calls on one pinned core; bpftrace counts every call's latency in the "
    "kernel, exactly and without samples."
)
_BLOCKS = (
    f"A block measures every arm once, {VANILLA} among them, in an order drawn anew for each "
    "block, so that drift hits all arms alike."
)
_STORED_BLOCKS = (
    f"A block measures every agent once, in an order drawn anew; {VANILLA} comes from a stored "
    "run, so drift between the runs is not cancelled."
)
_FIGURES = (
    "p50, p90, p99 and mean are traced: they see what lies between the tracer's two programs. user "
    "is lmbench's own time per operation with no tracer: what a program pays."
)
_PAIRS = (
    "An overhead compares an agent with vanilla of the same block. Intervals are those of paired t "
    "tests, widened so that all of them hold at once."
)
_STORED_PAIRS = (
    "An overhead compares the trials of two runs. Intervals are those of Welch's t test, widened "
    "so that all of them hold at once."
)
_VERDICTS = (
    "Regressed: the whole interval lies above the budget. Passed: the whole interval lies within "
    "it. Inconclusive: neither, so measure more blocks."
)


def _minus(value: float, decimals: int) -> str:
    if abs(value) >= 1e9:
        return f"{value:+.1e}".replace("-", "−", 1)
    return f"{value:+,.{decimals}f}".replace("-", "−")


def _three_digits(value: float) -> str:
    sign = "−" if value < 0 else "+"
    return f"{sign}{_digits(abs(value))}"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    if value >= 1e9:
        return f"{value:.1e}"
    value = float(f"{value:.3g}") if value < 1000 else value
    decimals = max(0, 2 - math.floor(math.log10(value))) if value < 100 else 0
    return f"{value:,.{min(decimals, 3)}f}"
