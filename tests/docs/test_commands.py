"""Every command of the documentation is run, or checked in another way that its rule names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# Runs inside pytest start with the modules that are loaded now: numpy cannot be loaded twice.
from pytest_syslat import comparison, experiment, session  # noqa: F401
from pytest_syslat.agents import catalogue  # noqa: F401
from pytest_syslat.testbeds import local  # noqa: F401

from .command_checks import RULES, Here, rule_of
from .support import (
    ROOT,
    SHORT,
    Command,
    blocks,
    commands,
    copy_of_the_checkout,
    environment,
    pages,
    without_blocks,
)

INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:pytest benchmarks|make bench|syslat [a-z]+)[^`]*)`")


def inline_commands() -> list[Command]:
    """Whole commands in running text and in tables, such as the examples of the options."""
    return [
        Command(page.name, " ".join(found.replace("\\|", "|").split()))
        for page in pages()
        for found in INLINE.findall(without_blocks(page.read_text()))
        if "…" not in found
    ]


DOCUMENTED = commands()
ALL = list({command.text: command for command in [*DOCUMENTED, *inline_commands()]}.values())
STORED_RUNS = ("vanilla", "good-1", "v1", "other-kernel")
FOREIGN_RUN = "original"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, and in it the files of a user's that the pages speak of."""
    place = copy_of_the_checkout(tmp_path_factory.mktemp("documented"))
    (place / ".venv").mkdir()
    (place / ".venv/.ready").touch()
    for block in blocks("toml"):
        if named := re.match(r"# (\S+\.toml)\n", block.text):
            (place / named[1]).parent.mkdir(exist_ok=True)
            (place / named[1]).write_text(block.text)
    [agent] = [block for block in blocks("python") if "class Opens" in block.text]
    (place / "benchmarks/conftest.py").write_text(agent.text)
    (place / "falco-9.1.0.tgz").touch()
    (place / "KloudKnox/deployments").mkdir(parents=True)
    (place / "build").mkdir()
    return place


@pytest.fixture(scope="session")
def stored_runs(checkout: Path) -> None:
    """Earlier runs, made with nothing that measures, and the CSV files of another program."""
    first, *others = (checkout / "result" / name for name in STORED_RUNS)
    fakes = ROOT / "tests/plugin"
    run = ["-q", "-p", "syslat_fakes", "-p", "no:cacheprovider", "benchmarks", "--agent=auditd"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *run, "--no-summary", f"--syslat-result-dir={first}"],
        cwd=checkout,
        env=environment(checkout, PYTHONPATH=f"{checkout}{os.pathsep}{fakes}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for other in others:
        shutil.copytree(first, other)
    name = "vanilla/vanilla_summary.csv"
    (checkout / "result" / FOREIGN_RUN / name).parent.mkdir(parents=True)
    shutil.copy(first / name, checkout / "result" / FOREIGN_RUN / name)


@pytest.fixture
def here(
    checkout: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Here:
    """Commands are tried in the copy, with the variables that make runs short."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(checkout)

    def collect(arguments: Sequence[str]) -> None:
        if any(word.startswith(("--syslat-against=", "--syslat-baseline=")) for word in arguments):
            request.getfixturevalue("stored_runs")
        if "--syslat-until=decided" in arguments:
            monkeypatch.delenv("TRIALS")
        result = pytester.runpytest_inprocess(
            *arguments, "--collect-only", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"
        )
        assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
        assert any("::test_" in line for line in result.outlines), "nothing was collected"

    return Here(checkout, collect)


def test_each_command_has_a_rule() -> None:
    unknown = [str(command) for command in ALL if rule_of(command.text) is None]
    assert not unknown, "\n".join(["command_checks.py has no rule for", *unknown])


def test_each_rule_has_a_command() -> None:
    idle = [rule.pattern for rule in RULES if not any(rule_of(each.text) is rule for each in ALL)]
    assert idle == [], "no page has such a command any more"


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.text)
def test_command(command: Command, here: Here) -> None:
    rule = rule_of(command.text)
    assert rule is not None
    rule.check(command.text, here)


@pytest.mark.parametrize(
    "wrong",
    [
        "pytest benchmarks --syslat-trails=1",
        "pytest benchmarks --agent=audit",
        "pytest benchmarks -k 'connect and nothing'",
        "pytest benchmark",
        "pytest --pyargs pytest_syslat.shipped.benchmarks.test_latency",
        "make benches",
        "make bench ARGS=--syslat-placement=second",
        "python perf/no_such.py",
        "docker build -f images/Containerfile .",
        "sudo apt-get update && sudo apt-get install -y lmbench bpftraces",
        "sed -i 's/main/contrib/' /etc/apt/sources.list.d/debian.sources",
    ],
)
def test_a_wrong_command_fails(wrong: str, here: Here) -> None:
    rule = rule_of(wrong)
    if rule is None:
        return
    with pytest.raises((AssertionError, OSError, ValueError, SystemExit)):
        rule.check(wrong, here)
