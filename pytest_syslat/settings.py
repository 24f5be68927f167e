"""All options, read once: command line > ini > environment > default.

`OPTIONS` is the one table from which the command line, the ini keys and the validation are made.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from pytest_syslat.budget import ANY, Budget, parse_budget
from pytest_syslat.syscall_catalogue import find_syscalls
from pytest_syslat.syscalls import SYSCALLS, Syscall, names_of

VANILLA = "vanilla"
ONLY_READ: pytest.StashKey[bool] = pytest.StashKey()
"""In the stash of a configuration of which somebody reads the settings, and nothing more."""
LOOKS = (8, 16, 32)
"""After so many blocks `--syslat-until` looks at the verdicts, and never in between."""
INTERLEAVED = "interleaved"
TRIALS_DEFAULT = 5
TRIALS_WHEN_JUDGED = 8
"""With fewer blocks a family of cells cannot be decided at 5 %."""


@dataclass(frozen=True, slots=True)
class ChartPlace:
    """Where the user has an agent's chart or manifests."""

    agent: str
    place: str
    """A path, or a URL."""

    def __str__(self) -> str:
        return f"{self.agent}={self.place}"


@dataclass(frozen=True, slots=True)
class ReadySign:
    """By what a command, a service or a DaemonSet that is not described shows that it is ready."""

    arm: str | None
    """None: whichever."""
    kind: str
    """`log`, `port` or `file`."""
    value: str

    def __str__(self) -> str:
        return f"{self.arm + '=' if self.arm else ''}{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for, validated. Units are in the names."""

    agents: tuple[str, ...] = ()
    syscalls: tuple[Syscall, ...] = tuple(SYSCALLS.values())
    """What is measured in each arm, in the order of the catalogue."""
    charts: tuple[ChartPlace, ...] = ()
    ready: tuple[ReadySign, ...] = ()
    trials: int = TRIALS_DEFAULT
    until: str | None = None
    """`decided`: stop at the first look at which all verdicts stand; `trials` are the most then."""
    warmup_s: float = 30.0
    lmbench_reps: int = 10
    openat_mult: int = 10
    rate: int | None = None
    """Operations a second; None: lmbench's loop, as fast as it goes."""
    pin_core: int = 2
    testbed: str = "auto"
    kube_context: str | None = None
    node: str | None = None
    image: str | None = None
    drop_caches: bool = False
    tracer: str = "distribution"
    placement: str = "last"
    """`last`, `first` or `both`."""
    attribute: bool = False
    budgets: tuple[Budget, ...] = ()
    min_calls: int = 1000
    baseline: Path | None = None
    """Of a stored vanilla; None: vanilla is measured in the same blocks."""
    against: Path | None = None
    """Of an earlier run since which the overhead may have grown."""
    growth_budgets: tuple[Budget, ...] = ()
    force: bool = False
    result_dir: Path = Path("result/5.5")
    lmbench_dir: Path | None = None
    seed: int = 0
    strict: bool = False
    keep: bool = False
    clean: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that are measured: vanilla, unless a stored one takes its place, and agents."""
        return self.agents if self.baseline is not None else (VANILLA, *self.agents)

    @property
    def syscall_names(self) -> tuple[str, ...]:
        """The names of all syscalls that are measured."""
        return names_of(self.syscalls)

    def syscall(self, name: str) -> Syscall:
        """The syscall of that name; one that is measured."""
        return next(each for each in self.syscalls if each.name == name)

    def runs(self, syscall: str) -> int:
        """Traced runs in a trial of `syscall`, before more are added for `min_calls`."""
        # At a given rate all syscalls have as many calls in a run.
        multiplied = syscall == "openat" and self.rate is None
        return self.lmbench_reps * (self.openat_mult if multiplied else 1)

    def as_dict(self) -> dict[str, object]:
        """All settings as plain values, for sysinfo and run.json."""
        plain: dict[str, object] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, tuple):
                plain[each.name] = [str(item) for item in value]
            else:
                plain[each.name] = str(value) if isinstance(value, Path) else value
        return plain


@dataclass(frozen=True, slots=True)
class Option:
    """One option in all its forms."""

    name: str
    """Of the ini key `syslat_<name>` and, with dashes, of `--syslat-<name>`."""
    setting: str
    """The field of Settings that it fills."""
    parse: Callable[[str], Any]
    """Turns one text into a value; raises ValueError that says what is allowed."""
    metavar: str | None
    help: str
    """What it does, in one sentence or two."""
    default: str | None = None
    """What holds without it, in words; None: it is off."""
    example: str | None = None
    """A value as it is typed in a shell; None: it takes none."""
    environment: str | None = None
    repeatable: bool = False
    is_flag: bool = False

    @property
    def flag(self) -> str:
        """The long form on the command line."""
        return "--syslat-" + self.name.replace("_", "-")

    @property
    def ini(self) -> str:
        """The ini key."""
        return f"syslat_{self.name}"

    @property
    def help_on_command_line(self) -> str:
        """For `pytest --help`; argparse wants percent signs twice."""
        repeated = " May be given several times." if self.repeatable else ""
        default = f" Default: {self.default}." if self.default else ""
        example = f" Example: {self.flag}={self.example}" if self.example else ""
        return f"{self.help}{repeated}{default}{example}".replace("%", "%%")

    @property
    def help_in_ini(self) -> str:
        """The same for the ini key."""
        if self.is_flag:
            return f"{self.help} Allowed: true or false. Default: false. As {self.flag}."
        each = " One value a line." if self.repeatable else ""
        value = (self.example or "").strip("'")
        return (
            f"{self.help}{each} Default: {self.default}. Example: {self.ini} = {value}. "
            f"As {self.flag}."
        )

    @property
    def dest(self) -> str:
        """The attribute of pytest's option namespace."""
        return f"syslat_{self.name}"


def _whole(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise ValueError(f"a whole number of at least {minimum} is needed")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("a number of seconds, 0 or more, is needed")
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"allowed is {' or '.join(allowed)}")
        return text

    return parse


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("allowed is true or false")
    return words[text.lower()]


def _budget(text: str, syscalls: Collection[str] | None = None) -> Budget:
    try:
        return parse_budget(text, syscalls)
    except ValueError as error:
        # The message repeats the text, which ours names already.
        raise ValueError(str(error).removeprefix(f"budget {text!r}: ")) from None


def _chart(text: str) -> ChartPlace:
    agent, equals, place = text.partition("=")
    if not (agent and equals and place):
        raise ValueError("NAME=PATH is needed, such as falco=./falco-9.1.0.tgz")
    return ChartPlace(agent, place)


def _found_chart(chart: ChartPlace, base: Path) -> ChartPlace:
    """With an absolute path, since programs that read it may run elsewhere."""
    if "://" in chart.place:
        return chart
    if not (base / chart.place).exists():
        raise ValueError(f"there is no {base / chart.place}")
    return ChartPlace(chart.agent, str(base / chart.place))


SIGN = re.compile(r"(?:([A-Za-z0-9._:/+-]+)=)?(log|port|file):(.+)", re.DOTALL)


def _ready_sign(text: str) -> ReadySign:
    found = SIGN.fullmatch(text)
    if found is None:
        raise ValueError("[ARM=]log:REGEX, [ARM=]port:NUMBER or [ARM=]file:PATH is needed")
    arm, kind, value = found.groups()
    if kind == "port" and not (value.isdigit() and 0 < int(value) < 65536):
        raise ValueError("a port is a number from 1 to 65535")
    if kind == "log":
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return ReadySign(arm, kind, value)


def _listed_looks() -> str:
    *first, last = LOOKS
    return f"{', '.join(map(str, first))} and {last}"


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("a name is needed")
    return text.strip()


def _path(text: str) -> Path:
    return Path(_name(text))


def _baseline(text: str) -> Path | None:
    return None if text == INTERLEAVED else _path(text)


def _found_run(place: Path) -> Path:
    if not place.is_dir():
        raise ValueError(f"there is no directory {place}: give the result directory of a run")
    return place


OPTIONS: tuple[Option, ...] = (
    Option(
        "agent",
        "agents",
        _name,
        "NAME",
        "Measure this agent beside vanilla: a name such as falco, falco+none or "
        "falco+FILE for another policy, daemonset:NAMESPACE/NAME, service:UNIT, "
        "'command:PROGRAM ARGUMENTS', each with LABEL= before it if wanted; or all.",
        default="vanilla alone",
        example="auditd",
        repeatable=True,
    ),
    Option(
        "syscall",
        "syscalls",
        _name,
        "NAME",
        "Measure this syscall: execve, openat, connect, close, clone, or one that a file "
        "syscalls/NAME.toml or a conftest adds.",
        default="execve, openat and connect",
        example="close",
        repeatable=True,
    ),
    Option(
        "chart",
        "charts",
        _chart,
        "NAME=PLACE",
        "Take an agent's Helm chart or manifests from this path or URL.",
        default="the version that agents/NAME.toml pins",
        example="falco=./falco-9.1.0.tgz",
        repeatable=True,
    ),
    Option(
        "ready",
        "ready",
        _ready_sign,
        "[ARM=]SIGN",
        "How a command, service or DaemonSet shows that it is ready: log:REGEX, "
        "port:NUMBER or file:PATH.",
        default="it runs and loads no more BPF programs",
        example="guard=port:9100",
        repeatable=True,
    ),
    Option(
        "trials",
        "trials",
        _whole(1),
        "N",
        "Measure each syscall so often in each arm.",
        default=f"{TRIALS_DEFAULT}; {TRIALS_WHEN_JUDGED} if budgets are judged",
        example="12",
        environment="TRIALS",
    ),
    Option(
        "until",
        "until",
        _one_of("decided"),
        "decided",
        f"Measure until all verdicts stand. They are looked at after {_listed_looks()} trials.",
        default="as many trials as --syslat-trials says",
        example="decided",
    ),
    Option(
        "warmup_sec",
        "warmup_s",
        _seconds,
        "SECONDS",
        "Load an arm for so many seconds before its first trial, and for a tenth of it "
        "after each later switch.",
        default="30",
        example="5",
        environment="WARMUP_SEC",
    ),
    Option(
        "lmbench_reps",
        "lmbench_reps",
        _whole(1),
        "N",
        "Run lmbench so often in a trial without the tracer, and so often with it.",
        default="10",
        example="20",
        environment="LMBENCH_REPS",
    ),
    Option(
        "openat_mult",
        "openat_mult",
        _whole(1),
        "N",
        "Run lmbench so many times as often with the tracer for openat.",
        default="10",
        example="1",
        environment="OPENAT_MULT",
    ),
    Option(
        "rate",
        "rate",
        _whole(1),
        "N",
        "Offer so many operations a second, by a program of our own instead of lmbench.",
        default="lmbench's loop, as fast as it goes",
        example="500",
    ),
    Option(
        "pin_core",
        "pin_core",
        _whole(0),
        "N",
        "Measure on this core, or on the last one if there is no such core.",
        default="2",
        example="3",
        environment="PIN_CORE",
    ),
    Option(
        "testbed",
        "testbed",
        _one_of("auto", "local", "kubernetes"),
        "auto|local|kubernetes",
        "Where to measure. auto takes a cluster if a kubeconfig names a current context, "
        "else this host.",
        default="auto",
        example="local",
    ),
    Option(
        "kube_context",
        "kube_context",
        _name,
        "CONTEXT",
        "Measure on the cluster of this context of the kubeconfig.",
        default="the current context",
        example="lab",
    ),
    Option(
        "node",
        "node",
        _name,
        "NODE",
        "Measure on this node of the cluster.",
        default="the only one that is schedulable",
        example="worker-1",
    ),
    Option(
        "image",
        "image",
        _name,
        "IMAGE",
        "Run the pods from this image, by tag or digest. Tools that it lacks are "
        "installed from Debian.",
        default="pytest-syslat/bench:1, made from images/Dockerfile",
        example="debian:trixie-slim",
    ),
    Option(
        "drop_caches",
        "drop_caches",
        _truth,
        None,
        "Drop the page cache of the cluster's node before each trial. Its other pods feel"
        " that; on a host it is always done.",
        is_flag=True,
    ),
    Option(
        "tracer",
        "tracer",
        _one_of("distribution", "events"),
        "distribution|events",
        "Count latencies exactly in the kernel (distribution), or print one line a call (events).",
        default="distribution",
        example="events",
    ),
    Option(
        "placement",
        "placement",
        _one_of("last", "first", "both"),
        "last|first|both",
        "Attach the tracer after the agent (last), before it (first), or both, which "
        "tells what is spent at entry, inside the call and at exit.",
        default="last",
        example="both",
    ),
    Option(
        "attribute",
        "attribute",
        _truth,
        None,
        "Tell how long each BPF program takes per call, and whose it is. That is a pass "
        "of its own.",
        is_flag=True,
    ),
    Option(
        "budget",
        "budgets",
        _budget,
        "BUDGET",
        "Judge an overhead: how much more than vanilla a figure may take. Figures are "
        "p50, p90, p99, mean and user.",
        default="nothing is judged",
        example="'connect:p50<=+10%'",
        repeatable=True,
    ),
    Option(
        "min_calls",
        "min_calls",
        _whole(1),
        "N",
        "Add runs to a trial until it has so many calls.",
        default="1000",
        example="10000",
    ),
    Option(
        "baseline",
        "baseline",
        _baseline,
        "interleaved|DIR",
        "Compare agents with vanilla in the same blocks (interleaved), or with that of an"
        " earlier run's result directory, which is weaker.",
        default="interleaved",
        example="result/vanilla",
    ),
    Option(
        "against",
        "against",
        _path,
        "DIR",
        "Judge how far an overhead has grown since the run in this result directory.",
        default="growth is not judged",
        example="result/v1",
    ),
    Option(
        "growth_budget",
        "growth_budgets",
        _budget,
        "BUDGET",
        "How far an overhead may have grown since the run of --syslat-against.",
        default="none; --syslat-against needs one",
        example="'*:user<=+5%'",
        repeatable=True,
    ),
    Option(
        "force",
        "force",
        _truth,
        None,
        "Compare with a stored run even if it was made under other conditions. Then "
        "nothing passes and nothing regresses.",
        is_flag=True,
    ),
    Option(
        "result_dir",
        "result_dir",
        _path,
        "DIR",
        "Write the result files to this directory.",
        default="result/5.5",
        example="result/new",
    ),
    Option(
        "lmbench_dir",
        "lmbench_dir",
        _path,
        "DIR",
        "Take lmbench's programs from this directory.",
        default="searched on PATH and where Debian has them",
        example="/opt/lmbench/bin",
    ),
    Option(
        "seed",
        "seed",
        _whole(0),
        "N",
        "Draw the order of arms from this seed, to repeat an order.",
        default="random, printed at the start",
        example="7",
    ),
    Option(
        "strict",
        "strict",
        _truth,
        None,
        "Let an inconclusive verdict fail, too.",
        is_flag=True,
    ),
    Option(
        "keep",
        "keep",
        _truth,
        None,
        "Leave the pods in place at the end, and say how to look at them and how to remove them.",
        is_flag=True,
    ),
    Option(
        "clean",
        "clean",
        _truth,
        None,
        "Measure nothing: remove what earlier runs left, and say what.",
        is_flag=True,
    ),
)

_STORED_RUNS = {"baseline", "against"}
"""Options that name a directory which must be there."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was given for an option, and where: for messages."""

    texts: tuple[str, ...] = field(default=())
    source: str = ""


def read_settings(
    config: pytest.Config,
    find_arms: Callable[[Settings], Sequence[str]] | None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Read and validate all options.

    Args:
        config: pytest's configuration with the options of `OPTIONS`.
        find_arms: Gives the arms that `agents` stand for; None: names, of agents and of syscalls,
            are not looked up yet, since a conftest that adds one may not be loaded.
        environment: Where the original script's variables are looked up.

    Raises:
        pytest.UsageError: One line that names the option and what is allowed.
    """
    values: dict[str, Any] = {}
    known = None if find_arms is None else find_syscalls(config)
    for option in OPTIONS:
        given = _given(config, option, environment)
        if not given.texts:
            continue
        # As for pytest: typed paths are from where one stands, configured ones from rootdir.
        typed = given.source == option.flag
        base = config.invocation_params.dir if typed else config.rootpath
        parsed = [_parsed(option, text, given.source, base, known) for text in given.texts]
        values[option.setting] = tuple(parsed) if option.repeatable else parsed[-1]
    names = values.pop("syscalls", ())
    if known is not None and names:
        values["syscalls"] = tuple(each for each in known.values() if each.name in names)
    if find_arms is not None:
        _check_measured(config, Settings(**values))
        values["agents"] = tuple(find_arms(Settings(**values)))
    judged = values.get("budgets") or (values.get("against") and values.get("growth_budgets"))
    if "until" in values:
        if "trials" in values:
            raise pytest.UsageError(
                f"--syslat-until: {LOOKS[-1]} trials are the most that it measures: leave out "
                "--syslat-trials (and TRIALS)"
            )
        if values.get("baseline") or values.get("against"):
            raise pytest.UsageError(
                "--syslat-until: looks are for vanilla in the same blocks: leave it out with "
                "--syslat-baseline and --syslat-against"
            )
        if find_arms is not None and not (values.get("agents") and values.get("budgets")):
            raise pytest.UsageError(
                "--syslat-until: nothing is to be decided: add --agent and --syslat-budget"
            )
        values["trials"] = LOOKS[-1]
    elif "trials" not in values and values.get("agents") and judged:
        values["trials"] = TRIALS_WHEN_JUDGED
    values.setdefault("seed", random.SystemRandom().randrange(2**31))
    values.setdefault("result_dir", config.rootpath / Settings().result_dir)
    return Settings(**values)


def _given(config: pytest.Config, option: Option, environment: Mapping[str, str]) -> Given:
    on_command_line = config.getoption(option.dest, None)
    if on_command_line is not None:
        many = on_command_line if isinstance(on_command_line, list) else [on_command_line]
        return Given(tuple(str(text) for text in many), option.flag)
    in_ini = config.getini(option.ini)
    if in_ini:
        many = in_ini if isinstance(in_ini, list) else [in_ini]
        return Given(tuple(str(text) for text in many), f"ini option {option.ini}")
    if option.environment and environment.get(option.environment):
        return Given((environment[option.environment],), f"variable {option.environment}")
    return Given()


def _check_measured(config: pytest.Config, settings: Settings) -> None:
    """Refuse what asks for syscalls otherwise than they can be measured; raises UsageError."""
    if settings.rate is not None:
        for each in settings.syscalls:
            if not each.paced:
                raise pytest.UsageError(
                    f"--syslat-rate: no program makes {each.name} at a given rate: leave out "
                    f"--syslat-rate, or measure others by --syslat-syscall"
                )
    for flag, dest, budgets in (
        ("--syslat-budget", "syslat_budget", settings.budgets),
        ("--syslat-growth-budget", "syslat_growth_budget", settings.growth_budgets),
    ):
        # In an ini file it may stand for the runs that measure the syscall.
        if config.getoption(dest, None) is None:
            continue
        for budget in budgets:
            if budget.syscall not in (ANY, *settings.syscall_names):
                raise pytest.UsageError(
                    f"{flag}: '{budget}' would judge nothing: {budget.syscall} is not measured: "
                    f"add --syslat-syscall={budget.syscall}"
                )


def _check_known(option: Option, text: str, known: Mapping[str, Syscall]) -> None:
    """Raise ValueError where a value names a syscall that is not in the catalogue."""
    if option.parse is _budget:
        _budget(text, tuple(known))
    elif option.setting == "syscalls" and text.strip() not in known:
        raise ValueError(
            f"allowed is {', '.join(known)}; another is added by a file syscalls/NAME.toml or in "
            "a conftest (docs/syscalls.md)"
        )


def _parsed(
    option: Option, text: str, source: str, base: Path, known: Mapping[str, Syscall] | None
) -> Any:
    try:
        value = option.parse(text)
        if known is not None:
            _check_known(option, text, known)
        if isinstance(value, Path):
            place = base / value
            return _found_run(place) if option.setting in _STORED_RUNS else place
        return _found_chart(value, base) if isinstance(value, ChartPlace) else value
    except ValueError as error:
        also = "" if source == option.flag else f" ({option.flag})"
        raise pytest.UsageError(f"{source}{also}: {text!r} is not valid: {error}") from None


def given_on_command_line(config: pytest.Config) -> bool:
    """Whether any of our options stands on the command line."""
    return any(config.getoption(option.dest, None) is not None for option in OPTIONS)


def check_stored_runs(config: pytest.Config, settings: Settings) -> None:
    """Refuse options about stored runs that do not fit together; raises pytest.UsageError."""
    if settings.against and not settings.growth_budgets:
        raise pytest.UsageError(
            "--syslat-against: nothing says how far an overhead may grow: give "
            "--syslat-growth-budget, such as '*:user<=+5%'"
        )
    # In an ini file it may stand for the runs that name an earlier one.
    if not settings.against and config.getoption("syslat_growth_budget", None):
        raise pytest.UsageError(
            "--syslat-growth-budget: nothing to compare with: give --syslat-against"
        )
    if settings.against and settings.baseline:
        raise pytest.UsageError(
            "--syslat-against: needs a vanilla of this run's own in each block: leave out "
            "--syslat-baseline"
        )
    if settings.baseline and settings.placement == "both":
        raise pytest.UsageError(
            "--syslat-placement=both: it compares with a vanilla in the same blocks: leave out "
            "--syslat-baseline"
        )
    if (settings.against or settings.baseline) and not settings.agents:
        flag = "--syslat-against" if settings.against else "--syslat-baseline"
        raise pytest.UsageError(f"{flag}: there is no agent to compare: give one by --syslat-agent")
    root = settings.result_dir.resolve()
    # A run moves an earlier one aside, where it replaces another.
    written = {root.with_name(root.name + suffix) for suffix in _WRITTEN_SUFFIXES}
    for flag, place in (
        ("--syslat-baseline", settings.baseline),
        ("--syslat-against", settings.against),
    ):
        if place is not None and place.resolve() in written:
            raise pytest.UsageError(
                f"{flag}: {place} would be replaced by this run's own files: give another "
                "--syslat-result-dir"
            )


_WRITTEN_SUFFIXES = ("", "-partial", ".previous", ".interrupted")


def check_result_dir(settings: Settings) -> None:
    """Fail early where results could not be written; raises pytest.UsageError."""
    place = settings.result_dir
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise pytest.UsageError(
            f"--syslat-result-dir: {place} is not a directory: give a directory"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise pytest.UsageError(
            f"--syslat-result-dir: {settings.result_dir} cannot be written: "
            "give a directory that you may write to"
        )
