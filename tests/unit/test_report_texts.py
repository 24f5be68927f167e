"""The page and the Markdown as texts, and what GitHub Actions is told."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_syslat.findings import invalid, warning
from pytest_syslat.gate import Verdict
from pytest_syslat.report import github, html, markdown
from pytest_syslat.report.files import ReportProblem, write_reports
from pytest_syslat.report.meaning import MEANING_BY_CODE
from pytest_syslat.report.model import Overhead, Report, read_report
from pytest_syslat.report.words import duration_ns, headline, short_pct, short_us, signed_us

from .report_runs import CONNECT, StoredRun

GAP = "\u00a0"
HOSTILE = "a|b <script>alert(1)</script> `@someone` $x$ _c"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """p50 is 10 % slower and may be 20 %, p99 2 µs and may be 0.5 µs."""
    run = StoredRun(
        budgets=("*:p50<=+20%", "*:p99<=+0.5us"),
        both=True,
        attribute=True,
        findings={"connect-auditd-trial1": [warning("other-load", "others used 9% of it")]},
    )
    return run.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(directory: Path) -> Report:
    return read_report(directory)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html.render(report)


def cell(verdict: Verdict | None, name: str = "connect-auditd-p50", pct: float = 12.5) -> Overhead:
    syscall, agent, figure = name.split("-")
    return Overhead(
        syscall=syscall,
        agent=agent,
        figure=figure,
        blocks=8,
        vanilla_us=10.0,
        agent_us=10 + pct / 10,
        delta_us=pct / 10,
        delta_pct=pct,
        low_us=0.5,
        high_us=2.0,
        low_pct=5.0,
        high_pct=20.0,
        budget="*:p50<=+10%" if verdict else None,
        budget_pct=10.0 if verdict else None,
        verdict=verdict,
        reasons=("a reason",) if verdict else (),
        level_pct=95.0,
    )


def near_their_budgets() -> tuple[Overhead, ...]:
    """One decimal of the limits that decide would be on the budget; the last is not judged."""
    return (
        dataclasses.replace(
            cell(Verdict.REGRESSED), low_pct=10.04, high_pct=12.5, low_us=1.004, high_us=1.25
        ),
        dataclasses.replace(
            cell(Verdict.PASSED, "connect-auditd-p99", 2.0),
            budget="*:p99<=+0.5us",
            low_pct=-0.1,
            high_pct=4.99,
            low_us=-0.01,
            high_us=0.499,
        ),
        dataclasses.replace(cell(None, "connect-auditd-mean"), low_pct=-1.0, high_pct=2.0),
    )


def with_cells(report: Report, *cells: Overhead, **changes: object) -> Report:
    return dataclasses.replace(report, overheads=cells, growth=(), **changes)  # type: ignore[arg-type]


def svgs(page: str) -> list[ET.Element]:
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0 ns"), (472, "472 ns"), (1000, "1.00 µs"), (14_703, "14.7 µs"), (2.5e6, "2.50 ms"),
         (999_900, "1.00 ms"), (3e9, "3.00 s")],
    )  # fmt: skip
    def test_latencies_have_the_unit_that_suits_them(self, value: float, text: str) -> None:
        assert duration_ns(value) == text.replace(" ", GAP)

    def test_signs(self) -> None:
        assert signed_us(-1.5) == f"−1.500{GAP}µs"
        assert signed_us(None) == "–"
        assert short_pct(2261.5) == f"+2,262{GAP}%"
        assert short_pct(-0.284) == f"−0.3{GAP}%"
        assert short_us(0.0214) == f"+0.021{GAP}µs"


class TestHeadline:
    @pytest.mark.parametrize(
        ("verdicts", "words"),
        [
            ([], "Nothing was judged: the figures below have no budget (--syslat-budget)."),
            (["passed"], "The only judged figure passed."),
            (["passed", "passed"], "All 2 judged figures passed."),
            (["inconclusive"], "Undecided: the only judged figure is inconclusive."),
            (["inconclusive"] * 2, "Undecided: all 2 judged figures are inconclusive."),
            (
                ["passed", "inconclusive"],
                "Nothing regressed, but 1 of 2 judged figures is inconclusive; 1 passed.",
            ),
            (
                ["passed", "regressed", "inconclusive"],
                (
                    "1 of 3 judged figures regressed: connect under auditd (p50 +12.5 %); "
                    "1 inconclusive, 1 passed."
                ),
            ),
            (
                ["passed", "invalid"],
                "1 of 2 judged figures is invalid: connect under auditd (p50 +12.5 %); 1 passed.",
            ),
            (
                ["regressed", "invalid", "passed"],
                (
                    "1 of 3 judged figures is invalid: connect under auditd (p50 +12.5 %); "
                    "1 regressed: connect under auditd (p50 +12.5 %); 1 passed."
                ),
            ),
        ],
    )
    def test_one_sentence(self, report: Report, verdicts: Sequence[str], words: str) -> None:
        cells = [cell(None), *(cell(Verdict(each)) for each in verdicts)]
        assert headline(with_cells(report, *cells)).replace(GAP, " ") == words

    def test_the_largest_are_named_first_and_the_rest_counted(self, report: Report) -> None:
        cells = [
            cell(Verdict.REGRESSED, f"connect-a{number}-p50", 10 * number) for number in range(1, 7)
        ]
        words = headline(with_cells(report, *cells)).replace(GAP, " ")
        assert words == (
            "6 of 6 judged figures regressed: connect under a6 (p50 +60.0 %), connect under a5 "
            "(p50 +50.0 %), connect under a4 (p50 +40.0 %), connect under a3 (p50 +30.0 %) "
            "and 2 more."
        )


class TestPage:
    def test_the_same_run_gives_the_same_bytes(self, directory: Path, page: str) -> None:
        assert html.render(read_report(directory)) == page

    def test_nothing_comes_from_elsewhere(self, page: str) -> None:
        assert not re.search(r"<script|<link[^>]*stylesheet|@import|javascript:|\son\w+=", page)
        # Names of XML's own name spaces are no addresses.
        assert set(re.findall(r"https?://[^\s\"'<)]*", page)) <= {"http://www.w3.org/2000/svg"}
        # A strict policy (Jenkins) forbids these; what a picture needs is in attributes.
        assert "style=" not in page

    def test_no_id_is_given_twice_and_every_reference_has_its_target(self, page: str) -> None:
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
        used |= {
            name for text in re.findall(r'labelledby="([^"]+)"', page) for name in text.split()
        }
        assert used <= set(ids)

    def test_each_picture_has_a_text_a_table_and_a_finding(self, page: str) -> None:
        figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
        # Per syscall: overhead, all calls, slow calls, p50 and user by trial, places, programs.
        assert len(figures) == 2 * 7
        for figure in figures:
            (svg,) = svgs(figure)
            assert svg.get("role") == "img"
            first, second = list(svg)[:2]
            assert first.text
            assert second.text
            assert first.tag.endswith("title")
            assert second.tag.endswith("desc")
            assert "<figcaption>" in figure
            assert re.search(r"<details>.*<table>.*</table>.*</details>", figure, re.DOTALL)
            assert svg.findall(".//{*}text")

    def test_what_is_invalid_comes_before_what_regressed(self, report: Report) -> None:
        """As in the terminal: nothing is known while a trial is refused."""
        verdicts = (Verdict.PASSED, Verdict.REGRESSED, Verdict.INVALID, Verdict.INCONCLUSIVE)
        page = html.render(with_cells(report, *map(cell, verdicts)))
        assert '<h1 class="invalid">' in page
        badges = re.findall(r'<td><span class="badge [a-z]+">([a-z]+)<', page)
        assert badges[:4] == ["invalid", "regressed", "inconclusive", "passed"]

    def test_headings_are_in_order(self, page: str) -> None:
        levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    def test_colours_follow_the_scheme(self, page: str) -> None:
        """Each colour that a picture uses has a class, and each class a value in both schemes."""
        named = set(
            re.findall(r"[fs]-([a-z]+[0-9]?)", " ".join(re.findall(r'class="([^"]*)"', page)))
        )
        assert {"ink", "arm0", "arm1", "passed", "regressed", "zone"} <= named
        light, dark = page.split("prefers-color-scheme: dark", 1)
        for name in named:
            assert f"--{name}: #" in light
            assert f"--{name}: #" in dark
        for svg in svgs(page):
            for element in svg.iter():
                for attribute in ("fill", "stroke"):
                    colour = element.get(attribute, "none")
                    if colour.startswith("#"):
                        assert f"{attribute[0]}-" in element.get("class", ""), colour

    def test_the_numbers_of_the_overhead(self, page: str) -> None:
        text = re.sub(r"<[^>]+>", " ", page).replace(GAP, " ")
        assert "2 of 4 judged figures regressed" in text
        row = r"auditd\s+p50\s+passed\s+10\.000 µs\s+11\.000 µs\s+\+1\.000 µs\s+\+10\.0 %"
        assert re.search(row, text)
        # The pooled calls: 8 blocks of 1,000, half of them within 11 µs, one in 1,000 above 33.
        assert "Half of the connect calls take at most 10.0 µs under vanilla and 11.0 µs" in text
        assert re.search(r"auditd\s+8,000\s+8\s+11\.0 µs\s+11\.0 µs\s+11\.0 µs\s+11\.0 µs", text)
        assert "others used 9% of it" in text
        assert "others used more than 5 % of the core while tracing" in text

    def test_an_interval_can_be_compared_with_its_budget(self, report: Report) -> None:
        page = html.render(with_cells(report, *near_their_budgets()))
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace(GAP, " ")
        verdicts = text.partition("How much slower each syscall is")[0]
        assert "+10.04 % … +12.50 % +10 %" in verdicts
        assert "−0.010 µs … +0.499 µs +0.5 µs" in verdicts
        # Beside the plot both units are there, whatever the budget.
        beside = text.partition("How much slower each syscall is")[2]
        assert "+1.004 µs … +1.250 µs +10.04 % … +12.50 % +10 %" in beside
        assert "−0.010 µs … +0.499 µs −0.10 % … +4.99 % +0.5 µs" in beside

    def test_what_was_not_measured_says_how_to_get_it(self, tmp_path: Path) -> None:
        page = html.render(read_report(StoredRun(blocks=2).write(tmp_path)))
        assert "--syslat-placement=both" in page
        assert "--syslat-attribute" in page

    def test_a_log_that_is_missing_is_told(self, tmp_path: Path) -> None:
        StoredRun(syscalls=(CONNECT,), blocks=2).write(tmp_path)
        (tmp_path / "auditd/auditd_connect_trial1.log").unlink()
        page = html.render(read_report(tmp_path))
        assert "1 raw log could not be used" in page
        for log in tmp_path.glob("*/*.log"):
            log.unlink()
        assert "no raw log of this run could be read" in html.render(read_report(tmp_path))

    def test_names_of_users_are_text(self, tmp_path: Path) -> None:
        run = StoredRun(agents=(HOSTILE,), syscalls=(CONNECT,), blocks=2)
        page = html.render(read_report(run.write(tmp_path)))
        assert "<script" not in page
        assert "a|b &lt;script&gt;alert(1)&lt;/script&gt; `@someone` $x$ _c" in page
        # A dollar sign is no formula, and a label that begins with an underscore has its line.
        drawn = [
            "".join(each.itertext()) for svg in svgs(page) for each in svg.findall(".//{*}text")
        ]
        assert any("$x$ _c" in text for text in drawn)

    def test_an_interrupted_run_is_marked(self, tmp_path: Path) -> None:
        page = html.render(read_report(StoredRun(blocks=4, measured_blocks=2).write(tmp_path)))
        assert "This run is incomplete: 8 of 16 planned trials were measured." in page

    def test_absurd_intervals_leave_the_points_apart(self, report: Report) -> None:
        """Limits of a few blocks are astronomical; the axis shows points, and arrows."""
        wide = dataclasses.replace(cell(Verdict.INCONCLUSIVE), low_pct=-99.9999, high_pct=1e12)
        page = html.render(with_cells(report, wide, cell(Verdict.PASSED, "connect-auditd-mean", 2)))
        assert "An arrow: the interval goes on beyond the axis (2 limits)" in page

    def test_size_for_four_arms_three_syscalls_and_ten_trials(self, report: Report) -> None:
        """With as many points in each curve as are ever drawn."""
        import numpy as np

        from pytest_syslat.distribution import Distribution
        from pytest_syslat.report.model import Curve

        arms = ("vanilla", "auditd", "falco", "tetragon")
        syscalls = ("execve", "openat", "connect")
        random = np.random.default_rng(1)
        curves = tuple(
            Curve(
                syscall,
                arm,
                10,
                Distribution.from_samples(random.lognormal(9, 1, 20_000).astype(np.int64)),
            )
            for syscall in syscalls
            for arm in arms
        )
        large = dataclasses.replace(
            report,
            arms=arms,
            syscalls=syscalls,
            curves=curves,
            overheads=tuple(
                cell(Verdict.PASSED, f"{syscall}-{agent}-{figure}")
                for syscall in syscalls
                for agent in arms[1:]
                for figure in ("p50", "p90", "p99", "mean", "user")
            ),
            trials=tuple(
                dataclasses.replace(
                    report.trials[0], syscall=syscall, arm=arm, trial=trial, started_at_s=60 * trial
                )
                for syscall in syscalls
                for arm in arms
                for trial in range(1, 11)
            ),
        )
        assert 100_000 < len(html.render(large).encode()) < 2_000_000


class TestMarkdown:
    def test_a_row(self, report: Report) -> None:
        text = markdown.render(with_cells(report, cell(Verdict.REGRESSED))).replace(GAP, " ")
        assert text.startswith("## Syscall latency: 1 of 1 judged figure regressed: ")
        assert (
            "| connect | auditd | p50 | 10.000 µs | 11.250 µs | +12.5 % (+1.250 µs) | "
            "+5.00 % … +20.00 % | +10 % | ❌ regressed |"
        ) in text
        assert "- connect-auditd-p50 regressed: a reason" in text
        assert "- warning **other-load**, 1 trial: others used 9% of it" in text

    def test_an_interval_can_be_compared_with_its_budget(self, report: Report) -> None:
        cells = near_their_budgets()
        text = markdown.render(with_cells(report, *cells)).replace(GAP, " ")
        assert "| +10.04 % … +12.50 % | +10 % | ❌ regressed |" in text
        assert "| −0.010 µs … +0.499 µs | +0.5 µs | ✅ passed |" in text
        assert "| −1.00 % … +2.00 % | – | – |" in text

    def test_names_of_users_are_text(self, report: Report) -> None:
        hostile = dataclasses.replace(cell(Verdict.PASSED), agent=HOSTILE)
        text = markdown.render(with_cells(report, hostile))
        (row,) = [line for line in text.splitlines() if "alert" in line and line.startswith("|")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 10
        assert "<script" not in text
        assert "@someone" not in text

    def test_it_fits_a_comment(self, report: Report) -> None:
        many = [
            dataclasses.replace(
                cell(Verdict.REGRESSED, f"connect-a{number}-p50"), reasons=("why " * 100,)
            )
            for number in range(500)
        ]
        text = markdown.render(with_cells(report, *many))
        assert len(text) <= 65_000
        assert text.count("❌ regressed |") == 120
        assert "380 more rows" in text
        assert "see report.html" in text


class TestFiles:
    def test_both_are_written_beside_the_figures(self, tmp_path: Path) -> None:
        StoredRun(syscalls=(CONNECT,), blocks=1).write(tmp_path)
        assert write_reports(tmp_path) == [tmp_path / "report.html", tmp_path / "report.md"]
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        for link in re.findall(r'<li><a href="([^"#]+)"', page):
            assert (tmp_path / link).exists(), link

    def test_what_cannot_be_drawn_costs_no_text(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no\nink")

        monkeypatch.setattr("pytest_syslat.report.plots.forest", fail)
        StoredRun(syscalls=(CONNECT,), blocks=1).write(tmp_path)
        with pytest.raises(ReportProblem, match=r"^report\.html was not written: no ink$"):
            write_reports(tmp_path)
        assert (tmp_path / "report.md").exists()

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(ReportProblem, match=r"run\.json cannot be read"):
            write_reports(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestMeanings:
    def test_they_are_those_of_the_method(self) -> None:
        text = (DOCS / "method.md").read_text()
        table = text.partition("## Findings")[2].partition("\n## ")[0]
        told: dict[str, list[str]] = {}
        for line in table.splitlines():
            cells = [each.strip() for each in line.split("|")]
            if len(cells) > 4 and cells[1].startswith("`"):
                for code in re.findall(r"`([^`]+)`", cells[1]):
                    told.setdefault(code, []).append(cells[3])
        assert {code: "; or ".join(words) for code, words in told.items()} == MEANING_BY_CODE


class TestGithub:
    def test_errors_for_what_fails(self, report: Report) -> None:
        odd = dataclasses.replace(
            cell(Verdict.REGRESSED), agent="a:b,c", reasons=("above 5 %\r\nby far",)
        )
        cells = [odd, cell(Verdict.INVALID), cell(Verdict.INCONCLUSIVE), cell(Verdict.PASSED)]
        lines = [
            line.replace(GAP, " ") for line in github.workflow_commands(with_cells(report, *cells))
        ]
        assert lines == [
            (
                "::error title=syslat%3A connect-a%3Ab%2Cc-p50 regressed::"
                "connect-a:b,c-p50 regressed (budget *:p50<=+10%25): overhead "
                "+12.5 %25 (+1.250 µs): above 5 %25%0D%0Aby far"
            ),
            (
                "::error title=syslat%3A connect-auditd-p50 invalid::connect-auditd-p50 invalid "
                "(budget *:p50<=+10%25): overhead +12.5 %25 (+1.250 µs): a reason"
            ),
        ]

    def test_an_error_for_what_fails_under_strict(self, report: Report) -> None:
        strict = with_cells(report, cell(Verdict.INCONCLUSIVE), strict=True)
        (line,) = github.workflow_commands(strict)
        assert line.startswith("::error title=syslat%3A connect-auditd-p50 inconclusive::")

    def test_the_summary_is_appended_to(self, tmp_path: Path) -> None:
        file = tmp_path / "summary"
        file.write_text("before")
        environment = {"GITHUB_STEP_SUMMARY": str(file)}
        assert github.append_summary("text", "short", environment) is None
        assert file.read_text() == "before\ntext\n"

    def test_the_limit_of_a_step(self, tmp_path: Path) -> None:
        file = tmp_path / "summary"
        environment = {"GITHUB_STEP_SUMMARY": str(file)}
        file.write_bytes(b"x" * (1024 * 1024 - 20))
        assert github.append_summary("long" * 50, "short", environment) is None
        assert file.read_text().endswith("x\nshort\n")
        file.write_bytes(b"x" * (1024 * 1024 - 3))
        problem = github.append_summary("long" * 50, "short", environment)
        assert problem is not None
        assert "is full" in problem
        assert file.stat().st_size == 1024 * 1024 - 3

    def test_without_one_nothing_is_written(self) -> None:
        assert github.append_summary("text", "short", {}) is None

    def test_one_that_cannot_be_written(self, tmp_path: Path) -> None:
        environment = {"GITHUB_STEP_SUMMARY": str(tmp_path)}
        problem = github.append_summary("text", "short", environment)
        assert problem is not None
        assert "cannot be written" in problem
        assert "\n" not in problem


def test_a_refused_trial_is_marked(tmp_path: Path) -> None:
    refused = {"connect-auditd-trial2": [invalid("throttled", "a quota held it up")]}
    run = StoredRun(syscalls=(CONNECT,), blocks=3, findings=refused)
    report = read_report(run.write(tmp_path))
    page = html.render(report)
    assert "A red × is a trial that does not count." in page
    assert "1 attempt does not count." in page
