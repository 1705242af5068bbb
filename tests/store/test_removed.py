"""
A file store whose own files are removed by another program, or whose folder is moved.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from unittest import mock

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from kvd.errors import StoreFault
from kvd.interfaces import IHeldStoreMaker
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.file import FileStore
from kvd.store.file_maker import maker
from tests.store.cases import KEY, FileStoreCase


class RemovedTests(FileStoreCase):
    """
    The folder ``.kvd`` is made again.
    """

    def hidden(self, *names: str) -> str:
        """
        The path of the folder, or of something in it.
        """
        return os.path.join(self.path, ".kvd", *names)

    def test_it_is_made_again(self) -> None:
        """
        For the next upload, whatever was open in it before.
        """
        store = self.open_store()
        self.publish(store, body=b"1")
        for body in (b"2", b"3"):
            shutil.rmtree(self.hidden())
            self.publish(store, body=body)
            assert body == self.get(store)
        store.close()

        assert ["lock"] == os.listdir(self.hidden())

    def test_the_upload_folder_is_made_again(self) -> None:
        """
        If only that was removed, for example by a program that removes empty folders.
        """
        store = self.open_store()
        self.publish(store, body=b"1")
        for name in os.listdir(self.hidden()):
            if name not in ("attributes", "lock"):
                os.rmdir(self.hidden(name))
        self.publish(store, body=b"2")

        assert b"2" == self.get(store)

    def test_what_was_being_uploaded_is_lost(self) -> None:
        """
        The upload fails, and the old value stays.
        """
        store = self.open_store()
        self.publish(store, body=b"old")
        upload = self.result(store.begin(KEY, None))
        shutil.rmtree(self.hidden())
        self.error(StoreFault, lambda: upload.commit(UNCONDITIONAL))

        assert b"old" == self.get(store)

    def assert_same_lock(self, *stores: FileStore) -> None:
        """
        While one of the stores has locked a key, each of the others waits for it; so
        does a store that is opened now.
        """
        for holder in stores:
            for store in (*stores, self.open_store()):
                if store is not holder:
                    waiting = self.in_lock_of(holder, self.committing(store))
                    assert isinstance(waiting, Deferred)
                    self.assertNoResult(waiting)
                    self.clock.advance(0.001)
                    self.successResultOf(waiting)

    def committing(self, store: FileStore) -> Callable[[], object]:
        """
        Begin the commit of a value in a store.
        """
        upload = self.result(store.begin(KEY, None))
        return lambda: upload.commit(UNCONDITIONAL)

    def in_lock_of(self, store: FileStore, act: Callable[[], object]) -> object:
        """
        Do something while a store has locked the key.
        """
        results: list[object] = []
        store._locks.holding(KEY, lambda: results.append(act()))
        return results[0]

    def test_all_lock_the_same_file(self) -> None:
        """
        Whether a store was opened before or after the lock file was removed, replaced,
        or moved away with its folder.
        """
        stores = [self.open_store(), self.open_store()]
        self.assert_same_lock(*stores)
        os.unlink(self.hidden("lock"))
        self.assert_same_lock(*stores)
        self.place(".kvd/new")
        os.rename(self.hidden("new"), self.hidden("lock"))
        self.assert_same_lock(*stores)
        os.rename(self.hidden(), os.path.join(self.path, "moved"))
        self.assert_same_lock(*stores)
        shutil.rmtree(self.hidden())
        self.assert_same_lock(*stores)

    def test_a_lock_file_that_is_removed_again_and_again_cannot_be_locked(self) -> None:
        """
        The key counts as locked by another process while this goes on.
        """
        store = self.open_store()
        commit = self.committing(store)
        with mock.patch("kvd.store.locks.LockFile.is_found", return_value=False):
            waiting = commit()
            assert isinstance(waiting, Deferred)
            self.assertNoResult(waiting)
        self.clock.advance(0.001)
        self.successResultOf(waiting)

    def test_a_lock_that_cannot_be_opened_is_a_fault(self) -> None:
        """
        Nothing is published without it.
        """
        store = self.open_store()
        commit = self.committing(store)
        os.unlink(self.hidden("lock"))
        os.mkdir(self.hidden("lock"))
        self.error(StoreFault, commit)

        assert [] == self.keys(store)


class MovedTests(FileStoreCase):
    """
    All workers use the folder that the supervisor has opened.
    """

    def setUp(self) -> None:
        super().setUp()
        self.root = os.path.join(self.path, "values")
        self.moved = os.path.join(self.path, "moved")
        maker.prepare(self.root)
        self.held = maker.hold(self.root)
        self.addCleanup(os.close, self.held)

    def open_held(self) -> FileStore:
        """
        Open the store as a worker does.
        """

        def open_store(path: str | int, *_: object) -> FileStore:
            store = FileStore(path, "process", Clock(), execute)
            self.addCleanup(store.close)
            return store

        with mock.patch("kvd.store.file.FileStore", open_store):
            store = maker.open_held(self.root, "process", self.held)
        assert isinstance(store, FileStore)
        return store

    def test_provides_its_interface(self) -> None:
        """
        The maker is one.
        """
        assert verifyObject(IHeldStoreMaker, maker)

    def test_a_moved_folder_is_still_the_store(self) -> None:
        """
        Also for a worker that starts afterwards, which logs it.
        """
        with capturedLogs() as events:
            self.publish(self.open_held(), body=b"v")
        assert [] == events
        os.rename(self.root, self.moved)
        for _ in range(2):
            with capturedLogs() as events:
                assert b"v" == self.get(self.open_held())
            (event,) = events
            assert "is no longer the folder" in event["log_format"]
            os.makedirs(self.root, exist_ok=True)
        assert [] == os.listdir(self.root)

    def test_a_removed_folder_is_reported(self) -> None:
        """
        Nothing can be stored, and the reply says why.
        """
        store = self.open_held()
        self.publish(store)
        shutil.rmtree(self.root)
        sentence = self.error(StoreFault, lambda: store.begin(Key(b"a/b"), None))

        assert "the folder of the store was removed; restart kvd" in sentence
