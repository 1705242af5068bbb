"""
Tests for `kvd.log.limiting`.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kvd.log import limiting
from kvd.log.limiting import MOST_LINES, PASSES, PERIOD_SECONDS, Limited


class LimitedTests(SynchronousTestCase):
    """
    `Limited` passes on the first lines of a kind.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.limited = Limited(
            cast(ILogObserver, self.events.append), self.clock.callLater
        )
        self.log = Logger("here", observer=cast(ILogObserver, self.limited))

    def texts(self) -> list[str]:
        """
        What has passed since the last look.
        """
        events, self.events[:] = list(self.events), []
        return [formatEvent(event) for event in events]

    def test_what_is_left_out_is_counted(self) -> None:
        """
        And reported at the end of the period, as a warning with the last one's text.
        """
        for number in range(MOST_LINES + 1000):
            self.log.info("number {number}", number=number)
        assert [f"number {number}" for number in range(MOST_LINES)] == self.texts()
        self.clock.advance(PERIOD_SECONDS)
        (event,) = self.events
        assert LogLevel.warn == event["log_level"]
        (text,) = self.texts()

        assert f"1000 more lines of this kind were left out: number {1009}" == text

    def test_each_kind_counts_for_itself(self) -> None:
        """
        By its format, the place that logs, and what the place says of its kind.
        """
        elsewhere = Logger("elsewhere", observer=self.log.observer)
        for number in range(MOST_LINES):
            self.log.info("a {number}", number=number)
            self.log.info("b {number}", number=number)
            self.log.info("a {number}", number=number, kind="other")
            elsewhere.info("a {number}", number=number)

        assert 4 * MOST_LINES == len(self.texts())

    def test_kinds_of_lines_differ_in_how_they_begin(self) -> None:
        """
        Twisted's old logging system has one format for all.
        """
        for number in range(MOST_LINES + 1):
            self.log.info("{log_text}", log_text=f"the disk is full {'.' * 60}{number}")
            self.log.info("{log_text}", log_text="the disk is broken")

        assert 2 * MOST_LINES == len(self.texts())

    def test_periods_follow_each_other(self) -> None:
        """
        Nothing is reported of one in which all was.
        """
        for _ in range(3):
            for _ in range(MOST_LINES):
                self.log.info("again")
            assert MOST_LINES == len(self.texts())
            self.clock.advance(PERIOD_SECONDS)
        assert [] == self.texts()

        assert [] == self.clock.getDelayedCalls()

    def test_the_end_reports_what_was_left_out(self) -> None:
        """
        Once.
        """
        for _ in range(MOST_LINES + 3):
            self.log.info("again")
        self.texts()
        self.limited.finish()
        assert ["3 more lines of this kind were left out: again"] == self.texts()
        self.clock.advance(PERIOD_SECONDS)

        assert [] == self.texts()

    def test_what_was_limited_elsewhere_passes(self) -> None:
        """
        The lines of many workers have one format here.
        """
        for _ in range(5 * MOST_LINES):
            self.log.info("worker says", **{PASSES: True})

        assert 5 * MOST_LINES == len(self.texts())

    def test_kinds_without_end_take_no_memory(self) -> None:
        """
        Those that are too many count as one.
        """
        self.patch(limiting, "MOST_KINDS", 5)
        for number in range(1000):
            self.log.info("{log_text}", log_text=f"{number} is prime, or it is not")

        assert 5 + MOST_LINES == len(self.texts())
        assert 6 == len(self.clock.getDelayedCalls())

    def test_what_cannot_be_formatted_passes(self) -> None:
        """
        Twisted says why.
        """
        self.log.info("{nothing.at.all}")
        (text,) = self.texts()

        assert "nothing" in text
