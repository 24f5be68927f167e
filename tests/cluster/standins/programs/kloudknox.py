"""Stands in for KloudKnox v0.1.0: the agent and its operator."""

from __future__ import annotations

import time

from .agent import Ending, log
from .api import Api, ApiError, Object, pods
from .load import Load
from .trouble import Trouble

POLICIES = "/apis/security.boanlab.com/v1"
BASE_PASSES = 20
POLICY_PASSES = 60
TARGETS = ("selector", "ipBlock", "fqdn")


def _say(message: str, level: str = "INFO") -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    # The level is coloured, as the real one's.
    log(f"{stamp}.{int(now % 1 * 1e6):06d}\t\x1b[34m{level}\x1b[0m\t{message}")


class Matches:
    """Which policies apply to which pods, told as soon as it changes."""

    def __init__(self) -> None:
        self._api = Api()
        self._policies: dict[str, str] = {}
        self._pods: set[tuple[str, str]] = set()
        self._load: Load | None = None
        self._refused = False

    def follow(self) -> None:
        """Look at policies and pods once more."""
        try:
            policies = self._api.items(f"{POLICIES}/kloudknoxpolicies")
            matching = [(each, self._matching(each)) for each in policies]
        except (OSError, ApiError) as error:
            if not self._refused:
                _say(f"Failed to list policies: {error}", "WARN")
            self._refused = True
            return
        self._refused = False
        if any(matched for _, matched in matching) and self._load is None:
            self._load = Load(POLICY_PASSES, of_workload_only=True)
        # Told when it is done, and it is done when the kernel has it.
        if self._load and not self._load.attached:
            return
        for policy, matched in matching:
            self._tell(policy, matched)
        self._policies = {_uid(each): each["metadata"]["resourceVersion"] for each in policies}
        self._pods = {(_uid(policy), _uid(pod)) for policy, matched in matching for pod in matched}
        if not self._pods:
            self.end()

    def _matching(self, policy: Object) -> list[Object]:
        # What is invalid is not taken.
        if _invalid(policy["spec"]):
            return []
        labels = policy["spec"].get("selector") or {}
        return pods(self._api, policy["metadata"]["namespace"], labels)

    def _tell(self, policy: Object, matched: list[Object]) -> None:
        name, namespace = policy["metadata"]["name"], policy["metadata"]["namespace"]
        changed = self._policies.get(_uid(policy)) != policy["metadata"]["resourceVersion"]
        if changed:
            _say(f"Updated a KloudKnoxPolicy ({namespace}/{name})")
        for pod in matched:
            place = f"{namespace}/{pod['metadata']['name']}"
            if changed:
                _say(f"Updated a KloudKnoxPolicy ({name}) to pod {place}")
            elif (_uid(policy), _uid(pod)) not in self._pods:
                _say(f"Applied 1 security policy to pod {place}")

    def end(self) -> None:
        """Take the policies' program out of the kernel."""
        if self._load:
            self._load.end()
            self._load = None


def _uid(thing: Object) -> str:
    return str(thing["metadata"]["uid"])


def agent() -> None:
    """Run until it is told to end."""
    trouble = Trouble()
    ending = Ending(trouble)
    base = None if trouble.never_ready else Load(BASE_PASSES)
    if base:
        base.wait_attached()
        _say("Started System Monitor")
        _say("Started BPF-LSM Enforcer")
        _say("Started NetworkEnforcer")
        _say("Started gRPC Exporter on port 36890")
        _say("Started to watch Kubernetes events")
    matches = Matches()
    told = 0
    while not ending.passed():
        if base and not trouble.never_works:
            matches.follow()
        lost = trouble.drops()
        if lost - told >= 1 and base:
            _say(f"BPF-LSM alert channel full: dropped {lost - told} alerts", "WARN")
            told = lost
            ending.passed(1)
    matches.end()
    if base:
        base.end()
    _say("Stopped System Monitor")


def _invalid(spec: Object) -> str | None:
    """Why a policy is invalid, for the reasons that tests need."""
    for index, rule in enumerate(spec.get("network") or []):
        count = sum(target in rule for target in TARGETS)
        if count == 0:
            return f"network[{index}]: must specify one of selector, ipBlock, or fqdn"
        if count > 1:
            return (
                f"network[{index}]: must specify exactly one of selector, ipBlock, or fqdn "
                f"(got {count})"
            )
    if spec.get("applyToAll"):
        return "applyToAll is not supported in kubernetes mode; use a namespace selector instead"
    return None


def operator() -> None:
    """Write each policy's status."""
    ending = Ending(Trouble())
    api = Api()
    while not ending.passed():
        try:
            for policy in api.items(f"{POLICIES}/kloudknoxpolicies"):
                reason = _invalid(policy["spec"])
                status = f"Invalid: {reason}" if reason else "Active"
                if (policy.get("status") or {}).get("status") != status:
                    _write_status(api, policy, status)
        except (OSError, ApiError) as error:
            _say(f"Failed to update policy status: {error}", "ERROR")


def _write_status(api: Api, policy: Object, status: str) -> None:
    metadata = policy["metadata"]
    api.request(
        "PATCH",
        f"{POLICIES}/namespaces/{metadata['namespace']}/kloudknoxpolicies/{metadata['name']}/status",
        {"status": {"status": status}},
        "application/merge-patch+json",
    )
