from __future__ import annotations

import pytest

from pytest_syslat.budget import FIGURES, Budget, budget_for, parse_budget

SYSCALLS = ("execve", "openat", "connect")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connect:p50<=+10%", Budget("connect", "p50", 10.0, "%")),
        ("openat:*<=+2.5us", Budget("openat", "*", 2.5, "us")),
        ("*:user<=+0%", Budget("*", "user", 0.0, "%")),
        ("*:*<=+.5us", Budget("*", "*", 0.5, "us")),
        ("execve:p99<=+3\u00b5s", Budget("execve", "p99", 3.0, "us")),
        ("execve:p99<=+3\u03bcs", Budget("execve", "p99", 3.0, "us")),
        ("  connect : mean  <=  + 10.25  %\n", Budget("connect", "mean", 10.25, "%")),
    ],
)
def test_text_is_read(text: str, expected: Budget) -> None:
    assert parse_budget(text, SYSCALLS) == expected


@pytest.mark.parametrize("figure", FIGURES)
def test_each_figure_can_have_a_budget(figure: str) -> None:
    assert parse_budget(f"connect:{figure}<=+1%", SYSCALLS).figure == figure


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget("connect", "p50", 10.0, "%"), "connect:p50<=+10%"),
        (Budget("openat", "*", 2.5, "us"), "openat:*<=+2.5us"),
        (Budget("*", "*", 0.0, "us"), "*:*<=+0us"),
        (Budget("*", "user", 0.00000125, "us"), "*:user<=+0.00000125us"),
        (Budget("*", "user", 12345678.0, "%"), "*:user<=+12345678%"),
        (Budget("*", "user", 1e22, "%"), "*:user<=+10000000000000000000000%"),
    ],
)
def test_canonical_text_and_back(budget: Budget, text: str) -> None:
    assert str(budget) == text
    assert parse_budget(text, SYSCALLS) == budget


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "conect:p50<=+10%",
            "unknown syscall 'conect', allowed are connect, execve, openat and *",
        ),
        (":p50<=+10%", "unknown syscall '', allowed are connect, execve, openat and *"),
        (
            "connect:p75<=+10%",
            "unknown figure 'p75', allowed are p50, p90, p99, mean, user and *",
        ),
        ("connect:<=+10%", "unknown figure '', allowed are p50, p90, p99, mean, user and *"),
        ("connect<=+10%", "':' is missing"),
        ("connect:p50", "'<=+' is missing"),
        ("connect:p50<=10%", "'<=+' is missing"),
        ("connect:p50<+10%", "'<=+' is missing"),
        ("", "'<=+' is missing"),
        ("connect:p50<=-10%", "'-10%' is negative"),
        ("connect:p50<=+-10%", "'-10' is negative"),
        ("connect:p50<=+ten%", "'ten' is not a number"),
        ("connect:p50<=+%", "'' is not a number"),
        ("connect:p50<=+", "'' is not a number"),
        ("connect:p50<=+nan%", "'nan' is not a number"),
        ("connect:p50<=+infus", "'inf' is not a number"),
        ("connect:p50<=+1e3%", "'1e3' is not a number"),
        ("connect:p50<=+1_000us", "'1_000' is not a number"),
        ("connect:p50<=+2,5us", "'2,5' is not a number"),
        ("connect:p50<=+\u0663%", "'\u0663' is not a number"),
        (f"connect:p50<=+{'9' * 400}%", "is not a number"),
        ("connect:p50<=+10", "unknown unit '', allowed are '%' and 'us'"),
        ("connect:p50<=+10ms", "unknown unit 'ms', allowed are '%' and 'us'"),
        ("connect:p50<=+10% or so", "unknown unit '% or so', allowed are '%' and 'us'"),
    ],
)
def test_error_names_the_bad_part(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^budget ") as caught:
        parse_budget(text, SYSCALLS)
    assert problem in str(caught.value)


def test_error_is_one_line_that_quotes_the_text() -> None:
    with pytest.raises(ValueError, match=r"connect:p50<=\+10%\\n\*:p99<=\+5%") as caught:
        parse_budget("connect:p50<=+10%\n*:p99<=+5%", SYSCALLS)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("syscall", "figure", "expected"),
    [
        ("connect", "p50", [True, True, True, True]),
        ("connect", "p99", [False, True, False, True]),
        ("openat", "p50", [False, False, True, True]),
        ("openat", "p99", [False, False, False, True]),
    ],
)
def test_star_matches_any(syscall: str, figure: str, expected: list[bool]) -> None:
    budgets = [
        Budget("connect", "p50", 1.0, "%"),
        Budget("connect", "*", 1.0, "%"),
        Budget("*", "p50", 1.0, "%"),
        Budget("*", "*", 1.0, "%"),
    ]
    assert [budget.matches(syscall, figure) for budget in budgets] == expected


EXACT = Budget("connect", "p50", 1.0, "%")
ANY_FIGURE = Budget("connect", "*", 2.0, "%")
ANY_SYSCALL = Budget("*", "p50", 3.0, "%")
ANY_BOTH = Budget("*", "*", 4.0, "%")


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ([EXACT, ANY_FIGURE, ANY_SYSCALL, ANY_BOTH], EXACT),
        ([ANY_FIGURE, ANY_SYSCALL, ANY_BOTH], ANY_FIGURE),
        ([ANY_SYSCALL, ANY_BOTH], ANY_SYSCALL),
        ([ANY_BOTH], ANY_BOTH),
        ([Budget("openat", "p50", 5.0, "%"), ANY_BOTH], ANY_BOTH),
        ([Budget("openat", "p50", 5.0, "%"), Budget("connect", "p99", 5.0, "%")], None),
        ([], None),
    ],
)
def test_most_specific_wins_in_any_order(
    budgets: list[Budget], expected: Budget | None, backwards: bool
) -> None:
    ordered = budgets[::-1] if backwards else budgets
    assert budget_for(ordered, "connect", "p50") == expected


@pytest.mark.parametrize(("syscall", "figure"), [("connect", "p50"), ("connect", "*"), ("*", "*")])
def test_later_wins_among_equals(syscall: str, figure: str) -> None:
    earlier = Budget(syscall, figure, 1.0, "%")
    later = Budget(syscall, figure, 2.0, "us")
    assert budget_for([earlier, later], "connect", "p50") == later
    assert budget_for([later, earlier], "connect", "p50") == earlier
