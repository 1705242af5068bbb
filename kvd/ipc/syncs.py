"""
Counts the syncs of a process in its row of the scoreboard.

They are made in threads, wherever the store is; so there is one place in a process at
which they are counted, as there is one row.
"""

from __future__ import annotations

from math import frexp
from typing import Final

from kvd.ipc.histogram import BUCKET_OF_EXPONENT, LEAST_EXPONENT
from kvd.ipc.row import SYNCS, Row
from kvd.native import compiled
from kvd.store import sync

_native: Final = compiled("_fast_path")


def count_syncs(row: Row | None) -> None:
    """
    Count all syncs of files and folders from now on.

    Args:
        row: Of this process; None: nowhere, and no row is in use from here on.
    """
    words = None if row is None else row.words
    if _native is not None:
        _native.count_syncs(words, SYNCS, BUCKET_OF_EXPONENT, LEAST_EXPONENT)
        return

    def took(nanoseconds: int) -> None:
        if words is not None:
            words[SYNCS] += nanoseconds
            exponent = frexp((nanoseconds + 1) / 1e9)[1]
            words[SYNCS + 1 + BUCKET_OF_EXPONENT[exponent - LEAST_EXPONENT]] += 1

    sync.report_to(took)
