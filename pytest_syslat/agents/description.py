"""Agents described in TOML files: how each is installed, when it is ready, what it dropped.

`agents/NAME.toml` describes agent NAME. KloudKnox, Falco and Tetragon are described in this way,
too, so that a new agent needs no Python. A file in the user's rootdir wins over a shipped one.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_type_hints

from pytest_syslat.resources import resource_directories

DIRECTORY = "agents"
Made = TypeVar("Made")


class DescriptionError(Exception):
    """A description cannot be used; the text is one line that names the file and the key."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A Helm chart."""

    release: str
    name: str
    """Of the chart in its repository."""
    repository: str
    """URL."""
    version: str
    values: str = ""
    """A file with values, below the project's root."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """Manifests that are applied in order and deleted in the reverse order."""

    source: str
    """A directory, or the URL below which the files are."""
    files: tuple[str, ...]
    sha256: tuple[str, ...] = ()
    """Of the files, in their order; files from a URL need them."""
    images: tuple[str, ...] = ()
    """`FROM=TO`: images of the manifests that are replaced, such as a tag that moves."""


@dataclass(frozen=True, slots=True)
class OnKubernetes:
    """How it runs in a cluster."""

    daemonset: str
    """`NAMESPACE/NAME` of what is switched on and off."""
    container: str = ""
    """Which of its containers is the agent; empty: the first."""
    policy: str = ""
    """A file with our policy, below the project's root."""
    policy_config_map: str = ""
    """`NAMESPACE/NAME` of the ConfigMap that takes the policy as a file of the same name; empty:
    the policy is an object, which is applied."""
    chart: Chart | None = None
    manifests: Manifests | None = None
    resource_definitions: tuple[str, ...] = ()
    """Names of CRDs that it makes by itself, and that an uninstall leaves."""
    node_paths: tuple[str, ...] = ()
    """Directories that it makes on the node, and that an uninstall leaves."""
    pins: tuple[str, ...] = ()
    """Directories of the node in which it pins BPF programs: they stay loaded without it."""


@dataclass(frozen=True, slots=True)
class OnHost:
    """How it runs without a cluster."""

    command: str = ""
    """Program and arguments; `{policy}` stands for the policy's file."""
    service: str = ""
    """Or the systemd unit that is started and stopped."""
    policy: str = ""
    """A file with our policy, below the project's root."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What must hold once it is switched on."""

    log: tuple[str, ...] = ()
    """Regular expressions, each of which must be found in its log."""
    command: tuple[str, ...] = ()
    """A program run beside it (on Kubernetes in its container) that must succeed."""
    rising: str = ""
    """A metric that must grow."""
    port: int = 0
    """A TCP port on which it must answer."""
    file: str = ""
    """A file that must be there."""


@dataclass(frozen=True, slots=True)
class PolicyActive:
    """What must hold once its policy is active; `{name}`, `{file}` stand for the policy's own."""

    status: str = ""
    """Value of `.status.status` of the policy's object."""
    log: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """A program whose output must match `shows`."""
    shows: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """By what it tells that it has seen our canary calls, with its policy active."""

    metrics: tuple[str, ...] = ()
    """Such as `matches_total{rule_name="Bench openat"}`; each must grow."""
    command: tuple[str, ...] = ()
    """A program that prints numbers, which `count` finds; their sum must grow."""
    count: str = ""


@dataclass(frozen=True, slots=True)
class Drops:
    """By what it tells how many events it has lost."""

    metrics: tuple[str, ...] = ()
    """Their sum."""
    log: str = ""
    """A regular expression; the sum of the numbers that its group finds in the log."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where it serves its metrics in Prometheus' text format."""

    port: int
    path: str = "/metrics"


@dataclass(frozen=True, slots=True)
class Version:
    """What prints its version; on Kubernetes its image is told in any case."""

    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """All that is known of one agent."""

    name: str
    kubernetes: OnKubernetes | None = None
    host: OnHost | None = None
    ready: Ready = Ready()
    policy_active: PolicyActive = PolicyActive()
    seen: Seen = Seen()
    drops: Drops = Drops()
    metrics: Metrics | None = None
    version: Version = Version()


SECTIONS: dict[str, type[Any]] = {
    "kubernetes": OnKubernetes,
    "host": OnHost,
    "ready": Ready,
    "policy_active": PolicyActive,
    "seen": Seen,
    "drops": Drops,
    "metrics": Metrics,
    "version": Version,
}
NESTED: dict[str, type[Any]] = {"chart": Chart, "manifests": Manifests}
PATTERNS = {("ready", "log"), ("policy_active", "log"), ("policy_active", "shows")}
NUMBERS = {("seen", "count"), ("drops", "log")}
"""Patterns whose one group finds a number."""
METRICS = {("ready", "rising"), ("seen", "metrics"), ("drops", "metrics")}
NAMESPACED = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+")
"""NAMESPACE/NAME of an object in a cluster."""
SELECTOR = re.compile(r'[A-Za-z_:][\w:]*(\{\w+="[^"]*"(,\w+="[^"]*")*\})?')


def described_agents(rootdir: Path) -> dict[str, Path]:
    """The files of all described agents by name, the user's own before shipped ones."""
    found: dict[str, Path] = {}
    for directory in resource_directories(DIRECTORY, rootdir):
        for path in sorted(directory.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def read_description(path: Path) -> Description:
    """Read and check a description; raises DescriptionError."""
    try:
        loaded = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DescriptionError(f"{path} cannot be read: {error}") from None
    unknown = sorted(set(loaded) - set(SECTIONS))
    if unknown:
        raise DescriptionError(
            f"{path}: no section [{unknown[0]}]: allowed is {', '.join(SECTIONS)}"
        )
    made = {
        section: _made(SECTIONS[section], table, path, section) for section, table in loaded.items()
    }
    description = Description(path.stem, **made)
    _check(description, path)
    return description


def _made(kind: type[Made], table: Any, path: Path, section: str) -> Made:
    """An instance of a dataclass from a TOML table, each value checked."""
    place = f"{path}, [{section}]"
    if not isinstance(table, Mapping):
        raise DescriptionError(f"{place}: a table is needed")
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise DescriptionError(f"{place}: no key {key!r}: allowed is {', '.join(known)}")
    for key, each in known.items():
        if each.default is MISSING and key not in table:
            raise DescriptionError(f"{place}: the key {key!r} is missing")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in NESTED:
            values[key] = _made(NESTED[key], value, path, f"{section}.{key}")
        else:
            values[key] = _value(value, hints[key], f"{place}: {key}")
            if (section, key) in PATTERNS | NUMBERS:
                _check_pattern(values[key], f"{place}: {key}", numbers=(section, key) in NUMBERS)
            if (section, key) in METRICS:
                _check_selectors(values[key], f"{place}: {key}")
    return kind(**values)


def _value(value: Any, wanted: Any, place: str) -> Any:
    if wanted in (str, int):
        if type(value) is not wanted:
            words = "a text" if wanted is str else "a whole number"
            raise DescriptionError(f"{place}: {words} is needed")
        return value
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DescriptionError(f"{place}: a list of texts is needed")
    return tuple(value)


def _check_pattern(value: str | tuple[str, ...], place: str, *, numbers: bool) -> None:
    for pattern in (value,) if isinstance(value, str) else value:
        try:
            groups = re.compile(filled(pattern, name="x", file="x")).groups
        except re.error as error:
            raise DescriptionError(
                f"{place}: {pattern!r} is no regular expression: {error}"
            ) from None
        if numbers and pattern and groups != 1:
            raise DescriptionError(
                f"{place}: {pattern!r} needs one group, such as ([0-9]+), that finds the number"
            )


def _check_selectors(value: str | tuple[str, ...], place: str) -> None:
    for selector in (value,) if isinstance(value, str) else value:
        if not SELECTOR.fullmatch(selector):
            raise DescriptionError(
                f"{place}: {selector!r} is no metric: such as drops_total or "
                'drops_total{reason="full"} is needed'
            )


def _check_paths(cluster: OnKubernetes, path: Path) -> None:
    """What is removed as root on a node must not be more than an agent's own."""
    for key, paths in (("pins", cluster.pins), ("node_paths", cluster.node_paths)):
        for each in paths:
            parts = PurePosixPath(each).parts
            plain = each == str(PurePosixPath(each)) and ".." not in parts and parts[:1] == ("/",)
            pinned = parts[:4] == ("/", "sys", "fs", "bpf") and len(parts) > 4
            if not plain or (key == "pins" and not pinned) or len(parts) < 3:
                wanted = "below /sys/fs/bpf" if key == "pins" else "such as /var/lib/NAME"
                raise DescriptionError(
                    f"{path}, [kubernetes]: {key}: {each!r} is not allowed: a directory of the "
                    f"agent's own, {wanted}"
                )


def _check(description: Description, path: Path) -> None:
    """What no single key can tell."""
    cluster, host = description.kubernetes, description.host
    if cluster is None and host is None:
        raise DescriptionError(f"{path}: [kubernetes] or [host] is needed")
    if description.drops.log and host is not None and host.command:
        raise DescriptionError(
            f"{path}, [drops]: log: of what a command prints only the beginning is kept: "
            "use metrics"
        )
    if cluster is not None:
        _check_paths(cluster, path)
        for key in ("daemonset", "policy_config_map"):
            text = getattr(cluster, key)
            if text and not NAMESPACED.fullmatch(text):
                raise DescriptionError(f"{path}, [kubernetes]: {key}: NAMESPACE/NAME is needed")
        if cluster.policy_config_map and not cluster.policy:
            raise DescriptionError(f"{path}, [kubernetes]: policy_config_map needs a policy")
        if cluster.chart and cluster.manifests:
            raise DescriptionError(f"{path}, [kubernetes]: either a chart or manifests, not both")
        if cluster.manifests:
            _check_manifests(cluster.manifests, path)
    if host is not None:
        if bool(host.command.strip()) == bool(host.service):
            raise DescriptionError(f"{path}, [host]: either a command or a service is needed")
        try:
            shlex.split(host.command)
        except ValueError as error:
            raise DescriptionError(f"{path}, [host]: command: {error}") from None
    needs_metrics = (
        description.ready.rising or description.seen.metrics or description.drops.metrics
    )
    if needs_metrics and description.metrics is None:
        raise DescriptionError(f"{path}: [metrics] is needed: other sections name metrics")
    for section, command, pattern in (
        ("policy_active", description.policy_active.command, description.policy_active.shows),
        ("seen", description.seen.command, description.seen.count),
    ):
        if bool(command) != bool(pattern):
            raise DescriptionError(
                f"{path}, [{section}]: a command and a pattern for what it prints belong together"
            )


def _check_manifests(manifests: Manifests, path: Path) -> None:
    place = f"{path}, [kubernetes.manifests]"
    if manifests.sha256 and len(manifests.sha256) != len(manifests.files):
        raise DescriptionError(
            f"{place}: sha256: {len(manifests.sha256)} for {len(manifests.files)} files"
        )
    if "://" in manifests.source and not manifests.sha256:
        raise DescriptionError(f"{place}: sha256: files from a URL need their checksums")
    for image in manifests.images:
        if not all(image.partition("=")):
            raise DescriptionError(f"{place}: images: {image!r}: FROM=TO is needed")


def filled(text: str, *, name: str, file: str) -> str:
    """A text with the policy's name and file name in place of `{name}` and `{file}`.

    Other braces stay, since regular expressions have them.
    """
    return text.replace("{name}", name).replace("{file}", file)
