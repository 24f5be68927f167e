"""Tests of what needs nothing but this process and temporary files."""
