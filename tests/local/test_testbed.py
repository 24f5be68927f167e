"""This host as a testbed: one run at a time, its own core, cgroup and network, nothing left."""

from __future__ import annotations

import gc
import os
import re
import socket
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

from pytest_syslat.tcp_server import LAT_CONNECT_PORT, TcpServer
from pytest_syslat.testbeds.local import PREFIX, LocalTestbed, cgroup2_mount
from pytest_syslat.testbeds.protocol import Role, TestbedError, TimeLimit
from pytest_syslat.tools import find_lmbench
from pytest_syslat.trial import Bench
from pytest_syslat.workload import Workload

from .support import (
    CORES,
    LAST_CORE,
    ROOT,
    RUN_LIMIT_S,
    host_to_ourselves,
    listener_of_another,
    marked_processes,
    opened,
    wait_until,
)


def test_second_run_on_this_host_is_refused(testbed: LocalTestbed) -> None:
    with pytest.raises(
        TestbedError, match=rf"another run measures on this host \(pid {os.getpid()}\)"
    ):
        LocalTestbed(core=LAST_CORE, run_id="second")
    # The refused one has touched nothing of the first.
    assert testbed.workdir.is_dir()
    assert testbed.run(["true"], role=Role.WORKLOAD, timeout_s=RUN_LIMIT_S).ok


def test_next_run_may_start_once_the_first_is_closed() -> None:
    opened(run_id="first").close()
    opened(run_id="second").close()


def test_closing_twice_is_harmless() -> None:
    testbed = opened()
    testbed.close()
    testbed.close()
    assert not testbed.workdir.exists()


def test_leftovers_of_a_killed_run_are_swept() -> None:
    mount = cgroup2_mount()
    with host_to_ourselves():
        workdir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}killed-"))
        (workdir / "file").touch()
        still_running = subprocess.Popen(["sleep", "60"], process_group=0)
        cgroup = None
        if mount is not None:
            cgroup = mount / f"{PREFIX}killed"
            cgroup.mkdir()
            (cgroup / "cgroup.procs").write_text(str(still_running.pid))
    try:
        testbed = opened(run_id="next")
        try:
            assert not workdir.exists()
            assert testbed.workdir.exists()
            if cgroup is not None:
                assert not cgroup.exists()
                assert still_running.wait(RUN_LIMIT_S) == -9
        finally:
            testbed.close()
    finally:
        still_running.kill()
        still_running.wait()


def allowed_cores(testbed: LocalTestbed, role: Role) -> str:
    shown = testbed.run(["cat", "/proc/self/status"], role=role, timeout_s=RUN_LIMIT_S)
    [cores] = re.findall(r"^Cpus_allowed_list:\s*(\S+)$", shown.stdout, re.MULTILINE)
    return str(cores)


@pytest.mark.skipif(len(CORES) == 1, reason="with one core there is nothing to keep apart")
def test_measured_core_belongs_to_the_workload(testbed: LocalTestbed) -> None:
    assert allowed_cores(testbed, Role.WORKLOAD) == str(testbed.core)
    for role in (Role.SERVER, Role.TRACER, Role.NODE):
        kernel_list = allowed_cores(testbed, role)
        assert str(testbed.core) not in re.split("[-,]", kernel_list), role


def test_only_the_workload_is_in_the_cgroup_that_is_traced(testbed: LocalTestbed) -> None:
    def cgroup(role: Role) -> str:
        shown = testbed.run(["cat", "/proc/self/cgroup"], role=role, timeout_s=RUN_LIMIT_S)
        [path] = re.findall("^0::(.*)$", shown.stdout, re.MULTILINE)
        return str(path)

    assert Path(cgroup(Role.WORKLOAD)).name == f"{PREFIX}selftest"
    for role in (Role.SERVER, Role.TRACER, Role.NODE):
        assert PREFIX not in cgroup(role), role


def test_port_and_counters_are_the_runs_own(testbed: LocalTestbed) -> None:
    server = TcpServer(testbed, ROOT)
    server.start()
    try:
        with socket.socket() as host, pytest.raises(ConnectionRefusedError):
            host.connect(("127.0.0.1", LAT_CONNECT_PORT))
        program = (
            "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)"
        )
        inside = testbed.run(
            [testbed.python, "-I", "-S", "-c", program, str(LAT_CONNECT_PORT)],
            role=Role.WORKLOAD,
            timeout_s=RUN_LIMIT_S,
        )
        assert inside.ok, inside.stderr
    finally:
        server.stop()


def test_time_limit_ends_all_that_the_program_started(testbed: LocalTestbed) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TimeLimit, match=r"sh did not end within 0.3 s"):
            testbed.run(["sh", "-c", "sleep 1234 & sleep 1234"], role=Role.WORKLOAD, timeout_s=0.3)
        gc.collect()
    wait_until(
        lambda: not [each for each in marked_processes() if "sleep 1234" in each],
        RUN_LIMIT_S,
        "all has ended",
    )
    assert [str(each.message) for each in caught] == []


def test_closing_ends_a_workload_that_still_runs() -> None:
    testbed = opened()
    try:
        process = testbed.start(
            ["sleep", "1234"],
            role=Role.WORKLOAD,
            stdout=testbed.workdir / "out",
            stderr=testbed.workdir / "err",
        )
        wait_until(
            lambda: [each for each in marked_processes() if "sleep 1234" in each],
            RUN_LIMIT_S,
            "it runs",
        )
    finally:
        testbed.close()
    assert process.wait(RUN_LIMIT_S) == -9


def test_helper_is_removed_only_by_the_run_that_put_it_there(bench: Bench) -> None:
    first = bench.workload
    assert first.helper is not None
    assert os.access(first.helper, os.X_OK)
    second = Workload(bench.testbed, find_lmbench(None))
    second.close()
    assert os.access(first.helper, os.X_OK)


def test_program_that_is_not_there_is_an_error_of_the_program(testbed: LocalTestbed) -> None:
    done = testbed.run(["no-such-program"], role=Role.WORKLOAD, timeout_s=RUN_LIMIT_S)
    assert not done.ok
    assert "no-such-program" in done.complaint


def test_listener_of_the_hosts_own_is_out_of_the_way(testbed: LocalTestbed) -> None:
    """Somebody else's service on lat_connect's port of the host does not keep ours from it."""
    with socket.socket() as host:
        host.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host.bind(("127.0.0.1", LAT_CONNECT_PORT))
        host.listen()
        with listener_of_another(testbed) as inode:
            assert inode > 0
