"""
A filesystem that is soon full.

Mounting takes root; any other user gets it in a namespace of their own: ``unshare
--map-root-user --mount make test``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.privileges import take_root


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """
    A tmpfs on a folder, for as long as the context lasts.

    Args:
        folder: Made if missing.
        options: Of mount(8), such as ``size=1m`` or ``nr_inodes=20``.
    """
    folder.mkdir(exist_ok=True)
    take_root("mounting a small file system")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "kvd-test", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
