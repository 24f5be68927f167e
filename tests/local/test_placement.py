"""Who else traces syscalls here is found out, and with it where the tracer's programs run."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_syslat.findings import Severity
from pytest_syslat.placement import Holder, Placement, list_holders, placement_of_next
from pytest_syslat.testbeds.local import LocalTestbed
from pytest_syslat.testbeds.protocol import Role
from pytest_syslat.trial import Bench

from .support import RUN_LIMIT_S, detail, measure, wait_until

EVENT = "sys_enter_getpgid"
"""An event that nothing else here uses."""


@contextlib.contextmanager
def stranger_on(testbed: LocalTestbed, probe: str) -> Iterator[int]:
    """Somebody else's tracer; yields its process id once it is attached."""
    name = probe.replace(":", "-")
    stdout, stderr = testbed.workdir / f"{name}.stdout", testbed.workdir / f"{name}.stderr"
    process = testbed.start(
        # Only the one call that is made below is reported.
        ["bpftrace", "-e", f'{probe} /comm == "syslat-probe"/ {{ print(1); }}'],
        role=Role.TRACER,
        stdout=stdout,
        stderr=stderr,
    )
    call = "open('/proc/self/comm', 'w').write('syslat-probe'); import os; os.getpgid(0)"

    def attached() -> bool:
        testbed.run([testbed.python, "-I", "-S", "-c", call], role=Role.NODE, timeout_s=RUN_LIMIT_S)
        return "1" in stdout.read_text().splitlines() or process.poll() is not None

    try:
        wait_until(attached, RUN_LIMIT_S, "the stranger is attached")
        assert process.poll() is None, stderr.read_text()
        yield process.pid
    finally:
        process.end()


@pytest.fixture
def nobody_else(testbed: LocalTestbed) -> None:
    """These tests say what is found beside nobody: another tracer of this host would disturb."""
    holders = list_holders(testbed)
    if holders:
        pytest.skip(f"others trace syscalls here: {', '.join(map(str, holders))}")


@pytest.mark.usefixtures("nobody_else")
def test_alone_the_tracer_is_last(testbed: LocalTestbed) -> None:
    assert list_holders(testbed) == []
    assert placement_of_next([]) is Placement.LAST


@pytest.mark.usefixtures("nobody_else")
def test_stranger_on_an_event_is_named(bench: Bench, testbed: LocalTestbed) -> None:
    with stranger_on(testbed, f"tracepoint:syscalls:{EVENT}") as pid:
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
        assert list_holders(testbed) == [Holder(pid, comm, EVENT, raw=False)]
        trial = measure(bench, "openat")
    assert trial.placement is Placement.UNKNOWN
    [finding] = [each for each in trial.findings if each.code == "other-tracers"]
    assert finding.severity is Severity.WARNING
    assert f"{comm} (pid {pid}) on {EVENT}" in finding.detail


@pytest.mark.usefixtures("nobody_else")
def test_order_among_both_kinds_of_probes_is_unknown(bench: Bench, testbed: LocalTestbed) -> None:
    """The events' shared handler has its place already: the raw one may be before or after."""
    with (
        stranger_on(testbed, f"tracepoint:syscalls:{EVENT}") as first,
        stranger_on(testbed, "tracepoint:raw_syscalls:sys_enter") as second,
    ):
        holders = list_holders(testbed)
        assert holders is not None
        assert {(each.pid, each.tracepoint, each.raw) for each in holders} == {
            (first, EVENT, False),
            (second, "sys_enter", True),
        }
        trial = measure(bench, "openat")
    assert trial.placement is Placement.UNKNOWN
    assert "others trace syscalls on this node" in detail(trial, "other-tracers")


@pytest.mark.usefixtures("nobody_else")
def test_event_that_ftrace_holds_is_found(testbed: LocalTestbed) -> None:
    """No process and no BPF program holds it: it is switched on in tracefs, and seen there."""

    def switch(value: str) -> None:
        # tracefs may not be mounted: a mount of this test's own leads to the same switches.
        script = (
            "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; "
            f"echo {value} > /sys/kernel/tracing/events/syscalls/{EVENT}/enable"
        )
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            check=True,
            timeout=RUN_LIMIT_S,
        )

    switch("1")
    try:
        holders = list_holders(testbed)
    finally:
        switch("0")
    assert holders is not None
    assert [(each.pid, each.tracepoint, each.raw) for each in holders] == [(None, EVENT, False)]
    assert list_holders(testbed) == []
