"""`syslat doctor`: can this host or context measure? Looks at everything, changes nothing."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pytest_syslat import __version__
from pytest_syslat.cli.answer import Answer, ExitCode, Line, Problem, Style
from pytest_syslat.cli.options import Project, add_options, read_project

if TYPE_CHECKING:
    from pytest_syslat.doctor.check import Check

NAME = "doctor"
HELP = "tell whether this host or cluster can measure, and what to mend"
DESCRIPTION = """\
Look at all that a run needs: kernel, tools, rights, cores, what else traces or
loads the machine; for a cluster its API, node, rights, namespace and image.
Nothing is changed, and any user may ask. Settings of the project in the current
directory count, as for `pytest benchmarks`. Exit code 1: it cannot measure.
"""
SCHEMA = 1
SHOWN = (
    "testbed",
    "kube_context",
    "node",
    "image",
    "agent",
    "pin_core",
    "lmbench_dir",
    "result_dir",
)
SIGNS = {"ok": "✔", "warning": "!", "problem": "✘"}
STYLES = {"ok": Style.PLAIN, "warning": Style.WARNING, "problem": Style.BAD}
NARROWEST = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where it would be measured."""
    add_options(parser, SHOWN)


def run(arguments: argparse.Namespace) -> Answer:
    """Make all checks; raises Problem."""
    project = read_project(arguments, as_a_run=True)
    place, checks = _examined(project)
    count = {
        status: sum(str(each.status) == status for each in checks)
        for status in ("ok", "warning", "problem")
    }
    can_measure = not count["problem"]
    return Answer(
        {
            "schema": SCHEMA,
            "command": NAME,
            "version": __version__,
            "place": place,
            "can_measure": can_measure,
            "counts": count,
            "checks": [{**asdict(each), "status": str(each.status)} for each in checks],
        },
        list(_lines(place, checks, count)),
        ExitCode.OK if can_measure else ExitCode.PROBLEMS,
    )


def _examined(project: Project) -> tuple[str, list[Check]]:
    """Where it would be measured, in words, and what was found there."""
    from pytest_syslat.doctor.check import ask
    from pytest_syslat.doctor.packages import helm, packages
    from pytest_syslat.testbeds.choice import chosen_testbed
    from pytest_syslat.testbeds.protocol import TestbedError

    settings = project.settings
    python = ("Python packages", packages)
    try:
        chosen = chosen_testbed(settings)
        if chosen == "kubernetes":
            from pytest_syslat.doctor.cluster import ClusterDoctor
            from pytest_syslat.testbeds.cluster_api import ClusterApi

            api = ClusterApi(settings.kube_context)
            try:
                doctor = ClusterDoctor(api, settings, project.rootdir)
                checks = doctor.reachable()
                further = [] if checks[0].status == "problem" else doctor.questions()
                checks += ask([*further, python, ("Helm", helm)])
            finally:
                api.close()
            return f"context {api.context}", checks
    except TestbedError as error:
        raise Problem(str(error)) from error
    from pytest_syslat.doctor.host import questions
    from pytest_syslat.testbeds.cores import choose_core
    from pytest_syslat.testbeds.host_view import HostView
    from pytest_syslat.testbeds.local import may_be_pinned_to, usable_cores

    core, _ = choose_core(settings.pin_core, usable_cores(), may_be_pinned_to)
    view = HostView(core)
    return f"this host ({view.node})", ask([*questions(settings, view, project.rootdir), python])


def _lines(place: str, checks: Sequence[Check], count: dict[str, int]) -> Iterator[Line]:
    yield Line(f"measuring on {place}", Style.BOLD)
    widest = max(len(each.name) for each in checks)
    indent = " " * (widest + 4)
    # In a log, a line a check is easier to search than a paragraph.
    width = max(NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0
    for each in checks:
        head = f"{SIGNS[each.status]} {each.name:<{widest}}  "
        style = STYLES[each.status]
        for line in _wrapped(head + each.found, indent, width):
            yield Line(line, style)
        if each.mend:
            for line in _wrapped(f"{indent}→ {each.mend}", f"{indent}  ", width):
                yield Line(line)
    told = ", ".join(
        f"{count[status]} {status}{'' if count[status] == 1 else 's'}"
        for status in ("problem", "warning")
    )
    told += f", {count['ok']} fine"
    if count["problem"]:
        yield Line(f"it cannot be measured here: {told}", Style.BAD)
    else:
        yield Line(f"it can be measured here: {told}", Style.GOOD)


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    if not width or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=indent,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    )
