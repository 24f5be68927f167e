"""The connection to a pod's runner: the real runner, behind a stand-in for the exec's websocket."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.testbeds import pod_channel
from pytest_syslat.testbeds.cluster_api import NotFound
from pytest_syslat.testbeds.pod_channel import ConnectionLost, PodChannel
from pytest_syslat.testbeds.protocol import NodeLost, TestbedError, TimeLimit

RUNNER = Path(__file__).resolve().parents[2] / "manifests" / "programs" / "pod_runner.py"
CHUNK_BYTES = 512 * 1024
"""What the runner tells of a file in one answer."""
LIMIT_S = 20.0

TWO_SLEEPERS = 'sleep 1000 & echo $! >"$1"; echo $$ >"$2"; wait'
"""A program that starts another: both leave their process ids in files."""


def is_alive(pid: int) -> bool:
    """Whether a process still runs; a zombie that nobody has reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {LIMIT_S:g} s")
        time.sleep(0.01)


class Connection:
    """What the kubernetes library makes of an exec, with the runner as a child of this process."""

    def __init__(self, workdir: Path, spoil: Callable[[str], str] | None = None) -> None:
        self.runner = subprocess.Popen(
            [sys.executable, "-I", "-S", str(RUNNER), str(workdir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.sock = self
        """The library's has a `shutdown` of its own."""
        self.interrupt_after: Callable[[], object] | None = None
        """Once this comes true, Ctrl-C is pressed."""
        self._spoil = spoil
        self._open = True
        self._cut = False
        self._channels = {1: "", 2: "", 3: ""}
        self._selector = selectors.DefaultSelector()
        for channel, stream in ((1, self.runner.stdout), (2, self.runner.stderr)):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ, channel)

    def is_open(self) -> bool:
        return self._open

    def update(self, timeout: float = 0) -> None:
        if self.interrupt_after is not None:
            wait_until(self.interrupt_after, "what Ctrl-C waits for")
            self.interrupt_after = None
            raise KeyboardInterrupt
        # In short steps: a connection that is cut meanwhile wakes the library up.
        deadline = time.monotonic() + timeout
        while self._open and not (ready := self._selector.select(0.02)):
            self._open = not self._cut
            if time.monotonic() >= deadline:
                return
        if not self._open:
            return
        for key, _ in ready:
            assert not isinstance(key.fileobj, int)
            data = os.read(key.fileobj.fileno(), 65536).decode()
            if data:
                self._channels[key.data] += data
            else:
                self._selector.unregister(key.fileobj)
        if not self._selector.get_map():
            self._open = False

    def read_channel(self, channel: int, timeout: float = 0) -> str:
        text, self._channels[channel] = self._channels[channel], ""
        return self._spoil(text) if channel == 1 and self._spoil else text

    def read_stderr(self, timeout: float | None = None) -> str:
        return self.read_channel(2)

    def write_stdin(self, data: str) -> None:
        if self._cut:
            raise BrokenPipeError("Broken pipe")
        assert self.runner.stdin is not None
        self.runner.stdin.write(data.encode())
        self.runner.stdin.flush()

    def cut(self, *, noticed_in_pod: bool = True) -> None:
        """Lose the connection; the runner may or may not get to know of it."""
        self._cut = True
        if noticed_in_pod:
            assert self.runner.stdin is not None
            self.runner.stdin.close()

    def close(self, timeout: float = 0) -> None:
        self._open = False

    def shutdown(self) -> None:
        if not self._cut:
            self.cut()

    def end(self) -> None:
        """For the end of a test: nothing of it may stay."""
        if self.runner.stdin is not None and not self.runner.stdin.closed:
            self.runner.stdin.close()
        try:
            self.runner.wait(LIMIT_S)
        finally:
            self.runner.kill()
            self.runner.wait()
            for stream in (self.runner.stdout, self.runner.stderr):
                assert stream is not None
                stream.close()
            self._selector.close()


class Pod:
    """A directory that stands for the pod's, and all connections that were made to it."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.connections: list[Connection] = []
        self.problems: list[Exception] = []
        """What dialling raises, before it succeeds."""
        self.spoil: Callable[[str], str] | None = None

    def dial(self) -> Any:
        if self.problems:
            raise self.problems.pop(0)
        self.connections.append(Connection(self.workdir, self.spoil))
        return self.connections[-1]

    def channel(self) -> PodChannel:
        return PodChannel("workload", self.dial)

    def sleepers(self, channel: PodChannel) -> tuple[pod_channel.PodProcess, list[int]]:
        """A background process with a child, and both process ids."""
        files = [self.workdir / "child", self.workdir / "parent"]
        for file in files:
            file.unlink(missing_ok=True)
        process = channel.start(
            ["sh", "-c", TWO_SLEEPERS, "sh", *map(str, files)],
            stdout=self.workdir / "out",
            stderr=self.workdir / "err",
        )
        wait_until(lambda: all(each.exists() and each.read_text() for each in files), "they run")
        return process, [int(each.read_text()) for each in files]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    monkeypatch.setattr(pod_channel, "PAUSE_S", 0.01)
    pod = Pod(tmp_path)
    yield pod
    for connection in pod.connections:
        connection.end()


def shell(channel: PodChannel, text: str, *arguments: str, timeout_s: float = LIMIT_S) -> str:
    """Run a script that succeeds, and what it prints."""
    done = channel.run(["sh", "-c", text, "sh", *arguments], timeout_s=timeout_s)
    assert done.returncode == 0, done
    return done.stdout


# --- Programs that run to their end --------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "stdout", "stderr"),
    [
        ("true", 0, "", ""),
        ("echo out; echo err >&2; exit 3", 3, "out\n", "err\n"),
        ("printf 'no newline'; exit 255", 255, "no newline", ""),
        ("kill -9 $$", -9, "", ""),
        ("printf 'µs\\n'", 0, "µs\n", ""),
        # What isn't UTF-8 does not break the answer.
        (r"printf '\377\n'", 0, "\N{REPLACEMENT CHARACTER}\n", ""),
    ],
)
def test_exit_code_and_output(pod: Pod, script: str, code: int, stdout: str, stderr: str) -> None:
    argv = ["sh", "-c", script]
    done = pod.channel().run(argv, timeout_s=LIMIT_S)
    assert (done.argv, done.returncode, done.stdout, done.stderr) == (
        tuple(argv),
        code,
        stdout,
        stderr,
    )


def test_output_larger_than_a_pipe_arrives_whole(pod: Pod) -> None:
    lines = shell(pod.channel(), "seq 1 200000").splitlines()
    assert lines == [str(number) for number in range(1, 200_001)]


def test_variables_are_added_to_the_inherited_ones(pod: Pod) -> None:
    done = pod.channel().run(
        ["sh", "-c", 'echo "$ENOUGH"; [ -n "$PATH" ]'], timeout_s=LIMIT_S, env={"ENOUGH": "5000"}
    )
    assert (done.returncode, done.stdout) == (0, "5000\n")


def test_program_reads_nothing_of_the_requests(pod: Pod) -> None:
    channel = pod.channel()
    assert shell(channel, "cat") == ""
    assert shell(channel, "echo next") == "next\n"


def test_program_that_is_not_there(pod: Pod) -> None:
    done = pod.channel().run(["/no/such/program"], timeout_s=LIMIT_S)
    assert done.returncode == 127
    assert done.complaint == "/no/such/program: No such file or directory"


def test_time_limit_ends_all_that_the_program_started(pod: Pod) -> None:
    channel = pod.channel()
    files = [pod.workdir / "child", pod.workdir / "parent"]
    with pytest.raises(TimeLimit, match=r"^sh did not end within 0.5 s$"):
        channel.run(["/bin/sh", "-c", TWO_SLEEPERS, "sh", *map(str, files)], timeout_s=0.5)
    pids = [int(each.read_text()) for each in files]
    wait_until(lambda: not any(map(is_alive, pids)), "both have ended")
    # The connection is as good as before.
    assert shell(channel, "echo next") == "next\n"
    assert len(pod.connections) == 1


# --- Programs in the background ------------------------------------------------------------------


def test_background_program_from_start_to_end(pod: Pod) -> None:
    channel = pod.channel()
    out, err = pod.workdir / "out", pod.workdir / "err"
    script = "trap 'echo told; exit 5' USR1; echo up; echo oh >&2; while :; do sleep 0.01; done"
    process = channel.start(["sh", "-c", script], stdout=out, stderr=err)
    wait_until(lambda: channel.read(out) == b"up\n", "it is up")
    assert channel.read(err) == b"oh\n"
    assert process.poll() is None
    assert process.wait(0.05) is None
    assert is_alive(process.pid)
    # Other programs run beside it.
    assert shell(channel, "echo beside") == "beside\n"
    process.signal(signal.SIGUSR1)
    assert process.wait(LIMIT_S) == 5
    assert process.poll() == 5
    assert channel.read(out) == b"up\ntold\n"
    # It has ended: nothing happens.
    process.signal(signal.SIGUSR1)
    process.end()
    assert process.poll() == 5


def test_end_kills_what_the_program_started(pod: Pod) -> None:
    process, pids = pod.sleepers(pod.channel())
    assert all(map(is_alive, pids))
    process.end()
    assert process.poll() == -signal.SIGKILL
    wait_until(lambda: not any(map(is_alive, pids)), "both have ended")


def test_background_program_that_is_not_there(pod: Pod) -> None:
    out, err = pod.workdir / "out", pod.workdir / "err"
    with pytest.raises(
        TestbedError, match=r"^cannot run bpftrace2 in pod workload: No such file or directory$"
    ):
        pod.channel().start(["bpftrace2"], stdout=out, stderr=err)


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_file_arrives_whole_and_from_any_place_on(pod: Pod, size: int) -> None:
    content = os.urandom(size)
    file = pod.workdir / "file"
    file.write_bytes(content)
    channel = pod.channel()
    assert channel.read(file) == content
    assert channel.read(file, size // 3) == content[size // 3 :]
    assert channel.read(file, size) == b""


def test_what_is_written_is_there(pod: Pod) -> None:
    channel = pod.channel()
    plain, program = pod.workdir / "new" / "deep" / "plain", pod.workdir / "program"
    content = os.urandom(3 * 65536)
    channel.write(plain, content)
    channel.write(program, b"#!/bin/sh\necho run\n", executable=True)
    assert plain.read_bytes() == content
    assert shell(channel, '"$1"', str(program)) == "run\n"

    there = channel.state(program)
    assert there is not None
    assert (there.owner, there.reader, there.mode) == (os.geteuid(), os.geteuid(), 0o755)
    assert there.executable
    not_executable = channel.state(plain)
    assert not_executable is not None
    assert (not_executable.mode, not_executable.executable) == (0o644, False)
    assert channel.inode(plain) == plain.stat().st_ino


def test_removing(pod: Pod) -> None:
    channel = pod.channel()
    file, empty, full = (pod.workdir / name for name in ("file", "empty", "full"))
    file.touch()
    empty.mkdir()
    (full / "inside").mkdir(parents=True)
    for path in (file, empty, full, pod.workdir / "missing"):
        channel.remove(path)
    assert not file.exists()
    assert not empty.exists()
    assert full.exists()


def test_file_that_is_not_there(pod: Pod) -> None:
    channel = pod.channel()
    assert channel.state(Path("/no/such")) is None
    with pytest.raises(
        TestbedError, match=r"^cannot read /no/such in pod workload: No such file or directory$"
    ):
        channel.read(Path("/no/such"))
    with pytest.raises(TestbedError, match=r"^/no/such is not there in pod workload$"):
        channel.inode(Path("/no/such"))
    with pytest.raises(TestbedError, match=r"^cannot write /proc/nowhere/x in pod workload: "):
        channel.write(Path("/proc/nowhere/x"), b"")


def flipped(told: dict[str, Any]) -> None:
    """Another byte, with all else as it should be."""
    data = bytearray(base64.b64decode(told["data"]))
    data[100] ^= 1
    told["data"] = base64.b64encode(bytes(data)).decode()


def shortened(told: dict[str, Any]) -> None:
    """An end that is missing, with a sum that fits the rest."""
    data = base64.b64decode(told["data"])[:-7]
    told["data"] = base64.b64encode(data).decode()
    told["sha256"] = hashlib.sha256(data).hexdigest()


def no_base64(told: dict[str, Any]) -> None:
    told["data"] = "!" + told["data"][1:]


class Spoiling:
    """Changes the first answers to `read` that pass through a connection."""

    def __init__(self, change: Callable[[dict[str, Any]], None], times: int) -> None:
        self._change = change
        self._text = ""
        self.left = times
        self.reads = 0

    def __call__(self, text: str) -> str:
        whole, newline, self._text = (self._text + text).rpartition("\n")
        lines = [self._line(json.loads(line)) for line in whole.splitlines()]
        return "\n".join(lines) + newline

    def _line(self, told: dict[str, Any]) -> str:
        if "sha256" in told:
            self.reads += 1
            if self.left:
                self.left -= 1
                self._change(told)
        return json.dumps(told)


@pytest.mark.parametrize("change", [flipped, shortened, no_base64])
def test_part_that_did_not_arrive_whole_is_read_again(
    pod: Pod, change: Callable[[dict[str, Any]], None]
) -> None:
    content = os.urandom(CHUNK_BYTES + 1000)
    file = pod.workdir / "file"
    file.write_bytes(content)
    spoiling = pod.spoil = Spoiling(change, times=2)
    assert pod.channel().read(file) == content
    # The first part three times, the second one once.
    assert (spoiling.left, spoiling.reads) == (0, 4)


@pytest.mark.parametrize("change", [flipped, shortened, no_base64])
def test_part_that_never_arrives_whole_is_refused(
    pod: Pod, change: Callable[[dict[str, Any]], None]
) -> None:
    file = pod.workdir / "file"
    file.write_bytes(os.urandom(1000))
    pod.spoil = Spoiling(change, times=1000)
    channel = pod.channel()
    with pytest.raises(TestbedError, match=r"/file in pod workload did not arrive whole$"):
        channel.read(file)
    assert shell(channel, "echo next") == "next\n"


# --- The connection ------------------------------------------------------------------------------


def test_runner_tells_where_it_is(pod: Pod) -> None:
    channel = pod.channel()
    assert channel.place == {}
    shell(channel, "true")
    assert channel.place["pid"] == pod.connections[0].runner.pid
    assert channel.place["pid_namespace"] == Path("/proc/self/ns/pid").stat().st_ino
    assert channel.place["machine"] == os.uname().machine
    assert channel.place["clock_ticks"] == os.sysconf("SC_CLK_TCK")
    assert set(channel.place["cores"]) <= set(range(os.cpu_count() or 0))


def test_answers_to_others_and_beats_are_passed_over(pod: Pod) -> None:
    def with_noise(text: str) -> str:
        noise = '{"beat": true}\n{"id": 0, "code": 9, "stdout": "old", "stderr": ""}\n'
        return noise + text if text.startswith("{") else text

    pod.spoil = with_noise
    channel = pod.channel()
    assert [shell(channel, f"echo {number}") for number in range(3)] == ["0\n", "1\n", "2\n"]


def test_runner_beats_only_when_it_is_told_to(pod: Pod) -> None:
    """A beat keeps an idle connection open; on the measured core it would be a disturbance."""
    program = (
        f"import runpy, sys; runner = runpy.run_path({str(RUNNER)!r}); "
        "runner['main'].__globals__['BEAT_S'] = 0.05; "
        f"runner['main'](runner['Path']({str(pod.workdir)!r}))"
    )
    for arguments, beats in (([], False), (["--beat"], True)):
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as runner:
            assert runner.stdin is not None
            assert runner.stdout is not None
            request = {"id": 1, "op": "run", "argv": ["sleep", "0.5"], "env": {}, "timeout_s": 9}
            runner.stdin.write(json.dumps(request).encode() + b"\n")
            runner.stdin.flush()
            first = json.loads(runner.stdout.readline())
            runner.stdin.close()
        assert first == ({"beat": True} if beats else {"id": 1, "code": 0} | EMPTY)


EMPTY = {"stdout": "", "stderr": ""}


def test_lost_connection_ends_what_was_started_and_the_next_request_connects(pod: Pod) -> None:
    channel = pod.channel()
    process, pids = pod.sleepers(channel)
    first = pod.connections[0]
    begun = pod.workdir / "begun"

    def cut_once_it_runs() -> None:
        wait_until(begun.exists, "the request is at work")
        first.cut()

    cutting = threading.Thread(target=cut_once_it_runs)
    cutting.start()
    with pytest.raises(ConnectionLost, match=r"^the connection to pod workload was lost: \S"):
        shell(channel, 'echo $$ >"$1"; exec sleep 1000', str(begun), timeout_s=60)
    cutting.join()

    pids.append(int(begun.read_text()))
    wait_until(lambda: not any(map(is_alive, pids)), "all that was started has ended")
    # Its end is known without a question, and there is nothing left to be told or ended.
    assert process.poll() == process.wait(LIMIT_S) == -signal.SIGKILL
    process.signal(signal.SIGINT)
    process.end()
    assert len(pod.connections) == 1
    assert shell(channel, "echo next") == "next\n"
    assert len(pod.connections) == 2
    assert process.poll() == -signal.SIGKILL


def test_reason_for_the_loss_is_what_the_runner_said_last(pod: Pod) -> None:
    channel = pod.channel()
    shell(channel, "true")
    assert pod.connections[0].runner.stdin is not None
    pod.connections[0].runner.stdin.write(b"no JSON\n")
    pod.connections[0].runner.stdin.flush()
    with pytest.raises(ConnectionLost, match=r"was lost: json.*Expecting value"):
        shell(channel, "sleep 60")


def test_runner_that_hangs_is_given_up(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = pod.channel()
    shell(channel, "true")
    monkeypatch.setattr(pod_channel, "ANSWER_LIMIT_S", 0.3)
    runner = pod.connections[0].runner
    os.kill(runner.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ConnectionLost, match=r"was lost: no answer in time$"):
            channel.read(pod.workdir / "any")
    finally:
        os.kill(runner.pid, signal.SIGCONT)


def test_loss_is_noticed_between_two_trials(pod: Pod) -> None:
    """An idle connection breaks unnoticed: that must not refuse the trial that uses it next."""
    channel = pod.channel()
    channel.refresh()
    assert pod.connections == [], "nothing was lost, for nothing has been asked yet"
    shell(channel, "true")
    channel.refresh()
    assert len(pod.connections) == 1
    pod.connections[0].cut()
    channel.refresh()
    assert shell(channel, "echo next") == "next\n"
    assert len(pod.connections) == 2


def test_pod_that_is_gone_is_not_waited_for(pod: Pod) -> None:
    """It is made anew before the next trial, under another name or with another runner."""
    pod.problems = [NotFound("no such pod"), TestbedError("asked again")]
    with pytest.raises(NodeLost, match=r"^no such pod$"):
        shell(pod.channel(), "true")
    assert len(pod.problems) == 1


def test_request_after_the_loss_waits_for_the_server(pod: Pod) -> None:
    channel = pod.channel()
    shell(channel, "true")
    pod.connections[0].cut()
    pod.problems = [TestbedError("away"), TestbedError("still away")]
    with pytest.raises(ConnectionLost):
        shell(channel, "true")
    assert len(pod.problems) == 2, "a lost request isn't repeated by itself"
    assert shell(channel, "echo back") == "back\n"
    assert pod.problems == []


def test_server_that_stays_away_is_given_up(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_channel, "RECONNECT_LIMIT_S", 0.1)
    pod.problems = [TestbedError(f"away {number}") for number in range(1000)]
    with pytest.raises(TestbedError, match=r"^away \d+$"):
        shell(pod.channel(), "true")
    assert 2 <= 1000 - len(pod.problems) < 1000


def test_ctrl_c_in_a_request_ends_what_it_runs(pod: Pod) -> None:
    channel = pod.channel()
    process, pids = pod.sleepers(channel)
    begun = pod.workdir / "begun"
    pod.connections[0].interrupt_after = lambda: begun.exists() and begun.read_text()
    with pytest.raises(KeyboardInterrupt):
        shell(channel, 'echo $$ >"$1"; exec sleep 1000', str(begun), timeout_s=60)
    pids.append(int(begun.read_text()))
    # The answer to the interrupted request must not be taken for that of the next one.
    assert shell(channel, "echo cleaning up") == "cleaning up\n"
    wait_until(lambda: not any(map(is_alive, pids)), "all that was started has ended")
    assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("ask", ["poll", "signal", "end"])
def test_background_program_is_asked_for_first_after_ctrl_c(pod: Pod, ask: str) -> None:
    channel = pod.channel()
    process, pids = pod.sleepers(channel)
    pod.connections[0].interrupt_after = lambda: True
    with pytest.raises(KeyboardInterrupt):
        shell(channel, "sleep 1000", timeout_s=60)
    if ask == "poll":
        assert process.poll() == -signal.SIGKILL
    elif ask == "signal":
        process.signal(signal.SIGINT)
    else:
        process.end()
    wait_until(lambda: not any(map(is_alive, pids)), "it has ended")
    assert shell(channel, "echo next") == "next\n"


def test_closing_ends_everything(pod: Pod) -> None:
    channel = pod.channel()
    process, pids = pod.sleepers(channel)
    channel.close()
    channel.close()
    wait_until(lambda: not any(map(is_alive, pids)), "all that was started has ended")
    assert pod.connections[0].runner.wait(LIMIT_S) == 0
    assert process.poll() == -signal.SIGKILL


def test_runner_that_is_told_to_end_ends_everything(pod: Pod) -> None:
    """As when the pod is deleted."""
    _, pids = pod.sleepers(pod.channel())
    runner = pod.connections[0].runner
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(LIMIT_S) == 0
    wait_until(lambda: not any(map(is_alive, pids)), "all that was started has ended")


def test_next_runner_replaces_one_that_noticed_nothing(pod: Pod) -> None:
    """A node that hears nothing of a broken connection keeps the first runner's stdin open."""
    channel = pod.channel()
    _, pids = pod.sleepers(channel)
    first = pod.connections[0]
    first.cut(noticed_in_pod=False)
    with pytest.raises(ConnectionLost):
        shell(channel, "true")
    assert all(map(is_alive, pids))

    assert shell(channel, "echo next") == "next\n"
    assert first.runner.wait(LIMIT_S) == 0
    wait_until(lambda: not any(map(is_alive, pids)), "all that was started has ended")
    assert (pod.workdir / "pod_runner.pid").read_text() == str(pod.connections[1].runner.pid)


@pytest.mark.parametrize("content", ["", "no number", "4194305"])
def test_note_of_an_earlier_runner_that_helps_nobody(pod: Pod, content: str) -> None:
    (pod.workdir / "pod_runner.pid").write_text(content)
    assert shell(pod.channel(), "echo fine") == "fine\n"


def test_process_of_somebody_else_with_an_earlier_runners_number_is_left_alone(pod: Pod) -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            (pod.workdir / "pod_runner.pid").write_text(str(stranger.pid))
            assert shell(pod.channel(), "echo fine") == "fine\n"
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_runner_needs_nothing_but_python() -> None:
    """It runs in the pods, where nothing of this package is installed."""
    modules = re.findall(r"^(?:import|from) (\w+)", RUNNER.read_text(), re.MULTILINE)
    assert modules
    assert set(modules) - {"__future__"} <= sys.stdlib_module_names
