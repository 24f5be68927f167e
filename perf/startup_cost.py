"""What the idle plugin adds to the start of pytest in a project that does not use it.

    python perf/startup_cost.py [PAIRS]

Runs pairs `pytest -p no:syslat` / `pytest` on one trivial test and prints the median ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(directory: str, *options: str) -> float:
    """Wall time of one pytest run."""
    begin_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begin_s


def main(pairs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_one.py").write_text("def test_one():\n    pass\n")
        seconds(directory)
        without_s, with_s = [], []
        for _ in range(pairs):
            without_s.append(seconds(directory, "-p", "no:syslat"))
            with_s.append(seconds(directory))
    ratios = [mine / other for mine, other in zip(with_s, without_s, strict=True)]
    print(
        f"without {statistics.median(without_s):.3f} s, with {statistics.median(with_s):.3f} s, "
        f"median ratio {statistics.median(ratios):.3f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
