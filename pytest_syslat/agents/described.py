"""An agent that a description tells of, on whatever carries it: switched, and each switch proven.

It is off when its processes are gone and none of the BPF programs that came with it is loaded any
more. It is on when it is ready in its own terms, its policy is active, and it has seen calls that
we made for it to see.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_syslat.agents.canary import ROUNDS, make_calls
from pytest_syslat.agents.carrier import Carrier
from pytest_syslat.agents.description import Description
from pytest_syslat.agents.evidence import Evidence
from pytest_syslat.agents.protocol import AgentError, KernelTime, Processes
from pytest_syslat.agents.waiting import wait_while
from pytest_syslat.bpf_programs import RUNTIME_KINDS, BpfProgram, list_programs
from pytest_syslat.bpf_statistics import BpfStatistics
from pytest_syslat.ownership import members
from pytest_syslat.testbeds.protocol import NodeLost, Testbed, TestbedError

READY_LIMIT_S = 120.0
POLICY_LIMIT_S = 60.0
CANARY_LIMIT_S = 60.0
UNLOAD_LIMIT_S = 30.0
LEFTOVER_LIMIT_S = 60.0
NOTICE_LIMIT_S = 5.0
SETTLE_S = 1.0
"""Programs that are loaded one after the other come within so long of each other."""
POLL_S = 0.2


class Level(enum.Enum):
    """Which policy an arm gives its agent."""

    BENCH = "bench"
    """The one that is shipped for comparing agents."""
    NONE = "none"
    """No policy of ours."""
    OWN = "own"
    """A file of the user's."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A level, with its file."""

    level: Level
    file: Path | None = None


class DescribedAgent:
    """One arm: an agent with one of its policies."""

    def __init__(
        self,
        testbed: Testbed,
        description: Description,
        carrier: Carrier,
        *,
        arm: str,
        policy: Policy,
    ) -> None:
        """Nothing is asked yet.

        Args:
            testbed: Where it runs.
            description: What is known of it.
            carrier: What its processes run in; arms of one agent share it.
            arm: The arm's name.
            policy: What this arm gives it.
        """
        self._testbed = testbed
        self._description = description
        self._carrier = carrier
        self._evidence = Evidence(testbed, carrier, description)
        self._arm = arm
        self._policy = policy
        self._statistics = BpfStatistics(testbed)
        self._foreign: set[int] | None = None
        """Programs that were loaded while it was off; None where that cannot be told."""
        self._programs: tuple[BpfProgram, ...] = ()
        self._seen: dict[int, int] = {}
        self._version: str | None = None
        self._tells_drops = False

    def prepare(self) -> None:
        """Install it unless it is there, and switch it off."""
        host = self._description.host if self._testbed.cluster is None else None
        if host and "{policy}" in host.command and self._policy.file is None:
            raise AgentError(
                f"{self._arm}: on a host {self._description.name} is started with a policy: "
                f"measure it as --agent={self._description.name}, or with a file of your own"
            )
        takes_policy = host is None or host.service or "{policy}" in host.command
        if self._policy.level is Level.OWN and not takes_policy:
            raise AgentError(
                f"{self._arm}: on a host the command of {self._description.name} takes no policy: "
                "put {policy} into it, or leave the file out"
            )
        self._foreign = self._loaded()
        self._carrier.prepare(self._look_at_first)
        self._await(self._still_loaded, UNLOAD_LIMIT_S)
        self._programs = ()
        self._let_others_end()
        if self._uses_a_strangers_policy and self._policy.level is not Level.BENCH:
            raise AgentError(
                f"{self._arm}: {self._description.name} was installed by somebody else, with rules "
                f"of its own: measure it as --agent={self._description.name}"
            )

    def _look_at_first(self) -> None:
        """Keep the programs that it has before it is stopped: they must go, too.

        Of one that was there before us, those count that its processes hold.
        """
        if self._foreign is None:
            return
        was_there = self._carrier.is_foreign
        foreign = set() if was_there else self._foreign
        self._programs = self._own_programs(foreign, unheld=not was_there)

    # --- On --------------------------------------------------------------------------------------

    def activate(self) -> None:
        """Switch it on with its policy, and prove that it works."""
        carrier, file = self._carrier, self._policy.file
        self._foreign = self._loaded()
        # Set first: an activation that fails halfway is undone by whoever began it.
        carrier.user = self._arm
        try:
            carrier.start(file)
            rising = self._description.ready.rising
            before = self._value_once_there(rising) if rising else 0.0
            self._await(self._not_ready, READY_LIMIT_S)
            if rising:
                self._await(lambda: self._not_rising(rising, before), READY_LIMIT_S)
            carrier.apply(file)
            self._await(self._policy_problem, POLICY_LIMIT_S)
            self._settle()
            self._prove_it_sees()
            self._version = self._evidence.version()
            self._tells_drops = self._evidence.drops() is not None
        except NodeLost:
            raise
        except (AgentError, TestbedError) as error:
            self._keep_what_came()
            if isinstance(error, AgentError):
                raise
            raise AgentError(f"{self._arm}: {error}") from error

    def _keep_what_came(self) -> None:
        """What a failed activation has loaded must be gone, too, before it counts as off."""
        if self._foreign is not None and not self._programs:
            with contextlib.suppress(AgentError, TestbedError):
                self._programs = self._own_programs(self._foreign)

    def _not_ready(self) -> str | None:
        return self._carrier.problem() or self._evidence.not_ready()

    def _value_once_there(self, selector: str) -> float:
        values: list[float] = []

        def absent() -> str | None:
            problem = self._carrier.problem()
            if problem:
                return problem
            try:
                values.append(self._evidence.metric(selector))
            except NodeLost:
                raise
            except TestbedError as error:
                return str(error)
            return None

        self._await(absent, READY_LIMIT_S)
        return values[-1]

    def _not_rising(self, selector: str, before: float) -> str | None:
        make_calls(self._testbed)
        value = self._evidence.metric(selector)
        return None if value > before else f"{selector} does not rise, it is {value:g}"

    def _policy_problem(self) -> str | None:
        if not self._has_own_policy:
            return None
        assert self._policy.file is not None
        return self._evidence.policy_not_active(self._policy.file, self._policy_name)

    @property
    def _has_own_policy(self) -> bool:
        return self._policy.file is not None and not self._uses_a_strangers_policy

    @property
    def _policy_name(self) -> str:
        """Of the policy's object, or its file where it is none."""
        file = self._policy.file
        if file is None:
            return ""
        try:
            bodies = [body for body in yaml.safe_load_all(file.read_text()) if body]
            return str(bodies[0]["metadata"]["name"])
        except (OSError, yaml.YAMLError, IndexError, KeyError, TypeError):
            return file.name

    def _settle(self) -> None:
        """Wait until no more programs come, and keep those that have come with the agent."""
        if self._foreign is None:
            return
        deadline = time.monotonic() + READY_LIMIT_S
        before: set[int] | None = None
        while before != (now := self._loaded()):
            if time.monotonic() > deadline:
                raise AgentError(f"{self._arm}: it goes on loading BPF programs")
            before = now
            time.sleep(SETTLE_S)
        self._programs = self._own_programs(self._foreign)

    def _own_programs(self, foreign: set[int], *, unheld: bool = True) -> tuple[BpfProgram, ...]:
        """Programs that its processes hold, and those that came with it and nobody holds.

        Args:
            foreign: Those that were loaded before it, which are not its own.
            unheld: Whether those that no process holds count; pinned ones are like that.
        """
        new = [each for each in self._listed() if each.id not in foreign]
        pids = {pid for each in new for pid, _ in each.holders}
        ours = members(self._testbed, self._carrier.processes(), pids)
        return tuple(
            each
            for each in new
            if any(pid in ours for pid, _ in each.holders)
            or (unheld and not each.holders and not each.kind.startswith(RUNTIME_KINDS))
        )

    def _listed(self) -> list[BpfProgram]:
        """All programs of the node; raises AgentError where they can't be listed any more."""
        listed = list_programs(self._testbed)
        if listed is None:
            raise AgentError(f"{self._arm}: bpftool cannot list BPF programs any more")
        return listed

    def _prove_it_sees(self) -> None:
        """Make calls that it must see: by its own counters, and by the runs of its programs."""
        counters = self._evidence.seen(self._policy_name) if self._asks_itself else {}
        if not counters and not self._programs:
            # Nothing that could be asked: that is told with the facts.
            return
        with self._statistics:
            runs = self._runs()

            def unseen() -> str | None:
                make_calls(self._testbed)
                now = self._evidence.seen(self._policy_name) if counters else {}
                idle = [name for name, value in counters.items() if now[name] <= value]
                if idle:
                    return f"it has not seen calls that were made for it to see: {idle[0]}"
                if not self._programs:
                    return None
                after = self._runs()
                self._seen = {number: after[number] - runs.get(number, 0) for number in after}
                if not any(count >= ROUNDS for count in self._seen.values()):
                    return "none of its BPF programs ran when calls were made for it to see"
                return None

            self._await(unseen, CANARY_LIMIT_S)

    @property
    def _uses_a_strangers_policy(self) -> bool:
        """Whether the rules are those of somebody else's installation; on a host they never are."""
        cluster = self._description.kubernetes if self._testbed.cluster is not None else None
        return bool(cluster and cluster.policy_config_map and self._carrier.is_foreign)

    def _runs(self) -> dict[int, int]:
        ours = {each.id for each in self._programs}
        return {each.id: each.runs or 0 for each in self._listed() if each.id in ours}

    def ready(self) -> str | None:
        """Whether it still runs as it was switched on, with its policy and its programs.

        Its log is not read again: what it said when it was switched on may have been rotated away.
        """
        try:
            problem = self._carrier.problem()
            if problem is None and self._has_own_policy:
                assert self._policy.file is not None
                problem = self._evidence.policy_not_in_force(self._policy.file, self._policy_name)
            if problem or self._foreign is None:
                return problem
            now = self._own_programs(self._foreign)
        except NodeLost:
            raise
        except AgentError as error:
            return str(error)
        except TestbedError as error:
            return self._ended() or str(error)
        known, self._programs = self._programs, now
        gone = {each.id for each in known} - {each.id for each in now}
        if gone:
            return f"{len(gone)} of its {len(known)} BPF programs are not loaded any more"
        if len(now) > len(known):
            # From here on they belong to what it is: the repeated trial has them from the start.
            return f"it has loaded {len(now) - len(known)} more BPF programs since it was ready"
        return None

    def _ended(self) -> str | None:
        """Whether it has ended, when it does not answer: what carries it tells that a bit later."""
        deadline = time.monotonic() + NOTICE_LIMIT_S
        while (problem := self._carrier.problem()) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return problem

    # --- Off -------------------------------------------------------------------------------------

    def deactivate(self) -> None:
        """Take its policy away, switch it off, and wait until nothing of it is left."""
        try:
            self._carrier.withdraw()
            self._carrier.stop()
            self._await(self._remains, UNLOAD_LIMIT_S)
            self._let_others_end()
        except NodeLost:
            raise
        except TestbedError as error:
            raise AgentError(f"{self._arm}: {error}") from error
        self._carrier.user = None
        self._programs = ()

    def idle(self) -> str | None:
        """Whether it is off; always so while another arm has the same agent switched on."""
        if self._carrier.user not in (None, self._arm):
            return None
        try:
            return self._remains()
        except NodeLost:
            raise
        except (AgentError, TestbedError) as error:
            return str(error)

    def _remains(self) -> str | None:
        return self._carrier.remains() or self._still_loaded()

    def _still_loaded(self) -> str | None:
        if not self._programs:
            return None
        loaded = self._loaded()
        if loaded is None:
            return "bpftool cannot tell whether its BPF programs are unloaded"
        left = [each for each in self._programs if each.id in loaded]
        if not left:
            return None
        named = f"{left[0].name} at {', '.join(left[0].attached_to) or 'an unknown place'}"
        return f"{len(left)} of its BPF programs are still loaded, such as {named}"

    def _let_others_end(self) -> None:
        """Give programs that came while it was on, held by others, the time to go.

        An agent may leave them behind, and then they would count as vanilla's. It cannot be told
        from a stranger's tool, so what stays is only told of: trials find it (`other-tracers`).
        """
        if self._foreign is None:
            return
        deadline = time.monotonic() + LEFTOVER_LIMIT_S
        while self._newcomers() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _newcomers(self) -> bool:
        foreign = self._foreign or set()
        return any(
            each.id not in foreign and not each.kind.startswith(RUNTIME_KINDS)
            for each in list_programs(self._testbed) or ()
        )

    def _loaded(self) -> set[int] | None:
        loaded = list_programs(self._testbed)
        return None if loaded is None else {each.id for each in loaded}

    # --- What it tells ---------------------------------------------------------------------------

    def drops(self) -> int | None:
        """By its own counters; raises AgentError if it doesn't tell."""
        try:
            return self._evidence.drops()
        except NodeLost:
            raise
        except TestbedError as error:
            raise AgentError(f"{self._arm}: {error}") from error

    def processes(self) -> Processes:
        """Those that carry it."""
        return self._carrier.processes()

    def kernel_time(self) -> KernelTime | None:
        """The kernel is not asked to keep statistics while calls are timed."""
        return None

    def facts(self) -> dict[str, Any]:
        """Image or command, version, policy, BPF programs, and what the canary calls showed."""
        return {
            **self._carrier.facts(),
            "version": self._version or "not told",
            "policy": self._policy_words(),
            "BPF programs": "unknown: bpftool cannot tell"
            if self._foreign is None
            else [
                {
                    "id": each.id,
                    "kind": each.kind,
                    "name": each.name,
                    "attached to": list(each.attached_to),
                    "runs during canary calls": self._seen.get(each.id, 0),
                }
                for each in self._programs
            ],
            "seen by itself": self._asks_itself,
            "doubts": self._doubts(),
            "unproven": self._is_unproven,
        }

    @property
    def _asks_itself(self) -> bool:
        """Whether counters of its own have shown that it sees the workload, by our rules."""
        seen = self._description.seen
        ours = self._policy.level is Level.BENCH and not self._uses_a_strangers_policy
        return ours and bool(seen.metrics or seen.command)

    @property
    def _is_unproven(self) -> bool:
        """Whether nothing at all shows that it works: it might not have begun yet."""
        ready = self._description.ready
        signs = ready.log or ready.command or ready.rising or ready.port or ready.file
        return not (self._programs or self._asks_itself or signs)

    def _doubts(self) -> list[str]:
        """What could not be proven, a sentence each."""
        doubts = []
        if not self._tells_drops:
            doubts.append("it tells no count of dropped events: one that drops them looks fast")
        if self._foreign is None:
            doubts.append(
                "bpftool cannot list BPF programs: that none of its own is left when it is off is "
                "not proven"
            )
        elif not self._programs and not self._asks_itself:
            doubts.append(
                "it has no BPF program and no counter that could be asked: that it sees the "
                "workload's calls is not proven"
            )
        elif self._has_own_policy and not self._asks_itself:
            doubts.append(
                "its programs run for the workload's calls, and no counter of its own could be "
                "asked: that its policy matches them is not proven"
            )
        return doubts

    def _policy_words(self) -> str:
        if self._uses_a_strangers_policy:
            return "that of whoever installed it"
        return str(self._policy.file) if self._policy.file else "none of ours"

    def remove(self) -> None:
        """Switch it off and undo its installation; the first of its arms does it for all."""
        carrier = self._carrier
        try:
            if carrier.user is not None:
                carrier.withdraw()
                carrier.stop()
                carrier.user = None
        finally:
            carrier.remove()
        # What somebody else has installed runs again by now, with programs of other numbers.
        self._await(self._still_loaded, UNLOAD_LIMIT_S)

    def version(self) -> str:
        """It tells that once it is on: then it stands in the facts."""
        return self._version or "told once it is on"

    def _await(self, reason: Callable[[], str | None], limit_s: float) -> None:
        why = wait_while(reason, limit_s, POLL_S)
        if why is not None:
            raise AgentError(f"{self._arm}: not within {limit_s:g} s: {why}")
