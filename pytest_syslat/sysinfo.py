"""What a figure depends on: node, tools, agents and settings, as one flat table of texts."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from pytest_syslat import __version__
from pytest_syslat.settings import Settings
from pytest_syslat.syscalls import DEFINITION, SYSCALLS
from pytest_syslat.testbeds.protocol import Role, Testbed, TestbedError
from pytest_syslat.tracer import MAP_KEYS_FACT, Tracer
from pytest_syslat.workload import Workload

UNKNOWN = "unknown"
READ_LIMIT_S = 20.0


def collect_sysinfo(
    testbed: Testbed,
    workload: Workload,
    tracer: Tracer,
    agent_versions: Mapping[str, str],
    settings: Settings,
) -> dict[str, str]:
    """Collect all facts, in the order in which they are written to `<label>_sysinfo.txt`."""
    return {
        "pytest-syslat": __version__,
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "testbed": testbed.name,
        "node": testbed.node,
        "kernel": _text(testbed, "/proc/sys/kernel/osrelease"),
        "kernel build": _text(testbed, "/proc/sys/kernel/version"),
        "kernel command line": _text(testbed, "/proc/cmdline"),
        "architecture": testbed.machine,
        "distribution": _after(_text(testbed, "/etc/os-release"), "PRETTY_NAME=").strip('"'),
        **testbed.facts(),
        **core_facts(testbed),
        "tracer filters by": testbed.scope.filter.value,
        "bpftrace": tracer.version,
        "tracer": tracer.mode,
        MAP_KEYS_FACT: str(tracer.map_keys),
        "lmbench": workload.version(),
        "lmbench directory": str(workload.directory),
        "lmbench is unmodified": "as packaged; checksums below",
        **{f"SHA-256 of {name}": digest for name, digest in workload.checksums().items()},
        **{f"lmbench {name}": value for name, value in workload.calibration.environment.items()},
        "file system of the measured file": _file_system(testbed, workload.measured_file),
        **{f"agent {name}": version for name, version in agent_versions.items()},
        **{
            f"{DEFINITION}{each}": each.words
            for each in settings.syscalls
            if each.name not in SYSCALLS
        },
        **{f"setting {name}": _shown(value) for name, value in settings.as_dict().items()},
    }


def core_facts(testbed: Testbed) -> dict[str, str]:
    """What the node's kernel tells of its cores, and of the measured one."""
    core = testbed.core
    cpu = f"/sys/devices/system/cpu/cpu{core}"
    return {
        "CPU": _after(_text(testbed, "/proc/cpuinfo"), "model name").lstrip("\t :"),
        "cores online": _text(testbed, "/sys/devices/system/cpu/online"),
        "measured core": str(core),
        "SMT siblings of the core": _text(testbed, f"{cpu}/topology/thread_siblings_list"),
        "SMT": _text(testbed, "/sys/devices/system/cpu/smt/control"),
        "governor": _text(testbed, f"{cpu}/cpufreq/scaling_governor"),
        "turbo off (intel_pstate)": _text(testbed, "/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "boost (cpufreq)": _text(testbed, "/sys/devices/system/cpu/cpufreq/boost"),
        "clock source": _text(
            testbed, "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        **_mitigations(testbed),
    }


def sysinfo_text(facts: Mapping[str, str]) -> str:
    """One fact a line: `name: value`."""
    return "".join(f"{name}: {value}\n" for name, value in facts.items())


def frequency_warning(facts: Mapping[str, str]) -> str | None:
    """Why the core's frequency may change during a run, if it may."""
    reasons = []
    if facts["governor"] not in (UNKNOWN, "performance"):
        reasons.append(f"the governor is {facts['governor']}")
    if facts["turbo off (intel_pstate)"] == "0" or facts["boost (cpufreq)"] == "1":
        reasons.append("turbo is on")
    if not reasons:
        return None
    return f"{' and '.join(reasons)}: the core's frequency, and with it each figure, may change"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(testbed: Testbed, path: str) -> str:
    try:
        return testbed.read(Path(path), role=Role.NODE).decode(errors="replace").strip() or UNKNOWN
    except TestbedError:
        return UNKNOWN


def _after(text: str, prefix: str) -> str:
    for line in text.splitlines():
        if line.startswith(prefix):
            return line.removeprefix(prefix).strip()
    return UNKNOWN


def _mitigations(testbed: Testbed) -> dict[str, str]:
    directory = "/sys/devices/system/cpu/vulnerabilities"
    listed = testbed.run(
        ["sh", "-c", f"cd {directory} && grep -r . . 2>/dev/null | sort"],
        role=Role.NODE,
        timeout_s=READ_LIMIT_S,
    )
    return {
        f"mitigation of {name.removeprefix('./')}": state
        for name, _, state in (line.partition(":") for line in listed.stdout.splitlines())
    }


def _file_system(testbed: Testbed, path: Path) -> str:
    shown = testbed.run(
        ["stat", "-f", "-c", "%T", str(path)], role=Role.WORKLOAD, timeout_s=READ_LIMIT_S
    )
    return shown.stdout.strip() or UNKNOWN
