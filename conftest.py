"""Test support for the whole checkout: pytester is loaded here, where pytest allows it."""

from __future__ import annotations

pytest_plugins = ("pytester",)
