"""Checks of this host, for the local testbed. Nothing is changed; any user may ask.

What a run checks when it starts is asked by the same code; what it would only find out while it
makes something is asked in another way.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_syslat.doctor.check import Check, Question, ok, problem, warning
from pytest_syslat.kernel_audit import LOCKED, SAVED_STATE, KernelAudit
from pytest_syslat.network import COUNTER_FILES, parse_tcp_counters
from pytest_syslat.placement import list_holders, placement_of_next
from pytest_syslat.settings import Settings
from pytest_syslat.syscall_numbers import ARCHITECTURES
from pytest_syslat.sysinfo import UNKNOWN, core_facts, frequency_warning
from pytest_syslat.tcp_server import LAT_CONNECT_PORT
from pytest_syslat.testbeds import stopped_services
from pytest_syslat.testbeds.host_view import HostView
from pytest_syslat.testbeds.local import (
    LOCK,
    NEEDED_PROGRAMS,
    PREFIX,
    cgroup2_mount,
    tracefs_is_mounted,
    usable_cores,
)
from pytest_syslat.testbeds.protocol import Filter, Role, TestbedError
from pytest_syslat.tools import LMBENCH_PROGRAMS, ToolMissing
from pytest_syslat.tracer import (
    NEWEST_TRIED,
    OLDEST_VERSION,
    TracerError,
    bpftrace_version,
    parse_version,
)
from pytest_syslat.tracer_script import attached_events, own_script, script
from pytest_syslat.validity import TIME_WAIT_LIMIT
from pytest_syslat.workload import (
    WorkloadError,
    built_in_helper,
    check_helper,
    check_programs,
    lmbench_version,
)

PROVISION = "make provision (tools/provision.sh), or apt-get install {}"
OLDEST_KERNEL = (4, 18)
"""The first with bpf_get_current_cgroup_id()."""
USUAL_KERNEL = (5, 0)
CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_NET_ADMIN": 12,
    "CAP_SETGID": 6,
    "CAP_SETPCAP": 8,
}
"""What a run needs as root: namespaces, their network, the workload's group, and BPF."""
BPF_CAPABILITIES = {"CAP_BPF": 39, "CAP_PERFMON": 38}
KNOWN_AGENTS = (
    "falco",
    "tetragon",
    "kloudknox",
    "auditd",
    "sysdig",
    "tracee",
    "cilium-agent",
    "datadog-agent",
    "osqueryd",
)
"""Names of processes that watch syscalls, beside ours."""
GOOD_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter")
LOOK_S = 0.5
BUSY_SHARE = 0.10
SMALL_SPACE = 200 * 10**6
LEAST_SPACE = 20 * 10**6
ASK_LIMIT_S = 20.0


def questions(settings: Settings, view: HostView, rootdir: Path) -> list[tuple[str, Question]]:
    """All checks of this host, by name, in the order in which they are told.

    Args:
        settings: With which it would be measured.
        view: This host, with the core that would be measured.
        rootdir: Whose own bpftrace programs win.
    """
    return [
        ("kernel", lambda: _kernel(view)),
        ("BTF", lambda: _btf(view)),
        ("tracepoints", lambda: _tracepoints(view, settings, rootdir)),
        ("rights", _rights),
        ("util-linux", _util_linux),
        ("bpftrace", lambda: _bpftrace(view)),
        ("lmbench", lambda: _lmbench(view, settings)),
        ("bpftool", lambda: _bpftool(view)),
        ("kernel audit", lambda: _audit(view)),
        ("core", lambda: _core(view, settings)),
        ("frequency", lambda: _frequency(view)),
        ("clock source", lambda: _clock(view)),
        ("mitigations", lambda: _mitigations(view)),
        ("cgroups", _cgroups),
        ("network", _network_namespaces),
        (f"port {LAT_CONNECT_PORT}", _port),
        ("other load", lambda: _load(view)),
        ("other tracers", lambda: _tracers(view)),
        ("agents", _agents),
        ("other runs", _other_runs),
        ("leftovers", lambda: _leftovers(view)),
        ("space", lambda: _space(settings)),
    ]


def _kernel(view: HostView) -> Iterator[Check]:
    release = _text(Path("/proc/sys/kernel/osrelease"))
    told = f"{release} on {view.machine}"
    numbers = re.match(r"([0-9]+)\.([0-9]+)", release)
    if view.machine not in ARCHITECTURES:
        yield problem("kernel", told, "measure on x86_64 or aarch64")
    elif numbers is None:
        yield problem("kernel", f"its release is not known ({release})", "measure on Linux")
    elif (version := (int(numbers[1]), int(numbers[2]))) < OLDEST_KERNEL:
        yield problem("kernel", told, "boot Linux 5 or newer: BPF cannot tell cgroups apart here")
    elif version < USUAL_KERNEL:
        yield warning("kernel", told, "boot Linux 5 or newer: this one was not tried")
    else:
        yield ok("kernel", told)


def _btf(view: HostView) -> Iterator[Check]:
    path = Path("/sys/kernel/btf/vmlinux")
    if path.exists():
        yield ok("BTF", str(path))
    elif view.scope.filter is Filter.PID_NAMESPACE:
        yield problem(
            "BTF",
            f"no {path}, and without cgroup v2 the tracer needs it",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF, or mount cgroup v2",
        )
    else:
        yield warning(
            "BTF",
            f"no {path}: most agents need it, and --syslat-attribute to name functions",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF",
        )


def _tracepoints(view: HostView, settings: Settings, rootdir: Path) -> Iterator[Check]:
    whole, mode = settings.placement == "both", settings.tracer
    events = dict[str, None]()
    for each in settings.syscalls:
        own = own_script(each, mode, rootdir, whole_operation=whole)
        text = own.read_text() if own else script(each, mode, whole_operation=whole)
        events |= dict.fromkeys(attached_events(text))
    question = (
        "cd /sys/kernel/tracing/events/syscalls 2>/dev/null ||"
        " cd /sys/kernel/debug/tracing/events/syscalls || exit 1;"
        ' for event; do [ -e "$event/id" ] || echo "$event"; done'
    )
    shown = view.run(["sh", "-c", question, "sh", *events], role=Role.TRACER, timeout_s=ASK_LIMIT_S)
    if not shown.ok and os.geteuid() != 0:
        yield problem("tracepoints", "tracefs cannot be read without root", "run as root (sudo -E)")
    elif not shown.ok:
        yield problem(
            "tracepoints",
            f"there are no events of syscalls in tracefs ({shown.complaint})",
            "boot a kernel with CONFIG_FTRACE_SYSCALLS, and allow mounting tracefs",
        )
    elif missing := shown.stdout.split():
        yield problem(
            "tracepoints", f"missing: {', '.join(missing)}", "boot a kernel that has them"
        )
    else:
        how = "" if tracefs_is_mounted() else "; tracefs is mounted for the tracer alone"
        yield ok("tracepoints", f"of {', '.join(settings.syscall_names)}{how}")


def _rights() -> Iterator[Check]:
    if os.geteuid() != 0:
        yield problem("rights", f"user id {os.geteuid()}", "run as root (sudo -E)")
        return
    status = _fields(Path("/proc/self/status"))
    effective = int(status.get("CapEff", "0"), 16)
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        yield problem(
            "rights", f"root without {', '.join(missing)}", "give the container these capabilities"
        )
        return
    lockdown = _text(Path("/sys/kernel/security/lockdown"))
    if "[confidentiality]" in lockdown:
        yield problem(
            "rights", "the kernel is locked down (confidentiality)", "boot with lockdown=integrity"
        )
        return
    if status.get("Seccomp", "0") != "0":
        yield warning(
            "rights",
            "root, under a seccomp filter, through which the workload would go as well",
            "run outside of the sandbox, or in a container with seccomp=unconfined",
        )
        return
    lesser = [name for name, bit in BPF_CAPABILITIES.items() if effective >> bit & 1]
    yield ok("rights", ", ".join(["root", "CAP_SYS_ADMIN", *lesser]))


def _util_linux() -> Iterator[Check]:
    missing = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if missing:
        yield problem("util-linux", f"{', '.join(missing)} not found", "apt-get install util-linux")
    else:
        yield ok("util-linux", ", ".join(NEEDED_PROGRAMS))


def _bpftrace(view: HostView) -> Iterator[Check]:
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_VERSION, NEWEST_TRIED))
    try:
        version = bpftrace_version(view, Role.NODE)
    except TracerError as error:
        told, _, mend = str(error).partition(": ")
        yield problem("bpftrace", told, mend)
        return
    if parse_version(version) > NEWEST_TRIED:
        yield warning(
            "bpftrace",
            f"{version} is newer than any that was tried ({oldest} to {newest})",
            "compare two runs of vanilla (--agent=vanilla2), or install one of these",
        )
    else:
        yield ok("bpftrace", f"{version} ({oldest} to {newest} are supported)")


def _lmbench(view: HostView, settings: Settings) -> Iterator[Check]:
    try:
        directory = view.find_lmbench(settings.lmbench_dir)
    except ToolMissing as error:
        told, _, mend = str(error).partition(": ")
        if settings.lmbench_dir is not None:
            told, _, mend = str(error).removeprefix("--syslat-lmbench-dir: ").partition(": ")
        yield problem("lmbench", told, mend)
        return
    for name in LMBENCH_PROGRAMS:
        program = directory / name
        # Without arguments each prints its usage and ends.
        tried = view.run(
            [str(program)],
            role=Role.WORKLOAD,
            timeout_s=ASK_LIMIT_S,
            env=view.libraries_of(program),
        )
        if tried.returncode in (126, 127):
            yield problem("lmbench", f"{program}: {tried.complaint}", "install what it lacks")
            return
    try:
        check_programs(view, directory, settings.syscalls)
    except WorkloadError as error:
        yield problem("lmbench", str(error), "install it, or leave out that --syslat-syscall")
        return
    version = lmbench_version(view, directory)
    yield ok("lmbench", f"{version if version != UNKNOWN else 'unknown version'} in {directory}")
    yield from _helper(view, directory)


def _helper(view: HostView, directory: Path) -> Iterator[Check]:
    """The program that `lat_proc exec` executes: its path is built in."""
    helper = built_in_helper(view.read(directory / "lat_proc", role=Role.WORKLOAD))
    shipped = directory / "hello"
    if helper is None:
        yield warning("lmbench's helper", "lat_proc names none", "look at the figures of execve")
        return
    content = view.read(shipped, role=Role.WORKLOAD) if shipped.exists() else None
    if view.state(helper, role=Role.WORKLOAD) is None:
        if content is None:
            yield problem(
                "lmbench's helper",
                f"{helper} is missing and no copy stands beside lat_proc: every execve would fail",
                "install lmbench's own package",
            )
        elif _is_noexec(helper):
            yield problem(
                "lmbench's helper",
                f"{helper} would lie on a file system that is mounted noexec",
                f"mount it without noexec: lat_proc looks for {helper} and nowhere else",
            )
        else:
            yield ok("lmbench's helper", f"a run puts it in place ({helper})")
        return
    try:
        trouble = check_helper(view, helper, content)
    except WorkloadError as error:
        told, _, mend = str(error).partition(": ")
        yield problem("lmbench's helper", told, mend)
        return
    if trouble:
        yield problem("lmbench's helper", trouble, f"chmod +x {helper}")
    else:
        yield ok("lmbench's helper", str(helper))


def _is_noexec(path: Path) -> bool:
    place = next(each for each in path.parents if each.exists())
    return bool(os.statvfs(place).f_flag & os.ST_NOEXEC)


def _bpftool(view: HostView) -> Iterator[Check]:
    try:
        shown = view.run(["bpftool", "version"], role=Role.NODE, timeout_s=ASK_LIMIT_S)
    except TestbedError as error:
        told = str(error)
    else:
        if shown.ok:
            yield ok("bpftool", shown.stdout.splitlines()[0].strip())
            return
        told = f"it does not run: {shown.complaint}"
    yield warning(
        "bpftool",
        f"{told}: the placement of the tracer will be unknown",
        PROVISION.format("bpftool"),
    )


def _audit(view: HostView) -> Iterator[Check]:
    name = "kernel audit"
    unknown = "figures carry a part of its cost if it was ever on since boot"
    audit = KernelAudit(view)
    if view.find_tool("auditctl") is None:
        yield warning(name, f"auditctl not found: {unknown}", PROVISION.format("auditd"))
        return
    if os.geteuid() != 0:
        yield warning(name, "its state cannot be read without root", "run as root (sudo -E)")
        return
    try:
        status = audit.status()
    except TestbedError as error:
        yield warning(name, f"{error}: {unknown}", "allow CAP_AUDIT_CONTROL, outside of containers")
        return
    rules = len(audit.rules())
    switched = {0: "off", 1: "on"}.get(status["enabled"], "locked")
    daemon = f"pid {status['pid']}" if status["pid"] else "none"
    told = f"{switched}, {rules} rules, daemon {daemon}"
    if status["enabled"] == LOCKED:
        yield warning(name, f"{told}: {unknown}", "reboot without -e 2 among the rules")
    elif status["enabled"] and rules:
        yield warning(
            name,
            f"{told}: the workload is kept out, what else runs here is not",
            "auditctl -D and -e 0 for the time of the run, if you may",
        )
    else:
        yield ok(name, told)


def _core(view: HostView, settings: Settings) -> Iterator[Check]:
    usable = usable_cores()
    facts = core_facts(view)
    online = facts["cores online"]
    told = f"core {view.core} would be measured; online {online}, usable here {_listed(usable)}"
    if view.core != settings.pin_core:
        yield warning(
            "core",
            f"{told}; core {settings.pin_core} does not exist or may not be used here",
            f"--syslat-pin-core={view.core} says so",
        )
    else:
        yield ok("core", told)
    if view.core_problem:
        yield warning("cores beside it", view.core_problem, "measure where there are more cores")
    else:
        yield ok("cores beside it", f"{_listed(view.beside)} for tracer and server")
    siblings, smt = facts["SMT siblings of the core"], facts["SMT"]
    if siblings not in (UNKNOWN, str(view.core)):
        yield warning(
            "SMT",
            f"cores {siblings} share one physical core (SMT {smt})",
            "echo off >/sys/devices/system/cpu/smt/control for the time of the run",
        )
    else:
        yield ok("SMT", f"no sibling (SMT {smt})")
    throttles = _quota()
    if throttles:
        yield warning("CPU quota", throttles, "run outside of that cgroup: trials are refused")


def _quota() -> str | None:
    """Which cgroup limits the CPU time of this process, if one does."""
    mount = cgroup2_mount()
    for line in _lines(Path("/proc/self/cgroup")):
        number, controllers, path = line.split(":", 2)
        if number == "0" and mount is not None:
            for directory in (mount / path.lstrip("/"), mount):
                limit = _text(directory / "cpu.max")
                if limit not in (UNKNOWN, "") and not limit.startswith("max"):
                    return f"{directory}/cpu.max is {limit}"
        elif "cpu" in controllers.split(","):
            file = Path("/sys/fs/cgroup/cpu", path.lstrip("/"), "cpu.cfs_quota_us")
            limit = _text(file)
            if limit.isdigit():
                return f"{file} is {limit}"
    return None


def _frequency(view: HostView) -> Iterator[Check]:
    facts = core_facts(view)
    named = {
        "governor": facts["governor"],
        "intel no_turbo": facts["turbo off (intel_pstate)"],
        "boost": facts["boost (cpufreq)"],
    }
    known = [f"{name} {value}" for name, value in named.items() if value != UNKNOWN]
    trouble = frequency_warning(facts)
    if trouble:
        yield warning(
            "frequency",
            trouble,
            "for the time of the run: cpupower frequency-set -g performance, and turbo off",
        )
    else:
        yield ok("frequency", ", ".join(known) or "governor and turbo are not told here (a VM?)")


def _clock(view: HostView) -> Iterator[Check]:
    found = core_facts(view)["clock source"]
    if found in (*GOOD_CLOCKS, UNKNOWN):
        yield ok("clock source", found)
    else:
        yield warning(
            "clock source",
            f"{found}: reading it may take longer than a syscall",
            "echo tsc >/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )


def _mitigations(view: HostView) -> Iterator[Check]:
    found = {
        name: state for name, state in core_facts(view).items() if name.startswith("mitigation of ")
    }
    vulnerable = sum(state.startswith("Vulnerable") for state in found.values())
    off = "mitigations=off" in _text(Path("/proc/cmdline"))
    told = f"{len(found)} known, {vulnerable} of them open" + (", switched off" if off else "")
    yield ok("mitigations", f"{told}; they are part of each figure")


def _cgroups() -> Iterator[Check]:
    mount = cgroup2_mount()
    if mount is None:
        yield warning(
            "cgroups",
            "no cgroup v2: a pid namespace tells the workload from others; no CPU times",
            "mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup/unified)",
        )
    elif os.geteuid() != 0:
        yield problem(
            "cgroups", f"v2 at {mount}, not writable without root", "run as root (sudo -E)"
        )
    elif not os.access(mount, os.W_OK) or os.statvfs(mount).f_flag & os.ST_RDONLY:
        yield problem(
            "cgroups",
            f"v2 at {mount} is read-only: no cgroup can be made",
            "remount it writable, or use a privileged container",
        )
    else:
        hybrid = Path("/sys/fs/cgroup/cpu").is_dir()
        yield ok("cgroups", f"v2 at {mount}{', beside v1' if hybrid else ''}; one can be made")


def _network_namespaces() -> Iterator[Check]:
    limit = _text(Path("/proc/sys/user/max_net_namespaces"))
    if not Path("/proc/self/ns/net").exists() or limit == "0":
        yield problem(
            "network",
            "network namespaces are switched off",
            "sysctl user.max_net_namespaces=1000, in a kernel with CONFIG_NET_NS",
        )
    else:
        yield ok("network", "a run has a network namespace of its own")


def _port() -> Iterator[Check]:
    files = {name: text for name in COUNTER_FILES if (text := _content(Path(name)))}
    counters = parse_tcp_counters(files, LAT_CONNECT_PORT)
    name = f"port {LAT_CONNECT_PORT}"
    if counters.listener_inodes:
        yield warning(
            name,
            "somebody listens on it here; not in the way of a run, which has a port of its own",
            "end it if it is a forgotten server of lmbench",
        )
    else:
        yield ok(name, "free")
    if counters.time_wait > TIME_WAIT_LIMIT:
        yield warning(
            "TIME_WAIT",
            f"{counters.time_wait:,} sockets: this host serves many connections",
            "measure where nothing else is served",
        )
    else:
        yield ok("TIME_WAIT", f"{counters.time_wait:,} sockets")


def _load(view: HostView) -> Iterator[Check]:
    before = _busy_ticks(view.core)
    time.sleep(LOOK_S)
    after = _busy_ticks(view.core)
    load = _text(Path("/proc/loadavg")).split(" ")[0]
    if before is None or after is None or after[1] == before[1]:
        yield ok("other load", f"load average {load}")
        return
    elapsed = after[1] - before[1]
    busy, stolen = (after[0] - before[0]) / elapsed, (after[2] - before[2]) / elapsed
    told = f"core {view.core} was busy for {busy:.0%} of {LOOK_S:g} s, load average {load}"
    if stolen > BUSY_SHARE:
        yield warning(
            "other load",
            f"{told}; the hypervisor took {stolen:.0%}",
            "measure on a machine of your own, or with cores of its own",
        )
    elif busy > BUSY_SHARE:
        yield warning("other load", told, "end what runs there, or isolate the core (isolcpus)")
    else:
        yield ok("other load", told)


def _busy_ticks(core: int) -> tuple[int, int, int] | None:
    """Busy, all and stolen ticks of a core."""
    for line in _lines(Path("/proc/stat")):
        if line.startswith(f"cpu{core} "):
            ticks = [int(each) for each in line.split()[1:9]]
            idle, stolen = ticks[3] + ticks[4], ticks[7]
            return sum(ticks) - idle - stolen, sum(ticks), stolen
    return None


def _tracers(view: HostView) -> Iterator[Check]:
    name = "other tracers"
    if os.geteuid() != 0:
        yield warning(name, "they cannot be listed without root", "run as root (sudo -E)")
        return
    holders = list_holders(view)
    if holders is None:
        yield warning(
            name,
            "they cannot be listed: the placement of the tracer will be unknown",
            "apt-get install bpftool",
        )
    elif holders:
        named = ", ".join(map(str, holders[:3])) + (", …" if len(holders) > 3 else "")
        yield warning(
            name,
            f"{len(holders)} on syscalls: {named}; "
            f"the tracer would be {placement_of_next(holders)}",
            "end them: vanilla is not vanilla with them, and placements are not proven",
        )
    else:
        yield ok(name, "none on syscalls")


def _agents() -> Iterator[Check]:
    found = sorted(f"{comm} (pid {pid})" for pid, comm in _processes() if _is_agent(comm))
    if found:
        yield warning(
            "agents",
            f"running already: {', '.join(found)}",
            "stop them: they are part of vanilla as they run",
        )
    else:
        yield ok("agents", f"none of {len(KNOWN_AGENTS)} known ones runs")


def _is_agent(comm: str) -> bool:
    # The kernel keeps 15 characters of a name.
    return any(comm == name[:15] or comm.startswith(f"{name}-") for name in KNOWN_AGENTS)


def _processes() -> Iterator[tuple[int, str]]:
    for directory in Path("/proc").glob("[0-9]*"):
        comm = _text(directory / "comm")
        if comm != UNKNOWN:
            yield int(directory.name), comm


def _other_runs() -> Iterator[Check]:
    pid = _lock_holder()
    if pid is not None:
        yield problem("other runs", f"one measures here now (pid {pid})", "wait until it has ended")
    else:
        yield ok("other runs", "none")


def _lock_holder() -> int | None:
    """Who holds the host's lock, by the kernel's list: taking it would keep out a run."""
    try:
        inode = LOCK.stat().st_ino
    except OSError:
        return None
    for line in _lines(Path("/proc/locks")):
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def _leftovers(view: HostView) -> Iterator[Check]:
    mount = cgroup2_mount()
    left = [f"cgroup {path}" for path in mount.glob(f"{PREFIX}*")] if mount else []
    left += [f"directory {path}" for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*")]
    if view.state(SAVED_STATE, role=Role.NODE) is not None:
        left.append("changes to the audit switch and backlog")
    left += [f"the stop of unit {unit}" for unit in stopped_services.remembered(view)]
    if not left:
        yield ok("leftovers", "none of earlier runs")
    elif _lock_holder() is not None:
        yield ok("leftovers", "what is there belongs to the run that measures now")
    else:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        yield warning(
            "leftovers",
            f"of a run that was killed: {', '.join(left[:3])}{more}",
            "syslat clean (the next run does it, too)",
        )


def _space(settings: Settings) -> Iterator[Check]:
    results = settings.result_dir
    while not results.exists():
        results = results.parent
    for name, place, mend in (
        ("TMPDIR", Path(tempfile.gettempdir()), "free some, or set TMPDIR"),
        ("result directory", results, "free some, or give another --syslat-result-dir"),
    ):
        state = os.statvfs(place)
        free = state.f_bavail * state.f_frsize
        told = f"{free / 1e9:,.1f} GB free in {place}"
        if free < LEAST_SPACE:
            yield problem(name, told, mend)
        elif free < SMALL_SPACE:
            yield warning(name, told, mend)
        else:
            yield ok(name, told)


def _listed(cores: Sequence[int]) -> str:
    """Cores as the kernel lists them: `0-3,8`."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _text(path: Path) -> str:
    return _content(path).strip() or UNKNOWN


def _lines(path: Path) -> list[str]:
    return _content(path).splitlines()


def _fields(path: Path) -> dict[str, str]:
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in _lines(path))
    }
