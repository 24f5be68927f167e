"""Write `bpftrace/*.bt`: what the plugin runs, as files to read, to run by hand and to copy.

    python tools/write_scripts.py

The plugin makes its programs from `pytest_syslat/tracer_script.py`. A test holds the files equal.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pytest_syslat.syscall_catalogue import described_syscalls  # noqa: E402
from pytest_syslat.syscalls import NULL_SYSCALL, OPENAT, SYSCALLS  # noqa: E402
from pytest_syslat.tracer_script import DISTRIBUTION, EVENTS, script, script_name  # noqa: E402


def scripts() -> dict[str, str]:
    """All programs by the names of their files."""
    shipped = [*SYSCALLS.values(), *described_syscalls(ROOT).values()]
    made = {
        script_name(each, mode): script(each, mode)
        for each in shipped
        for mode in (DISTRIBUTION, EVENTS)
    }
    made[script_name(NULL_SYSCALL, DISTRIBUTION)] = script(NULL_SYSCALL, DISTRIBUTION)
    made[script_name(OPENAT, DISTRIBUTION, whole_operation=True)] = script(
        OPENAT, DISTRIBUTION, whole_operation=True
    )
    return made


def main() -> None:
    """Write them all, and the list of them for kustomize."""
    made = scripts()
    for name, text in made.items():
        (ROOT / "bpftrace" / name).write_text(text)
    kustomization = ROOT / "bpftrace" / "kustomization.yaml"
    head, _, rest = kustomization.read_text().partition("    files:\n")
    tail = rest[rest.index("generatorOptions:") :]
    files = "".join(f"      - {name}\n" for name in sorted(made))
    kustomization.write_text(f"{head}    files:\n{files}{tail}")


if __name__ == "__main__":
    main()
