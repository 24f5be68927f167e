"""Real eBPF observers cost something, and that is seen; a program that observes nothing is free.

opensnoop and execsnoop (libbpf-tools) hook both tracepoints of their syscall and tell each call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_syslat.bpf_programs import list_programs
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Role
from pytest_syslat.tools import Tool, find_tool

from .support import RUN_LIMIT_S, wait_until
from .test_main_job import Project

BLOCKS = 8
SEEN = 1.2
"""opensnoop makes openat half as slow again; two arms of one kind differ by a few per cent."""


def observer(name: str) -> Tool:
    """An observer; without it the test is skipped, and fails where CI is set."""
    tool = find_tool(name)
    if tool is not None:
        return tool
    problem = f"{name} not found: run 'tools/provision.sh --for-tests'"
    if os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


@pytest.mark.parametrize(
    ("name", "syscall", "first_word"),
    [("opensnoop", "openat", "PID"), ("execsnoop", "execve", "PCOMM")],
)
def test_its_first_line_says_that_it_is_attached(
    testbed: LocalTestbed, name: str, syscall: str, first_word: str
) -> None:
    tool = observer(name)
    stdout, stderr = testbed.workdir / "observer.stdout", testbed.workdir / "observer.stderr"
    process = testbed.start(
        ["stdbuf", "-oL", tool.path], role=Role.TRACER, stdout=stdout, stderr=stderr, env=tool.env
    )
    try:
        wait_until(
            lambda: b"\n" in stdout.read_bytes() or process.poll() is not None,
            RUN_LIMIT_S,
            f"{name} is ready",
        )
        assert stdout.read_text(errors="replace").startswith(first_word), stderr.read_text()
        ours = [
            each
            for each in list_programs(testbed) or []
            if (process.pid, name) in each.holders and each.attached_to
        ]
    finally:
        process.end()
    places = {place for each in ours for place in each.attached_to}
    # Some releases of opensnoop hook open, openat2 and so on, too.
    assert {f"tracepoint sys_enter_{syscall}", f"tracepoint sys_exit_{syscall}"} <= places
    assert {each.kind for each in ours} == {"tracepoint"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """openat beside opensnoop, and beside a program that only sleeps."""
    opensnoop = observer("opensnoop").path
    project = Project(tmp_path_factory.mktemp("observers"))
    (project.directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    try:
        project.run(
            # Into a pipe it would print by whole buffers: its first line would come late.
            f"--agent=opensnoop=command:stdbuf -oL {opensnoop}",
            "--syslat-ready=opensnoop=log:^PID",
            "--agent=sleeper=command:sleep 1000",
            *("-k", "openat", f"--syslat-trials={BLOCKS}", "--syslat-testbed=local"),
            *("--syslat-lmbench-reps=1", "--syslat-openat-mult=1", "--syslat-warmup-sec=0"),
            *("--syslat-min-calls=1000", "--syslat-pin-core=999"),
        )
        yield project
    finally:
        project.close()


@pytest.mark.long
@pytest.mark.parametrize("figure", ["p50", "user"])
def test_an_observer_is_seen_and_a_sleeper_is_not(measured: Project, figure: str) -> None:
    """Each arm's best trial is compared.

    A virtual machine may change its speed within seconds and by more than an observer costs. So
    some blocks compare a slow vanilla with a fast observer, but an arm's best trial is one at full
    speed.
    """
    best: dict[str, float] = {}
    for trial in measured.run_json()["trials"]:
        if not trial["refused"]:
            us = trial["figures_us"][figure]
            best[trial["label"]] = min(us, best.get(trial["label"], us))
    print(figure, best)
    assert best["opensnoop"] > SEEN * best["vanilla"]
    assert best["sleeper"] < SEEN * best["vanilla"]
