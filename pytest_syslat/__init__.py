"""Measure the latency that security agents add to Linux system calls, as pytest tests."""

__version__ = "0.1.0.dev0"
