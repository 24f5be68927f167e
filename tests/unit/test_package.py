"""The wheel carries what an installed plugin needs, and its metadata say what it is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.mark.parametrize(
    "folder", ["agents", "bpftrace", "manifests", "policies", "benchmarks", "syscalls"]
)
def test_files_beside_the_package_are_in_the_wheel(wheel: zipfile.ZipFile, folder: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert tracked
    shipped = set(wheel.namelist())
    assert {f"pytest_syslat/shipped/{name}" for name in tracked} <= shipped


def test_package_is_typed_and_registers_plugin_and_command(wheel: zipfile.ZipFile) -> None:
    assert "pytest_syslat/py.typed" in wheel.namelist()
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode().split("\n\n") == [
        "[console_scripts]\nsyslat = pytest_syslat.cli.main:main",
        "[pytest11]\nsyslat = pytest_syslat.plugin\n",
    ]


def test_the_template_of_the_report_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert "pytest_syslat/report/templates/report.html.j2" in wheel.namelist()


def test_metadata(wheel: zipfile.ZipFile) -> None:
    fields = metadata(wheel)
    assert "Framework :: Pytest" in fields.get_all("Classifier", [])
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    required = {entry.split(">")[0]: entry for entry in fields.get_all("Requires-Dist", [])}
    assert required["pytest"] == "pytest>=9.0"
    assert required["pytest-benchmark"] == "pytest-benchmark>=5.3.1"
    assert required["kubernetes"] == "kubernetes>=37.0.2"
    assert {"numpy", "pandas"} <= set(required)
