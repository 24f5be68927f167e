"""Hooks of pytest-syslat that a conftest or a plugin can implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_syslat.agents.protocol import AgentFactory
    from pytest_syslat.syscalls import Syscall


@pytest.hookspec
def pytest_syslat_agents(config: pytest.Config) -> Mapping[str, AgentFactory]:  # type: ignore[empty-body]
    """Add agents.

    Args:
        config: pytest's configuration.

    Returns:
        Factories by name. A factory takes the testbed and pytest's rootdir and makes an object
        with the methods of `pytest_syslat.agents.protocol.Agent`. The name becomes an arm of
        `--agent`, and the label in the result files.
    """


@pytest.hookspec
def pytest_syslat_syscalls(config: pytest.Config) -> Iterable[Syscall]:  # type: ignore[empty-body]
    """Add syscalls that can be measured with `--syslat-syscall`.

    Args:
        config: pytest's configuration.

    Returns:
        Entries, each with a name of its own. They can be written as `syscalls/NAME.toml`, too.

    Example:
        def pytest_syslat_syscalls(config):
            return [Syscall("fcntl", command=("lat_fcntl",), mark=(-1,))]
    """
