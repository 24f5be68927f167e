"""False alarms on a real machine: session after session of vanilla against vanilla.

    python perf/vanilla_twice.py [SESSIONS [DIRECTORY]]

Each session is a whole run of the benchmarks with `--agent=vanilla2` and a budget of 0 % for all
figures: the truth lies on the budget, so a cell is `regressed` by a false alarm alone. Printed are
the sessions with an alarm beside what the method allows, and how far the two arms were apart. The
results stay in DIRECTORY (default: a new one), a directory a session. Needs root; a session takes
two to three minutes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    *("--syslat-testbed=local", "--syslat-trials=8", "--syslat-warmup-sec=1"),
    *("--syslat-lmbench-reps=3", "--syslat-openat-mult=1"),
)
ALLOWED = 0.025
"""Share of sessions in which a limit may lie on the wrong side above: half of 5 %."""


def session(number: int, directory: Path) -> dict[str, Any]:
    """One run; its record. Raises RuntimeError if it did not come to its end."""
    results = directory / f"session{number}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
        + ["--agent=vanilla2", "--syslat-budget=*:*<=+0%", *SHORT]
        + [f"--syslat-seed={number}", f"--syslat-result-dir={results}"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    record: dict[str, Any] = json.loads((results / "run.json").read_text())
    if not record["complete"]:
        raise RuntimeError(f"session {number} was not complete:\n{done.stdout}{done.stderr}")
    return record


def main(sessions: int, directory: Path) -> None:
    """Measure and print."""
    verdicts: Counter[str] = Counter()
    above = below = 0
    apart: dict[str, list[float]] = {}
    for number in range(1, sessions + 1):
        cells = session(number, directory)["cells"]
        told = Counter(each["verdict"] for each in cells)
        verdicts += told
        above += any(each["verdict"] == "regressed" for each in cells)
        # Not a verdict, but the same error on the other side.
        below += any((each["ci_high_pct"] or 0) < 0 for each in cells if each["in_family"])
        for each in cells:
            if each["delta_pct"] is not None:
                name = f"{each['cell']['syscall']} {each['cell']['figure']}"
                apart.setdefault(name, []).append(each["delta_pct"])
        print(f"session {number}: {dict(told)}", flush=True)
    limits = stats.binomtest(above, sessions).proportion_ci()
    print(
        f"{sessions} sessions, {verdicts.total()} cells: {dict(verdicts)}\n"
        f"sessions with a false alarm: {above} ({100 * limits.low:.0f} to "
        f"{100 * limits.high:.0f} % with 95 % confidence; {100 * ALLOWED:g} % are allowed), "
        f"below vanilla by mistake: {below}"
    )
    for name, deltas in apart.items():
        spread = statistics.stdev(deltas) if len(deltas) > 1 else 0.0
        print(f"{name:<14} Δ mean {statistics.fmean(deltas):+6.2f} %, sd {spread:5.2f} %")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="vanilla-"))
    main(count, place)
