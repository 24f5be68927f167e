"""What is shown while a run measures: two living lines on a terminal, a line a trial elsewhere.

The living lines are written at steps of a trial and between runs of the workload, never by a thread
of their own: while the workload runs, nothing here does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from pytest_syslat.progress import Step
from pytest_syslat.report.screen import Screen, console, encodable, encoding_of
from pytest_syslat.report.table import Amount, shortened_name
from pytest_syslat.settings import VANILLA
from pytest_syslat.sysinfo import frequency_warning

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial

BETWEEN_RUNS_S = 1.0
"""Runs of the workload are told no more often; each step of a trial is told at once."""
SHORTEST_ARM = 8
"""An arm's name is not shortened further."""


class TerminalProgress:
    """Writes past pytest's capturing."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin(
            "terminalreporter"
        )
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._quiet = config.get_verbosity() < 0
        self._panel = (
            Panel(self._reporter)
            if self._reporter is not None and not self._quiet and _can_move(self._reporter)
            else None
        )
        self._calls = 0
        self._blocks: str | None = None
        self._left_s: float | None = None
        self._left_at_s = 0.0

    def preparing(self, what: str) -> None:
        """On a terminal: show what is being put in place."""
        if self._panel is not None:
            from rich.text import Text

            with self._undisturbed():
                self._panel.show(Text(self._panel.text(f"syslat: {what}")))

    def opened(self, facts: Mapping[str, str]) -> None:
        """Write the header."""
        self._blocks = facts["setting trials"]
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
        self._line(f"syslat: {', '.join(words)}")
        self._line(f"syslat: {', '.join(plan)}")
        warning = frequency_warning(facts)
        if warning:
            self._line(f"syslat: warning: {warning}", "yellow")

    def trial_step(self, key: TrialKey, step: Step, number: int, total: int) -> None:
        """On a terminal: show what is being done."""
        panel = self._panel
        if panel is None or (step.run and panel.age_s < BETWEEN_RUNS_S):
            return
        with self._undisturbed():
            panel.show(
                trial_panel(
                    key,
                    step,
                    done=number - 1,
                    total=total,
                    blocks=self._blocks,
                    calls=self._calls + (step.calls or 0),
                    left_s=self._left_now_s(),
                    panel=panel,
                )
            )

    def trial_done(self, trial: Trial, number: int, total: int, left_s: float) -> None:
        """Write the trial's line."""
        self._left_s, self._left_at_s = left_s, time.monotonic()
        self._calls += trial.distribution.count
        if self._panel is None:
            self._line(trial_line(trial, number, total, left_s))
        else:
            # What is left stands in the living lines.
            with self._undisturbed():
                width = self._panel.width
            self._line(fitting_trial_line(trial, number, total, width))

    def paused(self) -> None:
        """Erase the living lines, if there are any."""
        if self._panel is not None and self._panel.is_shown:
            with self._undisturbed():
                self._panel.erase()

    def _left_now_s(self) -> float | None:
        if self._left_s is None:
            return None
        return max(0.0, self._left_s - (time.monotonic() - self._left_at_s))

    def _line(self, line: str, style: str = "") -> None:
        if self._reporter is None or self._quiet:
            return
        self.paused()
        with self._undisturbed():
            if self._reporter._tw.width_of_current_line:
                # Not ensure_newline(): it makes pytest print the file's name again each time.
                self._reporter.write("\n")
            Screen.of(self._reporter).line(line, style)

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Past pytest's capturing, and with Ctrl-C kept for after: half a line cannot be erased."""
        captured: contextlib.AbstractContextManager[None] = (
            self._capture.global_and_fixture_disabled()
            if self._capture is not None
            else contextlib.nullcontext()
        )
        with _signals_kept_for_after(), captured:
            yield


@contextlib.contextmanager
def _signals_kept_for_after() -> Iterator[None]:
    """Let signals that end the run wait for the end of the block.

    A mask of the main thread would not do: the kernel then gives them to another thread, such as
    numpy's, and Python still interrupts the main one.
    """
    came: list[tuple[int, FrameType | None]] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda *signalled: came.append(signalled))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signalled, frame in came:
            before[signal.Signals(signalled)](signalled, frame)


class Panel:
    """The living lines at the end of pytest's output."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._live: Live | None = None
        self._shown_at_s = 0.0

    @property
    def is_shown(self) -> bool:
        """Whether it stands on the terminal now."""
        return self._live is not None

    @property
    def age_s(self) -> float:
        """Seconds since it was written."""
        return time.monotonic() - self._shown_at_s

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._reporter._tw.fullwidth

    def text(self, text: str) -> str:
        """The text as it can be written here."""
        return encodable(text, encoding_of(self._reporter._tw._file))

    def show(self, content: RenderableType) -> None:
        """Write it anew."""
        if self._live is None:
            self._live = self._opened()
            self._live.start()
        self._live.console.width = self.width
        self._live.update(content, refresh=True)
        self._shown_at_s = time.monotonic()

    def erase(self) -> None:
        """Leave the cursor where it stood before."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _opened(self) -> Live:
        from rich.live import Live

        writer = self._reporter._tw
        if writer.width_of_current_line:
            self._reporter.write("\n", flush=True)
        shown = console(writer._file, width=self.width, colour=writer.hasmarkup, live=True)
        return Live(
            console=shown,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def _can_move(reporter: pytest.TerminalReporter) -> bool:
    """Whether lines can be erased where pytest writes to."""
    return bool(reporter.isatty) and os.environ.get("TERM") not in ("dumb", "unknown")


def trial_panel(
    key: TrialKey,
    step: Step,
    *,
    done: int,
    total: int,
    blocks: str | None,
    calls: int,
    left_s: float | None,
    panel: Panel,
) -> RenderableType:
    """Two lines: how far the run is, and what the trial is at."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    told = [f"[{done + 1:>{len(str(total))}}/{total}]"]
    if calls:
        told.append(f"{calls:,} calls")
    if left_s is not None:
        told.append(f"{duration(left_s)} left")
    run = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in told:
        run.add_column(no_wrap=True)
    run.add_column(ratio=1)
    bar = ProgressBar(total=total, completed=done, complete_style="green", style="bright_black")
    run.add_row(*map(Text, told), bar)
    separator = panel.text(" · ")
    block = f"block {key.trial}" + (f"/{blocks}" if blocks else "")
    around = [key.syscall, block, str(step)]
    room = panel.width - len(separator.join(around)) - len(separator)
    arm = panel.text(shortened_name(key.arm, max(SHORTEST_ARM, room)))
    at = Text(separator.join((key.syscall, arm, block, str(step))), no_wrap=True)
    at.truncate(panel.width, overflow="crop")
    return Group(run, at)


def trial_line(trial: Trial, number: int, total: int, left_s: float = 0.0) -> str:
    """What a trial has measured, in one line with all decimals."""
    return _trial_line(trial, number, total, left_s, arm=trial.key.arm, shortened=False)


def fitting_trial_line(trial: Trial, number: int, total: int, width: int) -> str:
    """The same in a line that fits: with fewer digits first, then with a shorter name."""
    line = _trial_line(trial, number, total, 0.0, arm=trial.key.arm, shortened=False)
    if len(line) <= width:
        return line
    arm = trial.key.arm
    line = _trial_line(trial, number, total, 0.0, arm=arm, shortened=True)
    if len(line) > width and not trial.refused:
        arm = shortened_name(arm, max(SHORTEST_ARM, len(arm) - (len(line) - width)))
        line = _trial_line(trial, number, total, 0.0, arm=arm, shortened=True)
    return line


def _trial_line(
    trial: Trial, number: int, total: int, left_s: float, *, arm: str, shortened: bool
) -> str:
    head = (
        f"[{number:>{len(str(total))}}/{total}] {trial.key.syscall:<7} {arm} "
        f"trial {trial.key.trial}"
    )
    if trial.attempt > 1:
        head += " again"
    left = f", {duration(left_s)} left" if left_s else ""
    if trial.refused:
        return f"{head}: REFUSED {trial.reasons[0]}{left}"
    p50, p99, user = (
        Amount(trial.figure_us(figure), 3).shown(shortened=shortened)
        for figure in ("p50", "p99", "user")
    )
    calls = Amount(trial.distribution.count, 0).shown(shortened=shortened)
    figures = (
        f"p50 {p50} p99 {p99} user {user} µs"
        if shortened
        else f"p50 {p50} µs, p99 {p99} µs, user {user} µs"
    )
    return f"{head}: {figures}, {calls} calls{left}"


def duration(seconds: float) -> str:
    """Such as `60 s` or `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _vanilla(facts: Mapping[str, str]) -> str:
    stored = facts["setting baseline"]
    return VANILLA if stored == "None" else f"stored {VANILLA}"
