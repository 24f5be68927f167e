"""Other plugins that report or reorder tests: each alone with ours, and all together.

Only those that are installed take part; `nox -s plugins` installs them with several versions of
pytest and Python.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from .support import Project, junit_cases, properties

REGRESSED = "test_overhead[connect-auditd-p50]"
MEASURED = [f"test_latency[connect-{arm}-trial1]" for arm in ("vanilla", "auditd")]
P50_US = {MEASURED[0]: "10.000", MEASURED[1]: "16.000"}
"""By item, as the made-up trials return it."""
RUN = [
    *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=8", "--syslat-seed=1"),
    *("--syslat-budget=connect:p50<=+50%", "--junitxml=junit.xml", "--benchmark-json=b.json"),
]


def said(result: pytest.RunResult) -> str:
    """Both streams: one plugin writes its annotations to the second."""
    return f"{result.stdout.str()}\n{result.stderr.str()}"


def ended_well(project: Project, result: pytest.RunResult) -> None:
    """What must hold whatever else is installed: outcomes, verdict, files and properties."""
    output = said(result)
    assert "INTERNALERROR" not in output
    assert re.search(r"^connect +auditd +16\.00 .* regressed ", output, re.MULTILINE)
    [row] = [each for each in project.rows("overhead.csv") if each["figure"] == "p50"]
    assert (row["verdict"], row["blocks"]) == ("regressed", "8")
    plan = project.run_json()["plan"]
    assert len(plan) == 16
    assert project.measured == plan
    # Not from the last line: there are plugins that write it their own way.
    cases = junit_cases(project.path / "junit.xml")
    assert [name for name, case in cases.items() if case.find("failure") is not None] == [REGRESSED]
    assert len(cases) == 17
    assert ("verdict", "regressed") in properties(cases[REGRESSED])
    rows = json.loads((project.path / "b.json").read_text())["benchmarks"]
    assert len(rows) == 16


def html_file(project: Project, _output: str) -> None:
    # What it shows is JSON in an attribute, of texts that are HTML themselves.
    page = html.unescape(html.unescape((project.path / "r.html").read_text()))
    for name in (*MEASURED, REGRESSED):
        assert name in page
    assert "connect-auditd-p50 regressed (budget connect:p50<=+50%, 8 blocks)" in page


def json_file(project: Project, _output: str) -> None:
    stored = json.loads((project.path / "r.json").read_text())
    tests = {each["nodeid"].rpartition("::")[2]: each for each in stored["tests"]}
    assert stored["summary"]["failed"] == 1
    assert tests[REGRESSED]["outcome"] == "failed"
    assert "connect-auditd-p50 regressed" in tests[REGRESSED]["call"]["longrepr"]
    _has_properties({name: _joined(each["user_properties"]) for name, each in tests.items()})


def json_lines(project: Project, _output: str) -> None:
    lines = [json.loads(line) for line in (project.path / "r.jsonl").read_text().splitlines()]
    calls = {
        each["nodeid"].rpartition("::")[2]: each for each in lines if each.get("when") == "call"
    }
    assert calls[REGRESSED]["outcome"] == "failed"
    _has_properties({name: _joined(each["user_properties"]) for name, each in calls.items()})


def _joined(pairs: Sequence[Any]) -> dict[str, Any]:
    """Properties by name; one plugin keeps pairs, another a mapping for each."""
    found: dict[str, Any] = {}
    for pair in pairs:
        found.update(pair if isinstance(pair, dict) else {pair[0]: pair[1]})
    return found


def _has_properties(by_item: dict[str, dict[str, Any]]) -> None:
    assert {name: by_item[name]["p50_us"] for name in P50_US} == P50_US
    assert by_item[REGRESSED]["verdict"] == "regressed"
    assert by_item[REGRESSED]["kernel"] == "0.0.0"


def error_lines(_project: Project, output: str) -> None:
    [line] = re.findall(r"^::error .*$", output, re.MULTILINE)
    assert "file=benchmarks/test_syscall_latency.py" in line
    assert "connect-auditd-p50 regressed" in line


def nothing_more(_project: Project, _output: str) -> None:
    """For a plugin that writes nothing."""


@dataclass(frozen=True)
class Plugin:
    """Another plugin: its module, what switches it on, and what must be in its report."""

    module: str
    options: tuple[str, ...] = ()
    check: Callable[[Project, str], None] = nothing_more
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False


PLUGINS = {
    "html": Plugin("pytest_html.plugin", ("--html=r.html", "--self-contained-html"), html_file),
    "json-report": Plugin(
        "pytest_jsonreport.plugin", ("--json-report", "--json-report-file=r.json"), json_file
    ),
    "reportlog": Plugin("pytest_reportlog.plugin", ("--report-log=r.jsonl",), json_lines),
    "github-actions-annotate-failures": Plugin(
        "pytest_github_actions_annotate_failures.plugin",
        check=error_lines,
        variables=(("GITHUB_ACTIONS", "true"),),
    ),
    "randomly": Plugin("pytest_randomly"),
    "repeat": Plugin("pytest_repeat", ("--count=1",)),
    "rerunfailures": Plugin("pytest_rerunfailures", ("--reruns=0",)),
    "xdist": Plugin("xdist.plugin", ("-n0",)),
    "sugar": Plugin("pytest_sugar", ("--force-sugar",)),
    "timeout": Plugin("pytest_timeout", ("--timeout=600",)),
    "cov": Plugin("pytest_cov.plugin", ("--cov=benchmarks", "--cov-report=")),
}
INSTALLED = [name for name, each in PLUGINS.items() if each.is_installed]


def run_with(project: Project, monkeypatch: pytest.MonkeyPatch, *names: str) -> pytest.RunResult:
    """A run in a process of its own, in which these plugins are all that is on beside ours."""
    project.table(ns={"auditd": 16_000})
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    arguments = ["-p", "pytest_benchmark.plugin", "-p", "pytest_syslat.plugin"]
    if "html" in names or "json-report" in names:
        arguments += ["-p", "pytest_metadata.plugin"]
    for name in names:
        plugin = PLUGINS[name]
        arguments += ["-p", plugin.module, *plugin.options]
        for variable, value in plugin.variables:
            monkeypatch.setenv(variable, value)
    return project.run_apart(*arguments, *RUN)


@pytest.mark.long
@pytest.mark.parametrize("name", INSTALLED)
def test_each_alone(project: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    result = run_with(project, monkeypatch, name)
    ended_well(project, result)
    PLUGINS[name].check(project, said(result))


def test_all_together(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_with(project, monkeypatch, *INSTALLED)
    ended_well(project, result)
    for name in INSTALLED:
        PLUGINS[name].check(project, said(result))


def test_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    ended_well(project, run_with(project, monkeypatch))
