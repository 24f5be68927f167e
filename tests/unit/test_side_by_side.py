"""`syslat compare`: runs side by side, with numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.cli.main import main

from .made_runs import SYSTEM, entry, make_run

VANILLA_NS = [10_000, 20_000] * 4
Compared = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Compared:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["compare", "--json", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        return code, json.loads(out)

    return run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """One in which falco costs 10 %, one in which it costs 32 %: 20 % more."""
    return made(tmp_path / "one", 1.10), made(tmp_path / "two", 1.32)


def made(root: Path, factor: float, **changed: Any) -> Path:
    agent_ns = [round(factor * each) for each in VANILLA_NS]
    return make_run(root, vanilla_ns=VANILLA_NS, agent_ns=agent_ns, **changed)


def figure(entries: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [each for each in entries if each["cell"]["figure"] == name]
    return found


def test_overheads_and_growth(runs: tuple[Path, Path], compared: Compared) -> None:
    code, document = compared(*runs)
    assert code == 0
    for run, percent in zip(document["runs"], (10, 32), strict=True):
        p50 = figure(run["cells"], "p50")
        assert p50["delta_pct"] == pytest.approx(percent)
        # Each block says the same, so the interval is the clock's step of 1 ns on 10 µs.
        assert p50["ci_low_pct"] == pytest.approx(percent, abs=0.02)
        assert p50["ci_high_pct"] == pytest.approx(percent, abs=0.02)
    (since,) = document["since_first"]
    assert (since["differences"], since["problem"]) == ([], None)
    grown = figure(since["growth"], "p50")
    assert grown["delta_pct"] == pytest.approx(20)
    # 15.556 µs with the overhead of the first run, 18.668 with that of the second
    assert grown["delta_us"] == pytest.approx(200**0.5 * (1.32 - 1.10))
    assert (grown["blocks_before"], grown["blocks_now"], grown["verdict"]) == (8, 8, None)


@pytest.mark.parametrize(
    ("budget", "verdict", "expected"), [("15", "regressed", 1), ("25", "passed", 0)]
)
def test_growth_is_judged(
    budget: str, verdict: str, expected: int, runs: tuple[Path, Path], compared: Compared
) -> None:
    code, document = compared(*runs, f"--syslat-growth-budget=connect:p50<=+{budget}%")
    assert code == expected
    (since,) = document["since_first"]
    assert figure(since["growth"], "p50")["verdict"] == verdict
    assert figure(since["growth"], "p99")["verdict"] is None


def test_less_is_no_growth(runs: tuple[Path, Path], compared: Compared) -> None:
    code, document = compared(*reversed(runs), "--syslat-growth-budget=*:p50<=+1%")
    assert code == 0
    assert figure(document["since_first"][0]["growth"], "p50")["delta_pct"] == pytest.approx(
        100 * (1.10 / 1.32 - 1)
    )


def test_three_runs_are_compared_with_the_first(
    runs: tuple[Path, Path], tmp_path: Path, compared: Compared
) -> None:
    third = made(tmp_path / "three", 1.11)
    code, document = compared(*runs, third, "--syslat-growth-budget=*:p50<=+5%")
    assert code == 1
    verdicts = [figure(each["growth"], "p50")["verdict"] for each in document["since_first"]]
    assert verdicts == ["regressed", "passed"]


def test_other_conditions_decide_nothing(
    runs: tuple[Path, Path], tmp_path: Path, compared: Compared
) -> None:
    other = made(tmp_path / "other", 1.32, system={**SYSTEM, "kernel": "6.2", "agent falco": "2"})
    code, document = compared(runs[0], other, "--syslat-growth-budget=*:p50<=+5%")
    assert code == 0
    (since,) = document["since_first"]
    assert since["differences"] == ["kernel is 6.1 there, 6.2 here"]
    assert since["agent_versions"] == {"falco": ["1.0", "2"]}
    p50 = figure(since["growth"], "p50")
    assert p50["verdict"] == "inconclusive"
    assert "conditions: one was made so: kernel is 6.1 there, 6.2 here" in p50["reasons"]
    strict = ("--syslat-growth-budget=*:p50<=+5%", "--syslat-strict")
    assert compared(runs[0], other, *strict)[0] == 1


def test_a_run_that_was_ended_early_passes_nothing(
    runs: tuple[Path, Path], tmp_path: Path, compared: Compared
) -> None:
    plan = [f"connect-{arm}-trial{n}" for arm in ("vanilla", "falco") for n in range(1, 11)]
    ended = made(tmp_path / "ended", 1.10, plan=plan, complete=False)
    code, document = compared(runs[0], ended, "--syslat-growth-budget=*:p50<=+5%")
    assert code == 0
    assert document["runs"][1]["ended_early"] == (
        f"{ended} was ended early: 4 of 20 trials are missing"
    )
    assert figure(document["since_first"][0]["growth"], "p50")["verdict"] == "inconclusive"


def test_a_refused_trial_makes_growth_invalid(runs: tuple[Path, Path], compared: Compared) -> None:
    run = json.loads((runs[1] / "run.json").read_text())
    why = {"severity": "invalid", "code": "throttled", "detail": "it was throttled"}
    run["trials"][-1] = entry("falco", 8, 26_400, 52.8, refused=True, findings=[why])
    (runs[1] / "run.json").write_text(json.dumps(run))
    code, document = compared(*runs, "--syslat-growth-budget=*:p50<=+50%")
    assert code == 1
    p50 = figure(document["since_first"][0]["growth"], "p50")
    assert (p50["verdict"], p50["blocks_now"]) == ("invalid", 7)


def test_files_of_another_program(
    runs: tuple[Path, Path], tmp_path: Path, compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no blocks: overheads are shown with what speaks against them, and no growth."""
    columns = "label,syscall,trial,filter,avg_us,p50_us,p99_us,min_us,max_us,count,stddev_us"
    for label, p50_us in (("vanilla", 10.5), ("falco", 12.6)):
        lines = [
            f"{label},connect,{n},raw,13.1,{p50_us},21.5,9.5,40.5,5000,2.5" for n in range(1, 6)
        ]
        (tmp_path / "foreign" / label).mkdir(parents=True)
        (tmp_path / "foreign" / label / f"{label}_summary.csv").write_text(
            "\n".join([columns, *lines]) + "\n"
        )
    code, document = compared(tmp_path / "foreign", runs[0])
    assert code == 0
    assert figure(document["runs"][0]["cells"], "p50")["delta_pct"] == pytest.approx(20)
    assert any("user cost" in each for each in document["runs"][0]["weaknesses"])
    (since,) = document["since_first"]
    assert "its trials are no blocks" in since["problem"]
    assert since["growth"] == []
    arguments = ["compare", str(tmp_path / "foreign"), str(runs[0])]
    assert main([*arguments, "--syslat-growth-budget=*:p50<=+5%"]) == 4
    assert "--syslat-growth-budget: " in capsys.readouterr().err


def test_a_budget_that_judges_nothing_is_refused(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A gate must not look as if it had passed."""
    arguments = ["compare", *map(str, runs), "--syslat-growth-budget=openat:p50<=+5%"]
    for others in ([], ["--syslat-growth-budget=connect:p50<=+90%"]):
        assert main([*arguments, *others]) == 4
        err = capsys.readouterr().err
        assert "'openat:p50<=+5%' would judge nothing: it is for no figure that" in err


def test_a_budget_of_the_ini_file_that_judges_nothing_is_told(
    runs: tuple[Path, Path], compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may stand for the runs that measure the syscall."""
    ini = "[pytest]\nsyslat_growth_budget =\n  openat:p50<=+5%\n  *:user<=+90%\n"
    Path("pytest.ini").write_text(ini)
    code, document = compared(*runs)
    (since,) = document["since_first"]
    assert (code, since["idle_growth_budgets"]) == (0, ["openat:p50<=+5%"])
    assert figure(since["growth"], "user")["verdict"] == "passed"
    assert main(["compare", *map(str, runs)]) == 0
    assert "B: growth budget openat:p50<=+5% judges nothing here\n" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["typed", "ini"])
@pytest.mark.parametrize("lacking", [0, 1])
def test_what_one_of_two_runs_lacks_under_a_budget_is_refused(
    lacking: int,
    where: str,
    runs: tuple[Path, Path],
    compared: Compared,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else an agent or a syscall that is measured no more would not be missed."""
    other = runs[1 - lacking]
    run = json.loads((other / "run.json").read_text())
    blocks = [(arm, n) for arm in ("vanilla", "falco") for n in range(1, 9)]
    run["trials"] += [entry(arm, n, 10_000, 20.0, syscall="openat") for arm, n in blocks]
    run["plan"] += [f"openat-{arm}-trial{n}" for arm, n in blocks]
    (other / "run.json").write_text(json.dumps(run))
    typed = []
    if where == "typed":
        typed = ["--syslat-growth-budget=*:p50<=+90%"]
    else:
        Path("pytest.ini").write_text("[pytest]\nsyslat_growth_budget = *:p50<=+90%\n")
    assert main(["compare", *map(str, runs), *typed]) == 4
    assert (
        f"growth budget: {runs[lacking]} has no block of openat with vanilla and falco "
        f"(arms: falco, vanilla), {other} has"
    ) in capsys.readouterr().err
    # Without a budget on it, it is no matter.
    assert compared(*runs, "--syslat-growth-budget=connect:p50<=+90%")[0] == 0


def test_what_stands_on_the_command_line_of_a_run_changes_nothing(
    runs: tuple[Path, Path], compared: Compared
) -> None:
    others = ("--agent=all", "--syslat-syscall=openat", "--syslat-trials=x", "--syslat-until=x")
    code, document = compared(*runs, "--syslat-growth-budget=*:p50<=+15%", *others)
    assert code == 1
    assert figure(document["since_first"][0]["growth"], "p50")["verdict"] == "regressed"


def test_text_fits_80_columns(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    assert main(["compare", "one", "two"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["A  one (of 2023-11-14)", "B  two (of 2023-11-14)"] + [
        "B beside A: the same conditions"
    ]
    at = lines.index("connect-falco-p50")
    assert lines[at + 1].split()[:3] == ["A", "+1.414", "+10.0"]
    assert lines[at + 2].split()[:3] == ["B", "+4.525", "+32.0"]
    assert lines[at + 2].split()[6] == "+20.0"
    assert max(map(len, lines[:-1])) <= 80
