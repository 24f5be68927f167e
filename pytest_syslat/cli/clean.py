"""`syslat clean`: remove what earlier runs left, as `pytest --syslat-clean` does."""

from __future__ import annotations

import argparse

from pytest_syslat.cli.answer import Answer, Line, Problem, Style
from pytest_syslat.cli.options import add_options, read_project

NAME = "clean"
HELP = "remove what killed runs left on this host or in the cluster"
DESCRIPTION = """\
Remove what runs that were killed have left, and say what: processes, cgroups,
directories and audit rules of this host, or the namespace of the cluster.
Nothing that is not ours is touched, and nothing while a run is at work.
"""
SCHEMA = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where."""
    add_options(parser, ("testbed", "kube_context"))


def run(arguments: argparse.Namespace) -> Answer:
    """Clean, and tell what was removed; raises Problem."""
    from pytest_syslat.testbeds.choice import clean
    from pytest_syslat.testbeds.protocol import TestbedError

    try:
        place, removed = clean(read_project(arguments).settings)
    except TestbedError as error:
        raise Problem(str(error)) from error
    return Answer(
        {"schema": SCHEMA, "command": NAME, "place": place, "removed": removed},
        [
            *(Line(f"removed {each}") for each in removed),
            Line(f"nothing is left of earlier runs on {place}", Style.GOOD),
        ],
    )
