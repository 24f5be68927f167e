"""What an agent costs beside latency: its own CPU time, memory and threads during a trial."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_syslat.agents.protocol import KernelTime, Processes
from pytest_syslat.resources import resource
from pytest_syslat.testbeds.protocol import (
    NodeLost,
    Process,
    Role,
    Testbed,
    TestbedError,
    last_line,
)

PROGRAM = "manifests/programs/agent_sampler.py"
START_LIMIT_S = 20.0
END_LIMIT_S = 10.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class AgentCost:
    """What a trial cost beside latency. None: not known, or there is no agent."""

    calls_per_s: float | None = None
    """Traced calls by the time that the traced runs took."""
    cpu_s: float | None = None
    """CPU time of the agent's processes, from before the untraced runs to after the traced ones."""
    duration_s: float | None = None
    """How long that was."""
    peak_memory_bytes: int | None = None
    """Sum of RSS; pages that several of its processes share count in each of them."""
    threads: int | None = None
    """At most at one moment."""
    threads_on_core: tuple[str, ...] | None = None
    """Names of its threads that were seen on the measured core, one for each thread."""
    kernel_runs: int | None = None
    """Runs of its BPF programs while calls were traced."""
    kernel_time_ns: int | None = None
    """Time that these runs took."""
    dropped: int | None = None
    """Events that it dropped since recording began."""

    @property
    def cpu_pct_of_core(self) -> float | None:
        """CPU time by duration, in per cent: 100 is one core all the time."""
        if self.cpu_s is None or not self.duration_s:
            return None
        return 100 * self.cpu_s / self.duration_s

    @property
    def peak_memory_mb(self) -> float | None:
        """In MB of 1,000,000 bytes."""
        return None if self.peak_memory_bytes is None else self.peak_memory_bytes / 1e6

    @property
    def kernel_ns_per_run(self) -> float | None:
        """Mean time of a run of its BPF programs."""
        if self.kernel_time_ns is None or not self.kernel_runs:
            return None
        return self.kernel_time_ns / self.kernel_runs

    def as_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        plain = asdict(self)
        if self.threads_on_core is not None:
            plain["threads_on_core"] = list(self.threads_on_core)
        return plain

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> AgentCost:
        """What `as_dict` has made of one; raises TypeError if it is not so."""
        names = entry.get("threads_on_core")
        return cls(**{**entry, "threads_on_core": None if names is None else tuple(names)})


@dataclass(frozen=True, slots=True)
class ArmCost:
    """What an arm itself costs while a syscall is measured; None: not known.

    Means over trials, memory and threads at their worst, drops in sum.
    """

    syscall: str
    arm: str
    cpu_s: float | None
    cpu_pct_of_core: float | None
    peak_memory_mb: float | None
    threads_on_core: int | None
    calls_per_s: float | None
    dropped: int | None

    @classmethod
    def of(cls, syscall: str, arm: str, trials: Sequence[AgentCost]) -> ArmCost:
        """Of the trials that count."""
        memory_mb = _known(each.peak_memory_mb for each in trials)
        on_core = [len(each.threads_on_core) for each in trials if each.threads_on_core is not None]
        dropped = [each.dropped for each in trials if each.dropped is not None]
        return cls(
            syscall=syscall,
            arm=arm,
            cpu_s=_mean(each.cpu_s for each in trials),
            cpu_pct_of_core=_mean(each.cpu_pct_of_core for each in trials),
            peak_memory_mb=max(memory_mb, default=None),
            threads_on_core=max(on_core, default=None),
            calls_per_s=_mean(each.calls_per_s for each in trials),
            dropped=sum(dropped) if dropped else None,
        )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the sampler tells; the names are those of AgentCost."""

    cpu_s: float
    duration_s: float
    peak_memory_bytes: int
    threads: int
    threads_on_core: tuple[str, ...]


class SamplerFailed(Exception):
    """The agent's own cost is not known; the text is one line for the user."""


class CostSampler:
    """Watches the agent's processes from `start` to `finish`, beside the measured core."""

    def __init__(self, testbed: Testbed, rootdir: Path) -> None:
        self._testbed = testbed
        self._rootdir = rootdir
        self._stdout = testbed.workdir / "agent_sampler.stdout"
        self._stderr = testbed.workdir / "agent_sampler.stderr"
        self._process: Process | None = None

    def start(self, processes: Processes) -> None:
        """Start it and wait until it has looked for the first time.

        Raises:
            SamplerFailed: It did not start.
            NodeLost: The node cannot be reached.
        """
        program = self._testbed.workdir / Path(PROGRAM).name
        question = {
            "cgroup_marks": processes.cgroup_marks,
            "roots": processes.roots,
            "core": self._testbed.core,
        }
        try:
            content = resource(PROGRAM, self._rootdir).read_bytes()
            self._testbed.write(program, content, role=Role.NODE)
            self._process = self._testbed.start(
                [self._testbed.python, "-I", "-S", str(program), json.dumps(question)],
                role=Role.NODE,
                stdout=self._stdout,
                stderr=self._stderr,
            )
            deadline = time.monotonic() + START_LIMIT_S
            while not self._said(self._stdout):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SamplerFailed(self._complaint())
                time.sleep(POLL_S)
        except NodeLost:
            raise
        except TestbedError as error:
            raise SamplerFailed(str(error)) from error

    def finish(self) -> Usage:
        """Let it look for the last time, and end it.

        Raises:
            SamplerFailed: It had died, or found no process of the agent.
            NodeLost: The node cannot be reached.
        """
        assert self._process is not None
        try:
            self._process.signal(signal.SIGTERM)
            code = self._process.wait(END_LIMIT_S)
            lines = self._said(self._stdout).splitlines()
            if code != 0 or len(lines) != 2:
                raise SamplerFailed(self._complaint())
        except NodeLost:
            raise
        except TestbedError as error:
            raise SamplerFailed(str(error)) from error
        finally:
            self.end()
        return parse_usage(lines[1])

    def end(self) -> None:
        """End it for certain, with what it has written; safe to call twice."""
        if self._process is not None:
            process, self._process = self._process, None
            process.end()
            for path in (self._stdout, self._stderr):
                self._testbed.remove(path, role=Role.NODE)

    def _said(self, path: Path) -> str:
        return self._testbed.read(path, role=Role.NODE).decode(errors="replace")

    def _complaint(self) -> str:
        reason = last_line(self._said(self._stderr)) or "it said nothing"
        return f"the sampler ended early: {reason}"


def parse_usage(line: str) -> Usage:
    """Read the sampler's answer; raises SamplerFailed where it found no process."""
    told = json.loads(line)
    if not told.pop("processes"):
        raise SamplerFailed("none of its processes was found")
    return Usage(**{**told, "threads_on_core": tuple(told["threads_on_core"])})


def kernel_use(
    before: KernelTime | None, after: KernelTime | None
) -> tuple[int, int] | tuple[None, None]:
    """Runs of the agent's BPF programs in between and ns that they took; None if not known.

    Programs that were loaded anew have begun from 0: then it is not known, either.
    """
    if before is None or after is None:
        return None, None
    runs = after.runs - before.runs
    time_ns = after.run_time_ns - before.run_time_ns
    return (runs, time_ns) if runs >= 0 and time_ns >= 0 else (None, None)


def dropped_between(before: int | None, after: int | None) -> int | None:
    """Events dropped in between; None where that is not counted, or the counter began anew."""
    if before is None or after is None or after < before:
        return None
    return after - before
