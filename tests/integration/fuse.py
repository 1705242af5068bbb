"""
A folder on FUSE that renames what is removed while it is open, as NFS does.

It is bindfs that shows another folder there. libfuse gives the names, as it does for
most such file systems unless they are mounted with ``hard_remove``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def missing_for_fuse() -> str:
    """
    What is missing to mount FUSE; empty if nothing is.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return "" if os.geteuid() == 0 else "a FUSE mount of bindfs takes root here"


needs_fuse = pytest.mark.skipif(bool(missing_for_fuse()), reason=missing_for_fuse())
"""
Of tests that use `fuse`. Containers often have no ``/dev/fuse``; then it is said.
"""


@contextmanager
def fuse(folder: Path, *options: str) -> Iterator[Path]:
    """
    A folder on FUSE, for as long as the context lasts.

    Args:
        folder: Where it is mounted; made, and another beside it, which it shows.
        options: Of bindfs.
    """
    shown = folder.with_name(f"{folder.name}-shown")
    for each in folder, shown:
        each.mkdir()
    subprocess.run(["bindfs", *options, str(shown), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def renamed_by_fuse(folder: Path) -> list[Path]:
    """
    What was removed in a folder, and below, and is still open.
    """
    return [path for path in folder.rglob(".fuse_hidden*") if path.is_file()]
