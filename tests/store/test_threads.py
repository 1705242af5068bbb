"""
The tests of `kvd.store.threads`.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import NoThread
from kvd.store.threads import Threads
from kvd.store.waiting import in_threads_of
from tests.no_threads import no_more_threads
from tests.stepped import SteppedReactor

# For what comes at once, unless it never does.
PATIENCE_SECONDS = 60


class FakeReactor:
    """
    Runs the calls of threads on request.
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
        Wait until a thread requests a call, and make it.
        """
        self._asked.get(timeout=PATIENCE_SECONDS)()

    def asked(self) -> int:
        """
        How often a thread has requested a call.
        """
        return self._asked.qsize()


class ThreadsTests(SynchronousTestCase):
    """
    Work is done in threads, and its Deferreds fire in the reactor.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()

    def threads(self, most: int) -> Threads:
        """
        Threads that are stopped at the end of the test.
        """
        threads = Threads(self.reactor, most)
        self.addCleanup(threads.stop)
        return threads

    def test_answer_is_given_in_the_reactor(self) -> None:
        """
        The result or exception of the work is its answer, in the next turn.
        """
        threads = self.threads(1)
        thread, failing = threads(threading.current_thread), threads(lambda: 1 // 0)
        self.assertNoResult(thread)
        while not (thread.called and failing.called):
            self.reactor.turn()

        assert threading.current_thread() is not self.successResultOf(thread)
        self.failureResultOf(failing, ZeroDivisionError)

    def test_the_permitted_number_runs_at_once(self) -> None:
        """
        Three pieces of work that wait for each other finish; a single one uses the
        existing thread.
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

    def test_further_work_waits(self) -> None:
        """
        Work that arrives when all threads are busy is done afterwards, in order.
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
        Results that arrive before the reactor's next turn are answered in it.
        """
        threads = Threads(self.reactor, 1)
        answers = [threads(int) for _ in range(5)]
        threads.stop()

        assert 1 == self.reactor.asked()
        self.reactor.turn()
        assert [0] * 5 == [self.successResultOf(answer) for answer in answers]

    def test_without_more_threads_the_existing_ones_do_the_work(self) -> None:
        """
        If no more threads can be started, it is slower, but right.
        """
        threads = self.threads(2)
        answers = [threads(int)]
        with no_more_threads():
            answers += [threads(int) for _ in range(2)]
        while not all(answer.called for answer in answers):
            self.reactor.turn()

        assert [0, 0, 0] == [self.successResultOf(answer) for answer in answers]

    def test_without_any_thread_the_work_is_refused(self) -> None:
        """
        The reactor does not do it: a sync can take half a minute. The next work tries
        again to start a thread.
        """
        threads = self.threads(2)
        with no_more_threads():
            for _ in range(2):
                with self.assertRaises(NoThread):  # noqa: PT027  # trial runs it too
                    threads(self.fail)

        there = threads(threading.current_thread)
        self.reactor.turn()
        assert threading.current_thread() is not self.successResultOf(there)

    def test_the_first_thread_starts_with_the_first_work(self) -> None:
        """
        A worker that syncs nothing has no thread for it.
        """
        before = threading.active_count()
        threads = self.threads(2)
        assert before == threading.active_count()

        threads(int)

        assert before + 1 == threading.active_count()


class ReactorThreadsTests(SynchronousTestCase):
    """
    `in_threads_of` uses the threads of a reactor.
    """

    def test_without_any_thread_the_work_is_refused(self) -> None:
        """
        As `Threads` does.
        """
        reactor = SteppedReactor()
        self.addCleanup(reactor.dispose)
        reactor.getThreadPool().start()
        self.addCleanup(reactor.getThreadPool().stop)
        with no_more_threads(), self.assertRaises(NoThread):  # noqa: PT027
            in_threads_of(reactor)(self.fail)
