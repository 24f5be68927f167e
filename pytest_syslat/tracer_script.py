"""The bpftrace programs: one text for all syscalls, filled in from what the catalogue says.

A program is spoken to by marks: a call that fails, made in the workload's place by a process that
is called `MARK_COMM`. No workload has that name, so whatever a workload's call returns is counted.
"""

from __future__ import annotations

from pathlib import Path

from pytest_syslat.syscalls import FILE, OPENAT, SERVER, Syscall

DISTRIBUTION, EVENTS = "distribution", "events"
MARK_COMM = "syslat-mark"
MARKED = 1
"""What stands for a start stamp while a mark is made; no clock has shown it since the boot."""
EFAULT = 14

BUCKETS = """\
      $ns = (int64)($end - $start);
      if ($ns >= 65536) {
        if ($ns < 1048576) {
          $ns = (($ns >> 8) << 8) + 128;
        } else if ($ns < 16777216) {
          $ns = (($ns >> 12) << 12) + 2048;
        } else if ($ns < 268435456) {
          $ns = (($ns >> 16) << 16) + 32768;
        } else {
          $ns = (($ns >> 20) << 20) + 524288;
        }
      }
"""
FOLLOWS_OPENAT = """\
tracepoint:syscalls:sys_enter_openat
/cgroup == (uint64)$1/
{{
  if (comm == "{comm}" && (args->flags & 0x80000) == 0) {{
    @opening[curtask] = (uint64)1;
  }} else if (@opened[curtask]) {{
    delete(@opened[curtask]);
  }}
}}

tracepoint:syscalls:sys_exit_openat
/cgroup == (uint64)$1/
{{
  if (@opening[curtask]) {{
    delete(@opening[curtask]);
    if (args->ret >= 0) {{
      @opened[curtask] = (uint64)args->ret + 1;
    }} else if (@opened[curtask]) {{
      delete(@opened[curtask]);
    }}
  }}
}}
"""
SUMMED_CLOSE = """\
tracepoint:syscalls:sys_enter_close
/cgroup == (uint64)$1/
{
  $opened = @opened[curtask];
  if ($opened) {
    delete(@opened[curtask]);
    if ((uint64)args->fd + 1 == $opened) {
      @closing[curtask] = nsecs;
    }
  }
}

tracepoint:syscalls:sys_exit_close
{
  $end = nsecs;
  if (cgroup == (uint64)$1) {
    $start = @closing[curtask];
    if ($start) {
      delete(@closing[curtask]);
      @close_ns = sum((uint64)($end - $start));
      @close_calls = count();
    }
  }
}
"""


def script_name(syscall: Syscall, mode: str, *, whole_operation: bool = False) -> str:
    """The file's name: `trace_openat.bt`, `events_openat.bt` or `trace_openat_close.bt`."""
    if mode == EVENTS:
        return f"events_{syscall.name}.bt"
    whole = syscall.operation if whole_operation else None
    return f"trace_{whole or syscall.name}.bt"


def own_script(
    syscall: Syscall, mode: str, rootdir: Path, *, whole_operation: bool = False
) -> Path | None:
    """The user's own program, which takes the place of ours, if there is one."""
    path = rootdir / "bpftrace" / script_name(syscall, mode, whole_operation=whole_operation)
    return path if path.is_file() else None


def script(syscall: Syscall, mode: str, *, whole_operation: bool = False) -> str:
    """The bpftrace program of a syscall.

    Args:
        syscall: Which.
        mode: `distribution` (counts in the kernel) or `events` (one line a call).
        whole_operation: Whether the other syscalls of lmbench's operation are summed, too, where
            there is a program for that: of `openat`, unless each call is an event.
    """
    whole = whole_operation and syscall.operation is not None and mode == DISTRIBUTION
    probes = [FOLLOWS_OPENAT.format(comm=syscall.comm)] if syscall.follows_openat else []
    probes += [_entry(syscall), _exit(syscall, mode, whole)]
    if whole:
        probes.append(SUMMED_CLOSE)
    if syscall.mark is None:
        probes.append(_marked_by_openat(syscall, mode))
    return "\n".join([_head(syscall, mode, whole), *probes])


def _maps(syscall: Syscall, mode: str, whole: bool) -> list[str]:
    """The maps that a mark prints, the total last."""
    counted = ["@ns", "@failed"] if mode == DISTRIBUTION else []
    counted += ["@close_ns", "@close_calls"] if whole else []
    counted += ["@other"] if syscall.other or syscall.follows_openat else []
    return [*counted, "@total"]


def _printed(syscall: Syscall, mode: str, whole: bool, indent: int) -> str:
    return "".join(
        f"{' ' * indent}print({each});\n" for each in _maps(syscall, mode, whole)
    )


def _entry(syscall: Syscall) -> str:
    stamp = "@start[curtask] = nsecs;"
    if syscall.follows_openat:
        condition, delete = "@opened[curtask] == (uint64)args->fd + 1", ["delete(@opened[curtask]);"]
        inner = _if_measured(condition, [*delete, stamp])
    elif syscall.other:
        inner = _if_other(syscall.other, stamp)
    else:
        inner = f"    {stamp}\n"
    own_mark = (
        f'  }} else if (comm == "{MARK_COMM}") {{\n    @start[curtask] = (uint64){MARKED};\n'
        if syscall.mark is not None
        else ""
    )
    return (
        f"tracepoint:syscalls:{syscall.events[0]}\n"
        "/cgroup == (uint64)$1/\n"
        "{\n"
        f'  if (comm == "{syscall.comm}") {{\n'
        f"{inner}"
        f"{own_mark}"
        "  } else if (@start[curtask]) {\n"
        "    delete(@start[curtask]);\n"
        "  }\n"
        "}\n"
    )


FORGET = "      if (@start[curtask]) {\n        delete(@start[curtask]);\n      }\n"


def _if_other(condition: str, stamp: str) -> str:
    return (
        f"    if ({condition}) {{\n"
        "      @other = count();\n"
        f"{FORGET}"
        "    } else {\n"
        f"      {stamp}\n"
        "    }\n"
    )


def _if_measured(condition: str, statements: list[str]) -> str:
    return (
        f"    if ({condition}) {{\n"
        + "".join(f"      {each}\n" for each in statements)
        + "    } else {\n"
        "      @other = count();\n"
        f"{FORGET}"
        "    }\n"
    )


def _exit(syscall: Syscall, mode: str, whole: bool) -> str:
    succeeded = f"args->{syscall.success}"
    in_this_task = " && args->ret != 0" if syscall.returns_in_child else ""
    deleted = (
        "      // Each call has a task of its own: its stamp would stay for ever.\n"
        "      delete(@start[curtask]);\n"
        if syscall.task_per_call
        else ""
    )
    mark = (
        f"      if ($start == (uint64){MARKED}) {{\n"
        "        // The mark fails; what else the marking process calls is nothing to us.\n"
        f"        if (!({succeeded})) {{\n"
        f"{_printed(syscall, mode, whole, 10)}"
        "        }\n"
        if syscall.mark is not None
        else ""
    )
    if mode == EVENTS:
        counted = (
            'printf("%lld %lld\\n", (int64)($end - $start), (int64)args->ret);',
            "@total = count();",
        )
        body = deleted + (
            mark + "      } else {\n" + "".join(f"        {each}\n" for each in counted) + "      }\n"
            if mark
            else "".join(f"      {each}\n" for each in counted)
        )
    else:
        opened = "        @opened[curtask] = (uint64)args->ret + 1;\n" if whole else ""
        first = f"{mark}      }} else if ({succeeded}) {{\n" if mark else f"      if ({succeeded}) {{\n"
        body = (
            f"{deleted}{BUCKETS}{first}"
            "        @ns[$ns] = count();\n"
            "        @total = count();\n"
            f"{opened}"
            "      } else {\n"
            "        @failed[-args->ret, $ns] = count();\n"
            "        @total = count();\n"
            "      }\n"
        )
    return (
        f"tracepoint:syscalls:{syscall.events[1]}\n"
        "{\n"
        "  $end = nsecs;\n"
        f"  if (cgroup == (uint64)$1{in_this_task}) {{\n"
        "    $start = @start[curtask];\n"
        "    if ($start) {\n"
        f"{body}"
        "    }\n"
        "  }\n"
        "}\n"
    )


def _marked_by_openat(syscall: Syscall, mode: str) -> str:
    """The last probe: it is attached when the others are."""
    return (
        f"tracepoint:syscalls:{OPENAT.events[1]}\n"
        "/cgroup == (uint64)$1/\n"
        "{\n"
        f'  if (comm == "{MARK_COMM}" && args->ret == -{EFAULT}) {{\n'
        f"{_printed(syscall, mode, False, 4)}"
        "  }\n"
        "}\n"
    )


def _head(syscall: Syscall, mode: str, whole: bool) -> str:
    name = script_name(syscall, mode, whole_operation=whole)
    command = " ".join(syscall.command).replace(FILE, "FILE").replace(SERVER, "ADDRESS")
    told = {
        "@ns[latency]": "calls that succeeded",
        "@failed[errno, latency]": "calls that failed",
        "@close_ns, @close_calls": "sum of the latencies of closes, and how many; only those of a\n"
        " *                            file that a counted openat has just opened",
        "@other": syscall.other_calls or "calls that are not the measured ones",
        "@total": "succeeded and failed calls, counted apart from the rest, so that\n"
        " *                            what is lost (a full map drops new keys in silence) is noticed",
    }
    if mode == EVENTS:
        told = {each: told[each] for each in ("@other", "@total")}
    shown = _maps(syscall, mode, whole)
    maps = "".join(
        f" *   {each:<24} {words}\n"
        for each, words in told.items()
        if each.split("[")[0].split(",")[0] in shown
    )
    what = (
        " * One line a call: latency in ns, return value. Each line wakes bpftrace, which slows the\n"
        " * measured call: prefer the program that counts in the kernel, trace_*.bt.\n"
        if mode == EVENTS
        else " * Nothing leaves the kernel while calls are measured: a per-CPU counter is kept for each\n"
        " * latency, so no event can be lost and the cost of tracing is small. Latencies are exact\n"
        " * below 65,536 ns. Above, they are the middles of steps of at most 1/256, so that the number\n"
        " * of keys stays bounded.\n"
    )
    by = "such a call that fails" if syscall.mark is not None else "an openat that fails"
    return (
        "/*\n"
        f" * {syscall.name}(2) of `{command}`{', and the close of each' if whole else ''}.\n"
        " *\n"
        f" *   bpftrace {name} $(stat -c %i /sys/fs/cgroup/<cgroup of the workload>)\n"
        " *\n"
        " * $1 is the id of the workload's cgroup v2: the name alone would also catch a stranger's\n"
        f" * {syscall.comm}.\n"
        f"{what}"
        " *\n"
        f"{maps}"
        " *\n"
        f" * The plugin speaks to it by {by}, made by a process called {MARK_COMM}: it proves\n"
        " * that the probes are attached and prints what was counted so far.\n"
        " *\n"
        " * No BEGIN and END blocks: the build of Ubuntu 22.04 cannot run them.\n"
        " */\n"
    )
