"""Which time counts for the runs of a trial: an agent's drops are set beside the calls in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_syslat import trial as trial_module
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.plan import TrialKey
from pytest_syslat.syscalls import OPENAT
from pytest_syslat.trial import _TrialRun
from pytest_syslat.workload import Run


class Clock:
    """Goes on only when something takes its time."""

    now_s = 100.0

    def takes(self, seconds: float) -> None:
        self.now_s += seconds


def test_writing_lines_of_progress_is_no_time_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes 2 s, each line on a slow terminal 30 s."""
    clock = Clock()
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))

    def run(_syscall: object) -> Run:
        clock.takes(2.0)
        return Run(1.0, None)

    bench: Any = SimpleNamespace(
        workload=SimpleNamespace(run=run), settings=SimpleNamespace(lmbench_reps=5)
    )
    vanilla: Any = Vanilla
    key = TrialKey("openat", "vanilla", 1)
    trial = _TrialRun(
        bench, OPENAT, key, vanilla(None, None), lambda *_, **__: clock.takes(30.0), None
    )
    trial._run_untraced()
    trial._run_often(3, None)
    assert (len(trial.runs_untraced), trial._untraced_s) == (5, 10.0)
    assert (len(trial.runs_traced), trial._traced_s) == (3, 6.0)
