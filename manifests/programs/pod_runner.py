r"""Runs programs in a pod on request: runs by itself, with nothing but a Python interpreter.

The plugin starts it by one long-lived exec, `python3 -I -S pod_runner.py WORKDIR`. Each line on
stdin is a request and each line on stdout its answer, both JSON:

    {"id": 7, "op": "run", "argv": ["uname", "-m"], "env": {}, "timeout_s": 5}
    {"id": 7, "code": 0, "stdout": "x86_64\n", "stderr": ""}

One exec for all of them, since an exec of its own for each of the hundreds of lmbench runs of a
trial would load the node, by API server, kubelet and container runtime, while it is measured.

When stdin ends (the plugin has gone, was killed, or lost the connection) all that was started here
is killed. A later runner of the same pod makes sure of that, too.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

CHUNK_BYTES = 512 * 1024
BEAT_S = 15.0
END_LIMIT_S = 5.0

started: dict[int, subprocess.Popen[bytes]] = {}
output_lock = threading.Lock()


def answer(message: dict[str, object]) -> None:
    """Print one line; a reader that has gone is noticed at the end of stdin."""
    with output_lock, contextlib.suppress(OSError):
        print(json.dumps(message), flush=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it started: they share a process group.

    The number of a group means somebody else once its leader has been reaped, and this runs as root
    among all processes of the node.
    """
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT_S)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a program has ended, without reaping it."""
    if process.returncode is not None:
        return True
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None


def popen(
    request: dict[str, Any], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start what a request asks for, in a process group of its own."""
    process = subprocess.Popen(
        request["argv"],
        env={**os.environ, **request["env"]},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    started[process.pid] = process
    return process


def run(request: dict[str, Any]) -> dict[str, object]:
    """Run a program to its end."""
    process = popen(request, subprocess.PIPE, subprocess.PIPE)
    try:
        stdout, stderr = process.communicate(timeout=request["timeout_s"])
    except subprocess.TimeoutExpired:
        return {"timeout": True}
    finally:
        if process.returncode is None:
            kill_group(process)
        del started[process.pid]
    return {
        "code": process.returncode,
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
    }


def start(request: dict[str, Any]) -> dict[str, object]:
    """Start a program in the background, its output in files."""
    with Path(request["stdout"]).open("wb") as stdout, Path(request["stderr"]).open("wb") as stderr:
        return {"pid": popen(request, stdout, stderr).pid}


def poll(request: dict[str, Any]) -> dict[str, object]:
    """Tell the exit code of a background program, null while it runs."""
    process = started[request["pid"]]
    deadline = time.monotonic() + request["timeout_s"]
    while not has_ended(process):
        if time.monotonic() >= deadline:
            return {"code": None}
        time.sleep(0.01)
    # What it has left running goes with it, while the number is still its own.
    kill_group(process)
    return {"code": process.returncode}


def send_signal(request: dict[str, Any]) -> dict[str, object]:
    """Signal a background program."""
    started[request["pid"]].send_signal(request["number"])
    return {}


def end(request: dict[str, Any]) -> dict[str, object]:
    """End a background program for certain."""
    kill_group(started[request["pid"]])
    return {}


def read(request: dict[str, Any]) -> dict[str, object]:
    """Tell a part of a file, with what proves that all of it arrives."""
    with Path(request["path"]).open("rb") as file:
        file.seek(request["offset"])
        data = file.read(CHUNK_BYTES)
    return {
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "more": len(data) == CHUNK_BYTES,
        "data": base64.b64encode(data).decode(),
    }


def write(request: dict[str, Any]) -> dict[str, object]:
    """Write a file, with its directories."""
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(request["data"]))
    path.chmod(0o755 if request["executable"] else 0o644)
    return {}


def remove(request: dict[str, Any]) -> dict[str, object]:
    """Remove a file or an empty directory, if it is there."""
    path = Path(request["path"])
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    return {}


def state(request: dict[str, Any]) -> dict[str, object]:
    """Tell owner and mode of a file."""
    try:
        found = Path(request["path"]).stat()
    except OSError:
        return {"there": False}
    return {
        "there": True,
        "inode": found.st_ino,
        "owner": found.st_uid,
        "reader": os.geteuid(),
        "mode": stat.S_IMODE(found.st_mode),
        "executable": os.access(request["path"], os.X_OK),
    }


def hello(_request: dict[str, Any]) -> dict[str, object]:
    """Tell where this runs."""
    return {
        "pid": os.getpid(),
        "pid_namespace": Path("/proc/self/ns/pid").stat().st_ino,
        "cores": sorted(os.sched_getaffinity(0)),
        "machine": os.uname().machine,
        "clock_ticks": os.sysconf("SC_CLK_TCK"),
    }


OPERATIONS = {
    "run": run,
    "start": start,
    "poll": poll,
    "signal": send_signal,
    "end": end,
    "read": read,
    "write": write,
    "remove": remove,
    "state": state,
    "hello": hello,
}


def work(requests: queue.Queue[dict[str, Any]]) -> None:
    """Do what is asked, one request after the other."""
    while True:
        request = requests.get()
        try:
            result = OPERATIONS[request["op"]](request)
        except OSError as error:
            result = {"error": error.strerror or str(error)}
        except Exception as error:
            result = {"error": repr(error)}
        answer({"id": request["id"], **result})


def beat() -> None:
    """Keep an idle connection open: proxies between here and the plugin close silent ones."""
    while True:
        time.sleep(BEAT_S)
        answer({"beat": True})


def kill_all(*_: object) -> None:
    """Kill all that was started, and end."""
    for process in list(started.values()):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    os._exit(0)


def replace_earlier(pid_file: Path) -> None:
    """End an earlier runner of this pod whose connection was lost without its noticing."""
    with contextlib.suppress(OSError, ValueError):
        earlier = Path("/proc") / str(int(pid_file.read_text()))
        if Path(__file__).name.encode() in (earlier / "cmdline").read_bytes():
            os.kill(int(earlier.name), signal.SIGTERM)
            deadline = time.monotonic() + END_LIMIT_S
            while earlier.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
    pid_file.write_text(str(os.getpid()))


def main(workdir: Path) -> None:
    """Serve requests until stdin ends."""
    signal.signal(signal.SIGTERM, kill_all)
    replace_earlier(workdir / "pod_runner.pid")
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=work, args=[requests], daemon=True).start()
    if "--beat" in sys.argv:
        threading.Thread(target=beat, daemon=True).start()
    for line in sys.stdin:
        requests.put(json.loads(line))
    kill_all()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
