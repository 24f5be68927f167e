"""Services of a host: stopped for other arms, and running again at the end if they ran before.

systemd is a shell script here that keeps a unit's state in files: the machines that run these tests
need not have booted with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.agents.service import ServiceCarrier
from pytest_syslat.testbeds import stopped_services
from pytest_syslat.testbeds.protocol import Completed, Role, TestbedError
from pytest_syslat.testbeds.stopped_services import remembered, restore_all
from pytest_syslat.tools import Tool

from .support import Host

UNIT = "mine.service"
# State, then the number of starts; `broken` lets a start fail, `stuck` a stop.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$UNITS/asked"
verb=$1
for unit in "$@"; do :; done
state="$UNITS/$unit"
case $verb in
start)
    if [ -e "$state.broken" ]; then echo "Job for $unit failed." >&2; exit 1; fi
    if [ "$(cat "$state")" != active ]; then
        echo active >"$state"
        echo x >>"$state.starts"
    fi ;;
stop)
    if [ -e "$state.stuck" ]; then echo "Operation refused." >&2; exit 1; fi
    [ "$(cat "$state")" = failed ] || echo inactive >"$state" ;;
show)
    case $4 in
    LoadState) if [ -e "$state" ]; then echo loaded; else echo not-found; fi ;;
    ActiveState) cat "$state" ;;
    InvocationID) cat "$state.starts" 2>/dev/null | wc -l ;;
    ControlGroup) [ "$(cat "$state")" = active ] && echo "/system.slice/$unit"; true ;;
    FragmentPath) echo "/lib/systemd/system/$unit" ;;
    esac ;;
esac
"""
JOURNALCTL = """#!/bin/sh
echo "journalctl $*" >>"$UNITS/asked"
cat "$UNITS/journal"
"""


class Systemd(Host):
    """A host with units; paths in /run are below its own directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.programs = directory / "bin"
        self.units = directory / "units"
        for path in (self.programs, self.units):
            path.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        (self.units / "journal").touch()
        (self.units / "asked").touch()

    def add(self, unit: str, state: str) -> None:
        (self.units / unit).write_text(f"{state}\n")

    def state_of(self, unit: str = UNIT) -> str:
        return (self.units / unit).read_text().strip()

    @property
    def asked(self) -> list[str]:
        """What was changed, in order."""
        lines = (self.units / "asked").read_text().splitlines()
        return [line for line in lines if line.startswith(("start", "stop"))]

    def find_tool(self, name: str) -> Tool | None:
        return Tool(name) if (self.programs / name).exists() else None

    def _ran(self, argv: Sequence[str], role: Role, timeout_s: float) -> Completed:
        assert role is Role.NODE
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        given = ["env", f"PATH={path}", f"UNITS={self.units}", *argv]
        return super()._ran(given, role, timeout_s)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setattr(stopped_services, "SAVED_STATE", tmp_path / "run/services.json")
    return Systemd(tmp_path)


def carrier(systemd: Systemd, unit: str = UNIT) -> ServiceCarrier:
    return ServiceCarrier(systemd.as_testbed(), "mine", unit)


@pytest.mark.parametrize("state", ["active", "activating", "reloading"])
def test_unit_that_ran_runs_again_at_the_end(systemd: Systemd, state: str) -> None:
    systemd.add(UNIT, state)
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    mine.prepare(lambda: None)
    assert systemd.state_of() == "inactive"
    assert mine.remains() is None
    mine.start(None)
    assert mine.problem() is None
    assert mine.remains() == "unit mine.service is active"
    mine.stop()
    assert systemd.asked == ["stop mine.service", "start mine.service", "stop mine.service"]
    mine.remove()
    mine.remove()
    assert systemd.state_of() == "active"
    assert remembered(systemd.as_testbed()) == []
    assert not stopped_services.SAVED_STATE.exists()


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_unit_that_did_not_run_stays_stopped(systemd: Systemd, state: str) -> None:
    systemd.add(UNIT, state)
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    assert mine.remains() is None
    mine.start(None)
    mine.stop()
    mine.remove()
    assert systemd.state_of() == "inactive"


def test_unit_is_noted_before_it_is_stopped(systemd: Systemd) -> None:
    systemd.add(UNIT, "active")
    (systemd.units / f"{UNIT}.stuck").touch()
    mine = carrier(systemd)
    with pytest.raises(
        AgentError, match=r"^mine: systemctl stop mine\.service: Operation refused\.$"
    ):
        mine.prepare(lambda: None)
    assert remembered(systemd.as_testbed()) == [UNIT]
    mine.remove()
    assert systemd.state_of() == "active"


def test_nothing_is_started_that_was_not_prepared(systemd: Systemd) -> None:
    systemd.add(UNIT, "inactive")
    carrier(systemd).remove()
    assert systemd.asked == []


def test_unknown_unit(systemd: Systemd) -> None:
    with pytest.raises(
        AgentError, match=r"^mine: systemd knows no unit absent: give its full name$"
    ):
        carrier(systemd, "absent").prepare(lambda: None)
    assert systemd.asked == []


def test_host_without_systemd(systemd: Systemd) -> None:
    (systemd.programs / "systemctl").unlink()
    with pytest.raises(AgentError, match="systemctl was not found: this host has no systemd"):
        carrier(systemd).prepare(lambda: None)


def test_service_of_a_cluster(systemd: Systemd) -> None:
    systemd.cluster = object()
    with pytest.raises(AgentError, match="add --syslat-testbed=local"):
        carrier(systemd)


def test_policy_is_refused(systemd: Systemd) -> None:
    systemd.add(UNIT, "inactive")
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    with pytest.raises(AgentError, match="a service reads its own configuration"):
        mine.start(Path("my.yaml"))


def started(systemd: Systemd) -> ServiceCarrier:
    systemd.add(UNIT, "inactive")
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    mine.start(None)
    return mine


def test_unit_that_fails(systemd: Systemd) -> None:
    mine = started(systemd)
    systemd.add(UNIT, "failed")
    with pytest.raises(AgentError, match=r"unit mine\.service has failed: its journal is empty$"):
        mine.problem()
    (systemd.units / "journal").write_text("Started.\nno room left\n\n")
    with pytest.raises(AgentError, match=r"^mine: unit mine\.service has failed: no room left$"):
        mine.problem()


def test_unit_that_cannot_be_started(systemd: Systemd) -> None:
    systemd.add(UNIT, "inactive")
    (systemd.units / f"{UNIT}.broken").touch()
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    with pytest.raises(
        AgentError, match=r"^mine: systemctl start mine\.service: Job for mine\.service failed\.$"
    ):
        mine.start(None)


def test_unit_that_is_not_up_yet(systemd: Systemd) -> None:
    mine = started(systemd)
    systemd.add(UNIT, "activating")
    assert mine.problem() == "unit mine.service is activating"


def test_unit_that_somebody_starts_anew(systemd: Systemd) -> None:
    mine = started(systemd)
    for verb in ("stop", "start"):
        systemd.run(["systemctl", verb, UNIT], role=Role.NODE, timeout_s=10)
    assert mine.problem() == "unit mine.service was started anew meanwhile"


def test_what_is_known_of_it(systemd: Systemd) -> None:
    mine = started(systemd)
    assert mine.facts() == {"unit": UNIT, "unit file": f"/lib/systemd/system/{UNIT}"}
    assert mine.processes().cgroup_marks == (f"/system.slice/{UNIT}",)
    assert mine.address() == "127.0.0.1"
    (systemd.units / "journal").write_text("one line\n")
    assert mine.log() == "one line\n"
    [asked] = [
        line
        for line in (systemd.units / "asked").read_text().splitlines()
        if line.startswith("journalctl")
    ]
    assert re.search(rf"--unit {UNIT} --since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ", asked)
    mine.stop()
    assert mine.processes().cgroup_marks == ()


# --- What a killed run left ----------------------------------------------------------------------


def killed(systemd: Systemd, *units: str) -> None:
    for unit in units:
        systemd.add(unit, "active")
        carrier(systemd, unit).prepare(lambda: None)
        assert systemd.state_of(unit) == "inactive"


def test_next_run_starts_what_a_killed_one_stopped(systemd: Systemd) -> None:
    killed(systemd, "a.service", "b.service")
    assert restore_all(systemd.as_testbed()) == [
        "the stop of unit a.service, which runs again",
        "the stop of unit b.service, which runs again",
    ]
    assert systemd.state_of("a.service") == systemd.state_of("b.service") == "active"
    assert not stopped_services.SAVED_STATE.exists()
    assert restore_all(systemd.as_testbed()) == []


def test_one_that_cannot_be_started_does_not_keep_the_others(systemd: Systemd) -> None:
    killed(systemd, "a.service", "b.service")
    (systemd.units / "a.service.broken").touch()
    with pytest.raises(TestbedError) as caught:
        restore_all(systemd.as_testbed())
    assert str(caught.value) == (
        "unit a.service ran before and cannot be started again: Job for a.service failed.; "
        f"start it, or remove {stopped_services.SAVED_STATE}"
    )
    assert systemd.state_of("b.service") == "active"
    assert remembered(systemd.as_testbed()) == ["a.service"]


def test_own_run_tells_what_it_could_not_start_again(systemd: Systemd) -> None:
    systemd.add(UNIT, "active")
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    (systemd.units / f"{UNIT}.broken").touch()
    with pytest.raises(AgentError, match=r"^mine: unit mine\.service ran before and cannot be"):
        mine.remove()


def test_run_that_measures_what_a_killed_one_stopped(systemd: Systemd) -> None:
    """Even if it was not started first."""
    killed(systemd, UNIT)
    mine = carrier(systemd)
    mine.prepare(lambda: None)
    mine.remove()
    assert systemd.state_of() == "active"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_file_that_says_nothing(systemd: Systemd, text: str) -> None:
    stopped_services.SAVED_STATE.parent.mkdir()
    stopped_services.SAVED_STATE.write_text(text)
    assert restore_all(systemd.as_testbed()) == []
    systemd.add(UNIT, "active")
    carrier(systemd).prepare(lambda: None)
    assert json.loads(stopped_services.SAVED_STATE.read_text()) == [UNIT]


def test_a_run_on_this_host_begins_with_it(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So `--syslat-clean` does, too: it opens the same testbed and tells what that has swept."""
    from pytest_syslat.testbeds import local, local_leftovers

    killed(systemd, UNIT)
    monkeypatch.setattr(local, "take_lock", lambda: (systemd.workdir / "lock").open("w"))
    monkeypatch.setattr(local, "sweep_leftovers", list)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    for name in ("_make_cgroup", "_make_network_namespace"):
        monkeypatch.setattr(local.LocalTestbed, name, lambda *_: None)

    def run(_testbed: object, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        return systemd.run(argv, role=role, timeout_s=timeout_s)

    monkeypatch.setattr(local.LocalTestbed, "run", run)
    monkeypatch.setattr(local.LocalTestbed, "find_tool", lambda *_: None)
    assert local_leftovers.clean_host() == [f"the stop of unit {UNIT}, which runs again"]
    assert systemd.state_of() == "active"
