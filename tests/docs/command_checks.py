"""How each command of the documentation is checked: the table that new commands must get into.

What can be run here is run as it stands, in a copy of the checkout. For the rest the table says why
it cannot be, and its check comes as near to it as it can.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest_benchmark.plugin

from .support import ROOT, environment, simple_commands

LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Here:
    """Where commands are tried."""

    checkout: Path
    """A copy of the checkout, with the files that the pages suppose to be there."""
    collect: Callable[[Sequence[str]], None]
    """Lets pytest collect, with these arguments, in the copy; fails if it refuses them."""

    def shell(self, command: str, **variables: str) -> str:
        """Run a command in the copy; returns what it printed, fails if it fails."""
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.checkout,
            env=environment(self.checkout, **variables),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


Check = Callable[[str, Here], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about commands of one kind."""

    pattern: str
    """The whole command must match."""
    check: Check
    why: str
    """Why it isn't simply run here, and where it is; empty if it is."""

    def fits(self, command: str) -> bool:
        """Whether this rule is for that command."""
        return re.fullmatch(self.pattern, command) is not None


def run(command: str, here: Here) -> None:
    """As it stands."""
    here.shell(command)


def collect(command: str, here: Here) -> None:
    """Options, agents and selection are those of a real run; nothing is measured."""
    [words] = simple_commands(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    assert words[0] == "pytest"
    # pytest-benchmark reads and writes its files even where nothing is measured.
    of_benchmark = [word for word in words if word.startswith("--benchmark-")]
    known = Path(pytest_benchmark.plugin.__file__).read_text()
    assert all(f"'{word.partition('=')[0]}'" in known for word in of_benchmark)
    here.collect([word for word in words[1:] if word not in of_benchmark])


def collect_installed(command: str, here: Here) -> None:
    """With a wheel of the copy, installed apart from it, and the agent's program in its place."""
    installed = here.checkout / "build/installed"
    if not installed.exists():
        here.shell(
            f"{sys.executable} -m pip install -q --no-deps --no-index --no-build-isolation "
            f"--target {installed} {here.checkout}"
        )
    printed = here.shell(
        f"mkdir -p build/project && cd build/project && {sys.executable} -m {command} "
        "--collect-only -q -p no:cacheprovider",
        PYTHONPATH=str(installed),
    )
    assert "test_latency[" in printed


def collect_as_installed(command: str, here: Here) -> None:
    """With the checkout's benchmarks; another command collects those of an installed wheel."""
    [words] = simple_commands(command)
    module = words.index("pytest_syslat.shipped.benchmarks.test_syscall_latency")
    here.collect(["benchmarks", *words[module + 1 :]])


def make_without_doing(command: str, here: Here) -> None:
    """The target is there, and make knows what to do for it."""
    assert here.shell(command.replace("make ", "make -n ", 1))


def make_bench(command: str, here: Here) -> None:
    """The command that make would start is collected."""
    printed = here.shell(command.replace("make ", "make -n ", 1)).replace("\\\n", " ")
    [line] = re.findall(r"^\.venv/bin/(pytest benchmarks .*)$", printed, re.MULTILINE)
    collect(line, here)


def done_by(test: str) -> Check:
    """Another test does it: `FILE::NAME`, or `FILE` with the command in it."""

    def check(command: str, here: Here) -> None:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text()
        assert not name or f"def {name}(" in text, f"{test} is gone"

    return check


def files_are_there(command: str, here: Here) -> None:
    """What the command reads is in the checkout."""
    for path in re.findall(r"(?<= )(?:images|manifests|perf|tools)/\S+", f" {command}"):
        assert (here.checkout / path).exists(), path


def the_same_in(path: str) -> Check:
    """Another file of the checkout, which is run elsewhere, has the program and its first words."""

    def check(command: str, here: Here) -> None:
        begin = " ".join(command.split()[:3])
        assert begin in (ROOT / path).read_text(), f"{path} has no {begin!r}"

    return check


def packages(command: str, here: Here) -> None:
    """The packages are those that tools/provision.sh knows."""
    known = (ROOT / "tools/provision.sh").read_text()
    # The kernel's version is in the name of one.
    named = re.sub(r"\$\([^)]*\)", "", command.partition("install -y ")[2]).replace('"', "")
    for name in named.split():
        assert re.search(rf"\b{re.escape(name)}\b", known), name


def sed_of_sources(command: str, here: Here) -> None:
    """On a file like that of the image."""
    sources = here.checkout / "debian.sources"
    sources.write_text("Types: deb\nSuites: trixie trixie-updates\nComponents: main\n")
    here.shell(command.replace("/etc/apt/sources.list.d/debian.sources", str(sources)))
    assert sources.read_text().endswith("\nComponents: main non-free\n")


def in_makefile(command: str, here: Here) -> None:
    """make does the same for its own environment, which these tests run in where it made it."""
    assert " install -q -e . " in (ROOT / "Makefile").read_text()


def pip_install_released(command: str, here: Here) -> None:
    """The name is that of the distribution."""
    name = command.rpartition(" ")[2]
    assert f'name = "{name}"' in (ROOT / "pyproject.toml").read_text()


def virtual_environment(command: str, here: Here) -> None:
    """Really; pip isn't put into it, which takes longest."""
    make, _, then = command.replace("-m venv", "-m venv --without-pip").partition(" && ")
    place = here.checkout / "build" / make.rpartition(" ")[2]
    if then.startswith("venv/bin/pip "):
        pip_install_released(then, here)
        then = "true"
    here.shell(f"cd build && {make} && {then}")
    assert (place / "bin/python").exists()


def python_script(command: str, here: Here) -> None:
    """It is there and compiles; what it computes with is tested in tests/unit."""
    path = here.checkout / command.split()[1]
    compile(path.read_text(), str(path), "exec")


CLUSTER_TEST = "tests/cluster/test_documented_commands.py"
MEASURED_TEST = "tests/docs/test_measured.py"

RULES: tuple[Rule, ...] = (
    Rule(
        r"pytest benchmarks( --syslat-testbed=local)? --syslat-clean",
        done_by(f"{MEASURED_TEST}::test_clean"),
        "it works on the host, so it runs where nothing else does",
    ),
    Rule(
        r"([A-Z_]+=\S+ )*pytest benchmarks.*",
        collect,
        "it measures for minutes, or on a cluster; collected here, some are measured in "
        f"{MEASURED_TEST}, and tests/cluster/test_main_job.py measures in pods",
    ),
    Rule(
        r"pytest --pyargs \S+ --agent=auditd",
        collect_installed,
        "it measures for minutes; collected here from an installed wheel",
    ),
    Rule(
        r"(sudo venv/bin/)?pytest --pyargs .*",
        collect_as_installed,
        "it measures for minutes; collected here",
    ),
    Rule(
        r"tools/provision\.sh( --check| --for-tests)?",
        done_by(f"{MEASURED_TEST}::test_provision"),
        "it may install packages, so it runs where nothing else does",
    ),
    Rule(
        r"syslat .*",
        done_by(f"{MEASURED_TEST}::test_syslat"),
        "it looks at the host, or at a run that was measured",
    ),
    Rule(r"make bench.*", make_bench, "it measures for five minutes; collected here"),
    Rule(
        r"make docs",
        done_by("tests/docs/test_site.py::test_make_docs_and_its_warnings"),
        "a test of its own does it",
    ),
    Rule(
        r"make (test|lint).*",
        make_without_doing,
        "make test runs this test, and the same lint before it",
    ),
    Rule(
        r"make (cluster|cluster-down)",
        make_without_doing,
        "minutes; .ci/run starts and ends the cluster of tests/cluster by it",
    ),
    Rule(r"python3 -m venv .*", virtual_environment, "pip is left out of it"),
    Rule(r"pip install -e \.", in_makefile, "dependencies come from an index"),
    Rule(r"pip install pytest-syslat", pip_install_released, "it comes from an index"),
    Rule(r"python perf/\S+\.py.*", python_script, "each measures or simulates for minutes"),
    Rule(r"(sudo )?apt-get update && .*", packages, "it changes the system's packages"),
    Rule(r"sed -i .*debian\.sources", sed_of_sources, "it changes the system's package sources"),
    Rule(r"docker (build|push) .*", files_are_there, "there is no Docker engine"),
    Rule(
        r"kind .*",
        the_same_in(".github/workflows/cluster.yml"),
        "it needs a Docker engine; that workflow runs it",
    ),
    Rule(
        r"kubectl -n NAMESPACE patch .*",
        done_by("tests/cluster/test_agents.py"),
        "it frees what a stand-in holds; only where such a stand-in is",
    ),
    Rule(r"kubectl .*", done_by(f"{CLUSTER_TEST}::test_kubectl"), "it needs a cluster"),
    Rule(r"export KUBECONFIG=~/\.kube/config", run, ""),
    Rule(
        r"tools/cluster/cluster\.sh .*",
        files_are_there,
        "minutes of compiling; .ci/run builds the cluster by it",
    ),
    Rule(
        r"bpftrace bpftrace/trace_openat\.bt .*",
        done_by("tests/local/test_tracer.py"),
        "it runs until Ctrl-C; those tests attach the same file by the same command",
    ),
    Rule(
        r"tools=\$.*|export (PATH|LD_LIBRARY_PATH)=.*|auditctl .*|"
        r"cat /run/pytest-syslat-audit\.json",
        done_by(f"{MEASURED_TEST}::test_putting_audit_back_by_hand"),
        "one block, which works on the host's audit rules",
    ),
)


def rule_of(command: str) -> Rule | None:
    """The first rule that fits."""
    return next((rule for rule in RULES if rule.fits(command)), None)
