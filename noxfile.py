"""Sessions that need virtual environments of their own: `nox -s plugins`.

What continuous integration runs is in the Makefile. This matrix takes minutes and a network, so it
is run by hand, before a release and when one of these plugins has a new one.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PYTEST = ("9.0.*", "9.1.*", "latest")
BENCHMARK = ("5.3.1", "latest")
OTHERS = (
    "pytest-cov",
    "pytest-github-actions-annotate-failures",
    "pytest-html",
    "pytest-json-report",
    "pytest-randomly",
    "pytest-repeat",
    "pytest-reportlog",
    "pytest-rerunfailures",
    "pytest-sugar",
    "pytest-timeout",
    "pytest-xdist",
)
TESTS = (
    "tests/plugin/test_with_plugins.py",
    "tests/plugin/test_benchmark_adapter.py",
    "tests/plugin/test_junit.py",
)


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("benchmark", BENCHMARK)
@nox.parametrize("pytest", PYTEST)
def plugins(session: nox.Session, pytest: str, benchmark: str) -> None:
    """Our plugin with others installed, each alone and all together."""
    wanted = [
        name if version == "latest" else f"{name}=={version}"
        for name, version in (("pytest", pytest), ("pytest-benchmark[histogram]", benchmark))
    ]
    # In one go, so that no later package moves an earlier one.
    session.install("-e", ".", "junitparser", *wanted, *OTHERS)
    session.run(
        *("python", "-m", "pytest", "-p", "no:cacheprovider", "-q", *TESTS, *session.posargs)
    )
