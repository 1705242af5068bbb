"""
``python -m tests.clients.missing [NAME...]``: the Debian packages of clients that are
not installed, each on a line. ``tests/prepare.sh`` installs them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

CLIENTS: Final = (
    "webdav",
    "restic",
    "git_lfs",
    "bazel",
    "turborepo",
    "nx",
    "terraform",
    "ccache",
    "sccache",
    "opendal",
    "dvc",
    "axe",
    "screen_reader",
    "curl",
    "gradle",
    "maven",
    "ffmpeg",
    "nix",
    "fsspec",
    "apt",
    "s3",
    "minio_py",
    "minio_go",
    "rclone_go",
    "botocore",
)
"""
The modules in this package.
"""


def modules_of(names: Sequence[str]) -> list[ModuleType]:
    """
    Those that are named; all if none is.
    """
    return [import_module(f"tests.clients.{name}") for name in names or CLIENTS]


def absent(module: ModuleType) -> dict[str, str | None]:
    """
    The programs of a module that are not here, each with its Debian package; None: it
    has none.
    """
    packages: dict[str, str | None] = module.PACKAGES
    return {
        program: package
        for program, package in packages.items()
        if shutil.which(program) is None and not Path(program).exists()
    }


def missing(modules: Iterable[ModuleType]) -> list[str]:
    """
    The packages that are to be installed for all that can be.
    """
    found = [absent(module).values() for module in modules]
    packages = [packages for packages in found if None not in packages]
    return sorted({package for each in packages for package in each if package})


def main(names: Sequence[str]) -> None:
    """
    Print them; nothing where none is missing.
    """
    for package in missing(modules_of(names)):
        print(package)


if __name__ == "__main__":
    main(sys.argv[1:])
