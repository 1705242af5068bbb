"""
Writes many values into a store's folder without a daemon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kvd.store import attribute

MILLION: Final = 1_000_000
_FOLDERS: Final = 1000


def place(folder: Path, names: Iterable[str]) -> None:
    """
    Write empty values as kvd does, with their attribute.
    """
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for name in names:
            file = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
            now_us = time.time_ns() // 1000
            record = attribute.encode(attribute.new_etag(), 0, now_us, b"")
            os.setxattr(file, attribute.NAME, record)
            os.utime(file, ns=(1000 * now_us, 1000 * now_us))
            os.close(file)
    finally:
        os.close(descriptor)


def place_flat(root: Path, count: int) -> None:
    """
    Values ``bench/k0`` and so on, which the load in C requests. tmpfs lists them
    backwards, which is the worst case for a page in order.
    """
    place(root / "bench", (f"k{number}" for number in range(count)))


def place_nested(root: Path, count: int) -> None:
    """
    The same number of values in a thousand folders.
    """
    for number in range(_FOLDERS):
        inner = range(number, count, _FOLDERS)
        place(root / f"{number:03}", (f"k{name}" for name in inner))
