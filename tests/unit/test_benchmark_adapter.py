"""The values by which pytest-benchmark knows a trial."""

from __future__ import annotations

import statistics
from fractions import Fraction

import numpy as np
import pytest
from pytest_benchmark.stats import Stats

from pytest_syslat.benchmark_adapter import MOST_VALUES, Replay, representatives_s
from pytest_syslat.distribution import Distribution


def skewed(calls: int, seed: int) -> Distribution:
    """Latencies as they are: a narrow body, a long tail, one call that is slow beyond all."""
    drawn = np.random.default_rng(seed).lognormal(mean=6.2, sigma=0.3, size=calls)
    samples = drawn.astype(np.int64)
    samples[-1] = 40 * int(samples.max())
    return Distribution.from_samples(samples)


def rank_ns(distribution: Distribution, share: Fraction) -> int:
    """The smallest latency up to which at least so many of the calls lie, by counting."""
    wanted, seen = share * distribution.count, 0
    for value_ns, count in zip(distribution.values_ns, distribution.counts, strict=True):
        seen += int(count)
        if seen >= wanted:
            return int(value_ns)
    raise AssertionError(share)


@pytest.mark.parametrize("calls", [6, 7, 9, 10, 1000, 1064, 7343, 9998, 9999, 10_001, 1_000_000])
def test_its_statistics_are_those_of_all_calls(calls: int) -> None:
    distribution = skewed(calls, seed=calls)
    values = representatives_s(distribution)
    assert len(values) <= min(calls, 10_000)
    assert values == sorted(values)
    # As pytest-benchmark computes them.
    stats = Stats()  # type: ignore[no-untyped-call]
    stats.data = values
    assert stats.min * 1e9 == pytest.approx(distribution.min_ns, rel=1e-12)
    assert stats.max * 1e9 == pytest.approx(distribution.max_ns, rel=1e-12)
    for computed, share in ((stats.q1, 1), (stats.median, 2), (stats.q3, 3)):
        assert computed * 1e9 == pytest.approx(rank_ns(distribution, Fraction(share, 4)), rel=1e-12)
    assert set(np.rint(np.array(values) * 1e9).astype(int)) <= set(distribution.values_ns.tolist())


def test_the_mean_is_close_but_for_the_slowest_call() -> None:
    distribution = skewed(1_000_000, seed=1)
    values = representatives_s(distribution)
    assert len(values) == MOST_VALUES
    exact = Distribution.from_counts(
        dict(
            zip(
                distribution.values_ns[:-1].tolist(), distribution.counts[:-1].tolist(), strict=True
            )
        )
    )
    assert statistics.fmean(values[:-1]) * 1e9 == pytest.approx(exact.mean_ns, rel=1e-3)


def test_few_calls_are_given_as_they_are() -> None:
    assert representatives_s(Distribution.from_counts({1500: 2, 7: 3})) == [
        *[7e-9] * 3,
        *[1.5e-6] * 2,
    ]


def test_nanoseconds_keep_their_digits() -> None:
    values = representatives_s(Distribution.from_counts({775: 5000, 766: 5000}))
    assert set(values) == {7.66e-07, 7.75e-07}


def test_the_timer_replays_and_then_tells_the_time() -> None:
    timer = Replay()
    timer.load([2e-6, 3e-6])
    readings = [timer() for _ in range(4)]
    assert [readings[1] - readings[0], readings[3] - readings[2]] == [2e-6, 3e-6]
    assert 0 < timer() <= timer()
