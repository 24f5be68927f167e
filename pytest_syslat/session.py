"""What the plugin keeps for a pytest session: settings, and the experiment once items are known."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_syslat.settings import (
    VANILLA,
    Settings,
    check_result_dir,
    check_stored_runs,
    read_settings,
)

if TYPE_CHECKING:
    from pytest_syslat.agents.catalogue import Catalogue
    from pytest_syslat.agents.protocol import AgentFactory
    from pytest_syslat.comparison import Comparison
    from pytest_syslat.experiment import Experiment
    from pytest_syslat.gate import Cell
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.report.written import Written
    from pytest_syslat.rig import Rig
    from pytest_syslat.testbeds.protocol import Testbed

Made = TypeVar("Made")

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def find_agents(config: pytest.Config) -> Catalogue:
    """All agents that exist: ours, described ones, and those of `pytest_syslat_agents` hooks."""
    from pytest_syslat.agents.catalogue import Catalogue

    hooked: dict[str, AgentFactory] = {}
    for added in config.hook.pytest_syslat_agents(config=config):
        hooked.update(added or {})
    if VANILLA in hooked:
        raise pytest.UsageError(
            f"pytest_syslat_agents: {VANILLA!r} is the name of the baseline: choose another name"
        )
    return Catalogue(config.rootpath, config.invocation_params.dir, hooked)


class SyslatSession:
    """State of one pytest session; made when the first test of ours is collected."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the settings; raises pytest.UsageError."""
        self.config = config
        self.factories: dict[str, AgentFactory] = {}
        self.silent_policies: dict[tuple[str, str], str] = {}
        """What is to be said of arms and syscalls that an arm's policy does not name."""
        self.settings: Settings = read_settings(config, self._find_arms)
        check_result_dir(self.settings)
        check_stored_runs(config, self.settings)
        self.comparison = _open_comparison(self.settings)
        self.trials: list[TrialKey] = []
        self.cells: list[Cell] = []
        self.trial_nodeids: set[str] = set()
        self.all_skipped = False
        """Whether marks have every test of ours skipped."""
        self.experiment: Experiment | None = None
        self.rig: Rig | None = None
        self.warnings: list[str] = []
        self.left_behind: list[str] = []
        self.kept: list[str] = []
        self.directory_note: str | None = None
        self.written: Written | None = None
        """What came of the reports, once the run is over."""

    def _find_arms(self, settings: Settings) -> list[str]:
        from pytest_syslat.agents.catalogue import UnknownAgent
        from pytest_syslat.agents.description import DescriptionError
        from pytest_syslat.agents.policy_words import silent_policies
        from pytest_syslat.testbeds.choice import chosen_testbed
        from pytest_syslat.testbeds.protocol import TestbedError

        try:
            place = chosen_testbed(settings)
        except TestbedError as error:
            raise pytest.UsageError(str(error)) from None
        catalogue, option = find_agents(self.config), "--syslat-chart"
        try:
            catalogue.check_charts(settings)
            option = "--syslat-agent"
            self.factories = catalogue.arms(settings.agents, settings, place)
            self.silent_policies = silent_policies(catalogue.policies(place), settings.syscalls)
        except UnknownAgent as error:
            raise pytest.UsageError(f"{option}: {error}") from None
        except DescriptionError as error:
            raise pytest.UsageError(str(error)) from None
        return list(self.factories)

    def plan(self, items: list[pytest.Item]) -> None:
        """Compute the plan from the selected items and bring them into its order."""
        from pytest_syslat.benchmark_adapter import mark
        from pytest_syslat.plan import build_plan
        from pytest_syslat.selection import arrange, requested, split

        # Whoever has a test skipped, such as by --benchmark-skip, wants nothing measured for it.
        wanted = [item for item in items if item.get_closest_marker("skip") is None]
        self.all_skipped = bool(items) and not any(map(requested, wanted))
        self.trials, self.cells = split(wanted)
        mark(wanted)
        self.measuring_plan = build_plan(
            trials=self.trials,
            judged={(cell.syscall, cell.agent) for cell in self.cells},
            syscalls=self.settings.syscall_names,
            arms=self.settings.arms,
            blocks=self.settings.trials,
            seed=self.settings.seed,
        )
        if not self.config.option.collectonly:
            self._check_stored_runs()
        arrange(items, self.measuring_plan)
        self.trial_nodeids = {item.nodeid for item in items if requested(item) in set(self.trials)}

    def _check_stored_runs(self) -> None:
        """Refuse what the stored runs cannot answer, before anything is measured."""
        from pytest_syslat.stored import StoredProblem
        from pytest_syslat.unpaired import GrowthCell

        growth = [cell for cell in self.cells if isinstance(cell, GrowthCell)]
        try:
            self.comparison.check_plan(self.measuring_plan.order, growth)
        except StoredProblem as problem:
            raise pytest.UsageError(str(problem)) from None

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """The experiment is in place within and removed after; raises pytest.UsageError."""
        try:
            with self._in_place(self._open_experiment) as self.experiment:
                yield
        finally:
            self._write_reports()

    def _write_reports(self) -> None:
        """Draw the reports of what was measured, once all files are there and all is removed."""
        if self.experiment is None or self.experiment.record is None:
            return
        from pytest_syslat.report.written import write_after_run

        self.written = write_after_run(self.experiment.record.directory.root)

    @contextlib.contextmanager
    def provisioned(self) -> Iterator[Rig]:
        """A rig alone, for tests that measure by themselves; raises pytest.UsageError."""
        with self._in_place(self._open_rig) as self.rig:
            yield self.rig

    @contextlib.contextmanager
    def _in_place(self, make: Callable[[contextlib.ExitStack], Made]) -> Iterator[Made]:
        """Everything in place within, everything removed after."""
        from pytest_syslat.agents.protocol import AgentError
        from pytest_syslat.results import DirectoryProblem
        from pytest_syslat.stored import StoredProblem
        from pytest_syslat.testbeds.protocol import TestbedError
        from pytest_syslat.tools import ToolMissing
        from pytest_syslat.tracer import TracerError
        from pytest_syslat.workload import WorkloadError

        with _ended_like_ctrl_c(), contextlib.ExitStack() as cleanup:
            try:
                made = make(cleanup)
            except (TestbedError, ToolMissing, WorkloadError, TracerError, AgentError) as error:
                problem = str(error)
            except StoredProblem as error:
                problem = str(error)
            except DirectoryProblem as error:
                problem = f"--syslat-result-dir: {error}"
            else:
                yield made
                return
            # Removed before it is told, so that what could not be removed is told with it.
            cleanup.close()
            raise pytest.UsageError("; left behind: ".join([problem, *self.left_behind]))

    def _open_rig(self, cleanup: contextlib.ExitStack) -> Rig:
        from pytest_syslat.rig import Rig

        rig = Rig(self._open_testbed(cleanup), self.settings, self.config.rootpath)
        cleanup.callback(self._close, rig.close)
        self.rig = rig
        return rig

    def _open_testbed(self, cleanup: contextlib.ExitStack) -> Testbed:
        from pytest_syslat.testbeds.choice import open_testbed

        return open_testbed(
            self.settings,
            self.config.rootpath,
            warn=self.warnings,
            keep_note=self.kept,
            register=lambda close: cleanup.callback(self._close, close),
        )

    def _open_experiment(self, cleanup: contextlib.ExitStack) -> Experiment:
        from pytest_syslat.agents.vanilla import Vanilla
        from pytest_syslat.benchmark_adapter import comparison_warnings
        from pytest_syslat.experiment import Experiment
        from pytest_syslat.report.progress import TerminalProgress

        progress = TerminalProgress(self.config)
        cleanup.callback(progress.paused)
        progress.preparing("preparing the testbed")
        rig = self._open_rig(cleanup)
        measured = {key.arm for key in self.measuring_plan.order}
        experiment = Experiment(
            settings=self.settings,
            plan=self.measuring_plan,
            selected=self.trials,
            judged=self.cells,
            factories={
                VANILLA: Vanilla,
                **{name: self.factories[name] for name in self.settings.agents if name in measured},
            },
            rig=rig,
            claim_directory=self._claim_directory,
            progress=progress,
            comparison=self.comparison,
            silent_policies=self.silent_policies,
        )
        cleanup.callback(self._close, experiment.close)
        experiment.open()
        self.warnings += comparison_warnings(self.config, experiment.facts)
        return experiment

    def _close(self, close: Callable[[], list[str]]) -> None:
        with _undisturbed():
            self.left_behind += close()

    def _claim_directory(self) -> Path:
        """Prepare the directory to write into; raises DirectoryProblem."""
        from pytest_syslat.results import claim

        wanted = self.settings.result_dir
        directory = claim(wanted, partial=not self.measuring_plan.complete)
        if directory != wanted:
            self.directory_note = (
                f"{wanted} holds a complete run and is left as it is; "
                f"this partial run went to {directory}"
            )
        return directory


def _open_comparison(settings: Settings) -> Comparison:
    """Read the stored runs that the settings name; raises pytest.UsageError."""
    from pytest_syslat.comparison import Comparison
    from pytest_syslat.stored import StoredProblem

    try:
        return Comparison(settings)
    except StoredProblem as problem:
        raise pytest.UsageError(str(problem)) from None


def clean(config: pytest.Config) -> None:
    """Remove what earlier runs left, and say what; raises pytest.UsageError."""
    from pytest_syslat.testbeds.choice import clean as clean_testbed
    from pytest_syslat.testbeds.protocol import TestbedError

    try:
        place, removed = clean_testbed(read_settings(config, None))
    except TestbedError as error:
        raise pytest.UsageError(str(error)) from error
    for each in removed:
        print(f"syslat: removed {each}")
    print(f"syslat: nothing is left of earlier runs on {place}")


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let a cancelled job or a closed terminal end the session in order, too."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    # Under nohup SIGHUP is ignored, and stays so.
    before = {
        number: signal.signal(number, interrupt)
        for number in ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no signal cut the cleanup: each of its steps has a time limit of its own."""
    numbers = (signal.SIGINT, *ENDING_SIGNALS)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
