"""
The file store when it has to wait (`kvd.store.locks`).
"""

import errno
import os
from unittest import mock

import pytest
from twisted.internet.defer import CancelledError, Deferred

from kvd.errors import (
    KeyAbsent,
    StoreBusy,
    StoreFault,
    StoreFull,
    SyncFailed,
)
from kvd.interfaces import Answer
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.store.contract.asking import ABSENT
from kvd.store.file import FileStore
from tests.store.cases import KEY, FileStoreCase, syncing_in_python
from tests.store.stepped import SteppedPool


class WaitingTests(FileStoreCase):
    """
    Waits do not block the reactor, and all work is finished.
    """

    def setUp(self) -> None:
        super().setUp()
        self.freeze()

    def test_commit_waits_for_a_locked_key(self) -> None:
        """
        While another process has locked the key, a commit answers later and evaluates
        its conditions then. Other keys do not wait.
        """
        store, other = self.open_store(), self.open_store()
        upload = self.result(store.begin(KEY, None))

        def commit() -> Answer[Published]:
            self.publish(other, Key(b"another"))
            return upload.commit(ABSENT)

        answer = self.while_locked(KEY, commit)
        assert isinstance(answer, Deferred)
        upload.discard()
        self.assertNoResult(answer)
        self.clock.advance(0.001)
        assert self.successResultOf(answer).created
        assert [] == self.debris()

    def test_cancelled_wait_for_a_lock_is_finished(self) -> None:
        """
        If the caller stops waiting for a locked key, the commit still happens.
        """
        store = self.open_store()
        upload = self.result(store.begin(KEY, None))
        answer = self.while_locked(KEY, lambda: upload.commit(UNCONDITIONAL))
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.clock.advance(0.001)

        store.open(KEY).close()
        assert [] == self.debris()

    def test_a_lock_that_is_kept_makes_it_busy(self) -> None:
        """
        After ten seconds the commit or removal fails, and leaves nothing behind.
        """
        store = self.open_store()
        self.publish(store, body=b"old")
        upload = self.result(store.begin(KEY, None))

        def wait() -> None:
            answers = upload.commit(UNCONDITIONAL), store.remove(KEY, UNCONDITIONAL)
            self.clock.pump([0.02] * 600)
            for answer in answers:
                assert isinstance(answer, Deferred)
                self.failureResultOf(answer, StoreBusy)

        self.while_locked(KEY, wait)
        assert b"old" == store.open(KEY).read(0, 100)
        assert [] == self.debris()

    def test_locked_removal_waits(self) -> None:
        """
        A removal waits too, and reports what it finds then.
        """
        store = self.open_store("disk")
        answer = self.while_locked(KEY, lambda: store.remove(KEY, UNCONDITIONAL))
        assert isinstance(answer, Deferred)
        self.clock.advance(0.001)

        self.failureResultOf(answer, KeyAbsent)

    def test_failing_locks_are_faults(self) -> None:
        """
        If the lock file cannot be locked at all, the commit fails immediately.
        """
        store = self.open_store()
        upload = self.result(store.begin(KEY, None))
        with (
            mock.patch("fcntl.fcntl", side_effect=OSError(errno.ENOLCK, "no locks")),
            pytest.raises(StoreFault, match="no locks"),
        ):
            upload.commit(UNCONDITIONAL)
        assert [] == self.debris()

    def test_answer_comes_after_the_syncs(self) -> None:
        """
        At ``disk`` the value is synced before it is visible, and the answer comes when
        its folders are synced too.
        """
        pool = SteppedPool()
        store = self.open_store("disk", pool)
        answer = self.result(store.begin(Key(b"a/b"), None)).commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)

        self.error(KeyAbsent, lambda: store.open(Key(b"a/b")))
        pool.step()
        store.open(Key(b"a/b")).close()
        self.assertNoResult(answer)
        pool.step()
        assert self.successResultOf(answer).created
        assert 0 == pool.waiting()

    def test_uploads_that_wait_share_the_syncs_of_their_folder(self) -> None:
        """
        Their files are synced in parallel, their folder once for all uploads that
        complete during the sync before; the first upload does not wait for the others.
        """
        pool = SteppedPool()
        store = self.open_store("disk", pool)
        answers = [
            self.result(store.begin(Key(b"a/%d" % number), None)).commit(UNCONDITIONAL)
            for number in range(4)
        ]
        assert 4 == pool.waiting()
        for _ in answers:
            pool.step()
        assert 1 == pool.waiting()
        pool.step()

        first, *others = answers
        assert isinstance(first, Deferred)
        assert self.successResultOf(first).created
        assert 1 == pool.waiting()
        pool.step()
        for answer in others:
            assert isinstance(answer, Deferred)
            assert self.successResultOf(answer).created
        assert 0 == pool.waiting()

    def test_cancelled_commit_is_finished(self) -> None:
        """
        Neither cancelling nor discarding stops it; the store closes when it has ended.
        """
        pool = SteppedPool()
        store = self.open_store("disk", pool)
        upload = self.result(store.begin(KEY, None))
        answer = upload.commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        upload.discard()
        closed = store.close()
        assert isinstance(closed, Deferred)

        self.assertNoResult(closed)
        pool.finish()
        self.successResultOf(closed)
        self.open_store().open(KEY).close()
        assert ["attributes", "lock"] == sorted(
            os.listdir(os.path.join(self.path, ".kvd"))
        )

    def test_failed_sync_loses_the_upload(self) -> None:
        """
        If the file cannot be synced it is not published, and the sync is not tried
        again.
        """
        store = self.open_store("disk")
        self.publish_on_disk(store, b"old")
        for number, kind in ((errno.EIO, SyncFailed), (errno.ENOSPC, StoreFull)):
            upload = self.result(store.begin(KEY, None))
            failing = mock.patch("os.fsync", side_effect=OSError(number, "broken"))
            with syncing_in_python(), failing as fsync:
                answer = upload.commit(UNCONDITIONAL)
                assert isinstance(answer, Deferred)
                self.failureResultOf(answer, kind)

            assert 1 == fsync.call_count
            assert b"old" == store.open(KEY).read(0, 100)
        assert [] == self.debris()

    def publish_on_disk(self, store: FileStore, body: bytes) -> None:
        """
        Store a value at durability ``disk``.
        """
        upload = self.result(store.begin(KEY, None))
        upload.write(body)
        answer = upload.commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)
        self.successResultOf(answer)

    def test_failed_sync_of_a_folder_is_reported(self) -> None:
        """
        After a removal whose folder cannot be synced, nothing is promised.
        """
        store = self.open_store("disk")
        self.publish_on_disk(store, b"old")
        broken = mock.patch("os.fsync", side_effect=OSError(errno.EIO, "broken"))
        with syncing_in_python(), broken:
            answer = store.remove(KEY, UNCONDITIONAL)
        assert isinstance(answer, Deferred)

        self.failureResultOf(answer, SyncFailed)
