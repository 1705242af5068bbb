"""
Tests for `kvd.http.fast_path`: values in a store with limits.
"""

from __future__ import annotations

import os
import time

from kvd.http.fast_path import SERVED
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Quota
from kvd.store.file import FileStore
from kvd.store.usage import Counts
from tests.http.fast_path.cases import FastPathCase, get, head, put
from tests.store.bounded import BoundedCase

BLOCK = 4096


class LimitedTests(FastPathCase, BoundedCase):
    """
    What the fast path stores counts.
    """

    max_size = 10 * BLOCK
    evicts = True
    quotas = (Quota(b"ci/", 3 * BLOCK, False, None),)

    def open_store(self) -> FileStore:  # type: ignore[override]
        return self.open_bounded()

    def counts(self) -> Counts:
        """
        Those of the whole store, in which no upload holds anything.
        """
        counts = self.memory.counts(0)
        assert 0 == counts.held
        return counts

    def test_value_counts_like_one_of_the_ordinary_way(self) -> None:
        """
        A new one, one that replaces another, one that is removed; also for its prefix.
        """
        for size in (1, BLOCK + 1, BLOCK, 0):
            assert SERVED == self.serve(put("ci/k", bytes(size)))
            assert self.really_taken() == self.counts().taken
            assert self.really_taken() == self.memory.taken(1)
        assert 1 == self.memory.values(0)
        self.store.remove(Key(b"ci/k"), UNCONDITIONAL)
        assert (0, 0) == (self.counts().taken, self.memory.values(1))

    def test_value_without_room_is_left_to_python(self) -> None:
        """
        Nothing of it is stored or counted; the limit can be reached, not passed.
        """
        assert SERVED == self.serve(put("ci/k", bytes(2 * BLOCK)))
        for key, size in (("ci/l", BLOCK + 1), ("l", 8 * BLOCK + 1)):
            request = put(key, bytes(size))
            assert request == self.serve(request)
            assert 2 * BLOCK == self.counts().taken
            assert 2 * BLOCK == self.memory.taken(1)
        assert ["ci/k"] == self.found()
        assert [] == self.debris()
        assert SERVED == self.serve(put("ci/l", bytes(BLOCK)))
        assert SERVED == self.serve(put("l", bytes(7 * BLOCK)))
        assert 10 * BLOCK == self.counts().taken

    def test_failed_publication_gives_back(self) -> None:
        """
        If Python has to do it, Python counts it.
        """
        self.place("k/inner")
        request = put("k", b"value")
        assert request == self.serve(request)
        assert 0 == self.counts().taken

    def test_read_is_noted(self) -> None:
        """
        When the last one was noted longer ago than the resolution; also if the value is
        in memory.
        """
        self.memory.resolution_seconds = 60
        self.keep("k", b"value")
        for request in (get, head, get, get, get):
            path = self.at("k")
            status = os.stat(path)
            os.utime(path, ns=(status.st_atime_ns - 10**11, status.st_mtime_ns))
            before = time.time()
            self.served(request("k"))
            noted = os.stat(path)
            assert status.st_mtime_ns == noted.st_mtime_ns
            assert before - 1 <= noted.st_atime <= time.time() + 3
            self.served(request("k"))
            assert noted.st_atime_ns == os.stat(path).st_atime_ns
            assert noted.st_ctime_ns == os.stat(path).st_ctime_ns

    def test_read_is_not_noted_where_nothing_is_evicted(self) -> None:
        """
        The files stay as they are.
        """
        self.keep("k", b"value")
        os.utime(self.at("k"), ns=(0, os.stat(self.at("k")).st_mtime_ns))
        before = os.stat(self.at("k"))
        for _ in range(3):
            self.served(get("k"))
        assert before.st_ctime_ns == os.stat(self.at("k")).st_ctime_ns


class MinFreeTests(FastPathCase, BoundedCase):
    """
    A disk of which more is to stay free than is.
    """

    min_free = 1 << 60

    def open_store(self) -> FileStore:  # type: ignore[override]
        store = self.open_bounded()
        # The first upload of a test makes the folder for them.
        store._min_free = 0
        return store

    def test_value_is_left_to_python(self) -> None:
        """
        Which refuses it.
        """
        request = put("k", b"value")
        assert request == self.serve(request)
