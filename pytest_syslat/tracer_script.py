"""The bpftrace programs: one text for all syscalls, filled in from what the catalogue says.

A program is spoken to by marks: a call that fails, made in the workload's place by a process that
is called `MARK_COMM`. No workload has that name, so whatever a workload's call returns is counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_syslat.syscalls import FILE, OPENAT, SERVER, Syscall

DISTRIBUTION, EVENTS = "distribution", "events"
MARK_COMM = "syslat-mark"
MARKED = 1
"""What stands for a start stamp while a mark is made; no clock has shown it since the boot."""
EFAULT = 14
SEAL = "\n// As made by pytest-syslat, unless changed: "

IN_SCOPE = "cgroup == (uint64)$1"
"""Whose calls count; where no cgroup v2 is, the tracer puts a pid namespace in its place."""
PER_EVENT = (
    "One line a call: latency in ns, return value. Each line wakes bpftrace, which slows the",
    "measured call: prefer the program that counts in the kernel, trace_*.bt.",
)
PER_LATENCY = (
    "Nothing leaves the kernel while calls are measured: a per-CPU counter is kept for each",
    "latency, so no event can be lost and the cost of tracing is small. Latencies are exact below",
    "65,536 ns. Above, they are the middles of steps of at most 1/256, so that the number of keys",
    "stays bounded.",
)
BUCKETS = (
    "$ns = (int64)($end - $start);",
    "if ($ns >= 65536) {",
    "  if ($ns < 1048576) {",
    "    $ns = (($ns >> 8) << 8) + 128;",
    "  } else if ($ns < 16777216) {",
    "    $ns = (($ns >> 12) << 12) + 2048;",
    "  } else if ($ns < 268435456) {",
    "    $ns = (($ns >> 16) << 16) + 32768;",
    "  } else {",
    "    $ns = (($ns >> 20) << 20) + 524288;",
    "  }",
    "}",
)


def script_name(syscall: Syscall, mode: str, *, whole_operation: bool = False) -> str:
    """The file's name: `trace_openat.bt`, `events_openat.bt` or `trace_openat_close.bt`."""
    if mode == EVENTS:
        return f"events_{syscall.name}.bt"
    whole = syscall.operation if whole_operation else None
    return f"trace_{whole or syscall.name}.bt"


def own_script(
    syscall: Syscall, mode: str, rootdir: Path, *, whole_operation: bool = False
) -> Path | None:
    """The user's own program, which takes the place of ours, if there is one.

    A file as we have made it, and nobody has changed, is none: what the catalogue says now counts.
    """
    path = rootdir / "bpftrace" / script_name(syscall, mode, whole_operation=whole_operation)
    return path if path.is_file() and not _is_as_made(path.read_text()) else None


def script(syscall: Syscall, mode: str, *, whole_operation: bool = False) -> str:
    """The bpftrace program of a syscall.

    Args:
        syscall: Which.
        mode: `distribution` (counts in the kernel) or `events` (one line a call).
        whole_operation: Whether the other syscalls of lmbench's operation are summed, too, where
            there is a program for that: of `openat`, unless each call is an event.
    """
    whole = whole_operation and syscall.operation is not None and mode == DISTRIBUTION
    probes = _opened_files(syscall.comm) if syscall.follows_openat else []
    probes += [_entry(syscall), _exit(syscall, mode, whole)]
    if whole:
        probes += _summed_closes()
    if syscall.mark is None:
        probes.append(_marked_by_openat(syscall, mode))
    return _sealed("\n".join([_head(syscall, mode, whole), *probes]))


def attached_events(text: str) -> list[str]:
    """The tracepoints of the group `syscalls` that a bpftrace program attaches to, each once."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    # What follows a pattern is no name.
    return list(dict.fromkeys(re.findall(r"\btracepoint:syscalls:(\w+)(?![\w*?\[])", code)))


def _sealed(text: str) -> str:
    """With a line at the end that tells whether anybody has changed it."""
    return f"{text}{SEAL}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def _is_as_made(text: str) -> bool:
    made, seal, _ = text.rpartition(SEAL)
    return bool(seal) and _sealed(made) == text


def _opened_files(comm: str) -> list[str]:
    """Probes that keep, for each task, the descriptor that its last openat has returned."""
    forget = ["if (@opened[curtask]) {", "  delete(@opened[curtask]);", "}"]
    measured = f'comm == "{comm}" && (args->flags & 0x80000) == 0'
    return [
        _probe(
            OPENAT.events[0],
            _either(measured, ["@opening[curtask] = (uint64)1;"], forget),
            filtered=True,
        ),
        _probe(
            OPENAT.events[1],
            [
                "if (@opening[curtask]) {",
                "  delete(@opening[curtask]);",
                *_indented(
                    _either("args->ret >= 0", ["@opened[curtask] = (uint64)args->ret + 1;"], forget)
                ),
                "}",
            ],
            filtered=True,
        ),
    ]


def _summed_closes() -> list[str]:
    """Probes that sum the closes of files that a counted openat has just opened."""
    return [
        _probe(
            "sys_enter_close",
            [
                "$opened = @opened[curtask];",
                "if ($opened) {",
                "  delete(@opened[curtask]);",
                "  if ((uint64)args->fd + 1 == $opened) {",
                "    @closing[curtask] = nsecs;",
                "  }",
                "}",
            ],
            filtered=True,
        ),
        _probe(
            "sys_exit_close",
            [
                "$end = nsecs;",
                f"if ({IN_SCOPE}) {{",
                "  $start = @closing[curtask];",
                "  if ($start) {",
                "    delete(@closing[curtask]);",
                "    @close_ns = sum((uint64)($end - $start));",
                "    @close_calls = count();",
                "  }",
                "}",
            ],
        ),
    ]


def _entry(syscall: Syscall) -> str:
    stamp = ["@start[curtask] = nsecs;"]
    aside = ["@other = count();", "if (@start[curtask]) {", "  delete(@start[curtask]);", "}"]
    if syscall.follows_openat:
        measured = "@opened[curtask] == (uint64)args->fd + 1"
        inner = _either(measured, ["delete(@opened[curtask]);", *stamp], aside)
    elif syscall.other:
        inner = _either(syscall.other, aside, stamp)
    else:
        inner = stamp
    own_mark = [
        f'}} else if (comm == "{MARK_COMM}") {{',
        f"  @start[curtask] = (uint64){MARKED};",
    ]
    return _probe(
        syscall.events[0],
        [
            f'if (comm == "{syscall.comm}") {{',
            *_indented(inner),
            *(own_mark if syscall.mark is not None else []),
            "} else if (@start[curtask]) {",
            "  delete(@start[curtask]);",
            "}",
        ],
        filtered=True,
    )


def _exit(syscall: Syscall, mode: str, whole: bool) -> str:
    succeeded = f"args->{syscall.success}"
    body = []
    if syscall.task_per_call:
        body += [
            "// Each call has a task of its own: its stamp would stay for ever.",
            "delete(@start[curtask]);",
        ]
    if mode == EVENTS:
        counted = [
            'printf("%lld %lld\\n", (int64)($end - $start), (int64)args->ret);',
            "@total = count();",
        ]
    else:
        body += BUCKETS
        opened = ["@opened[curtask] = (uint64)args->ret + 1;"] if whole else []
        counted = _either(
            succeeded,
            ["@ns[$ns] = count();", "@total = count();", *opened],
            ["@failed[-args->ret, $ns] = count();", "@total = count();"],
        )
    if syscall.mark is None:
        body += counted
    else:
        answer = [
            "// The mark fails; what else the marking process calls is nothing to us.",
            f"if (!({succeeded})) {{",
            *_indented(_printed(syscall, mode, whole)),
            "}",
        ]
        body += _either(f"$start == (uint64){MARKED}", answer, counted)
    in_this_task = " && args->ret != 0" if syscall.returns_in_child else ""
    return _probe(
        syscall.events[1],
        [
            "$end = nsecs;",
            f"if ({IN_SCOPE}{in_this_task}) {{",
            "  $start = @start[curtask];",
            "  if ($start) {",
            *_indented(body, 4),
            "  }",
            "}",
        ],
    )


def _marked_by_openat(syscall: Syscall, mode: str) -> str:
    """The last probe: it is attached when the others are."""
    return _probe(
        OPENAT.events[1],
        [
            f'if (comm == "{MARK_COMM}" && args->ret == -{EFAULT}) {{',
            *_indented(_printed(syscall, mode, whole=False)),
            "}",
        ],
        filtered=True,
    )


def _probe(event: str, body: Sequence[str], *, filtered: bool = False) -> str:
    lines = [
        f"tracepoint:syscalls:{event}",
        *([f"/{IN_SCOPE}/"] if filtered else []),
        "{",
        *_indented(body),
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _either(condition: str, then: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    return [f"if ({condition}) {{", *_indented(then), "} else {", *_indented(otherwise), "}"]


def _indented(lines: Sequence[str], by: int = 2) -> list[str]:
    return [f"{' ' * by}{line}" for line in lines]


def _maps(syscall: Syscall, mode: str, whole: bool) -> list[str]:
    """The maps that a mark prints, the total last."""
    counted = ["@ns", "@failed"] if mode == DISTRIBUTION else []
    counted += ["@close_ns", "@close_calls"] if whole else []
    counted += ["@other"] if syscall.other or syscall.follows_openat else []
    return [*counted, "@total"]


def _printed(syscall: Syscall, mode: str, whole: bool) -> list[str]:
    return [f"print({each});" for each in _maps(syscall, mode, whole)]


def _head(syscall: Syscall, mode: str, whole: bool) -> str:
    name = script_name(syscall, mode, whole_operation=whole)
    command = " ".join(syscall.command).replace(FILE, "FILE").replace(SERVER, "ADDRESS")
    told = {
        "@ns[latency]": ["calls that succeeded"],
        "@failed[errno, latency]": ["calls that failed"],
        "@close_ns, @close_calls": [
            "sum of the latencies of closes, and how many; only those of a",
            "file that a counted openat has just opened",
        ],
        "@other": [syscall.other_calls or "calls that are not the measured ones"],
        "@total": [
            "succeeded and failed calls, counted apart from the rest, so that",
            "what is lost (a full map drops new keys in silence) is noticed",
        ],
    }
    shown = _maps(syscall, mode, whole)
    maps = [
        f"  {label:<25}{line}"
        for each, words in told.items()
        if re.split(r"[\[,]", each)[0] in shown
        for label, line in zip([each, *[""] * len(words)], words, strict=False)
    ]
    by = "such a call that fails" if syscall.mark is not None else "an openat that fails"
    lines = [
        f"{syscall.name}(2) of `{command}`{', and the close of each' if whole else ''}.",
        "",
        f"  bpftrace {name} $(stat -c %i /sys/fs/cgroup/<cgroup of the workload>)",
        "",
        "$1 is the id of the workload's cgroup v2: the name alone would also catch a stranger's",
        f"{syscall.comm}.",
        *(PER_EVENT if mode == EVENTS else PER_LATENCY),
        "",
        *maps,
        "",
        f"The plugin speaks to it by {by}, made by a process called",
        f"{MARK_COMM}: it proves that the probes are attached and prints what was counted so far.",
        "",
        "No BEGIN and END blocks: the build of Ubuntu 22.04 cannot run them.",
    ]
    commented = "".join(f" * {line}".rstrip() + "\n" for line in lines)
    return f"/*\n{commented} */\n"
