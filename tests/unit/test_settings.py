from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_syslat.budget import Budget
from pytest_syslat.settings import OPTIONS, Option, Settings, check_result_dir


def test_defaults() -> None:
    settings = Settings()
    assert settings.arms == ("vanilla",)
    assert (settings.trials, settings.warmup_s, settings.min_calls) == (5, 30.0, 1000)
    assert (settings.lmbench_reps, settings.openat_mult, settings.pin_core) == (10, 10, 2)
    assert settings.result_dir == Path("result/5.5")


def test_vanilla_is_the_first_arm() -> None:
    assert Settings(agents=("falco", "auditd")).arms == ("vanilla", "falco", "auditd")


def test_runs_of_openat_are_multiplied() -> None:
    settings = Settings(lmbench_reps=3, openat_mult=7)
    assert settings.runs("openat") == 21
    assert settings.runs("connect") == settings.runs("execve") == 3


def test_at_a_rate_all_syscalls_have_as_many_runs() -> None:
    settings = Settings(lmbench_reps=3, openat_mult=7, rate=100)
    assert {settings.runs(name) for name in ("execve", "openat", "connect")} == {3}


def test_as_dict_is_plain() -> None:
    settings = Settings(
        agents=("auditd",), budgets=(Budget("connect", "p50", 10.0, "%"),), lmbench_dir=Path("/opt")
    )
    plain = settings.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["agents"] == ["auditd"]
    assert plain["budgets"] == ["connect:p50<=+10%"]
    assert plain["lmbench_dir"] == "/opt"
    assert plain["trials"] == 5


def option(name: str) -> Option:
    [found] = [each for each in OPTIONS if each.name == name]
    return found


def test_names_of_an_option() -> None:
    warmup = option("warmup_sec")
    assert (warmup.flag, warmup.ini) == ("--syslat-warmup-sec", "syslat_warmup_sec")
    assert len({each.flag for each in OPTIONS}) == len(OPTIONS)


def test_only_the_five_variables_of_the_original_script_are_read() -> None:
    variables = [each.environment for each in OPTIONS if each.environment]
    assert variables == ["TRIALS", "WARMUP_SEC", "LMBENCH_REPS", "OPENAT_MULT", "PIN_CORE"]


def test_each_default_is_told_in_the_help() -> None:
    told = {each.name: each.default for each in OPTIONS}
    assert told["warmup_sec"] == "30"
    assert told["lmbench_reps"] == told["openat_mult"] == "10"
    assert told["pin_core"] == "2"
    assert told["min_calls"] == "1000"
    assert told["result_dir"] == "result/5.5"
    assert told["trials"] == "5; 8 if budgets are judged"
    assert all(each.default in each.help_on_command_line for each in OPTIONS if each.default)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("trials", "1", 1),
        ("pin_core", "0", 0),
        ("rate", "1", 1),
        ("seed", "0", 0),
        ("warmup_sec", "0", 0.0),
        ("warmup_sec", "2.5", 2.5),
        ("strict", "TRUE", True),
        ("strict", "no", False),
        ("agent", " auditd ", "auditd"),
        ("result_dir", "a/b", Path("a/b")),
        ("budget", "*:user<=+2us", Budget("*", "user", 2.0, "us")),
        ("tracer", "events", "events"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    assert option(name).parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trials", "0"),
        ("trials", "1e3"),
        ("pin_core", "-1"),
        ("rate", "0"),
        ("rate", "2.5"),
        ("warmup_sec", "-0.1"),
        ("warmup_sec", "inf"),
        ("strict", "2"),
        ("agent", "  "),
        ("lmbench_dir", ""),
        ("tracer", "Events"),
        ("budget", "connect:p50<=10%"),
    ],
)
def test_wrong_values(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        option(name).parse(text)


def test_a_result_directory_that_is_there_or_can_be_made(tmp_path: Path) -> None:
    check_result_dir(Settings(result_dir=tmp_path))
    check_result_dir(Settings(result_dir=tmp_path / "a/b/c"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_file_in_the_place_of_the_result_directory(tmp_path: Path, below: str) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    with pytest.raises(pytest.UsageError) as caught:
        check_result_dir(Settings(result_dir=occupied / below))
    assert str(caught.value) == (
        f"--syslat-result-dir: {occupied} is not a directory: give a directory"
    )
