"""Installing charts with Helm: the `helm` program where it is there, else Helm as a library.

Both run as programs of their own: a Go runtime inside pytest's process would share its signals and
could not be ended when it hangs.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_syslat.testbeds.cluster_api import ClusterApi
from pytest_syslat.testbeds.protocol import TestbedError, last_line

LIMIT_S = 180.0
UNINSTALL_LIMIT_S = 60
ABSENT = "release: not found"
LIBRARY = "helm_python"
MISSING = (
    "Helm is needed to install a chart: install the program helm, or "
    "pip install 'pytest-syslat[helm]'"
)


@dataclass(frozen=True, slots=True)
class ChartRequest:
    """What to install, and as what."""

    release: str
    namespace: str
    chart: str
    """A path, or a name in `repository`."""
    repository: str | None
    """URL; None for a path."""
    version: str | None
    values: dict[str, Any]
    labels: dict[str, str]
    """Marks of the release itself, by which it is known as this run's."""


def releases(api: ClusterApi, release: str, namespace: str) -> list[dict[str, Any]]:
    """The Secrets in which Helm keeps a release; none if there is no such release."""
    return api.list("Secret", namespace, f"owner=helm,name={release}")


def install(context: str, request: ChartRequest) -> None:
    """Install a chart; its objects are made then, not ready.

    Args:
        context: Of the kubeconfig.
        request: What to install. Its namespace must exist.

    Raises:
        TestbedError: One line with Helm's own reason.
    """
    what = f"install the chart {request.chart}"
    if shutil.which("helm"):
        with tempfile.TemporaryDirectory() as directory:
            values = Path(directory) / "values.json"
            values.write_text(json.dumps(request.values))
            labels = ",".join(f"{key}={value}" for key, value in request.labels.items())
            options = ["--values", str(values), "--timeout", f"{LIMIT_S:g}s", "--labels", labels]
            if request.repository:
                options += ["--repo", request.repository]
            if request.version:
                options += ["--version", request.version]
            _done(
                ["helm", "install", request.release, request.chart]
                + ["--namespace", request.namespace, "--kube-context", context, *options],
                what,
            )
        return
    _by_library({"do": "install", "context": context, **asdict(request)}, what)


def uninstall(context: str, release: str, namespace: str) -> bool:
    """Remove a release; its objects may still be going when this returns.

    Returns:
        False if there was none.

    Raises:
        TestbedError: One line with Helm's own reason.
    """
    what = f"uninstall the release {namespace}/{release}"
    try:
        if shutil.which("helm"):
            _done(
                ["helm", "uninstall", release]
                + ["--namespace", namespace, "--kube-context", context]
                + ["--wait", "--timeout", f"{UNINSTALL_LIMIT_S}s"],
                what,
            )
        else:
            _by_library(
                {
                    "do": "uninstall",
                    "context": context,
                    "namespace": namespace,
                    "release": release,
                    "limit_s": UNINSTALL_LIMIT_S,
                },
                what,
            )
    except _NoRelease:
        return False
    return True


class _NoRelease(TestbedError):
    """There is no such release."""


def _by_library(request: dict[str, Any], what: str) -> None:
    if importlib.util.find_spec(LIBRARY) is None:
        raise TestbedError(f"cannot {what}: {MISSING}")
    _done(
        [sys.executable, "-m", "pytest_syslat.testbeds.helm_library"],
        what,
        json.dumps(request),
    )


def _done(command: Sequence[str], what: str, stdin: str | None = None) -> None:
    # Nothing is installed any more by a run that was killed. There is no such program on a Mac.
    with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    try:
        # In a session of its own: Ctrl-C reaches pytest alone, which then undoes in order.
        done = subprocess.run(
            [*with_us, *command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S + 20,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(f"cannot {what}: Helm did not end within {LIMIT_S + 20:g} s") from None
    except OSError as error:
        raise TestbedError(f"cannot {what}: {error.strerror}") from None
    if done.returncode:
        said = last_line(done.stderr)
        reason = said.removeprefix("Error: ") if said else f"exit code {done.returncode}"
        kind = _NoRelease if reason.endswith(ABSENT) else TestbedError
        raise kind(f"cannot {what}: {reason}")
