"""A project that doesn't use the plugin must not notice it."""

from __future__ import annotations

import re

import pytest

from .support import VARIABLES

ORDINARY = """
    import sys
    import pytest

    def test_nothing_heavy_is_imported():
        heavy = {"numpy", "pandas", "scipy", "kubernetes", "matplotlib"}
        assert not heavy & set(sys.modules)

    @pytest.mark.parametrize("number", [1, 2])
    def test_ordinary(number, tmp_path):
        assert tmp_path.is_dir()

    def test_that_fails():
        assert False

    class TestMore:
        def test_skipped(self):
            pytest.skip("not today")
"""


def without_noise(result: pytest.RunResult) -> list[str]:
    """The output without the list of plugins and the time."""
    lines = [line for line in result.outlines if not line.startswith(("plugins:", "benchmark:"))]
    return [re.sub(r"[0-9.]+s", "", line) for line in lines]


def made_files(pytester: pytest.Pytester) -> set[str]:
    """What lies in the directory beside pytester's own."""
    return {path.name for path in pytester.path.iterdir() if "runpytest" not in path.name}


def test_an_ordinary_run_is_the_same_with_and_without_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_ordinary=ORDINARY)
    # Whoever uses such names for something else must not hear of it from us.
    for name in VARIABLES:
        monkeypatch.setenv(name, "abc")
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider\n")

    without = pytester.runpytest_subprocess("-p", "no:syslat", timeout=60)
    assert "syslat" not in without.stdout.str()
    files = made_files(pytester)
    with_it = pytester.runpytest_subprocess(timeout=60)

    with_it.assert_outcomes(passed=3, failed=1, skipped=1)
    assert any(line.startswith("plugins:") and "syslat" in line for line in with_it.outlines)
    assert without_noise(with_it) == without_noise(without)
    assert with_it.errlines == without.errlines == []
    assert made_files(pytester) == files


def test_the_dots_of_others_stay(pytester: pytest.Pytester) -> None:
    """Another project may have ids that look like ours."""
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("name", ["connect-x-trial1", "connect-x-trial2"])
        def test_theirs(name):
            pass
    """)
    result = pytester.runpytest_inprocess("-p", "no:randomly")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_the_dots_of_others_stay.py .. *"])


def test_an_option_named_agent_below_the_rootdir_is_left_alone(pytester: pytest.Pytester) -> None:
    """pytest reads such a conftest when it collects, long after the command line."""
    package = pytester.mkdir("deep").joinpath("down")
    package.mkdir()
    package.joinpath("conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--agent', default='theirs')\n"
    )
    package.joinpath("test_theirs.py").write_text("def test_theirs():\n    pass\n")
    without = pytester.runpytest_inprocess("-p", "no:syslat")
    without.assert_outcomes(passed=1)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1)
