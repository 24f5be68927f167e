"""What must be measured, computed from the items that are left after selection.

A block is one pass over all arms with the same trial index. Its arms come in an order that is
shuffled anew for each block, so that drift of the node hits all arms alike. An agent's trial is
always paired with vanilla's of the same block; a cell that is judged needs all its blocks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pytest_syslat.settings import VANILLA
from pytest_syslat.syscalls import SYSCALLS


@dataclass(frozen=True, slots=True, order=True)
class TrialKey:
    """Which trial: of a syscall, in an arm, in a block (counted from 1)."""

    syscall: str
    arm: str
    trial: int

    @property
    def id(self) -> str:
        """The pytest id: `connect-tetragon-trial3`."""
        return f"{self.syscall}-{self.arm}-trial{self.trial}"

    @property
    def partner(self) -> TrialKey:
        """Vanilla's trial of the same syscall and block."""
        return TrialKey(self.syscall, VANILLA, self.trial)


@dataclass(frozen=True, slots=True)
class Plan:
    """All trials in the order in which they are measured."""

    order: tuple[TrialKey, ...]
    complete: bool
    """Whether it covers all arms, syscalls and blocks that the settings name."""

    @property
    def blocks(self) -> int:
        """The number of its last block."""
        return max((key.trial for key in self.order), default=0)

    def until(self, trial: int) -> Plan:
        """The same plan with no block after `trial`."""
        return replace(self, order=tuple(key for key in self.order if key.trial <= trial))

    def block(self, trial: int) -> tuple[TrialKey, ...]:
        """The trials of one block, in order."""
        return tuple(key for key in self.order if key.trial == trial)


def all_keys(
    arms: Sequence[str], blocks: int, syscalls: Sequence[str] = tuple(SYSCALLS)
) -> list[TrialKey]:
    """Every trial that the settings name."""
    return [
        TrialKey(syscall, arm, trial)
        for trial in range(1, blocks + 1)
        for arm in arms
        for syscall in syscalls
    ]


def build_plan(
    *,
    trials: Collection[TrialKey],
    judged: Collection[tuple[str, str]],
    arms: Sequence[str],
    blocks: int,
    seed: int,
    syscalls: Sequence[str] = tuple(SYSCALLS),
) -> Plan:
    """Compute the plan.

    Args:
        trials: Trials whose own items are selected.
        judged: (syscall, agent) of the cells whose judging items are selected.
        arms: All arms of the settings; vanilla is among them unless a stored one takes its place.
        blocks: Number of blocks of the settings.
        seed: Of the order of arms; the order of a block does not depend on the selection.
        syscalls: All syscalls of the settings, by name, in the order within an arm.
    """
    needed = set(trials)
    for syscall, agent in judged:
        needed |= {TrialKey(syscall, agent, trial) for trial in range(1, blocks + 1)}
    needed |= {key.partner for key in needed}
    order: list[TrialKey] = []
    shuffler = random.Random(seed)  # noqa: S311 - an order to be reproduced, not a secret
    for trial in range(1, blocks + 1):
        shuffled = list(arms)
        shuffler.shuffle(shuffled)
        order += [
            key
            for arm in shuffled
            for syscall in syscalls
            if (key := TrialKey(syscall, arm, trial)) in needed
        ]
    return Plan(tuple(order), complete=needed >= set(all_keys(arms, blocks, syscalls)))
