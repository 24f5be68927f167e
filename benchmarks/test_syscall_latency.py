"""The main job: measure each syscall in each arm, then judge the overheads.

pytest benchmarks                                      vanilla alone
pytest benchmarks --agent=auditd                       vanilla and auditd
pytest benchmarks -k connect --agent=auditd            one syscall
pytest benchmarks -k p50 --agent=auditd --syslat-budget 'connect:p50<=+10%'
pytest benchmarks --agent=auditd --syslat-against=result/last --syslat-growth-budget '*:user<=+5%'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_syslat.gate import Cell, CellResult
    from pytest_syslat.plan import TrialKey
    from pytest_syslat.trial import Trial
    from pytest_syslat.unpaired import GrowthCell, GrowthResult


def test_latency(measure: Callable[[TrialKey], Trial], syslat_trial: TrialKey) -> None:
    """One trial of a syscall in an arm; fails if the trial is refused."""
    measure(syslat_trial)


def test_overhead(judge: Callable[[Cell], CellResult], syslat_cell: Cell) -> None:
    """An agent's overhead against its budget; fails if it is over."""
    judge(syslat_cell)


def test_growth(
    judge_growth: Callable[[GrowthCell], GrowthResult], syslat_growth: GrowthCell
) -> None:
    """How far an overhead has grown since a stored run; fails if by more than its budget."""
    judge_growth(syslat_growth)
