"""Exact distributions of latencies: how often each value occurred.

Every figure is computed from the pairs of value and count, never from a list of single calls, so
that 10⁸ calls cost no more than 10⁴ with the same number of distinct values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

_INT64_MAX = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False, slots=True)
class Distribution:
    """How often each latency occurred: exact counts, not samples of them.

    The arrays are copied and made read-only. Two distributions are equal if they hold the same
    values equally often; they have no hash.

    Attributes:
        values_ns: The latencies that occurred, in ns, shape (k,), not negative and strictly
            ascending.
        counts: How often each of them occurred, shape (k,), each at least 1.

    Raises:
        ValueError: If the arrays break one of these conditions or are not int64.
    """

    values_ns: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("values_ns", "counts"):
            array = getattr(self, name)
            if array.dtype != np.int64 or array.ndim != 1:
                raise ValueError(
                    f"{name} must be a one-dimensional array of int64, "
                    f"not {array.ndim}-dimensional of {array.dtype}"
                )
            private = array.copy()
            private.flags.writeable = False
            object.__setattr__(self, name, private)
        if self.values_ns.size != self.counts.size:
            raise ValueError(
                f"{self.values_ns.size} values cannot have {self.counts.size} counts: "
                "each value has one"
            )
        if (self.values_ns < 0).any():
            raise ValueError(f"a latency cannot be negative: {self.values_ns.min()} ns")
        if (self.values_ns[1:] <= self.values_ns[:-1]).any():
            raise ValueError("values_ns must be strictly ascending")
        if (self.counts <= 0).any():
            raise ValueError(f"every count must be at least 1, not {self.counts.min()}")

    @classmethod
    def from_counts(cls, counts_by_value_ns: Mapping[int, int]) -> Self:
        """Take the counts as a tracer's map holds them.

        Args:
            counts_by_value_ns: Count of each latency in ns, in any order. Counts of zero are
                dropped.

        Raises:
            ValueError: If a latency or a count is negative or does not fit into 63 bits.
        """
        for value_ns, count in counts_by_value_ns.items():
            if not (0 <= value_ns <= _INT64_MAX and 0 <= count <= _INT64_MAX):
                raise ValueError(
                    f"latencies and counts lie between 0 and 2^63 - 1, "
                    f"not {value_ns} ns with count {count}"
                )
        occurred = sorted(item for item in counts_by_value_ns.items() if item[1] != 0)
        pairs = np.array(occurred, dtype=np.int64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])

    @classmethod
    def from_samples(cls, samples_ns: ArrayLike) -> Self:
        """Count single latencies.

        Args:
            samples_ns: Latencies in whole ns, in any order and of any shape.

        Raises:
            ValueError: If they are not integers, or one is negative or does not fit into 63 bits.
        """
        samples = np.asarray(samples_ns)
        if samples.size == 0:
            return cls.empty()
        if not np.issubdtype(samples.dtype, np.integer):
            raise ValueError(f"latencies must be whole nanoseconds, not {samples.dtype}")
        values, counts = np.unique(samples, return_counts=True)
        if int(values[-1]) > _INT64_MAX:
            raise ValueError(f"a latency of {values[-1]} ns does not fit into 63 bits")
        return cls(values.astype(np.int64), counts.astype(np.int64))

    @classmethod
    def empty(cls) -> Self:
        """Give the distribution of no calls: its count is 0, its statistics raise ValueError."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    @property
    def count(self) -> int:
        """Number of calls."""
        return int(self.counts.sum())

    @property
    def mean_ns(self) -> float:
        """Arithmetic mean in ns, correctly rounded.

        Raises:
            ValueError: If the distribution is empty.
        """
        self._require_calls("mean")
        return float(self._total_ns() / self.count)

    @property
    def stddev_ns(self) -> float:
        """Population standard deviation in ns: √(Σ count · (value − mean)² / N).

        Raises:
            ValueError: If the distribution is empty.
        """
        self._require_calls("standard deviation")
        # Beside a large mean, Σ value² − N · mean² would lose every digit of a small spread, and
        # subtracting the mean rounded to float64 some of them. The whole nanosecond below the mean
        # can be subtracted exactly.
        whole_ns, rest = divmod(self._total_ns(), self.count)
        centred_ns = (self.values_ns - whole_ns) - rest / self.count
        return math.sqrt(np.average(np.square(centred_ns), weights=self.counts))

    @property
    def min_ns(self) -> int:
        """Smallest latency in ns.

        Raises:
            ValueError: If the distribution is empty.
        """
        self._require_calls("minimum")
        return int(self.values_ns[0])

    @property
    def max_ns(self) -> int:
        """Largest latency in ns.

        Raises:
            ValueError: If the distribution is empty.
        """
        self._require_calls("maximum")
        return int(self.values_ns[-1])

    def quantile_ns(self, q: float) -> int:
        """Give the inverted CDF: the smallest value up to which at least q·N calls lie.

        This is definition 1 of Hyndman and Fan (1996), "Sample Quantiles in Statistical Packages",
        and numpy's `method="inverted_cdf"`: always a latency that was observed. As there, q·N is
        the product in float64. For 0.25, 0.5, 0.9 and 0.99 its rounding never shifts the rank
        (0.99 · 100 is 99); for other decimals it can by one (0.07 · 100 is 7.000000000000001).

        Args:
            q: Between 0 and 1; 0 gives the minimum.

        Raises:
            ValueError: If the distribution is empty or q lies outside.
        """
        self._require_calls("quantile")
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        return int(self.values_ns[np.searchsorted(np.cumsum(self.counts), q * self.count)])

    def fences_ns(self) -> tuple[float, float]:
        """Give Tukey's inner fences, Q1 − 1.5 · IQR and Q3 + 1.5 · IQR, in ns.

        From Tukey (1977), "Exploratory Data Analysis"; the quartiles are those of `quantile_ns`.

        Raises:
            ValueError: If the distribution is empty.
        """
        q1_ns, q3_ns = self.quantile_ns(0.25), self.quantile_ns(0.75)
        reach_ns = 1.5 * (q3_ns - q1_ns)
        return q1_ns - reach_ns, q3_ns + reach_ns

    def within(self, low_ns: float, high_ns: float) -> Self:
        """Keep the calls with low_ns ≤ latency ≤ high_ns."""
        return self._where((self.values_ns >= low_ns) & (self.values_ns <= high_ns), self.counts)

    def iqr_filtered(self) -> Self:
        """Keep the calls within the fences, those on a fence included; never leaves none.

        Raises:
            ValueError: If the distribution is empty, which has no fences.
        """
        return self.within(*self.fences_ns())

    def merged(self, other: "Distribution") -> Self:
        """Give the distribution of the calls of both."""
        values_ns = np.union1d(self.values_ns, other.values_ns)
        counts = np.zeros_like(values_ns)
        for part in (self, other):
            counts[np.searchsorted(values_ns, part.values_ns)] += part.counts
        return type(self)(values_ns, counts)

    def without(self, other: "Distribution") -> Self:
        """Take the calls of another distribution out of this one.

        Raises:
            ValueError: If the other holds more calls of some latency than this one.
        """
        held = np.isin(other.values_ns, self.values_ns)
        positions = np.searchsorted(self.values_ns, other.values_ns[held])
        missing = other.counts.copy()
        missing[held] -= self.counts[positions]
        if (missing > 0).any():
            worst = int(np.argmax(missing))
            raise ValueError(
                f"cannot take out {other.counts[worst]} calls of {other.values_ns[worst]} ns: "
                f"there are {other.counts[worst] - missing[worst]}"
            )
        remaining = self.counts.copy()
        remaining[positions] -= other.counts[held]
        return self._where(remaining > 0, remaining)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distribution):
            return NotImplemented
        return np.array_equal(self.values_ns, other.values_ns) and np.array_equal(
            self.counts, other.counts
        )

    # An __eq__ of one's own removes the hash anyway; said openly so that nobody looks for it.
    __hash__ = None  # type: ignore[assignment]

    def _total_ns(self) -> int:
        # 10⁸ calls of 10¹¹ ns are more than int64 holds; Python's integers have no such limit, and
        # the quotient of two of them is rounded only once.
        pairs = zip(self.values_ns.tolist(), self.counts.tolist(), strict=True)
        return sum(value_ns * count for value_ns, count in pairs)

    def _where(self, chosen: NDArray[np.bool_], counts: NDArray[np.int64]) -> Self:
        return type(self)(self.values_ns[chosen], counts[chosen])

    def _require_calls(self, statistic: str) -> None:
        if self.values_ns.size == 0:
            raise ValueError(f"a distribution of no calls has no {statistic}")
