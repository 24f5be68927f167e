from __future__ import annotations

import pytest

from pytest_syslat.agents.calibration import parse_calibration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calibration", ("exit", 1000)),
        ("calibration:entry-200", ("entry", 200)),
        ("calibration:exit-800", ("exit", 800)),
        ("calibration:both-20000", ("both", 20000)),
    ],
)
def test_names_of_arms(text: str, expected: tuple[str, int]) -> None:
    assert parse_calibration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "calibrations",
        "calibration:",
        "calibration:exit",
        "calibration:exit-",
        "calibration:exit-0",
        "calibration:exit-20001",
        "calibration:exit--5",
        "calibration:exit-1.5",
        "calibration:middle-100",
        "calibration:exit-٣",
    ],
)
def test_other_names_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="write 'calibration:PLACE-WORK'") as raised:
        parse_calibration(text)
    assert str(raised.value) == (
        f"'{text}' is no calibration: write 'calibration:PLACE-WORK' with entry, exit, both for "
        "PLACE and 1 to 20000 for WORK, such as 'calibration:exit-800'"
    )
