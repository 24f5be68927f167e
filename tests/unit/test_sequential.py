from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_syslat.budget import Budget
from pytest_syslat.gate import Cell, CellData, CellResult, Verdict, judge
from pytest_syslat.sequential import LOOKS, alpha_of_look, looks_sentence, next_look

BUDGET = Budget("*", "*", 5.0, "us")
# Differences of 4.5 µs on average with a standard deviation of sqrt(6).
STEPS_US = np.array([3.0, 1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 6.0])


def cell(amount_us: float, name: str = "p50", **more: tuple[str, ...]) -> CellData:
    """Eight blocks under a budget of so many µs."""
    return CellData(
        Cell("connect", "tetragon", name),
        replace(BUDGET, amount=amount_us),
        np.full(8, 50.0),
        50 + STEPS_US,
        **more,  # type: ignore[arg-type]
    )


def looked_at(*cells: CellData) -> list[CellResult]:
    return judge(cells, alpha=alpha_of_look())


PASSED, OPEN, REGRESSED = 50.0, 4.0, 0.0


def test_three_looks_share_the_error() -> None:
    assert LOOKS == (8, 16, 32)
    assert sum(alpha_of_look() for _ in LOOKS) == pytest.approx(0.05)
    assert alpha_of_look(0.03) == pytest.approx(0.01)


def test_an_open_cell_is_looked_at_again_until_the_last_look() -> None:
    results = looked_at(cell(OPEN), cell(PASSED, "p90"))
    assert [result.verdict for result in results] == [Verdict.INCONCLUSIVE, Verdict.PASSED]
    assert [next_look(results, blocks) for blocks in LOOKS] == [16, 32, None]


def test_decided_cells_end_the_run() -> None:
    results = looked_at(
        cell(PASSED),
        cell(REGRESSED, "p90"),
        cell(OPEN, "p99", refused=("trial 3: throttled",)),
        replace(cell(OPEN, "mean"), budget=None),
    )
    assert [result.verdict for result in results] == [
        *(Verdict.PASSED, Verdict.REGRESSED, Verdict.INVALID, None)
    ]
    assert next_look(results, 8) is None


def test_what_more_blocks_cannot_decide_ends_the_run() -> None:
    # One cannot pass, and is below its budget; the other is fine but for what the user pays.
    unpassable = cell(PASSED, "p99", undecided=("lost events",))
    results = looked_at(unpassable, cell(PASSED), cell(REGRESSED, "user"))
    assert [result.verdict for result in results] == [
        *(Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, Verdict.REGRESSED)
    ]
    assert next_look(results, 8) is None


def test_nothing_judged_ends_the_run() -> None:
    assert next_look([], 8) is None


@pytest.mark.parametrize("blocks", [0, 7, 9, 64])
def test_a_look_in_between(blocks: int) -> None:
    with pytest.raises(ValueError, match=f"after 8, 16 or 32 blocks only, not after {blocks}"):
        next_look(looked_at(cell(OPEN)), blocks)


def test_a_look_that_spends_all_of_the_error() -> None:
    with pytest.raises(ValueError, match=r"a look has an alpha of 0\.01667, but .* with 0\.05"):
        next_look(judge([cell(OPEN)]), 8)


def test_the_looks_in_a_sentence() -> None:
    assert looks_sentence() == (
        "verdicts after 8, 16 or 32 blocks, at the first of them that leaves nothing to decide: "
        "each look has a third of the error, so all verdicts hold with 95 %"
    )
