"""The fixtures that a benchmark uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_syslat.experiment import Experiment
    from pytest_syslat.gate import Cell, CellResult
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial


@pytest.fixture(scope="session")
def syslat_experiment(pytestconfig: pytest.Config) -> Experiment:
    """The running experiment: it owns testbed and arms and switches between them.

    It is put in place before the first test and removed after the last one.
    """
    from pytest_syslat.plugin import SESSION, XDIST_REFUSED

    ours = pytestconfig.stash.get(SESSION, None)
    if hasattr(pytestconfig, "workerinput"):
        pytest.fail(XDIST_REFUSED, pytrace=False)
    if ours is None or ours.experiment is None:
        pytest.fail(
            "no test of this run is parametrized by syslat_trial or syslat_cell: "
            "ask for one of them beside the fixture",
            pytrace=False,
        )
    experiment: Experiment = ours.experiment
    return experiment


def _set_properties(request: pytest.FixtureRequest, properties: list[tuple[str, object]]) -> None:
    """Give an item its properties for JUnit; a rerun replaces those of the run before."""
    names = {name for name, _ in properties}
    kept = [each for each in request.node.user_properties if each[0] not in names]
    request.node.user_properties[:] = [*kept, *properties]


@pytest.fixture
def measure(
    syslat_experiment: Experiment, request: pytest.FixtureRequest
) -> Callable[[TrialKey], Trial]:
    """Measure a trial; the test fails if the trial is refused.

    Example:
        def test_latency(measure, syslat_trial):
            trial = measure(syslat_trial)
            assert trial.distribution.count >= 1000
    """

    def measured(key: TrialKey) -> Trial:
        if key not in syslat_experiment.plan.order:
            pytest.fail(
                f"{key.id} is not in the plan: ask for the trials that syslat_trial gives",
                pytrace=False,
            )
        trial = syslat_experiment.measure(key)
        properties: list[tuple[str, object]] = [
            ("syscall", key.syscall),
            ("label", key.arm),
            ("trial", key.trial),
            ("node", trial.node),
            ("placement", str(trial.placement)),
            ("calls", trial.distribution.count),
            ("attempt", trial.attempt),
        ]
        for figure in ("p50", "p90", "p99", "mean", "user"):
            value_us = trial.figure_us(figure)
            if value_us is not None and not trial.refused:
                properties.append((f"{figure}_us", f"{value_us:.3f}"))
        _set_properties(request, properties)
        if trial.refused:
            pytest.fail(
                f"{key.id} is refused: {'; '.join(trial.reasons)}",
                pytrace=False,
            )
        return trial

    return measured


@pytest.fixture
def judge(
    syslat_experiment: Experiment, request: pytest.FixtureRequest
) -> Callable[[Cell], CellResult]:
    """Judge a cell against its budget; the test fails if the overhead passes the budget.

    An inconclusive verdict is reported and fails only under `--syslat-strict`.

    Example:
        def test_overhead(judge, syslat_cell):
            judge(syslat_cell)
    """
    from pytest_syslat.gate import Verdict
    from pytest_syslat.report.terminal import cell_sentence

    def judged(cell: Cell) -> CellResult:
        result = syslat_experiment.judge(cell)
        _set_properties(
            request,
            [
                ("syscall", cell.syscall),
                ("label", cell.agent),
                ("figure", cell.figure),
                ("budget", str(result.budget)),
                ("verdict", str(result.verdict)),
                ("blocks", result.blocks),
                *(
                    (name, f"{getattr(result, name):.3f}")
                    for name in (
                        "vanilla_us",
                        "agent_us",
                        "delta_us",
                        "delta_pct",
                        "ci_low_us",
                        "ci_high_us",
                        "ci_low_pct",
                        "ci_high_pct",
                        "mde_us",
                    )
                ),
                ("p_adjusted", f"{result.p_adjusted:.6g}"),
            ],
        )
        fails = {Verdict.REGRESSED, Verdict.INVALID}
        if syslat_experiment.settings.strict:
            fails.add(Verdict.INCONCLUSIVE)
        if result.verdict in fails:
            pytest.fail(cell_sentence(result), pytrace=False)
        return result

    return judged
