"""
The batches on their way to one worker; `kvd.dispatch.handover` has the theory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final, Protocol

from kvd.dispatch.primitives import Accepted
from kvd.native import compiled

_Sent = tuple[int, list[Accepted], float]
"""
A batch: its number, its connections, none if it was revoked, and when it was sent.
"""


class Lane(Protocol):
    """
    Remembers what was sent to a worker, until the worker is done with it. It owns the
    descriptors of the connections for that time.
    """

    @property
    def waiting(self) -> int:
        """
        The number of connections on their way.
        """

    @property
    def revoked(self) -> int:
        """
        The number of batches that were revoked, and that the worker has not noticed
        yet.
        """

    def sent(self, number: int, connections: list[Accepted], now: float, /) -> None:
        """
        A batch was sent.
        """

    def read_done(self) -> None:
        """
        Read in the worker's row which batches it is done with.
        """

    def acknowledged(self, number: int, /) -> None:
        """
        The worker is done with all batches up to this one.
        """

    def refuse(self, number: int, /) -> list[Accepted]:
        """
        The worker gives a batch back, and has taken all before it.

        Returns:
            Its connections, which the caller owns.
        """

    def oldest(self) -> float | None:
        """
        When the oldest batch on its way was sent; None if there is none.
        """

    def revoke(self, count: int, /) -> list[Accepted]:
        """
        The worker finds no credit for the last batches, so many of them.

        Returns:
            Their connections, which the caller owns.
        """

    def close(self) -> None:
        """
        Close all connections. Only `waiting` and `revoked` may be read afterwards.
        """


class LaneInPython:
    """
    See `Lane`.
    """

    def __init__(
        self,
        channel: int,
        queue: Collection[object],
        credits: int,
        row: memoryview,
        refused: int,
    ) -> None:
        """
        Args:
            channel: The descriptor of the control socket.
            queue: The messages that wait for the control socket.
            credits: The descriptor of the counter of credits.
            row: Two words; see `Scoreboard.batches`.
            refused: A number before that of the first batch.
        """
        self._row = row
        self._refused = refused
        self._batches: deque[_Sent] = deque()
        self.waiting = 0
        self.revoked = 0

    def sent(self, number: int, connections: list[Accepted], now: float, /) -> None:
        """
        See `Lane`.
        """
        self._batches.append((number, connections, now))
        self.waiting += len(connections)

    def read_done(self) -> None:
        """
        See `Lane`.
        """
        done, refused = self._row
        # If another refusal is on its way, it is not known yet which of the batches up
        # to `done` were taken.
        if refused <= self._refused:
            self.acknowledged(done)

    def acknowledged(self, number: int, /) -> None:
        """
        See `Lane`.
        """
        batches = self._batches
        while batches and batches[0][0] <= number:
            _, connections, _ = batches.popleft()
            if not connections:
                self.revoked -= 1
            self.waiting -= len(connections)
            close_all(connections)

    def refuse(self, number: int, /) -> list[Accepted]:
        """
        See `Lane`.
        """
        self.acknowledged(number - 1)
        its_number, connections, _ = self._batches.popleft()
        assert number == its_number
        self._refused = number
        self.waiting -= len(connections)
        return connections

    def oldest(self) -> float | None:
        """
        See `Lane`.
        """
        for _, connections, sent in self._batches:
            if connections:
                return sent
        return None

    def revoke(self, count: int, /) -> list[Accepted]:
        """
        See `Lane`.
        """
        all_connections: list[Accepted] = []
        for place in range(len(self._batches) - count, len(self._batches)):
            number, connections, sent = self._batches[place]
            all_connections += connections
            self.waiting -= len(connections)
            self._batches[place] = number, [], sent
            self.revoked += 1
        return all_connections

    def close(self) -> None:
        """
        See `Lane`.
        """
        for _, connections, _ in self._batches:
            close_all(connections)
        self._batches.clear()
        self.waiting = self.revoked = 0
        self._row.release()


def close_all(connections: Iterable[Accepted]) -> None:
    """
    Close the descriptors of connections.
    """
    for descriptor, _ in connections:
        os.close(descriptor)


class MakeLane(Protocol):
    """
    Makes what `LaneInPython` is, or does the same.
    """

    def __call__(
        self,
        channel: int,
        queue: Collection[object],
        credits: int,
        row: memoryview,
        refused: int,
        /,
    ) -> Lane:
        """
        See `LaneInPython`.
        """


_native: Final = compiled("_dispatch")

make_lane: Final[MakeLane] = LaneInPython if _native is None else _native.Lane
