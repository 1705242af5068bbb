"""
A filesystem that is soon full.

Mounting needs a privilege; who is not root gets it in a namespace of one's own,
as the message says. Nothing is skipped silently.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """
    A tmpfs on a folder, for as long as the context lasts.

    Args:
        folder: Made if missing.
        options: Of mount(8), such as ``size=1m`` or ``nr_inodes=20``.
    """
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        raise AssertionError(
            "this test mounts a small filesystem and needs to be root; run it as"
            " root, or with: unshare --map-root-user --mount make test"
        )
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "kvd-test", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
