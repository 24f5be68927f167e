"""The report as one HTML file, without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

from pytest_syslat.agent_cost import ArmCost
from pytest_syslat.attribution import Attribution
from pytest_syslat.gate import WORST_FIRST, Verdict, worst
from pytest_syslat.report import plots
from pytest_syslat.report.meaning import MEANING_BY_CODE, SEVERITY_MEANING
from pytest_syslat.report.model import (
    Curve,
    FindingGroup,
    Overhead,
    Places,
    Report,
    TrialPoint,
)
from pytest_syslat.report.plots import Plot, Words
from pytest_syslat.report.words import (
    ABSENT,
    allowance,
    blocks_words,
    counted,
    distribution_sentence,
    duration_ns,
    headline,
    interval,
    judged_interval,
    limit_pct,
    limit_us,
    listed,
    method_lines,
    microseconds,
    overhead_sentence,
    progress_words,
    short_pct,
    short_us,
    signed_pct,
    signed_us,
    tail_sentence,
)

Item = TypeVar("Item", Overhead, Places, Attribution)

TEMPLATE = "report.html.j2"
SYMBOLS = {
    str(Verdict.INVALID): "!",
    str(Verdict.REGRESSED): "✕",
    str(Verdict.INCONCLUSIVE): "?",
    str(Verdict.PASSED): "✓",
}
DRIFT_FIGURES = ("p50", "user")
QUANTILES = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
KEY_FACTS = (
    *("node", "kernel", "distribution", "architecture", "CPU", "cores online", "measured core"),
    *("SMT", "governor", "turbo off (intel_pstate)", "boost (cpufreq)", "clock source"),
    *("testbed", "bpftrace", "lmbench", "pytest-syslat", "python"),
)
"""What a figure depends on most; all facts follow in full."""


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers as text; the first columns are words, flush left."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    words: int = 1
    """So many columns are words."""


@dataclass(frozen=True, slots=True)
class PlotCard:
    """A picture with what is said of it and its numbers."""

    title: str
    finding: str
    plot: Plot
    table: Table


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the page."""

    id: str
    title: str
    lead: str
    cards: Sequence[PlotCard] = ()
    tables: Sequence[Table] = ()
    """Shown below the pictures."""
    folded: Sequence[Table] = ()
    """The same, to be unfolded."""
    notes: Sequence[str] = field(default=())


def render(report: Report) -> str:
    """Give the page as text; the same report gives the same text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_syslat.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    looks = plots.styles(report.arms)
    verdict = worst(each.verdict for each in report.judged)
    verdicts = _verdict_rows(report)
    return environment.get_template(TEMPLATE).render(
        report=report,
        headline=headline(report),
        verdict=str(verdict) if verdict else "none",
        incomplete=progress_words(report),
        blocks=blocks_words(report),
        level=report.overheads[0].level_pct if report.overheads else None,
        comparisons=[_stored_sentence(each.role, each.path, each.date) for each in report.stored],
        weaknesses=[sentence for each in report.stored for sentence in each.weaknesses],
        matrix=_matrix(report),
        matrix_syscalls=[
            syscall
            for syscall in report.syscalls
            if any(e.syscall == syscall for e in report.judged)
        ],
        symbols=SYMBOLS,
        open_verdicts=[row for row in verdicts if row.verdict != Verdict.PASSED],
        passed=[row for row in verdicts if row.verdict == Verdict.PASSED],
        parts=[
            part
            for part in (
                _overhead_part(report),
                _growth_part(report),
                _distribution_part(report, looks),
                _drift_part(report, looks),
                _place_part(report),
                _cost_part(report),
            )
            if part is not None
        ],
        findings=[_finding(each) for each in report.findings],
        severity_meaning=SEVERITY_MEANING,
        key_facts=[(name, report.system[name]) for name in KEY_FACTS if name in report.system],
        agent_facts=[
            (name, value) for name, value in report.system.items() if name.startswith("agent ")
        ],
        facts=list(report.system.items()),
        method=method_lines(report),
        files=[(quote(each.path), each.path, each.meaning) for each in report.files],
    )


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """A line of the table of verdicts."""

    verdict: str
    what: str
    overhead: str
    interval: str
    budget: str
    why: str


def _verdict_rows(report: Report) -> list[VerdictRow]:
    rows = [
        VerdictRow(
            str(each.verdict),
            f"{each.syscall} · {each.agent} · {each.name}",
            f"{signed_pct(each.delta_pct)} ({signed_us(each.delta_us)})",
            judged_interval(each),
            allowance(each.budget),
            "; ".join(each.reasons),
        )
        for each in report.judged
    ]
    order = list(map(str, WORST_FIRST))
    return sorted(rows, key=lambda row: order.index(row.verdict))


@dataclass(frozen=True, slots=True)
class Chip:
    """A verdict in the overview."""

    verdict: str
    text: str


def _matrix(report: Report) -> list[tuple[str, list[list[Chip]]]]:
    """By agent, and then by syscall, the verdicts on its figures."""
    judged = report.judged
    syscalls = [name for name in report.syscalls if any(each.syscall == name for each in judged)]
    return [
        (
            agent,
            [
                [
                    Chip(str(each.verdict), f"{each.name} {short_pct(each.delta_pct)}")
                    for each in judged
                    if (each.syscall, each.agent) == (syscall, agent)
                ]
                for syscall in syscalls
            ],
        )
        for agent in report.arms
        if any(each.agent == agent for each in judged)
    ]


def _stored_sentence(role: str, path: str, date: str) -> str:
    if role == "baseline":
        return (
            f"Vanilla is that of the stored run {path} of {date}: two runs, so weaker than pairs; "
            "what shifted between them is in the figures and not in the intervals."
        )
    return f"Growth is judged against the stored run {path} of {date}."


def _overhead_part(report: Report) -> Part:
    few = sorted({each.blocks for each in report.overheads})
    notes = []
    if few and few[0] < 5:
        notes.append(
            f"{counted(few[0], 'block')} {'tells' if few[0] == 1 else 'tell'} little: intervals "
            "are wide because the spread is hardly known, not because the agent varies so much."
        )
    if report.family and any(each.verdict for each in report.overheads):
        notes.append(f"{report.family[0].upper()}{report.family[1:]}.")
    lead = (
        "How much slower each syscall is with an agent than without, per cent and µs. The bar is "
        "the interval in which the true overhead should lie; green is what the budget allows."
    )
    if not report.overheads:
        lead = "No overhead was computed."
    return Part(
        "overhead",
        "Overhead",
        lead,
        [
            PlotCard(
                f"{syscall}: overhead by agent",
                overhead_sentence(cells, syscall),
                plots.forest(
                    cells,
                    Words(
                        f"overhead-{number}",
                        f"Overhead on {syscall} by agent and figure",
                        overhead_sentence(cells, syscall),
                    ),
                ),
                _overhead_table(cells, f"Overhead on {syscall}"),
            )
            for number, (syscall, cells) in enumerate(_by_syscall(report.overheads), 1)
        ],
        notes=notes,
    )


def _growth_part(report: Report) -> Part | None:
    if not report.growth:
        return None
    return Part(
        "growth",
        "Growth since the stored run",
        "How far each overhead has grown since the stored run, in per cent of what the call "
        "would take now with the overhead of that run.",
        [
            PlotCard(
                f"{syscall}: growth by agent",
                overhead_sentence(cells, syscall).replace("overhead", "growth"),
                plots.forest(
                    cells,
                    Words(
                        f"growth-{number}",
                        f"Growth of the overhead on {syscall} by agent and figure",
                        overhead_sentence(cells, syscall).replace("overhead", "growth"),
                    ),
                    axis="growth against the stored run, logarithmic",
                ),
                _overhead_table(cells, f"Growth on {syscall}", base="expected"),
            )
            for number, (syscall, cells) in enumerate(_by_syscall(report.growth), 1)
        ],
    )


def _overhead_table(cells: Sequence[Overhead], caption: str, *, base: str = "vanilla") -> Table:
    level = f"{cells[0].level_pct:.4g} %" if cells else "95 %"
    return Table(
        (
            *("agent", "figure", "verdict", base, "agent's", "overhead", "overhead, %"),
            *(f"{level} interval", f"{level} interval, %", "budget", "blocks"),
        ),
        [
            (
                each.agent,
                each.figure,
                str(each.verdict) if each.verdict else ABSENT,
                microseconds(each.vanilla_us),
                microseconds(each.agent_us),
                signed_us(each.delta_us),
                signed_pct(each.delta_pct),
                interval(limit_us(each.low_us), limit_us(each.high_us)),
                interval(limit_pct(each.low_pct), limit_pct(each.high_pct)),
                allowance(each.budget),
                f"{each.blocks}",
            )
            for each in cells
        ],
        caption,
        words=3,
    )


def _distribution_part(report: Report, looks: dict[str, plots.Style]) -> Part:
    whole, slow = [], []
    for number, (syscall, curves) in enumerate(_curves(report), 1):
        table = _quantile_table(curves, syscall)
        words = distribution_sentence(curves, syscall)
        name = Words(f"ecdf-{number}", f"Share of {syscall} calls done within a latency", words)
        whole.append(
            PlotCard(f"{syscall}: all calls", words, plots.ecdf(curves, looks, name), table)
        )
        words = tail_sentence(curves, syscall)
        name = Words(f"tail-{number}", f"Share of {syscall} calls above a latency", words)
        slow.append(
            PlotCard(f"{syscall}: the slow calls", words, plots.tail(curves, looks, name), table)
        )
    cards = [*whole, *slow]
    notes = []
    if report.missing_logs:
        notes.append(
            f"{counted(len(report.missing_logs), 'raw log')} could not be used, so "
            f"{'its' if len(report.missing_logs) == 1 else 'their'} calls are missing here (the "
            f"figures elsewhere are complete): {report.missing_logs[0]}"
            + (
                f", and {len(report.missing_logs) - 1} more."
                if len(report.missing_logs) > 1
                else "."
            )
        )
    lead = (
        "Every traced call of all trials that count, as exact counts. The left edge is the fast "
        "path; a second step is a second kind of call. Verdicts rest on trials, not on this pool: "
        "its p50 is not the mean of the trials' p50 that the tables have."
    )
    if not cards:
        lead = "No distribution can be drawn: no raw log of this run could be read."
    return Part("distributions", "Latency distributions", lead, cards, notes=notes)


def _quantile_table(curves: Sequence[Curve], syscall: str) -> Table:
    return Table(
        (
            "arm",
            *("calls", "trials", "min"),
            *(f"p{100 * quantile:g}" for quantile in QUANTILES),
            "max",
        ),
        [
            (
                each.arm,
                f"{each.distribution.count:,}",
                f"{each.trials}",
                duration_ns(each.distribution.min_ns),
                *(duration_ns(each.distribution.quantile_ns(quantile)) for quantile in QUANTILES),
                duration_ns(each.distribution.max_ns),
            )
            for each in curves
        ],
        f"Latency of {syscall} over all calls",
    )


def _drift_part(report: Report, looks: dict[str, plots.Style]) -> Part | None:
    cards = []
    for figure in DRIFT_FIGURES:
        for number, syscall in enumerate(report.syscalls, 1):
            trials = [each for each in report.trials if each.syscall == syscall]
            medians = plots.medians_us(trials, figure)
            if not medians:
                continue
            words = _drift_sentence(trials, medians, syscall, figure)
            name = Words(f"drift-{figure}-{number}", f"{figure} of {syscall} by trial", words)
            cards.append(
                PlotCard(
                    f"{syscall}: {figure} of each trial",
                    words,
                    plots.drift(trials, figure, looks, name),
                    _trial_table(report, trials, syscall, figure),
                )
            )
    if not cards:
        return None
    return Part(
        "drift",
        "Trial by trial",
        "Each trial against the median of its own arm. Arms that move together show the machine "
        "drifting, which pairs cancel; one arm that moves alone shows the agent changing.",
        cards,
    )


def _drift_sentence(
    trials: Sequence[TrialPoint], medians: dict[str, float], syscall: str, figure: str
) -> str:
    spans = []
    for arm, median in medians.items():
        values = [
            100 * (each.figures_us[figure] / median - 1)
            for each in trials
            if each.arm == arm and each.counts and each.figures_us.get(figure)
        ]
        spans.append(
            f"{arm} {short_pct(min(values))} … {short_pct(max(values))} of {microseconds(median)}"
        )
    refused = sum(not each.counts for each in trials)
    told = f" {counted(refused, 'attempt')} {'does' if refused == 1 else 'do'} not count."
    return f"{figure} of {syscall} by arm: {'; '.join(spans)}.{told if refused else ''}"


def _trial_table(report: Report, trials: Sequence[TrialPoint], syscall: str, figure: str) -> Table:
    values: dict[tuple[int, str], str] = {}
    for each in trials:
        if each.counts:
            values[each.trial, each.arm] = microseconds(each.figures_us.get(figure))
        else:
            values.setdefault((each.trial, each.arm), "refused")
    arms = [arm for arm in report.arms if any(each.arm == arm for each in trials)]
    return Table(
        ("block", *arms),
        [
            (f"{block}", *(values.get((block, arm), ABSENT) for arm in arms))
            for block in sorted({each.trial for each in trials})
        ],
        f"{figure} of {syscall} by block",
        words=0,
    )


def _place_part(report: Report) -> Part:
    cards = []
    for number, (syscall, places) in enumerate(_by_syscall(report.places), 1):
        words = _places_sentence(places, syscall)
        cards.append(
            PlotCard(
                f"{syscall}: where in the call",
                words,
                plots.places(
                    places,
                    Words(f"places-{number}", f"Overhead on {syscall} by place in the call", words),
                ),
                _places_table(places, syscall),
            )
        )
    for number, (syscall, programs) in enumerate(_by_syscall(report.programs), 1):
        words = _programs_sentence(programs, syscall)
        cards.append(
            PlotCard(
                f"{syscall}: which program",
                words,
                plots.programs(
                    programs,
                    Words(f"programs-{number}", f"Time of BPF programs per {syscall} call", words),
                ),
                _programs_table(programs, syscall),
            )
        )
    missing = []
    if not report.places:
        missing.append("To split an overhead into entry, inside and exit: --syslat-placement=both.")
    if not report.programs:
        missing.append("To see which BPF program takes how many ns of a call: --syslat-attribute.")
    impossible = [
        f"{each.syscall} under {each.agent}: {listed(each.impossible)} below 0 by more than the "
        "interval; these parts cannot be trusted, use a quiet machine."
        for each in report.places
        if each.impossible
    ]
    first = []
    if report.overheads_first:
        first = [
            _overhead_table(cells, f"{syscall}, with the tracer before the agent; not judged")
            for syscall, cells in _by_syscall(report.overheads_first)
        ]
    lead = "Not measured in this run."
    if cards:
        lead = (
            "What the agent adds at entry, inside and at exit of a call, from the means with the "
            "tracer after it, before it, and without a tracer; and what its BPF programs take."
        )
    return Part(
        "where", "Where the cost sits", lead, cards, folded=first, notes=[*missing, *impossible]
    )


def _places_sentence(places: Sequence[Places], syscall: str) -> str:
    sentences = []
    unsplit = []
    for each in places:
        parts = [
            f"{name} {short_us(each.parts[name].mean_us)}"
            for name in ("entry", "inside", "exit")
            if name in each.parts
        ]
        if parts:
            sentences.append(f"{each.agent}: {listed(parts)}.")
        else:
            unsplit.append(f"{each.agent} {short_us(each.parts['user'].mean_us)}")
    if unsplit:
        sentences.append(
            f"Untraced: {listed(unsplit)}. Not all of lmbench's operation is traced, so {syscall} "
            "cannot be split into parts."
        )
    return " ".join(sentences)


def _places_table(places: Sequence[Places], syscall: str) -> Table:
    return Table(
        ("agent", "part", "mean overhead", "95 % interval", "blocks"),
        [
            (
                each.agent,
                name,
                signed_us(part.mean_us),
                interval(signed_us(part.low_us), signed_us(part.high_us)),
                f"{each.blocks}",
            )
            for each in places
            for name, part in each.parts.items()
        ],
        f"Overhead of means on {syscall} by place",
        words=2,
    )


def _programs_sentence(programs: Sequence[Attribution], syscall: str) -> str:
    sentences = []
    for each in programs:
        largest = max(each.shares, key=lambda share: share.ns_per_call, default=None)
        if largest is None:
            sentences.append(f"No program was seen during {syscall} under {each.agent}.")
            continue
        whose = largest.program
        if largest.attached_to:
            whose += f" ({largest.owner}, {largest.attached_to[0]})"
        sentences.append(
            f"{each.agent}: the largest share of a call, {largest.ns_per_call:,.0f} ns, is {whose}."
        )
    return " ".join(sentences)


def _programs_table(programs: Sequence[Attribution], syscall: str) -> Table:
    return Table(
        ("agent", "owner", "program", "attached to", "runs per call", "ns per call"),
        [
            (
                each.agent,
                share.owner,
                share.program,
                ", ".join(share.attached_to) or ABSENT,
                ABSENT if share.runs_per_call is None else f"{share.runs_per_call:.2f}",
                f"{share.ns_per_call:,.0f}".replace("-", "−"),
            )
            for each in programs
            for share in each.shares
        ],
        f"BPF programs during {syscall}",
        words=4,
    )


def _cost_part(report: Report) -> Part | None:
    costs = [each for each in report.costs if each.arm in report.agents]
    if not costs:
        return None
    dropped = [each for each in costs if each.dropped]
    lead = (
        "CPU and memory of the agent's own processes while a syscall was measured, and events that "
        "it dropped by its own count: an agent that drops looks fast."
    )
    notes = [
        f"{each.arm} dropped {counted(each.dropped or 0, 'event')} during {each.syscall}."
        for each in dropped
    ]
    return Part(
        "cost", "What the agent itself costs", lead, tables=[_cost_table(costs)], notes=notes
    )


def _cost_table(costs: Sequence[ArmCost]) -> Table:
    def shown(value: float | None, decimals: int) -> str:
        return ABSENT if value is None else f"{value:,.{decimals}f}"

    return Table(
        (
            *("syscall", "agent", "CPU, s per trial", "CPU, % of a core", "peak memory, MB"),
            *("threads on the measured core", "calls per second", "events dropped"),
        ),
        [
            (
                each.syscall,
                each.arm,
                shown(each.cpu_s, 2),
                shown(each.cpu_pct_of_core, 1),
                shown(each.peak_memory_mb, 1),
                shown(each.threads_on_core, 0),
                shown(each.calls_per_s, 0),
                shown(each.dropped, 0),
            )
            for each in costs
        ],
        "Cost of each agent beside latency",
        words=2,
    )


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A line of the table of findings."""

    severity: str
    code: str
    meaning: str
    count: str
    example: str
    trials: str


def _finding(group: FindingGroup) -> FindingRow:
    return FindingRow(
        group.severity,
        group.code,
        MEANING_BY_CODE.get(group.code, ""),
        counted(len(group.trials), "trial"),
        group.example,
        ", ".join(group.trials),
    )


def _curves(report: Report) -> Iterator[tuple[str, list[Curve]]]:
    for syscall in report.syscalls:
        curves = [each for each in report.curves if each.syscall == syscall]
        if curves:
            yield syscall, sorted(curves, key=lambda each: report.arms.index(each.arm))


def _by_syscall(items: Iterable[Item]) -> Iterator[tuple[str, list[Item]]]:
    grouped: dict[str, list[Item]] = {}
    for each in items:
        grouped.setdefault(each.syscall, []).append(each)
    yield from grouped.items()
