"""Looks at fixed numbers of blocks, for runs that measure until all cells are decided.

Whoever looks at each block and stops when the verdict pleases errs far more often than stated. So
there are three looks only, after 8, 16 and 32 blocks. Each has a third of the error probability;
by the union bound all intervals of all three looks hold at once with ``1 - alpha``, whatever rule
ends the run, and whatever the looks have in common.

The verdicts of a run are those of the look at which it ended, from all of its blocks. What an
earlier look said is not kept: a cell that was decided at 8 blocks and is open at 16 is open. So
verdict, interval and stored blocks always agree, and ``judge`` gives them again from the stored
blocks alone.

How a run uses it::

    results = judge(cells of LOOKS[0] blocks, alpha=alpha_of_look())
    while (look := next_look(results, blocks)) is not None:
        # measure on until there are `look` blocks of all arms
        results = judge(cells of `look` blocks, alpha=alpha_of_look())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_syslat.settings import LOOKS as LOOKS  # noqa: PLC0414 - also theirs who use this module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_syslat.gate import CellResult


def alpha_of_look(alpha: float = 0.05) -> float:
    """Give the error probability of one look.

    Args:
        alpha: Probability that any interval at any look misses the truth.

    Returns:
        The `alpha` for `judge`, the same at each look.
    """
    return alpha / len(LOOKS)


def next_look(results: Sequence[CellResult], blocks: int, alpha: float = 0.05) -> int | None:
    """Tell at how many blocks to look again.

    Args:
        results: What `judge` has made of the blocks so far.
        blocks: Their number, one of `LOOKS`.
        alpha: Error probability of the whole run.

    Returns:
        The number of blocks at which the next look is due, or None if the run is over: there is no
        further look, or no cell is left that more blocks could decide. Passed, regressed and
        invalid cells are not, nor those which a finding or the user's cost keeps from passing.

    Raises:
        ValueError: If `blocks` is no look, or a cell was judged with more than a look's share of
            `alpha`.
    """
    if blocks not in LOOKS:
        raise ValueError(f"verdicts are given after {_listed()} blocks only, not after {blocks}")
    share = alpha_of_look(alpha)
    spent = max((result.alpha for result in results), default=0.0)
    if spent > share:
        raise ValueError(f"a look has an alpha of {share:.4g}, but cells are judged with {spent:g}")
    if not any(result.more_blocks_can_decide for result in results):
        return None
    return next((look for look in LOOKS if look > blocks), None)


def looks_sentence(alpha: float = 0.05) -> str:
    """Say when a run looks, and what that does to its error."""
    return (
        f"verdicts after {_listed()} blocks, at the first of them that leaves nothing to decide: "
        f"each look has a third of the error, so all verdicts hold with {100 * (1 - alpha):.4g} %"
    )


def _listed() -> str:
    *first, last = LOOKS
    return f"{', '.join(map(str, first))} or {last}"
