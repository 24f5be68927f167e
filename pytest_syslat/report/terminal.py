"""What the user sees: a header, a line a trial, and one table at the end."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_syslat.findings import Severity
from pytest_syslat.gate import CellResult, Verdict, family_sentence
from pytest_syslat.report.growth import comparison_lines
from pytest_syslat.report.places import write_attributions, write_confirmation, write_splits
from pytest_syslat.sequential import LOOKS
from pytest_syslat.settings import TRIALS_WHEN_JUDGED as BLOCKS_TO_DECIDE
from pytest_syslat.settings import VANILLA
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.sysinfo import frequency_warning

if TYPE_CHECKING:
    from pytest_syslat.experiment import Experiment
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.session import SyslatSession
    from pytest_syslat.trial import Trial

ABSENT = "-"
COLUMNS = ("syscall", "arm", "p50 µs", "p99 µs", "mean µs", "user µs", "Δp50 µs", "Δp50 %")
LAST_COLUMNS = ("verdict", "calls")
COST_COLUMNS = (
    "syscall",
    "arm",
    "CPU s",
    "% core",
    "peak MB",
    "on core",
    "calls/s",
    "dropped",
)
LONGEST_ARM = 12
"""With it the table of costs fits 80 columns."""
WORST_FIRST = (Verdict.INVALID, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.PASSED)
MARKUP: Mapping[Verdict, Mapping[str, bool]] = {
    Verdict.PASSED: {"green": True},
    Verdict.INCONCLUSIVE: {"yellow": True},
    Verdict.REGRESSED: {"red": True, "bold": True},
    Verdict.INVALID: {"red": True, "bold": True},
}


class TerminalProgress:
    """Writes past pytest's capturing: a running line on a terminal, plain lines elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin(
            "terminalreporter"
        )
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._live = self._reporter is not None and self._reporter.isatty
        self._quiet = config.get_verbosity() < 0

    def opened(self, facts: Mapping[str, str]) -> None:
        """Write the header."""
        words = [
            f"{facts['testbed']} testbed on {facts['node']}",
            f"kernel {facts['kernel']}",
            facts["bpftrace"],
            f"lmbench {facts['lmbench']}",
            f"core {facts['measured core']}",
        ]
        rate = facts["setting rate"]
        trials = f"{facts['setting trials']} trials"
        paced = [] if rate == "None" else [f"{rate} operations a second"]
        plan = [
            f"arms {', '.join(filter(None, (_vanilla(facts), facts['setting agents'])))}",
            trials if facts["setting until"] == "None" else f"up to {trials}, until decided",
            *paced,
            f"seed {facts['setting seed']}",
        ]
        self._lines(f"syslat: {', '.join(words)}", f"syslat: {', '.join(plan)}")
        warning = frequency_warning(facts)
        if warning:
            self._lines(f"syslat: warning: {warning}")

    def trial_step(self, key: TrialKey, step: str, number: int, total: int) -> None:
        """On a terminal: show what is being done."""
        if self._live and self._reporter is not None and not self._quiet:
            with self._uncaptured():
                self._reporter.rewrite(
                    f"[{number:>{len(str(total))}}/{total}] {key.syscall} {key.arm} "
                    f"trial {key.trial}: {step}",
                    erase=True,
                )

    def trial_done(self, trial: Trial, number: int, total: int, left_s: float) -> None:
        """Write the trial's line."""
        if self._quiet:
            return
        head = (
            f"[{number:>{len(str(total))}}/{total}] {trial.key.syscall:<7} {trial.key.arm} "
            f"trial {trial.key.trial}"
        )
        if trial.attempt > 1:
            head += " again"
        if trial.refused:
            figures = f"REFUSED {trial.reasons[0]}"
        else:
            figures = (
                f"p50 {_us(trial.figure_us('p50'))} µs, p99 {_us(trial.figure_us('p99'))} µs, "
                f"user {_us(trial.user_us)} µs, {trial.distribution.count:,} calls"
            )
        left = f", {_duration(left_s)} left" if left_s else ""
        self._lines(f"{head}: {figures}{left}", replaces=True)

    def _lines(self, *lines: str, replaces: bool = False) -> None:
        if self._reporter is None:
            return
        with self._uncaptured():
            if self._live and replaces:
                self._reporter.rewrite(lines[0], erase=True)
                self._reporter.write("\n")
                return
            if self._reporter._tw.width_of_current_line:
                # Not ensure_newline(): it makes pytest print the file's name again each time.
                self._reporter.write("\n")
            for line in lines:
                self._reporter.write(f"{line}\n")

    def _uncaptured(self) -> contextlib.AbstractContextManager[None]:
        if self._capture is None:
            return contextlib.nullcontext()
        disabled: contextlib.AbstractContextManager[None] = (
            self._capture.global_and_fixture_disabled()
        )
        return disabled


def write_summary(reporter: pytest.TerminalReporter, ours: SyslatSession) -> None:
    """Write the table, the verdicts behind it, the warnings and the path of the files."""
    experiment = ours.experiment
    if experiment is not None:
        reporter.write_sep("=", "syslat: latency of syscalls")
        analysis = experiment.analysis
        results = analysis.results()
        if experiment.trials:
            _write_table(reporter, experiment, results)
            _write_costs(reporter, experiment)
            splits = analysis.splits()
            write_splits(reporter, splits)
            if (
                experiment.settings.placement == "both"
                and experiment.settings.agents
                and not splits
            ):
                reporter.write_line(
                    "no overhead is split: no block has both placements proven in both arms",
                    yellow=True,
                )
            write_confirmation(reporter, experiment.confirmation)
            write_attributions(reporter, analysis.attributions())
        _write_verdicts(reporter, results)
        for line, verdict in comparison_lines(experiment.comparison, analysis.growth()):
            reporter.write_line(line, **(MARKUP[verdict] if verdict else {}))
    elif ours.warnings or ours.left_behind or ours.kept:
        reporter.write_sep("=", "syslat")
    of_trials = [*experiment.warnings, *_warnings(experiment)] if experiment else []
    of_report = ours.written.warnings if ours.written else ()
    for line in [*ours.warnings, *of_trials, *of_report]:
        reporter.write_line(f"warning: {line}", yellow=True)
    for line in ours.left_behind:
        reporter.write_line(f"left behind: {line}", red=True)
    if ours.kept:
        reporter.write_line("kept, as asked; to look at it, and to remove it:")
        for line in ours.kept:
            reporter.write_line(f"  {line}")
    if experiment is None:
        return
    if experiment.interrupted:
        key = experiment.interrupted.key
        reporter.write_line(f"{key.id} is refused: {experiment.interrupted.reasons[0]}", red=True)
    if experiment.looked_at:
        reporter.write_line(_looks(experiment))
    if experiment.switches:
        reporter.write_line(_switching(experiment))
    if experiment.repeats:
        counted = ", ".join(f"{arm} {count}" for arm, count in sorted(experiment.repeats.items()))
        reporter.write_line(f"repeated trials: {counted}")
    if ours.directory_note:
        reporter.write_line(ours.directory_note)
    if experiment.record is not None:
        reporter.write_line(f"files: {experiment.record.directory.root}")
    if ours.written is not None and ours.written.page is not None:
        reporter.write_line(f"report: {ours.written.page}")


def _looks(experiment: Experiment) -> str:
    """Where a run that measures until all verdicts stand has ended."""
    looked = ", ".join(map(str, experiment.looked_at))
    measured = max(key.trial for key in experiment.trials)
    if measured > experiment.looked_at[-1]:
        return f"looked after {looked} trials; the run was ended early, in trial {measured}"
    if measured == LOOKS[-1]:
        return f"looked after {looked} trials, which was the last time"
    return f"looked after {looked} trials: all verdicts stand, so no more were measured"


def _vanilla(facts: Mapping[str, str]) -> str:
    stored = facts["setting baseline"]
    return VANILLA if stored == "None" else f"stored {VANILLA}"


def _switching(experiment: Experiment) -> str:
    """How long switching took; it is no part of a trial."""
    taken_s: dict[str, dict[str, list[float]]] = {}
    for each in experiment.switches:
        taken_s.setdefault(each.arm, {}).setdefault(each.state, []).append(each.duration_s)
    arms = (
        f"{arm} "
        + ", ".join(f"{state} {statistics.median(times):.1f} s" for state, times in states.items())
        for arm, states in taken_s.items()
    )
    return f"switching (median), beside the trials: {'; '.join(arms)}"


def _write_verdicts(reporter: pytest.TerminalReporter, results: Sequence[CellResult]) -> None:
    """Write the cells that have not passed and the family; those that lack blocks share a line."""
    too_short = []
    for result in results:
        if result.verdict is Verdict.INCONCLUSIVE and result.blocks < BLOCKS_TO_DECIDE:
            too_short.append(result)
        elif result.verdict not in (None, Verdict.PASSED):
            reporter.write_line(cell_sentence(result), **MARKUP[Verdict(result.verdict)])
    if too_short:
        names = ", ".join(result.cell.id for result in too_short)
        reporter.write_line(
            f"inconclusive, {BLOCKS_TO_DECIDE} blocks are needed to decide (--syslat-trials): "
            f"{names}",
            **MARKUP[Verdict.INCONCLUSIVE],
        )
    if any(
        result.in_family
        and result.verdict not in (None, Verdict.INVALID)
        and result.blocks >= BLOCKS_TO_DECIDE
        for result in results
    ):
        reporter.write_line(family_sentence(results))


def _write_table(
    reporter: pytest.TerminalReporter, experiment: Experiment, results: Sequence[CellResult]
) -> None:
    rows = list(_rows(experiment, results))
    head, *lines = _aligned((*COLUMNS, *LAST_COLUMNS), [row for row, _ in rows])
    reporter.write_line(head, bold=True)
    for line, (_, verdict) in zip(lines, rows, strict=True):
        reporter.write_line(line, **(MARKUP[verdict] if verdict else {}))


def _write_costs(reporter: pytest.TerminalReporter, experiment: Experiment) -> None:
    """Write what the arms themselves cost, where an agent was measured."""
    rows = list(_cost_rows(experiment))
    if all(row[1] == VANILLA for row in rows):
        return
    reporter.write_line("")
    head, *lines = _aligned(COST_COLUMNS, rows)
    reporter.write_line(head, bold=True)
    for line in lines:
        reporter.write_line(line)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: words are flush left, numbers right."""
    widths = [
        max(len(head[index]), *(len(row[index]) for row in rows)) for index in range(len(head))
    ]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 or head[index] == "verdict" else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in (head, *rows)
    ]


def _rows(
    experiment: Experiment, results: Sequence[CellResult]
) -> Iterator[tuple[tuple[str, ...], Verdict | None]]:
    by_cell = {(each.cell.syscall, each.cell.agent, each.cell.figure): each for each in results}
    for syscall in SYSCALLS:
        for arm in experiment.settings.arms:
            trials = [
                trial
                for key, trial in experiment.trials.items()
                if key.syscall == syscall and key.arm == arm
            ]
            if not trials:
                continue
            valid = [trial for trial in trials if not trial.refused]
            delta = by_cell.get((syscall, arm, "p50"))
            verdict = worst_verdict(
                each for each in results if (each.cell.syscall, each.cell.agent) == (syscall, arm)
            )
            if not valid:
                word = "refused"
            elif verdict is not None:
                word = str(verdict)
            else:
                word = ABSENT
            yield (
                (
                    syscall,
                    arm,
                    *(_us(_mean_us(valid, figure)) for figure in ("p50", "p99", "mean", "user")),
                    _signed(delta.delta_us, 3) if delta else ABSENT,
                    _signed(delta.delta_pct, 1) if delta else ABSENT,
                    word,
                    f"{sum(trial.distribution.count for trial in valid):,}",
                ),
                verdict,
            )


def _cost_rows(experiment: Experiment) -> Iterator[tuple[str, ...]]:
    """Means over trials; memory and threads at their worst, drops in sum."""
    for syscall in SYSCALLS:
        for arm in experiment.settings.arms:
            costs = [
                trial.cost
                for key, trial in experiment.trials.items()
                if (key.syscall, key.arm) == (syscall, arm) and trial.cost and not trial.refused
            ]
            if not costs:
                continue
            on_core = [
                len(cost.threads_on_core) for cost in costs if cost.threads_on_core is not None
            ]
            memory_mb = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
            dropped = [cost.dropped for cost in costs if cost.dropped is not None]
            yield (
                syscall,
                arm if len(arm) <= LONGEST_ARM else f"{arm[: LONGEST_ARM - 1]}…",
                _rounded(_mean([cost.cpu_s for cost in costs]), 2),
                _rounded(_mean([cost.cpu_pct_of_core for cost in costs]), 1),
                _rounded(max(memory_mb, default=None), 1),
                _rounded(max(on_core, default=None), 0),
                _rounded(_mean([cost.calls_per_s for cost in costs]), 0),
                _rounded(sum(dropped) if dropped else None, 0),
            )


def worst_verdict(results: Iterable[CellResult]) -> Verdict | None:
    """The verdict that matters most among cells; None if none was judged."""
    found = {result.verdict for result in results}
    return next((verdict for verdict in WORST_FIRST if verdict in found), None)


def cell_sentence(result: CellResult) -> str:
    """A cell's verdict with its figures, in one line."""
    figures = ABSENT
    if result.blocks and not math.isnan(result.delta_us):
        figures = (
            f"{_us(result.vanilla_us)} → {_us(result.agent_us)} µs, "
            f"Δ {_signed(result.delta_us, 3)} µs ({_signed(result.delta_pct, 1)} %)"
        )
        # The interval from a few blocks is so wide that its figures only confuse.
        if result.blocks >= BLOCKS_TO_DECIDE and not math.isnan(result.ci_low_us):
            figures += (
                f", {100 * (1 - result.alpha):.4g} % interval {_signed(result.ci_low_us, 3)} … "
                f"{_signed(result.ci_high_us, 3)} µs "
                f"({_signed(result.ci_low_pct, 1)} … {_signed(result.ci_high_pct, 1)} %)"
            )
    reasons = f": {'; '.join(result.reasons)}" if result.reasons else ""
    return (
        f"{result.cell.id} {result.verdict} (budget {result.budget}, {result.blocks} blocks): "
        f"{figures}{reasons}"
    )


def _warnings(experiment: Experiment) -> list[str]:
    """Warnings of all trials, one line a code, with how many trials it concerns."""
    grouped: dict[str, list[str]] = {}
    for key, trial in sorted(experiment.trials.items()):
        for finding in trial.findings:
            if finding.severity in (Severity.WARNING, Severity.UNDECIDED):
                grouped.setdefault(finding.code, []).append(f"{key.id}: {finding.detail}")
    lines = [
        details[0] + (f" (and {len(details) - 1} more trials)" if len(details) > 1 else "")
        for details in grouped.values()
    ]
    return lines + _count_warnings(experiment)


def _count_warnings(experiment: Experiment) -> list[str]:
    """Arms whose numbers of calls differ more than threefold rest on unlike samples."""
    lines = []
    for syscall in SYSCALLS:
        counts: dict[str, int] = {}
        for key, trial in experiment.trials.items():
            if key.syscall == syscall and not trial.refused:
                counts[key.arm] = counts.get(key.arm, 0) + trial.distribution.count
        if counts and max(counts.values()) > 3 * min(counts.values()):
            shown = ", ".join(f"{arm} {count:,}" for arm, count in counts.items())
            lines.append(f"{syscall}: numbers of calls differ more than threefold: {shown}")
    return lines


def _mean_us(trials: Sequence[Trial], figure: str) -> float | None:
    return _mean([trial.figure_us(figure) for trial in trials])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rounded(value: float | None, decimals: int) -> str:
    return ABSENT if value is None else f"{value:,.{decimals}f}"


def _us(value: float | None) -> str:
    return ABSENT if value is None or math.isnan(value) else f"{value:.3f}"


def _signed(value: float, decimals: int) -> str:
    return ABSENT if math.isnan(value) else f"{value:+.{decimals}f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
