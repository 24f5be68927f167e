"""Which core is measured, and which ones are left for tracer and server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_syslat.testbeds.cores import choose_core, cores_beside, parse_core_list


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0\n", {0}),
        ("0-3,8\n", {0, 1, 2, 3, 8}),
        ("2,6", {2, 6}),
        ("0-1,4-5,12", {0, 1, 4, 5, 12}),
        ("7-7", {7}),
    ],
)
def test_parse_core_list(text: str, cores: set[int]) -> None:
    assert parse_core_list(text) == cores


@pytest.mark.parametrize("text", ["", "\n", "a", "-1"])
def test_what_is_no_core_list(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_core_list(text)


def nothing_else(_core: int) -> bool:
    """The kernel pins the workload to no core beside the usable ones."""
    return False


def test_the_core_that_was_asked_for() -> None:
    assert choose_core(2, [0, 1, 2, 3], nothing_else) == (2, None)
    assert choose_core(0, [0], nothing_else) == (0, None)


def test_an_isolated_core_may_be_asked_for() -> None:
    assert choose_core(7, [0, 1], lambda core: core == 7) == (7, None)


@pytest.mark.parametrize(("usable", "chosen"), [([0, 1], 1), ([0, 5], 5), ([3, 1], 3)])
def test_the_last_core_in_place_of_one_that_does_not_exist(
    usable: Sequence[int], chosen: int
) -> None:
    core, warning = choose_core(2, usable, nothing_else)
    assert core == chosen
    assert warning == (f"core 2 does not exist or may not be used here: core {chosen} is used")


def test_cores_without_siblings() -> None:
    assert cores_beside(2, [0, 1, 2, 3], {2}) == ([0, 1, 3], None)
    assert cores_beside(1, [0, 1], {1}) == ([0], None)


def test_the_sibling_is_left_alone() -> None:
    assert cores_beside(2, [0, 2, 4, 6], {2, 6}) == ([0, 4], None)


def test_the_sibling_when_there_is_nothing_else() -> None:
    cores, problem = cores_beside(1, [0, 1], {0, 1})
    assert cores == [0]
    assert problem == "tracer and server run on the SMT sibling of core 1: no other is left"


def test_the_only_core() -> None:
    cores, problem = cores_beside(0, [0], {0})
    assert cores == [0]
    assert problem == "tracer and server run on core 0 as well: it is the only one"


def test_an_isolated_core_is_not_among_the_usable_ones() -> None:
    assert cores_beside(7, [0, 3], {3, 7}) == ([0], None)
