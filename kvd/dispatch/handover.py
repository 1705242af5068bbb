"""
Connections on their way from the supervisor to one worker.

They travel in batches. With every batch the supervisor adds one credit to a counter
(an eventfd that both hold), and the worker takes one off before it touches the batch:
the process that takes a credit has the batch. So the supervisor can revoke a batch that
a worker has not touched yet, because it is dead, stopped or slow, and give it to
another worker; two processes never read from the same connection. The supervisor keeps
its own descriptor of each connection until the worker has acknowledged the batch:
closing one of two descriptors tells the client nothing.

============ ================================= ======================================
a batch      means                             next
============ ================================= ======================================
sent         sent, with a credit               taken, or revoked
taken        the worker took the credit        acknowledged, or refused
revoked      the supervisor took the credit    acknowledged (the worker found none)
refused      given back by the worker          sent again, to whichever worker
acknowledged the supervisor closes its copies
============ ================================= ======================================

Credits on the counter are all alike. That is enough, because a worker takes batches
in order: if two credits are left, they are those of the last two batches. For the same
reason the supervisor sends nothing to a worker that has yet to find that batches were
revoked: it would take the credits of newer ones for them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Batch, Credits

MAX_WAITING: Final = 128
"""
A worker with this many unacknowledged connections is passed over. A worker with time
to spare has far fewer; more would wait for it while others might be idle.
"""

BLOCKED_SECONDS: Final = 0.05
"""
A worker that could not take a batch is passed over for this time.
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
class _Sent:
    number: int
    connections: Sequence[Accepted]
    sent: float


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
        self._credits = os.eventfd(0, flags)
        self._batches: deque[_Sent] = deque()
        self._next = 0
        self._revoked = 0
        self._blocked_until = 0.0
        self.leaving = False
        """Whether the worker is to get no more."""
        self.waiting = 0
        """How many connections are on their way."""
        channel.send(Credits(), [self._credits])

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
        batch = _Sent(self._next, connections, now)
        message = Batch(batch.number, len(connections), connections[0].family)
        # First, so that the worker never finds a batch before its credit.
        os.eventfd_write(self._credits, 1)
        if not self._channel.offer(message, [c.descriptor for c in connections]):
            os.eventfd_read(self._credits)
            self._blocked_until = now + BLOCKED_SECONDS
            return False
        self._next += 1
        self._batches.append(batch)
        self.waiting += len(connections)
        return True

    def acknowledged(self, number: int) -> None:
        """
        The worker is done with all batches up to this one.
        """
        while self._batches and self._batches[0].number <= number:
            batch = self._batches.popleft()
            if batch.connections:
                self.waiting -= len(batch.connections)
                _close_all(batch.connections)
            else:
                self._revoked -= 1

    def refused(self, number: int, now: float) -> Sequence[Accepted]:
        """
        The worker gives a batch back.

        Returns:
            The connections in it; the caller's.
        """
        self.acknowledged(number - 1)
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
                return batch.sent
        return None

    def revoke(self) -> list[Accepted]:
        """
        Take back the batches for which the worker has taken no credit.

        Returns:
            The connections; the caller's.
        """
        credits = 0
        while True:
            try:
                credits += os.eventfd_read(self._credits)
            except BlockingIOError:
                break
        taken: list[Accepted] = []
        for batch in list(self._batches)[len(self._batches) - credits :]:
            taken += batch.connections
            self.waiting -= len(batch.connections)
            batch.connections = ()
            self._revoked += 1
        return taken

    def close(self) -> list[Accepted]:
        """
        The worker is gone.

        Returns:
            The connections that it had not taken; the caller's. Those that it had
            are closed: it may have read from them.
        """
        untaken = self.revoke()
        for batch in self._batches:
            _close_all(batch.connections)
        self._batches.clear()
        self.waiting = 0
        os.close(self._credits)
        return untaken


def _close_all(connections: Sequence[Accepted]) -> None:
    for connection in connections:
        connection.close()
