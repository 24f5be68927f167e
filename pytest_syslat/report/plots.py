"""The plots of a report: static pictures, drawn by matplotlib for a column of a page.

Each is made for a column of 330 CSS pixels, so that it can be read on a phone of 360, and grows
with its column elsewhere. What differs by colour differs by line style or marker, too.
"""

from __future__ import annotations

import io
import math
import re
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_syslat.attribution import AGENT, OTHER, REMAINDER, TRACER, Attribution, ProgramShare
from pytest_syslat.distribution import Distribution
from pytest_syslat.gate import Verdict
from pytest_syslat.report.model import Curve, Overhead, Places, TrialPoint
from pytest_syslat.report.svg import embed
from pytest_syslat.report.words import duration_ns, short_pct, short_us
from pytest_syslat.settings import VANILLA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 330.0
POINTS: Final = 300
"""At most so many points of a distribution are drawn."""
LONGEST_LABEL = 20
MOST_PROGRAMS = 6
CLIP = 0.75
"""An interval may widen the axis by so much of what points and budgets take, on each side."""
LEAST_RATIO = 0.1
"""The least span of an axis of per cent, as a natural logarithm: about 10 %."""
FULL_VIEW_PCT = 99.9

# The light colours; the page's style sheet has a dark one for each class.
INK, MUTED, GRID, PAPER = "#1b1f24", "#57606a", "#d8dee4", "#fffffe"
ZONE = "#e3efe6"
COLOURS: Final[Mapping[str, str]] = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    ZONE: "zone",
    "#5a6470": "arm0",
    "#0068a8": "arm1",
    "#c44e00": "arm2",
    "#00805c": "arm3",
    "#a83279": "arm4",
    "#6b4fb0": "arm5",
    "#8a6400": "arm6",
    "#1a7f37": "passed",
    "#cf222e": "regressed",
    "#9a6700": "inconclusive",
    "#8250df": "invalid",
    "#57616b": "unjudged",
}
"""Each colour with its class."""
_BY_CLASS = {name: colour for colour, name in COLOURS.items()}
_ARMS = 7
_DASHES: Final[Sequence[Any]] = (
    "-",
    (0, (6, 1.6)),
    (0, (1.2, 1.4)),
    (0, (6, 1.6, 1.2, 1.6)),
    (0, (3, 1.2)),
    (0, (9, 2, 2, 2, 2, 2)),
    (0, (1.2, 3)),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_VERDICT_MARKERS: Final[Mapping[Verdict | None, str]] = {
    Verdict.PASSED: "o",
    Verdict.REGRESSED: "D",
    Verdict.INCONCLUSIVE: "o",
    Verdict.INVALID: "X",
    None: "s",
}
_PCT_TICKS = (
    *(-99.9, -99, -90, -75, -50, -25, -10, -5, -2, -1, 0, 1, 2, 5, 10, 25, 50, 100, 200, 300),
    *(500, 900, 1900, 2900, 4900, 9900, 29900, 99900, 999900),
)
_HATCHES = {AGENT: "", TRACER: "////", OTHER: "....", REMAINDER: "xxxx"}
_PARTS = {
    "user": "untraced (user)",
    "last": "tracer after agent",
    "first": "tracer before agent",
    "entry": "at entry",
    "inside": "inside the call",
    "exit": "at exit",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture for a page."""

    svg: str
    """An element, escaped."""
    notes: tuple[str, ...] = ()
    """What must be said beside it."""


@dataclass(frozen=True, slots=True)
class Words:
    """What names a picture for those who do not see it."""

    id: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm is drawn, the same in all plots of a report."""

    label: str
    colour: str
    dashes: Any
    marker: str


def styles(arms: Sequence[str]) -> dict[str, Style]:
    """Give each arm its looks; vanilla is grey and solid."""
    found: dict[str, Style] = {}
    others = 0
    for arm in arms:
        number = 0
        if arm != VANILLA:
            number = 1 + others % (_ARMS - 1)
            others += 1
        found[arm] = Style(
            _short(arm, [style.label for style in found.values()]),
            _BY_CLASS[f"arm{number}"],
            # With more arms than colours, the second round has the looks of other dashes.
            _DASHES[(number + others // _ARMS) % _ARMS],
            _MARKERS[(number + others // _ARMS) % _ARMS],
        )
    return found


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a distribution, of which each is exact."""

    values_ns: NDArray[np.int64]
    """Latencies in ns that occurred, ascending."""
    within: NDArray[np.float64]
    """For each the share of calls that take at most so long."""
    at_least: NDArray[np.float64]
    """For each the share of calls that take at least so long."""


def thinned(distribution: Distribution) -> Points:
    """Choose at most `POINTS` points of a distribution.

    Half of them are spread evenly over the calls, the other half over the orders of magnitude of
    the calls that are slower: the slowest ones are all there.
    """
    below = np.cumsum(distribution.counts)
    count = int(below[-1])
    if below.size > POINTS:
        half = POINTS // 2
        even = np.searchsorted(below, np.linspace(1, count, half))
        # From the slowest call on, evenly in the logarithm of the rank from above.
        slower = np.searchsorted(below, count - np.geomspace(1, count, half) + 1, side="left")
        chosen = np.unique(np.concatenate([even, slower])).clip(0, below.size - 1)
    else:
        chosen = np.arange(below.size)
    # What is faster than a point counts all calls below it, also those of values left out.
    faster = below[chosen] - distribution.counts[chosen]
    return Points(distribution.values_ns[chosen], below[chosen] / count, (count - faster) / count)


def forest(
    cells: Sequence[Overhead],
    words: Words,
    *,
    axis: str = "overhead against vanilla, logarithmic",
) -> Plot:
    """Draw overheads with their intervals against the budgets, a row a figure.

    The axis is logarithmic in agent / vanilla. It shows all points and budgets; an interval that
    would widen it too much ends in an arrow.
    """
    agents = list(dict.fromkeys(each.agent for each in cells))
    rows: list[str | Overhead] = []
    for agent in agents:
        rows += [agent, *(each for each in cells if each.agent == agent)]
    height = 17.0
    with _figure(WIDTH, 70 + height * len(rows)) as figure:
        axes = _axes(figure, left=50, right=122, top=4, bottom=66)
        low, high = _ratio_limits(cells)
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _rows_alone(axes)
        _percent_ticks(axes, low, high)
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        clipped = 0
        for position, row in enumerate(rows):
            if isinstance(row, str):
                _beside(axes, 0, position, _short(row, ()), x_offset=-50, bold=True)
                continue
            clipped += _forest_row(axes, position, row, low, high)
        axes.set_xlabel(axis, color=MUTED)
        _verdict_legend(figure, cells)
        svg = _svg(figure, words)
    notes = []
    if clipped:
        notes.append(
            f"An arrow: the interval goes on beyond the axis ({clipped} "
            f"{'limit' if clipped == 1 else 'limits'}); all limits are in the table."
        )
    return Plot(svg, tuple(notes))


def _forest_row(axes: Axes, y: int, cell: Overhead, low: float, high: float) -> int:
    """Draw a row; returns how many of its limits lie beyond the axis."""
    colour = _BY_CLASS[str(cell.verdict) if cell.verdict else "unjudged"]
    _beside(axes, 0, y, cell.figure, x_offset=-42)
    if cell.delta_pct is None:
        _beside(axes, 1, y, "not measured", x_offset=6)
    else:
        _beside(axes, 1, y, short_pct(cell.delta_pct), x_offset=56, align="right")
        _beside(axes, 1, y, short_us(cell.delta_us), x_offset=120, align="right")
    if cell.budget_pct is not None:
        budget = math.log1p(cell.budget_pct / 100)
        axes.fill_betweenx([y - 0.42, y + 0.42], low, budget, color=ZONE, linewidth=0, zorder=0)
        axes.plot([budget, budget], [y - 0.42, y + 0.42], color=INK, linewidth=1.8, zorder=2)
    if cell.delta_pct is None:
        return 0
    point = _log_ratio(cell.delta_pct)
    clipped = 0
    if cell.low_pct is not None and cell.high_pct is not None:
        ends = [_log_ratio(cell.low_pct), _log_ratio(cell.high_pct)]
        shown = [max(low, ends[0]), min(high, ends[1])]
        axes.plot(shown, [y, y], color=colour, linewidth=1.8, zorder=3, solid_capstyle="butt")
        for end, limit, marker in ((ends[0], low, "<"), (ends[1], high, ">")):
            if (end < limit) if marker == "<" else (end > limit):
                clipped += 1
                axes.plot([limit], [y], marker, color=colour, markersize=6, clip_on=False, zorder=4)
            else:
                axes.plot([end, end], [y - 0.2, y + 0.2], color=colour, linewidth=1.4, zorder=3)
    hollow = cell.verdict is Verdict.INCONCLUSIVE
    axes.plot(
        [point],
        [y],
        _VERDICT_MARKERS[cell.verdict],
        color=colour,
        markerfacecolor=PAPER if hollow else colour,
        markeredgewidth=1.6,
        markersize=3.5 if cell.verdict is None else 6.5,
        zorder=5,
    )
    return clipped


def _verdict_legend(figure: Figure, cells: Sequence[Overhead]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for verdict in (*Verdict, None):
        if any(each.verdict is verdict for each in cells):
            colour = _BY_CLASS[str(verdict) if verdict else "unjudged"]
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker=_VERDICT_MARKERS[verdict],
                    color=colour,
                    markerfacecolor=PAPER if verdict is Verdict.INCONCLUSIVE else colour,
                    markeredgewidth=1.6,
                    markersize=7 if verdict else 3.5,
                    label=str(verdict) if verdict else "no budget",
                )
            )
    if any(each.budget_pct is not None for each in cells):
        handles.append(
            Line2D([], [], linestyle="none", marker="|", markeredgewidth=1.8, color=INK,
                   markersize=10, label="budget")
        )  # fmt: skip
    _legend(figure, handles, columns=3)


def _log_ratio(pct: float) -> float:
    return math.log1p(pct / 100) if pct > -100 else -math.inf


def _ratio_limits(cells: Sequence[Overhead]) -> tuple[float, float]:
    """The ends of a forest's axis, as natural logarithms of agent / vanilla."""
    core = [0.0]
    core += [_log_ratio(each.delta_pct) for each in cells if each.delta_pct is not None]
    core += [math.log1p(each.budget_pct / 100) for each in cells if each.budget_pct is not None]
    core = [value for value in core if math.isfinite(value)]
    low, high = min(core), max(core)
    reach = CLIP * max(high - low, LEAST_RATIO)
    ends = [
        _log_ratio(limit)
        for each in cells
        for limit in (each.low_pct, each.high_pct)
        if limit is not None
    ]
    margin = 0.06 * max(high - low, LEAST_RATIO)
    return (
        max(low - reach, min([low, *ends])) - margin,
        min(high + reach, max([high, *ends])) + margin,
    )


def _percent_ticks(axes: Axes, low: float, high: float) -> None:
    """Round per cents that are so far from each other that none touches the next."""
    per_point = (high - low) / (axes.get_window_extent().width / axes.figure.dpi * 72)
    chosen = [0.0]
    for step in (1, -1):
        last = 0.0
        for tick in sorted((each for each in _PCT_TICKS if each * step > 0), key=abs):
            letters = (len(_tick_pct(tick)) + len(_tick_pct(last))) / 2
            place, before = math.log1p(tick / 100), math.log1p(last / 100)
            if low <= place <= high and abs(place - before) >= per_point * (7 * letters + 4):
                chosen.append(tick)
                last = tick
    chosen.sort()
    axes.set_xticks(
        [math.log1p(tick / 100) for tick in chosen],
        [_tick_pct(tick) for tick in chosen],
    )
    axes.grid(axis="x", color=GRID, linewidth=0.8)


def ecdf(curves: Sequence[Curve], looks: Mapping[str, Style], words: Words) -> Plot:
    """Draw which share of the calls is done after which time."""
    ends_ns = [each.distribution.quantile_ns(FULL_VIEW_PCT / 100) for each in curves]
    with _figure(WIDTH, 262) as figure:
        axes = _axes(figure, left=47, right=12, top=8, bottom=_below(len(curves)))
        for each in curves:
            points = thinned(each.distribution)
            _step(axes, points.values_ns, 100 * points.within, looks[each.arm])
        # A share of 0 at the smallest value, so that each line begins on the axis.
        axes.set_ylim(0, 100.5)
        begin_ns = min(each.distribution.min_ns for each in curves)
        axes.set_xlim(max(begin_ns, 1) * 0.9, max(ends_ns) * 1.12)
        for level, name in ((50, "p50"), (99, "p99")):
            axes.axhline(level, color=MUTED, linewidth=0.8, zorder=1)
            axes.annotate(
                name, (1, level), xycoords=("axes fraction", "data"), xytext=(-3, -9),
                textcoords="offset points", ha="right", color=MUTED, fontsize=9.5,
            )  # fmt: skip
        axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100"])
        _latency_axis(axes)
        axes.set_ylabel("% of calls done within", labelpad=2)
        _arm_legend(figure, [each.arm for each in curves], looks)
        return Plot(_svg(figure, words))


def tail(curves: Sequence[Curve], looks: Mapping[str, Style], words: Words) -> Plot:
    """Draw which share of the calls takes at least how long, both axes logarithmic."""
    with _figure(WIDTH, 262) as figure:
        axes = _axes(figure, left=66, right=12, top=8, bottom=_below(len(curves)))
        for each in curves:
            points = thinned(each.distribution)
            _step(axes, points.values_ns, points.at_least, looks[each.arm], tail=True)
        axes.set_yscale("log")
        largest = max(each.distribution.count for each in curves)
        decades = math.ceil(math.log10(max(largest, 10)))
        axes.set_ylim(10.0**-decades, 1.4)
        ticks = [10.0**-power for power in range(decades + 1)]
        axes.set_yticks(ticks, ["all", *map(_one_in, range(1, decades + 1))])
        axes.minorticks_off()
        begin_ns = min(each.distribution.min_ns for each in curves)
        axes.set_xlim(
            max(begin_ns, 1) * 0.9, max(each.distribution.max_ns for each in curves) * 1.25
        )
        _latency_axis(axes)
        axes.set_ylabel("calls at least this slow", labelpad=1)
        _arm_legend(figure, [each.arm for each in curves], looks)
        return Plot(_svg(figure, words))


def drift(
    trials: Sequence[TrialPoint], figure_name: str, looks: Mapping[str, Style], words: Words
) -> Plot:
    """Draw a figure of each trial over time, against the median of its arm.

    All arms lie around 0, however far apart they are: what moves all of them is the machine.
    """
    known = [each for each in trials if each.figures_us.get(figure_name)]
    medians = medians_us(known, figure_name)
    known = [each for each in known if each.arm in medians]
    begin_s = min(each.started_at_s for each in known)
    last_s = max(each.started_at_s for each in known)
    # A run of seconds is told in seconds.
    unit_s, unit = (60.0, "minutes") if last_s - begin_s >= 120 else (1.0, "seconds")

    def off_pct(trial: TrialPoint) -> float:
        return 100 * (trial.figures_us[figure_name] / medians[trial.arm] - 1)

    offs = [off_pct(each) for each in known if each.counts]
    high, low = max(2.0, *offs), min(-2.0, *offs)
    margin = 0.06 * (high - low)
    high, low = high + margin, low - margin
    with _figure(WIDTH, 252) as figure:
        axes = _axes(figure, left=48, right=12, top=18, bottom=_below(len(medians)))
        axes.axhline(0, color=MUTED, linewidth=1, zorder=1)
        _block_lines(axes, known, begin_s, unit_s)
        refused = 0
        for arm in medians:
            own = [each for each in known if each.arm == arm]
            counting = [each for each in own if each.counts]
            axes.plot(
                [(each.started_at_s - begin_s) / unit_s for each in counting],
                [off_pct(each) for each in counting],
                linestyle=looks[arm].dashes,
                marker=looks[arm].marker,
                color=looks[arm].colour,
                markersize=4.5,
                linewidth=1.1,
                zorder=3,
            )
            for each in own:
                if not each.counts:
                    refused += 1
                    axes.plot(
                        [(each.started_at_s - begin_s) / unit_s],
                        [max(low, min(high, off_pct(each)))],
                        marker="x", markersize=8, markeredgewidth=2,
                        color=_BY_CLASS["regressed"], zorder=4, linestyle="none",
                    )  # fmt: skip
        axes.set_ylim(low, high)
        span = max((last_s - begin_s) / unit_s, 1e-9)
        axes.set_xlim(-0.03 * span, 1.03 * span)
        axes.yaxis.set_major_formatter(lambda value, _: _tick_pct(value))
        axes.yaxis.set_major_locator(_few_ticks(5))
        axes.xaxis.set_major_locator(_few_ticks(6))
        axes.set_xlabel(f"{unit} since the first trial; blocks are numbered above", color=MUTED)
        _arm_legend(figure, list(medians), looks, markers=True)
        svg = _svg(figure, words)
    notes = ("A red × is a trial that does not count.",) if refused else ()
    return Plot(svg, notes)


def medians_us(trials: Sequence[TrialPoint], figure_name: str) -> dict[str, float]:
    """The median of a figure in each arm, over the trials that count."""
    values: dict[str, list[float]] = {}
    for each in trials:
        if each.counts and each.figures_us.get(figure_name):
            values.setdefault(each.arm, []).append(each.figures_us[figure_name])
    return {arm: statistics.median(of_it) for arm, of_it in values.items()}


def _block_lines(axes: Axes, trials: Sequence[TrialPoint], begin_s: float, unit_s: float) -> None:
    from matplotlib.transforms import blended_transform_factory

    starts: dict[int, float] = {}
    for each in trials:
        starts[each.trial] = min(each.started_at_s, starts.get(each.trial, math.inf))
    blocks = sorted(starts)
    # Half a trial before its first point: a line through the point would hide it.
    steps = np.diff(sorted(each.started_at_s for each in trials))
    before_s = float(np.median(steps)) / 2 if steps.size else 0.0
    stride = math.ceil(len(blocks) / 12)
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for position, block in enumerate(blocks):
        x = (starts[block] - begin_s - (before_s if position else 0)) / unit_s
        if position:
            axes.axvline(x, color=GRID, linewidth=1, zorder=0)
        if position % stride == 0:
            axes.text(
                x, 1.015, str(block), transform=place, ha="left", va="bottom", fontsize=9.5,
                color=MUTED,
            )  # fmt: skip


def places(found: Sequence[Places], words: Words) -> Plot:
    """Draw the overhead of means by placement and by part, a row each, with 95 % intervals."""
    rows: list[str | tuple[str, Any]] = []
    for each in found:
        rows += [each.agent, *each.parts.items()]
    height = 17.0
    shown = [part for each in found for part in each.parts.values()]
    middle = [0.0, *(part.mean_us for part in shown)]
    reach = CLIP * max(max(middle) - min(middle), 1e-3)
    low = max(
        min(middle) - reach, min([*middle, *(p.low_us for p in shown if p.low_us is not None)])
    )
    high = min(
        max(middle) + reach, max([*middle, *(p.high_us for p in shown if p.high_us is not None)])
    )
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin
    clipped = 0
    with _figure(WIDTH, 44 + height * len(rows)) as figure:
        axes = _axes(figure, left=124, right=66, top=6, bottom=38)
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _rows_alone(axes)
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.xaxis.set_major_locator(_few_ticks(4))
        for y, row in enumerate(rows):
            if isinstance(row, str):
                _beside(axes, 0, y, _short(row, ()), x_offset=-122, bold=True)
                continue
            name, part = row
            is_part = name in ("entry", "inside", "exit")
            colour = _BY_CLASS["arm2" if is_part else "arm0"]
            _beside(axes, 0, y, _PARTS[name], x_offset=-114)
            _beside(axes, 1, y, short_us(part.mean_us), x_offset=64, align="right")
            axes.plot([0, part.mean_us], [y, y], color=colour, linewidth=6, alpha=0.35, zorder=2,
                      solid_capstyle="butt")  # fmt: skip
            if part.low_us is not None and part.high_us is not None:
                ends = [max(low, part.low_us), min(high, part.high_us)]
                axes.plot(ends, [y, y], color=colour, linewidth=1.6, zorder=3)
                for end, limit, marker in ((part.low_us, low, "<"), (part.high_us, high, ">")):
                    if (end < limit) if marker == "<" else (end > limit):
                        clipped += 1
                        axes.plot([limit], [y], marker, color=colour, markersize=6,
                                  clip_on=False, zorder=4)  # fmt: skip
            axes.plot([part.mean_us], [y], "s" if is_part else "o", color=colour, markersize=5.5,
                      zorder=5)  # fmt: skip
        axes.set_xlabel("overhead of the mean, µs", color=MUTED)
        svg = _svg(figure, words)
    note = "An arrow: the interval goes on beyond the axis; all limits are in the table."
    return Plot(svg, (note,) if clipped else ())


def programs(found: Sequence[Attribution], words: Words) -> Plot:
    """Draw the time that BPF programs take of a call, the largest first, and what remains."""
    rows: list[str | ProgramShare] = []
    hidden = 0
    for each in found:
        own = [share for share in each.shares if share.owner != REMAINDER]
        rest = [share for share in each.shares if share.owner == REMAINDER]
        hidden += max(0, len(own) - MOST_PROGRAMS)
        rows += [each.agent, *own[:MOST_PROGRAMS], *rest]
    height = 28.0
    lengths = [share.ns_per_call for share in rows if not isinstance(share, str)]
    with _figure(WIDTH, 66 + height * len(rows)) as figure:
        axes = _axes(figure, left=12, right=74, top=4, bottom=58)
        low, high = min(0.0, *lengths), max(0.0, *lengths)
        margin = 0.03 * (high - low or 1)
        axes.set_xlim(low - margin if low < 0 else 0, high + margin)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _rows_alone(axes)
        axes.axvline(0, color=MUTED, linewidth=1, zorder=1)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.xaxis.set_major_locator(_few_ticks(4))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace("-", "−"))
        for y, row in enumerate(rows):
            if isinstance(row, str):
                _beside(axes, 0, y, _short(row, ()), x_offset=0, bold=True)
                continue
            words_of_it = row.attached_to[0] if row.attached_to else row.program
            if len(row.attached_to) > 1:
                words_of_it += f" and {len(row.attached_to) - 1} more"
            _beside(axes, 0, y - 0.26, _middle_cut(words_of_it, 46), x_offset=2)
            axes.barh(
                [y + 0.2], [row.ns_per_call], height=0.32, color=PAPER,
                edgecolor=_BY_CLASS[_OWNER_CLASS.get(row.owner, "arm0")],
                hatch=_HATCHES.get(row.owner, ""), linewidth=1.2, zorder=3,
            )  # fmt: skip
            if row.owner == AGENT:
                axes.barh([y + 0.2], [row.ns_per_call], height=0.32,
                          color=_BY_CLASS[_OWNER_CLASS[AGENT]], zorder=4)  # fmt: skip
            value = f"{row.ns_per_call:,.0f} ns".replace("-", "−")
            _beside(axes, 1, y + 0.2, value, x_offset=72, align="right")
        axes.set_xlabel("ns per call", color=MUTED)
        _owner_legend(figure, [row.owner for row in rows if not isinstance(row, str)])
        svg = _svg(figure, words)
    note = f"{hidden} smaller programs are in the table alone."
    return Plot(svg, (note,) if hidden else ())


_OWNER_CLASS = {AGENT: "arm2", TRACER: "arm1", OTHER: "arm5", REMAINDER: "arm0"}


def _owner_legend(figure: Figure, owners: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=_BY_CLASS[_OWNER_CLASS[owner]] if owner == AGENT else PAPER,
            edgecolor=_BY_CLASS[_OWNER_CLASS[owner]],
            hatch=_HATCHES[owner],
            label="no BPF program" if owner == REMAINDER else owner,
        )
        for owner in _OWNER_CLASS
        if owner in owners
    ]
    _legend(figure, handles, columns=len(handles))


def _step(
    axes: Axes,
    values_ns: NDArray[np.int64],
    shares: NDArray[np.float64],
    style: Style,
    *,
    tail: bool = False,
) -> None:
    x = np.maximum(values_ns, 1)
    if not tail:
        x, shares = np.concatenate([x[:1], x]), np.concatenate([[0.0], shares])
    axes.plot(
        x,
        shares,
        drawstyle="steps-pre" if tail else "steps-post",
        linestyle=style.dashes,
        color=style.colour,
        linewidth=1.8,
        zorder=3,
    )


def _latency_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks(_latency_ticks(low, high))
    axes.xaxis.set_major_formatter(lambda value, _: _round_duration(value))
    axes.minorticks_off()
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.set_xlabel("latency of a call, logarithmic", color=MUTED)


def _latency_ticks(low_ns: float, high_ns: float) -> list[float]:
    """Round latencies within the limits: powers of ten, or also 2 and 5 times those if few."""
    powers = range(math.floor(math.log10(low_ns)), math.ceil(math.log10(high_ns)) + 1)
    every = [
        [
            factor * 10.0**power
            for power in powers
            for factor in factors
            if low_ns <= factor * 10.0**power <= high_ns
        ]
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
    ]
    ticks = next((each for each in every if len(each) >= 3), every[-1])
    stride = math.ceil(len(ticks) / 6)
    return ticks[::stride]


def _tick_pct(value: float) -> str:
    if not value:
        return "0"
    return (
        f"{value:+,.{0 if abs(value) >= 100 else 1}f}".removesuffix(".0").replace("-", "−") + " %"
    )


def _one_in(power: int) -> str:
    """The share 10^-power, such as `1 in 100k`."""
    thousands, rest = divmod(power, 3)
    return f"1 in {10**rest}{('', 'k', 'M', 'G', 'T')[thousands]}"


def _round_duration(value_ns: float) -> str:
    """A latency at a tick, which has no more digits than it needs."""
    number, unit = duration_ns(value_ns).split()
    return f"{float(number.replace(',', '')):g} {unit}"


def _below(arms: int) -> float:
    """Room below a plot, in points: the axis, its name, and a legend of so many arms."""
    return 40 + 15 * math.ceil(arms / _legend_columns(arms))


def _legend_columns(arms: int) -> int:
    return 2 if arms in (2, 4) else 3


def _few_ticks(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10])


def _arm_legend(
    figure: Figure, arms: Sequence[str], looks: Mapping[str, Style], *, markers: bool = False
) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=looks[arm].colour,
            linestyle=looks[arm].dashes,
            marker=looks[arm].marker if markers else None,
            markersize=4.5,
            linewidth=1.8,
            label=looks[arm].label,
        )
        for arm in arms
    ]
    _legend(figure, handles, columns=_legend_columns(len(handles)))


def _legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    # Labels are given apart: matplotlib leaves out those that begin with an underscore.
    figure.legend(
        handles=list(handles),
        labels=[f"\u200b{handle.get_label()}" for handle in handles],
        loc="lower center",
        ncols=max(1, columns),
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        borderaxespad=0.1,
        borderpad=0.1,
        handlelength=2.4,
        columnspacing=1.2,
        handletextpad=0.5,
        labelspacing=0.3,
    )


def _beside(
    axes: Axes,
    side: int,
    y: float,
    text: str,
    *,
    x_offset: float,
    bold: bool = False,
    align: Literal["left", "right"] = "left",
) -> None:
    """Write beside a row, at the left (0) or the right (1) edge of the plot."""
    axes.annotate(
        text,
        (side, y),
        xycoords=("axes fraction", "data"),
        xytext=(x_offset, 0),
        textcoords="offset points",
        va="center",
        ha=align,
        color=INK,
        fontsize=10,
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )


def _rows_alone(axes: Axes) -> None:
    """Rows that are named beside the plot need no axis."""
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)


def _short(label: str, taken: Sequence[str]) -> str:
    """A label that fits a legend and differs from those that are taken."""
    shown = _middle_cut(re.sub(r"\s", " ", label), LONGEST_LABEL)
    if shown not in taken:
        return shown
    number = len(taken) + 1
    return f"{_middle_cut(label, LONGEST_LABEL - 3)} {number}"


def _middle_cut(text: str, most: int) -> str:
    """Without the middle: labels often differ at their ends."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _axes(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with margins in points."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in points, with settings of our own whatever the user's matplotlibrc says."""
    import matplotlib.style
    from matplotlib.figure import Figure

    ours: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "pytest-syslat",
        # A label may hold a dollar sign.
        "text.parse_math": False,
        "font.size": 10.5,
        "axes.labelsize": 10,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.unicode_minus": True,
        "hatch.linewidth": 0.8,
    }
    with warnings.catch_warnings():
        # Of glyphs that the font for measuring lacks; the reader's own font has them or not.
        warnings.simplefilter("ignore")
        with matplotlib.style.context(ours, after_reset=True):
            figure = Figure(figsize=(width / 72, height / 72))
            figure.patch.set_visible(False)
            yield figure


def _svg(figure: Figure, words: Words) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(file, format="svg")
    return embed(file.getvalue().decode(), words.id, words.title, words.description, COLOURS)
