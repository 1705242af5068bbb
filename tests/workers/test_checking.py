"""
Tests for `kvd.workers.checking`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.workers.checking import TURN_SECONDS, Checking


class Turns(Clock):
    """
    A reactor that begins a turn when it is told to.
    """

    def callLater(self, when: float, what: Any, *args: Any, **kw: Any) -> Any:  # type: ignore[override]
        """
        See `IReactorTime`. What is to come at once comes in the next turn.
        """
        # Not 0, which would be in this one.
        return super().callLater(when or 1e-9, what, *args, **kw)


class CheckingTests(SynchronousTestCase):
    """
    `Checking` checks each connection, some in each turn.
    """

    def setUp(self) -> None:
        self.clock = Turns()
        self.seconds = 0.0
        self.checked: list[str] = []
        self.connections: dict[Any, None] = {}
        self.checking = Checking(
            lambda: self.connections, self.clock, seconds=lambda: self.seconds
        )
        self.checking.start(1.0)

    def connect(self, name: str, seconds: float) -> None:
        """
        A connection whose check takes a while.
        """
        test = self

        class Connection:
            """
            As far as it is checked.
            """

            def check_time(self, now: float) -> None:
                """
                Takes so long.
                """
                assert now == test.clock.seconds()
                test.checked.append(name)
                test.seconds += seconds

        self.connections[Connection()] = None

    def turn(self, seconds: float = 1e-6) -> list[str]:
        """
        Those that were checked in a turn, sorted.
        """
        self.checked = []
        self.clock.advance(seconds)
        return sorted(self.checked)

    def test_a_turn_has_its_time(self) -> None:
        """
        The rest is checked in the next turns, and a new check begins when that is done.
        """
        for number in range(5):
            self.connect(str(number), TURN_SECONDS * 0.6)

        assert 2 == len(self.turn(1.0))
        first = self.checked
        assert 2 == len(self.turn(1.0))
        first += self.checked
        assert 1 == len(self.turn())
        assert list("01234") == sorted(first + self.checked)
        assert [] == self.turn()
        assert 2 == len(self.turn(1.0))

    def test_a_worker_that_leaves_meanwhile_is_not_checked(self) -> None:
        """
        Nor whoever comes.
        """
        for name in "abc":
            self.connect(name, TURN_SECONDS)
        found = self.turn(1.0)
        self.connections.clear()
        self.connect("d", 0.0)

        assert 1 == len(found)
        assert [] == self.turn()
        assert ["d"] == self.turn(1.0)

    def test_nothing_is_left_when_it_stops(self) -> None:
        """
        In the middle too.
        """
        for name in "ab":
            self.connect(name, TURN_SECONDS)
        self.turn(1.0)
        self.checking.stop()

        assert [] == self.clock.getDelayedCalls()
