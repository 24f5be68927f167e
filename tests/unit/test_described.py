"""Switching a described agent on and off, each proven: on a node whose programs are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_syslat.agents import described
from pytest_syslat.agents.described import DescribedAgent, Level, Policy
from pytest_syslat.agents.description import (
    Description,
    OnHost,
    OnKubernetes,
    PolicyActive,
    Ready,
    Seen,
)
from pytest_syslat.agents.evidence import Evidence
from pytest_syslat.agents.protocol import AgentError
from pytest_syslat.testbeds.protocol import TestbedError

from .support import SERVICE, FakeCarrier, Node

AGENT, STRANGER, CHILD = 500, 600, 501
ASK = ("ask",)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READY", "POLICY", "CANARY", "UNLOAD", "LEFTOVER", "NOTICE"):
        monkeypatch.setattr(described, f"{name}_LIMIT_S", 0.05)
    monkeypatch.setattr(described, "SETTLE_S", 0.0)
    monkeypatch.setattr(described, "POLL_S", 0.001)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """With an agent's process, a stranger's, and two programs of the stranger."""
    node = Node(tmp_path)
    node.processes = {
        AGENT: (1, SERVICE),
        STRANGER: (1, "/system.slice/other.service"),
        1: (0, "/init.scope"),
    }
    node.load(1, STRANGER)
    node.load(2)
    return node


@pytest.fixture
def carrier(node: Node) -> FakeCarrier:
    """Its programs come and go with it, and run once a call."""
    carrier = FakeCarrier()
    numbers = iter(range(10, 1000))
    loaded: list[int] = []

    def start() -> None:
        loaded.append(next(numbers))
        node.load(loaded[-1], AGENT)

    def stop() -> None:
        while loaded:
            node.unload(loaded.pop())

    carrier.on_start, carrier.on_stop = start, stop

    def run(rounds: int) -> None:
        for number in loaded:
            node.ran(number, rounds)

    node.on_calls = run
    return carrier


Make = Callable[..., DescribedAgent]


@pytest.fixture
def make(node: Node, carrier: FakeCarrier) -> Make:
    def made(
        description: Description | None = None,
        arm: str = "mine",
        policy: Policy | None = None,
        carried_by: FakeCarrier = carrier,
    ) -> DescribedAgent:
        return DescribedAgent(
            node.as_testbed(),
            description or Description("mine", host=OnHost(command="mine")),
            carried_by,
            arm=arm,
            policy=policy or Policy(Level.NONE),
        )

    return made


@pytest.fixture
def bench(tmp_path: Path) -> Policy:
    file = tmp_path / "bench.yaml"
    file.write_text("kind: P\nmetadata: {name: the-policy}\n---\nkind: Q\n")
    return Policy(Level.BENCH, file)


def switched_on(carrier: FakeCarrier) -> str | None:
    return carrier.user


# --- On ------------------------------------------------------------------------------------------


def test_on_and_off(make: Make, carrier: FakeCarrier, node: Node) -> None:
    mine = make()
    mine.prepare()
    assert mine.idle() is None
    mine.activate()
    assert switched_on(carrier) == "mine"
    assert mine.ready() is None
    assert mine.facts()["BPF programs"] == [
        {
            "id": 10,
            "kind": "tracepoint",
            "name": "p10",
            "attached to": [],
            "runs during canary calls": 20,
        }
    ]
    assert mine.facts()["carried by"] == "a test"
    assert mine.facts()["policy"] == "none of ours"
    mine.deactivate()
    assert switched_on(carrier) is None
    assert mine.idle() is None
    mine.remove()
    assert carrier.events == ["prepare", "start None", "apply None", "withdraw", "stop", "remove"]
    assert node.statistics == "0", "the kernel is left as it was"


def test_file_for_a_command_that_takes_none_is_refused(
    make: Make, carrier: FakeCarrier, bench: Policy
) -> None:
    """It would be measured under the name of a policy that nobody reads."""
    with pytest.raises(AgentError) as caught:
        make(arm="mine+my.yaml", policy=Policy(Level.OWN, bench.file)).prepare()
    assert str(caught.value) == (
        "mine+my.yaml: on a host the command of mine takes no policy: put {policy} into it, or "
        "leave the file out"
    )
    assert carrier.events == []


def doubts(mine: DescribedAgent) -> list[str]:
    mine.activate()
    found: list[str] = mine.facts()["doubts"]
    # Every agent of these tests is one without a count of what it drops.
    assert found.pop(0).startswith("it tells no count of dropped events")
    return [each.partition(":")[0] for each in found]


def test_programs_that_run_leave_no_doubt_without_a_policy(make: Make) -> None:
    assert doubts(make()) == []


def test_policy_that_no_counter_speaks_for_is_doubted(make: Make, bench: Policy) -> None:
    assert doubts(make(policy=bench)) == [
        "its programs run for the workload's calls, and no counter of its own could be asked"
    ]


def test_agent_that_nothing_speaks_for_is_doubted(make: Make, carrier: FakeCarrier) -> None:
    carrier.on_start = lambda: None
    assert doubts(make()) == ["it has no BPF program and no counter that could be asked"]


def test_policy_is_given_and_named_by_its_object(
    make: Make, carrier: FakeCarrier, bench: Policy
) -> None:
    carrier.printed = "the-policy from bench.yaml is active"
    active = PolicyActive(log=("{name} from {file} is active",))
    mine = make(Description("mine", policy_active=active), policy=bench)
    mine.activate()
    assert carrier.events == ["start bench.yaml", "apply bench.yaml"]
    assert mine.facts()["policy"] == str(bench.file)
    carrier.printed = ""
    assert mine.ready() is None, "a log may have been rotated away"


def test_the_log_must_name_the_policy_s_object_and_file(
    make: Make, carrier: FakeCarrier, bench: Policy
) -> None:
    carrier.printed = "another-policy from bench.yaml is active"
    active = PolicyActive(log=("{name} from {file} is active",))
    mine = make(Description("mine", policy_active=active), policy=bench)
    assert refused(mine) == (
        "mine: not within 0.05 s: its log lacks 'the\\\\-policy from bench\\\\.yaml is active'"
    )


def refused(mine: DescribedAgent) -> str:
    with pytest.raises(AgentError) as caught:
        mine.activate()
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_it_is_never_ready(make: Make, carrier: FakeCarrier) -> None:
    mine = make(Description("mine", ready=Ready(log=("I am ready",))))
    assert refused(mine) == "mine: not within 0.05 s: its log lacks 'I am ready'"
    assert "apply None" not in carrier.events
    assert carrier.user == "mine", "it must be switched off"


def test_it_does_not_even_run(make: Make, carrier: FakeCarrier) -> None:
    carrier.trouble = "its pod is not ready"
    assert refused(make()) == "mine: not within 0.05 s: its pod is not ready"


def test_its_policy_does_not_become_active(make: Make, carrier: FakeCarrier, bench: Policy) -> None:
    carrier.status = "Invalid: kind"
    mine = make(Description("mine", policy_active=PolicyActive(status="Active")), policy=bench)
    assert (
        refused(mine) == "mine: not within 0.05 s: the status of policy the-policy is Invalid: kind"
    )


class Metric:
    """One that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.value: float | None = 5.0
        monkeypatch.setattr(Evidence, "metric", lambda *_: self.told())

    def told(self) -> float:
        if self.value is None:
            raise TestbedError("its metrics cannot be read: nobody answers")
        return self.value


RISING = Description("mine", ready=Ready(rising="n_total"))


def test_metric_that_does_not_rise(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    Metric(monkeypatch)
    assert refused(make(RISING)) == "mine: not within 0.05 s: n_total does not rise, it is 5"


def test_metric_that_rises(make: Make, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Metric(monkeypatch)
    runs = node.on_calls

    def rise(rounds: int) -> None:
        runs(rounds)
        metric.value = 5.0 + rounds

    node.on_calls = rise
    mine = make(RISING)
    mine.activate()
    assert mine.ready() is None


def test_metric_that_is_not_served(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    Metric(monkeypatch).value = None
    assert (
        refused(make(RISING))
        == "mine: not within 0.05 s: its metrics cannot be read: nobody answers"
    )


def test_none_of_its_programs_runs(make: Make, node: Node) -> None:
    node.on_calls = lambda rounds: node.ran(1, rounds)
    told = refused(make())
    assert told.endswith("none of its BPF programs ran when calls were made for it to see")
    assert node.statistics == "0"


def test_program_that_runs_now_and_then_proves_nothing(make: Make, node: Node) -> None:
    made: list[int] = []

    def once(rounds: int) -> None:
        made.append(rounds)
        if len(made) == 1:
            node.ran(10, rounds - 1)

    node.on_calls = once
    assert "none of its BPF programs ran" in refused(make())


def test_it_has_not_seen_our_calls(make: Make, carrier: FakeCarrier, bench: Policy) -> None:
    """Though its programs run."""
    carrier.answers[ASK] = lambda: "7"
    mine = make(Description("mine", seen=Seen(command=ASK, count="([0-9]+)")), policy=bench)
    assert "it has not seen calls that were made for it to see: ask" in refused(mine)


def test_it_has_seen_our_calls(make: Make, carrier: FakeCarrier, node: Node, bench: Policy) -> None:
    count = [7]
    carrier.answers[ASK] = lambda: str(count[0])
    runs = node.on_calls

    def see(rounds: int) -> None:
        runs(rounds)
        count[0] += rounds

    node.on_calls = see
    mine = make(Description("mine", seen=Seen(command=ASK, count="([0-9]+)")), policy=bench)
    mine.activate()
    assert mine.facts()["seen by itself"] is True


@pytest.mark.parametrize("level", [Level.NONE, Level.OWN])
def test_only_our_own_policy_must_see_our_calls(
    make: Make, carrier: FakeCarrier, bench: Policy, level: Level
) -> None:
    carrier.answers[ASK] = lambda: "7"
    policy = Policy(level, bench.file if level is Level.OWN else None)
    mine = make(Description("mine", seen=Seen(command=ASK, count="([0-9]+)")), policy=policy)
    mine.activate()
    assert mine.facts()["seen by itself"] is False


def test_calls_that_cannot_be_made(make: Make, node: Node) -> None:
    node.canary_works = False
    assert refused(make()) == "mine: the canary calls could not be made: it went wrong"


def test_agent_without_programs_is_on_once_it_is_ready(make: Make, carrier: FakeCarrier) -> None:
    carrier.on_start = carrier.on_stop = lambda: None
    mine = make()
    mine.activate()
    assert mine.facts()["BPF programs"] == []
    mine.deactivate()


def test_without_bpftool_nothing_is_said_about_programs(make: Make, node: Node) -> None:
    node.bpftool = False
    mine = make()
    mine.activate()
    assert mine.ready() is None
    mine.deactivate()
    assert mine.idle() is None


def test_rules_of_somebody_elses_installation_are_not_ours_to_prove(
    make: Make, carrier: FakeCarrier, node: Node, bench: Policy
) -> None:
    node.cluster = SimpleNamespace()
    carrier.is_foreign = True
    carrier.answers[ASK] = lambda: "7"
    mine = make(
        Description(
            "mine",
            kubernetes=OnKubernetes("n/mine", policy_config_map="n/rules"),
            policy_active=PolicyActive(log=("{file} is active",)),
            seen=Seen(command=ASK, count="([0-9]+)"),
        ),
        policy=bench,
    )
    mine.activate()
    assert mine.ready() is None
    assert mine.facts()["policy"] == "that of whoever installed it"
    assert mine.facts()["seen by itself"] is False


def test_rules_on_a_host_are_ours_whoever_has_installed_the_agent(
    make: Make, carrier: FakeCarrier, bench: Policy
) -> None:
    """The ConfigMap that the same description names is one of clusters."""
    carrier.is_foreign = True
    mine = make(
        Description(
            "mine",
            kubernetes=OnKubernetes("n/mine", policy_config_map="n/rules"),
            host=OnHost(command="mine {policy}"),
        ),
        policy=bench,
    )
    mine.prepare()
    mine.activate()
    assert mine.facts()["policy"] == str(bench.file)


# --- Whose programs ------------------------------------------------------------------------------


def own_programs(mine: DescribedAgent) -> list[int]:
    return [each["id"] for each in mine.facts()["BPF programs"]]


def test_programs_of_strangers_are_not_taken_for_its_own(
    make: Make, carrier: FakeCarrier, node: Node
) -> None:
    start = carrier.on_start
    node.processes[CHILD] = (AGENT, "/elsewhere")
    node.processes[700] = (STRANGER, "/elsewhere")
    carrier.roots = (AGENT,)

    def more() -> None:
        start()
        node.load(20, STRANGER)
        node.load(21, 700)
        node.load(22, kind="cgroup_device")
        node.load(23)
        node.load(24, CHILD)
        node.load(25, AGENT, kind="cgroup_skb")
        node.load(26, 999)
        node.holders[27] = [STRANGER, AGENT]
        node.programs[27] = {"id": 27, "type": "lsm", "name": "shared"}

    carrier.on_start = more
    mine = make()
    mine.activate()
    # What nobody holds is pinned: it came with the agent; but what container runtimes make isn't.
    assert own_programs(mine) == [10, 23, 24, 25, 27]


def test_program_that_vanishes(make: Make, node: Node) -> None:
    mine = make()
    mine.activate()
    node.unload(1)
    assert mine.ready() is None
    node.unload(10)
    assert mine.ready() == "1 of its 1 BPF programs are not loaded any more"
    node.bpftool = False
    assert mine.ready() == "mine: bpftool cannot list BPF programs any more"


def test_program_that_comes_later(make: Make, node: Node) -> None:
    """Before it came, the agent was on by half."""
    mine = make()
    mine.activate()
    node.load(11, AGENT)
    assert mine.ready() == "it has loaded 1 more BPF programs since it was ready"
    assert mine.ready() is None, "the trial that is repeated has it from the start"
    node.unload(11)
    mine.deactivate()


def test_programs_from_before_the_run_must_go_when_it_is_stopped(
    make: Make, carrier: FakeCarrier, node: Node
) -> None:
    carrier.is_foreign = True
    node.load(5, AGENT)
    with pytest.raises(AgentError, match="1 of its BPF programs are still loaded, such as p5"):
        make().prepare()
    carrier.on_prepared = lambda: node.unload(5)
    node.unload(5)
    node.load(5, AGENT)
    make().prepare()


def test_trouble_later(make: Make, carrier: FakeCarrier) -> None:
    mine = make()
    mine.activate()
    carrier.trouble = "its pod was made anew meanwhile"
    assert mine.ready() == "its pod was made anew meanwhile"


# --- Off -----------------------------------------------------------------------------------------


def test_program_that_stays_loaded(make: Make, carrier: FakeCarrier, node: Node) -> None:
    carrier.on_stop = lambda: None
    mine = make()
    mine.activate()
    told = "1 of its BPF programs are still loaded, such as p10 at an unknown place"
    with pytest.raises(AgentError, match=rf"^mine: not within 0\.05 s: {told}$"):
        mine.deactivate()
    assert mine.idle() == told
    with pytest.raises(AgentError, match=told):
        mine.remove()
    node.unload(10)
    assert mine.idle() is None
    mine.deactivate()
    assert carrier.user is None


def test_processes_that_stay(make: Make, carrier: FakeCarrier) -> None:
    mine = make()
    mine.activate()
    carrier.on_stop = lambda: setattr(carrier, "running", True)
    with pytest.raises(AgentError, match="its pod is still there"):
        mine.deactivate()
    assert mine.idle() == "its pod is still there"


def test_bpftool_that_fails_proves_nothing(make: Make, node: Node) -> None:
    mine = make()
    mine.activate()
    node.bpftool = False
    with pytest.raises(AgentError, match="bpftool cannot tell whether"):
        mine.deactivate()


def test_programs_of_an_activation_that_failed_must_go_too(
    make: Make, carrier: FakeCarrier, node: Node
) -> None:
    carrier.on_stop = lambda: None
    mine = make(Description("mine", ready=Ready(log=("I am ready",))))
    refused(mine)
    with pytest.raises(AgentError, match="1 of its BPF programs are still loaded"):
        mine.deactivate()
    node.unload(10)
    mine.deactivate()


def test_carrier_that_cannot_tell_is_not_idle(
    make: Make, carrier: FakeCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (AgentError("systemctl is gone"), TestbedError("no answer")):

        def fail(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(carrier, "remains", fail)
        assert make().idle() == str(error)


# --- Two arms of one agent -----------------------------------------------------------------------


def test_two_arms_share_a_carrier(make: Make, carrier: FakeCarrier, bench: Policy) -> None:
    with_policy, without = make(arm="mine", policy=bench), make(arm="mine+none")
    with_policy.activate()
    assert without.idle() is None, "it is the other arm's"
    assert with_policy.ready() is None
    with_policy.deactivate()
    without.activate()
    assert with_policy.idle() is None
    assert carrier.user == "mine+none"
    without.deactivate()
    assert with_policy.idle() is without.idle() is None


def test_removing_both_arms_while_one_is_on(make: Make, carrier: FakeCarrier) -> None:
    one, other = make(arm="one"), make(arm="other")
    one.activate()
    other.remove()
    assert carrier.events[-3:] == ["withdraw", "stop", "remove"]
    one.remove()
    assert carrier.events.count("stop") == 1
    assert carrier.user is None


# --- Removing ------------------------------------------------------------------------------------


def test_removing_what_was_never_prepared(make: Make, carrier: FakeCarrier) -> None:
    make().remove()
    assert carrier.events == ["remove"]


def test_removing_after_an_activation_that_failed(make: Make, carrier: FakeCarrier) -> None:
    mine = make(Description("mine", ready=Ready(log=("I am ready",))))
    refused(mine)
    mine.remove()
    assert carrier.events[-3:] == ["withdraw", "stop", "remove"]
    assert carrier.user is None


def test_removing_goes_on_where_stopping_fails(
    make: Make, carrier: FakeCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = make()
    mine.activate()

    def stuck() -> None:
        raise AgentError("it does not stop")

    monkeypatch.setattr(carrier, "stop", stuck)
    with pytest.raises(AgentError, match="it does not stop"):
        mine.remove()
    assert carrier.events[-1] == "remove"


def test_what_somebody_else_has_installed_runs_again(
    make: Make, carrier: FakeCarrier, node: Node
) -> None:
    """Given back, it is there, with programs of its own: that is no failure."""

    def give_back() -> None:
        carrier.running = True
        node.load(90, AGENT)

    carrier.on_remove = give_back
    one, other = make(arm="one"), make(arm="other")
    one.activate()
    other.remove()
    one.remove()
    assert carrier.running
    assert carrier.events.count("stop") == 1
