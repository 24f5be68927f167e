"""`syslat analyze`: a run computed again from its logs, and what differs from its files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.cli.main import main
from pytest_syslat.plan import Plan
from pytest_syslat.records import RunRecord
from pytest_syslat.settings import Settings
from pytest_syslat.stored import stored_settings
from pytest_syslat.syscalls import SYSCALLS, Syscall

from .made_runs import SYSTEM, calls, event_log, make_run, map_dump

VANILLA_NS = [10_000, 20_000, 10_000, 20_000, 10_000, 20_000, 10_000, 20_000]
AGENT_NS = [11_000, 22_000, 11_000, 22_000, 11_000, 22_000, 11_000, 22_000]
"""Always 10 % more."""
LOG = "falco/falco_connect_trial3.log"

Analyzed = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def analyzed(capsys: pytest.CaptureFixture[str]) -> Analyzed:
    """Runs `syslat analyze --json`: exit code and document."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["analyze", "--json", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        return code, json.loads(out)

    return run


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_run(
        tmp_path / "made",
        vanilla_ns=VANILLA_NS,
        agent_ns=AGENT_NS,
        budgets=["*:p50<=+15%", "*:user<=+15%"],
    )


@pytest.fixture
def whole(made: Path, tmp_path: Path, analyzed: Analyzed, no_reports: None) -> Path:
    """A run with all files that one has."""
    target = tmp_path / "whole"
    code, _ = analyzed(made, f"--output={target}")
    assert code == 1  # All CSV files were missing.
    assert analyzed(target) == (0, analyzed(target)[1])
    return target


@pytest.fixture
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have tests of their own, and take seconds."""
    monkeypatch.setattr("pytest_syslat.cli.analyze.reports_of", lambda directory: [])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def told(document: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    return {
        (each["file"], each["place"], each["stored"], each["computed"])
        for each in document["differences"]
    }


@pytest.mark.parametrize("tracer", ["distribution", "events"])
def test_figures_are_those_of_the_logs(
    tracer: str, tmp_path: Path, analyzed: Analyzed, no_reports: None
) -> None:
    """Worked out by hand: 900 calls of 10 µs, 90 of 20, 10 of 30."""
    made = make_run(
        tmp_path / "made",
        vanilla_ns=VANILLA_NS[:2],
        agent_ns=AGENT_NS[:2],
        tracer=tracer,
    )
    target = tmp_path / "computed"
    analyzed(made, f"--output={target}")
    raw, iqr = rows(target / "vanilla/vanilla_summary.csv")[:2]
    # mean 11.1, variance (900 * 1.1² + 90 * 8.9² + 10 * 18.9²) / 1000 = 11.79
    assert [raw[name] for name in ("avg_us", "p50_us", "p99_us", "min_us", "max_us", "count")] == [
        "11.100",
        "10.000",
        "20.000",
        "10.000",
        "30.000",
        "1000",
    ]
    assert raw["stddev_us"] == "3.434"
    # Both quartiles are 10 µs, so the fences leave 900 calls.
    assert (iqr["filter"], iqr["count"], iqr["max_us"]) == ("iqr", "900", "10.000")
    (stats,) = rows(target / "vanilla/vanilla_stats_raw.csv")
    # 10 and 20 µs: mean 15, deviation of the sample sqrt(50)
    assert (stats["trials"], stats["avg_p50_us"], stats["std_p50_us"]) == ("2", "15.000", "7.071")
    user = [row["us_per_op"] for row in rows(target / "falco/falco_user.csv")[:4]]
    assert user == ["21.500", "22.000", "22.500", "31.000"]
    overhead = {row["figure"]: row for row in rows(target / "overhead.csv")}
    # Geometric means: sqrt(10 * 20) = 14.142, and 10 % more
    assert overhead["p50"]["vanilla_us"] == "14.142"
    assert {row["delta_pct"] for row in overhead.values()} == {"10.000"}


@pytest.mark.parametrize(
    ("success", "returned", "bad"), [("ret == 0", 0, 1), ("ret > 0", 1, 0), ("ret == -4", -4, 0)]
)
def test_events_are_sorted_by_the_definition_of_that_run(
    success: str, returned: int, bad: int, tmp_path: Path, analyzed: Analyzed, no_reports: None
) -> None:
    made = make_run(
        tmp_path / "made",
        vanilla_ns=VANILLA_NS[:2],
        agent_ns=AGENT_NS[:2],
        tracer="events",
        syscalls={"connect": asdict(replace(SYSCALLS["connect"], success=success))},
    )
    # One call in a thousand and one returns what is no success.
    for label, latencies_ns in (("vanilla", VANILLA_NS), ("falco", AGENT_NS)):
        for trial in (1, 2):
            log = event_log(calls(latencies_ns[trial - 1]), returned=returned, failed=[bad])
            (made / f"{label}/{label}_connect_trial{trial}.log").write_bytes(log)
    target = tmp_path / "computed"
    analyzed(made, f"--output={target}")
    trials = json.loads((target / "run.json").read_text())["trials"]
    assert [(each["refused"], each["calls"]) for each in trials] == [(False, 1000)] * 4


def test_stamps_are_full_by_the_limit_that_was_set(tmp_path: Path, analyzed: Analyzed) -> None:
    made = make_run(
        tmp_path / "made",
        vanilla_ns=VANILLA_NS[:2],
        agent_ns=AGENT_NS[:2],
        system={**SYSTEM, "bpftrace map keys": "4"},
    )
    refused = ("run.json", "trials, connect-falco-1, refused", "False", "True")
    assert refused not in told(analyzed(made)[1])
    log = made / "falco/falco_connect_trial1.log"
    stamps = json.dumps({"type": "map", "data": {"@start": dict.fromkeys("abcd", 1)}}) + "\n"
    before, total, after = log.read_text().rpartition('{"type": "map", "data": {"@total"')
    log.write_text(before + stamps + total + after)
    assert refused in told(analyzed(made)[1])


def test_a_run_that_is_as_its_logs_say(whole: Path, analyzed: Analyzed) -> None:
    code, document = analyzed(whole)
    assert (code, document["differences"], document["logs_unread"]) == (0, [], {})
    assert (document["trials"], document["logs_read"], document["written"]) == (16, 16, [])
    (cell,) = [each for each in document["cells"] if each["cell"]["figure"] == "p50"]
    assert cell["verdict"] == "passed"
    assert cell["delta_pct"] == pytest.approx(10)


def test_a_changed_figure_is_told_with_its_place(whole: Path, analyzed: Analyzed) -> None:
    summary = whole / "vanilla/vanilla_summary.csv"
    replace_in(summary, "11.100,10.000,20.000", "11.100,10.500,20.000")
    # A unit of the last place is rounding.
    replace_in(whole / "falco/falco_user.csv", "21.500", "21.501")
    code, document = analyzed(whole)
    assert code == 1
    assert told(document) == {
        ("vanilla/vanilla_summary.csv", "vanilla connect 1 raw, p50_us", "10.500", "10.000")
    }


def test_changed_verdicts_and_figures_of_run_json_are_told(whole: Path, analyzed: Analyzed) -> None:
    run = json.loads((whole / "run.json").read_text())
    run["trials"][0]["figures_us"]["p99"] = 21.0
    run["cells"][0]["verdict"] = "regressed"
    (whole / "run.json").write_text(json.dumps(run))
    code, document = analyzed(whole)
    assert code == 1
    assert told(document) == {
        ("run.json", "trials, connect-vanilla-1, figures_us, p99", "21", "20"),
        ("run.json", "cells, connect-falco-p50, verdict", "regressed", "passed"),
    }


def test_missing_files_and_rows_are_told(whole: Path, analyzed: Analyzed) -> None:
    (whole / "overhead.csv").unlink()
    stats = whole / "falco/falco_stats_iqr.csv"
    stats.write_text(stats.read_text().splitlines()[0] + "\n")
    code, document = analyzed(whole)
    assert code == 1
    assert told(document) == {
        ("overhead.csv", "the file", "nothing", "overhead.csv"),
        ("falco/falco_stats_iqr.csv", "falco connect iqr", "nothing", "a row"),
    }


def test_a_changed_log_changes_all_that_rests_on_it(whole: Path, analyzed: Analyzed) -> None:
    log = whole / LOG
    log.write_bytes(log.read_bytes().replace(b'"11000": 900', b'"12000": 900'))
    code, document = analyzed(whole)
    assert code == 1
    found = told(document)
    assert ("falco/falco_summary.csv", "falco connect 3 raw, p50_us", "11.000", "12.000") in found
    assert ("run.json", "trials, connect-falco-3, figures_us, p50", "11", "12") in found
    files = {each[0] for each in found}
    assert {"falco/falco_stats_raw.csv", "overhead.csv"} <= files
    assert not any(name.startswith("vanilla/") for name in files)


def test_kernel_totals_are_checked_again(whole: Path, analyzed: Analyzed) -> None:
    """Latencies of 100 calls are not in the map that the kernel's total counts."""
    log = whole / LOG
    log.write_bytes(log.read_bytes().replace(b'"11000": 900', b'"11000": 800'))
    code, document = analyzed(whole)
    assert code == 1
    found = told(document)
    assert (
        "falco/falco_validity.csv",
        "falco connect 3 invalid miscounted",
        "nothing",
        "a row",
    ) in found
    assert ("run.json", "trials, connect-falco-3, refused", "False", "True") in found
    (cell,) = [each for each in document["cells"] if each["cell"]["figure"] == "p50"]
    assert cell["verdict"] == "invalid"


@pytest.mark.parametrize("how", ["missing", "cut off", "no lmbench output"])
def test_a_log_that_is_not_there(
    how: str, whole: Path, tmp_path: Path, analyzed: Analyzed, capsys: pytest.CaptureFixture[str]
) -> None:
    log = whole / LOG
    if how == "missing":
        log.unlink()
    elif how == "cut off":
        log.write_bytes(log.read_bytes()[:-40])
    else:
        log = log.with_suffix(".stderr")
        log.unlink()
    code, document = analyzed(whole)
    assert code == 1
    assert list(document["logs_unread"]) == [str(log)]
    # Figures of seven blocks must not take the place of those of eight.
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for option in ("--write", f"--output={tmp_path / 'other'}"):
        assert main(["analyze", str(whole), option]) == 4
        assert f"nothing is written, since a log is not there: {log}" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert not (tmp_path / "other").exists()


def test_other_budgets(whole: Path, analyzed: Analyzed) -> None:
    """Ten per cent more than vanilla."""
    code, document = analyzed(whole, "--syslat-budget=connect:p50<=+9%")
    assert (code, document["differences"]) == (1, [])
    verdicts = {each["cell"]["figure"]: each["verdict"] for each in document["cells"]}
    assert verdicts == {"p50": "regressed", "p90": None, "p99": None, "mean": None, "user": None}
    code, document = analyzed(whole, "--syslat-budget=*:*<=+11%")
    assert code == 0
    assert {each["verdict"] for each in document["cells"]} == {"passed"}
    assert json.loads((whole / "run.json").read_text())["settings"]["budgets"] == [
        "*:p50<=+15%",
        "*:user<=+15%",
    ]


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ([], 0),
        (["--syslat-budget=*:p50<=+9%"], 1),
        (["--syslat-strict"], 1),
        # What stands on the command line of the run changes nothing.
        (["--syslat-budget=*:p50<=+9%", "--agent=all", "--syslat-syscall=openat"], 1),
        (["--syslat-budget=*:p50<=+9%", "--agent=falco=command:sleep 1", "--agent=none"], 1),
        (["--syslat-budget=*:p50<=+9%", "--syslat-until=decided", "--syslat-trials=x"], 1),
        (["--syslat-budget=*:p50<=+11%", "--syslat-syscall=connect", "--syslat-agent=a+b"], 0),
        (["--agent=all", "--syslat-trials=3"], 0),
    ],
)
def test_the_budgets_of_the_run_itself_are_judged_where_they_are_typed(
    typed: list[str], code: int, tmp_path: Path, analyzed: Analyzed, no_reports: None
) -> None:
    """The run has regressed: ten per cent more than vanilla, nine are allowed."""
    made = make_run(
        tmp_path / "made", vanilla_ns=VANILLA_NS, agent_ns=AGENT_NS, budgets=["*:p50<=+9%"]
    )
    whole = tmp_path / "whole"
    analyzed(made, f"--output={whole}")
    found, document = analyzed(whole, *typed)
    assert (found, document["differences"]) == (code, [])
    assert [each["cell"]["figure"] for each in document["cells"] if each["verdict"]] == ["p50"]


@pytest.mark.parametrize(
    "typed",
    [
        ["--syslat-budget=conect:p50<=+1%"],
        ["--syslat-budget=*:p50<=+50%", "--syslat-budget=openat:p50<=+1%"],
    ],
)
def test_a_budget_that_judges_nothing_is_refused(
    typed: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must not look as if it had been kept."""
    assert main(["analyze", str(whole), *typed]) == 4
    idle = typed[-1].removeprefix("--syslat-budget=")
    assert capsys.readouterr() == (
        "",
        (
            f"syslat: --syslat-budget: '{idle}' would judge nothing: {whole} holds overheads of "
            "connect\n"
        ),
    )


def test_a_run_that_was_killed_has_stored_no_verdicts_to_differ(
    whole: Path, analyzed: Analyzed, capsys: pytest.CaptureFixture[str]
) -> None:
    run = json.loads((whole / "run.json").read_text())
    del run["cells"]
    run["complete"] = False
    (whole / "run.json").write_text(json.dumps(run))
    (whole / "overhead.csv").unlink()
    code, document = analyzed(whole)
    assert (code, document["closed"], document["differences"]) == (0, False, [])
    assert main(["analyze", str(whole)]) == 0
    assert "the run was killed before its end" in capsys.readouterr().out
    # What was stored of its trials is compared all the same.
    replace_in(whole / "vanilla/vanilla_summary.csv", "11.100,10.000", "11.100,10.500")
    code, document = analyzed(whole)
    assert (code, len(document["differences"])) == (1, 1)


UNTIL = {"looks": [8, 16, 32], "alpha_of_each_look": 0.05 / 3, "looked_at": [8]}


@pytest.mark.parametrize(("decided_after", "verdict"), [(8, "passed"), (None, "inconclusive")])
def test_a_run_until_decided_says_whether_it_was(
    decided_after: int | None, verdict: str, tmp_path: Path, analyzed: Analyzed
) -> None:
    """One was ended in the ninth block, before its first trial was whole."""
    made = make_run(
        tmp_path / "made",
        vanilla_ns=VANILLA_NS,
        agent_ns=AGENT_NS,
        budgets=["*:p50<=+15%"],
        plan=[f"connect-{arm}-trial{n}" for n in range(1, 33) for arm in ("vanilla", "falco")],
        sequential={**UNTIL, "decided_after": decided_after},
        complete=decided_after is not None,
    )
    run = json.loads((made / "run.json").read_text())
    run["settings"]["until"] = "decided"
    (made / "run.json").write_text(json.dumps(run))
    _, document = analyzed(made)
    (cell,) = [each for each in document["cells"] if each["cell"]["figure"] == "p50"]
    assert cell["verdict"] == verdict


def test_write_keeps_what_it_replaces(whole: Path, analyzed: Analyzed) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert analyzed(whole, "--write")[1]["written"] == []
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    code, document = analyzed(whole, "--write", "--syslat-budget=connect:p50<=+9%")
    assert code == 1
    changed = ["overhead.csv", "run.json"]
    assert sorted(Path(path).name for path in document["written"]) == changed
    for name in changed:
        assert (whole / f"{name}.measured").read_bytes() == before[whole / name]
    kept = {path: text for path, text in before.items() if path.name not in changed}
    assert kept == {path: path.read_bytes() for path in kept}
    # What was measured first stays, whatever is written later.
    assert analyzed(whole, "--write", "--syslat-budget=connect:p50<=+30%")[0] == 0
    for name in changed:
        assert (whole / f"{name}.measured").read_bytes() == before[whole / name]
    assert analyzed(whole)[0] == 0


def test_output_never_goes_where_something_is(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, words in ((tmp_path / "made", "is there already"), (whole / "x", "lies in")):
        assert main(["analyze", str(whole), f"--output={place}"]) == 4
        assert words in capsys.readouterr().err
    assert not (whole / "x").exists()


def test_output_holds_the_logs_too(whole: Path) -> None:
    made = whole.with_name("made")
    for path in made.rglob("*.*"):
        if path.suffix in (".log", ".stderr", ".txt"):
            assert (whole / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_growth_since_a_run_that_it_was_compared_with(
    tmp_path: Path, analyzed: Analyzed, no_reports: None
) -> None:
    """With the figures that run.json has noted of that run: there, falco cost 5 %."""
    earlier = {
        "path": "/gone",
        "date": "2026-01-31",
        "is_ours": True,
        "complete": True,
        "refused_trials": 0,
        "differences": [],
        "weaknesses": [],
        "system": {"agent falco": "0.9"},
        "trials": [
            {
                "syscall": "connect",
                "label": label,
                "trial": trial,
                "placement": "last",
                "figures_us": {"p50": value_us},
                "findings": [],
            }
            for trial in range(1, 9)
            for label, value_us in (("vanilla", 10.0), ("falco", 10.5))
        ],
    }
    made = make_run(tmp_path / "made", vanilla_ns=VANILLA_NS, agent_ns=AGENT_NS, against=earlier)
    code, document = analyzed(made, "--syslat-growth-budget=*:p50<=+4%")
    (grown,) = [each for each in document["growth"] if each["cell"]["figure"] == "p50"]
    assert grown["delta_pct"] == pytest.approx(100 * (1.1 / 1.05 - 1))
    assert grown["verdict"] == "regressed"
    assert code == 1


def test_growth_budget_without_such_a_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(whole), "--syslat-growth-budget=*:p50<=+4%"]) == 4
    assert "syslat compare EARLIER THIS" in capsys.readouterr().err


def test_text_names_each_difference_in_a_line(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(whole)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{whole}: vanilla, falco; 16 trials, 0 refused, 16 logs read"
    assert lines[-1] == "every stored figure is what the logs give"
    assert max(map(len, lines[1:])) <= 80
    replace_in(whole / "vanilla/vanilla_summary.csv", "11.100,10.000", "11.100,10.500")
    assert main(["analyze", str(whole)]) == 1
    place = "vanilla/vanilla_summary.csv, vanilla connect 1 raw, p50_us"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{place}: stored 10.500, computed 10.000",
        "1 values differ from the stored files",
    ]


def test_splits_of_both_placements(tmp_path: Path, analyzed: Analyzed, no_reports: None) -> None:
    """The tracer after the agent sees 1 µs of it in the mean, before it 2 µs; the user pays 2."""
    made = make_run(tmp_path / "made", vanilla_ns=[10_000] * 2, agent_ns=[11_000] * 2)
    run = json.loads((made / "run.json").read_text())
    for each in run["trials"]:
        first_ns = 10_000 if each["label"] == "vanilla" else 12_000
        each["first"] = {
            **each,
            "placement": "first",
            "placement_wanted": "first",
            "user_mean_us": None,
        }
        steps = [{}, {7_000: 3}, *[{7_000: 3, **calls(first_ns)}] * 2]
        log = made / each["label"] / f"{each['label']}_connect_trial{each['trial']}_first.log"
        log.write_text("".join(map(map_dump, steps)))
        log.with_suffix(".stderr").write_text("")
    run["settings"]["placement"] = "both"
    (made / "run.json").write_text(json.dumps(run))
    _, document = analyzed(made)
    (split,) = document["splits"]
    assert split["last"]["mean_us"] == pytest.approx(1.11)
    assert split["first"]["mean_us"] == pytest.approx(2.22)
    assert split["user"]["mean_us"] == pytest.approx(2.0)


def test_a_syscall_that_was_added_is_read_back(tmp_path: Path) -> None:
    """On the machine that analyses, nobody need have its TOML file."""
    added = Syscall("fsync", ("lat_fsync", "{file}"), success="ret == 0", mark=(-1, 0))
    settings = Settings(agents=("auditd",), syscalls=(*SYSCALLS.values(), added), seed=7)
    record = RunRecord(tmp_path)
    record.open(settings, Plan((), complete=True), {})
    assert stored_settings(json.loads((tmp_path / "run.json").read_text())) == settings
