"""The JUnit file, read by a parser that is not ours and held against the xunit2 schema."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from junitparser import xunit2
from junitparser.junitparser import Error, Failure, Skipped

from .support import Project

CONDITIONS = {
    "node": "nowhere",
    "testbed": "made-up",
    "kernel": "0.0.0",
    "bpftrace": "bpftrace v0.0.0",
    "lmbench": "0.0",
}
OF_AUDITD = {**CONDITIONS, "agent_version": "auditd of the tests"}
CONNECT = ["benchmarks", "-k", "connect", "--agent=auditd", "--syslat-trials=2", "--junitxml=j.xml"]

CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase", "system-out", "system-err"},
    # The schema knows properties of suites alone; readers take those of cases.
    "testcase": {"properties", "skipped", "error", "failure", "system-out", "system-err"},
    "properties": {"property"},
}
"""What each element of Jenkins' junit-10.xsd may hold; any other holds text alone."""

ATTRIBUTES = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "group", "id", "package", "file", "version"},
    ),
    "testcase": ({"name"}, {"time", "classname", "group"}),
    "property": ({"name", "value"}, set[str]()),
    "failure": (set(), {"type", "message"}),
    "error": (set(), {"type", "message"}),
    "skipped": (set(), {"type", "message"}),
}
"""Required and allowed attributes in the same schema."""

# Its SUREFIRE_TIME.
TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?")


def violations(element: ET.Element) -> list[str]:
    """What the schema does not allow in an element and below."""
    required, allowed = ATTRIBUTES.get(element.tag, (set(), set()))
    names = set(element.attrib)
    found = [f"{element.tag} lacks {name}" for name in required - names]
    found += [f"{element.tag} has {name}" for name in names - required - allowed]
    if not TIME.fullmatch(element.get("time", "0.000")):
        found.append(f"{element.tag} took {element.get('time')}")
    for child in element:
        if child.tag not in CHILDREN.get(element.tag, set()):
            found.append(f"{element.tag} holds {child.tag}")
        found += violations(child)
    return found


def cases(path: Path) -> dict[str, Any]:
    """The test cases by name; checks the file and its counts on the way."""
    [suite] = xunit2.JUnitXml.fromfile(str(path))
    found = list(suite)
    results = [[type(each) for each in case.result] for case in found]
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (
        len(found),
        *(sum(kind in result for result in results) for kind in (Failure, Error, Skipped)),
    )
    assert violations(ET.parse(path).getroot()) == []  # noqa: S314 - written by the run above
    by_name = {str(case.name): case for case in found}
    assert len(by_name) == len(found), "one case an item"
    return by_name


def told(case: Any) -> dict[str, str]:
    """Its properties by name; none is told twice."""
    pairs = [(str(each.name), str(each.value)) for each in case.properties()]
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)


@pytest.mark.parametrize(
    "options", [[], ["-s"], ["--capture=sys"], ["-o", "junit_logging=all"], ["-W", "error"]]
)
def test_figures_and_conditions(project: Project, options: Sequence[str]) -> None:
    project.lean = True
    project.table(ns={"auditd": [11_000, 12_000]})
    project.run(*CONNECT, "--syslat-budget=connect:p50<=+50%", *options)
    found = cases(project.path / "j.xml")
    assert told(found["test_latency[connect-auditd-trial2]"]) == {
        "syscall": "connect",
        "label": "auditd",
        "trial": "2",
        "placement": "last",
        "calls": "1000",
        "attempt": "1",
        "p50_us": "12.000",
        "p90_us": "12.000",
        "p99_us": "24.000",
        "mean_us": "13.320",
        "user_us": "22.000",
        **OF_AUDITD,
    }
    gate = told(found["test_overhead[connect-auditd-p50]"])
    assert gate.items() >= {**OF_AUDITD, "verdict": "inconclusive", "delta_us": "1.489"}.items()
    assert {"ci_low_us", "ci_high_us", "mde_us", "p_adjusted"} <= set(gate)


def test_a_refused_trial_has_a_reason_and_no_figure(project: Project) -> None:
    project.lean = True
    project.table(refuse={"connect-auditd-trial2": [1, 2]})
    project.run(*CONNECT)
    case = cases(project.path / "j.xml")["test_latency[connect-auditd-trial2]"]
    [failure] = case.result
    assert failure.message == (
        "Failed: connect-auditd-trial2 is refused: throttled: made-up reason 2"
    )
    assert "\n" not in str(failure.text)
    properties = told(case)
    assert [name for name in properties if name.endswith("_us")] == []
    assert properties.items() >= {**OF_AUDITD, "attempt": "2", "trial": "2"}.items()


def test_figures_that_cannot_be_had_are_left_out(project: Project) -> None:
    """With one block there is an overhead, but neither interval nor test."""
    project.lean = True
    project.run(*CONNECT, "--syslat-trials=1", "--syslat-budget=connect:p50<=+50%")
    gate = told(cases(project.path / "j.xml")["test_overhead[connect-auditd-p50]"])
    assert gate["delta_us"] == "1.000"
    assert not {"nan", "inf", "-inf"} & set(gate.values())
    assert not any(name.startswith(("ci_", "mde")) for name in gate)


def test_a_trial_that_was_not_needed_says_which_it_is(project: Project) -> None:
    project.lean = True
    project.run(
        *("benchmarks", "-k", "connect", "--agent=auditd", "--syslat-until=decided"),
        *("--syslat-budget=connect:p50<=+50%", "--junitxml=j.xml"),
    )
    case = cases(project.path / "j.xml")["test_latency[connect-auditd-trial32]"]
    [skipped] = case.result
    assert isinstance(skipped, Skipped)
    assert told(case) == {"syscall": "connect", "label": "auditd", "trial": "32"}


def test_a_rerun_tells_each_property_once(project: Project) -> None:
    """pytest-rerunfailures itself writes a case for each run."""
    pytest.importorskip("pytest_rerunfailures")
    project.lean = True
    project.table(ns={"auditd": 16_000})
    result = project.run(
        *("benchmarks", "-k", "connect", "--agent=auditd", "--reruns=1", "--junitxml=j.xml"),
        "--syslat-budget=connect:p50<=+50%",
    )
    result.assert_outcomes(passed=16, failed=1, deselected=32)
    [suite] = xunit2.JUnitXml.fromfile(str(project.path / "j.xml"))
    gates = [case for case in suite if str(case.name).startswith("test_overhead")]
    assert [told(case)["verdict"] for case in gates] == ["regressed"] * 2


def test_a_property_of_the_user_stays(project: Project) -> None:
    project.lean = True
    project.write(
        "test_mine.py",
        """
def test_mine(measure, syslat_trial, request):
    request.node.user_properties.append(("theirs", "kept"))
    measure(syslat_trial)
    measure(syslat_trial)
""",
    )
    project.run("test_mine.py", "-k", "connect", "--syslat-trials=1", "--junitxml=j.xml")
    [case] = cases(project.path / "j.xml").values()
    properties = told(case)
    assert (properties["theirs"], properties["p50_us"]) == ("kept", "10.000")
