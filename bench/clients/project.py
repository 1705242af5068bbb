"""
A C project to build: busybox, several hundred files that need nothing but a compiler.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.building import find
from kvd.lab.measuring.errors import BenchFailed

PACKAGE: Final = "busybox"
SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")


def unpacked(folder: Path) -> Path:
    """
    The project, ready to be built; fetched from Debian if it is not there.

    Args:
        folder: Keeps the archive; where Debian cannot be reached, put one into it.

    Raises:
        BenchFailed: It is not there, and cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archives = list(folder.glob(f"{PACKAGE}_*.orig.tar.*"))
    if not archives:
        _fetch(folder)
        archives = list(folder.glob(f"{PACKAGE}_*.orig.tar.*"))
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    _do(tree, "tar", "-xf", str(archives[0]), "--strip-components=1")
    _do(tree, str(find("make", "make")), "defconfig")
    return tree


def _fetch(folder: Path) -> None:
    """
    By apt, whose own lists may not have sources.
    """
    if not SOURCES.exists():
        raise BenchFailed(f"Put {PACKAGE}_VERSION.orig.tar.bz2 into {folder}.")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    listed = re.sub(r"(?m)^Types:.*$", "Types: deb-src", SOURCES.read_text())
    (folder / "apt.sources").write_text(listed)
    apt = [
        str(find("apt-get", "apt")), "-q",
        f"-oDir::Etc::sourcelist={folder}/apt.sources",
        "-oDir::Etc::sourceparts=/dev/null", f"-oDir::State::lists={folder}/lists",
        f"-oDir::Cache={folder}/cache",
    ]  # fmt: skip
    _do(folder, *apt, "update")
    _do(folder, *apt, "source", "--download-only", PACKAGE)


def _do(folder: Path, *command: str) -> None:
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"{' '.join(command)} failed", done.stderr[-2000:])
