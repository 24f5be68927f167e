"""pytest hooks, nothing else.

A project that does not use the plugin must not notice it: nothing here imports numpy, pandas or
kubernetes, and nothing is read or made before a test asks for our fixtures.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_syslat.budget import FIGURES
from pytest_syslat.settings import (
    ONLY_READ,
    OPTIONS,
    Settings,
    given_on_command_line,
    read_settings,
)
from pytest_syslat.syscall_catalogue import NAME, find_syscalls

if TYPE_CHECKING:
    from pytest_syslat.session import SyslatSession

pytest_plugins = ("pytest_syslat.fixtures",)

SESSION: pytest.StashKey[SyslatSession] = pytest.StashKey()
PROBLEM: pytest.StashKey[pytest.UsageError] = pytest.StashKey()
OUR_ITEM_ID = re.compile(rf"\[({NAME.pattern})-.+-(trial[0-9]+|{'|'.join(FIGURES)})(-[0-9]+)*\]$")
"""The id of an item of ours, if its group is the name of a syscall."""
HELP_TITLE = (
    "pytest-syslat: the latency that security agents add to system calls\n"
    "  Example: pytest benchmarks --agent=auditd --syslat-budget='*:user<=+10%'\n"
    "  Each option is an ini key, too, such as syslat_trials = 12"
)
XDIST_REFUSED = (
    "-n: measuring in parallel spoils every figure: run the benchmarks without pytest-xdist (-n 0)"
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that a conftest can implement."""
    from pytest_syslat import hookspec

    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add every option in its long form, and its ini key."""
    group = parser.getgroup("syslat", HELP_TITLE)
    for option in OPTIONS:
        if option.is_flag:
            group.addoption(
                option.flag,
                dest=option.dest,
                action="store_const",
                const="true",
                help=option.help_on_command_line,
            )
        else:
            group.addoption(
                option.flag,
                dest=option.dest,
                action="append" if option.repeatable else "store",
                metavar=option.metavar,
                help=option.help_on_command_line,
            )
        ini_type: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        parser.addini(option.ini, option.help_in_ini, type=ini_type, default=None)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> Generator[None]:
    """Add the short form `--agent` where it is used, unless a conftest has taken that name."""
    yield
    # A conftest that is found later, during collection, may define an --agent of its own.
    if not any(arg.partition("=")[0] in ("--agent", "--help", "-h") for arg in args):
        return
    # The user's option wins; --syslat-agent remains.
    with contextlib.suppress(ValueError, argparse.ArgumentError):
        parser.getgroup("syslat").addoption(
            "--agent",
            dest="syslat_agent",
            action="append",
            metavar="NAME",
            help="Short for --syslat-agent. Example: --agent=auditd",
        )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse wrong options at once, whatever is collected later; register our markers."""
    from pytest_syslat import benchmark_adapter as adapter
    from pytest_syslat.selection import MARKERS

    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    on = adapter.is_on(config)
    config.pluginmanager.register(adapter.WithBenchmark() if on else adapter.WithoutBenchmark())
    if given_on_command_line(config):
        if on and config.option.benchmark_columns is None:
            config.option.benchmark_columns = list(adapter.DEFAULT_COLUMNS)
        if on and config.get_verbosity() < 0:
            config.option.benchmark_quiet = True
        read_settings(config, None)
        if _is_distributed(config):
            raise pytest.UsageError(XDIST_REFUSED)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Under `--syslat-clean`, remove what earlier runs left, and end."""
    if ONLY_READ in config.stash:
        return None
    if not given_on_command_line(config) or not read_settings(config, None).clean:
        return None
    from pytest_syslat.session import clean

    clean(config)
    return int(pytest.ExitCode.OK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for a trial or a cell."""
    from pytest_syslat.selection import parametrize, uses_syslat, without_item

    if not uses_syslat(metafunc.fixturenames):
        return
    from pytest_syslat.session import SyslatSession

    config = metafunc.config
    if PROBLEM not in config.stash and SESSION not in config.stash:
        try:
            config.stash[SESSION] = SyslatSession(config)
        except pytest.UsageError as problem:
            # Raised here it would become a collection error with a traceback.
            config.stash[PROBLEM] = problem
    if PROBLEM in config.stash and hasattr(config, "workerinput"):
        # The controller refuses by the ids; an error of a worker would hide the reason.
        parametrize(metafunc, Settings())
    elif PROBLEM in config.stash:
        without_item(metafunc)
    else:
        parametrize(metafunc, config.stash[SESSION].settings)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class,
) -> Generator[None, object, object]:
    """Leave out tests that stand for nothing: no budget, hence nothing to judge."""
    made = yield
    stash = collector.config.stash
    if isinstance(made, list) and (SESSION in stash or PROBLEM in stash):
        from pytest_syslat.selection import drop_empty

        drop_empty(made)
    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark items of ours."""
    from pytest_syslat.selection import add_markers

    add_markers(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """After every plugin has selected and shuffled: compute the plan, restore its order."""
    config, items = session.config, session.items
    if hasattr(config, "workerinput"):
        return
    if PROBLEM in config.stash:
        raise config.stash[PROBLEM]
    if SESSION in config.stash:
        config.stash[SESSION].plan(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Refuse to measure in parallel workers."""
    named = {found[1] for each in ids if (found := OUR_ITEM_ID.search(each))}
    if named and not named.isdisjoint(find_syscalls(node.config)):
        raise pytest.UsageError(XDIST_REFUSED)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Put testbed, tracer and agents in place around all tests; remove them whatever happens."""
    ours = session.config.stash.get(SESSION, None)
    if (
        ours is None
        or not (ours.trials or ours.cells)
        or session.config.option.collectonly
        or session.config.option.setupplan
        or (session.testsfailed and not session.config.option.continue_on_collection_errors)
    ):
        return (yield)
    with ours.measuring():
        return (yield)


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Leave out the dot of a measured trial: it has a line of its own."""
    ours = config.stash.get(SESSION, None)
    measured = ours is not None and report.when == "call" and report.nodeid in ours.trial_nodeids
    if measured and report.passed and config.get_verbosity() <= 0:
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    """Print the table, the warnings and where the files are, below what other plugins print.

    Also where one of them raises, as pytest-benchmark does when a comparison of its own fails.
    """
    try:
        return (yield)
    finally:
        _write_summary(terminalreporter, config)


def _write_summary(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ours = config.stash.get(SESSION, None)
    if ours is not None and (ours.experiment is not None or ours.rig is not None):
        from pytest_syslat.report.terminal import write_summary

        write_summary(reporter, ours)
    elif ours is not None and ours.all_skipped and not config.option.collectonly:
        reporter.write_line(
            "syslat: every test that measures or judges is skipped: no figure, no verdict, no file"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, object]
) -> None:
    """Tell pytest-benchmark of the node that was measured, which may be another machine."""
    ours = config.stash.get(SESSION, None)
    if ours is not None and ours.experiment is not None:
        from pytest_syslat.benchmark_adapter import OUR_FACTS, machine_facts

        machine_info[OUR_FACTS] = machine_facts(ours.experiment.facts)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, object], compared_benchmark: dict[str, Any]
) -> Generator[None, object, object]:
    """Keep what an earlier run tells of its node until this run's node is known."""
    from pytest_syslat.benchmark_adapter import put_off_comparison

    put_off_comparison(config, machine_info, compared_benchmark["machine_info"])
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Annotate what has failed on GitHub Actions, below all that pytest has printed."""
    ours = config.stash.get(SESSION, None)
    # That plugin annotates each failing item by itself.
    if ours is None or config.pluginmanager.has_plugin("pytest_github_actions_annotate_failures"):
        return
    for line in ours.written.annotations if ours.written else ():
        print(line)


def _is_distributed(config: pytest.Config) -> bool:
    # As pytest-xdist decides it: --dist alone distributes nothing.
    return config.getoption("dist", "no") != "no" and bool(config.getoption("tx", None))
