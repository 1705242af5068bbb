"""
The tests of `kvd.daemon.bounding`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from kvd.daemon.bounding import Bounding, open_bounding
from kvd.errors import StoreUnusable
from kvd.settings import QuotaChoice, Settings, StoreLocation
from kvd.store.file_maker import maker
from kvd.store.usage import UsageMemory
from kvd.workers.loading import row_of_worker


@contextmanager
def opened(settings: Settings) -> Iterator[Bounding]:
    """
    What a daemon needs for its limits.
    """
    bounding = open_bounding(settings, maker, None)
    try:
        yield bounding
    finally:
        for descriptor in (bounding.usage, bounding.root, bounding.totals):
            os.close(descriptor)


def test_start_looks_at_no_values(tmp_path: Path) -> None:
    """
    So it takes as long for a million of them as for none. The evictor counts them, when
    clients are served.
    """
    (tmp_path / "folder").mkdir()
    for number in range(10):
        (tmp_path / "folder" / str(number)).write_bytes(b"value")
    settings = Settings(store=StoreLocation("file", str(tmp_path)), max_size=100)
    with (
        mock.patch("os.scandir", side_effect=AssertionError),
        mock.patch("os.listdir", side_effect=AssertionError),
        opened(settings) as bounding,
    ):
        assert not bounding.described()[0]["counted"]
        assert 0 == bounding.described()[0]["taken"]


def test_second_daemon_with_limits_is_refused(tmp_path: Path) -> None:
    """
    It would count apart. When the first one has ended, another may.
    """
    settings = Settings(store=StoreLocation("file", str(tmp_path)), max_size=100)
    with (
        opened(settings),
        pytest.raises(StoreUnusable, match="give it more workers"),
        opened(settings),
    ):
        pass
    with opened(settings) as bounding:
        assert 100 == bounding.described()[0]["limit"]


def test_what_a_worker_held_that_has_ended_is_given_back(tmp_path: Path) -> None:
    """
    Also if no other worker takes its row. What others hold stays.
    """
    settings = Settings(
        store=StoreLocation("file", str(tmp_path)),
        max_size=100,
        quotas=(QuotaChoice("/ci/", 100, None, None),),
    )
    with opened(settings) as bounding:
        memory = UsageMemory(bounding.usage)
        for worker, held in ((4, 10), (5, 20)):
            usage = memory.usage([b"ci/"], row_of_worker(worker))
            assert usage.reserve(b"ci/x", held)
        bounding.ended(4)

        assert [20, 20] == [memory.taken(0), memory.taken(1)]
        assert 20 == memory.counts(1).held
