"""Budgets: the overhead against vanilla that is allowed for a syscall and figure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Protocol

    class _Figure(Protocol):
        """A figure of a syscall, such as a cell."""

        @property
        def syscall(self) -> str: ...

        @property
        def figure(self) -> str: ...


FIGURES = ("p50", "p90", "p99", "mean", "user")
"""What a budget can limit: traced quantiles, the traced mean, lmbench's untraced µs per call."""

ANY = "*"

# Keyboards and Unicode normalisation yield two characters that both look like 'micro'.
_UNITS: dict[str, Literal["%", "us"]] = {"%": "%", "us": "us", "\u00b5s": "us", "\u03bcs": "us"}
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+")


@dataclass(frozen=True)
class Budget:
    """The overhead that is allowed for one or all syscalls and one or all figures.

    Attributes:
        syscall: Name of the syscall, or ``*`` for any.
        figure: One of `FIGURES`, or ``*`` for any.
        amount: How much slower than vanilla is still fine, in `unit`; not negative.
        unit: ``%`` of vanilla, or ``us`` (microseconds).
    """

    syscall: str
    figure: str
    amount: float
    unit: Literal["%", "us"]

    def __str__(self) -> str:
        # 'g' would round, repr() would write an exponent, and parse_budget takes neither.
        amount = f"{Decimal(repr(self.amount)).normalize():f}"
        return f"{self.syscall}:{self.figure}<=+{amount}{self.unit}"

    def matches(self, syscall: str, figure: str) -> bool:
        """Tell whether this budget applies to a figure of a syscall."""
        return self.syscall in (ANY, syscall) and self.figure in (ANY, figure)


def parse_budget(text: str, syscalls: Collection[str] | None) -> Budget:
    """Read a budget as written on the command line.

    Args:
        text: ``SYSCALL:FIGURE<=+N%`` or ``SYSCALL:FIGURE<=+Nus`` (also ``µs``), with ``*`` for
            any syscall or any figure and spaces allowed around each part.
        syscalls: Names of the syscalls that can be measured; None: any is taken.

    Returns:
        The budget; ``parse_budget(str(budget), syscalls)`` gives it back.

    Raises:
        ValueError: With one line that says which part is wrong and what is allowed there.
    """
    target, _, allowance = text.partition("<=")
    allowance = allowance.strip()
    if allowance.startswith("-"):
        raise _error(text, f"{allowance!r} is negative, an overhead of 0 or more is allowed")
    if not allowance.startswith("+"):
        raise _error(text, "'<=+' is missing, as in 'connect:p50<=+10%' or 'connect:p50<=+2.5us'")
    syscall, colon, figure = (part.strip() for part in target.partition(":"))
    if not colon:
        raise _error(text, "':' is missing between syscall and figure, as in 'connect:p50<=+10%'")
    if syscalls is not None and syscall not in (ANY, *syscalls):
        raise _error(text, f"unknown syscall {syscall!r}, {_listed(sorted(syscalls))}")
    if figure not in (ANY, *FIGURES):
        raise _error(text, f"unknown figure {figure!r}, {_listed(FIGURES)}")
    amount, unit = _parse_allowance(text, allowance.removeprefix("+").strip())
    return Budget(syscall, figure, amount, unit)


def budget_for(budgets: Sequence[Budget], syscall: str, figure: str) -> Budget | None:
    """Choose the budget that applies to a figure of a syscall.

    The most specific wins: exact syscall and figure, then exact syscall and any figure, then any
    syscall and exact figure, then any of both. Among equally specific ones the later wins, so
    that a command line can override what stands before it.

    Args:
        budgets: Budgets in the order in which they were given.
        syscall: Name of the syscall.
        figure: One of `FIGURES`.

    Returns:
        The budget, or None if none applies.
    """
    return max(
        (budget for budget in reversed(budgets) if budget.matches(syscall, figure)),
        key=lambda budget: (budget.syscall != ANY, budget.figure != ANY),
        default=None,
    )


def idle_budgets(budgets: Sequence[Budget], cells: Iterable[_Figure]) -> list[Budget]:
    """The budgets that are for none of some figures, in order: a mistyped one, for instance."""
    names = {(each.syscall, each.figure) for each in cells}
    return [each for each in budgets if not any(each.matches(*name) for name in names)]


def _parse_allowance(text: str, allowance: str) -> tuple[float, Literal["%", "us"]]:
    """Split what follows ``<=+`` into amount and unit."""
    suffix = next((suffix for suffix in _UNITS if allowance.endswith(suffix)), None)
    if suffix is None:
        number = _DECIMAL.match(allowance)
        if number is None:
            raise _not_a_number(text, allowance)
        unit = allowance[number.end() :].strip()
        raise _error(text, f"unknown unit {unit!r}, allowed are '%' and 'us'")
    number_text = allowance.removesuffix(suffix).strip()
    if number_text.startswith("-"):
        raise _error(text, f"{number_text!r} is negative, an overhead of 0 or more is allowed")
    # Python's float() would also take 'nan', '1_000' and '1e3'.
    if not _DECIMAL.fullmatch(number_text) or not math.isfinite(float(number_text)):
        raise _not_a_number(text, number_text)
    return float(number_text), _UNITS[suffix]


def _not_a_number(text: str, number_text: str) -> ValueError:
    return _error(text, f"{number_text!r} is not a number, a decimal such as 10 or 2.5 is allowed")


def _listed(names: Sequence[str]) -> str:
    return f"allowed are {', '.join(names)} and {ANY}"


def _error(text: str, problem: str) -> ValueError:
    return ValueError(f"budget {text!r}: {problem}")
