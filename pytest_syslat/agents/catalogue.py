"""All agents that can be named with `--agent`, and what makes an arm of a name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytest_syslat.agents.auditd import BENCH_RULES, Auditd, AuditDaemon
from pytest_syslat.agents.calibration import NAME as CALIBRATION
from pytest_syslat.agents.calibration import Calibration, parse_calibration
from pytest_syslat.agents.carrier import Carrier
from pytest_syslat.agents.command import CommandCarrier
from pytest_syslat.agents.daemonset import DaemonSetCarrier
from pytest_syslat.agents.described import DescribedAgent, Level, Policy
from pytest_syslat.agents.description import (
    NAMESPACED,
    Description,
    OnHost,
    OnKubernetes,
    Ready,
    described_agents,
    read_description,
)
from pytest_syslat.agents.protocol import Agent, AgentError, AgentFactory
from pytest_syslat.agents.service import ServiceCarrier
from pytest_syslat.agents.vanilla import Vanilla
from pytest_syslat.resources import resource
from pytest_syslat.results import file_name
from pytest_syslat.settings import VANILLA, Settings
from pytest_syslat.testbeds.protocol import Testbed
from pytest_syslat.tools import find_tool

ALL = "all"
AUDITD = "auditd"
VANILLA_AGAIN = "vanilla2"
"""A second vanilla arm: what differs from the first is noise."""
LABEL = re.compile(r"([A-Za-z0-9._-]+)=(.+)", re.DOTALL)
KINDS = ("daemonset", "service", "command")
FORMS = "daemonset:NAMESPACE/NAME, service:UNIT, command:PROGRAM"


class UnknownAgent(Exception):
    """A name stands for no agent; the text is one line for the user."""


class Catalogue:
    """Finds agents by name. Arms of one agent share what carries it, so one is made a session."""

    def __init__(self, rootdir: Path, directory: Path, hooked: Mapping[str, AgentFactory]) -> None:
        """Look which agents there are.

        Args:
            rootdir: pytest's rootdir, whose `agents/*.toml` count.
            directory: Where pytest was started: files in names are looked for there first.
            hooked: Those that hooks have added.
        """
        self._rootdir = rootdir
        self._directory = directory
        self._hooked = dict(hooked)
        self._specs: dict[str, str] = {}
        """What each arm of the last `arms` stands for, by its name."""
        self._described = described_agents(rootdir)
        self._audit_daemon: AuditDaemon | None = None
        self._carriers: dict[tuple[OnKubernetes | None, OnHost | None], Carrier] = {}

    @property
    def names(self) -> list[str]:
        """The names of all agents that have one."""
        return sorted({AUDITD, CALIBRATION, VANILLA_AGAIN, *self._described, *self._hooked})

    def check_charts(self, settings: Settings) -> None:
        """Raise UnknownAgent if a chart is for an agent that isn't described."""
        for chart in settings.charts:
            if chart.agent not in self._described:
                raise UnknownAgent(
                    f"unknown agent {chart.agent!r}: allowed is "
                    f"{', '.join(sorted(self._described))}"
                )

    def arms(
        self, wanted: Sequence[str], settings: Settings, place: str
    ) -> dict[str, AgentFactory]:
        """What makes each wanted arm, by the arm's name.

        Args:
            wanted: As given with `--agent`.
            settings: For charts and signs of readiness.
            place: `local` or `kubernetes`: what `all` means depends on it.

        Raises:
            UnknownAgent: A name stands for none.
        """
        found: dict[str, tuple[str, AgentFactory]] = {}
        for text in wanted:
            for each in self._all(place) if text == ALL else [text]:
                if each == VANILLA:
                    continue
                label, spec = self._split(each)
                if label == VANILLA:
                    raise UnknownAgent(f"{each!r}: {VANILLA} is the baseline: give another name")
                if label in found and found[label][0] != spec:
                    raise UnknownAgent(
                        f"two arms would be called {label!r}: give one a name, such as mine={spec}"
                    )
                found[label] = (spec, self._factory(label, spec, settings))
        _check_labels(found, settings)
        self._specs = {label: spec for label, (spec, _) in found.items()}
        return {label: factory for label, (_, factory) in found.items()}

    def policies(self, place: str) -> dict[str, Path]:
        """The files of the policies of those arms of the last `arms` that have one."""
        found = {label: self._policy_file(spec, place) for label, spec in self._specs.items()}
        return {label: file for label, file in found.items() if file is not None}

    def _policy_file(self, spec: str, place: str) -> Path | None:
        name, plus, level = spec.partition("+")
        if spec in self._hooked or not (name == AUDITD or name in self._described):
            return None
        if plus:
            return self._chosen(spec, name, level).file
        if name == AUDITD:
            return self._shipped(str(BENCH_RULES)).file
        description = read_description(self._described[name])
        carried = description.kubernetes if place == "kubernetes" else description.host
        try:
            return self._shipped(carried.policy).file if carried else None
        except FileNotFoundError:
            # Told when the arm is made.
            return None

    def _all(self, place: str) -> list[str]:
        """The named agents that can be measured there."""
        if place == "kubernetes":
            on_cluster = [
                name for name, path in self._described.items() if read_description(path).kubernetes
            ]
            return sorted({*on_cluster, *self._hooked} - {AUDITD})
        on_host = []
        for name, path in self._described.items():
            host = read_description(path).host
            if host and (host.service or find_tool(shlex.split(host.command)[0])):
                on_host.append(name)
        return sorted({AUDITD, *on_host, *self._hooked})

    def _split(self, text: str) -> tuple[str, str]:
        """Name of the arm, and what it stands for."""
        named = LABEL.fullmatch(text)
        if named:
            return named[1], named[2]
        kind, colon, rest = text.partition(":")
        if colon and kind == "command":
            words = _words(rest)
            return f"command:{Path(words[0]).name}", text
        base, plus, level = text.partition("+")
        if plus and not colon:
            return f"{base}+{Path(level).name}", text
        return text, text

    def _factory(self, label: str, spec: str, settings: Settings) -> AgentFactory:
        if spec in self._hooked:
            return self._hooked[spec]
        if spec == VANILLA_AGAIN:
            return Vanilla
        kind, colon, rest = spec.partition(":")
        if (colon and kind == CALIBRATION) or spec == CALIBRATION:
            try:
                place, work = parse_calibration(spec)
            except ValueError as error:
                raise UnknownAgent(str(error)) from None
            return partial(Calibration, place=place, work=work, syscalls=settings.syscalls)
        if colon and kind in KINDS:
            return self._unnamed(label, kind, rest, settings)
        name, plus, level = spec.partition("+")
        if name == AUDITD:
            chosen = self._chosen(spec, name, level) if plus else self._shipped(str(BENCH_RULES))
            return partial(self._auditd, chosen.file)
        if name not in self._described:
            raise UnknownAgent(
                f"unknown agent {spec!r}: allowed is {', '.join(self.names)}, {FORMS}, or {ALL}"
            )
        description = read_description(self._described[name])
        policy = self._chosen(spec, name, level) if plus else None
        return partial(self._described_agent, description, label, policy, settings)

    def _auditd(self, rules: Path | None, testbed: Testbed, rootdir: Path) -> Agent:
        self._audit_daemon = self._audit_daemon or AuditDaemon(testbed)
        return Auditd(testbed, rootdir, rules, self._audit_daemon)

    def _described_agent(
        self,
        description: Description,
        label: str,
        policy: Policy | None,
        settings: Settings,
        testbed: Testbed,
        rootdir: Path,
    ) -> Agent:
        place = description.kubernetes if testbed.cluster is not None else description.host
        if place is None:
            other = "local" if testbed.cluster is not None else "kubernetes"
            raise AgentError(f"{label} is not known to run here: add --syslat-testbed={other}")
        try:
            given = policy or self._shipped(place.policy)
        except FileNotFoundError:
            raise AgentError(f"{label}: its policy {place.policy} is not there") from None
        carrier = self._carrier(testbed, rootdir, description, settings)
        return DescribedAgent(testbed, description, carrier, arm=label, policy=given)

    def _shipped(self, relative: str) -> Policy:
        """The policy for comparing agents, if there is one."""
        if not relative:
            return Policy(Level.NONE)
        return Policy(Level.BENCH, resource(relative, self._rootdir))

    def _chosen(self, spec: str, name: str, level: str) -> Policy:
        """Which policy stands after the '+'; raises UnknownAgent."""
        if level == "none":
            return Policy(Level.NONE)
        if level:
            for directory in (self._directory, self._rootdir, self._rootdir / "policies" / name):
                if (directory / level).is_file():
                    return Policy(Level.OWN, directory / level)
            raise UnknownAgent(
                f"{spec!r}: there is no file {level}: after '+' stands 'none' or a policy's file"
            )
        raise UnknownAgent(f"{spec!r}: after '+' stands 'none' or a policy's file")

    def _unnamed(self, label: str, kind: str, rest: str, settings: Settings) -> AgentFactory:
        """An agent of which nothing is known but what carries it."""
        if kind == "daemonset":
            if not NAMESPACED.fullmatch(rest):
                raise UnknownAgent(f"'{kind}:{rest}': daemonset:NAMESPACE/NAME is needed")
            description = Description(label, kubernetes=OnKubernetes(daemonset=rest))
        elif kind == "service":
            if not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", rest):
                raise UnknownAgent(f"'{kind}:{rest}': service:UNIT is needed")
            description = Description(label, host=OnHost(service=rest))
        else:
            description = Description(label, host=OnHost(command=shlex.join(_words(rest))))
        # An arm's own signs come last: they win.
        signs = [sign for sign in settings.ready if sign.arm is None]
        signs += [sign for sign in settings.ready if sign.arm == label]
        latest = {sign.kind: sign.value for sign in signs}
        description = replace(
            description,
            ready=Ready(
                log=tuple(sign.value for sign in signs if sign.kind == "log"),
                port=int(latest.get("port", 0)),
                file=latest.get("file", ""),
            ),
        )
        policy = Policy(Level.NONE)
        return partial(self._described_agent, description, label, policy, settings)

    def _carrier(
        self, testbed: Testbed, rootdir: Path, description: Description, settings: Settings
    ) -> Carrier:
        # By what is carried and not by name: any arm may be called like an agent.
        cluster = description.kubernetes
        carried = (cluster, description.host)
        if carried not in self._carriers:
            for other, _ in self._carriers:
                if other and cluster and other.daemonset == cluster.daemonset:
                    raise AgentError(
                        f"{description.name}: the DaemonSet {other.daemonset} is that of another "
                        "arm, too: leave one of them out"
                    )
            self._carriers[carried] = _new_carrier(testbed, rootdir, description, settings)
        return self._carriers[carried]


def _check_labels(labels: Iterable[str], settings: Settings) -> None:
    """Raise UnknownAgent where names of arms would be mistaken for each other."""
    by_file: dict[str, str] = {}
    for label in (VANILLA, *labels):
        other = by_file.setdefault(file_name(label), label)
        if other != label:
            raise UnknownAgent(
                f"the files of {other!r} and {label!r} would have the same names: give one of them "
                f"a name, such as mine={label}"
            )
    for sign in settings.ready:
        if sign.arm is not None and sign.arm not in by_file.values():
            named = ", ".join(by_file.values())
            raise UnknownAgent(
                f"no arm is called {sign.arm!r}, which --syslat-ready names: the arms are {named}"
            )


def _new_carrier(
    testbed: Testbed, rootdir: Path, description: Description, settings: Settings
) -> Carrier:
    if testbed.cluster is not None:
        assert description.kubernetes is not None
        charts = {chart.agent: str(chart.place) for chart in settings.charts}
        return DaemonSetCarrier(
            testbed,
            rootdir,
            description.name,
            description.kubernetes,
            charts.get(description.name),
        )
    assert description.host is not None
    if description.host.service:
        return ServiceCarrier(testbed, description.name, description.host.service)
    return CommandCarrier(testbed, description.name, description.host.command)


def _words(command: str) -> list[str]:
    """The words of a command, which may stand in quotes as a whole."""
    try:
        words = shlex.split(command)
        if len(words) == 1:
            words = shlex.split(words[0])
    except ValueError as error:
        raise UnknownAgent(f"'command:{command}': {error}") from None
    if not words:
        raise UnknownAgent("'command:': a program is needed, such as command:opensnoop")
    return words
