import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_syslat.distribution import Distribution

SEEDS = range(12)


def latencies(kind: str, seed: int) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 3000))
    match kind:
        case "ties":
            return random.integers(0, 7, size)
        case "spread":
            return random.integers(0, 10**9, size)
        case "heavy tail":
            return (500 * (1 + random.pareto(0.8, size))).astype(np.int64)
        case "single value":
            return np.full(size, random.integers(0, 10**6))
        case _:
            raise AssertionError(kind)


@pytest.fixture(params=["ties", "spread", "heavy tail", "single value"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestConstruction:
    def test_from_counts_sorts_and_drops_zero_counts(self) -> None:
        distribution = Distribution.from_counts({30: 2, 10: 1, 20: 0})
        assert distribution.values_ns.tolist() == [10, 30]
        assert distribution.counts.tolist() == [1, 2]

    def test_from_samples_counts_them(self) -> None:
        distribution = Distribution.from_samples([30, 10, 30])
        assert distribution.values_ns.tolist() == [10, 30]
        assert distribution.counts.tolist() == [1, 2]

    @pytest.mark.parametrize(
        "dtype", [np.int32, np.uint32, np.uint64, np.int64], ids=lambda dtype: dtype.__name__
    )
    def test_from_samples_takes_any_integers(self, dtype: type[np.integer]) -> None:
        samples = np.array([2, 1, 2], dtype=dtype)
        assert Distribution.from_samples(samples) == Distribution.from_counts({1: 1, 2: 2})

    @pytest.mark.parametrize(
        "counts", [{-1: 1}, {1: -1}, {2**63: 1}, {1: 2**63}, {1: 1, -5: 0}], ids=str
    )
    def test_from_counts_refuses(self, counts: dict[int, int]) -> None:
        with pytest.raises(ValueError, match="between 0 and 2\\^63 - 1"):
            Distribution.from_counts(counts)

    def test_from_counts_takes_the_largest_value(self) -> None:
        assert Distribution.from_counts({2**63 - 1: 1}).max_ns == 2**63 - 1

    @pytest.mark.parametrize(
        ("samples", "reason"),
        [
            ([1.0, 2.0], "whole nanoseconds"),
            ([True], "whole nanoseconds"),
            ([3, -1], "negative"),
            (np.array([1, 2**63], dtype=np.uint64), "63 bits"),
        ],
        ids=["float", "bool", "negative", "too large"],
    )
    def test_from_samples_refuses(self, samples: list[float], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            Distribution.from_samples(samples)

    @pytest.mark.parametrize(
        ("values", "counts", "reason"),
        [
            ([2, 1], [1, 1], "ascending"),
            ([1, 1], [1, 1], "ascending"),
            ([1], [0], "at least 1, not 0"),
            ([1], [-3], "at least 1, not -3"),
            ([-4], [1], "negative: -4 ns"),
            ([1, 2], [1], "2 values cannot have 1 counts"),
            ([[1]], [[1]], "2-dimensional"),
        ],
    )
    def test_invariants_are_checked(
        self, values: list[int], counts: list[int], reason: str
    ) -> None:
        with pytest.raises(ValueError, match=reason):
            Distribution(np.array(values, dtype=np.int64), np.array(counts, dtype=np.int64))

    def test_other_dtypes_are_refused(self) -> None:
        values = np.array([1.5])
        with pytest.raises(ValueError, match=r"values_ns must be .* of float64"):
            Distribution(values, np.array([1]))

    def test_later_changes_of_the_given_arrays_have_no_effect(self) -> None:
        values = np.array([1, 2], dtype=np.int64)
        distribution = Distribution(values, np.array([1, 1], dtype=np.int64))
        values[0] = 2
        assert distribution.values_ns.tolist() == [1, 2]

    def test_the_arrays_are_read_only(self) -> None:
        distribution = Distribution.from_counts({1: 1})
        with pytest.raises(ValueError, match="read-only"):
            distribution.counts[0] = 2


class TestMoments:
    def test_by_hand(self) -> None:
        # N = 1 + 2 + 1 = 4; mean = (10 + 2·20 + 30) / 4 = 80 / 4 = 20
        # population: √((10² + 2·0² + 10²) / 4) = √50 = 7.0710678; a sample's were √(200/3) = 8.165
        distribution = Distribution.from_counts({10: 1, 20: 2, 30: 1})
        assert distribution.count == 4
        assert distribution.mean_ns == 20.0
        assert distribution.stddev_ns == pytest.approx(7.0710678118654755, rel=1e-15)
        assert distribution.min_ns == 10
        assert distribution.max_ns == 30

    @pytest.mark.parametrize("seed", SEEDS)
    def test_against_expanded_samples(self, kind: str, seed: int) -> None:
        samples = latencies(kind, seed)
        distribution = Distribution.from_samples(samples)
        exact_mean = Fraction(sum(samples.tolist()), samples.size)
        assert distribution.count == samples.size
        assert distribution.mean_ns == float(exact_mean)
        assert distribution.stddev_ns == pytest.approx(np.std(samples), rel=1e-12)
        assert distribution.min_ns == min(samples)
        assert distribution.max_ns == max(samples)

    def test_small_spread_on_a_large_offset(self) -> None:
        # One hour in ns. Its square, 1.3·10²⁵, leaves nothing of a spread of 1 ns in float64.
        samples = [3_600_000_000_000 + offset for offset in (0, 1, 1, 2, 7)]
        distribution = Distribution.from_samples(samples)
        assert distribution.stddev_ns == pytest.approx(statistics.pstdev(samples), rel=1e-12)

    def test_a_sum_beyond_int64(self) -> None:
        # 10⁸ calls of about 10¹¹ ns are 10¹⁹ ns; int64 ends at 9.2·10¹⁸.
        # As many calls lie 1 ns below 10¹¹ as above it: the mean is 10¹¹, the deviation 1.
        half = 50_000_000
        distribution = Distribution.from_counts({10**11 - 1: half, 10**11 + 1: half})
        assert distribution.mean_ns == 1e11
        assert distribution.stddev_ns == 1.0


class TestQuantiles:
    @pytest.mark.parametrize(
        ("q", "expected_ns"),
        # ranks ceil(4q): 0 → the first, 0.25 → 1, 0.26 → 2, 0.5 → 2, 0.75 → 3, 0.76 → 4, 1 → 4
        [(0, 10), (0.25, 10), (0.26, 20), (0.5, 20), (0.75, 20), (0.76, 30), (1, 30)],
    )
    def test_by_hand(self, q: float, expected_ns: int) -> None:
        assert Distribution.from_counts({10: 1, 20: 2, 30: 1}).quantile_ns(q) == expected_ns

    def test_p99_of_100_calls_is_the_99th(self) -> None:
        assert Distribution.from_samples(range(1, 101)).quantile_ns(0.99) == 99

    @pytest.mark.parametrize("percent", [25, 50, 75, 90, 99])
    def test_the_quantiles_in_use_have_exact_ranks(self, percent: int) -> None:
        for count in [*range(1, 1500), 10**4, 10**6 - 1, 10**6 + 1]:
            rank = -(-percent * count // 100)
            # Below the rank one value, at it another, above it a third: an error of 1 shows.
            distribution = Distribution.from_counts({1: rank - 1, 2: 1, 3: count - rank})
            assert distribution.quantile_ns(percent / 100) == 2, count

    @pytest.mark.parametrize("seed", SEEDS)
    def test_against_numpy_on_expanded_samples(self, kind: str, seed: int) -> None:
        samples = latencies(kind, seed)
        distribution = Distribution.from_samples(samples)
        edges = np.arange(samples.size + 1) / samples.size
        quantiles = np.concatenate(
            [
                np.random.default_rng(seed).random(200),
                np.arange(1001) / 1000,
                edges[:: max(1, samples.size // 300)],
                np.clip(np.nextafter(edges[:50], 2), 0, 1),
                np.clip(np.nextafter(edges[:50], -1), 0, 1),
            ]
        )
        expected = np.quantile(samples, quantiles, method="inverted_cdf")
        assert [distribution.quantile_ns(float(q)) for q in quantiles] == expected.tolist()

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 30, 100, 300, 1000])
    def test_decimals_against_numpy(self, size: int) -> None:
        samples = np.arange(size)
        distribution = Distribution.from_samples(samples)
        quantiles = np.arange(10_001) / 10_000
        expected = np.quantile(samples, quantiles, method="inverted_cdf")
        assert [distribution.quantile_ns(float(q)) for q in quantiles] == expected.tolist()

    def test_of_a_hundred_million_calls(self) -> None:
        # p99 is the call of rank 99,000,000: the only one of 2000 ns, the last before the tail.
        distribution = Distribution.from_counts({1000: 98_999_999, 2000: 1, 3000: 1_000_000})
        assert distribution.count == 100_000_000
        assert distribution.quantile_ns(0.99) == 2000

    @pytest.mark.parametrize("q", [-0.01, 1.01, math.nan])
    def test_outside(self, q: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            Distribution.from_counts({1: 1}).quantile_ns(q)

    def test_the_answer_is_a_plain_integer(self) -> None:
        assert type(Distribution.from_counts({1: 1}).quantile_ns(0.5)) is int


class TestFilters:
    # N = 10, Q1 = call of rank ceil(2.5) = 3 = 110, Q3 = call of rank ceil(7.5) = 8 = 120,
    # IQR = 10, fences 110 − 15 = 95 and 120 + 15 = 135: a value on each, and one just beyond.
    FENCED = Distribution.from_counts({94: 1, 95: 1, 110: 3, 120: 3, 135: 1, 136: 1})

    def test_fences_by_hand(self) -> None:
        assert self.FENCED.fences_ns() == (95.0, 135.0)

    def test_fences_between_whole_nanoseconds(self) -> None:
        # Q1 = 10, Q3 = 13, reach 1.5·3 = 4.5
        assert Distribution.from_samples([10, 11, 13, 14]).fences_ns() == (5.5, 17.5)

    def test_filter_keeps_what_lies_on_a_fence(self) -> None:
        assert self.FENCED.iqr_filtered() == Distribution.from_counts(
            {95: 1, 110: 3, 120: 3, 135: 1}
        )

    @pytest.mark.parametrize("seed", SEEDS)
    def test_filter_against_expanded_samples(self, kind: str, seed: int) -> None:
        samples = latencies(kind, seed)
        q1, q3 = np.quantile(samples, [0.25, 0.75], method="inverted_cdf").tolist()
        low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
        kept = [sample for sample in samples.tolist() if low <= sample <= high]
        assert Distribution.from_samples(samples).iqr_filtered() == Distribution.from_samples(kept)

    def test_filter_of_a_single_value_keeps_it(self) -> None:
        only = Distribution.from_counts({7: 3})
        assert only.iqr_filtered() == only

    def test_within_includes_both_ends(self) -> None:
        distribution = Distribution.from_counts({1: 1, 2: 2, 3: 3, 4: 4})
        assert distribution.within(2, 3) == Distribution.from_counts({2: 2, 3: 3})
        assert distribution.within(2.1, 2.9) == Distribution.empty()


class TestMergeAndDifference:
    LEFT = Distribution.from_counts({10: 1, 20: 2})
    RIGHT = Distribution.from_counts({20: 3, 30: 4})
    BOTH = Distribution.from_counts({10: 1, 20: 5, 30: 4})

    def test_merged(self) -> None:
        assert self.LEFT.merged(self.RIGHT) == self.BOTH
        assert self.RIGHT.merged(self.LEFT) == self.BOTH

    def test_without_undoes_merged(self) -> None:
        assert self.BOTH.without(self.RIGHT) == self.LEFT
        assert self.BOTH.without(self.LEFT) == self.RIGHT

    def test_operands_are_unchanged(self) -> None:
        self.BOTH.without(self.LEFT)
        self.LEFT.merged(self.RIGHT)
        assert Distribution.from_counts({10: 1, 20: 5, 30: 4}) == self.BOTH
        assert Distribution.from_counts({10: 1, 20: 2}) == self.LEFT

    def test_with_the_empty_one(self) -> None:
        empty = Distribution.empty()
        assert empty.merged(self.LEFT) == self.LEFT
        assert self.LEFT.merged(empty) == self.LEFT
        assert self.LEFT.without(empty) == self.LEFT
        assert empty.without(empty) == empty
        assert self.LEFT.without(self.LEFT) == empty

    @pytest.mark.parametrize(
        ("taken", "reason"),
        [
            ({20: 3}, "cannot take out 3 calls of 20 ns: there are 2"),
            ({15: 1}, "cannot take out 1 calls of 15 ns: there are 0"),
            ({10: 1, 40: 2}, "cannot take out 2 calls of 40 ns: there are 0"),
        ],
    )
    def test_without_refuses_what_is_not_there(self, taken: dict[int, int], reason: str) -> None:
        with pytest.raises(ValueError, match=f"^{reason}$"):
            self.LEFT.without(Distribution.from_counts(taken))

    def test_the_empty_one_has_nothing_to_take(self) -> None:
        with pytest.raises(ValueError, match="there are 0"):
            Distribution.empty().without(self.LEFT)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_against_expanded_samples(self, kind: str, seed: int) -> None:
        left, right = latencies(kind, seed), latencies(kind, seed + 1000)
        merged = Distribution.from_samples(left).merged(Distribution.from_samples(right))
        assert merged == Distribution.from_samples(np.concatenate([left, right]))
        assert merged.without(Distribution.from_samples(left)) == Distribution.from_samples(right)


class TestEmpty:
    def test_count(self) -> None:
        assert Distribution.empty().count == 0

    def test_all_ways_to_it_are_equal(self) -> None:
        empty = Distribution.empty()
        assert Distribution.from_counts({}) == empty
        assert Distribution.from_counts({5: 0}) == empty
        assert Distribution.from_samples([]) == empty

    @pytest.mark.parametrize(
        ("attribute", "statistic"),
        [
            ("mean_ns", "mean"),
            ("stddev_ns", "standard deviation"),
            ("min_ns", "minimum"),
            ("max_ns", "maximum"),
        ],
    )
    def test_moments_raise(self, attribute: str, statistic: str) -> None:
        with pytest.raises(ValueError, match=f"^a distribution of no calls has no {statistic}$"):
            getattr(Distribution.empty(), attribute)

    def test_quantiles_and_fences_raise(self) -> None:
        for ask in (
            lambda: Distribution.empty().quantile_ns(0.5),
            Distribution.empty().fences_ns,
            Distribution.empty().iqr_filtered,
        ):
            with pytest.raises(ValueError, match="no calls has no quantile"):
                ask()


class TestEquality:
    def test_values_and_counts_matter(self) -> None:
        distribution = Distribution.from_counts({1: 1, 2: 2})
        assert distribution == Distribution.from_samples([2, 1, 2])
        assert distribution != Distribution.from_counts({1: 1, 3: 2})
        assert distribution != Distribution.from_counts({1: 1, 2: 3})
        assert distribution != Distribution.from_counts({1: 1})
        assert distribution != {1: 1, 2: 2}

    def test_no_hash(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(Distribution.empty())
