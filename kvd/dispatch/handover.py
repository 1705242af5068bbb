"""
Connections on their way from the supervisor to one worker.

They travel in batches. With every batch the supervisor adds one to a counter
(an eventfd that both hold), and the worker takes one off before it touches
what came: whoever takes it, has the batch. So the supervisor can take back
what a worker has not claimed, be it dead, stopped or only slow, and give it to
another, and never do two processes read from the same connection. The
supervisor keeps its own descriptor of each connection until the worker has
told that the batch is settled: closing one of two descriptors tells the client
nothing.

======== ================================= ====================================
a batch  means                             next
======== ================================= ====================================
offered  sent, and counted                 claimed, or revoked
claimed  taken off the counter             settled, or declined
revoked  taken off by the supervisor       settled (the worker finds it gone)
declined given back by the worker          dealt again
settled  the supervisor lets go of it
======== ================================= ====================================

Units on the counter are all alike. That is enough, because a worker claims its
batches in order: if there are two units left, they are those of the last two.
For the same reason nothing is sent to a worker that has revoked batches
before it: their messages would claim the units of newer ones.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Claims, Deal

MAX_WAITING: Final = 128
"""
So many unclaimed connections, and a worker loses its turn. Far more than a
worker with time to spare ever has waiting; what is more would wait for it
while others might be idle.
"""

BLOCKED_SECONDS: Final = 0.05
"""
Who could not take a batch is not asked for so long.
"""


@dataclass(slots=True)
class Accepted:
    """
    A connection that nobody has looked at: what it takes to hand it over.
    """

    descriptor: int
    """Owned by this."""
    family: int

    def close(self) -> None:
        """
        Close this process's descriptor, the only one or one of two.
        """
        os.close(self.descriptor)


@dataclass(slots=True)
class _Batch:
    number: int
    connections: Sequence[Accepted]
    offered: float


class HandOver:
    """
    The supervisor's half.
    """

    def __init__(self, channel: Channel) -> None:
        """
        Args:
            channel: Of a worker that is ready.
        """
        self._channel = channel
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self._claims = os.eventfd(0, flags)
        self._batches: deque[_Batch] = deque()
        self._next = 0
        self._revoked = 0
        self._blocked_until = 0.0
        self.leaving = False
        """Whether the worker wants nothing more."""
        self.waiting = 0
        """How many connections are on their way."""
        channel.send(Claims(), [self._claims])

    def is_open(self, now: float) -> bool:
        """
        Whether the worker should be offered connections.
        """
        return (
            not self._revoked
            and not self.leaving
            and self.waiting < MAX_WAITING
            and now >= self._blocked_until
        )

    def offer(self, connections: Sequence[Accepted], now: float) -> bool:
        """
        Send a batch.

        Args:
            connections: At most `MAX_DESCRIPTORS`, of one family; owned by
                this if they are sent.
            now: The time.

        Returns:
            Whether it is on its way; if not, the worker is not open for a while.
        """
        assert len(connections) <= MAX_DESCRIPTORS
        assert not self._revoked
        batch = _Batch(self._next, connections, now)
        deal = Deal(batch.number, len(connections), connections[0].family)
        # First, so that the worker never finds a batch before its unit.
        os.eventfd_write(self._claims, 1)
        if not self._channel.offer(deal, [c.descriptor for c in connections]):
            os.eventfd_read(self._claims)
            self._blocked_until = now + BLOCKED_SECONDS
            return False
        self._next += 1
        self._batches.append(batch)
        self.waiting += len(connections)
        return True

    def settled(self, number: int) -> None:
        """
        The worker has dealt with all batches up to this one.
        """
        while self._batches and self._batches[0].number <= number:
            batch = self._batches.popleft()
            if batch.connections:
                self.waiting -= len(batch.connections)
                _close_all(batch.connections)
            else:
                self._revoked -= 1

    def declined(self, number: int, now: float) -> Sequence[Accepted]:
        """
        The worker gives a batch back.

        Returns:
            The connections in it; the caller's.
        """
        self.settled(number - 1)
        batch = self._batches.popleft()
        assert number == batch.number
        self.waiting -= len(batch.connections)
        self._blocked_until = now + BLOCKED_SECONDS
        return batch.connections

    def oldest(self) -> float | None:
        """
        Since when the oldest batch is on its way; None if there is none.
        """
        for batch in self._batches:
            if batch.connections:
                return batch.offered
        return None

    def revoke(self) -> list[Accepted]:
        """
        Take back what the worker has not claimed.

        Returns:
            The connections; the caller's.
        """
        units = 0
        while True:
            try:
                units += os.eventfd_read(self._claims)
            except BlockingIOError:
                break
        taken: list[Accepted] = []
        for batch in list(self._batches)[len(self._batches) - units :]:
            taken += batch.connections
            self.waiting -= len(batch.connections)
            batch.connections = ()
            self._revoked += 1
        return taken

    def close(self) -> list[Accepted]:
        """
        The worker is gone.

        Returns:
            The connections that it had not claimed; the caller's. Those that it
            had are closed: it may have read from them.
        """
        unclaimed = self.revoke()
        for batch in self._batches:
            _close_all(batch.connections)
        self._batches.clear()
        self.waiting = 0
        os.close(self._claims)
        return unclaimed


def _close_all(connections: Sequence[Accepted]) -> None:
    for connection in connections:
        connection.close()
