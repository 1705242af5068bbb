"""
The disk of a store is looked at in a thread.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.admin.status.disk import FRESH_SECONDS, WAIT_SECONDS, Disk
from kvd.store.space import Space

GOOD = Space("", 1, 2, 3, 4)


class DiskTests(SynchronousTestCase):
    """
    `Disk` answers in time, whatever the disk does.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads: list[Deferred[Space]] = []
        self.disk = Disk(lambda: GOOD, self.in_thread, self.clock)

    def in_thread(self, look: Callable[[], Space]) -> Deferred[Space]:
        """
        A thread that ends when the test says so.
        """
        self.threads.append(Deferred())
        return self.threads[-1]

    def test_one_look_is_for_all_who_ask(self) -> None:
        """
        Also for those who ask a moment later.
        """
        answers = [self.disk.look() for _ in range(10)]
        assert 1 == len(self.threads)
        self.threads[0].callback(GOOD)
        assert [GOOD] * 10 == [self.successResultOf(each) for each in answers]

        self.clock.advance(FRESH_SECONDS / 2)
        assert GOOD == self.successResultOf(self.disk.look())
        assert 1 == len(self.threads)
        self.clock.advance(FRESH_SECONDS / 2)
        self.disk.look()
        assert 2 == len(self.threads)
        self.disk.close()
        assert [] == self.clock.getDelayedCalls()

    def test_a_disk_that_does_not_answer_is_a_complaint(self) -> None:
        """
        It keeps one thread busy, however often somebody asks, until it answers.
        """
        answer = self.disk.look()
        self.clock.advance(WAIT_SECONDS - 0.1)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        sentence = "The store has not answered for 2 seconds."
        assert Space(sentence) == self.successResultOf(answer)
        for _ in range(5):
            self.clock.advance(60)
            assert Space(sentence) == self.successResultOf(self.disk.look())
        assert 1 == len(self.threads)

        self.threads[0].callback(GOOD)
        assert GOOD == self.disk.newest
        self.clock.advance(60)
        self.disk.look()
        assert 2 == len(self.threads)
        self.disk.close()

    def test_a_bug_is_a_complaint_too(self) -> None:
        """
        It is logged.
        """
        answer = self.disk.look()
        self.threads[0].errback(ZeroDivisionError("a bug"))

        found = self.successResultOf(answer)
        assert found == Space("The store cannot be looked at.")
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

    def test_a_store_without_a_disk_has_no_complaint(self) -> None:
        """
        Nothing is known of it.
        """
        disk = Disk(None, self.in_thread, self.clock)

        assert self.successResultOf(disk.look()) is None
        assert [] == self.threads
