import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pytest_syslat.distribution import Distribution
from pytest_syslat.results import (
    DirectoryProblem,
    ResultDirectory,
    claim,
    is_complete_run,
    read_stats,
    read_summary,
    write_atomically,
    write_frame,
)
from pytest_syslat.summary import stats_frame, summary_frame, summary_rows

SUMMARY_HEADER = "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
STATS_HEADER = (
    "label,syscall,trials,filter,avg_p50_us,std_p50_us,avg_p99_us,std_p99_us,"
    "avg_mean_us,std_mean_us,avg_count,std_count"
)
PLACEHOLDER = {"schema": 1, "complete": False}
NOBODY = 65534


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def store_run(root: Path, *, complete: bool, mark: str = "figures") -> None:
    """Make a directory as an earlier run leaves it, with a mark to tell it by."""
    (root / "vanilla").mkdir(parents=True)
    (root / "vanilla" / "vanilla_summary.csv").write_text(mark)
    (root / "run.json").write_text(json.dumps({"schema": 1, "complete": complete}))


def mark_of(root: Path) -> str:
    return (root / "vanilla" / "vanilla_summary.csv").read_text()


def is_prepared(root: Path) -> bool:
    return names(root) == ["run.json"] and (
        json.loads((root / "run.json").read_text()) == PLACEHOLDER
    )


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(*_args: object) -> None:
        raise error

    return fail


class TestWriteAtomically:
    @pytest.mark.parametrize(
        "data", ["µs\r\nline\n", "µs\r\nline\n".encode()], ids=["str", "bytes"]
    )
    def test_content_is_written_as_it_is(self, tmp_path: Path, data: str | bytes) -> None:
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == b"\xc2\xb5s\r\nline\n"
        assert names(tmp_path) == ["file"]

    def test_an_old_file_is_replaced_not_rewritten(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old and longer")
        with path.open() as reader:
            write_atomically(path, "new")
            assert reader.read() == "old and longer"
        assert path.read_text() == "new"

    def test_a_missing_directory_is_created(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "a" / "b" / "file", "x")
        assert (tmp_path / "a" / "b" / "file").read_text() == "x"

    @pytest.mark.parametrize(
        ("umask", "mode"), [(0o000, 0o644), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)]
    )
    def test_mode(self, tmp_path: Path, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            write_atomically(tmp_path / "file", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr
    )
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail_with(error))
            with pytest.raises(type(error)):
                write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_a_directory_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file" / "inside").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            write_atomically(tmp_path / "file", "x")
        assert names(tmp_path) == ["file"]
        assert names(tmp_path / "file") == ["inside"]

    def test_data_reach_the_disk_before_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[list[bytes], bool]] = []
        path = tmp_path / "file"

        def record(_descriptor: int) -> None:
            contents = [each.read_bytes() for each in tmp_path.iterdir()]
            seen.append((contents, path.exists()))

        monkeypatch.setattr(os, "fsync", record)
        write_atomically(path, "new")
        assert seen == [([b"new"], False)]


class TestWriteFrame:
    def test_three_decimals_integers_and_empty_fields(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {"label": ["a", "b,c"], "count": [1, 20], "us": [1.23449, np.nan], "p": [2.0, 1e8]},
            index=[7, 8],
        )
        write_frame(tmp_path / "frame.csv", frame)
        assert (tmp_path / "frame.csv").read_bytes() == (
            b'label,count,us,p\na,1,1.234,2.000\n"b,c",20,,100000000.000\n'
        )


class TestRoundTrip:
    @pytest.fixture
    def summary(self) -> pd.DataFrame:
        random = np.random.default_rng(5)
        return summary_frame(
            row
            for label in ("vanilla", "null", "007", "command:a, b", "two\r\nlines")
            for syscall in ("openat", "connect")
            for trial in (1, 2, 3)
            for row in summary_rows(
                label,
                syscall,
                trial,
                Distribution.from_samples(random.integers(1, 10**7, 501)),
            )
        )

    def test_summary(self, tmp_path: Path, summary: pd.DataFrame) -> None:
        path = tmp_path / "summary.csv"
        write_frame(path, summary)
        assert path.read_text().splitlines()[0] == SUMMARY_HEADER
        pd.testing.assert_frame_equal(read_summary(path), summary.round(3), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("filter_name", ["raw", "iqr"])
    def test_stats(self, tmp_path: Path, summary: pd.DataFrame, filter_name: str) -> None:
        stats = stats_frame(summary, "raw" if filter_name == "raw" else "iqr")
        path = tmp_path / "stats.csv"
        write_frame(path, stats)
        assert path.read_text().splitlines()[0] == STATS_HEADER
        pd.testing.assert_frame_equal(read_stats(path), stats.round(3), rtol=0, atol=1e-9)

    def test_a_single_trial(self, tmp_path: Path, summary: pd.DataFrame) -> None:
        stats = stats_frame(summary.head(2), "raw")
        path = tmp_path / "stats.csv"
        write_frame(path, stats)
        fields = dict(
            zip(*(line.split(",") for line in path.read_text().splitlines()), strict=True)
        )
        assert [fields[column] for column in ("std_p50_us", "std_count")] == ["", ""]
        assert fields["avg_count"] == "501.000"
        read = read_stats(path)
        assert np.isnan(read["std_p50_us"].item())
        assert read["std_p50_us"].dtype == np.float64

    def test_no_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.csv"
        write_frame(path, summary_frame([]))
        assert path.read_text() == SUMMARY_HEADER + "\n"
        pd.testing.assert_frame_equal(read_summary(path), summary_frame([]))

    def test_a_literal_file(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.csv"
        path.write_text(
            f"{SUMMARY_HEADER}\nvanilla,openat,1,raw,1.500,1.400,2.000,0.900,9.125,1000,\n"
        )
        frame = read_summary(path)
        assert frame["trial"].dtype == frame["count"].dtype == np.int64
        (row,) = frame.to_dict("records")
        assert np.isnan(row.pop("stddev_us"))
        assert row == {
            "label": "vanilla",
            "syscall": "openat",
            "trial": 1,
            "filter": "raw",
            "avg_us": 1.5,
            "p50_us": 1.4,
            "p99_us": 2.0,
            "min_us": 0.9,
            "max_us": 9.125,
            "count": 1000,
        }


class TestReadingWrongFiles:
    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ("", r"column 1 \('label'\) is missing"),
            (
                SUMMARY_HEADER.replace("p50_us", "p50_ms"),
                "column 6 is 'p50_ms' instead of 'p50_us'",
            ),
            (
                SUMMARY_HEADER.replace("p50_us,p99_us", "p99_us,p50_us"),
                "column 6 is 'p99_us' instead of 'p50_us'",
            ),
            (SUMMARY_HEADER.removesuffix(",stddev_us"), r"column 11 \('stddev_us'\) is missing"),
            (SUMMARY_HEADER + ",more", r"column 12 \('more'\) does not belong there"),
            (STATS_HEADER, "column 3 is 'trials' instead of 'trial'"),
        ],
    )
    def test_summary_columns(self, tmp_path: Path, header: str, reason: str) -> None:
        path = tmp_path / "vanilla_summary.csv"
        path.write_text(header and header + "\n")
        with pytest.raises(ValueError, match=rf"vanilla_summary\.csv: {reason}$"):
            read_summary(path)

    def test_stats_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "vanilla_stats_raw.csv"
        path.write_text(SUMMARY_HEADER + "\n")
        with pytest.raises(
            ValueError, match=r"vanilla_stats_raw\.csv: column 3 is 'trial' instead of 'trials'$"
        ):
            read_stats(path)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("a,b,1,raw,x,1,1,1,1,1,1", "line 2: 'x' is no value for column 'avg_us'"),
            ("a,b,1.5,raw,1,1,1,1,1,1,1", "line 2: '1.5' is no value for column 'trial'"),
            ("a,b,1,raw,1,1,1,1,1,,1", "line 2: '' is no value for column 'count'"),
            ("a,b,1,raw", "line 2: 4 fields where 11 belong"),
            ("a,b,1,raw,1,1,1,1,1,1,1,1", "line 2: 12 fields where 11 belong"),
        ],
    )
    def test_values(self, tmp_path: Path, line: str, reason: str) -> None:
        path = tmp_path / "vanilla_summary.csv"
        path.write_text(f"{SUMMARY_HEADER}\n{line}\n")
        with pytest.raises(ValueError, match=rf"vanilla_summary\.csv, {reason}$"):
            read_summary(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_summary(tmp_path / "none.csv")


class TestResultDirectory:
    def test_names_of_files(self) -> None:
        results = ResultDirectory(Path("result/5.5"))
        paths = [
            results.summary_path("vanilla"),
            results.stats_path("vanilla", "raw"),
            results.stats_path("vanilla", "iqr"),
            results.sysinfo_path("vanilla"),
            results.log_path("vanilla", "openat", 3),
            results.log_path("vanilla", "openat", 3, refused=True),
            results.validity_path("vanilla"),
            results.user_path("vanilla"),
            results.overhead_path,
            results.run_path,
        ]
        assert [path.as_posix() for path in paths] == [
            "result/5.5/vanilla/vanilla_summary.csv",
            "result/5.5/vanilla/vanilla_stats_raw.csv",
            "result/5.5/vanilla/vanilla_stats_iqr.csv",
            "result/5.5/vanilla/vanilla_sysinfo.txt",
            "result/5.5/vanilla/vanilla_openat_trial3.log",
            "result/5.5/vanilla/vanilla_openat_trial3_refused.log",
            "result/5.5/vanilla/vanilla_validity.csv",
            "result/5.5/vanilla/vanilla_user.csv",
            "result/5.5/overhead.csv",
            "result/5.5/run.json",
        ]

    @pytest.mark.parametrize(
        ("label", "name"),
        [
            ("Az09._+-", "Az09._+-"),
            ("command:ls -l /tmp", "command_ls_-l__tmp"),
            ("µ", "_"),
            ("a\nb", "a_b"),
            (".", "_"),
            ("..", "__"),
            ("../x", ".._x"),
            ("", "_"),
        ],
    )
    def test_labels_unfit_for_names(self, tmp_path: Path, label: str, name: str) -> None:
        results = ResultDirectory(tmp_path)
        assert results.arm(label) == tmp_path / name
        assert results.user_path(label) == tmp_path / name / f"{name}_user.csv"
        assert names(tmp_path) == [name]

    def test_a_syscall_unfit_for_names(self) -> None:
        path = ResultDirectory(Path("r")).log_path("a", "openat/read", 1)
        assert path == Path("r/a/a_openat_read_trial1.log")

    def test_arm_creates_its_directory_once(self, tmp_path: Path) -> None:
        results = ResultDirectory(tmp_path / "result" / "5.5")
        (results.arm("falco") / "kept").touch()
        assert names(results.arm("falco")) == ["kept"]

    def test_asking_for_a_path_creates_nothing(self, tmp_path: Path) -> None:
        ResultDirectory(tmp_path).summary_path("falco")
        assert names(tmp_path) == []


class TestIsCompleteRun:
    @pytest.mark.parametrize(
        ("content", "complete"),
        [
            ('{"schema": 1, "complete": true}', True),
            ('{"schema": 1, "complete": false}', False),
            ('{"schema": 1, "complete": "true"}', False),
            ('{"schema": 1, "complete": 1}', False),
            ('{"schema": 1}', False),
            ('{"schema": 1, "complete": true', False),
            ("[true]", False),
            (b"\xff\xfe", False),
            ("", False),
        ],
    )
    def test_by_content(self, tmp_path: Path, content: str | bytes, complete: bool) -> None:
        write_atomically(tmp_path / "run.json", content)
        assert is_complete_run(tmp_path) is complete

    def test_without_the_file_or_the_directory(self, tmp_path: Path) -> None:
        assert not is_complete_run(tmp_path)
        assert not is_complete_run(tmp_path / "none")


@pytest.mark.parametrize("partial", [False, True], ids=["full", "partial"])
class TestClaimForAnyRun:
    """What holds for a full and for a partial run."""

    def test_a_missing_root(self, tmp_path: Path, partial: bool) -> None:
        root = tmp_path / "result" / "5.5"
        assert claim(root, partial=partial) == root
        assert is_prepared(root)
        assert names(root.parent) == ["5.5"]

    def test_an_empty_root(self, tmp_path: Path, partial: bool) -> None:
        root = tmp_path / "5.5"
        root.mkdir()
        assert claim(root, partial=partial) == root
        assert is_prepared(root)

    def test_a_relative_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert claim(Path("result/5.5"), partial=partial) == Path("result/5.5")
        assert is_prepared(tmp_path / "result" / "5.5")

    def test_an_incomplete_run_is_moved_aside(self, tmp_path: Path, partial: bool) -> None:
        root = tmp_path / "5.5"
        store_run(root, complete=False)
        assert claim(root, partial=partial) == root
        assert is_prepared(root)
        assert mark_of(tmp_path / "5.5.previous") == "figures"
        assert names(tmp_path) == ["5.5", "5.5.previous"]

    def test_an_incomplete_run_never_replaces_a_complete_one(
        self, tmp_path: Path, partial: bool
    ) -> None:
        root = tmp_path / "5.5"
        store_run(tmp_path / "5.5.previous", complete=True, mark="hours of measuring")
        for mark in ("older", "newer"):
            if root.exists():
                (root / "run.json").unlink()
                root.rmdir()
            store_run(root, complete=False, mark=mark)
            claim(root, partial=partial)
        assert is_prepared(root)
        assert mark_of(tmp_path / "5.5.previous") == "hours of measuring"
        assert mark_of(tmp_path / "5.5.interrupted") == "newer"
        assert names(tmp_path) == ["5.5", "5.5.interrupted", "5.5.previous"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("thesis.tex", "years of work"),
            ("run.json", '{"scheme": 1}'),
            ("run.json", '["schema"]'),
            ("run.json", "not JSON"),
        ],
    )
    def test_foreign_files_are_not_touched(
        self, tmp_path: Path, partial: bool, name: str, content: str
    ) -> None:
        root = tmp_path / "5.5"
        root.mkdir()
        (root / name).write_text(content)
        with pytest.raises(DirectoryProblem) as caught:
            claim(root, partial=partial)
        assert str(caught.value) == f"{root} is not empty and holds no earlier run"
        assert names(tmp_path) == ["5.5"]
        assert names(root) == [name]
        assert (root / name).read_text() == content

    def test_a_file(self, tmp_path: Path, partial: bool) -> None:
        root = tmp_path / "5.5"
        root.write_text("text")
        with pytest.raises(DirectoryProblem) as caught:
            claim(root, partial=partial)
        assert str(caught.value) == f"{root} is a file, not a directory"
        assert root.read_text() == "text"

    def test_a_file_above(self, tmp_path: Path, partial: bool) -> None:
        (tmp_path / "file").write_text("text")
        root = tmp_path / "file" / "5.5"
        with pytest.raises(DirectoryProblem) as caught:
            claim(root, partial=partial)
        assert str(caught.value) == f"{root} cannot be used for results: Not a directory"

    @pytest.mark.parametrize("root", [".", "..", "../5.5"])
    def test_the_current_directory_is_not_moved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool, root: str
    ) -> None:
        store_run(tmp_path / "5.5", complete=True)
        (tmp_path / "run.json").write_text('{"schema": 1}')
        monkeypatch.chdir(tmp_path / "5.5")
        with pytest.raises(DirectoryProblem, match=r"start from outside it$"):
            claim(Path(root), partial=partial)
        assert names(tmp_path) == ["5.5", "run.json"]
        assert mark_of(tmp_path / "5.5") == "figures"


class TestClaimForAFullRun:
    def test_a_complete_run_is_moved_aside(self, tmp_path: Path) -> None:
        root = tmp_path / "5.5"
        store_run(root, complete=True)
        assert claim(root, partial=False) == root
        assert is_prepared(root)
        assert mark_of(tmp_path / "5.5.previous") == "figures"
        assert is_complete_run(tmp_path / "5.5.previous")

    def test_it_replaces_the_one_before(self, tmp_path: Path) -> None:
        root = tmp_path / "5.5"
        store_run(root, complete=True, mark="newer")
        store_run(tmp_path / "5.5.previous", complete=True, mark="older")
        (tmp_path / "5.5.previous" / "only in the older").touch()
        claim(root, partial=False)
        assert mark_of(tmp_path / "5.5.previous") == "newer"
        assert names(tmp_path / "5.5.previous") == ["run.json", "vanilla"]
        assert names(tmp_path) == ["5.5", "5.5.previous"]

    def test_an_empty_place_for_it_is_used(self, tmp_path: Path) -> None:
        root = tmp_path / "5.5"
        store_run(root, complete=True)
        (tmp_path / "5.5.previous").mkdir()
        claim(root, partial=False)
        assert mark_of(tmp_path / "5.5.previous") == "figures"

    def test_a_partial_run_beside_it_stays(self, tmp_path: Path) -> None:
        store_run(tmp_path / "5.5", complete=True)
        store_run(tmp_path / "5.5-partial", complete=False, mark="part")
        claim(tmp_path / "5.5", partial=False)
        assert mark_of(tmp_path / "5.5-partial") == "part"

    @pytest.mark.parametrize("complete", [False, True])
    def test_something_else_in_its_place(self, tmp_path: Path, complete: bool) -> None:
        root, previous = tmp_path / "5.5", tmp_path / "5.5.previous"
        store_run(root, complete=complete)
        previous.mkdir()
        (previous / "thesis.tex").write_text("years of work")
        with pytest.raises(DirectoryProblem) as caught:
            claim(root, partial=False)
        assert str(caught.value) == f"{previous} is not empty and holds no earlier run"
        assert mark_of(root) == "figures"
        assert names(previous) == ["thesis.tex"]

    def test_a_root_that_cannot_be_moved_costs_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, previous = tmp_path / "5.5", tmp_path / "5.5.previous"
        store_run(root, complete=True, mark="newer")
        store_run(previous, complete=True, mark="older")
        rename = os.rename

        def rename_but_root(source: Path, target: Path) -> None:
            if Path(source) == root:
                raise OSError(errno.EBUSY, "Device or resource busy")
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename_but_root)
            with pytest.raises(DirectoryProblem) as caught:
                claim(root, partial=False)
        assert str(caught.value) == f"{root} cannot be used for results: Device or resource busy"
        assert mark_of(root) == "newer"
        assert mark_of(previous) == "older"
        assert names(tmp_path) == ["5.5", "5.5.previous"]

    def test_an_interrupted_run_is_recognised(self, tmp_path: Path) -> None:
        root = tmp_path / "5.5"
        claim(root, partial=False)
        assert not is_complete_run(root)
        assert claim(root, partial=False) == root


class TestClaimForAPartialRun:
    def test_a_complete_run_stays_where_it_is(self, tmp_path: Path) -> None:
        root = tmp_path / "5.5"
        store_run(root, complete=True)
        target = claim(root, partial=True)
        assert target == tmp_path / "5.5-partial"
        assert is_prepared(target)
        assert mark_of(root) == "figures"
        assert is_complete_run(root)
        assert names(tmp_path) == ["5.5", "5.5-partial"]

    def test_an_earlier_partial_run_is_replaced(self, tmp_path: Path) -> None:
        store_run(tmp_path / "5.5", complete=True)
        store_run(tmp_path / "5.5-partial", complete=False, mark="part")
        target = claim(tmp_path / "5.5", partial=True)
        assert target == tmp_path / "5.5-partial"
        assert is_prepared(target)

    def test_something_else_in_its_place(self, tmp_path: Path) -> None:
        partial = tmp_path / "5.5-partial"
        store_run(tmp_path / "5.5", complete=True)
        partial.mkdir()
        (partial / "thesis.tex").write_text("years of work")
        with pytest.raises(DirectoryProblem) as caught:
            claim(tmp_path / "5.5", partial=True)
        assert str(caught.value) == f"{partial} is not empty and holds no earlier run"
        assert names(partial) == ["thesis.tex"]
        assert mark_of(tmp_path / "5.5") == "figures"


class TestClaimWithoutPermission:
    @pytest.fixture
    def place(self) -> Iterator[Path]:
        # Not tmp_path: what lies above it is closed to other users.
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            place.chmod(0o755)
            yield place
            place.chmod(0o755)

    @pytest.fixture
    def without_permission(self) -> Iterator[Callable[[Path], None]]:
        before = os.geteuid()

        def forbid(directory: Path) -> None:
            directory.chmod(0o555)
            if before == 0:
                os.seteuid(NOBODY)

        yield forbid
        os.seteuid(before)

    def test_an_empty_root(self, place: Path, without_permission: Callable[[Path], None]) -> None:
        without_permission(place)
        with pytest.raises(DirectoryProblem) as caught:
            claim(place, partial=False)
        assert str(caught.value) == f"{place} cannot be used for results: Permission denied"

    def test_a_missing_root(self, place: Path, without_permission: Callable[[Path], None]) -> None:
        without_permission(place)
        with pytest.raises(
            DirectoryProblem, match=r"cannot be used for results: Permission denied$"
        ):
            claim(place / "5.5", partial=False)

    def test_earlier_runs_survive(
        self, place: Path, without_permission: Callable[[Path], None]
    ) -> None:
        store_run(place / "5.5", complete=True, mark="newer")
        store_run(place / "5.5.previous", complete=True, mark="older")
        without_permission(place)
        with pytest.raises(
            DirectoryProblem, match=r"cannot be used for results: Permission denied$"
        ):
            claim(place / "5.5", partial=False)
        assert mark_of(place / "5.5") == "newer"
        assert mark_of(place / "5.5.previous") == "older"
