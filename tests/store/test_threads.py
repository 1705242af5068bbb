"""
The tests of `kvd.store.threads`.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.store.threads import Threads

# For what comes at once, unless it never does.
PATIENCE_SECONDS = 60


class FakeReactor:
    """
    Does what threads ask for when told.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def callFromThread(self, call: Callable[[], None]) -> None:
        """
        See `IReactorFromThreads`.
        """
        self._asked.put(call)

    def turn(self) -> None:
        """
        Wait until a thread asks for something, and do it.
        """
        self._asked.get(timeout=PATIENCE_SECONDS)()

    def asked(self) -> int:
        """
        How often a thread has asked for something.
        """
        return self._asked.qsize()


class ThreadsTests(SynchronousTestCase):
    """
    Work is done in threads, and answered for in the reactor's.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()

    def threads(self, most: int) -> Threads:
        """
        Threads until the test ends.
        """
        threads = Threads(self.reactor, most)
        self.addCleanup(threads.stop)
        return threads

    def test_answer_is_given_in_the_reactor(self) -> None:
        """
        What the work returns or raises is its answer, in the next turn.
        """
        threads = self.threads(1)
        thread, failing = threads(threading.current_thread), threads(lambda: 1 // 0)
        self.assertNoResult(thread)
        while not (thread.called and failing.called):
            self.reactor.turn()

        assert threading.current_thread() is not self.successResultOf(thread)
        self.failureResultOf(failing, ZeroDivisionError)

    def test_as_many_as_may_be_are_done_at_once(self) -> None:
        """
        Three that go on only together do; a lone one goes on as it is, in a
        thread that is there already.
        """
        threads = self.threads(3)
        barrier = threading.Barrier(3)
        met = [threads(lambda: barrier.wait(PATIENCE_SECONDS)) for _ in range(3)]
        while not all(answer.called for answer in met):
            self.reactor.turn()
        assert [0, 1, 2] == sorted(self.successResultOf(answer) for answer in met)

        with mock.patch("kvd.store.threads.Thread", side_effect=AssertionError):
            alone = threads(lambda: "done")
        while not alone.called:
            self.reactor.turn()
        assert "done" == self.successResultOf(alone)

    def test_more_than_may_be_take_turns(self) -> None:
        """
        What comes when all threads are busy is done afterwards, in order.
        """
        threads, gate = self.threads(1), threading.Event()
        order: list[int] = []
        blocked = threads(lambda: gate.wait(PATIENCE_SECONDS))
        later = [threads(lambda n=n: order.append(n)) for n in range(3)]  # type: ignore[misc]
        assert [] == order
        gate.set()
        while not all(answer.called for answer in later):
            self.reactor.turn()

        assert self.successResultOf(blocked)
        assert [0, 1, 2] == order

    def test_reactor_is_woken_once_for_many(self) -> None:
        """
        Results that come before the reactor's next turn are answered in it.
        """
        threads = Threads(self.reactor, 1)
        answers = [threads(int) for _ in range(5)]
        threads.stop()

        assert 1 == self.reactor.asked()
        self.reactor.turn()
        assert [0] * 5 == [self.successResultOf(answer) for answer in answers]

    def test_without_more_threads_those_do_the_work(self) -> None:
        """
        A system that gives no more threads makes it slower, not wrong.
        """
        threads = self.threads(2)
        refused = RuntimeError("can't start new thread")
        with mock.patch("kvd.store.threads.Thread.start", side_effect=refused):
            answers = [threads(int) for _ in range(2)]
        while not all(answer.called for answer in answers):
            self.reactor.turn()

        assert [0, 0] == [self.successResultOf(answer) for answer in answers]
