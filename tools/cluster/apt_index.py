#!/usr/bin/env python3
"""apt_index.py ARCHIVE SUITE: write the index files that make an apt archive of ARCHIVE/pool.

It has the layout of Debian's own (components, and a Release file), but no signature.
"""

import email.utils
import hashlib
import subprocess
import sys
from pathlib import Path

COMPONENTS = ("main", "non-free")


def sha256(path: Path) -> str:
    """Return the sum of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output(*command: str) -> str:
    """Return what a command prints; fail when it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stanza(archive: Path, package: Path) -> tuple[str, str]:
    """Return the component that a package belongs to, and its entry in the index."""
    control = output("dpkg-deb", "--field", str(package)).strip()
    section = next(
        (line.split(":")[1].strip() for line in control.splitlines() if line.startswith("Section")),
        "",
    )
    component = section.partition("/")[0] if "/" in section else "main"
    return component, (
        f"{control}\n"
        f"Filename: {package.relative_to(archive)}\n"
        f"Size: {package.stat().st_size}\n"
        f"SHA256: {sha256(package)}\n"
    )


def main() -> None:
    """Index one archive."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    archive, suite = Path(sys.argv[1]), sys.argv[2]
    architecture = output("dpkg", "--print-architecture").strip()
    stanzas: dict[str, list[str]] = {component: [] for component in COMPONENTS}
    for package in sorted(archive.glob("pool/*.deb")):
        component, text = stanza(archive, package)
        stanzas[component].append(text)

    top = archive / "dists" / suite
    sums = []
    for component in COMPONENTS:
        index = top / component / f"binary-{architecture}" / "Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text("\n".join(stanzas[component]))
        sums.append(f" {sha256(index)} {index.stat().st_size} {index.relative_to(top)}")
    (top / "Release").write_text(
        f"Suite: {suite}\nCodename: {suite}\nArchitectures: {architecture}\n"
        f"Date: {email.utils.formatdate(usegmt=True)}\n"
        f"Components: {' '.join(COMPONENTS)}\nSHA256:\n" + "\n".join(sums) + "\n"
    )


if __name__ == "__main__":
    main()
