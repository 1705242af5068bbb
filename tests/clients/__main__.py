"""
``python -m tests.clients [NAME...]``, or ``make test-clients``: clients that people
have, against the true daemon.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
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
    "curl",
    "gradle",
    "maven",
    "ffmpeg",
    "nix",
    "fsspec",
    "apt",
    "s3",
)
"""
The modules in this package.
"""


def main(names: list[str]) -> None:
    """
    Run all, or those that are named.

    Raises:
        SystemExit: A program is not installed.
    """
    modules = [
        import_module(f"tests.clients.{name}") for name in names or _installable()
    ]
    packages = {
        package
        for module in modules
        for program, package in module.PACKAGES.items()
        if shutil.which(program) is None and not Path(program).exists()
    }
    if None in packages:
        sys.exit("One of the programs is not installed, and Debian does not have it.")
    if packages:
        wanted = " ".join(sorted(packages))
        sys.exit(f"Not all clients are installed; on Debian: apt-get install {wanted}")
    for module in modules:
        with tempfile.TemporaryDirectory(prefix="kvd-clients-") as folder:
            module.main(Path(folder))


def _installable() -> Iterator[str]:
    """
    All whose programs Debian has, and the others where somebody has installed them.
    """
    for name in CLIENTS:
        packages = import_module(f"tests.clients.{name}").PACKAGES
        absent = [
            program
            for program, package in packages.items()
            if package is None and shutil.which(program) is None
        ]
        if absent:
            print(f"{name}: not run; Debian does not have {', '.join(absent)}")
        else:
            yield name


if __name__ == "__main__":
    main(sys.argv[1:])
