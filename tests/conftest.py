"""What holds for all tests: no measuring on the user's cluster by accident, and Ctrl-C works."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

USERS_KUBECONFIG = os.environ.get("KUBECONFIG")

# A job in the background of a shell ignores Ctrl-C, one under nohup the end of its terminal, and so
# would all that the tests start.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def users_kubeconfig() -> str | None:
    """What KUBECONFIG was at the start: the cluster that tests/cluster may use."""
    return USERS_KUBECONFIG


@pytest.fixture(scope="session", autouse=True)
def _no_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No kubeconfig is found, neither in the variable nor in the home directory.

    A variable that names a file which isn't there does both: `~/.kube/config` is only looked for
    where the variable is unset or empty. For the whole session, because fixtures of modules start
    runs, too; tests/cluster hands the user's own to the runs that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(tmp_path_factory.mktemp("no_cluster") / "kubeconfig"))
        yield
