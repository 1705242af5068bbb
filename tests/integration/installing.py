"""
kvd built as it is published, and installed in a Python of its own.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parallel import shared_folder

ROOT: Final = Path(__file__).parent.parent.parent

# What is built must not come from here, and nothing here is to change.
_LEFT_OUT: Final = shutil.ignore_patterns(
    ".*", "*.so", "*.egg-info", "__pycache__", "build", "dist", "dropin.cache"
)


def copied_sources(folder: Path) -> Path:
    """
    The sources, as a clone has them.
    """
    copy = folder / "sources"
    shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
    return copy


def bring_bytecode(package: Path) -> None:
    """
    Put what is compiled of kvd's modules here beside a copy of them: each Python would
    compile them anew, and that takes longer than all that it is installed for.

    Args:
        package: The copy, for a Python as this one. Modules that are not the same are
            compiled when they are imported.
    """
    for copy in package.rglob("*.py"):
        ours = ROOT / "kvd" / copy.relative_to(package)
        compiled = cache_from_source(str(ours))
        if os.path.exists(compiled) and filecmp.cmp(ours, copy, shallow=False):
            # It holds for a file of this size and date.
            shutil.copystat(ours, copy)
            target = cache_from_source(str(copy))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(compiled, target)


def build_wheel(folder: Path) -> Path:
    """
    A wheel, built from a source distribution.
    """
    # No isolation: what builds it is here already, and no network is asked for it. What
    # is compiled need not be fast; "make wheel" tries what is published.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)],
        cwd=copied_sources(folder),
        env=os.environ | {"CFLAGS": "-O0"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [wheel] = folder.glob("*.whl")
    return wheel


def the_wheel(factory: pytest.TempPathFactory) -> Path:
    """
    The one that is tested: ``KVD_WHEEL``, or one that the first to ask builds for all
    processes of this run.
    """
    if given := os.environ.get("KVD_WHEEL"):
        return Path(given).absolute()
    folder = once(factory, "wheel", build_wheel)
    [wheel] = folder.glob("*.whl")
    return wheel


def once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """
    A folder that the first to ask fills for all processes of this run.

    Args:
        factory: Knows where it is.
        name: Of the folder.
        make: Fills it.
    """
    shared = shared_folder(factory)
    folder, made = shared / name, shared / f"{name}.made"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


class Installed:
    """
    A Python of its own, with kvd installed.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: Of its own; see `install`.
        """
        self.python = str(folder / "bin" / "python")
        [self.packages] = (folder / "lib").glob("python*/site-packages")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "COV"))
        }

    def run(self, folder: Path, *words: str) -> str:
        """
        What its Python prints, started in a folder.
        """
        return subprocess.run(
            [self.python, *words],
            cwd=folder,
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


def install(
    folder: Path,
    *options: str,
    python: str = sys.executable,
    beside: Callable[[Path], None] | None = None,
    environment: dict[str, str] | None = None,
) -> Installed:
    """
    Make a Python of its own, and install kvd there.

    Args:
        folder: Of its own.
        options: For ``pip install``.
        python: Which one it is.
        beside: Puts what kvd requires into its folder of packages; None: all that
            is installed here is there too.
        environment: Of ``pip install``, in addition.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    installed = Installed(folder)
    (beside or _all_of_ours)(installed.packages)
    pip = [sys.executable, "-m", "pip", "--python", installed.python, "install"]
    quietly = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    alone = ["--ignore-installed", "--no-build-isolation", "--no-compile"]
    subprocess.run(
        [*pip, *quietly, *alone, *options],
        env=os.environ | (environment or {}),
        check=True,
    )
    if python == sys.executable:
        bring_bytecode(installed.packages / "kvd")
    return installed


def _all_of_ours(packages: Path) -> None:
    # Behind its own packages, and as plain folders: whatever is installed editable here
    # stays invisible there.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))


def only_required(packages: Path) -> None:
    """
    Put there what kvd requires, what that requires in turn, and nothing else.
    """
    for package in _required_by("txkvd", frozenset(), set()):
        names = {file.parts[0] for file in package.files or ()}
        for name in names - {"..", "__pycache__"}:
            if not (packages / name).exists():
                there = Path(str(package.locate_file(name)))
                if name == "twisted":
                    # kvd is installed into a folder of it: not into ours.
                    shutil.copytree(there, packages / name)
                else:
                    (packages / name).symlink_to(there)


def _required_by(
    name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]
) -> Iterator[Distribution]:
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not any(
            wanted.marker.evaluate({"extra": extra}) for extra in extras or {""}
        ):
            continue
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key not in seen:
            seen.add(key)
            yield distribution(wanted.name)
            yield from _required_by(wanted.name, key[1], seen)
