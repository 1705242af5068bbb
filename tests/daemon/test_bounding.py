"""
The tests of `kvd.daemon.bounding`.
"""

from __future__ import annotations

import os
from pathlib import Path

from kvd.daemon.bounding import open_bounding
from kvd.settings import QuotaChoice, Settings, StoreLocation
from kvd.store.file_maker import maker
from kvd.store.usage import UsageMemory
from kvd.workers.loading import row_of_worker


def test_what_a_worker_held_that_has_ended_is_given_back(tmp_path: Path) -> None:
    """
    Also if no other worker takes its row. What others hold stays.
    """
    settings = Settings(
        store=StoreLocation("file", str(tmp_path)),
        max_size=100,
        quotas=(QuotaChoice("/ci/", 100, None, None),),
    )
    bounding = open_bounding(settings, maker, None)
    try:
        memory = UsageMemory(bounding.usage)
        for worker, held in ((4, 10), (5, 20)):
            usage = memory.usage([b"ci/"], row_of_worker(worker))
            assert usage.reserve(b"ci/x", held)
        bounding.ended(4)

        assert [20, 20] == [memory.taken(0), memory.taken(1)]
        assert 20 == memory.counts(1).held
    finally:
        for descriptor in (bounding.usage, bounding.root, bounding.totals):
            os.close(descriptor)
