"""
The tests of `kvd.s3.store`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from kvd.model.keys import Key
from kvd.model.values import Folder
from kvd.s3 import listing
from kvd.s3.guards import REMOVAL_SECONDS
from tests.s3 import sharing
from tests.s3.cases import EngineCase


class ClosingTests(EngineCase):
    """
    A store that is closed waits for no trial of the engine, whose result nobody needs.
    """

    def test_while_the_engine_is_silent(self) -> None:
        """
        The object of the trial is removed, if the engine answers to that.
        """
        for silent_too, seconds in ((0, 0), (1, REMOVAL_SECONDS)):
            store = self.make_store()
            self.memory.silent_at = 3
            store.start()
            self.reactor.settle()
            assert 1 == self.memory.waiting
            assert [] != [*self.memory.objects]
            self.memory.silent_at = silent_too
            with capturedLogs() as logs:
                closed = store.close()
                assert isinstance(closed, Deferred)
                self.reactor.settle()
                self.reactor.advance(seconds)
                self.reactor.settle()

            assert closed.called
            assert 0 == self.memory.waiting
            assert silent_too == len(self.memory.objects)
            assert [] == [
                event for event in logs if event["log_namespace"].startswith("kvd")
            ]


class ObjectStoreTests(sharing.SharedBucket):
    """
    `ObjectStore` is a store.
    """

    has_folders = False
    max_key_bytes = 1000
    many_values = 30

    def setUp(self) -> None:
        self.patch(listing, "SLICE_KEYS", 10)
        super().setUp()

    def debris(self) -> Sequence[object]:
        """
        Uploads that the engine still knows.
        """
        return [*self.memory.uploads]

    def test_prefix_below_another_one_folder_by_folder(self) -> None:
        """
        In the order of SeaweedFS.
        """
        self.memory.by_folder = True
        self.test_prefix_below_another_one()

    def test_folders_are_listed_by_names_alone(self) -> None:
        """
        However many values are in a folder, none of them is asked for; folders that fit
        a page of the engine cost one request together.
        """
        self.patch(listing, "PAGE_KEYS", 12)
        store = self.make_store()
        for number in range(20):
            self.put(store, Key(b"large/%03d" % number), b"")
        for number in range(4):
            self.put(store, Key(b"small/%d/x" % number), b"")
        self.put(store, Key(b"small/y"), b"")
        self.memory.seen.clear()
        root = self.entries(store, b"", limit=100)
        assert [Folder(b"large/"), Folder(b"small/")] == [*root]
        assert {"GET"} == {method for method, _ in self.memory.seen}
        assert 2 == len(self.memory.seen)
        self.memory.seen.clear()
        small = self.entries(store, b"small/", limit=100)
        assert 5 == len(small)
        assert ["GET", "HEAD"] == [method for method, _ in self.memory.seen]

    def test_look_for_values_asks_for_one(self) -> None:
        """
        However many values a folder has.
        """
        store = self.make_store()
        for number in range(20):
            self.put(store, Key(b"large/%03d" % number), b"")
        self.memory.seen.clear()

        assert self.has_values(store, b"large/")
        assert ["GET", "HEAD"] == [method for method, _ in self.memory.seen]
        self.memory.seen.clear()
        assert not self.has_values(store, b"none/")
        assert ["GET"] == [method for method, _ in self.memory.seen]
