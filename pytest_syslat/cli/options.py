"""The options of pytest's command line in `syslat`: the same words, read by the same code.

argparse is enough: the options come from the plugin's own table, and pytest's machinery reads
them, so a library for command lines would have nothing left to do. Ini keys of the project in the
current directory and environment variables count as they do for `pytest benchmarks`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pytest_syslat.cli.answer import Answer, Problem
from pytest_syslat.settings import ONLY_READ, OPTIONS, Option, Settings, read_settings

BENCHMARKS = "benchmarks"
ALL_NAMES = frozenset(option.name for option in OPTIONS)
UNREADABLE = "pytest cannot read its settings here"
Run = Callable[[argparse.Namespace], Answer]


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, and knows no abbreviations."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise Problem instead of ending the process with the code of something else."""
        raise Problem(f"{message}: see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser, shown: Sequence[str]) -> None:
    """Add all options of the plugin; those that are named stand in the help.

    The others are taken silently, so that the command line of a run can be used as it is.

    Args:
        parser: Of a command.
        shown: Names of options that mean something to it, without `syslat_`.
    """
    group = parser.add_argument_group("settings, as of pytest")
    for option in OPTIONS:
        flags = [option.flag, "--agent"] if option.name == "agent" else [option.flag]
        told = option.help if option.name in shown else argparse.SUPPRESS
        if option.is_flag:
            group.add_argument(
                *flags, dest=option.dest, action="append_const", const="true", help=told
            )
        else:
            group.add_argument(
                *flags, dest=option.dest, action="append", metavar=option.metavar, help=told
            )


def given_texts(arguments: argparse.Namespace, option: Option) -> list[str]:
    """What was typed for an option, in order; empty if it wasn't given."""
    return list(getattr(arguments, option.dest, None) or [])


def typed_settings(
    arguments: argparse.Namespace, base: Settings, names: Collection[str]
) -> Settings:
    """Settings of a stored run with what was typed in place of its own.

    No ini key counts here: the budgets of the project that one happens to stand in are not those
    of the run.

    Args:
        arguments: With what was typed.
        base: Settings of the run.
        names: The options that count, without `syslat_`. How it was measured is past: others that
            stand on the command line of a run change nothing.

    Raises:
        Problem: One line that names the option.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        texts = given_texts(arguments, option)
        if not texts or option.name not in names:
            continue
        try:
            parsed = [option.parse(text) for text in texts]
        except ValueError as error:
            raise Problem(f"{option.flag}: {texts[-1]!r} is not valid: {error}") from None
        values[option.setting] = tuple(parsed) if option.repeatable else parsed[-1]
    return replace(base, **values)


@dataclass(frozen=True, slots=True)
class Project:
    """The settings that `pytest benchmarks` would run with here."""

    settings: Settings
    rootdir: Path


def read_project(
    arguments: argparse.Namespace,
    names: Collection[str] = ALL_NAMES,
    *,
    as_a_run: bool = False,
) -> Project:
    """Let pytest read command line, ini file and environment; nothing is collected.

    Args:
        arguments: With what was typed.
        names: The options that count where they were typed, without `syslat_`.
        as_a_run: Whether agents, stored runs and the result directory are looked at, too, as when
            a run starts.

    Raises:
        Problem: One line of pytest's.
    """
    reader = _SettingsReader(as_a_run=as_a_run)
    told = io.StringIO()
    # Plugins of the user may print; stdout is for the answer alone.
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            pytest.main(_pytest_arguments(arguments, names), plugins=[reader])
        except Exception as error:  # of a plugin of the user's
            raise Problem(f"{UNREADABLE}: {error}") from error
    if reader.project is None:
        raise Problem(reader.problem or _last_error(told.getvalue()))
    return reader.project


def _pytest_arguments(arguments: argparse.Namespace, names: Collection[str]) -> list[str]:
    installed = entry_points(group="pytest11", name="syslat")
    plugin = "syslat" if installed else "pytest_syslat.plugin"
    typed = [
        option.flag if option.is_flag else f"{option.flag}={text}"
        for option in OPTIONS
        if option.name in names
        for text in given_texts(arguments, option)
    ]
    # Its conftest.py may add agents.
    place = [BENCHMARKS] if Path(BENCHMARKS).is_dir() else []
    # Nothing is rewritten, so that nobody is warned that we are loaded already.
    return ["-p", plugin, "--assert=plain", *typed, *place]


class _SettingsReader:
    """A plugin of pytest that reads the settings and ends the session before it begins."""

    def __init__(self, *, as_a_run: bool) -> None:
        self._as_a_run = as_a_run
        self.project: Project | None = None
        self.problem: str | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_parse(self) -> Generator[None, pytest.Config, pytest.Config]:
        """Say that nothing is to be done here, whatever the options ask for."""
        config = yield
        config.stash[ONLY_READ] = True
        return config

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        """Read them; raises nothing."""
        from pytest_syslat.session import SyslatSession

        try:
            settings = (
                SyslatSession(config).settings if self._as_a_run else read_settings(config, None)
            )
        except pytest.UsageError as error:
            self.problem = str(error)
        else:
            self.project = Project(settings, config.rootpath)
        return int(pytest.ExitCode.OK)


def _last_error(told: str) -> str:
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    named = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    chosen = named or lines
    return f"{UNREADABLE}: {chosen[-1] if chosen else 'no reason given'}"
