"""The parts of an overhead: worked out by hand, and intervals beside scipy's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pytest_syslat.distribution import Distribution
from pytest_syslat.split import Estimate, Overheads, split
from pytest_syslat.tracer import Trace
from pytest_syslat.trial import operation_us


def interval(part: Estimate | None) -> tuple[float, float, float]:
    assert part is not None
    return part.mean_us, part.low_us, part.high_us


def test_by_hand() -> None:
    # Block 1: entry 2, inside 3, exit 5; block 2: entry 4, inside 3, exit 1.
    blocks = [Overheads(10.0, 8.0, 5.0), Overheads(8.0, 4.0, 7.0)]
    found = split("agent", "openat", blocks, whole_operation=True)
    assert (found.user.mean_us, found.last.mean_us, found.first.mean_us) == (9.0, 6.0, 6.0)
    # Mean 3 of 2 and 4: sd √2, error 1, t(0.975, 1) = 12.7062.
    assert interval(found.entry) == pytest.approx((3.0, -9.7062, 15.7062), abs=1e-4)
    assert interval(found.inside) == pytest.approx((3.0, 3.0, 3.0))
    # Mean 3 of 5 and 1: sd 2 √2, error 2.
    assert interval(found.exit) == pytest.approx((3.0, -22.4124, 28.4124), abs=1e-4)


def test_intervals_are_those_of_a_paired_t_test() -> None:
    """The parts' own spread counts: that of the three figures is correlated and partly cancels."""
    random = np.random.default_rng(1)
    drift = random.normal(0, 5, 9)
    user, last, first = (amount + drift + random.normal(0, 0.2, 9) for amount in (9.0, 7.0, 4.0))
    blocks = [Overheads(*each) for each in zip(user, last, first, strict=True)]
    found = split("agent", "openat", blocks, whole_operation=True)
    for part, figures in (
        (found.user, (user, np.zeros(9))),
        (found.entry, (user, last)),
        (found.exit, (user, first)),
        (found.inside, (first + last, user)),
    ):
        limits = stats.ttest_rel(*figures).confidence_interval(0.95)
        assert interval(part)[1:] == pytest.approx((limits.low, limits.high))


def test_negative_parts_are_shown() -> None:
    blocks = [Overheads(1.0, 1.5, 1.2), Overheads(1.0, 1.7, 1.2)]
    found = split("agent", "openat", blocks, whole_operation=True)
    assert interval(found.entry)[0] == pytest.approx(-0.6)
    assert interval(found.exit)[0] == pytest.approx(-0.2)


def test_parts_that_cannot_be_are_named() -> None:
    # Inside -4 and -5, its interval -10.9 … 1.9 first, then of eight blocks below 0.
    blocks = [Overheads(12.0, 3.0, 5.0), Overheads(13.0, 4.0, 4.0)]
    assert split("agent", "openat", blocks, whole_operation=True).impossible == ()
    assert split("agent", "openat", blocks * 4, whole_operation=True).impossible == ("inside",)
    assert split("agent", "execve", blocks * 4, whole_operation=False).impossible == ()


def test_no_parts_of_what_is_not_the_whole_operation() -> None:
    found = split("agent", "execve", [Overheads(10.0, 8.0, 5.0)] * 2, whole_operation=False)
    assert (found.entry, found.inside, found.exit) == (None, None, None)
    assert found.last.mean_us == 8.0


def test_one_block_has_no_interval() -> None:
    found = split("agent", "openat", [Overheads(10.0, 8.0, 5.0)], whole_operation=True)
    mean, low, high = interval(found.inside)
    assert mean == pytest.approx(3.0)
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(
    ("closes", "expected"),
    [(1000, 0.9), (999, 0.9), (1001, 0.9), (998, None), (1002, None), (0, None)],
)
def test_an_operation_is_an_open_and_its_close(closes: int, expected: float | None) -> None:
    """Opens take 600 ns in the mean, closes 300."""
    trace = Trace(
        succeeded=Distribution.from_counts({500: 500, 700: 500}),
        failures={},
        other=0,
        total=1000,
        lost=0,
        after_last_run=0,
        problem=None,
        closes=closes,
        close_ns=300 * closes,
    )
    assert operation_us(trace) == (expected and pytest.approx(expected))
