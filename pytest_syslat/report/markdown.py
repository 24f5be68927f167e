"""The report as Markdown, for a pull request or the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_syslat.gate import Verdict
from pytest_syslat.report.model import FindingGroup, Overhead, Report
from pytest_syslat.report.words import (
    ABSENT,
    allowance,
    blocks_words,
    counted,
    headline,
    judged_interval,
    method_lines,
    microseconds,
    progress_words,
    signed_pct,
    signed_us,
)

MOST_CHARACTERS = 60_000
"""GitHub takes 65,536 in a comment; a part is left for what is written around it."""
MOST_ROWS = 120
LONGEST_SENTENCE = 300
KEY_FACTS = (
    *("node", "kernel", "CPU", "measured core", "governor", "testbed"),
    *("bpftrace", "lmbench", "pytest-syslat"),
)
SYMBOLS = {
    Verdict.INVALID: "⛔",
    Verdict.REGRESSED: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.PASSED: "✅",
}


def render(report: Report) -> str:
    """Give the text; it fits a comment on GitHub, whatever the run holds."""
    parts = list(_parts(report))
    while len("\n".join(parts)) > MOST_CHARACTERS and len(parts) > 2:
        # The last parts matter least.
        parts[-2:] = ["*The rest is left out here: see report.html.*\n"]
    return "\n".join(parts)


def headline_of(text: str) -> str:
    """The headline of a report alone, where there is no room for more."""
    return text.partition("\n")[0]


def _parts(report: Report) -> Iterator[str]:
    yield f"## Syscall latency: {_text(headline(report))}\n"
    facts = [
        f"node {report.system.get('node', 'unknown')}",
        f"kernel {report.system.get('kernel', 'unknown')}",
        blocks_words(report),
        report.date,
    ]
    yield f"{_text(', '.join(filter(None, facts)))}\n"
    incomplete = progress_words(report)
    if incomplete:
        yield f"> **Incomplete.** {_text(incomplete)}\n"
    for each in report.stored:
        words = "Vanilla is that of" if each.role == "baseline" else "Growth is measured against"
        yield f"{words} the stored run {_text(each.path)} of {_text(each.date)}.\n"
    if report.overheads:
        yield "### Overhead\n"
        yield _table(report.overheads, "vanilla")
    if report.growth:
        yield "### Growth since the stored run\n"
        yield _table(report.growth, "expected")
    reasons = [each for each in report.judged if each.reasons]
    if reasons:
        yield _folded("Why", [_reason(each) for each in reasons])
    if report.findings:
        yield _folded(
            f"Validity: {counted(len(report.findings), 'kind')} of findings",
            [_finding(each) for each in report.findings],
        )
    if report.missing_logs:
        yield _folded(
            f"{counted(len(report.missing_logs), 'raw log')} could not be used",
            [f"- {_text(each)}" for each in report.missing_logs],
        )
    known = [name for name in KEY_FACTS if name in report.system]
    known += [name for name in report.system if name.startswith("agent ")]
    if known:
        yield _folded(
            "System", [f"- {_text(name)}: {_text(report.system[name])}" for name in known]
        )
    yield _folded("Method", [f"- {_text(line)}" for line in method_lines(report)])


def _table(cells: Sequence[Overhead], base: str) -> str:
    level = f"{cells[0].level_pct:.4g} %"
    head = (
        *("syscall", "agent", "figure", base, "agent's", "overhead", f"{level} interval"),
        *("budget", "verdict"),
    )
    lines = [
        f"| {' | '.join(head)} |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    lines += [
        "| "
        + " | ".join(
            (
                _text(each.syscall),
                _text(each.agent),
                _text(each.figure),
                microseconds(each.vanilla_us),
                microseconds(each.agent_us),
                f"{signed_pct(each.delta_pct)} ({signed_us(each.delta_us)})",
                judged_interval(each),
                allowance(each.budget),
                f"{SYMBOLS[each.verdict]} {each.verdict}" if each.verdict else ABSENT,
            )
        )
        + " |"
        for each in cells[:MOST_ROWS]
    ]
    more = len(cells) - MOST_ROWS
    rest = f"\n*{counted(more, 'more row')}: see overhead.csv.*\n" if more > 0 else ""
    return "\n".join(lines) + "\n" + rest


def _reason(cell: Overhead) -> str:
    name = f"{cell.syscall}-{cell.agent}-{cell.figure}{' growth' if cell.of_growth else ''}"
    return f"- {_text(name)} {cell.verdict}: {_text('; '.join(cell.reasons))}"


def _finding(group: FindingGroup) -> str:
    return (
        f"- {group.severity} **{_text(group.code)}**, {counted(len(group.trials), 'trial')}: "
        f"{_text(group.example)}"
    )


def _folded(title: str, lines: Sequence[str]) -> str:
    # Without the empty line, GitHub takes what follows for HTML.
    return "\n".join((f"<details><summary>{title}</summary>\n", *lines, "\n</details>\n"))


def _text(words: str) -> str:
    """What a user or a program has written, so that it stands there as it was written.

    Markdown's own characters lose their meaning, `@name` notifies nobody, `#1` links nothing.
    """
    one_line = re.sub(r"[\n\r\t\u2028\u2029]", " ", words)
    if len(one_line) > LONGEST_SENTENCE:
        one_line = f"{one_line[: LONGEST_SENTENCE - 1]}…"
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", escaped)
    # An empty comment breaks what would be a mention, a link to an issue or an address.
    return re.sub(r"(@(?=\w)|#(?=\d)|://|www(?=\.))", r"\1<!-- -->", escaped)
