"""The fixtures that a benchmark uses.

`pytest --fixtures` shows a docstring up to its first empty line: so examples stand above it, and
each runs as it is when it is pasted into a file below `benchmarks`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from pytest_syslat.benchmark_adapter import Row
    from pytest_syslat.experiment import Experiment
    from pytest_syslat.gate import Cell, CellResult
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.rig import Rig
    from pytest_syslat.tcp_server import TcpServer
    from pytest_syslat.testbeds.protocol import Testbed
    from pytest_syslat.tracer import Tracer
    from pytest_syslat.trial import Trial
    from pytest_syslat.unpaired import GrowthCell, GrowthResult
    from pytest_syslat.workload import Workload

Part = TypeVar("Part")


@pytest.fixture
def syslat_trial() -> TrialKey:
    """A test that asks for it becomes one test for each trial: syscall, arm and number.
    For example:
        def test_latency(measure, syslat_trial):
            trial = measure(syslat_trial)
            assert trial.figure_us("p50") < 1000, syslat_trial.id
    """
    raise _not_parametrized("syslat_trial")


@pytest.fixture
def syslat_cell() -> Cell:
    """A test that asks for it becomes one test for each syscall, agent and figure with a budget.
    For example, with --agent and --syslat-budget:
        def test_overhead(judge, syslat_cell):
            assert judge(syslat_cell).blocks > 0, syslat_cell.id
    """
    raise _not_parametrized("syslat_cell")


@pytest.fixture
def syslat_growth() -> GrowthCell:
    """A test that asks for it becomes one for each syscall, agent and figure with a growth budget.
    For example, with --agent, --syslat-against and --syslat-growth-budget:
        def test_growth(judge_growth, syslat_growth):
            assert judge_growth(syslat_growth).blocks_now > 0, syslat_growth.id
    """
    raise _not_parametrized("syslat_growth")


def _not_parametrized(name: str) -> BaseException:
    """For who asks for a parameter at run time, by `request.getfixturevalue`."""
    return pytest.fail.Exception(
        f"{name} must be an argument of the test itself, so that there is a test for each",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def syslat_experiment(pytestconfig: pytest.Config) -> Experiment:
    """The running experiment: its trials, settings and repeats so far.
    Ask for it beside syslat_trial, syslat_cell or syslat_growth.
    For example:
        def test_no_trial_is_repeated(syslat_experiment, measure, syslat_trial):
            measure(syslat_trial)
            assert not syslat_experiment.repeats

    It owns testbed and arms and switches between them, is put in place before the first test and
    removed after the last one.
    """
    from pytest_syslat.plugin import SESSION, XDIST_REFUSED

    ours = pytestconfig.stash.get(SESSION, None)
    if hasattr(pytestconfig, "workerinput"):
        pytest.fail(XDIST_REFUSED, pytrace=False)
    if ours is None or ours.experiment is None:
        pytest.fail(
            "no test of this run is parametrized by syslat_trial, syslat_cell or syslat_growth: "
            "ask for one of them beside the fixture",
            pytrace=False,
        )
    experiment: Experiment = ours.experiment
    return experiment


@pytest.fixture(scope="session")
def syslat_rig(pytestconfig: pytest.Config) -> Iterator[Rig]:
    """All that measures by itself, in one: testbed, tracer, workload and server of this session.
    For example:
        def test_all_in_one(syslat_rig):
            assert syslat_rig.testbed.node
            assert syslat_rig.tracer.version.startswith("bpftrace")

    Each part is put in place on first use.
    """
    from pytest_syslat.plugin import SESSION, XDIST_REFUSED
    from pytest_syslat.session import SyslatSession

    if hasattr(pytestconfig, "workerinput"):
        pytest.fail(XDIST_REFUSED, pytrace=False)
    if SESSION not in pytestconfig.stash:
        pytestconfig.stash[SESSION] = SyslatSession(pytestconfig)
    ours = pytestconfig.stash[SESSION]
    if ours.rig is not None:
        yield ours.rig
        return
    with contextlib.ExitStack() as cleanup:
        try:
            rig = cleanup.enter_context(ours.provisioned())
        except pytest.UsageError as problem:
            pytest.fail(str(problem), pytrace=False)
        yield rig


def _part(make: Callable[[], Part]) -> Part:
    """A part of the rig; the test fails with one line if it cannot be had."""
    from pytest_syslat.testbeds.protocol import TestbedError
    from pytest_syslat.tools import ToolMissing
    from pytest_syslat.tracer import TracerError
    from pytest_syslat.workload import WorkloadError

    try:
        return make()
    except (TestbedError, ToolMissing, TracerError, WorkloadError) as problem:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="session")
def testbed(syslat_rig: Rig) -> Testbed:
    """The node that is measured: runs programs in a role and reads files there.
    For example:
        from pytest_syslat.testbeds.protocol import Role
        def test_kernel(testbed):
            told = testbed.run(["uname", "-r"], role=Role.NODE, timeout_s=5).stdout
            assert int(told.split(".")[0]) >= 5
    """
    return syslat_rig.testbed


@pytest.fixture(scope="session")
def tracer(syslat_rig: Rig) -> Tracer:
    """bpftrace on the node: counts the calls of the workload by their latency.
    For example:
        from pytest_syslat.syscalls import SYSCALLS
        def test_opens(tracer, workload):
            tracing = tracer.attach(SYSCALLS["openat"])
            tracing.begin()
            workload.run(SYSCALLS["openat"])
            trace, log, stderr = tracing.stop()
            assert trace.succeeded.count > 100
    """
    return _part(lambda: syslat_rig.tracer)


@pytest.fixture(scope="session")
def workload(syslat_rig: Rig) -> Workload:
    """lmbench on the node, pinned to the measured core.
    For example:
        from pytest_syslat.syscalls import SYSCALLS
        def test_cost_of_open(workload):
            assert workload.run(SYSCALLS["openat"]).us_per_op < 100
    """
    return _part(lambda: syslat_rig.workload)


@pytest.fixture(scope="session")
def tcp_server(syslat_rig: Rig) -> TcpServer:
    """The server that lat_connect dials; listening.
    For example:
        from pytest_syslat.syscalls import SYSCALLS
        def test_connect(tcp_server, workload):
            assert workload.run(SYSCALLS["connect"]).complaint is None
    """
    return _part(lambda: syslat_rig.server)


@pytest.fixture
def measure(
    syslat_experiment: Experiment, _syslat_row: Row, request: pytest.FixtureRequest
) -> Callable[[TrialKey], Trial]:
    """Measure a trial; the test fails if the trial is refused.
    For example:
        def test_latency(measure, syslat_trial):
            trial = measure(syslat_trial)
            assert trial.distribution.count >= 1000
    """
    from pytest_syslat.report.properties import key_properties, set_properties, trial_properties

    def measured(key: TrialKey) -> Trial:
        if key not in syslat_experiment.planned:
            pytest.fail(
                f"{key.id} is not in the plan: ask for the trials that syslat_trial gives",
                pytrace=False,
            )
        set_properties(request.node, key_properties(key))
        if not syslat_experiment.needs(key):
            pytest.skip(f"all verdicts stand after {syslat_experiment.plan.blocks} blocks")
        trial = syslat_experiment.measure(key)
        set_properties(request.node, trial_properties(trial, syslat_experiment.facts))
        _syslat_row.measured(trial)
        if trial.refused:
            pytest.fail(
                f"{key.id} is refused: {'; '.join(trial.reasons)}",
                pytrace=False,
            )
        return trial

    return measured


@pytest.fixture
def judge(
    syslat_experiment: Experiment, _syslat_row: Row, request: pytest.FixtureRequest
) -> Callable[[Cell], CellResult]:
    """Judge a cell against its budget; the test fails if the overhead is above it.
    For example, with --agent and --syslat-budget:
        def test_overhead(judge, syslat_cell):
            result = judge(syslat_cell)
            assert result.delta_us < 100

    An inconclusive verdict is reported and fails only under `--syslat-strict`.
    """
    from pytest_syslat.benchmark_adapter import note_verdict
    from pytest_syslat.report.properties import cell_properties, set_properties
    from pytest_syslat.report.terminal import cell_sentence

    def judged(cell: Cell) -> CellResult:
        result = syslat_experiment.judge(cell)
        set_properties(request.node, cell_properties(result, syslat_experiment.facts))
        note_verdict(request.config, result)
        if _fails(result, syslat_experiment):
            pytest.fail(cell_sentence(result), pytrace=False)
        return result

    return judged


@pytest.fixture
def judge_growth(
    syslat_experiment: Experiment, _syslat_row: Row, request: pytest.FixtureRequest
) -> Callable[[Cell], GrowthResult]:
    """Judge how far an overhead has grown since the run of `--syslat-against`.
    The test fails if it has grown by more than the growth budget.
    For example, with --agent, --syslat-against and --syslat-growth-budget:
        def test_growth(judge_growth, syslat_growth):
            result = judge_growth(syslat_growth)
            assert result.overhead_now_us < 100

    An inconclusive verdict is reported and fails only under `--syslat-strict`.
    """
    from pytest_syslat.benchmark_adapter import note_verdict
    from pytest_syslat.report.growth import growth_sentence
    from pytest_syslat.report.properties import growth_properties, set_properties

    def judged(cell: Cell) -> GrowthResult:
        result = syslat_experiment.judge_growth(cell)
        placement = syslat_experiment.comparison.growth_placement(syslat_experiment.trials)
        set_properties(request.node, growth_properties(result, placement, syslat_experiment.facts))
        note_verdict(request.config, result.tested, "growth_verdict")
        if _fails(result.tested, syslat_experiment):
            pytest.fail(growth_sentence(result), pytrace=False)
        return result

    return judged


def _fails(result: CellResult, experiment: Experiment) -> bool:
    from pytest_syslat.gate import fails

    return fails(result.verdict, strict=experiment.settings.strict)
