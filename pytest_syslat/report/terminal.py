"""What stands at the end of a run: the tables, the verdicts, the warnings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_syslat.agent_cost import ArmCost
from pytest_syslat.findings import Severity
from pytest_syslat.gate import CellResult, Verdict, family_sentence, worst
from pytest_syslat.report.growth import comparison_lines
from pytest_syslat.report.places import write_attributions, write_confirmation, write_splits
from pytest_syslat.report.screen import Screen
from pytest_syslat.report.table import ABSENT, NAME_ENOUGH, Amount, Column, Row, write_table
from pytest_syslat.sequential import LOOKS
from pytest_syslat.settings import TRIALS_WHEN_JUDGED as BLOCKS_TO_DECIDE
from pytest_syslat.settings import VANILLA

if TYPE_CHECKING:
    from pytest_syslat.experiment import Experiment
    from pytest_syslat.pairing import AnyTrial
    from pytest_syslat.session import SyslatSession
    from pytest_syslat.stored import StoredRun

STORED_VANILLA = f"{VANILLA} (stored)"
COLUMNS = (
    Column("syscall", words=True),
    Column("arm", words=True, enough=NAME_ENOUGH),
    *map(Column, ("p50 µs", "p99 µs", "mean µs", "user µs", "Δp50 µs", "Δp50 %")),
    Column("verdict", words=True),
    Column("calls"),
)
COST_COLUMNS = (
    *COLUMNS[:2],
    *map(Column, ("CPU s", "% core", "peak MB", "on core", "calls/s", "dropped")),
)
INTERVAL_COLUMNS = (
    *COLUMNS[:2],
    Column("figure", words=True),
    *map(Column, ("Δ µs", "from µs", "to µs", "Δ %", "MDE µs", "budget")),
    Column("verdict", words=True),
)
STYLES: Mapping[Verdict, str] = {
    Verdict.PASSED: "green",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.REGRESSED: "bold red",
    Verdict.INVALID: "bold red",
}


def write_summary(reporter: pytest.TerminalReporter, ours: SyslatSession) -> None:
    """Write the table, the verdicts behind it, the warnings and the path of the files.

    `-q` leaves out all that is beside the table, `-qq` all but the verdicts and what was left
    behind; `-v` adds intervals and reasons, `-vv` all cells and findings.
    """
    Summary(Screen.of(reporter), ours, reporter.config.get_verbosity()).write(reporter)


class Summary:
    """Our section at the end of the run."""

    def __init__(self, screen: Screen, ours: SyslatSession, verbosity: int) -> None:
        self._screen = screen
        self._ours = ours
        self._verbosity = verbosity

    def write(self, reporter: pytest.TerminalReporter) -> None:
        """Write all that the verbosity asks for."""
        ours, line = self._ours, self._screen.line
        experiment, at_least = ours.experiment, self._verbosity.__ge__
        if at_least(-1) and experiment is not None:
            reporter.write_sep("=", "syslat: latency of syscalls")
        elif at_least(-1) and (ours.warnings or ours.left_behind or ours.kept):
            reporter.write_sep("=", "syslat")
        if experiment is not None:
            self._write_figures(experiment)
        if at_least(-1):
            of_trials = [*experiment.warnings, *_warnings(experiment)] if experiment else []
            of_report = ours.written.warnings if ours.written else ()
            for each in [*ours.warnings, *of_trials, *of_report]:
                line(f"warning: {each}", "yellow")
        if experiment is not None and at_least(2):
            self._write_findings(experiment)
        for each in ours.left_behind:
            line(f"left behind: {each}", "red")
        if ours.kept:
            line("kept, as asked; to look at it, and to remove it:")
            for each in ours.kept:
                line(f"  {each}")
        if experiment is None or not at_least(-1):
            return
        if experiment.interrupted:
            key = experiment.interrupted.key
            line(f"{key.id} is refused: {experiment.interrupted.reasons[0]}", "red")
        if at_least(0):
            self._write_course(experiment)
        if ours.directory_note:
            line(ours.directory_note)
        if experiment.record is not None:
            line(f"files: {experiment.record.directory.root}")
        if ours.written is not None and ours.written.page is not None:
            line(f"report: {ours.written.page}")

    def _write_figures(self, experiment: Experiment) -> None:
        screen, verbosity = self._screen, self._verbosity
        results = experiment.analysis.results()
        if experiment.trials and verbosity >= -1:
            _write_table(screen, experiment, results)
        if experiment.trials and verbosity >= 0:
            _write_costs(screen, experiment)
            self._write_places(experiment)
        if verbosity >= 1:
            _write_intervals(screen, results, every_cell=verbosity >= 2)
        _write_verdicts(screen, results, verbosity)
        growth = experiment.analysis.growth()
        for told, verdict in comparison_lines(experiment.comparison, growth):
            if verdict or verbosity >= -1:
                screen.line(told, STYLES[verdict] if verdict else "")

    def _write_places(self, experiment: Experiment) -> None:
        splits = experiment.analysis.splits()
        write_splits(self._screen, splits)
        settings = experiment.settings
        if settings.placement == "both" and settings.agents and not splits:
            self._screen.line(
                "no overhead is split: no block has both placements proven in both arms", "yellow"
            )
        write_confirmation(self._screen, experiment.confirmation)
        write_attributions(
            self._screen, experiment.analysis.attributions(), every_program=self._verbosity >= 2
        )

    def _write_findings(self, experiment: Experiment) -> None:
        """Write each finding of each trial, also of those that were repeated."""
        told = [
            (trial.key.id + (" again" if trial.attempt > 1 else ""), finding)
            for trial in [*experiment.replaced, *experiment.trials.values()]
            for finding in trial.findings
        ]
        self._screen.line(f"findings of all trials: {len(told)}")
        for name, finding in told:
            style = "red" if finding.severity is Severity.INVALID else ""
            self._screen.line(f"  {name} {finding.severity} {finding}", style)

    def _write_course(self, experiment: Experiment) -> None:
        """Write how the run went: looks, switching, repeats."""
        if experiment.looked_at:
            self._screen.line(_looks(experiment))
        if experiment.switches:
            self._screen.line(_switching(experiment))
        if experiment.repeats:
            counted = ", ".join(
                f"{arm} {count}" for arm, count in sorted(experiment.repeats.items())
            )
            self._screen.line(f"repeated trials: {counted}")


def _looks(experiment: Experiment) -> str:
    """Where a run that measures until all verdicts stand has ended."""
    looked = ", ".join(map(str, experiment.looked_at))
    if experiment.decided_after is not None:
        return f"looked after {looked} trials: all verdicts stand, so no more were measured"
    if experiment.looked_at[-1] == LOOKS[-1]:
        return f"looked after {looked} trials, which was the last time"
    keys = [*experiment.trials, *(each.key for each in (experiment.interrupted,) if each)]
    begun = max(key.trial for key in keys)
    return f"looked after {looked} trials; the run was ended early, in trial {begun}"


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


def _write_verdicts(screen: Screen, results: Sequence[CellResult], verbosity: int) -> None:
    """Write the cells that have not passed and the family; those that lack blocks share a line.

    With `-qq` a line a judged cell, with `-v` a line each that has not passed.
    """
    too_short = []
    for result in results:
        verdict = result.verdict
        if verdict is None or (verdict is Verdict.PASSED and verbosity >= -1):
            continue
        lacks_blocks = verdict is Verdict.INCONCLUSIVE and result.blocks < BLOCKS_TO_DECIDE
        if lacks_blocks and -1 <= verbosity <= 0:
            too_short.append(result)
        else:
            screen.line(cell_sentence(result), STYLES[verdict])
    if too_short:
        names = ", ".join(result.cell.id for result in too_short)
        screen.line(
            f"inconclusive, {BLOCKS_TO_DECIDE} blocks are needed to decide (--syslat-trials): "
            f"{names}",
            STYLES[Verdict.INCONCLUSIVE],
        )
    if verbosity >= -1 and any(
        result.in_family
        and result.verdict not in (None, Verdict.INVALID)
        and result.blocks >= BLOCKS_TO_DECIDE
        for result in results
    ):
        screen.line(family_sentence(results))


def _write_table(screen: Screen, experiment: Experiment, results: Sequence[CellResult]) -> None:
    write_table(screen, COLUMNS, list(_rows(experiment, results)))


def _write_costs(screen: Screen, experiment: Experiment) -> None:
    """Write what the arms themselves cost, where an agent was measured."""
    rows = list(_cost_rows(experiment))
    if all(row.values[1] == VANILLA for row in rows):
        return
    screen.line()
    write_table(screen, COST_COLUMNS, rows)


def _write_intervals(screen: Screen, results: Sequence[CellResult], *, every_cell: bool) -> None:
    """Write the interval of each cell that is judged, or of every one."""
    shown = [each for each in results if every_cell or each.verdict is not None]
    shown = [each for each in shown if each.blocks > 1]
    if not shown:
        return
    screen.line()
    screen.line(f"overheads with {100 * (1 - shown[0].alpha):.4g} % intervals")
    write_table(
        screen,
        INTERVAL_COLUMNS,
        [
            Row(
                (
                    each.cell.syscall,
                    each.cell.agent,
                    each.cell.figure,
                    *(
                        Amount(value, 3, signed=True)
                        for value in (each.delta_us, each.ci_low_us, each.ci_high_us)
                    ),
                    Amount(each.delta_pct, 1, signed=True),
                    Amount(each.mde_us, 3),
                    str(each.budget).partition("<=")[2] if each.budget else ABSENT,
                    str(each.verdict or ABSENT),
                ),
                STYLES[each.verdict] if each.verdict else "",
            )
            for each in shown
        ],
    )


def _rows(experiment: Experiment, results: Sequence[CellResult]) -> Iterator[Row]:
    by_cell = {(each.cell.syscall, each.cell.agent, each.cell.figure): each for each in results}
    for syscall in experiment.settings.syscall_names:
        measured = [trial for key, trial in experiment.trials.items() if key.syscall == syscall]
        if measured and experiment.comparison.baseline is not None:
            yield _stored_row(syscall, experiment.comparison.baseline.stored)
        for arm in experiment.settings.arms:
            trials = [trial for trial in measured if trial.key.arm == arm]
            if not trials:
                continue
            valid = [trial for trial in trials if not trial.refused]
            delta = by_cell.get((syscall, arm, "p50"))
            verdict = worst(
                each.verdict
                for each in results
                if (each.cell.syscall, each.cell.agent) == (syscall, arm)
            )
            if not valid:
                word = "refused"
            elif verdict is not None:
                word = str(verdict)
            else:
                word = ABSENT
            yield Row(
                (
                    syscall,
                    arm,
                    *_means(valid),
                    Amount(delta.delta_us if delta else None, 3, signed=True),
                    Amount(delta.delta_pct if delta else None, 1, signed=True),
                    word,
                    Amount(sum(trial.distribution.count for trial in valid), 0),
                ),
                STYLES[verdict] if verdict else "",
            )


def _stored_row(syscall: str, stored: StoredRun) -> Row:
    """What the agents are compared with, where vanilla was not measured in this run."""
    means = _means(stored.arm(syscall, VANILLA))
    return Row((syscall, STORED_VANILLA, *means, ABSENT, ABSENT, ABSENT, ABSENT))


def _means(trials: Sequence[AnyTrial]) -> list[Amount]:
    return [
        Amount(_mean([trial.figure_us(figure) for trial in trials]), 3)
        for figure in ("p50", "p99", "mean", "user")
    ]


def _cost_rows(experiment: Experiment) -> Iterator[Row]:
    """What each arm itself costs, of those of which something is known."""
    for syscall in experiment.settings.syscall_names:
        for arm in experiment.settings.arms:
            costs = [
                trial.cost
                for key, trial in experiment.trials.items()
                if (key.syscall, key.arm) == (syscall, arm) and trial.cost and not trial.refused
            ]
            if not costs:
                continue
            cost = ArmCost.of(syscall, arm, costs)
            yield Row(
                (
                    syscall,
                    arm,
                    Amount(cost.cpu_s, 2),
                    Amount(cost.cpu_pct_of_core, 1),
                    Amount(cost.peak_memory_mb, 1),
                    Amount(cost.threads_on_core, 0),
                    Amount(cost.calls_per_s, 0),
                    Amount(cost.dropped, 0),
                )
            )


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
    lines = [details[0] + _and_more(len(details) - 1) for details in grouped.values()]
    return lines + _count_warnings(experiment)


def _and_more(trials: int) -> str:
    if not trials:
        return ""
    return f" (and {trials} more trial{'s' if trials > 1 else ''})"


def _count_warnings(experiment: Experiment) -> list[str]:
    """Arms whose numbers of calls differ more than threefold rest on unlike samples."""
    lines = []
    for syscall in experiment.settings.syscall_names:
        counts: dict[str, int] = {}
        for key, trial in experiment.trials.items():
            if key.syscall == syscall and not trial.refused:
                counts[key.arm] = counts.get(key.arm, 0) + trial.distribution.count
        if counts and max(counts.values()) > 3 * min(counts.values()):
            shown = ", ".join(f"{arm} {count:,}" for arm, count in counts.items())
            lines.append(f"{syscall}: numbers of calls differ more than threefold: {shown}")
    return lines


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _us(value: float | None) -> str:
    return ABSENT if value is None or math.isnan(value) else f"{value:.3f}"


def _signed(value: float, decimals: int) -> str:
    return ABSENT if math.isnan(value) else f"{value:+.{decimals}f}"
