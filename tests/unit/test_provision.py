"""tools/provision.sh, run against made-up systems.

Every run sees only the programs of a directory made here, a system root made here and a cache
directory made here. Where packages are to be downloaded, a stub stands in for apt-get, or the
real one reads a package archive made here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "provision.sh"

LMBENCH_PROGRAMS = (
    "lat_syscall",
    "lat_proc",
    "lat_connect",
    "hello",
    "enough",
    "timing_o",
    "loop_o",
)
TOOLS = ("bpftrace", "bpftool", "lat_syscall", "auditctl", "auditd")
OBSERVERS = ("opensnoop", "execsnoop")
BROWSER = ("chromium", "chromedriver")
BASE_PROGRAMS = (
    "awk",
    "cat",
    "chmod",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "flock",
    "grep",
    "head",
    "id",
    "ldd",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "tar",
)
APT_PROGRAMS = ("apt-cache", "apt-config", "apt-get")

DEBIAN = "ID=debian\nVERSION_CODENAME=bookworm\n"
UBUNTU = 'NAME="Ubuntu"\nID=ubuntu\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n'

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class System:
    """A made-up system: the programs on its PATH, its root and the cache directory."""

    programs: Path
    root: Path
    cache: Path

    def stub(self, name: str, body: str = "exit 0") -> None:
        write_program(self.programs / name, body)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.programs),
            "HOME": str(self.cache / "home"),
            "SYSLAT_ROOT": str(self.root),
            "SYSLAT_CACHE_DIR": str(self.cache),
        }

    def provision(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def log_apt_get(self, body: str = "exit 0") -> Path:
        """Put a stub in the place of apt-get; return the file that will name its commands."""
        log = self.root / "apt-get.log"
        commands = "update install download"
        self.stub(
            "apt-get",
            f'for word in "$@"; do for command in {commands}; do\n'
            f'[ "$word" = "$command" ] && echo "$*" >>{log} && break 2\ndone; done\n{body}',
        )
        return log

    def entries_in_cache(self) -> set[str]:
        if not self.cache.exists():
            return set()
        return {entry.name for entry in self.cache.iterdir()} - {"tools.lock"}


def write_program(path: Path, body: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # It may be a link to the real program, which must not be written to.
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def link_programs(directory: Path, *names: str) -> None:
    for name in names:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"this system has no {name}")
        (directory / name).symlink_to(program)


def unpack_by_hand(cache: Path) -> Path:
    """Make what a complete run leaves in the cache; return the directory of lmbench's programs."""
    lmbench = cache / "tools/usr/lib/lmbench/bin/some-linux-gnu"
    for name in LMBENCH_PROGRAMS:
        write_program(lmbench / name)
    for name in ("auditd", "auditctl"):
        write_program(cache / "tools/sbin" / name)
    return lmbench


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The error lines of a run; there must be no other line after the first one."""
    lines = result.stderr.splitlines()
    first = next((n for n, line in enumerate(lines) if "error:" in line), len(lines))
    return lines[first:]


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A Debian system with no tool for measuring, whose cache directory does not exist."""
    system = System(tmp_path / "programs", tmp_path / "root", tmp_path / "cache")
    system.programs.mkdir()
    link_programs(system.programs, *BASE_PROGRAMS)
    system.write("etc/os-release", DEBIAN)
    system.write(
        "etc/apt/sources.list", "deb http://mirror.example.org/debian bookworm main contrib\n"
    )
    return system


def with_tools(system: System, *names: str) -> System:
    for name in names:
        system.stub(name)
    return system


class TestCheck:
    def test_bare_system_lacks_everything_and_stays_as_it_is(self, system: System) -> None:
        result = system.provision("--check")
        assert result.returncode == 1
        assert result.stdout.splitlines() == [
            "missing  bpftrace",
            "missing  bpftool",
            "missing  lmbench",
            "missing  auditd",
        ]
        assert not system.cache.exists()

    def test_programs_on_path_are_enough(self, system: System) -> None:
        result = with_tools(system, *TOOLS).provision("--check")
        assert result.returncode == 0
        assert f"ok       lmbench   {system.programs}/lat_syscall\n" in result.stdout
        assert "missing" not in result.stdout

    @pytest.mark.parametrize(
        ("absent", "reported"),
        [
            ("bpftrace", "bpftrace"),
            ("bpftool", "bpftool"),
            ("lat_syscall", "lmbench"),
            ("auditd", "auditd"),
            ("auditctl", "auditd"),
        ],
    )
    def test_names_the_one_that_is_missing(
        self, system: System, absent: str, reported: str
    ) -> None:
        result = with_tools(system, *(set(TOOLS) - {absent})).provision("--check")
        assert result.returncode == 1
        missing = [line for line in result.stdout.splitlines() if line.startswith("missing")]
        assert missing == [f"missing  {reported}"]

    def test_finds_programs_that_a_users_path_does_not_name(self, system: System) -> None:
        with_tools(system, "bpftrace")
        sbin = system.root / "usr/sbin"
        for name in ("bpftool", "auditd", "auditctl"):
            write_program(sbin / name)
        lat_syscall = system.root / "usr/lib/lmbench/bin/some-linux-gnu/lat_syscall"
        write_program(lat_syscall)
        result = system.provision("--check")
        assert result.returncode == 0
        assert f"bpftool   {sbin}/bpftool\n" in result.stdout
        assert f"lmbench   {lat_syscall}\n" in result.stdout
        assert f"auditd    {sbin}/auditd\n" in result.stdout

    def test_finds_unpacked_programs(self, system: System) -> None:
        lmbench = unpack_by_hand(system.cache)
        result = with_tools(system, "bpftrace", "bpftool").provision("--check")
        assert result.returncode == 0
        assert f"lmbench   {lmbench}\n" in result.stdout
        assert f"auditd    {system.cache}/tools/sbin\n" in result.stdout

    @pytest.mark.parametrize("absent", LMBENCH_PROGRAMS)
    def test_unpacked_lmbench_must_be_complete(self, system: System, absent: str) -> None:
        lmbench = unpack_by_hand(system.cache)
        (lmbench / absent).chmod(0o644)
        result = with_tools(system, "bpftrace", "bpftool").provision("--check")
        assert result.returncode == 1
        assert "missing  lmbench\n" in result.stdout

    def test_bpftool_is_optional_on_ubuntu(self, system: System) -> None:
        system.write("etc/os-release", UBUNTU)
        result = with_tools(system, *(set(TOOLS) - {"bpftool"})).provision("--check")
        assert result.returncode == 0
        assert "missing  bpftool   (optional)\n" in result.stdout


def parse_stanzas(text: str) -> list[dict[str, str]]:
    """Read deb822 text; every value's white space becomes single spaces."""
    stanzas = []
    for paragraph in text.strip().split("\n\n"):
        stanza: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith((" ", "\t")):
                stanza[name] += " " + line
            else:
                name, _, value = line.partition(":")
                name = name.lower()
                assert name not in stanza
                stanza[name] = value
        stanzas.append({key: " ".join(value.split()) for key, value in stanza.items()})
    return stanzas


class TestSources:
    def sources(self, system: System) -> list[dict[str, str]]:
        result = system.provision("--sources")
        assert result.returncode == 0, result.stderr
        return parse_stanzas(result.stdout)

    def test_debian_in_deb822_format(self, system: System) -> None:
        (system.root / "etc/apt/sources.list").unlink()
        system.write(
            "etc/apt/sources.list.d/debian.sources",
            f"""\
            # The installer wrote this.
            Types: deb deb-src
            # a comment between two fields
            URIs: https://mirror.example.org/debian/
            Suites: bookworm bookworm-updates
            Components: main
            Signed-By: {DEBIAN_KEYRING}

            Types: deb
            URIs: https://mirror.example.org/debian-security
            Suites: bookworm-security
            Components: main
            Signed-By: {DEBIAN_KEYRING}
            """,
        )
        assert self.sources(system) == [
            {
                "types": "deb",
                "uris": "https://mirror.example.org/debian/",
                "suites": "bookworm",
                "components": "main non-free",
                "signed-by": DEBIAN_KEYRING,
            }
        ]

    def test_ubuntu_in_one_line_format(self, system: System) -> None:
        system.write("etc/os-release", UBUNTU)
        system.write(
            "etc/apt/sources.list",
            """\
            # See the release notes.
            deb http://mirror.example.org/ubuntu/ noble main restricted
            # deb-src http://mirror.example.org/ubuntu/ noble main restricted
            deb http://mirror.example.org/ubuntu/ noble-updates main restricted
            deb http://other.example.org/ubuntu/ noble universe  # beside main
            """,
        )
        assert self.sources(system) == [
            {
                "types": "deb",
                "uris": "http://mirror.example.org/ubuntu/",
                "suites": "noble",
                "components": "main universe multiverse",
            }
        ]

    def test_options_of_a_line_are_kept(self, system: System) -> None:
        system.write(
            "etc/apt/sources.list",
            f"deb [ arch=amd64,arm64 signed-by={DEBIAN_KEYRING} check-valid-until=no ] "
            "http://mirror.example.org/debian bookworm main\n",
        )
        assert self.sources(system) == [
            {
                "types": "deb",
                "uris": "http://mirror.example.org/debian",
                "suites": "bookworm",
                "components": "main non-free",
                "architectures": "amd64 arm64",
                "signed-by": DEBIAN_KEYRING,
                "check-valid-until": "no",
            }
        ]

    def test_values_over_several_lines_are_kept(self, system: System) -> None:
        (system.root / "etc/apt/sources.list").unlink()
        system.write(
            "etc/apt/sources.list.d/debian.sources",
            """\
            Types: deb
            URIs:
             http://one.example.org/debian
             http://two.example.org/debian
            Suites: bookworm
            Components: main
            Signed-By:
             -----BEGIN PGP PUBLIC KEY BLOCK-----
             .
             mDMEZ
             -----END PGP PUBLIC KEY BLOCK-----
            """,
        )
        (stanza,) = self.sources(system)
        assert stanza["uris"] == "http://one.example.org/debian http://two.example.org/debian"
        assert stanza["signed-by"] == (
            "-----BEGIN PGP PUBLIC KEY BLOCK----- . mDMEZ -----END PGP PUBLIC KEY BLOCK-----"
        )

    @pytest.mark.parametrize("disabled", ["no", "No", "false", "0"])
    def test_disabled_entries_are_skipped(self, system: System, disabled: str) -> None:
        system.write(
            "etc/apt/sources.list",
            "# deb http://commented.example.org/debian bookworm main\n"
            "#deb http://commented.example.org/debian bookworm main\n",
        )
        system.write(
            "etc/apt/sources.list.d/debian.sources",
            f"""\
            Enabled: {disabled}
            Types: deb
            URIs: http://disabled.example.org/debian
            Suites: bookworm
            Components: main
            Signed-By: {DEBIAN_KEYRING}

            Types: deb
            URIs: http://enabled.example.org/debian
            Suites: bookworm
            Components: main
            Signed-By: {DEBIAN_KEYRING}
            """,
        )
        system.write(
            "etc/apt/sources.list.d/debian.list.disabled",
            "deb http://renamed.example.org/debian bookworm main\n",
        )
        assert [stanza["uris"] for stanza in self.sources(system)] == [
            "http://enabled.example.org/debian"
        ]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            pytest.param(
                "sources.list",
                "deb [signed-by=/etc/apt/keyrings/engine.asc] "
                "https://engine.example.com/linux/debian bookworm main\n",
                id="own key",
            ),
            pytest.param(
                "sources.list.d/engine.list",
                "deb https://engine.example.com/linux/debian bookworm main\n",
                id="own file",
            ),
            pytest.param(
                "sources.list.d/engine.sources",
                "Types: deb\nURIs: https://engine.example.com/debian\nSuites: bookworm\n"
                "Components: main\nSigned-By: /etc/apt/keyrings/engine.asc\n",
                id="own stanza",
            ),
            pytest.param(
                "sources.list",
                "deb https://engine.example.com/debian bookworm stable\n",
                id="other component",
            ),
            pytest.param(
                "sources.list",
                "deb https://engine.example.com/someone/ppa/debian bookworm main\n",
                id="personal archive",
            ),
            pytest.param(
                "sources.list", "deb cdrom:[Debian]/ bookworm main\n", id="installation disc"
            ),
            pytest.param(
                "sources.list",
                "deb-src http://mirror.example.org/debian bookworm main\n",
                id="source code",
            ),
            pytest.param(
                "sources.list",
                "deb http://mirror.example.org/debian trixie main\n"
                "deb http://mirror.example.org/debian bookworm-backports main\n",
                id="other suite",
            ),
        ],
    )
    def test_other_archives_are_skipped(self, system: System, name: str, text: str) -> None:
        own = system.root / "etc/apt/sources.list"
        own.rename(own.parent / "own.txt")
        system.write(f"etc/apt/{name}", text)
        alone = system.provision("--sources")
        assert alone.returncode == 1
        assert alone.stdout == ""
        (error,) = errors(alone)
        assert "no entry for the suite 'bookworm' of debian's own archive" in error

        system.write(
            "etc/apt/sources.list.d/debian.list",
            "deb http://mirror.example.org/debian bookworm main\n",
        )
        assert [stanza["uris"] for stanza in self.sources(system)] == [
            "http://mirror.example.org/debian"
        ]

    def test_the_distributions_key_outweighs_everything(self, system: System) -> None:
        system.write("etc/apt/sources.list", "deb http://guess.example.org/debian bookworm main\n")
        system.write(
            "etc/apt/sources.list.d/company.sources",
            f"""\
            Types: deb
            URIs: http://sure.example.org/copy
            Suites: bookworm
            Components: main contrib
            Signed-By: {DEBIAN_KEYRING}
            """,
        )
        assert [stanza["uris"] for stanza in self.sources(system)] == [
            "http://sure.example.org/copy"
        ]

    def test_one_archive_named_twice_is_used_once(self, system: System) -> None:
        line = "deb http://mirror.example.org/debian bookworm {}\n"
        system.write("etc/apt/sources.list", line.format("main") + line.format("main contrib"))
        assert len(self.sources(system)) == 1

    def test_reads_no_distribution_that_it_does_not_know(self, system: System) -> None:
        system.write("etc/os-release", "ID=fedora\nVERSION_CODENAME=bookworm\n")
        result = system.provision("--sources")
        assert result.returncode == 1
        assert errors(result) == [
            "provision: error: unknown distribution 'fedora': only Debian and Ubuntu are known"
        ]


class TestSystemPackages:
    @pytest.fixture
    def lacking_bpf(self, system: System) -> System:
        unpack_by_hand(system.cache)
        system.stub("id", "echo 0")
        return system

    def commands(self, log: Path) -> list[str]:
        known = ("update", "install")
        return [
            " ".join(
                word
                for word in line.split()
                if word in known or word.startswith(("bpf", "linux-", "chromium"))
            )
            for line in log.read_text().splitlines()
        ]

    def test_nothing_is_run_when_all_is_there(self, system: System) -> None:
        log = with_tools(system, *TOOLS).log_apt_get()
        result = system.provision()
        assert result.returncode == 0
        assert result.stdout + result.stderr == ""
        assert not log.exists()
        assert not system.cache.exists()

    def test_the_browser_is_for_tests_only(self, system: System) -> None:
        system.write("var/lib/apt/lists/mirror_Packages", "")
        log = with_tools(system, *TOOLS, *OBSERVERS).log_apt_get()
        assert system.provision().returncode == 0
        assert not log.exists()
        result = system.provision("--for-tests")
        assert result.returncode == 0, result.stderr
        assert self.commands(log) == ["install chromium chromium-driver"]

    @pytest.mark.parametrize("browser", ["chromium", "google-chrome"])
    def test_a_browser_that_is_there_is_enough(self, system: System, browser: str) -> None:
        log = with_tools(system, *TOOLS, *OBSERVERS, browser, "chromedriver").log_apt_get()
        result = system.provision("--for-tests")
        assert (result.returncode, result.stderr) == (0, "")
        assert not log.exists()

    @pytest.mark.parametrize("why", ["apt fails", "an ordinary user", "no such package"])
    def test_without_a_browser_tests_are_skipped(self, system: System, why: str) -> None:
        with_tools(system, *TOOLS, *OBSERVERS).log_apt_get("exit 100")
        if why == "an ordinary user":
            system.stub("id", "echo 1000")
        if why == "no such package":
            system.write("etc/os-release", UBUNTU)
        result = system.provision("--for-tests")
        assert result.returncode == 0, result.stderr
        warning = "provision: warning: no chromium and chromedriver: some tests are skipped"
        assert result.stderr.splitlines()[-1] == warning

    def test_lists_are_fetched_only_when_absent(self, lacking_bpf: System) -> None:
        log = lacking_bpf.log_apt_get()
        assert lacking_bpf.provision().returncode == 0
        assert self.commands(log) == ["update", "install bpftrace bpftool"]

        log.unlink()
        lacking_bpf.write("var/lib/apt/lists/mirror_main_binary-amd64_Packages.lz4", "")
        assert lacking_bpf.provision().returncode == 0
        assert self.commands(log) == ["install bpftrace bpftool"]
        assert "--no-install-recommends" in log.read_text()

    def test_only_what_is_missing_is_installed(self, lacking_bpf: System) -> None:
        lacking_bpf.write("var/lib/apt/lists/mirror_Packages", "")
        log = with_tools(lacking_bpf, "bpftrace").log_apt_get()
        assert lacking_bpf.provision().returncode == 0
        assert self.commands(log) == ["install bpftool"]

    def test_outdated_lists_are_renewed_after_a_failure(self, lacking_bpf: System) -> None:
        lacking_bpf.write("var/lib/apt/lists/mirror_Packages", "")
        updated = lacking_bpf.root / "updated"
        log = lacking_bpf.log_apt_get(
            f'case "$*" in *update*) : >{updated} ;; *) [ -e {updated} ] ;; esac'
        )
        assert lacking_bpf.provision().returncode == 0
        assert self.commands(log) == [
            "install bpftrace bpftool",
            "update",
            "install bpftrace bpftool",
        ]

    def test_failure_is_reported(self, lacking_bpf: System) -> None:
        lacking_bpf.log_apt_get("exit 100")
        result = lacking_bpf.provision()
        assert result.returncode == 1
        (error,) = errors(result)
        assert "could not install bpftrace bpftool" in error

    def test_ordinary_user_is_told_the_command(self, lacking_bpf: System) -> None:
        lacking_bpf.stub("id", "echo 1000")
        log = lacking_bpf.log_apt_get()
        result = lacking_bpf.provision()
        assert result.returncode == 1
        (error,) = errors(result)
        assert "'sudo apt-get install --no-install-recommends bpftrace bpftool'" in error
        assert not log.exists()

    def test_ubuntu_without_bpftool_is_a_warning(self, lacking_bpf: System) -> None:
        lacking_bpf.write("etc/os-release", UBUNTU)
        lacking_bpf.write("var/lib/apt/lists/mirror_Packages", "")
        log = with_tools(lacking_bpf, "bpftrace").log_apt_get("exit 100")
        result = lacking_bpf.provision()
        assert result.returncode == 0
        assert "warning: no bpftool" in result.stderr
        assert self.commands(log) == ["install linux-tools-common", "update"]


@dataclass
class Archive:
    """A package archive in a directory, as apt reads it by a file: address."""

    directory: Path
    architecture: str

    def __post_init__(self) -> None:
        self.indexes = {"main": "", "non-free": ""}

    def add(
        self, component: str, name: str, depends: str = "", programs: dict[str, str] | None = None
    ) -> None:
        """Add a package of these programs, given as path and body; it is documented, too."""
        tree = self.directory / "trees" / name
        for path, body in (programs or {}).items():
            write_program(tree / path, body)
        documentation = tree / "usr/share/doc" / name
        documentation.mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: 1.0\nArchitecture: {self.architecture}\n"
            f"Maintainer: Nobody <nobody@example.org>\nDescription: made for a test\n"
        )
        if depends:
            control += f"Depends: {depends}\n"
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control)
        package = self.directory / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, package],
            check=True,
            capture_output=True,
        )
        content = package.read_bytes()
        self.indexes[component] += (
            f"{control}Filename: {package.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n"
        )

    def publish(self) -> None:
        suite = self.directory / "dists/bookworm"
        sums = ""
        for component, index in self.indexes.items():
            path = f"{component}/binary-{self.architecture}/Packages"
            (suite / path).parent.mkdir(parents=True)
            (suite / path).write_text(index)
            digest = hashlib.sha256(index.encode()).hexdigest()
            sums += f" {digest} {len(index)} {path}\n"
        (suite / "Release").write_text(
            "Origin: Debian\nSuite: bookworm\nCodename: bookworm\n"
            "Date: Sat, 10 Jun 2023 08:53:33 UTC\n"
            f"Architectures: {self.architecture}\nComponents: main non-free\nSHA256:\n{sums}"
        )


class TestUnpack:
    @pytest.fixture
    def offline(self, system: System, tmp_path: Path) -> System:
        """A system with the real apt, whose only package source is a directory."""
        link_programs(system.programs, *APT_PROGRAMS)
        with_tools(system, "bpftrace", "bpftool", *BROWSER)
        (system.root / "etc/apt/sources.list").unlink()
        system.write(
            "etc/apt/sources.list.d/debian.sources",
            f"""\
            Types: deb
            URIs: file:{tmp_path}/archive/debian
            Suites: bookworm
            Components: main
            Trusted: yes
            """,
        )
        return system

    @pytest.fixture
    def archive(self, offline: System, tmp_path: Path) -> Archive:
        architecture = subprocess.run(
            ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
        ).stdout.strip()
        archive = Archive(tmp_path / "archive/debian", architecture)
        archive.directory.mkdir(parents=True)
        return archive

    def fill(
        self,
        archive: Archive,
        lmbench: tuple[str, ...] = LMBENCH_PROGRAMS,
        auditctl: str = "exit 0",
        observers: tuple[str, ...] = OBSERVERS,
    ) -> None:
        """Publish the packages with these programs and this body of auditctl."""
        directory = "usr/lib/lmbench/bin/some-linux-gnu"
        archive.add(
            "non-free",
            "lmbench",
            depends="libsyslat-one, libsyslat-dev",
            programs={f"{directory}/{name}": "exit 0" for name in lmbench},
        )
        archive.add(
            "main",
            "auditd",
            depends="libsyslat-one (= 1.0), libsyslat-three | libsyslat-four, libc6, syslat-awk",
            programs={"sbin/auditd": "exit 0", "sbin/auditctl": auditctl},
        )
        if observers:
            archive.add(
                "main",
                "libbpf-tools",
                depends="libsyslat-five",
                programs={f"usr/sbin/{name}": "exit 0" for name in observers},
            )
            archive.add("main", "libsyslat-five")
        archive.add("main", "libsyslat-one", depends="libsyslat-two")
        archive.add("main", "libsyslat-two", depends="libsyslat-one, libc6 (>= 2)")
        archive.add("main", "libsyslat-three")
        archive.add("main", "libsyslat-dev")
        archive.add("main", "syslat-awk")
        archive.add("main", "libc6")
        archive.publish()

    def unpacked(self, system: System) -> set[str]:
        return {entry.name for entry in (system.cache / "tools/usr/share/doc").iterdir()}

    def test_unpacks_programs_and_the_libraries_that_they_lack(
        self, offline: System, archive: Archive
    ) -> None:
        self.fill(archive)
        result = offline.provision()
        assert result.returncode == 0, result.stderr
        assert offline.entries_in_cache() == {"tools"}
        assert self.unpacked(offline) == {
            "auditd",
            "libsyslat-one",
            "libsyslat-two",
            "libsyslat-three",
            "lmbench",
        }
        assert offline.provision("--check").returncode == 0

        # The second run finds all of it: with no archive to read, it could not do it again.
        shutil.rmtree(archive.directory)
        again = offline.provision()
        assert (again.returncode, again.stderr) == (0, "")

    def test_takes_no_package_that_the_system_has(self, offline: System, archive: Archive) -> None:
        self.fill(archive)
        with_tools(offline, "auditd", "auditctl")
        result = offline.provision()
        assert result.returncode == 0, result.stderr
        assert self.unpacked(offline) == {"libsyslat-one", "libsyslat-two", "lmbench"}

    def test_replaces_an_incomplete_tree(self, offline: System, archive: Archive) -> None:
        self.fill(archive)
        lmbench = unpack_by_hand(offline.cache)
        (lmbench / "lat_proc").unlink()
        leftover = offline.cache / "tools.new.killed"
        leftover.mkdir()
        result = offline.provision()
        assert result.returncode == 0, result.stderr
        assert offline.provision("--check").returncode == 0
        assert offline.entries_in_cache() == {"tools"}

    def test_observers_are_for_tests_only(self, offline: System, archive: Archive) -> None:
        self.fill(archive)
        assert offline.provision().returncode == 0
        assert "libbpf-tools" not in self.unpacked(offline)

        result = offline.provision("--for-tests")
        assert result.returncode == 0, result.stderr
        assert "warning" not in result.stderr
        everything = {
            "auditd",
            "libbpf-tools",
            "libsyslat-five",
            "libsyslat-one",
            "libsyslat-two",
            "libsyslat-three",
            "lmbench",
        }
        assert self.unpacked(offline) == everything
        for name in OBSERVERS:
            assert os.access(offline.cache / "tools/usr/sbin" / name, os.X_OK)

        # A tree that is made anew keeps them, though the next run is not for tests.
        (offline.cache / "tools/sbin/auditctl").unlink()
        assert offline.provision().returncode == 0
        assert self.unpacked(offline) == everything

        shutil.rmtree(archive.directory)
        again = offline.provision("--for-tests")
        assert (again.returncode, again.stderr) == (0, "")

    def test_all_is_unpacked_at_once(self, offline: System, archive: Archive) -> None:
        self.fill(archive)
        result = offline.provision("--for-tests")
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("downloading") == 1
        assert {"auditd", "libbpf-tools", "lmbench"} <= self.unpacked(offline)

    def test_observers_of_the_system_are_enough(self, offline: System, archive: Archive) -> None:
        self.fill(archive)
        with_tools(offline, *OBSERVERS)
        assert offline.provision("--for-tests").returncode == 0
        assert "libbpf-tools" not in self.unpacked(offline)

    @pytest.mark.parametrize("there_before", [True, False])
    def test_a_release_without_observers(
        self, offline: System, archive: Archive, there_before: bool
    ) -> None:
        self.fill(archive, observers=())
        if there_before:
            unpack_by_hand(offline.cache)
        result = offline.provision("--for-tests")
        assert result.returncode == 0, result.stderr
        assert (
            "provision: warning: debian bookworm has no libbpf-tools: some tests are skipped"
        ) in result.stderr.splitlines()
        assert offline.provision("--check").returncode == 0
        assert offline.entries_in_cache() == {"tools"}

    def test_without_a_network_the_other_tests_can_be_run(self, offline: System) -> None:
        unpack_by_hand(offline.cache)
        result = offline.provision("--for-tests")
        assert result.returncode == 0
        downloading, error, warning = result.stderr.splitlines()
        assert downloading.startswith("provision: downloading lmbench auditd libbpf-tools into")
        assert "apt-get update failed (E: " in error
        assert warning == "provision: warning: no libbpf-tools: some tests are skipped"
        assert offline.provision("--check").returncode == 0
        assert offline.entries_in_cache() == {"tools"}

    def test_incomplete_observers_are_not_kept(self, offline: System, archive: Archive) -> None:
        self.fill(archive, observers=OBSERVERS[:1])
        result = offline.provision("--for-tests")
        assert result.returncode == 1
        assert errors(result) == [
            "provision: error: the libbpf-tools package lacks opensnoop or execsnoop"
        ]
        assert offline.entries_in_cache() == set()

    def test_leaves_no_tree_when_a_program_is_missing(
        self, offline: System, archive: Archive
    ) -> None:
        self.fill(archive, lmbench=LMBENCH_PROGRAMS[1:])
        result = offline.provision()
        assert result.returncode == 1
        (error,) = errors(result)
        assert "the lmbench package lacks" in error
        assert "--syslat-lmbench-dir" in error
        assert offline.entries_in_cache() == set()

    def test_leaves_no_tree_when_auditctl_does_not_run(
        self, offline: System, archive: Archive
    ) -> None:
        self.fill(archive, auditctl="exit 127")
        # Only root is told the version, so only root can find out.
        offline.stub("id", "echo 0")
        result = offline.provision()
        assert result.returncode == 1
        assert errors(result) == [
            "provision: error: the downloaded auditctl does not run on this system"
        ]
        assert offline.entries_in_cache() == set()

    def test_leaves_no_tree_when_a_library_is_missing(
        self, offline: System, archive: Archive
    ) -> None:
        self.fill(archive)
        offline.stub("ldd", "echo '        libsyslat.so.1 => not found'")
        result = offline.provision()
        assert result.returncode == 1
        assert errors(result) == [
            "provision: error: the downloaded programs lack libraries: libsyslat.so.1 => not found"
        ]
        assert offline.entries_in_cache() == set()

    def test_unreachable_archive_is_one_clear_error(self, offline: System) -> None:
        result = offline.provision()
        assert result.returncode == 1
        (error,) = errors(result)
        assert "apt-get update failed (E: " in error
        assert "--syslat-lmbench-dir" in error
        assert offline.entries_in_cache() == set()

    def test_unknown_distribution_is_one_clear_error(self, offline: System) -> None:
        offline.write("etc/os-release", "ID=fedora\nVERSION_ID=41\n")
        result = offline.provision()
        assert result.returncode == 1
        (error,) = errors(result)
        assert "unknown distribution 'fedora'" in error
        assert "put lmbench's programs in a directory and pass --syslat-lmbench-dir" in error
        assert not offline.cache.exists()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_interrupted_run_leaves_nothing(
        self, offline: System, tmp_path: Path, number: signal.Signals
    ) -> None:
        started = tmp_path / "started"
        link_programs(offline.programs, "sleep")
        offline.stub("apt-get", f": >{started}; exec sleep 60")
        # A group of its own, as a terminal makes: its Ctrl-C reaches the script's children too.
        with subprocess.Popen(
            [SCRIPT], env=offline.environment, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            deadline = time.monotonic() + 30
            while not started.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert any(name.startswith("tools.new.") for name in offline.entries_in_cache())
            os.killpg(process.pid, number)
            process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert offline.entries_in_cache() == set()


class TestUsage:
    def test_help_prints_the_scripts_own_description(self, system: System) -> None:
        result = system.provision("--help")
        assert result.returncode == 0
        assert "tools/provision.sh --check" in result.stdout
        assert "SYSLAT_CACHE_DIR" in result.stdout
        assert "set -eu" not in result.stdout

    def test_unknown_option_is_refused(self, system: System) -> None:
        result = system.provision("--chekc")
        assert result.returncode == 1
        assert errors(result) == ["provision: error: unknown option --chekc"]
        assert not system.cache.exists()
