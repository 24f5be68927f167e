"""Vanilla against vanilla: a second arm with no agent, through all the machinery.

    PYTHONPATH=perf pytest benchmarks -p vanilla_twice --agent=vanilla2 -k openat

Whatever difference it shows is the noise of the node.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_syslat.agents.protocol import AgentFactory
from pytest_syslat.agents.vanilla import Vanilla


def pytest_syslat_agents() -> Mapping[str, AgentFactory]:
    """Add the second label."""
    return {"vanilla2": Vanilla}
