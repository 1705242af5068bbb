"""
The wheel: what is compiled comes with it, for every Python that kvd runs on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.tags import Tag, cpython_tags
from packaging.utils import parse_wheel_filename

from tests.integration.installing import ROOT, install, the_wheel

pytestmark = pytest.mark.integration

SMOKE = str(ROOT / "tests" / "native" / "smoke.py")


def pythons() -> list[str]:
    """
    This Python; each later one that is found here, or named in ``KVD_PYTHONS``.
    """
    names = [f"python3.{minor}" for minor in range(sys.version_info.minor + 1, 20)]
    names += filter(None, os.environ.get("KVD_PYTHONS", "").split(":"))
    found = [path for name in names if (path := shutil.which(name))]
    return [sys.executable, *(path for path in found if starts(path))]


def starts(python: str) -> bool:
    """
    Whether it is a Python: what stands in for one may only say that it is not.
    """
    started = subprocess.run([python, "-c", "import venv"], stderr=subprocess.DEVNULL)
    return started.returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    As it is published, but for the tag of its platform.
    """
    return the_wheel(tmp_path_factory)


def program(name: str) -> str:
    """
    Installed beside this Python.
    """
    return str(Path(sys.executable).with_name(name))


def test_it_works_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    """
    Whichever Python it is installed for.
    """
    nowhere = {"PATH": "/nonexistent", "CC": "false"}
    for number, python in enumerate(pythons()):
        installed = install(
            tmp_path / str(number),
            str(wheel),
            python=python,
            beside=lambda packages: None,
            environment=nowhere,
        )
        printed = installed.run(tmp_path, "-W", "error", SMOKE)

        assert printed.startswith("_fast_path.abi3.so works with 3."), python


def test_all_later_pythons_take_it(wheel: Path) -> None:
    """
    Earlier ones do not, nor do those without a global lock, which have no stable ABI:
    there, pip builds kvd, or leaves out what does not compile.
    """
    _, _, _, tags = parse_wheel_filename(wheel.name)
    platforms = [tag.platform for tag in tags]

    def is_taken(*taken: Tag) -> bool:
        return not tags.isdisjoint(taken)

    for minor in range(11, 20):
        assert is_taken(*cpython_tags((3, minor), platforms=platforms)), minor
    assert not is_taken(*cpython_tags((3, 10), platforms=platforms))
    assert not is_taken(*cpython_tags((3, 14), ["cp314t"], platforms=platforms))


def test_it_keeps_to_what_all_of_them_have(wheel: Path) -> None:
    """
    Names of the limited API that were there in the first of them.
    """
    checked = subprocess.run(
        [program("abi3audit"), "--strict", "--summary", str(wheel)],
        capture_output=True,
        text=True,
    )

    assert 0 == checked.returncode, checked.stdout + checked.stderr
    assert "4 extensions scanned" in checked.stderr


def test_it_needs_nothing_but_the_c_library(wheel: Path) -> None:
    """
    So it can be published for many systems; how old they may be depends on where it is
    built.
    """
    shown = subprocess.run(
        [program("auditwheel"), "show", str(wheel)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert '"manylinux_2_' in shown
    assert {"libc.so.6", "libm.so.6"} == set(re.findall(r"lib\w+\.so\.\d+", shown))


def test_it_has_what_is_compiled_and_not_its_sources(wheel: Path) -> None:
    """
    Nor anything else that only a developer has.
    """
    names = zipfile.ZipFile(wheel).namelist()

    modules = ("_dispatch", "_fast_path", "_reactor", "_splice")
    assert [f"kvd/native/{module}.abi3.so" for module in modules] == sorted(
        name for name in names if name.endswith(".so")
    )
    folders = {name.partition("/")[0] for name in names}
    assert {"kvd", "twisted"} == {name for name in folders if "." not in name}
    assert not [name for name in names if name.endswith((".c", ".h"))]


def test_wheels_for_both_architectures_are_built_once() -> None:
    """
    For the oldest Python; and tried with a later one.
    """
    listed = subprocess.run(
        [program("cibuildwheel"), "--print-build-identifiers", "--platform", "linux"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert [
        "cp311-manylinux_aarch64",
        "cp311-manylinux_x86_64",
        "cp314-manylinux_aarch64",
        "cp314-manylinux_x86_64",
    ] == sorted(listed.split())
