from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pytest_syslat.paced_workload import PacedWorkload
from pytest_syslat.resources import PACKAGE
from pytest_syslat.syscalls import SYSCALLS
from pytest_syslat.testbeds.protocol import (
    Completed,
    FileState,
    Role,
    TestbedError,
    TimeLimit,
)
from pytest_syslat.tools import LMBENCH_PROGRAMS as PROGRAMS
from pytest_syslat.tools import ToolMissing, find_lmbench
from pytest_syslat.workload import (
    FIGURE,
    Workload,
    WorkloadError,
    built_in_helper,
)

from .support import Host

CONNECT, EXECVE, OPENAT = SYSCALLS["connect"], SYSCALLS["execve"], SYSCALLS["openat"]
PACED_CALLS = PACKAGE.parent / "manifests" / "programs" / "paced_calls.py"
HELLO = b"\x7fELF a program that says hello"


@pytest.mark.parametrize(
    ("program", "path"),
    [
        (b"\x7fELF\0\0/tmp/hello\0Process fork+execve\0", "/tmp/hello"),
        (b"usage: %s\0/var/tmp/lmbench/hello\0", "/var/tmp/lmbench/hello"),
        # The first one that is a path as a whole.
        (b"/tmp/hello-world\0/opt/a.b-c_d/hello\0/tmp/hello\0", "/opt/a.b-c_d/hello"),
        (b"cp hello /tmp/hello\0", "/tmp/hello"),
        # Parts of longer texts.
        (b"/tmp/hello.c\0", None),
        (b"lib/tmp/hello\0", None),
        (b"/tmp/hello", None),
        (b"hello\0", None),
        (b"", None),
    ],
)
def test_built_in_helper(program: bytes, path: str | None) -> None:
    assert built_in_helper(program) == (Path(path) if path else None)


@pytest.mark.parametrize(
    ("printed", "figure"),
    [
        ("Simple open/close: 0.6143 microseconds\n", "0.6143"),
        ("Process fork+execve: 710.2500 microseconds\n", "710.2500"),
        ("TCP/IP connection cost to 127.0.0.1: 11.5325 microseconds\n", "11.5325"),
        ("Process fork+execve: 710 microseconds\n", "710"),
        ("Simple open/close: 0.6143 milliseconds\n", None),
        ("Simple open/close 0.6143 microseconds\n", None),
        ("Simple open/close: nan microseconds\n", None),
        ("/nowhere: No such file or directory\n", None),
    ],
)
def test_figure(printed: str, figure: str | None) -> None:
    found = FIGURE.search(printed)
    assert (found[1] if found else None) == figure


def make_program(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


class TestFinding:
    def test_chosen_directory(self, tmp_path: Path) -> None:
        for name in PROGRAMS:
            make_program(tmp_path / name)
        assert find_lmbench(tmp_path) == tmp_path

    def test_chosen_directory_lacks_programs(self, tmp_path: Path) -> None:
        make_program(tmp_path / "lat_syscall")
        make_program(tmp_path / "lat_connect").chmod(0o644)
        with pytest.raises(ToolMissing) as caught:
            find_lmbench(tmp_path)
        assert str(caught.value) == (
            f"--syslat-lmbench-dir: lat_proc, lat_connect not found in {tmp_path}: "
            "give the directory of lmbench's programs"
        )

    def test_directory_in_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in PROGRAMS:
            make_program(tmp_path / "mine" / name)
        monkeypatch.setenv("PATH", f"{tmp_path}/empty{os.pathsep}{tmp_path}/mine")
        assert find_lmbench(None) == tmp_path / "mine"

    def test_incomplete_directory_in_path_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_program(tmp_path / "lat_syscall")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("SYSLAT_CACHE_DIR", str(tmp_path / "cache"))
        for name in PROGRAMS:
            make_program(tmp_path / "cache/tools/usr/lib/lmbench/bin/x86_64-linux-gnu" / name)
        # An installed lmbench, if this machine has one, comes before the cache.
        found = find_lmbench(None)
        assert found != tmp_path
        assert "lmbench/bin" in str(found)

    def test_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        with pytest.raises(ToolMissing) as caught:
            find_lmbench(None)
        assert str(caught.value) == (
            "lmbench was not found: run 'make provision' (tools/provision.sh), "
            "or give its directory with --syslat-lmbench-dir"
        )


class FakeTestbed(Host):
    """Runs nothing but shells: any other program prints what the test says."""

    python = "python-of-the-testbed"

    def __init__(self, workdir: Path) -> None:
        super().__init__(workdir)
        self.answers: dict[str, Completed | TestbedError] = {}
        self.runs: list[tuple[list[str], Role, dict[str, str]]] = []

    def answer(self, name: str, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        self.answers[name] = Completed((name,), code, stdout, stderr)

    def run(
        self,
        argv: Sequence[str],
        *,
        role: Role,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        if argv[0] == "sh":
            return super().run(argv, role=role, timeout_s=timeout_s)
        self.runs.append((list(argv), role, dict(env or {})))
        answer = self.answers[Path(argv[0]).name]
        if isinstance(answer, TestbedError):
            raise answer
        return answer

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:
        assert role is Role.WORKLOAD
        return super().read(path, offset, role=role)

    def state(self, path: Path, *, role: Role) -> FileState | None:
        assert role is Role.WORKLOAD
        if not path.exists():
            return None
        found = path.stat()
        return FileState(
            found.st_uid, os.geteuid(), found.st_mode & 0o777, os.access(path, os.X_OK)
        )

    def remove(self, path: Path, *, role: Role) -> None:
        assert role is Role.WORKLOAD
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def libraries_of(self, program: Path) -> dict[str, str]:
        return {}

    def write(self, path: Path, data: bytes, *, role: Role, executable: bool = False) -> None:
        assert role is Role.WORKLOAD
        super().write(path, data, role=role)
        path.chmod(0o755 if executable else 0o644)


class Lmbench:
    """A directory of lmbench whose helper belongs below the test's own directory."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "usr/lib/lmbench/bin/x86_64-linux-gnu"
        self.helper = root / "var/lmbench/hello"
        for name in PROGRAMS:
            make_program(self.directory / name)
        make_program(self.directory / "lat_proc", b"\0%s\0" % os.fsencode(self.helper))
        make_program(self.directory / "hello", HELLO)
        for name in ("timing_o", "loop_o"):
            make_program(self.directory / name)
        (root / "work").mkdir()
        self.testbed = FakeTestbed(root / "work")
        self.testbed.answer("timing_o", "0.05")
        self.testbed.answer("loop_o", stderr="0.00012\n")

    def workload(self, directory: Path | None = None) -> Workload:
        return Workload(self.testbed.as_testbed(), directory or self.directory)


@pytest.fixture
def lmbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lmbench:
    monkeypatch.setenv("SYSLAT_CACHE_DIR", str(tmp_path / "no cache"))
    return Lmbench(tmp_path)


class TestHelper:
    def test_it_is_put_in_place_and_taken_away(self, lmbench: Lmbench, tmp_path: Path) -> None:
        workload = lmbench.workload()
        assert workload.helper == lmbench.helper
        assert workload.helper_problem is None
        assert lmbench.helper.read_bytes() == HELLO
        assert os.access(lmbench.helper, os.X_OK)
        workload.close()
        # With the directories that it needed, and nothing else.
        assert not (tmp_path / "var").exists()
        assert lmbench.directory.is_dir()
        workload.close()

    def test_one_that_was_there_stays(self, lmbench: Lmbench) -> None:
        make_program(lmbench.helper, HELLO)
        workload = lmbench.workload()
        assert workload.helper_problem is None
        workload.close()
        assert lmbench.helper.read_bytes() == HELLO

    def test_a_directory_that_somebody_uses_meanwhile_stays(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        other = make_program(lmbench.helper.with_name("theirs"))
        workload.close()
        assert other.exists()
        assert not lmbench.helper.exists()

    def test_another_program_in_its_place_is_not_executed(self, lmbench: Lmbench) -> None:
        make_program(lmbench.helper, b"somebody else's")
        with pytest.raises(WorkloadError, match="is not lmbench's own helper"):
            lmbench.workload()
        assert lmbench.helper.read_bytes() == b"somebody else's"

    def test_one_that_others_may_change_is_not_executed(self, lmbench: Lmbench) -> None:
        make_program(lmbench.helper, HELLO).chmod(0o777)
        with pytest.raises(WorkloadError, match="can be changed by others"):
            lmbench.workload()

    def test_one_that_is_not_executable(self, lmbench: Lmbench) -> None:
        make_program(lmbench.helper, HELLO).chmod(0o644)
        assert lmbench.workload().helper_problem == f"{lmbench.helper} is not executable"

    def test_no_copy_beside_lat_proc(self, lmbench: Lmbench) -> None:
        (lmbench.directory / "hello").unlink()
        assert lmbench.workload().helper_problem == (
            f"{lmbench.helper} is missing and no copy stands beside lat_proc"
        )
        assert not lmbench.helper.exists()

    def test_a_build_that_names_none(self, lmbench: Lmbench) -> None:
        make_program(lmbench.directory / "lat_proc", b"nothing of interest")
        assert lmbench.workload().helper_problem == "lat_proc names no helper program"

    @pytest.mark.parametrize("answer", ["", "no clock"])
    def test_it_does_not_stay_behind_when_lmbench_cannot_be_calibrated(
        self, lmbench: Lmbench, tmp_path: Path, answer: str
    ) -> None:
        """The caller never gets an object that it could close."""
        lmbench.testbed.answer("loop_o", answer)
        with pytest.raises(WorkloadError, match="loop_o printed no number"):
            lmbench.workload()
        assert not (tmp_path / "var").exists()


class TestCalibration:
    def test_each_program_is_asked_once_in_the_place_of_the_workload(
        self, lmbench: Lmbench
    ) -> None:
        workload = lmbench.workload()
        expected = {"ENOUGH": "5000", "TIMING_O": "0.05", "LOOP_O": "0.00012"}
        assert workload.calibration.environment == expected
        asked = [(Path(argv[0]).name, role, env) for argv, role, env in lmbench.testbed.runs]
        assert asked == [
            ("timing_o", Role.WORKLOAD, {"ENOUGH": "5000"}),
            ("loop_o", Role.WORKLOAD, {"ENOUGH": "5000", "TIMING_O": "0.05"}),
        ]

    def test_programs_that_a_build_does_not_have(self, lmbench: Lmbench) -> None:
        (lmbench.directory / "timing_o").unlink()
        environment = lmbench.workload().calibration.environment
        assert environment == {"ENOUGH": "5000", "TIMING_O": "0", "LOOP_O": "0.00012"}


class TestRuns:
    def test_commands(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        assert workload.command(EXECVE) == [str(lmbench.directory / "lat_proc"), "exec"]
        assert workload.command(CONNECT) == [str(lmbench.directory / "lat_connect"), "127.0.0.1"]
        name, operation, path = workload.command(OPENAT)
        assert (name, operation) == (str(lmbench.directory / "lat_syscall"), "open")
        # Without a file of ours it would open a header that a lean system does not have.
        assert Path(path).is_file()
        assert Path(path).is_relative_to(lmbench.testbed.workdir)

    def test_a_figure(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answer("lat_syscall", stderr="Simple open/close: 0.6143 microseconds\n")
        run = workload.run(OPENAT)
        assert (run.us_per_op, run.complaint) == (0.6143, None)
        argv, role, env = lmbench.testbed.runs[-1]
        assert argv == workload.command(OPENAT)
        assert role is Role.WORKLOAD
        assert env == {"ENOUGH": "5000", "TIMING_O": "0.05", "LOOP_O": "0.00012"}

    def test_a_figure_and_a_complaint(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answer(
            "lat_proc", stderr="\n/tmp/hello: odd\nProcess fork+execve: 710.25 microseconds\nmore\n"
        )
        run = workload.run(EXECVE)
        assert (run.us_per_op, run.complaint) == (710.25, "lat_proc: /tmp/hello: odd")

    def test_an_error_that_lmbench_does_not_count_as_one(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answer("lat_connect", stderr="connect: Connection refused\n")
        run = workload.run(CONNECT)
        assert run.us_per_op is None
        assert run.complaint == "lat_connect printed no figure: connect: Connection refused"
        assert run.output == "connect: Connection refused\n"

    def test_a_figure_of_a_program_that_failed_does_not_count(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answer(
            "lat_connect", stderr="connection cost: 11.5 microseconds\nbad news\n", code=2
        )
        run = workload.run(CONNECT)
        assert (run.us_per_op, run.complaint) == (None, "lat_connect ended with 2: bad news")

    @pytest.mark.parametrize(
        ("error", "complaint"),
        [
            (TimeLimit("lat_proc did not end within 60 s"), "lat_proc did not end within 60 s"),
            (TestbedError("no room"), "lat_proc could not be run: no room"),
        ],
    )
    def test_one_that_cannot_be_run(
        self, lmbench: Lmbench, error: TestbedError, complaint: str
    ) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answers["lat_proc"] = error
        run = workload.run(EXECVE)
        assert (run.us_per_op, run.complaint) == (None, complaint)


class TestFacts:
    def test_allowed_cores(self, lmbench: Lmbench) -> None:
        workload = lmbench.workload()
        lmbench.testbed.answer(
            "cat", "Name:\tcat\nCpus_allowed:\t4\nCpus_allowed_list:\t2\nMems_allowed_list:\t0\n"
        )
        assert workload.allowed_cores() == "2"
        lmbench.testbed.answer("cat", "Name:\tcat\n", "odd\n")
        with pytest.raises(TestbedError, match="cores cannot be read: odd"):
            workload.allowed_cores()

    def test_checksums(self, lmbench: Lmbench) -> None:
        sums = lmbench.workload().checksums()
        assert set(sums) == {*PROGRAMS, "hello"}
        assert sums["hello"] == hashlib.sha256(HELLO).hexdigest()

    @pytest.mark.parametrize("packed", [True, False])
    def test_version_of_a_package(self, lmbench: Lmbench, tmp_path: Path, packed: bool) -> None:
        text = b"lmbench (3.0-a9+debian.1-6) unstable; urgency=medium\n\n  * odd\n"
        directory = tmp_path / "usr/share/doc/lmbench"
        directory.mkdir(parents=True)
        if packed:
            (directory / "changelog.Debian.gz").write_bytes(gzip.compress(text))
        else:
            (directory / "changelog.Debian").write_bytes(text)
        assert lmbench.workload().version() == "3.0-a9+debian.1-6"

    def test_version_that_is_not_told(self, lmbench: Lmbench) -> None:
        assert lmbench.workload().version() == "unknown"

    def test_version_in_a_directory_near_the_root(
        self, lmbench: Lmbench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as /opt/lmbench, or a relative path on the command line."""
        monkeypatch.chdir(lmbench.directory.parent)
        workload = lmbench.workload(Path(lmbench.directory.name))
        assert workload.version() == "unknown"


def paced_workload(lmbench: Lmbench) -> PacedWorkload:
    return PacedWorkload(lmbench.testbed.as_testbed(), lmbench.directory, 100, PACKAGE.parent)


class TestPaced:
    def test_commands(self, lmbench: Lmbench) -> None:
        paced = paced_workload(lmbench)
        placed = lmbench.testbed.workdir / "paced_calls.py"
        assert placed.read_bytes() == PACED_CALLS.read_bytes()
        begin = ["python-of-the-testbed", "-I", "-S", str(placed)]
        assert paced.command(OPENAT) == [*begin, "lat_syscall", "100", str(paced.measured_file)]
        assert paced.command(EXECVE) == [*begin, "lat_proc", "100", str(lmbench.helper)]
        assert paced.command(CONNECT) == [*begin, "lat_connect", "100", "127.0.0.1"]

    def test_what_is_lost_is_put_back(self, lmbench: Lmbench) -> None:
        paced = paced_workload(lmbench)
        placed = lmbench.testbed.workdir / "paced_calls.py"
        placed.unlink()
        paced.place_files()
        assert placed.read_bytes() == PACED_CALLS.read_bytes()

    def test_a_run(self, lmbench: Lmbench, monkeypatch: pytest.MonkeyPatch) -> None:
        paced = paced_workload(lmbench)
        told = "lat_syscall, 93.4 of 100 operations a second: 9.1532 microseconds\n"
        lmbench.testbed.answer("python-of-the-testbed", told)
        monkeypatch.setattr(
            lmbench.testbed, "libraries_of", lambda _program: {"LD_LIBRARY_PATH": "x"}
        )
        run = paced.run(CONNECT)
        assert (run.us_per_op, run.achieved_per_s, run.complaint) == (9.1532, 93.4, None)
        _, role, environment = lmbench.testbed.runs[-1]
        assert role is Role.WORKLOAD
        # Those are the libraries of lmbench's program.
        assert "LD_LIBRARY_PATH" not in environment

    def test_a_run_that_fails(self, lmbench: Lmbench) -> None:
        paced = paced_workload(lmbench)
        lmbench.testbed.answer("python-of-the-testbed", stderr="no such thing\n", code=1)
        run = paced.run(OPENAT)
        assert (run.us_per_op, run.achieved_per_s) == (None, None)
        assert run.complaint == "lat_syscall ended with 1: no such thing"
