"""
Tests for `kvd.workers.printed`.
"""

from __future__ import annotations

import os

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.workers.printed import (
    MAX_LINE_BYTES,
    MAX_TOGETHER_BYTES,
    TOGETHER_SECONDS,
    Printed,
)
from tests.stepped import SteppedReactor


class PrintedTests(SynchronousTestCase):
    """
    `Printed` puts into the log what is printed.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        end, self.pipe = os.pipe()
        self.printed = Printed(os.fdopen(end, "rb", buffering=0), self.reactor)
        self.addCleanup(self.printed.connectionLost, None)

    def logged(self, data: bytes, *, ended: bool = False) -> list[str]:
        """
        What is in the log after something was printed.
        """
        with capturedLogs() as events:
            os.write(self.pipe, data)
            self.reactor.settle()
            self.reactor.advance(TOGETHER_SECONDS)
            if ended:
                os.close(self.pipe)
                self.reactor.settle()
        return [event["text"] for event in events]

    def test_lines_that_come_together_are_one_event(self) -> None:
        """
        The end of a line is waited for, unless nothing more can come.
        """
        assert ["Traceback\n  in f"] == self.logged(b"Traceback\n  in f\nKeyErr")
        assert ["KeyError: 3"] == self.logged(b"or: 3\nthe e")
        assert ["the end"] == self.logged(b"nd", ended=True)
        assert -1 == self.printed.fileno()

    def test_a_crash_is_one_event(self) -> None:
        """
        In however many writes Python prints where it was.
        """
        self.addCleanup(os.close, self.pipe)
        with capturedLogs() as events:
            for line in (b"Fatal Python error", b"", b"Current thread", b"  File"):
                for piece in (line, b"\n"):
                    os.write(self.pipe, piece)
                    self.reactor.settle()
            assert [] == events
            self.reactor.advance(TOGETHER_SECONDS)
            (event,) = events
        assert "Fatal Python error\n\nCurrent thread\n  File" == event["text"]

    def test_much_is_reported_at_once(self) -> None:
        """
        It is not kept in memory.
        """
        self.addCleanup(os.close, self.pipe)
        with capturedLogs() as events:
            for _ in range(MAX_TOGETHER_BYTES // 1024):
                os.write(self.pipe, b"x" * 1023 + b"\n")
                self.reactor.settle()
            assert 1 == len(events)

    def test_nothing_is_reported_of_nothing(self) -> None:
        """
        Nor of empty lines.
        """
        assert [] == self.logged(b"\n\n", ended=True)

    def test_a_line_without_an_end_takes_no_memory(self) -> None:
        """
        It is logged in pieces, whatever bytes it has.
        """
        logged = self.logged(b"\xff" * (2 * MAX_LINE_BYTES + 1))
        (last,) = self.logged(b"", ended=True)

        assert ["\\xff" * MAX_LINE_BYTES] * 2 == "".join(logged).split("\n")
        assert "\\xff" == last
