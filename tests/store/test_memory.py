"""
The tests of `kvd.store.memory`.
"""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import StoreFault, StoreFull
from kvd.interfaces import IStore
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.contract.asking import T
from kvd.store.memory import SLICE_VALUES
from kvd.testing import MemoryStore, StoreContract

KEY = Key(b"key")


class MemoryStoreTests(StoreContract, SynchronousTestCase):
    """
    `MemoryStore` is a store like the others.
    """

    many_values = 3 * SLICE_VALUES

    def make_store(self) -> IStore:
        return MemoryStore()


class SlowMemoryStoreTests(StoreContract, SynchronousTestCase):
    """
    The same when its answers are delayed.
    """

    many_values = 3 * SLICE_VALUES

    def setUp(self) -> None:
        self.clock = Clock()

    def make_store(self) -> IStore:
        return MemoryStore(self.clock, delay_seconds=1.0)

    def wait_for(self, answer: Deferred[T]) -> None:
        assert not answer.called
        # The answers that it is made of come one after the other.
        self.clock.pump([1.0] * 10)


class MemoryStoreHooksTests(SynchronousTestCase):
    """
    A test can make `MemoryStore` fail.
    """

    def test_writes_fail_on_request(self) -> None:
        """
        Every write raises the exception that the test has chosen; the upload counts
        until it is discarded.
        """
        store = MemoryStore()
        store.fail_writes = StoreFull("no room")
        upload = store.begin(KEY, None)
        assert not isinstance(upload, Deferred)

        with pytest.raises(StoreFull):
            upload.write(b"x")
        assert 1 == store.uploads
        upload.discard()
        assert 0 == store.uploads

    def test_commits_wait_on_request(self) -> None:
        """
        A commit is done when the test completes it, and a discard meanwhile does
        nothing.
        """
        store = MemoryStore()
        store.delay_commits = []
        upload = store.begin(KEY, None)
        assert not isinstance(upload, Deferred)
        answer = upload.commit(UNCONDITIONAL)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        upload.discard()

        store.delay_commits[0]()
        assert self.successResultOf(answer).created

    def test_reads_fail_on_request(self) -> None:
        """
        A value can be read up to the chosen offset and no further.
        """
        store = MemoryStore()
        upload = store.begin(KEY, None)
        assert not isinstance(upload, Deferred)
        upload.write(b"12345")
        upload.commit(UNCONDITIONAL)
        store.break_reads_at = 3
        value = store.open(KEY)
        assert not isinstance(value, Deferred)

        assert b"123" == value.read(0, 100)
        with pytest.raises(StoreFault):
            value.read(3, 100)
