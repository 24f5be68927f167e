"""The program of the paced workload: it runs for real here, measured by nobody."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from pytest_syslat.workload import FIGURE

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "manifests" / "programs" / "paced_calls.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paced_calls", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_program(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout


def test_the_program_prints_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "measured"
    file.touch()
    [line] = run_program("lat_syscall", "5", str(file)).splitlines()
    found = FIGURE.search(line)
    assert found
    assert float(found[1]) > 0
    assert " of 5 operations a second: " in line


def test_the_program_tells_what_fails(tmp_path: Path) -> None:
    line, complaint = run_program("lat_syscall", "4", str(tmp_path / "missing")).splitlines()
    assert FIGURE.search(line)
    assert complaint == "4 of 4 operations failed: No such file or directory"


def test_the_program_executes(tmp_path: Path) -> None:
    """Each execution leaves a line: as many as were offered, and those tried before them."""
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\necho executed >>{tmp_path}/log\n")
    helper.chmod(0o755)
    assert len(run_program("lat_proc", "4", str(helper)).splitlines()) == 1
    executed = len((tmp_path / "log").read_text().splitlines())
    # On a busy machine not all tries begin in time.
    assert 1 <= executed - 4 <= loaded().TRIES
    _, complaint = run_program("lat_proc", "4", str(tmp_path / "missing")).splitlines()
    assert complaint == "4 of 4 operations failed: the helper was not executed"


class TestPace:
    def test_operations_are_due_at_fixed_moments(self) -> None:
        moments = []
        begin_s = time.perf_counter()

        def operation() -> None:
            moments.append(time.perf_counter() - begin_s)
            time.sleep(0.03 if len(moments) == 1 else 0)

        done, spent_ns, took_ns, failures = loaded().pace(operation, 5, 100_000_000)
        assert (done, failures) == (5, [])
        # None comes before it is due, and the first, which is slow, delays only the next.
        assert all(
            at >= due for at, due in zip(moments, (0.02, 0.04, 0.06, 0.08, 0.1), strict=True)
        )
        assert spent_ns >= 30_000_000
        assert took_ns >= 100_000_000

    def test_what_piles_up_without_end_is_left_out(self) -> None:
        calls = []

        def operation() -> None:
            calls.append(1)
            time.sleep(0.03)

        done, _, took_ns, _ = loaded().pace(operation, 50, 100_000_000)
        # 105 ms at 30 ms each: four, begun at 2, 32, 62 and 92 ms at the earliest.
        assert done == len(calls) <= 4
        assert took_ns < 105_000_000
