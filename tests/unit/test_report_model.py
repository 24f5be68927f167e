"""What a report takes from a result directory."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from pytest_syslat.agent_cost import AgentCost
from pytest_syslat.distribution import Distribution
from pytest_syslat.findings import invalid, warning
from pytest_syslat.gate import Verdict
from pytest_syslat.report.model import Curve, ReportProblem, read_report
from pytest_syslat.report.plots import POINTS, Words, ecdf, styles, tail, thinned
from pytest_syslat.syscalls import SYSCALLS

from .made_runs import calls, event_log, make_run
from .report_runs import CONNECT, OPENAT, StoredRun, log_of


def changed(root: Path, **entries: object) -> Path:
    """Change run.json; None takes an entry out."""
    file = root / "run.json"
    run = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({name: value for name, value in run.items() if value is not None}))
    return root


class TestArmsAndSyscalls:
    def test_they_are_those_of_the_data(self, tmp_path: Path) -> None:
        """Also a syscall that no catalogue knows, and agents in the order of the settings."""
        run = StoredRun(agents=("zeta", "alpha"), syscalls=("statx", CONNECT), blocks=2, budgets=())
        report = read_report(run.write(tmp_path))
        assert report.syscalls == ("statx", CONNECT)
        assert report.arms == ("vanilla", "zeta", "alpha")
        assert report.agents == ("zeta", "alpha")
        assert report.date == "2023-11-14 22:13 UTC"
        assert report.complete

    def test_an_interrupted_run(self, tmp_path: Path) -> None:
        report = read_report(StoredRun(blocks=4, measured_blocks=2).write(tmp_path))
        assert not report.complete
        # 2 arms, 2 syscalls.
        assert (len(report.trials), report.planned) == (8, 16)

    def test_a_run_that_was_killed_has_no_overheads(self, tmp_path: Path) -> None:
        StoredRun(blocks=2).write(tmp_path)
        report = read_report(changed(tmp_path, cells=None, family=None, complete=False))
        assert (report.overheads, report.closed) == ((), False)
        assert len(report.trials) == 8


class TestOverheads:
    def test_figures_verdict_and_budget(self, tmp_path: Path) -> None:
        """11 µs against 10 µs in each block: 10 %, within 20 %."""
        run = StoredRun(syscalls=(CONNECT,), budgets=("*:p50<=+20%", "*:p99<=+0.5us"))
        cells = {each.figure: each for each in read_report(run.write(tmp_path)).overheads}
        assert set(cells) == {"p50", "p90", "p99", "mean", "user"}
        p50 = cells["p50"]
        figures = [p50.vanilla_us, p50.agent_us, p50.delta_us, p50.delta_pct]
        assert figures == pytest.approx([10, 11, 1, 10])
        assert (p50.verdict, p50.budget_pct, p50.blocks) == (Verdict.PASSED, 20, 8)
        assert p50.low_pct is not None
        assert p50.high_pct is not None
        assert p50.low_pct <= 10 <= p50.high_pct
        # p99 is twice p50: 2 µs above 20, and 0.5 µs are 2.5 % of them.
        assert cells["p99"].verdict is Verdict.REGRESSED
        assert cells["p99"].budget_pct == pytest.approx(2.5)
        assert cells["mean"].verdict is None
        assert cells["mean"].budget is None

    def test_one_block_has_no_interval(self, tmp_path: Path) -> None:
        cell = read_report(StoredRun(blocks=1).write(tmp_path)).overheads[0]
        assert (cell.low_pct, cell.high_us) == (None, None)
        assert cell.delta_pct == pytest.approx(10)


class TestCurves:
    def test_calls_before_recording_are_taken_out_and_trials_pooled(self, tmp_path: Path) -> None:
        run = StoredRun(
            syscalls=(CONNECT,),
            blocks=2,
            ns=lambda key: 1_000 * key.trial,
        )
        curves = {each.arm: each for each in read_report(run.write(tmp_path)).curves}
        assert set(curves) == {"vanilla", "auditd"}
        # 900, 90 and 10 calls at 1, 2, 3 µs and at 2, 4, 6 µs.
        expected = {1000: 900, 2000: 990, 3000: 10, 4000: 90, 6000: 10}
        assert curves["vanilla"].distribution == Distribution.from_counts(expected)
        assert curves["vanilla"].trials == 2

    def test_events(self, tmp_path: Path) -> None:
        run = StoredRun(syscalls=(CONNECT,), blocks=1, calls=lambda ns: {500: 2, 700: 1})
        run.write(tmp_path)
        settings = json.loads((tmp_path / "run.json").read_text())["settings"]
        changed(tmp_path, settings={**settings, "tracer": "events"})
        end = "@other: 0\n@total: 4\n"
        text = (
            f"@other: 0\n@total: 0\n900 0\n@other: 0\n@total: 1\n500 3\n700 3\n500 3\n{end}\n{end}"
        )
        for log in tmp_path.glob("*/*.log"):
            log.write_text(text)
        report = read_report(tmp_path)
        assert report.missing_logs == ()
        assert report.curves[0].distribution == Distribution.from_counts({500: 2, 700: 1})

    def test_no_more_logs_are_read_than_there_is_room_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Room for those of the first block: the second is missing in both arms, and told."""
        StoredRun(syscalls=(CONNECT,), blocks=2).write(tmp_path)
        sizes = {log.name: log.stat().st_size for log in tmp_path.glob("*/*.log")}
        room = sum(size for name, size in sizes.items() if name.endswith("trial1.log"))
        monkeypatch.setattr("pytest_syslat.report.model.MOST_LOG_BYTES", room)
        report = read_report(tmp_path)
        assert [(each.arm, each.trials) for each in report.curves] == [
            ("vanilla", 1),
            ("auditd", 1),
        ]
        assert [line.partition(":")[0] for line in report.missing_logs] == [
            f"{arm}/{arm}_connect_trial2.log is left out" for arm in ("vanilla", "auditd")
        ]

    def test_what_is_missing_is_told_and_the_rest_is_there(self, tmp_path: Path) -> None:
        StoredRun(syscalls=(CONNECT, OPENAT), blocks=2).write(tmp_path)
        (tmp_path / "auditd/auditd_connect_trial1.log").unlink()
        (tmp_path / "auditd/auditd_connect_trial2.log").write_bytes(b'{"type": "map"')
        (tmp_path / "auditd/auditd_openat_trial1.log").write_bytes(log_of({5: 999}))
        report = read_report(tmp_path)
        no_figures = "it holds no figures of the tracer distribution"
        assert report.missing_logs == (
            "auditd/auditd_connect_trial1.log cannot be read: No such file or directory",
            "auditd/auditd_openat_trial1.log is left out: it holds 999 calls, the trial had 1,000",
            f"auditd/auditd_connect_trial2.log is left out: {no_figures}",
        )
        found = {(each.syscall, each.arm): each.trials for each in report.curves}
        assert found == {(CONNECT, "vanilla"): 2, (OPENAT, "vanilla"): 2, (OPENAT, "auditd"): 1}
        assert len(report.overheads) == 10

    def test_refused_trials_are_not_in_them(self, tmp_path: Path) -> None:
        refused = {"connect-auditd-trial2": [invalid("throttled", "a quota held it up")]}
        run = StoredRun(syscalls=(CONNECT,), blocks=2, findings=refused)
        report = read_report(run.write(tmp_path))
        assert {each.arm: each.trials for each in report.curves} == {"vanilla": 2, "auditd": 1}
        assert [each.counts for each in report.trials if each.arm == "auditd"] == [True, False]
        assert report.missing_logs == ()

    @pytest.mark.parametrize(
        ("success", "returned", "bad"),
        [("ret == 0", 0, 1), ("ret > 0", 1, 0), ("ret == -4", -4, 0)],
    )
    def test_events_count_by_the_definition_of_that_run(
        self, tmp_path: Path, success: str, returned: int, bad: int
    ) -> None:
        run = make_run(
            tmp_path,
            vanilla_ns=[10_000],
            agent_ns=[11_000],
            tracer="events",
            syscalls={"connect": asdict(replace(SYSCALLS[CONNECT], success=success))},
        )
        for label, latency_ns in (("vanilla", 10_000), ("falco", 11_000)):
            log = event_log(calls(latency_ns), returned=returned, failed=[bad])
            (run / f"{label}/{label}_connect_trial1.log").write_bytes(log)
        report = read_report(run)
        assert report.missing_logs == ()
        assert {each.arm: each.distribution.count for each in report.curves} == {
            "vanilla": 1000,
            "falco": 1000,
        }


class TestCostsAndFindings:
    def test_costs_are_means_memory_is_the_worst(self, tmp_path: Path) -> None:
        costs = {
            "connect-auditd-trial1": AgentCost(100.0, 1.0, 4.0, 3_000_000, 2, ("a",), dropped=5),
            "connect-auditd-trial2": AgentCost(300.0, 3.0, 4.0, 5_000_000, 2, (), dropped=2),
        }
        run = StoredRun(syscalls=(CONNECT,), blocks=2, costs=costs)
        (cost,) = read_report(run.write(tmp_path)).costs
        assert (cost.cpu_s, cost.cpu_pct_of_core, cost.calls_per_s) == (2.0, 50.0, 200.0)
        assert (cost.peak_memory_mb, cost.threads_on_core, cost.dropped) == (5.0, 1, 7)

    def test_findings_are_grouped_by_code_the_heaviest_first(self, tmp_path: Path) -> None:
        found = {
            "connect-vanilla-trial1": [warning("other-load", "others used 9% of it")],
            "connect-auditd-trial1": [warning("other-load", "others used 7% of it")],
            "openat-auditd-trial2": [invalid("throttled", "a quota held it up")],
        }
        report = read_report(StoredRun(blocks=2, findings=found).write(tmp_path))
        assert [(each.severity, each.code, len(each.trials)) for each in report.findings] == [
            ("invalid", "throttled", 1),
            ("warning", "other-load", 2),
        ]
        assert report.findings[1].example == "others used 9% of it"
        assert report.findings[1].trials == ("connect-vanilla-trial1", "connect-auditd-trial1")


class TestPlaces:
    def test_parts_and_programs(self, tmp_path: Path) -> None:
        """Of 2 µs for the user a last tracer sees 1, a first 1.5: 1 + 0.5 + 0.5."""
        run = StoredRun(syscalls=(OPENAT,), both=True, attribute=True)
        report = read_report(run.write(tmp_path))
        (places,) = report.places
        means = {name: part.mean_us for name, part in places.parts.items()}
        assert means == {
            "user": pytest.approx(2, rel=0.01),
            "last": pytest.approx(1, rel=0.01),
            "first": pytest.approx(1.5, rel=0.01),
            "entry": pytest.approx(1, rel=0.01),
            "inside": pytest.approx(0.5, rel=0.01),
            "exit": pytest.approx(0.5, rel=0.01),
        }
        (programs,) = report.programs
        assert [each.owner for each in programs.shares] == ["agent", "tracer", "remainder"]
        # What the user pays, 2 µs, less the 900 ns of the agent's program.
        assert programs.shares[2].ns_per_call == pytest.approx(1100, rel=0.02)


class TestNoRun:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "cannot be read (No such file or directory)"),
            ("not json", "is no JSON"),
            ("[]", "names no schema"),
            ('{"schema": 99}', "has the schema 99"),
            ('{"schema": 1, "complete": false}', "holds no figures"),
            ('{"schema": 1, "settings": {}, "trials": [{}]}', "is not as a run writes it"),
            ('{"schema": 1, "settings": 5, "trials": []}', "is not as a run writes it"),
        ],
    )
    def test_one_line_says_so(self, tmp_path: Path, content: str | None, words: str) -> None:
        if content is not None:
            (tmp_path / "run.json").write_text(content)
        with pytest.raises(ReportProblem) as caught:
            read_report(tmp_path)
        assert words in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestThinned:
    def test_few_points_stay_as_they_are(self) -> None:
        points = thinned(Distribution.from_counts({5: 1, 7: 2, 9: 1}))
        assert points.values_ns.tolist() == [5, 7, 9]
        assert points.within.tolist() == [0.25, 0.75, 1.0]
        assert points.at_least.tolist() == [1.0, 0.75, 0.25]

    def test_each_point_is_exact_and_the_slowest_calls_are_all_there(self) -> None:
        random = np.random.default_rng(4)
        samples = np.unique((random.lognormal(9, 1, 60_000)).astype(np.int64))
        distribution = Distribution.from_samples(samples)
        points = thinned(distribution)
        values, share = points.values_ns, points.within
        assert values.size <= POINTS
        # By brute force, from the single calls.
        expected = [np.mean(samples <= value) for value in values]
        assert share == pytest.approx(expected, abs=1e-12)
        assert (np.diff(values) > 0).all()
        assert set(np.sort(samples)[-10:]) <= set(values)
        # No gap in the middle is wider than a point's share.
        assert np.diff(share).max() < 2 / (POINTS / 2)

    def test_what_is_drawn_is_exact_at_each_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A million calls with far more values than points are drawn: counted one by one."""
        random = np.random.default_rng(7)
        calls = np.sort((2_000 + random.lognormal(8, 1.1, 1_000_000)).astype(np.int64))
        curves = [Curve("connect", "vanilla", 1, Distribution.from_samples(calls))]
        drawn: list[tuple[np.ndarray, np.ndarray]] = []
        plot = Axes.plot

        def noted(axes: Axes, x: Any, y: Any, *args: Any, **options: Any) -> Any:
            drawn.append((np.asarray(x), np.asarray(y)))
            return plot(axes, x, y, *args, **options)

        monkeypatch.setattr(Axes, "plot", noted)
        words = Words("name", "title", "description")
        ecdf(curves, styles(["vanilla"]), words)
        tail(curves, styles(["vanilla"]), words)
        (x, within_pct), (slow_x, at_least) = drawn
        # The line of the first begins with a rise from 0.
        assert (x[0], within_pct[0]) == (calls[0], 0)
        up_to = np.searchsorted(calls, x[1:], side="right")
        assert within_pct[1:] == pytest.approx(up_to / 10_000, rel=1e-12)
        not_below = 1_000_000 - np.searchsorted(calls, slow_x, side="left")
        assert at_least == pytest.approx(not_below / 1_000_000, rel=1e-12)
        assert 250 < slow_x.size <= POINTS
        assert (at_least[0], slow_x[-1]) == (1, calls[-1])


class TestStyles:
    def test_arms_differ_also_without_colour(self) -> None:
        arms = ["vanilla", *(f"agent{number}" for number in range(6))]
        looks = styles(arms)
        assert len({str(each.dashes) for each in looks.values()}) == 7
        assert len({each.marker for each in looks.values()}) == 7
        assert len({each.colour for each in looks.values()}) == 7

    def test_long_names_stay_apart(self) -> None:
        arms = [f"daemonset:a-long-namespace/{middle}/with-a-long-end" for middle in ("x", "y")]
        labels = [each.label for each in styles(arms).values()]
        assert len(set(labels)) == 2
        assert max(map(len, labels)) <= 20
