import math
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from pytest_syslat.distribution import Distribution
from pytest_syslat.summary import (
    FIGURES_TRACED,
    STATS_COLUMNS,
    SUMMARY_COLUMNS,
    figures_us,
    stats_frame,
    summary_frame,
    summary_rows,
)

SUMMARY_HEADER = "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
STATS_HEADER = (
    "label,syscall,trials,filter,avg_p50_us,std_p50_us,avg_p99_us,std_p99_us,"
    "avg_mean_us,std_mean_us,avg_count,std_count"
)

# N = 10. Q1 = call of rank 3 = 2000, Q3 = call of rank 8 = 3000, fences 500 and 4500 ns.
CALLS = Distribution.from_counts({1000: 1, 2000: 5, 3000: 3, 103_500: 1})


def row(
    label: str = "vanilla",
    syscall: str = "openat",
    trial: int = 1,
    filter_name: str = "raw",
    **figures: float,
) -> dict[str, object]:
    numbers = dict.fromkeys(("avg_us", "p50_us", "p99_us", "min_us", "max_us", "stddev_us"), 0.0)
    return {
        "label": label,
        "syscall": syscall,
        "trial": trial,
        "filter": filter_name,
        "count": 1,
        **numbers,
        **figures,
    }


def test_columns_are_those_scripts_of_users_read() -> None:
    assert ",".join(SUMMARY_COLUMNS) == SUMMARY_HEADER
    assert ",".join(STATS_COLUMNS) == STATS_HEADER


class TestFigures:
    def test_by_hand(self) -> None:
        # p50: rank 5 → 2000 (cumulative 1, 6, 9, 10); p90: rank 9 → 3000; p99: rank 10 → 103,500
        # mean: (1000 + 5·2000 + 3·3000 + 103,500) / 10 = 123,500 / 10 = 12,350 ns
        assert figures_us(CALLS) == {"p50": 2.0, "p90": 3.0, "p99": 103.5, "mean": 12.35}

    def test_names(self) -> None:
        assert FIGURES_TRACED == ("p50", "p90", "p99", "mean")
        assert tuple(figures_us(CALLS)) == FIGURES_TRACED

    def test_no_calls(self) -> None:
        with pytest.raises(ValueError, match="no calls"):
            figures_us(Distribution.empty())


class TestSummaryRows:
    def test_raw_by_hand(self) -> None:
        raw, _ = summary_rows("tetragon", "connect", 3, CALLS)
        # Deviations from 12,350: −11,350, 5 × −10,350, 3 × −9,350, 91,150; squares: 128,822,500
        # + 5·107,122,500 + 3·87,422,500 + 8,308,322,500 = 9,235,025,000; / 10 = 923,502,500
        # √ = 30,389.184 ns (a sample's, / 9, were 32,032.9)
        assert raw.pop("stddev_us") == pytest.approx(30.389184, abs=1e-6)
        assert raw == {
            "label": "tetragon",
            "syscall": "connect",
            "trial": 3,
            "filter": "raw",
            "avg_us": 12.35,
            "p50_us": 2.0,
            "p99_us": 103.5,
            "min_us": 1.0,
            "max_us": 103.5,
            "count": 10,
        }

    def test_iqr_by_hand(self) -> None:
        _, iqr = summary_rows("tetragon", "connect", 3, CALLS)
        # Without the call of 103,500: N = 9; mean 20,000 / 9 = 2222.2 ns; p50: rank 5 → 2000;
        # p99: rank 9 → 3000. Mean of squares (1 + 5·4 + 3·9)·10⁶ / 9 = 48/9·10⁶, minus (20/9)²·10⁶
        # = (432 − 400)/81·10⁶ = 32/81·10⁶; √ = 628.539 ns
        assert iqr.pop("stddev_us") == pytest.approx(0.628539, abs=1e-6)
        assert iqr.pop("avg_us") == pytest.approx(20 / 9, rel=1e-15)
        assert iqr == {
            "label": "tetragon",
            "syscall": "connect",
            "trial": 3,
            "filter": "iqr",
            "p50_us": 2.0,
            "p99_us": 3.0,
            "min_us": 1.0,
            "max_us": 3.0,
            "count": 9,
        }

    def test_nothing_is_rounded(self) -> None:
        # mean (1000 + 1000 + 1001) / 3 = 1000.333… ns
        raw, _ = summary_rows("vanilla", "openat", 1, Distribution.from_samples([1000, 1000, 1001]))
        assert raw["avg_us"] == pytest.approx(1.000333333333, abs=1e-12)

    def test_no_calls(self) -> None:
        with pytest.raises(ValueError, match="no calls"):
            summary_rows("vanilla", "openat", 1, Distribution.empty())


class TestSummaryFrame:
    def test_rows_and_order_of_columns(self) -> None:
        rows = summary_rows("vanilla", "openat", 1, CALLS)
        frame = summary_frame(dict(reversed(row.items())) for row in rows)
        assert ",".join(frame.columns) == SUMMARY_HEADER
        assert frame.to_dict("records") == rows

    def test_types_also_without_rows(self) -> None:
        for frame in (summary_frame([]), summary_frame([row()])):
            assert ",".join(frame.columns) == SUMMARY_HEADER
            assert [frame[column].dtype for column in ("trial", "count")] == [np.int64] * 2
            for column in ("avg_us", "p50_us", "p99_us", "min_us", "max_us", "stddev_us"):
                assert frame[column].dtype == np.float64
        assert len(summary_frame([])) == 0

    def test_a_missing_column_is_an_error(self) -> None:
        incomplete = row()
        del incomplete["p99_us"]
        with pytest.raises(KeyError, match="p99_us"):
            summary_frame([row(), incomplete])


class TestStatsFrame:
    def test_by_hand(self) -> None:
        summary = summary_frame(
            [
                row(trial=1, p50_us=10.0, p99_us=20.0, avg_us=11.0, count=1000),
                row(trial=2, p50_us=12.0, p99_us=26.0, avg_us=11.5, count=1001),
                row(trial=3, p50_us=17.0, p99_us=20.0, avg_us=12.0, count=1005),
            ]
        )
        (stats,) = stats_frame(summary, "raw").to_dict("records")
        # p50: mean 39/3 = 13; deviations −3, −1, 4; √(26/2) = √13 (a population's were √(26/3))
        # p99: mean 66/3 = 22; deviations −2, 4, −2; √(24/2) = √12
        # mean: 34.5/3 = 11.5; deviations −0.5, 0, 0.5; √(0.5/2) = 0.5
        # count: 3006/3 = 1002; deviations −2, −1, 3; √(14/2) = √7
        assert stats == {
            "label": "vanilla",
            "syscall": "openat",
            "trials": 3,
            "filter": "raw",
            "avg_p50_us": pytest.approx(13.0, rel=1e-14),
            "std_p50_us": pytest.approx(math.sqrt(13), rel=1e-14),
            "avg_p99_us": pytest.approx(22.0, rel=1e-14),
            "std_p99_us": pytest.approx(math.sqrt(12), rel=1e-14),
            "avg_mean_us": pytest.approx(11.5, rel=1e-14),
            "std_mean_us": pytest.approx(0.5, rel=1e-14),
            "avg_count": pytest.approx(1002.0, rel=1e-14),
            "std_count": pytest.approx(math.sqrt(7), rel=1e-14),
        }

    @pytest.mark.parametrize("filter_name", ["raw", "iqr"])
    def test_only_rows_of_the_filter(self, filter_name: Literal["raw", "iqr"]) -> None:
        summary = summary_frame(
            [
                row(trial=1, filter_name="raw", p50_us=1.0),
                row(trial=1, filter_name="iqr", p50_us=100.0),
                row(trial=2, filter_name="raw", p50_us=3.0),
                row(trial=2, filter_name="iqr", p50_us=300.0),
            ]
        )
        (stats,) = stats_frame(summary, filter_name).to_dict("records")
        assert stats["filter"] == filter_name
        assert stats["trials"] == 2
        assert stats["avg_p50_us"] == {"raw": 2.0, "iqr": 200.0}[filter_name]

    def test_groups_in_order_of_first_appearance(self) -> None:
        summary = summary_frame(
            [
                row("vanilla", "openat", 1, p50_us=1.0),
                row("falco", "openat", 1, p50_us=2.0),
                row("vanilla", "connect", 1, p50_us=4.0),
                row("vanilla", "openat", 2, p50_us=3.0),
            ]
        )
        stats = stats_frame(summary, "raw")
        assert stats[["label", "syscall", "trials", "avg_p50_us"]].to_numpy().tolist() == [
            ["vanilla", "openat", 2, 2.0],
            ["falco", "openat", 1, 2.0],
            ["vanilla", "connect", 1, 4.0],
        ]

    def test_one_trial_has_no_standard_deviation(self) -> None:
        stats = stats_frame(summary_frame([row(p50_us=5.0)]), "raw")
        assert stats["avg_p50_us"].tolist() == [5.0]
        for column in ("std_p50_us", "std_p99_us", "std_mean_us", "std_count"):
            assert stats[column].isna().all()

    def test_figures_are_averaged_unrounded(self) -> None:
        # (1.0004 + 1.0004 + 1.0007) / 3 = 1.0005; rounded first it were (1 + 1 + 1.001)/3 = 1.00033
        # deviations −0.0001, −0.0001, 0.0002; √(6e-8 / 2) = 1.732e-4; rounded first 5.77e-4
        summary = summary_frame(
            row(trial=trial, p50_us=p50) for trial, p50 in enumerate((1.0004, 1.0004, 1.0007), 1)
        )
        stats = stats_frame(summary, "raw")
        assert stats["avg_p50_us"].item() == pytest.approx(1.0005, abs=1e-12)
        assert stats["std_p50_us"].item() == pytest.approx(1.7320508e-4, abs=1e-10)

    def test_no_rows(self) -> None:
        for summary in (summary_frame([]), summary_frame([row(filter_name="iqr")])):
            stats = stats_frame(summary, "raw")
            assert len(stats) == 0
            assert ",".join(stats.columns) == STATS_HEADER
            assert stats["trials"].dtype == np.int64
            assert stats["std_count"].dtype == np.float64

    def test_types(self) -> None:
        stats = stats_frame(summary_frame([row(count=3), row(trial=2, count=4)]), "raw")
        assert stats["trials"].dtype == np.int64
        assert stats["avg_count"].tolist() == [3.5]

    def test_the_summary_is_unchanged(self) -> None:
        summary = summary_frame([row(), row(trial=2)])
        before = summary.copy()
        stats_frame(summary, "raw")
        pd.testing.assert_frame_equal(summary, before)
