"""
``python -m tests.clients [NAME...]``, or ``make test-clients``: clients that people
have, against the true daemon.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Final

CLIENTS: Final = ("webdav", "restic", "git_lfs", "bazel", "s3")
"""
The modules in this package.
"""


def main(names: list[str]) -> None:
    """
    Run all, or those that are named.

    Raises:
        SystemExit: A program is not installed.
    """
    modules = [import_module(f"tests.clients.{name}") for name in names or CLIENTS]
    packages = {
        package
        for module in modules
        for program, package in module.PACKAGES.items()
        if shutil.which(program) is None
    }
    if packages:
        wanted = " ".join(sorted(packages))
        sys.exit(f"Not all clients are installed; on Debian: apt-get install {wanted}")
    for module in modules:
        with tempfile.TemporaryDirectory(prefix="kvd-clients-") as folder:
            module.main(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
