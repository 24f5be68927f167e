"""Rows of the standard files: figures of each trial, and their averages over trials."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import pandas as pd

from pytest_syslat.distribution import Distribution

SUMMARY_TYPES: Final[Mapping[str, type]] = {
    "label": str,
    "syscall": str,
    "trial": int,
    "filter": str,
    "avg_us": float,
    "p50_us": float,
    "p99_us": float,
    "min_us": float,
    "max_us": float,
    "count": int,
    "stddev_us": float,
}
"""Columns of `<label>_summary.csv` in their order, and what each holds."""

STATS_TYPES: Final[Mapping[str, type]] = {
    "label": str,
    "syscall": str,
    "trials": int,
    "filter": str,
    "avg_p50_us": float,
    "std_p50_us": float,
    "avg_p99_us": float,
    "std_p99_us": float,
    "avg_mean_us": float,
    "std_mean_us": float,
    "avg_count": float,
    "std_count": float,
}
"""Columns of `<label>_stats_<filter>.csv` in their order, and what each holds."""

SUMMARY_COLUMNS: Final = tuple(SUMMARY_TYPES)
STATS_COLUMNS: Final = tuple(STATS_TYPES)

FIGURES_TRACED: Final = ("p50", "p90", "p99", "mean")
"""Figures of a trial that budgets can name."""

_NS_PER_US = 1000


def figures_us(distribution: Distribution) -> dict[str, float]:
    """Compute the figures that budgets can name, unfiltered and unrounded.

    Returns:
        µs for each of `FIGURES_TRACED`, in that order.

    Raises:
        ValueError: If the distribution is empty.
    """
    return {
        "p50": distribution.quantile_ns(0.50) / _NS_PER_US,
        "p90": distribution.quantile_ns(0.90) / _NS_PER_US,
        "p99": distribution.quantile_ns(0.99) / _NS_PER_US,
        "mean": distribution.mean_ns / _NS_PER_US,
    }


def summary_rows(
    label: str, syscall: str, trial: int, distribution: Distribution
) -> list[dict[str, object]]:
    """Compute the two rows of a trial, unrounded, in µs.

    Args:
        label: The arm.
        syscall: The syscall measured.
        trial: The trial's number.
        distribution: All its calls.

    Returns:
        A row with filter `raw` of all calls, then one with filter `iqr` of those within this
        trial's own Tukey fences; each with `SUMMARY_COLUMNS` as keys.

    Raises:
        ValueError: If the distribution is empty.
    """
    return [
        {
            "label": label,
            "syscall": syscall,
            "trial": trial,
            "filter": filter_name,
            "avg_us": calls.mean_ns / _NS_PER_US,
            "p50_us": calls.quantile_ns(0.50) / _NS_PER_US,
            "p99_us": calls.quantile_ns(0.99) / _NS_PER_US,
            "min_us": calls.min_ns / _NS_PER_US,
            "max_us": calls.max_ns / _NS_PER_US,
            "count": calls.count,
            "stddev_us": calls.stddev_ns / _NS_PER_US,
        }
        for filter_name, calls in (("raw", distribution), ("iqr", distribution.iqr_filtered()))
    ]


def summary_frame(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Put rows of `summary_rows` into a frame with `SUMMARY_COLUMNS`, also when there are none.

    Raises:
        KeyError: If a row lacks a column.
    """
    kept = list(rows)
    columns = {column: [row[column] for row in kept] for column in SUMMARY_COLUMNS}
    return pd.DataFrame(columns).astype(dict(SUMMARY_TYPES))


def stats_frame(summary: pd.DataFrame, filter_name: Literal["raw", "iqr"]) -> pd.DataFrame:
    """Average the figures of trials; the trial is the statistical unit.

    Args:
        summary: Frame with `SUMMARY_COLUMNS`. Nothing is rounded here: figures given unrounded
            are averaged unrounded.
        filter_name: Which of its rows to use.

    Returns:
        Frame with `STATS_COLUMNS`, one row for each label and syscall, in the order of their
        first appearance. Standard deviations are those of a sample, √(Σ(x − mean)² / (n − 1)),
        hence NaN for a single trial.
    """
    chosen = summary[summary["filter"] == filter_name]
    stats = (
        chosen.groupby(["label", "syscall"], sort=False)
        .agg(
            trials=("trial", "count"),
            avg_p50_us=("p50_us", "mean"),
            std_p50_us=("p50_us", "std"),
            avg_p99_us=("p99_us", "mean"),
            std_p99_us=("p99_us", "std"),
            avg_mean_us=("avg_us", "mean"),
            std_mean_us=("avg_us", "std"),
            avg_count=("count", "mean"),
            std_count=("count", "std"),
        )
        .reset_index()
        .assign(filter=filter_name)
    )
    return stats[list(STATS_COLUMNS)]
