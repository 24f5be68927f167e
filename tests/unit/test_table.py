"""Tables on a screen of any width; what is in them is worked out by hand."""

from __future__ import annotations

import math
import re

import pytest

from pytest_syslat.report.screen import Screen, encodable
from pytest_syslat.report.table import Amount, Column, Row, folded, shortened_name, write_table

COLUMNS = (
    Column("syscall", words=True),
    Column("arm", words=True, enough=16),
    *map(Column, ("p50 µs", "p99 µs", "mean µs", "user µs", "Δp50 µs", "Δp50 %")),
    Column("verdict", words=True),
    Column("calls"),
)
LONG = "falco+my-long-rules.yaml"
ESCAPE = "\x1b"


def written(*rows: Row, width: int = 80, colour: bool = False, encoding: str = "utf-8") -> str:
    parts: list[str] = []
    screen = Screen(parts.append, width=width, colour=colour, encoding=encoding)
    write_table(screen, COLUMNS, rows)
    return "".join(parts)


def row(arm: str = "auditd", *, p50: float = 10.0, calls: int = 2000, style: str = "") -> Row:
    figures = [Amount(value, 3) for value in (p50, 253.909, 130.586, 577.144)]
    deltas = [Amount(13.909, 3, signed=True), Amount(1770.04, 1, signed=True)]
    values: tuple[str | Amount, ...] = (
        "connect",
        arm,
        *figures,
        *deltas,
        "inconclusive",
        Amount(calls, 0),
    )
    return Row(values, style)


@pytest.mark.parametrize(
    ("value", "decimals", "full", "short"),
    [
        (0.775, 3, "0.775", "0.775"),
        (14.703, 3, "14.703", "14.70"),
        (122.6671, 3, "122.667", "122.7"),
        (1234.5678, 3, "1,234.568", "1,235"),
        (99999.4, 3, "99,999.400", "99,999"),
        (179_813, 0, "179,813", "179.8k"),
        (12_345_678, 0, "12,345,678", "12.35M"),
        (2_500_000_000, 0, "2,500,000,000", "2.500G"),
        (0, 0, "0", "0"),
        (math.inf, 3, "inf", "inf"),
        (math.nan, 3, "-", "-"),
        (None, 3, "-", "-"),
    ],
)
def test_a_number(value: float | None, decimals: int, full: str, short: str) -> None:
    amount = Amount(value, decimals)
    assert amount.shown(shortened=False) == full
    assert amount.shown(shortened=True) == short


def test_signs_of_numbers() -> None:
    assert Amount(-40.19, 3, signed=True).shown(shortened=True) == "-40.19"
    assert Amount(1770.04, 1, signed=True).shown(shortened=True) == "+1,770"
    assert Amount(0.5, 3, signed=True).shown(shortened=False) == "+0.500"


def test_a_wide_screen_has_all_digits_in_one_line() -> None:
    head, line = written(row(LONG, p50=122.667), width=200).splitlines()
    assert head.split("  ")[0] == "syscall"
    assert line.split() == [
        *("connect", LONG, "122.667", "253.909", "130.586", "577.144"),
        *("+13.909", "+1,770.0", "inconclusive", "2,000"),
    ]
    assert "p50 µs" in head


def test_at_80_columns_digits_go_and_numbers_and_units_stay() -> None:
    text = written(row(LONG, p50=122.667, calls=179_813_123), row(calls=5))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    # Titles with their units below.
    assert lines[0].split() == ["p50", "p99", "mean", "user", "Δp50", "Δp50"]
    assert lines[1].split() == [*("syscall", "arm"), *["µs"] * 5, "%", "verdict", "calls"]
    first = lines[2].split()
    assert first[2:] == [
        *("122.7", "253.9", "130.6", "577.1", "+13.91", "+1,770", "inconclusive", "179.8M")
    ]
    # The rest of the name stands alone in the line below.
    assert first[1] + lines[3].strip() == LONG
    assert lines[4].split()[0:2] == ["connect", "auditd"]


@pytest.mark.parametrize("width", [80, 90, 100, 120, 200])
@pytest.mark.parametrize("arm", ["vanilla", LONG, "x" * 63, "an agent-with/every.sign=of_one"])
@pytest.mark.parametrize("p50", [0.001, 999.9994, 123_456.789])
def test_no_line_is_too_long_and_nothing_is_lost(width: int, arm: str, p50: float) -> None:
    lines = written(row(arm, p50=p50, calls=99_999_999), width=width).splitlines()
    assert max(map(len, lines)) <= width
    [first] = [index for index, line in enumerate(lines) if line.startswith("connect")]
    begin = lines[first].index(arm[:4])
    # Numbers have four digits at least, the name is whole: in its column no number can stand.
    assert re.sub(r"\s", "", arm) == "".join(
        re.split(r" +[0-9]", f"{line[begin:]} ")[0].replace(" ", "") for line in lines[first:]
    )
    assert lines[first].split()[-2:] == ["inconclusive", lines[first].split()[-1]]
    assert lines[first].split()[-1] in ("99,999,999", "100.0M")


def test_a_terminal_narrower_than_80_gets_the_table_of_80() -> None:
    assert written(row(LONG), width=40) == written(row(LONG), width=80)


def test_colours_only_where_asked_for() -> None:
    assert ESCAPE not in written(row(style="bold red"))
    coloured = written(row(style="bold red"), colour=True)
    assert f"{ESCAPE}[1;31mconnect" in coloured


def test_no_spaces_at_the_ends_of_lines_in_logs() -> None:
    assert [line for line in written(row(LONG)).splitlines() if line != line.rstrip()] == []


def test_ascii_where_there_is_nothing_else() -> None:
    lines = written(row("µ-arm…"), encoding="ascii").splitlines()
    assert "".join(lines).isascii()
    assert lines[2].split()[1] == "u-arm..."
    assert lines[0].split() == ["p50", "p99", "mean", "user", "dp50", "dp50"]
    assert lines[1].split()[2:7] == ["us"] * 5
    # Latin-1 has a micro sign, and no Greek.
    assert encodable("Δp50 µs …", "latin-1") == "dp50 µs ..."
    assert encodable("Δp50 µs …", "utf-8") == "Δp50 µs …"
    assert encodable("囍", "ascii") == "?"


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("tetragon+file.yaml", 10, ["tetragon+", "file.yaml"]),
        ("vanilla (stored)", 8, ["vanilla", "(stored)"]),
        ("calibration", 8, ["calibrat", "ion"]),
        ("auditd", 8, ["auditd"]),
        ("a-b-c-d-e", 4, ["a-b-", "c-d-", "e"]),
    ],
)
def test_names_are_folded_behind_signs(name: str, width: int, lines: list[str]) -> None:
    assert folded(name, width).split("\n") == lines


def test_names_in_one_line_lose_their_middle() -> None:
    assert shortened_name(LONG, 11) == "falco….yaml"
    assert shortened_name(LONG, len(LONG)) == LONG


def test_long_lines_are_wrapped_for_people_and_not_for_logs() -> None:
    words = " ".join(["word"] * 40)
    log: list[str] = []
    Screen(log.append, width=80).line(words)
    assert "".join(log) == f"{words}\n"
    terminal: list[str] = []
    Screen(terminal.append, width=80, wraps=True).line(words)
    lines = "".join(terminal).splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(line.strip() for line in lines) == words
