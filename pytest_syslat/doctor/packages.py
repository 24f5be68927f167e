"""Checks of Python and its packages: what this installation asks for, and whether it is there."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from pytest_syslat.doctor.check import Check, ok, problem, warning
from pytest_syslat.testbeds.helm import LIBRARY

DISTRIBUTION = "pytest-syslat"


def packages() -> Iterator[Check]:
    """Whether all required packages are there, new enough."""
    try:
        texts = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield warning(
            "Python packages",
            f"{DISTRIBUTION} is not installed: what it needs is not known",
            "pip install -e . in its checkout",
        )
        return
    wanted = [
        each
        for each in map(Requirement, texts)
        if each.marker is None or each.marker.evaluate({"extra": ""})
    ]
    wrong = []
    for each in wanted:
        try:
            found = version(each.name)
        except PackageNotFoundError:
            wrong.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(found, prereleases=True):
            wrong.append(f"{each.name} {found} is not {each.specifier}")
    python = f"{platform.python_implementation()} {sys.version.split()[0]}"
    if wrong:
        yield problem("Python packages", "; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}")
    else:
        yield ok("Python packages", f"all {len(wanted)} required ones, under {python}")


def helm() -> Iterator[Check]:
    """Whether charts can be installed; only agents in a cluster need it."""
    program = shutil.which("helm")
    if program:
        yield ok("Helm", program)
    elif importlib.util.find_spec(LIBRARY) is not None:
        yield ok("Helm", f"as the library {LIBRARY}")
    else:
        yield warning(
            "Helm",
            "neither the program nor the library is there: no chart can be installed",
            f"install the program helm, or pip install '{DISTRIBUTION}[helm]'",
        )
