"""The BPF programs that are loaded on a node: what they are attached to, and who holds them.

bpftool lists programs and what they are attached to. Who holds them it tells only where it was
built for that (Debian's isn't), so the open files of all processes are looked through instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_syslat.testbeds.protocol import NodeLost, Role, Testbed, TestbedError

LIST_LIMIT_S = 30.0
RUNTIME_KINDS = ("cgroup_", "sched_cls", "sched_act", "xdp", "flow_dissector", "sk_")
"""Beginnings of kinds that container runtimes, networks and systemd load, too: the agent's own only
if it holds them."""
KERNEL_BTF = 1
"""Id of the kernel's own type information: it is registered at boot, before any other."""
HOLDERS_PROGRAM = r"""
import glob, json, os, sys
def comm(pid):
    try:
        return open(f"/proc/{pid}/comm", errors="replace").read().strip()
    except OSError:
        return "a process that has ended"
found = {(int(program), int(pid)) for program, pid in json.loads(sys.argv[1])}
for file in glob.iglob("/proc/[0-9]*/fd/*"):
    try:
        if not os.readlink(file).startswith("anon_inode:bpf"):
            continue
        told = open(file.replace("/fd/", "/fdinfo/")).read().split()
    except OSError:
        continue
    if "prog_id:" in told:
        found.add((int(told[told.index("prog_id:") + 1]), int(file.split("/")[2])))
print(json.dumps([(program, pid, comm(pid)) for program, pid in sorted(found)]))
"""
"""Prints program id, process id and name; takes those pairs that are known already.

A perf event does not tell its program in `fdinfo`, a program and a link do.
"""
NAMES_PROGRAM = r"""
import json, struct, sys
wanted = set(json.loads(sys.argv[1]))
data = open("/sys/kernel/btf/vmlinux", "rb").read()
_, _, _, header, types, length, strings, _ = struct.unpack_from("<HBBIIIII", data)
# Bytes after each kind's first twelve: a fixed number, and for some a number per member.
fixed = {1: 4, 3: 12, 14: 4, 17: 4}
member = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
at, number, names = header + types, 0, {}
while at < header + types + length:
    name, info = struct.unpack_from("<II", data, at)
    number += 1
    if number in wanted:
        begin = header + strings + name
        names[number] = data[begin : data.index(b"\0", begin)].decode()
    kind = info >> 24 & 31
    at += 12 + fixed.get(kind, 0) + member.get(kind, 0) * (info & 65535)
print(json.dumps(sorted(names.items())))
"""
"""Prints the names of types of the kernel, functions above all, by their number."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """One loaded program."""

    id: int
    """Never given twice between two boots."""
    kind: str
    """As bpftool names it: `tracepoint`, `kprobe`, `tracing`, `lsm`, `cgroup_skb` and so on."""
    name: str
    attached_to: tuple[str, ...]
    """Such as `tracepoint sys_enter_openat` or `fentry security_file_open`; may be empty."""
    holders: tuple[tuple[int, str], ...]
    """Process ids on the node, with their names; empty for a pinned program."""
    runs: int | None
    """None if it has not run while the kernel kept statistics."""
    run_time_ns: int | None


def list_programs(testbed: Testbed) -> list[BpfProgram] | None:
    """All programs of the node by id; None where bpftool cannot tell.

    What a network device runs (XDP, tc) is listed without the device. Programs that are attached
    to a cgroup without a link are listed without it where the tracer sees no cgroup v2.
    """
    shown = {kind: bpftool_list(testbed, kind, "show") for kind in ("prog", "link", "perf")}
    programs, links, perf = shown["prog"], shown["link"], shown["perf"]
    if programs is None or links is None or perf is None:
        return None
    known = [(entry["prog_id"], entry["pid"]) for entry in perf if "prog_id" in entry]
    held = _ask(testbed, HOLDERS_PROGRAM, known)
    if held is None:
        return None
    functions = _function_names(testbed, links)
    places: dict[int, set[str]] = {}
    for entry in perf:
        places.setdefault(entry.get("prog_id", 0), set()).update(_perf_places(entry))
    for entry in links:
        places.setdefault(entry.get("prog_id", 0), set()).update(_link_places(entry, functions))
    for group in bpftool_list(testbed, "cgroup", "tree") or []:
        for entry in group.get("programs", []):
            places.setdefault(entry["id"], set()).add(f"cgroup {entry.get('attach_type')}")
    return [
        BpfProgram(
            id=entry["id"],
            kind=str(entry.get("type")),
            name=str(entry.get("name", "")),
            attached_to=tuple(sorted(places.get(entry["id"], ()))),
            holders=tuple((pid, comm) for program, pid, comm in held if program == entry["id"]),
            runs=entry.get("run_cnt"),
            run_time_ns=entry.get("run_time_ns"),
        )
        for entry in sorted(programs, key=lambda entry: int(entry["id"]))
    ]


def bpftool_list(testbed: Testbed, *words: str) -> list[Entry] | None:
    """What bpftool lists when it is asked, such as for `link show`; None where it cannot tell."""
    return _json_list(testbed, ["bpftool", "-j", *words])


def _ask(testbed: Testbed, program: str, argument: object) -> list[Any] | None:
    """Let a small Python program of ours look at the node."""
    words = [testbed.python, "-I", "-S", "-c", program, json.dumps(argument)]
    return _json_list(testbed, words)


def _json_list(testbed: Testbed, argv: Sequence[str]) -> list[Any] | None:
    try:
        shown = testbed.run(argv, role=Role.TRACER, timeout_s=LIST_LIMIT_S)
        entries = json.loads(shown.stdout or "[]") if shown.ok else None
    except NodeLost:
        raise
    except (TestbedError, ValueError):
        return None
    return entries if isinstance(entries, list) else None


def _function_names(testbed: Testbed, links: list[Entry]) -> dict[int, str]:
    """Names of the kernel's functions that links are attached to; what isn't told is left out."""
    wanted = sorted(
        {
            entry["target_btf_id"]
            for entry in links
            if "target_btf_id" in entry and entry.get("target_obj_id") == KERNEL_BTF
        }
    )
    if not wanted:
        return {}
    return dict(_ask(testbed, NAMES_PROGRAM, wanted) or [])


def _perf_places(entry: Entry) -> Iterator[str]:
    kind = entry.get("fd_type")
    for field in ("tracepoint", "func", "filename"):
        if field in entry:
            yield f"{kind} {entry[field]}"
            return


def _link_places(entry: Entry, functions: dict[int, str]) -> Iterator[str]:
    """What a link is attached to; which fields there are depends on its type and on bpftool."""
    kind = entry.get("type")
    retprobe = "ret" if entry.get("retprobe") else ""
    if "tp_name" in entry:
        yield f"{kind} {entry['tp_name']}"
    elif "tracepoint" in entry:
        yield f"tracepoint {entry['tracepoint']}"
    elif "funcs" in entry:
        yield from (f"k{retprobe}probe {each['func']}" for each in entry["funcs"])
    elif "func" in entry:
        yield f"k{retprobe}probe {entry['func']}"
    elif "file" in entry:
        yield f"u{retprobe}probe {entry['file']}"
    elif "target_btf_id" in entry:
        number = entry["target_btf_id"]
        how = str(entry.get("attach_type")).removeprefix("trace_")
        yield f"{how} {functions.get(number, f'BTF id {number}')}"
    elif "attach_type" in entry:
        yield f"{kind} {entry['attach_type']}"
