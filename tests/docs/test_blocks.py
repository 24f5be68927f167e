"""Blocks of TOML, INI, Python and YAML do what their page says."""

from __future__ import annotations

import tomllib

import pytest
import yaml

# Runs inside pytest start with the modules that are loaded now: numpy cannot be loaded twice.
from pytest_syslat import comparison, experiment, report, session  # noqa: F401
from pytest_syslat.agents import catalogue  # noqa: F401
from pytest_syslat.report import terminal  # noqa: F401
from pytest_syslat.resources import resource
from pytest_syslat.testbeds import local  # noqa: F401

from .support import ROOT, SHORT, Block, blocks

FAKES = ROOT / "tests/plugin"
SETTINGS = [block for block in blocks("toml") if "[tool.pytest" in block.text]
AGENTS = [block for block in blocks("toml") if "\n[ready]" in block.text]
TESTS = [
    block for block in blocks("python") if "def test_" in block.text and "syslat_" in block.text
]
"""Those that use testbed, tracer and workload themselves run for real, in test_measured.py."""
OTHER_PYTHON = [block for block in blocks("python") if block not in TESTS]
GATES = [block for block in blocks("yaml") if block.page == "docs/ci.md"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of a user's with the benchmarks in it, and short runs."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(FAKES)
    benchmark = pytester.path / "benchmarks/test_syscall_latency.py"
    benchmark.parent.mkdir()
    benchmark.write_bytes(resource("benchmarks/test_syscall_latency.py", ROOT).read_bytes())
    return pytester


def collected(project: pytest.Pytester, *arguments: str) -> str:
    result = project.runpytest_inprocess("benchmarks", "--collect-only", "-q", *arguments)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
    return result.stdout.str()


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_can_be_read(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_settings_take_effect(block: Block, project: pytest.Pytester) -> None:
    (project.path / "pyproject.toml").write_text(block.text)
    section = tomllib.loads(block.text)["tool"]["pytest"]
    values = section.get("ini_options", section)
    names = collected(project, *([] if "syslat_agent" in values else ["--agent=auditd"]))
    for budget in values["syslat_budget"]:
        syscall, _, figure = budget.partition("<=")[0].partition(":")
        syscall = "openat" if syscall == "*" else syscall
        assert f"test_overhead[{syscall}-auditd-{figure}]" in names


def test_settings_in_an_ini_file(project: pytest.Pytester) -> None:
    [block] = blocks("ini")
    (project.path / "pytest.ini").write_text(block.text)
    names = collected(project, "--agent=auditd")
    assert "test_overhead[execve-auditd-user]" in names
    assert "test_latency[connect-auditd-trial10]" in names


@pytest.mark.parametrize("block", AGENTS, ids=str)
def test_a_described_agent_is_known(block: Block, project: pytest.Pytester) -> None:
    (project.path / "agents").mkdir()
    (project.path / "agents/guard.toml").write_text(block.text)
    for name in ("values.yaml", "bench.yaml", "host.rules"):
        path = project.path / "policies/guard" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    assert "test_latency[openat-guard-trial1]" in collected(project, "--agent=guard")


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_tests_pass(block: Block, project: pytest.Pytester) -> None:
    (project.path / "test_mine.py").write_text(block.text)
    result = project.runpytest_inprocess(
        "-p", "syslat_fakes", "-p", "no:randomly", "test_mine.py", "-k", "not vanilla or trial1"
    )
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert result.parseoutcomes()["passed"] >= 1


@pytest.mark.parametrize("block", OTHER_PYTHON, ids=str)
def test_other_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_the_hook_adds_its_agent(project: pytest.Pytester) -> None:
    [block] = [each for each in OTHER_PYTHON if each.page == "docs/hooks.md"]
    (project.path / "benchmarks/conftest.py").write_text(block.text)
    project.makepyfile(my_agent_for_benchmarks="class MyAgent: ...")
    project.syspathinsert()
    assert "test_latency[connect-mine-trial1]" in collected(project, "--agent=mine")


def significant(block: Block) -> list[str]:
    lines = [line.strip() for line in block.text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_gates_for_ci_are_short_and_whole() -> None:
    github, gitlab = (yaml.safe_load(block.text) for block in GATES)
    assert all(len(significant(block)) <= 10 for block in GATES)

    # YAML 1.1 reads `on` as a truth value.
    assert github[True] == "pull_request"
    [job] = github["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    steps = job["steps"]
    assert steps[0]["uses"].startswith("actions/checkout@")
    assert all(isinstance(step["run"], str) for step in steps[1:])

    [(_, job)] = gitlab.items()
    assert all(isinstance(line, str) for line in job["script"])
    assert job["artifacts"]["reports"]["junit"] == "junit.xml"
    gates = [steps[-1]["run"], job["script"][-1]]
    assert all("--agent=" in gate and "--syslat-budget=" in gate for gate in gates)
    assert "--junitxml=junit.xml" in gates[1]
