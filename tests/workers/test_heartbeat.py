"""
The tests of `kvd.workers.heartbeat`.
"""

from __future__ import annotations

from itertools import count
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.workers.heartbeat import LOOK_SECONDS, START_SECONDS, Heartbeat


class HeartbeatTests(SynchronousTestCase):
    """
    A process is asked whether it lives.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.hung: list[float] = []
        self.works = False
        # Of no process.
        self.pid = 1 << 22 | 1
        self.heartbeat = Heartbeat(
            *("evictor", 5.0, self.ask, self.hung.append, self.clock),
            is_working=lambda: self.works,
        )
        self.heartbeat.start(self.pid)
        self.addCleanup(self.heartbeat.stop)

    def ask(self) -> None:
        self.asked += 1

    def look(self, times: int) -> None:
        """
        So many looks at their times.
        """
        for _ in range(times):
            self.clock.advance(LOOK_SECONDS)

    def state(self) -> str:
        """
        Of a process that runs.
        """
        return self.heartbeat.state(1).state

    def test_one_that_answers_is_ready(self) -> None:
        """
        It is asked again after each answer.
        """
        assert "starting" == self.state()
        for _ in range(10):
            self.look(1)
            self.heartbeat.answered()
        assert 10 == self.asked
        assert "ready" == self.state()
        assert "waiting" == self.heartbeat.state(None).state

    def test_one_that_does_not_answer_hangs(self) -> None:
        """
        After its time, once. It is asked once, since its socket may be full.
        """
        self.look(1)
        self.heartbeat.answered()
        self.look(1 + 4)
        assert "stalled" == self.state()
        assert [] == self.hung
        self.look(10)
        assert [5.0] == self.hung
        assert 2 == self.asked
        assert 1 == self.heartbeat.state(1).hangs

    def test_one_that_starts_has_more_time(self) -> None:
        """
        It imports first, and the machine may be busy.
        """
        self.look(1 + int(START_SECONDS) - 1)
        assert "starting" == self.state()
        assert [] == self.hung
        self.look(1)
        assert [START_SECONDS] == self.hung

    def test_one_that_computes_still_starts(self) -> None:
        """
        However long that takes.
        """
        self.heartbeat.stop()
        with mock.patch("time.clock_gettime", side_effect=count()):
            self.heartbeat.start(self.pid)
            self.look(10 * int(START_SECONDS))
            assert [] == self.hung
            self.heartbeat.answered()
            self.look(1 + 5)
        assert [5.0] == self.hung

    def test_one_that_works_does_not_hang(self) -> None:
        """
        Whatever it was asked comes later.
        """
        self.works = True
        self.look(100)
        assert [] == self.hung

    def test_a_late_look_counts_as_one_in_time(self) -> None:
        """
        The supervisor was stopped, and an answer may wait for it. Or the machine is
        very busy, and every look is late.
        """
        self.look(1)
        self.heartbeat.answered()
        self.look(1)
        self.clock.advance(3600)
        assert [] == self.hung
        self.look(3)
        assert [] == self.hung
        self.clock.advance(3600)
        assert [5.0] == self.hung

    def test_replacement_is_watched_anew(self) -> None:
        """
        From its own start.
        """
        self.look(int(START_SECONDS))
        self.heartbeat.stop()
        self.look(10)
        self.heartbeat.start(self.pid)
        assert "starting" == self.state()
        self.look(10)
        assert [] == self.hung
