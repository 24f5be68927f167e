"""Fixtures of the tests with real parts, and the rule when these are missing."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from pytest_syslat.testbeds.local import LocalTestbed, sweep_leftovers
from pytest_syslat.trial import Bench

from .support import (
    MARK,
    SETTLE_LIMIT_S,
    HostState,
    bench_on,
    changes_since,
    host_to_ourselves,
    lacking,
    marked_processes,
    opened,
    wait_until,
)


@pytest.fixture(scope="session", autouse=True)
def real_parts() -> None:
    """Without the real parts nothing here can run: a failure in CI, a skip elsewhere."""
    problem = lacking()
    if problem and os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    if problem:
        pytest.skip(problem)


@pytest.fixture(scope="module", autouse=True)
def _host_is_left_as_it_was(real_parts: None) -> Iterator[None]:
    """Each module leaves the host as it found it, and nothing running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, uuid.uuid4().hex)
        with host_to_ourselves():
            sweep_leftovers()  # of a session that was killed
            before = HostState.read()
        yield
        wait_until(lambda: not marked_processes(), SETTLE_LIMIT_S, "nothing is left running")
        assert changes_since(before) == []


@pytest.fixture
def host_before() -> Iterator[HostState]:
    """The host as it was; put back even where the package fails to."""
    with host_to_ourselves():
        before = HostState.read()
    yield before
    with host_to_ourselves():
        before.put_back()


@pytest.fixture
def testbed() -> Iterator[LocalTestbed]:
    """This host, for one test: it must be closed again before a run of its own can start."""
    testbed = opened()
    yield testbed
    testbed.close()


@pytest.fixture
def bench(testbed: LocalTestbed) -> Iterator[Bench]:
    """All that a trial of a few calls needs."""
    with bench_on(testbed) as bench:
        yield bench
