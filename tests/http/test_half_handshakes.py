"""
Tests for `kvd.http.half_handshakes`.
"""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from kvd.http.half_handshakes import MOST_HALF_DONE, HalfHandshakes


class HalfHandshakesTests(SynchronousTestCase):
    """
    `HalfHandshakes` ends the oldest of the address that has most.
    """

    def setUp(self) -> None:
        self.handshakes = HalfHandshakes()
        self.ended: list[str] = []

    def begin(self, name: str, network: str) -> Callable[[], None]:
        """
        One more.
        """

        def end() -> None:
            self.ended.append(name)

        self.handshakes.add(end, network)
        return end

    def test_others_stay(self) -> None:
        """
        One address with thousands takes nothing from another.
        """
        self.begin("slow", "192.0.2.1")
        for number in range(10 * MOST_HALF_DONE):
            self.begin(str(number), "192.0.2.2")
            if number == MOST_HALF_DONE:
                self.begin("late", "192.0.2.3")

        assert MOST_HALF_DONE == len(self.handshakes)
        assert [str(number) for number in range(9 * MOST_HALF_DONE + 2)] == self.ended

    def test_thousands_of_addresses(self) -> None:
        """
        The oldest of all ends.
        """
        for number in range(MOST_HALF_DONE + 3):
            self.begin(str(number), str(number))

        assert ["0", "1", "2"] == self.ended

    def test_what_is_over_makes_room(self) -> None:
        """
        Once, however often it is said; and what was added twice counts once.
        """
        for _ in range(3):
            ends = [self.begin("over", "192.0.2.1") for _ in range(MOST_HALF_DONE)]
            self.handshakes.add(ends[0], "192.0.2.1")
            for end in ends * 2:
                self.handshakes.discard(end)
            assert 0 == len(self.handshakes)

        assert [] == self.ended
