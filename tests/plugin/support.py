"""What the tests of the plugin share: a project whose runs measure nothing real."""

from __future__ import annotations

import csv
import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

# Runs inside pytest start with the modules that are loaded now and forget what they load
# themselves: numpy cannot be loaded twice in a process.
from pytest_syslat import comparison, experiment, report, session  # noqa: F401
from pytest_syslat.agents import catalogue  # noqa: F401
from pytest_syslat.plan import TrialKey
from pytest_syslat.report import terminal, written  # noqa: F401
from pytest_syslat.resources import resource
from pytest_syslat.testbeds import local  # noqa: F401

HERE = Path(__file__).parent
FAKES = "syslat_fakes"
VARIABLES = ("TRIALS", "WARMUP_SEC", "LMBENCH_REPS", "OPENAT_MULT", "PIN_CORE")
BENCHMARK = "benchmarks/test_syscall_latency.py"
CLOSED = ["audit closed", "server stopped", "workload closed", "testbed closed"]
"""The last events of each run that had begun to put something in place."""
SYSCALLS = ("execve", "openat", "connect")


class Project:
    """A directory of a user, with the shipped benchmark in it.

    Whatever is run here is faked, see `syslat_fakes`. The order of items is left to pytest unless
    a test turns pytest-randomly on.
    """

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.lean = False
        """Whether the files of each trial are left out, which saves most of the time."""
        self._monkeypatch = monkeypatch
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        # A run inside a worker of pytest-xdist is a run of its own.
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
        monkeypatch.syspath_prepend(HERE)
        # For runs in a process of their own.
        others = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), others])))
        benchmark = self.path / BENCHMARK
        benchmark.parent.mkdir()
        benchmark.write_bytes(resource(BENCHMARK, self.path).read_bytes())

    def table(self, **entries: Any) -> None:
        """Say what the made-up trials return."""
        (self.path / "table.json").write_text(json.dumps(entries))

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def setenv(self, name: str, value: str) -> None:
        self._monkeypatch.setenv(name, value)

    def run(
        self,
        *arguments: str,
        randomly: bool = False,
        warmup: bool = False,
        no_reraise_ctrlc: bool = False,
    ) -> pytest.RunResult:
        """Run pytest in this process, with a fresh log of events.

        Args:
            arguments: Of the command line.
            randomly: Whether pytest-randomly takes part.
            warmup: Leave the option for the warm-up to the test; else there is none.
            no_reraise_ctrlc: Take Ctrl-C in the inner run for a result.
        """
        return self.pytester.runpytest_inprocess(
            *self._arguments(arguments, randomly=randomly, warmup=warmup),
            no_reraise_ctrlc=no_reraise_ctrlc,
        )

    def run_apart(self, *arguments: str, warmup: bool = False) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        return self.pytester.runpytest_subprocess(
            *self._arguments(arguments, randomly=False, warmup=warmup), timeout=60.0
        )

    def _arguments(self, arguments: Sequence[str], *, randomly: bool, warmup: bool) -> list[str]:
        (self.path / "events.log").unlink(missing_ok=True)
        self._monkeypatch.setenv("SYSLAT_FAKES_LEAN", "yes" if self.lean else "")
        order = [] if randomly else ["-p", "no:randomly"]
        quick = [] if warmup else ["--syslat-warmup-sec=0"]
        return ["-p", FAKES, *order, *quick, *arguments]

    @property
    def events(self) -> list[str]:
        """What happened in the latest run, in order."""
        log = self.path / "events.log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def measured(self) -> list[str]:
        """The trials that were measured in the latest run, in order."""
        return [line.removeprefix("measure ") for line in self.events if line.startswith("measure")]

    @property
    def results(self) -> Path:
        return self.path / "result/5.5"

    def run_json(self, directory: str = "result/5.5") -> dict[str, Any]:
        stored: dict[str, Any] = json.loads((self.path / directory / "run.json").read_text())
        return stored

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file below the result directory."""
        with (self.results / name).open(newline="") as file:
            return list(csv.DictReader(file))


def key_of(trial_id: str) -> TrialKey:
    """The key behind an id such as `connect-auditd-trial3`."""
    found = re.fullmatch(r"([a-z]+)-(.+)-trial([0-9]+)", trial_id)
    assert found, trial_id
    return TrialKey(found[1], found[2], int(found[3]))


def collected(result: pytest.RunResult) -> list[str]:
    """The ids that `--collect-only -q` printed, without the file's name."""
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


def trial_ids(
    *,
    trials: int,
    arms: Sequence[str] = ("vanilla",),
    syscalls: Sequence[str] = SYSCALLS,
) -> set[str]:
    """All ids of a selection."""
    return {
        f"{syscall}-{arm}-trial{number}"
        for syscall in syscalls
        for arm in arms
        for number in range(1, trials + 1)
    }


def usage_errors(result: pytest.RunResult) -> list[str]:
    """The lines of the error with which pytest refused to run; checks that there was no more."""
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    return [
        line.removeprefix("ERROR: ") for line in result.stderr.lines if line.startswith("ERROR")
    ]


def junit_cases(path: Path) -> dict[str, ET.Element]:
    """The test cases of a JUnit file by name."""
    return {str(case.get("name")): case for case in ET.parse(path).iter("testcase")}  # noqa: S314


def properties(case: ET.Element) -> list[tuple[str, str]]:
    """The properties of a test case, in order."""
    return [(str(each.get("name")), str(each.get("value"))) for each in case.iter("property")]
