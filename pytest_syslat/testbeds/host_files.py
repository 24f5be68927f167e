"""What is read of this host, by whoever looks at it: files, and where programs are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pytest_syslat.testbeds.protocol import FileState, Role, TestbedError
from pytest_syslat.tools import Tool, find_lmbench, find_tool, is_cached, library_path


class HostFiles:
    """The part of a testbed on this host that changes nothing; all roles see the same files."""

    def read(self, path: Path, offset: int = 0, *, role: Role) -> bytes:  # noqa: ARG002
        """The content of a file from `offset` on; raises TestbedError."""
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read()
        except OSError as error:
            raise TestbedError(f"cannot read {path}: {error.strerror}") from error

    def state(self, path: Path, *, role: Role) -> FileState | None:  # noqa: ARG002
        """What is seen of a file."""
        try:
            found = path.stat()
        except OSError:
            return None
        return FileState(
            owner=found.st_uid,
            reader=os.geteuid(),
            mode=stat.S_IMODE(found.st_mode),
            executable=os.access(path, os.X_OK),
        )

    def facts(self) -> dict[str, str]:
        """Nothing that isn't told of every node."""
        return {}

    def find_lmbench(self, chosen: Path | None) -> Path:
        """The directory of lmbench's programs; raises ToolMissing."""
        return find_lmbench(chosen)

    def find_tool(self, name: str) -> Tool | None:
        """A program, installed or in the project's cache."""
        return find_tool(name)

    def libraries_of(self, program: Path) -> dict[str, str]:
        """Cached programs need cached libraries."""
        return library_path() if is_cached(program) else {}
