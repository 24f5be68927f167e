"""The CSV files of other programs: what is read from them, and what is said against them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_syslat.foreign import read_foreign
from pytest_syslat.plan import TrialKey
from pytest_syslat.stored import StoredProblem, StoredRun

HEADER = "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
STATS_HEADER = (
    "label,syscall,trials,filter,avg_p50_us,std_p50_us,avg_p99_us,std_p99_us,"
    "avg_mean_us,std_mean_us,avg_count,std_count"
)
STUDY_VANILLA = (
    "vanilla,openat,1,raw,3,2,21,1,40,45,6",
    "vanilla,openat,1,iqr,2,2,3,1,3,38,0",
    "vanilla,openat,2,raw,3,2,19,1,38,20,5",
    "vanilla,openat,2,iqr,2,2,3,1,3,17,0",
    "vanilla,connect,1,raw,25,24,61,19,90,4500,8",
    "vanilla,connect,1,iqr,24,24,31,19,36,4100,3",
    "vanilla,execve,1,raw,2,1,4,1,9,7697,1",
    "vanilla,execve,1,iqr,1,1,2,1,2,7300,0",
)
"""In the style of a public study: whole µs, few opens, and execves that have failed."""
STUDY_FALCO = (
    "falco,connect,1,raw,31,30,88,22,140,45,14",
    "falco,connect,1,iqr,30,30,40,22,50,41,4",
)


def write(root: Path, label: str, rows: Sequence[str], *, header: str = HEADER) -> Path:
    """Write a summary as the original scripts do."""
    file = root / label / f"{label}_summary.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in (header, *rows)))
    return file


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write(tmp_path, "vanilla", STUDY_VANILLA)
    write(tmp_path, "falco", STUDY_FALCO)
    return tmp_path


def sentences(run: StoredRun, syscall: str | None) -> list[str]:
    return [each.sentence for each in run.weaknesses if each.syscall == syscall]


def test_the_figures_are_those_of_the_raw_rows(study: Path) -> None:
    run = read_foreign(study)
    assert run.labels == ["falco", "vanilla"]
    assert len(run.trials) == 5
    trial = run.trials[TrialKey("connect", "falco", 1)]
    assert trial.figures_us == {"p50": 30.0, "p99": 88.0, "mean": 31.0}
    assert (trial.figure_us("p90"), trial.figure_us("user")) == (None, None)
    assert (trial.placement, trial.refused, run.is_ours, run.date) == (
        "unknown",
        False,
        False,
        "unknown",
    )


def test_the_weaknesses_of_a_study(study: Path) -> None:
    run = read_foreign(study)
    assert sentences(run, None) == [
        "no program of ours measured it: failed calls may be among its figures",
        "it has no user cost: what the tracer does not see is not known",
        ("no sysinfo describes the machine of falco, vanilla: nothing shows that it is this one"),
    ]
    # p50 of 24 and 30 µs: the lower of the middle ones is 24, and 0.5 of 24 is 2.08 %.
    assert sentences(run, "connect") == [
        "connect: p50, p99, mean in whole µs: a p50 of 24 µs may be 23.5 to 24.5 µs, ±2 %",
        (
            "connect: as few as 45 calls a trial: below 300 the p99 has no upper bound, and the "
            "loader's own calls weigh"
        ),
        "connect: numbers of calls differ 100-fold between trials or arms (45 to 4,500)",
    ]
    assert sentences(run, "openat") == [
        "openat: p50, p99, mean in whole µs: a p50 of 2 µs may be 1.5 to 2.5 µs, ±25 %",
        (
            "openat: as few as 20 calls a trial: below 300 the p99 has no upper bound, and the "
            "loader's own calls weigh"
        ),
    ]
    assert sentences(run, "execve") == [
        "execve: p50, p99, mean in whole µs: a p50 of 1 µs may be 0.5 to 1.5 µs, ±50 %",
        (
            "execve: the mean of 1 trials is below 5 µs: these calls have probably failed (one "
            "that fails took 1.3 µs, one that succeeds 56 µs)"
        ),
    ]


def test_good_figures_have_the_general_weaknesses_only(tmp_path: Path) -> None:
    write(tmp_path, "vanilla", ["vanilla,execve,1,raw,60.125,56.250,80.500,40.125,99.5,5000,3.25"])
    (tmp_path / "vanilla/vanilla_sysinfo.txt").write_text("kernel: 6.1\n")
    run = read_foreign(tmp_path)
    assert len(run.weaknesses) == 2
    assert all(each.syscall is None for each in run.weaknesses)


def test_rows_without_outliers_are_a_weakness(tmp_path: Path) -> None:
    write(
        tmp_path,
        "vanilla",
        [
            "vanilla,openat,1,iqr,2.5,2.25,3.5,1,4,5000,0.5",
            "vanilla,openat,2,iqr,9.5,9.25,9.5,1,9,5000,0.5",
            "vanilla,openat,2,raw,2.6,2.35,9.5,1,90,5100,1.5",
        ],
    )
    run = read_foreign(tmp_path)
    assert run.trials[TrialKey("openat", "vanilla", 1)].figure_us("p50") == 2.25
    # Raw wins, wherever it stands.
    assert run.trials[TrialKey("openat", "vanilla", 2)].figure_us("p50") == 2.35
    assert sentences(run, "openat") == [
        "openat: only rows without outliers (iqr) for 1 of 2 trials: a slow tail is cut off"
    ]


def test_deviations_of_zero(tmp_path: Path) -> None:
    write(
        tmp_path,
        "vanilla",
        [f"vanilla,connect,{number},raw,12.5,12.25,20.5,1,4,5000,0" for number in (1, 2)],
    )
    (tmp_path / "vanilla/vanilla_stats_iqr.csv").write_text(
        f"{STATS_HEADER}\nvanilla,connect,2,iqr,12.25,0,20.5,0,12.5,0,5000,0\n"
    )
    assert sentences(read_foreign(tmp_path), "connect") == [
        "connect: the deviation within each trial is 0, which no real latencies have",
        (
            "connect: the averages over trials have no deviation at all: rounded, or one trial "
            "copied"
        ),
    ]


def test_zeros_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        "vanilla",
        ["vanilla,openat,1,raw,1,0,3,0,9,5000,1", "vanilla,openat,2,raw,1,,3,0,9,5000,1"],
    )
    run = read_foreign(tmp_path)
    assert run.trials[TrialKey("openat", "vanilla", 1)].figures_us == {"p99": 3.0, "mean": 1.0}
    assert run.trials[TrialKey("openat", "vanilla", 2)].figure_us("p50") is None
    assert "openat: 1 figures are 0 µs, below the resolution: they are left out" in sentences(
        run, "openat"
    )
    assert "openat: p50, p99, mean in whole µs" in sentences(run, "openat")


ROW = "vanilla,openat,1,raw,2.5,2.25,3.5,1,4,5000,0.5"


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        (
            HEADER.replace("p50_us", "median_us"),
            [ROW],
            "FILE: column 6 is 'median_us' instead of 'p50_us'",
        ),
        (HEADER.replace(",stddev_us", ""), [ROW], "FILE: column 11 ('stddev_us') is missing"),
        (
            HEADER,
            [ROW, ROW.replace("2.25", "fast")],
            "FILE, line 3: 'fast' is no value for column 'p50_us'",
        ),
        (HEADER, [f"{ROW},9"], "FILE, line 2: 12 fields where 11 belong"),
        (HEADER, [ROW.removeprefix("vanilla")], "FILE, line 2: the label is missing"),
        (
            HEADER,
            [ROW.replace("openat", "chmod")],
            "FILE, line 2: unknown syscall 'chmod', known are execve, openat, connect",
        ),
        (
            HEADER,
            [ROW.replace("raw", "trimmed")],
            "FILE, line 2: the filter is 'trimmed', not 'raw' or 'iqr'",
        ),
        (HEADER, [ROW.replace("2.25", "-1")], "FILE, line 2: a latency is negative or infinite"),
        (HEADER, [ROW.replace("2.25", "inf")], "FILE, line 2: a latency is negative or infinite"),
        (HEADER, [], "FILE has a header and no rows: measure again"),
        (
            HEADER,
            [ROW.replace("vanilla", "baseline")],
            (
                "ROOT holds no arm 'vanilla', but baseline: the label of the runs without an agent "
                "must be 'vanilla'"
            ),
        ),
    ],
)
def test_malformed_files(tmp_path: Path, header: str, rows: list[str], told: str) -> None:
    file = write(tmp_path, "vanilla", rows, header=header)
    with pytest.raises(StoredProblem) as problem:
        read_foreign(tmp_path)
    assert str(problem.value) == told.replace("FILE", str(file)).replace("ROOT", str(tmp_path))


def test_an_empty_file(tmp_path: Path) -> None:
    file = write(tmp_path, "vanilla", [])
    file.write_text("\n")
    with pytest.raises(StoredProblem) as problem:
        read_foreign(tmp_path)
    assert str(problem.value) == f"{file} is empty: it needs the header {HEADER} and a row a trial"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = write(tmp_path, "vanilla", [])
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(StoredProblem, match="is not UTF-8 text"):
        read_foreign(tmp_path)


def test_a_malformed_file_of_averages(tmp_path: Path) -> None:
    write(tmp_path, "vanilla", [ROW])
    file = tmp_path / "vanilla/vanilla_stats_raw.csv"
    file.write_text("label,syscall\n")
    with pytest.raises(StoredProblem, match=r"vanilla_stats_raw.csv: column 3 \('trials'\)"):
        read_foreign(tmp_path)


def test_our_own_files_are_read_too(tmp_path: Path) -> None:
    """Without run.json they are as good as anybody's."""
    write(tmp_path, "vanilla", [ROW])
    assert read_foreign(tmp_path).labels == ["vanilla"]


def test_a_directory_without_such_files(tmp_path: Path) -> None:
    with pytest.raises(StoredProblem) as problem:
        read_foreign(tmp_path)
    assert str(problem.value) == (
        f"{tmp_path} holds no run.json and no LABEL/LABEL_summary.csv: give the result directory "
        "of a run"
    )
