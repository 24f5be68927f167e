"""Which syscalls a policy names: our policies are for three, and others can be measured, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_syslat.syscalls import SYSCALLS, Syscall

COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


def names_syscall(policy: str, syscall: Syscall) -> bool:
    """Whether a policy's text, apart from its comments, names a syscall as a word.

    Kernel functions count, too: `sys_close`, `__x64_sys_close`, `sys_enter_close`.
    """
    names = "|".join(map(re.escape, {syscall.name, syscall.tracepoint}))
    word = rf"(?<![A-Za-z0-9_])(\w*sys_(enter_|exit_)?)?({names})(?![A-Za-z0-9_])"
    return re.search(word, COMMENT.sub("", policy)) is not None


def silent_policies(
    policies: Mapping[str, Path], syscalls: Iterable[Syscall]
) -> dict[tuple[str, str], str]:
    """What is to be said of arms whose policy is about other syscalls than are measured.

    Args:
        policies: The file of each arm's policy; arms without one are not in it.
        syscalls: What is measured; the built-in ones are those that our policies are for.

    Returns:
        A sentence by arm and syscall.
    """
    added = [each for each in syscalls if each.name not in SYSCALLS]
    return {
        (arm, each.name): f"the policy of {arm} ({file.name}) does not name {each}: its overhead "
        "here is that of hooks which it has for every call, at entry, exit or inside"
        for arm, file in policies.items()
        for each in added
        if not names_syscall(file.read_text(errors="replace"), each)
    }
