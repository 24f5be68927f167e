"""Fixtures of the tests that run pytest with the plugin inside pytest."""

from __future__ import annotations

import pytest

from .support import Project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A directory with a copy of the benchmark, in which nothing really measures."""
    return Project(pytester, monkeypatch)
