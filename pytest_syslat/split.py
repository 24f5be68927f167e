"""Where in the call an agent spends its time: at entry, inside or at exit.

Let an agent's programs at the entry tracepoint take E, those at exit X, and what works in between
I, per operation. Programs of one tracepoint run in the order in which they were attached, so

- the user, with no tracer attached, pays  user  = E + I + X;
- a tracer that came after the agent sees  last  = I + X  (its start stamp is taken after E);
- a tracer that came before it sees        first = E + I  (its end stamp is taken before X).

Hence E = user - last, X = user - first, I = first + last - user. Each is computed from overheads
against vanilla in the same block, of means per operation: only means add up. So it needs all
syscalls of lmbench's operation in the traced figure. What is left out is what the tracer itself
changes: its own cost is the same with the agent and without only as far as they do not disturb each
other in caches and in the frequency of the core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Overheads:
    """What an agent adds to vanilla in one block, µs per operation, or per call if unsplit."""

    user_us: float
    last_us: float
    first_us: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over blocks with its own 95 % interval; the limits are nan with a single block."""

    mean_us: float
    low_us: float
    high_us: float


@dataclass(frozen=True, slots=True)
class Split:
    """The overhead of an agent on a syscall, in each placement and, where possible, in parts."""

    agent: str
    syscall: str
    blocks: int
    whole_operation: bool
    """Whether `last` and `first` are of lmbench's whole operation; else of the one syscall, which
    is less than what `user` is of: then there are no parts."""
    user: Estimate
    last: Estimate
    first: Estimate
    entry: Estimate | None
    inside: Estimate | None
    exit: Estimate | None

    @property
    def impossible(self) -> tuple[str, ...]:
        """Parts that are below 0 by more than their interval, which no time can be.

        Then the model does not hold. The usual reason is a busy core: a time slice of somebody else
        is in lmbench's figure, but hardly ever within a traced call.
        """
        parts = {"entry": self.entry, "inside": self.inside, "exit": self.exit}
        return tuple(name for name, part in parts.items() if part and part.high_us < 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {**asdict(self), "impossible": list(self.impossible)}


def split(agent: str, syscall: str, blocks: Sequence[Overheads], *, whole_operation: bool) -> Split:
    """Compute the parts.

    Args:
        agent: The arm.
        syscall: The measured syscall.
        blocks: Overheads, one entry a block; at least one.
        whole_operation: Whether the traced figures are of lmbench's whole operation.

    Returns:
        Means over blocks. Intervals are those of a paired t test on the block's values of the
        linear combination, `mean ± t(0.975, n - 1) sd / √n`; each holds by itself. A part may be
        negative: that is noise, or a limit of the model, and is not hidden.
    """
    user, last, first = np.array(
        [(each.user_us, each.last_us, each.first_us) for each in blocks], dtype=np.float64
    ).T
    return Split(
        agent=agent,
        syscall=syscall,
        blocks=len(blocks),
        whole_operation=whole_operation,
        user=_estimate(user),
        last=_estimate(last),
        first=_estimate(first),
        entry=_estimate(user - last) if whole_operation else None,
        inside=_estimate(first + last - user) if whole_operation else None,
        exit=_estimate(user - first) if whole_operation else None,
    )


def _estimate(values: NDArray[np.float64]) -> Estimate:
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    margin = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - margin, mean + margin)
