"""
Tests for `kvd.workers.printed`.
"""

from __future__ import annotations

import os

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.workers.printed import MAX_LINE_BYTES, Printed
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

    def told(self, data: bytes, *, ended: bool = False) -> list[str]:
        """
        What is in the log after something was printed.
        """
        with capturedLogs() as events:
            os.write(self.pipe, data)
            self.reactor.settle()
            if ended:
                os.close(self.pipe)
                self.reactor.settle()
        return [event["text"] for event in events]

    def test_lines_that_come_together_are_one_event(self) -> None:
        """
        The end of a line is waited for, unless nothing more can come.
        """
        assert ["Traceback\n  in f"] == self.told(b"Traceback\n  in f\nKeyErr")
        assert ["KeyError: 3"] == self.told(b"or: 3\nthe e")
        assert ["the end"] == self.told(b"nd", ended=True)
        assert -1 == self.printed.fileno()

    def test_nothing_is_told_of_nothing(self) -> None:
        """
        Nor of empty lines.
        """
        assert [] == self.told(b"\n\n", ended=True)

    def test_a_line_without_an_end_takes_no_memory(self) -> None:
        """
        It is told in pieces, whatever bytes it has.
        """
        told = self.told(b"\xff" * (2 * MAX_LINE_BYTES + 1))
        (last,) = self.told(b"", ended=True)

        assert ["\\xff" * MAX_LINE_BYTES] * 2 == "".join(told).split("\n")
        assert "\\xff" == last
