"""Which core is measured, and which ones tracer and server may use beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


def choose_core(
    wanted: int, usable: Sequence[int], may_be_pinned_to: Callable[[int], bool]
) -> tuple[int, str | None]:
    """The core to measure on.

    Args:
        wanted: What the user asked for; it may be isolated from the cores that are used otherwise.
        usable: Cores that the workload may use.
        may_be_pinned_to: Tells whether the kernel lets the workload run on another core, too.

    Returns:
        The core, and a warning if it isn't the one that was asked for.
    """
    if wanted in usable or may_be_pinned_to(wanted):
        return wanted, None
    chosen = max(usable)
    return chosen, f"core {wanted} does not exist or may not be used here: core {chosen} is used"


def cores_beside(
    core: int, usable: Sequence[int], siblings: Collection[int]
) -> tuple[list[int], str | None]:
    """Cores for tracer and server.

    The SMT sibling shares execution units with the measured core, so it is used only when there
    is nothing else.

    Args:
        core: The measured core.
        usable: Cores that tracer and server may use.
        siblings: The cores that share a physical core with `core`, itself included.

    Returns:
        The cores, and a sentence if they disturb the measured core.
    """
    others = [each for each in usable if each != core]
    strangers = [each for each in others if each not in siblings]
    if strangers:
        return strangers, None
    if others:
        return others, f"tracer and server run on the SMT sibling of core {core}: no other is left"
    return [core], f"tracer and server run on core {core} as well: it is the only one"


def parse_core_list(text: str) -> set[int]:
    """Parse the kernel's list format, such as `0-3,8`."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
