"""
Tests for `kvd.http.fast_path`: values in a store with limits.
"""

from __future__ import annotations

import os
import time

from kvd.http.fast_path import NOTHING, SERVED, Joined
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.settings import Durability, Quota
from kvd.store.file import FileStore
from kvd.store.usage import Counts, taken_by
from kvd.store.waiting import OffReactor
from tests.http.fast_path.cases import FastPathCase, get, head, put
from tests.http.fast_path.test_commits import CommitCase
from tests.one_second import within_a_second
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

    def start(self, request: bytes) -> Joined:
        """
        All but the last byte of a request comes on a connection of its own.
        """
        near, far = self.pair()
        joined = self.fast_path.join(near.fileno())
        far.sendall(request[:-1])
        assert NOTHING == self.fast_path.serve(near.fileno())
        return joined

    def held(self) -> list[tuple[int, int]]:
        """
        What each quota has taken, and how much of it uploads hold.
        """
        counts = [self.memory.counts(quota) for quota in range(2)]
        return [(each.taken, each.held) for each in counts]

    def test_body_in_pieces_is_reserved_before_it_comes(self) -> None:
        """
        And held until its value is published.
        """
        self.fast_path.join(self.near.fileno())
        request = put("ci/k", bytes(BLOCK + 1))
        assert NOTHING == self.serve(request[:-1])
        assert [(2 * BLOCK, 2 * BLOCK)] * 2 == self.held()
        assert SERVED == self.serve(request[-1:])
        assert [(2 * BLOCK, 0)] * 2 == self.held()
        assert 2 * BLOCK == self.really_taken()

    def test_body_in_pieces_without_room_is_left_to_python(self) -> None:
        """
        From its head on.
        """
        request = put("ci/k", bytes(3 * BLOCK + 1))[:-1]
        assert request == self.serve(request)
        assert [(0, 0)] * 2 == self.held()
        assert [] == self.debris()

    def test_upload_that_python_takes_is_held_on(self) -> None:
        """
        Until it is published or discarded.
        """
        for publishes in (True, False):
            upload = self.start(put("ci/k", b"value")).take_upload()
            assert upload is not None
            assert BLOCK == upload.held
            adopted = upload.adopt(
                Key(b"ci/k"), 5, {}, upload.descriptor, upload.name, upload.held
            )
            assert BLOCK == self.held()[1][1]
            if publishes:
                adopted.write(b"e")
                self.result(adopted.commit(UNCONDITIONAL))
            else:
                adopted.discard()
            assert [(BLOCK, 0)] * 2 == self.held()

    def test_upload_of_a_connection_that_is_dropped_gives_back(self) -> None:
        """
        Whether the connection had joined or not.
        """
        joined = self.start(put("ci/k", b"value"))
        joined.leave()
        del joined
        assert [(0, 0)] * 2 == self.held()
        assert NOTHING == self.serve(put("ci/k", b"value")[:-1])
        assert [(BLOCK, BLOCK)] * 2 == self.held()
        assert NOTHING == self.fast_path.serve(self.pair()[0].fileno())
        assert [(0, 0)] * 2 == self.held()

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


class LimitedCommitTests(CommitCase, BoundedCase):
    """
    The same at durability ``disk``.
    """

    max_size = 3 * BLOCK

    def open_store(
        self,
        durability: Durability | None = None,
        off_reactor: OffReactor | None = None,
    ) -> FileStore:
        return self.open_bounded(off_reactor or self.pool)

    def taken(self) -> tuple[int, int]:
        """
        How much is taken, and how much of it uploads hold.
        """
        counts = self.memory.counts(0)
        return counts.taken, counts.held

    @within_a_second
    def test_value_is_held_until_it_is_published(self) -> None:
        """
        Then it counts, and what it replaces does not any more.
        """
        for size in (BLOCK, BLOCK + 1):
            before, _ = self.taken()
            with self.files_unsynced():
                self.client.send(put("k", bytes(size)))
                taken = taken_by(size)
                assert (before + taken, taken) == self.taken()
            assert (taken, 0) == self.taken()
            self.finish()
            assert self.client.receive().startswith(b"HTTP/1.1 20")
        assert 2 == self.watched.idle
        assert self.really_taken() == self.taken()[0]

    @within_a_second
    def test_body_in_pieces(self) -> None:
        """
        Is held by its commit in the end.
        """
        request = put("k", b"value")
        self.client.send(request[:-1])
        assert (BLOCK, BLOCK) == self.taken()
        with self.files_unsynced():
            self.client.send(request[-1:])
            assert (BLOCK, BLOCK) == self.taken()
        self.finish()
        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        assert (BLOCK, 0) == self.taken()
        self.assert_all_counted(1)

    def test_value_without_room_is_refused(self) -> None:
        """
        By Python.
        """
        assert self.ask(put("k", bytes(2 * BLOCK))).startswith(b"HTTP/1.1 201 ")
        assert self.ask(put("l", bytes(BLOCK + 1))).startswith(b"HTTP/1.1 507 ")
        assert (2 * BLOCK, 0) == self.taken()

    def test_value_that_python_publishes_or_discards(self) -> None:
        """
        Counts as well, or gives back.
        """
        self.place("k")
        assert self.ask(put("k", b"value")).startswith(b"HTTP/1.1 204 ")
        # What was there belonged to another program, but counts like a value.
        assert (0, 0) == self.taken()
        self.place("folder/inner")
        assert self.ask(put("folder", b"value")).startswith(b"HTTP/1.1 409 ")
        assert (0, 0) == self.taken()

    def test_value_that_is_synced_when_its_store_closes(self) -> None:
        """
        Holds nothing.
        """
        with self.files_unsynced():
            self.client.send(put("k", b"value"))
            assert (BLOCK, BLOCK) == self.taken()
            self.fast_path.upload_to(-1, (None, b""), 0)  # type: ignore[attr-defined]
            self.abort_all()
        assert (0, 0) == self.taken()


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
