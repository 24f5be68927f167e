"""Which agent a name stands for, what its arm is called, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_syslat.agents import auditd, catalogue, description
from pytest_syslat.agents.calibration import Calibration
from pytest_syslat.agents.catalogue import Catalogue, UnknownAgent
from pytest_syslat.agents.protocol import Agent, AgentError, AgentFactory
from pytest_syslat.settings import ChartPlace, ReadySign, Settings
from pytest_syslat.testbeds.protocol import Testbed

from .support import FakeCarrier, Node

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["auditd", "calibration", "falco", "kloudknox", "tetragon", "vanilla2"]


class Recorded(FakeCarrier):
    """A carrier that tells what it was made with."""

    made: list[Recorded]

    def __init__(self, testbed: Testbed, *given: object) -> None:
        super().__init__()
        self.given = given
        self.made.append(self)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """All carriers that are made, in order."""
    monkeypatch.setattr(Recorded, "made", [], raising=False)
    for name in ("CommandCarrier", "ServiceCarrier", "DaemonSetCarrier"):
        monkeypatch.setattr(catalogue, name, type(name, (Recorded,), {}))
    return Recorded.made


@pytest.fixture
def rootdir(tmp_path: Path) -> Path:
    (tmp_path / "root/start").mkdir(parents=True)
    return tmp_path / "root"


def mine(testbed: Testbed, rootdir: Path) -> Agent:
    raise AssertionError("nothing is made yet")


def find(
    rootdir: Path,
    *wanted: str,
    place: str = "local",
    hooked: Mapping[str, AgentFactory] | None = None,
    settings: Settings | None = None,
) -> dict[str, AgentFactory]:
    found = Catalogue(rootdir, rootdir / "start", hooked or {})
    return found.arms(wanted, settings or Settings(), place)


def host(rootdir: Path) -> Testbed:
    return Node(rootdir).as_testbed()


def cluster(rootdir: Path) -> Testbed:
    node = Node(rootdir)
    node.cluster = SimpleNamespace()
    return node.as_testbed()


def policy(agent: Agent) -> Any:
    return agent.facts()["policy"]


# --- Names and labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("falco", "falco"),
        ("falco+none", "falco+none"),
        ("auditd", "auditd"),
        ("auditd+none", "auditd+none"),
        ("tetragon+my.yaml", "tetragon+my.yaml"),
        ("tetragon+../deep/in.yaml", "tetragon+in.yaml"),
        ("calibration", "calibration"),
        ("calibration:exit-200", "calibration:exit-200"),
        ("daemonset:ns/name", "daemonset:ns/name"),
        ("service:unit.service", "service:unit.service"),
        ("service:getty@tty1.service", "service:getty@tty1.service"),
        ("command:'opensnoop -x'", "command:opensnoop"),
        ("command:opensnoop -x", "command:opensnoop"),
        ("command:/usr/sbin/opensnoop --name=a b=c", "command:opensnoop"),
        ("snoop=command:/usr/sbin/opensnoop -x", "snoop"),
        ("new=falco+none", "new"),
        ("my-1_2.3=daemonset:ns/name", "my-1_2.3"),
        ("mine", "mine"),
        ("other=mine", "other"),
        ("mine+odd=name", "mine+odd=name"),
    ],
)
def test_names_of_arms(rootdir: Path, text: str, label: str) -> None:
    (rootdir / "start/my.yaml").touch()
    (rootdir / "deep").mkdir()
    (rootdir / "deep/in.yaml").touch()
    assert list(find(rootdir, text, hooked={"mine": mine, "mine+odd=name": mine})) == [label]


def test_vanilla_needs_no_name_and_nothing_is_measured_twice(rootdir: Path) -> None:
    assert list(find(rootdir, "auditd", "vanilla", "falco", "auditd")) == ["auditd", "falco"]
    assert find(rootdir) == {}


def test_all_on_a_host(rootdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose programs are there."""
    asked = []

    def find_tool(name: str) -> str | None:
        asked.append(name)
        return "/usr/bin/falco" if name == "falco" else None

    monkeypatch.setattr(catalogue, "find_tool", find_tool)
    (rootdir / "agents").mkdir()
    (rootdir / "agents/daemon.toml").write_text('[host]\nservice = "d.service"\n')
    assert list(find(rootdir, "all", hooked={"mine": mine})) == [
        "auditd",
        "daemon",
        "falco",
        "mine",
    ]
    assert sorted(asked) == ["falco", "tetragon"]


def test_all_on_a_cluster(rootdir: Path) -> None:
    (rootdir / "agents").mkdir()
    (rootdir / "agents/host-only.toml").write_text('[host]\nservice = "d.service"\n')
    assert list(find(rootdir, "all", place="kubernetes", hooked={"mine": mine})) == [
        "falco",
        "kloudknox",
        "mine",
        "tetragon",
    ]


def test_all_with_one_of_them(rootdir: Path) -> None:
    found = find(rootdir, "falco", "all", "calibration", place="kubernetes")
    assert list(found) == ["falco", "kloudknox", "tetragon", "calibration"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            ["falko"],
            (
                "unknown agent 'falko': allowed is auditd, calibration, falco, kloudknox, mine, "
                "tetragon, vanilla2, daemonset:NAMESPACE/NAME, service:UNIT, command:PROGRAM, "
                "or all"
            ),
        ),
        (["falko+none"], "unknown agent 'falko+none': allowed is auditd, "),
        (["pod:x"], "unknown agent 'pod:x': allowed is auditd, "),
        (["calibration+none"], "unknown agent 'calibration+none': allowed is auditd, "),
        (["falco+"], "'falco+': after '+' stands 'none' or a policy's file"),
        (["auditd+"], "'auditd+': after '+' stands 'none' or a policy's file"),
        (
            ["falco+absent.yaml"],
            (
                "'falco+absent.yaml': there is no file absent.yaml: "
                "after '+' stands 'none' or a policy's file"
            ),
        ),
        (["auditd+absent.rules"], "'auditd+absent.rules': there is no file absent.rules"),
        (["daemonset:name"], "'daemonset:name': daemonset:NAMESPACE/NAME is needed"),
        (["daemonset:a/b/c"], "'daemonset:a/b/c': daemonset:NAMESPACE/NAME is needed"),
        (["service:"], "'service:': service:UNIT is needed"),
        (["service:two words"], "'service:two words': service:UNIT is needed"),
        (["command:"], "'command:': a program is needed, such as command:opensnoop"),
        (["x=command:''"], "'command:': a program is needed, such as command:opensnoop"),
        (["command:it's"], "'command:it's': No closing quotation"),
        (["calibration:exit-0"], "'calibration:exit-0' is no calibration: write "),
        (
            ["command:snoop -x", "command:/opt/snoop"],
            (
                "two arms would be called 'command:snoop': give one a name, such as "
                "mine=command:/opt/snoop"
            ),
        ),
        (
            ["falco", "falco=tetragon"],
            "two arms would be called 'falco': give one a name, such as mine=tetragon",
        ),
        (
            ["command:snoop", "command_snoop=command:snoop -x"],
            (
                "the files of 'command:snoop' and 'command_snoop' would have the same names: give "
                "one of them a name, such as mine=command_snoop"
            ),
        ),
        (["vanilla=falco"], "'vanilla=falco': vanilla is the baseline: give another name"),
    ],
)
def test_wrong_names(rootdir: Path, wanted: list[str], told: str) -> None:
    with pytest.raises(UnknownAgent) as caught:
        find(rootdir, *wanted, hooked={"mine": mine})
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_broken_description_is_told_once_it_is_asked_for(rootdir: Path) -> None:
    (rootdir / "agents").mkdir()
    (rootdir / "agents/broken.toml").write_text("[host\n")
    assert list(find(rootdir, "falco")) == ["falco"]
    for wanted in ("broken", "all"):
        with pytest.raises(description.DescriptionError, match=r"broken\.toml cannot be read"):
            find(rootdir, wanted)


# --- What is made --------------------------------------------------------------------------------


def test_users_agent_wins_over_one_of_ours(rootdir: Path) -> None:
    assert find(rootdir, "auditd", "falco", hooked={"auditd": mine, "falco": mine}) == {
        "auditd": mine,
        "falco": mine,
    }


def test_calibration(rootdir: Path) -> None:
    made = find(rootdir, "calibration:entry-200")["calibration:entry-200"](host(rootdir), rootdir)
    assert isinstance(made, Calibration)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("auditd", Path("policies/auditd/bench.rules")),
        ("auditd+none", None),
        ("auditd+my.rules", Path("start/my.rules")),
    ],
)
def test_rules_of_auditd(
    rootdir: Path, monkeypatch: pytest.MonkeyPatch, text: str, rules: Path | None
) -> None:
    given = []
    monkeypatch.setattr(
        catalogue, "Auditd", lambda _testbed, _rootdir, rules, _daemon: given.append(rules)
    )
    (rootdir / "start/my.rules").touch()
    find(rootdir, text)[text](host(rootdir), rootdir)
    [found] = given
    where = ROOT if text == "auditd" else rootdir
    assert found == (where / rules if rules else None)


def test_shipped_rules_of_auditd_are_there() -> None:
    assert (ROOT / auditd.BENCH_RULES).is_file()


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        (["start", "", "policies/tetragon"], "start"),
        (["", "policies/tetragon"], ""),
        (["policies/tetragon"], "policies/tetragon"),
    ],
)
def test_where_a_policys_file_is_looked_for(
    rootdir: Path, made: list[Recorded], places: list[str], chosen: str
) -> None:
    for place in places:
        (rootdir / place).mkdir(parents=True, exist_ok=True)
        (rootdir / place / "my.yaml").touch()
    agent = find(rootdir, "tetragon+my.yaml")["tetragon+my.yaml"](host(rootdir), rootdir)
    assert policy(agent) == str(rootdir / chosen / "my.yaml")


def test_policies_on_a_host_and_on_a_cluster(rootdir: Path, made: list[Recorded]) -> None:
    found = find(rootdir, "falco", "falco+none")
    for testbed, file in ((host(rootdir), "host.yaml"), (cluster(rootdir), "bench.yaml")):
        assert policy(found["falco"](testbed, rootdir)) == str(ROOT / "policies/falco" / file)
        assert policy(found["falco+none"](testbed, rootdir)) == "none of ours"
    # The user's own copy wins.
    (rootdir / "policies/falco").mkdir(parents=True)
    copy = rootdir / "policies/falco/host.yaml"
    copy.touch()
    assert policy(found["falco"](host(rootdir), rootdir)) == str(copy)


def test_policy_that_a_description_names_in_vain(rootdir: Path, made: list[Recorded]) -> None:
    (rootdir / "agents").mkdir()
    (rootdir / "agents/new.toml").write_text('[host]\ncommand = "x"\npolicy = "p/none.yaml"\n')
    with pytest.raises(AgentError, match=r"^new: its policy p/none\.yaml is not there$"):
        find(rootdir, "new")["new"](host(rootdir), rootdir)


def test_arms_of_one_agent_share_what_carries_it(rootdir: Path, made: list[Recorded]) -> None:
    found = find(rootdir, "falco", "falco+none", "third=falco", "tetragon")
    for factory in found.values():
        factory(host(rootdir), rootdir)
    assert [(type(each).__name__, *each.given) for each in made] == [
        ("CommandCarrier", "falco", "falco -c /etc/falco/falco.yaml -r {policy}"),
        ("CommandCarrier", "tetragon", "tetragon --tracing-policy {policy} --metrics-server :2112"),
    ]


def test_arm_that_is_called_like_an_agent_is_carried_by_itself(
    rootdir: Path, made: list[Recorded]
) -> None:
    for factory in find(rootdir, "falco=command:snoop", "falco+none").values():
        factory(host(rootdir), rootdir)
    assert [each.given[1] for each in made] == [
        "snoop",
        "falco -c /etc/falco/falco.yaml -r {policy}",
    ]


def test_two_names_for_one_daemonset_share_it(rootdir: Path, made: list[Recorded]) -> None:
    for factory in find(rootdir, "a=daemonset:n/x", "b=daemonset:n/x").values():
        factory(cluster(rootdir), rootdir)
    assert len(made) == 1


def test_one_daemonset_is_not_two_agents(rootdir: Path, made: list[Recorded]) -> None:
    first, second = find(rootdir, "falco", "x=daemonset:falco/falco").values()
    first(cluster(rootdir), rootdir)
    with pytest.raises(AgentError) as caught:
        second(cluster(rootdir), rootdir)
    assert str(caught.value) == (
        "x: the DaemonSet falco/falco is that of another arm, too: leave one of them out"
    )


def test_sign_for_an_arm_that_is_not_there(rootdir: Path) -> None:
    settings = Settings(ready=(ReadySign("snop", "log", "^PID"),))
    with pytest.raises(UnknownAgent) as caught:
        find(rootdir, "snoop=command:snoop", settings=settings)
    assert str(caught.value) == (
        "no arm is called 'snop', which --syslat-ready names: the arms are vanilla, snoop"
    )


@pytest.mark.parametrize(
    ("text", "kind", "carried"),
    [
        ("service:unit.service", "ServiceCarrier", "unit.service"),
        ("command:'snoop -x \"a b\"'", "CommandCarrier", "snoop -x 'a b'"),
        ("command:snoop -x 'a b'", "CommandCarrier", "snoop -x 'a b'"),
    ],
)
def test_agents_without_a_description(
    rootdir: Path, made: list[Recorded], text: str, kind: str, carried: str
) -> None:
    [(label, factory)] = find(rootdir, text).items()
    agent = factory(host(rootdir), rootdir)
    [carrier] = made
    assert (type(carrier).__name__, *carrier.given) == (kind, label, carried)
    assert policy(agent) == "none of ours"


def test_daemonset_without_a_description(rootdir: Path, made: list[Recorded]) -> None:
    find(rootdir, "x=daemonset:ns/name")["x"](cluster(rootdir), rootdir)
    [carrier] = made
    _, name, on_kubernetes, chart = carrier.given
    assert (name, chart) == ("x", None)
    assert on_kubernetes == description.OnKubernetes(daemonset="ns/name")


@pytest.mark.parametrize(
    ("text", "on_cluster", "told"),
    [
        ("kloudknox", False, "kloudknox is not known to run here: add --syslat-testbed=kubernetes"),
        ("x=daemonset:n/d", False, "x is not known to run here: add --syslat-testbed=kubernetes"),
        ("x=service:u", True, "x is not known to run here: add --syslat-testbed=local"),
        (
            "command:snoop -x",
            True,
            "command:snoop is not known to run here: add --syslat-testbed=local",
        ),
    ],
)
def test_wrong_testbed(rootdir: Path, text: str, on_cluster: bool, told: str) -> None:
    [factory] = find(rootdir, text).values()
    with pytest.raises(AgentError) as caught:
        factory(cluster(rootdir) if on_cluster else host(rootdir), rootdir)
    assert str(caught.value) == told


# --- Options of agents ---------------------------------------------------------------------------


def test_chart_reaches_its_agent(rootdir: Path, made: list[Recorded]) -> None:
    settings = Settings(charts=(ChartPlace("falco", "/f.tgz"), ChartPlace("kloudknox", "/k")))
    arms = find(rootdir, "new=falco", "kloudknox", "tetragon", settings=settings)
    for factory in arms.values():
        factory(cluster(rootdir), rootdir)
    assert [(each.given[1], each.given[3]) for each in made] == [
        ("falco", "/f.tgz"),
        ("kloudknox", "/k"),
        ("tetragon", None),
    ]


def test_chart_for_nobody(rootdir: Path) -> None:
    found = Catalogue(rootdir, rootdir, {})
    found.check_charts(Settings(charts=(ChartPlace("falco", "/f.tgz"),)))
    with pytest.raises(UnknownAgent) as caught:
        found.check_charts(Settings(charts=(ChartPlace("falko", "/f.tgz"),)))
    assert str(caught.value) == "unknown agent 'falko': allowed is falco, kloudknox, tetragon"


def test_signs_of_readiness_reach_their_arm(
    rootdir: Path, made: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def agent(_testbed: Testbed, asked: description.Description, *_: object, **more: Any) -> None:
        given[more["arm"]] = asked.ready

    monkeypatch.setattr(catalogue, "DescribedAgent", agent)
    signs = (
        ReadySign("snoop", "port", "81"),
        ReadySign(None, "log", "started"),
        ReadySign(None, "port", "80"),
        ReadySign("snoop", "log", "attached"),
        ReadySign("command:other", "file", "/run/other"),
    )
    arms = find(
        rootdir,
        "snoop=command:opensnoop",
        "command:other",
        "tetragon",
        settings=Settings(ready=signs),
    )
    for factory in arms.values():
        factory(host(rootdir), rootdir)
    # An arm's own signs win; what a description says stays.
    assert given["snoop"] == description.Ready(log=("started", "attached"), port=81)
    assert given["command:other"] == description.Ready(log=("started",), port=80, file="/run/other")
    assert given["tetragon"].log == ("Listening for events",)


def test_names_for_messages(rootdir: Path) -> None:
    assert Catalogue(rootdir, rootdir, {"mine": mine}).names == sorted([*NAMES, "mine"])
