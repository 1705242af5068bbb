"""
Tests for `kvd.log.writer`.
"""

from __future__ import annotations

import threading
from functools import partial

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import NoThread
from kvd.log.writer import Writer
from tests.new_python import run_python
from tests.no_threads import no_more_threads
from tests.stepped import SteppedReactor

MANY_SECONDS = 60.0

STUCK = """
import os
from kvd.log.writer import Writer

end, pipe = os.pipe()
writer = Writer("stuck")
writer.call(lambda: os.write(pipe, bytes(1 << 20)))
print(writer.wait(0.01))
"""


class WriterTests(SynchronousTestCase):
    """
    `Writer` calls functions in a thread.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.writer = Writer("test")
        self.addCleanup(self.writer.end)

    def ended(self, deferred: Deferred[None]) -> Deferred[None]:
        """
        A Deferred of the writer's, when it has fired.
        """
        assert self.writer.wait(MANY_SECONDS)
        assert not deferred.called
        self.reactor.settle()
        return deferred

    def test_functions_are_called_in_order(self) -> None:
        """
        One after the other, in a thread that is the same for all.
        """
        called: list[tuple[int, int]] = []

        def call(number: int) -> None:
            called.append((number, threading.get_ident()))

        for number in range(100):
            self.writer.call(partial(call, number))
        assert self.writer.wait(MANY_SECONDS)

        assert list(range(100)) == [number for number, _ in called]
        assert 1 == len({thread for _, thread in called} - {threading.get_ident()})
        assert 0 == self.writer.waiting

    def test_a_long_wait_is_reported(self) -> None:
        """
        Also the thread itself, which would wait for ever.
        """
        goes_on = threading.Event()
        outcomes: list[bool] = []
        self.writer.call(goes_on.wait)
        self.writer.call(lambda: outcomes.append(self.writer.wait(MANY_SECONDS)))
        assert not self.writer.wait(0.01)
        assert 2 == self.writer.waiting
        goes_on.set()

        assert self.writer.wait(MANY_SECONDS)
        assert [False] == outcomes

    def test_the_thread_ends_behind_what_waits(self) -> None:
        """
        Where nothing was called, there is none.
        """
        called: list[str] = []
        self.writer.call(lambda: called.append("first"))
        self.writer.call(lambda: called.append("second"))
        self.writer.end()
        thread = self.writer._thread
        assert thread is not None
        thread.join(MANY_SECONDS)
        assert not thread.is_alive()
        assert ["first", "second"] == called
        unused = Writer("unused")
        unused.end()

        assert unused._thread is None

    def test_what_became_of_a_function_is_reported_in_the_reactor(self) -> None:
        """
        Its end or its failure.
        """

        def fail() -> None:
            raise OSError(5, "Input/output error")

        done = self.writer.defer(lambda: None, self.reactor)
        self.successResultOf(self.ended(done))
        failed = self.writer.defer(fail, self.reactor)
        self.failureResultOf(self.ended(failed), OSError)

    def test_without_a_thread_nothing_is_called(self) -> None:
        """
        The caller gets an error; a later call tries again to start the thread.
        """
        called: list[str] = []
        with no_more_threads():
            with self.assertRaises(NoThread):  # noqa: PT027  # trial runs it too
                self.writer.call(lambda: called.append("first"))
            failed = self.writer.defer(lambda: called.append("second"), self.reactor)
        self.failureResultOf(failed, NoThread)
        assert 0 == self.writer.waiting
        self.writer.call(lambda: called.append("third"))
        assert self.writer.wait(MANY_SECONDS)

        assert ["third"] == called


def test_it_keeps_no_process_alive() -> None:
    """
    Not even within a write that never ends.
    """
    assert "False\n" == run_python(STUCK)
