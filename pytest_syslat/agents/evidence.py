"""What an agent tells about itself: its log, its metrics, its own tools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pytest_syslat.agents.carrier import Carrier
from pytest_syslat.agents.description import Description, filled
from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError

ASK_LIMIT_S = 15.0
FETCH = """
import sys, urllib.request
# A proxy is for other networks.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with opener.open(sys.argv[1], timeout=10) as answer:
    sys.stdout.write(answer.read().decode())
"""
DIAL = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
"""


class Evidence:
    """Asks one agent."""

    def __init__(self, testbed: Testbed, carrier: Carrier, description: Description) -> None:
        self._testbed = testbed
        self._carrier = carrier
        self._description = description

    def not_ready(self) -> str | None:
        """Which sign of readiness is missing; one that grows is asked for by `rising`."""
        ready = self._description.ready
        if ready.log:
            missing = _missing(ready.log, self._carrier.log())
            if missing:
                return f"its log lacks {missing!r}"
        if ready.command:
            done = self._carrier.execute(ready.command)
            if not done.ok:
                return f"'{' '.join(ready.command)}' says: {done.complaint}"
        if ready.file and self._testbed.state(Path(ready.file), role=Role.NODE) is None:
            return f"{ready.file} is not there"
        if ready.port:
            argv = [self._testbed.python, "-I", "-S", "-c", DIAL]
            address = [self._carrier.address(), str(ready.port)]
            dialled = self._testbed.run([*argv, *address], role=Role.NODE, timeout_s=ASK_LIMIT_S)
            if not dialled.ok:
                return f"nothing answers on port {ready.port}"
        return None

    def policy_not_active(self, policy: Path, name: str) -> str | None:
        """Which sign that the policy is active is missing.

        Args:
            policy: Its file.
            name: Of its object, or of the file where it is none.
        """
        reason = self.policy_not_in_force(policy, name)
        if reason:
            return reason
        wanted = self._description.policy_active
        if wanted.log:
            patterns = [
                filled(each, name=re.escape(name), file=re.escape(policy.name))
                for each in wanted.log
            ]
            missing = _missing(patterns, self._carrier.log())
            if missing:
                return f"its log lacks {missing!r}"
        return None

    def policy_not_in_force(self, policy: Path, name: str) -> str | None:
        """The same by what can be asked at any time: the object's status, and the agent's tool."""
        wanted = self._description.policy_active
        if wanted.status:
            status = self._carrier.policy_status()
            if status != wanted.status:
                return f"the status of policy {name} is {status or 'not told'}"
        if wanted.command:
            shown = self._carrier.execute(wanted.command)
            pattern = filled(wanted.shows, name=re.escape(name), file=re.escape(policy.name))
            if not re.search(pattern, shown.stdout):
                return f"'{' '.join(wanted.command)}' does not show policy {name} as active"
        return None

    def metric(self, selector: str) -> float:
        """The sum of a metric's values; 0 while it has none. Raises TestbedError."""
        return metric_sum(self._metrics(), selector)

    def seen(self, name: str) -> dict[str, float]:
        """The counters that grow when the agent sees a call of the workload, by what they are."""
        seen = self._description.seen
        counters: dict[str, float] = {}
        if seen.metrics:
            text = self._metrics()
            counters |= {each: metric_sum(text, each) for each in seen.metrics}
        if seen.command:
            shown = self._carrier.execute(seen.command).stdout
            pattern = filled(seen.count, name=re.escape(name), file="")
            counters[" ".join(seen.command)] = sum(map(float, re.findall(pattern, shown)))
        return counters

    def drops(self) -> int | None:
        """Events lost since it was started; None if it has no counter."""
        drops = self._description.drops
        if drops.metrics:
            text = self._metrics()
            found = [sample.value for each in drops.metrics for sample in _matching(text, each)]
            # Some are served from the first drop on only; where none is, nothing is known.
            return int(sum(found)) if found else None
        if drops.log:
            return sum(int(each) for each in re.findall(drops.log, self._carrier.log()))
        return None

    def version(self) -> str | None:
        """What its program prints; None if it isn't known how to ask."""
        command = self._description.version.command
        if not command:
            return None
        done = self._carrier.execute(command)
        lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
        return lines[0] if done.ok and lines else None

    def _metrics(self) -> str:
        metrics = self._description.metrics
        assert metrics is not None
        url = f"http://{self._carrier.address()}:{metrics.port}{metrics.path}"
        fetched = self._testbed.run(
            [self._testbed.python, "-I", "-S", "-c", FETCH, url],
            role=Role.NODE,
            timeout_s=ASK_LIMIT_S,
        )
        if not fetched.ok:
            raise TestbedError(f"{url} cannot be read: {fetched.complaint}")
        return fetched.stdout


def metric_sum(text: str, selector: str) -> float:
    """Add up the samples of a metric that carry certain labels.

    Args:
        text: Metrics in Prometheus' text format.
        selector: Such as `matches_total{rule_name="Bench openat"}`.
    """
    return sum(sample.value for sample in _matching(text, selector))


def _matching(text: str, selector: str) -> list[Sample]:
    [wanted] = _samples(f"{selector} 0\n")
    return [
        sample
        for sample in _samples(text)
        if sample.name == wanted.name and wanted.labels.items() <= sample.labels.items()
    ]


def _samples(text: str) -> list[Sample]:
    # Of what is declared a counter the library changes the name: it appends `_total`.
    plain = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    try:
        families = list(text_string_to_metric_families(plain))
    except ValueError as error:
        raise TestbedError(f"its metrics cannot be read: {error}") from None
    return [sample for family in families for sample in family.samples]


def _missing(patterns: Sequence[str], text: str) -> str | None:
    return next((each for each in patterns if not re.search(each, text)), None)
