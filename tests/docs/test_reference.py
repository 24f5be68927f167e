"""The pages of reference say what the code says: options, hooks and fixtures."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from pytest_syslat import fixtures, hookspec
from pytest_syslat.settings import OPTIONS, Option, Settings

from .support import DOCS, ROOT, pages

DEFAULTS_IN_WORDS = {
    "seed": "random",
    "kube_context": "the current one",
    "node": "the only node that is Ready and schedulable",
    "image": "`docker.io/pytest-syslat/bench:1`",
    "lmbench_dir": "searched",
    "baseline": "`interleaved`",
    "until": "as many trials as `--syslat-trials` says",
    "chart": "the versions that",
    "ready": "once it runs",
    "syscall": "`execve`, `openat` and `connect`",
}
"""Defaults that are found out in the run, or that no value of Settings stands for."""
INTERNAL_FIXTURES = {"syslat_experiment", "syslat_rig"}


def tables(page: Path) -> list[dict[str, str]]:
    """The tables of two columns that describe an option, by the words in their first column."""
    found: list[dict[str, str]] = []
    for line in page.read_text().splitlines():
        if line == "| | |":
            found.append({})
        elif (row := re.fullmatch(r"\| ([^|]+) \| (.+) \|", line)) and found:
            found[-1][row[1]] = row[2]
    return found


TABLES = {
    flag: table
    for table in tables(DOCS / "options.md")
    for flag in re.findall(r"--syslat-[a-z-]+", table.get("command line", ""))
}


def default_in_words(option: Option) -> str:
    value = getattr(Settings(), option.setting)
    if option.name in DEFAULTS_IN_WORDS:
        return DEFAULTS_IN_WORDS[option.name]
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else f"`{value}`"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_documented(option: Option) -> None:
    table = TABLES[option.flag]
    assert re.match(rf"`{option.ini}`(\W|$)", table["ini"])
    environment = f"`{option.environment}`" if option.environment else None
    assert table.get("environment") == environment
    assert re.match(rf"{re.escape(default_in_words(option))}(\W|$)", table["default"])
    assert ("repeatable" in table["command line"]) == option.repeatable
    assert ("without a value" in table["command line"]) == option.is_flag
    assert table["example"].startswith("`")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_page_names_an_option_that_there_is_not(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--syslat-[a-z]+(?:-[a-z]+)*", page.read_text()))
    # A run is also told apart by names that begin so.
    assert named - {option.flag for option in OPTIONS} == set()


def test_hooks_are_documented() -> None:
    text = (DOCS / "hooks.md").read_text()
    documented = dict(re.findall(r"^### `(pytest_\w+)\(([^)]*)\)`$", text, re.MULTILINE))
    specified = {
        name: ", ".join(inspect.signature(hook).parameters)
        for name, hook in inspect.getmembers(hookspec, inspect.isfunction)
        if name.startswith("pytest_")
    }
    assert documented == specified


def test_fixtures_are_documented() -> None:
    text = (DOCS / "hooks.md").read_text().partition("\n## Fixtures")[2]
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    kind = type(fixtures.testbed)
    defined = {name for name, each in vars(fixtures).items() if isinstance(each, kind)}
    parameters = {"syslat_trial", "syslat_cell", "syslat_growth"}
    assert documented == (defined - INTERNAL_FIXTURES) | parameters


def test_the_table_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `--([a-z-]+) [^|]*\| ([^|]*)\| ([^|]*)\|", text, re.MULTILINE)
    assert len(rows) > 5
    by_flag = {option.flag.removeprefix("--"): option for option in OPTIONS}
    for name, environment, default in rows:
        option = by_flag["syslat-agent" if name == "agent" else name]
        assert environment.strip(" `") == (option.environment or ""), name
        assert default.strip(" `").startswith(default_in_words(option).strip("`")), name
