from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_syslat.bpf_programs import (
    HOLDERS_PROGRAM,
    NAMES_PROGRAM,
    BpfProgram,
    list_programs,
)
from pytest_syslat.testbeds.protocol import Completed, NodeLost, Role, Testbed, TestbedError

# What bpftool 7.1 printed of bpftrace 0.17 on three tracepoints, shortened by what isn't read.
PROGRAMS_7_1 = [
    {"id": 13109, "type": "tracepoint", "name": "sys_enter_opena", "loaded_at": 1795383643},
    {"id": 13108, "type": "tracepoint", "name": "sys_exit_openat", "loaded_at": 1795383643}
    | {"run_time_ns": 3060, "run_cnt": 12},
    {"id": 13111, "type": "perf_event", "name": "1", "loaded_at": 1795383643},
]
PERF_7_1 = [
    {"pid": 19992, "fd": 13, "prog_id": 13108}
    | {"fd_type": "tracepoint", "tracepoint": "sys_exit_openat"},
    {"pid": 19992, "fd": 15, "prog_id": 13109}
    | {"fd_type": "tracepoint", "tracepoint": "sys_enter_openat"},
]
# The same of bpftrace 0.27, by bpftool 7.1 and 7.5.
LINKS_7_1 = [{"id": 206, "type": "perf_event", "prog_id": 13118}]
LINKS_7_5 = [
    {"id": 206, "type": "perf_event", "prog_id": 13118}
    | {"tracepoint": "sys_exit_openat", "cookie": 0},
    {"id": 209, "type": "perf_event", "prog_id": 13122}
    | {"event_type": 6, "event_config": 0, "cookie": 0},
]


class FakeTestbed:
    """A node whose bpftool prints what the test wants, and whose processes hold what it wants."""

    python = "python3"

    def __init__(self, **printed: object) -> None:
        answers: dict[str, object] = {"prog": [], "link": [], "perf": [], "cgroup": []}
        self.answers = {**answers, "held": [], "names": [], **printed}
        self.known: object = None
        self.asked: object = None

    def run(self, argv: Sequence[str], *, role: Role, timeout_s: float) -> Completed:
        assert role is Role.TRACER
        if argv[0] == "bpftool":
            assert argv[1] == "-j"
            assert argv[3] == ("tree" if argv[2] == "cgroup" else "show")
            answer = self.answers[argv[2]]
        elif argv[-2] == HOLDERS_PROGRAM:
            self.known = json.loads(argv[-1])
            answer = self.answers["held"]
        else:
            assert argv[-2] == NAMES_PROGRAM
            self.asked = json.loads(argv[-1])
            answer = self.answers["names"]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return Completed(tuple(argv), 255, "", "Error: no permission")
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Completed(tuple(argv), 0, text, "")


def listed(testbed: FakeTestbed) -> list[BpfProgram] | None:
    return list_programs(cast("Testbed", testbed))


def places(link: dict[str, Any], **printed: object) -> tuple[str, ...]:
    """What a program of one link is attached to."""
    testbed = FakeTestbed(prog=[{"id": 9, "type": "x"}], link=[{"prog_id": 9} | link], **printed)
    [program] = listed(testbed) or []
    return program.attached_to


def test_nothing_is_loaded() -> None:
    assert listed(FakeTestbed()) == []


def test_tracepoints_of_perf_events() -> None:
    held = [(13108, 19992, "bpftrace"), (13109, 19992, "bpftrace"), (13111, 19992, "bpftrace")]
    testbed = FakeTestbed(prog=PROGRAMS_7_1, perf=PERF_7_1, held=held)
    holders = ((19992, "bpftrace"),)
    event = "tracepoint sys_exit_openat"
    assert listed(testbed) == [
        BpfProgram(13108, "tracepoint", "sys_exit_openat", (event,), holders, 12, 3060),
        BpfProgram(
            *(13109, "tracepoint", "sys_enter_opena", ("tracepoint sys_enter_openat",), holders),
            runs=None,
            run_time_ns=None,
        ),
        BpfProgram(13111, "perf_event", "1", (), holders, None, None),
    ]
    # A process that holds the event alone is known from bpftool.
    assert testbed.known == [[13108, 19992], [13109, 19992]]


@pytest.mark.parametrize("links", [LINKS_7_1, LINKS_7_5])
def test_a_link_to_the_same_event_says_the_same(links: list[dict[str, Any]]) -> None:
    perf = [{"pid": 5, "fd": 19, "prog_id": 13118}]
    perf[0] |= {"fd_type": "tracepoint", "tracepoint": "sys_exit_openat"}  # type: ignore[dict-item]
    testbed = FakeTestbed(prog=[{"id": 13118, "type": "tracepoint"}], link=links, perf=perf)
    [program] = listed(testbed) or []
    assert program.attached_to == ("tracepoint sys_exit_openat",)
    assert program.holders == ()


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"fd_type": "kprobe", "func": "do_sys_openat2", "offset": 0}, "kprobe do_sys_openat2"),
        ({"fd_type": "kretprobe", "func": "tcp_v4_connect"}, "kretprobe tcp_v4_connect"),
        ({"fd_type": "uprobe", "filename": "/bin/bash", "offset": 4}, "uprobe /bin/bash"),
        ({"fd_type": "raw_tracepoint", "tracepoint": "sys_enter"}, "raw_tracepoint sys_enter"),
    ],
)
def test_other_perf_events(entry: dict[str, Any], place: str) -> None:
    perf = [{"pid": 5, "fd": 6, "prog_id": 9} | entry]
    [program] = listed(FakeTestbed(prog=[{"id": 9, "type": "kprobe"}], perf=perf)) or []
    assert program.attached_to == (place,)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ({"type": "raw_tracepoint", "tp_name": "sys_enter"}, ("raw_tracepoint sys_enter",)),
        (
            {"type": "perf_event", "retprobe": False, "addr": 1, "func": "do_exit", "offset": 0},
            ("kprobe do_exit",),
        ),
        (
            {"type": "perf_event", "retprobe": True, "addr": 1, "func": "do_exit", "offset": 0},
            ("kretprobe do_exit",),
        ),
        (
            {"type": "perf_event", "retprobe": True, "file": "/bin/bash", "offset": 8},
            ("uretprobe /bin/bash",),
        ),
        (
            {"type": "kprobe_multi", "retprobe": False, "func_cnt": 2}
            | {"funcs": [{"addr": 1, "func": "b"}, {"addr": 2, "func": "a"}]},
            ("kprobe a", "kprobe b"),
        ),
        (
            {"type": "cgroup", "cgroup_id": 1, "attach_type": "cgroup_inet4_connect"},
            ("cgroup cgroup_inet4_connect",),
        ),
        ({"type": "xdp", "ifindex": 2}, ()),
    ],
)
def test_links(link: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert places(link) == expected


def test_functions_of_the_kernel_are_named() -> None:
    testbed = FakeTestbed(
        prog=[{"id": number, "type": "tracing"} for number in (1, 2, 3)],
        link=[
            {"type": "tracing", "prog_id": 1, "attach_type": "trace_fentry"}
            | {"target_obj_id": 1, "target_btf_id": 50000},
            {"type": "tracing", "prog_id": 2, "attach_type": "lsm_mac"}
            | {"target_obj_id": 1, "target_btf_id": 60000},
            # A module has numbers of its own.
            {"type": "tracing", "prog_id": 3, "attach_type": "trace_fexit"}
            | {"target_obj_id": 7, "target_btf_id": 50000 + 1},
        ],
        names=[[50000, "security_file_open"], [60000, "bpf_lsm_file_open"]],
    )
    assert [each.attached_to for each in listed(testbed) or []] == [
        ("fentry security_file_open",),
        ("lsm_mac bpf_lsm_file_open",),
        ("fexit BTF id 50001",),
    ]
    assert testbed.asked == [50000, 60000]


def test_a_kernel_that_does_not_tell_names() -> None:
    link = {"type": "tracing", "attach_type": "trace_fentry", "target_obj_id": 1}
    assert places(link | {"target_btf_id": 50000}, names=None) == ("fentry BTF id 50000",)


def test_cgroups_without_a_link() -> None:
    programs = [{"id": 7, "attach_type": "connect4", "attach_flags": "multi", "name": "sock4"}]
    tree = [{"cgroup": "/sys/fs/cgroup/a", "programs": programs}] * 2
    testbed = FakeTestbed(prog=[{"id": 7, "type": "cgroup_sock_addr"}], cgroup=tree)
    [program] = listed(testbed) or []
    assert program.attached_to == ("cgroup connect4",)


def test_without_cgroup_v2_the_rest_is_told() -> None:
    [program] = listed(FakeTestbed(prog=[{"id": 7, "type": "x"}], cgroup=None)) or []
    assert program.attached_to == ()


def test_several_holders() -> None:
    held = [(7, 20, "agent"), (7, 21, "agent"), (8, 20, "agent")]
    [program] = listed(FakeTestbed(prog=[{"id": 7, "type": "lsm"}], held=held)) or []
    assert program.holders == ((20, "agent"), (21, "agent"))


@pytest.mark.parametrize("source", ["prog", "link", "perf", "held"])
@pytest.mark.parametrize(
    "answer", [None, "{", '{"error": "no permission"}', "null", TestbedError("cannot run bpftool")]
)
def test_one_source_that_fails_tells_nothing(source: str, answer: object) -> None:
    assert listed(FakeTestbed(**{source: answer})) is None


def test_no_answer_at_all_is_an_empty_list() -> None:
    """So some versions of bpftool say that there is nothing."""
    assert listed(FakeTestbed(prog="", link="", perf="")) == []


def test_a_lost_node_is_reported() -> None:
    with pytest.raises(NodeLost):
        listed(FakeTestbed(link=NodeLost("the node is gone")))


def run_here(program: str, argument: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, json.dumps(argument)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_names_of_holders_are_looked_up() -> None:
    own = Path("/proc/self").resolve().name
    comm = Path("/proc/self/comm").read_text().strip()
    found = run_here(HOLDERS_PROGRAM, [[4_000_000_001, int(own)], [4_000_000_002, 2**22]])
    assert [each for each in found if each[0] > 4_000_000_000] == [
        [4_000_000_001, int(own), comm],
        [4_000_000_002, 2**22, "a process that has ended"],
    ]


def test_types_of_every_size_are_stepped_over(tmp_path: Path) -> None:
    """Each kind of type has a length of its own: a wrong one would shift all later numbers."""
    # Kind, number of members, and how many bytes follow the first twelve (Linux: BTF format).
    kinds = [
        *((1, 0, 4), (2, 0, 0), (3, 0, 12), (4, 2, 24), (5, 1, 12), (6, 3, 24), (7, 0, 0)),
        *((8, 0, 0), (9, 0, 0), (10, 0, 0), (11, 0, 0), (13, 2, 16), (14, 0, 4), (15, 2, 24)),
        *((16, 0, 0), (17, 0, 4), (18, 0, 0), (19, 2, 24), (12, 0, 0)),
    ]
    strings, types = b"\0", b""
    for kind, members, size in kinds:
        types += struct.pack("<III", len(strings), kind << 24 | members, 0) + b"\xff" * size
        strings += f"kind{kind}\0".encode()
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    file = tmp_path / "vmlinux"
    file.write_bytes(header + types + strings)
    program = NAMES_PROGRAM.replace("/sys/kernel/btf/vmlinux", str(file))
    assert run_here(program, [1, 5, len(kinds), len(kinds) + 1]) == [
        [1, "kind1"],
        [5, "kind5"],
        [len(kinds), "kind12"],
    ]
