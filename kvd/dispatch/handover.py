"""
Connections on their way from the supervisor to one worker.

They travel in batches. With every batch the supervisor adds one credit to a counter
(an eventfd that both hold), and the worker takes one off before it touches the batch:
the process that takes a credit has the batch. So the supervisor can revoke a batch that
a worker has not touched yet, because it is dead, stopped or slow, and give it to
another worker; two processes never read from the same connection. The supervisor keeps
its own descriptor of each connection until the worker is done with the batch: closing
one of two descriptors tells the client nothing.

The worker acknowledges a batch on the scoreboard, which wakes nobody. The supervisor
reads it when it dispatches the next connections, or looks for late batches. Only where
it might wait for that, because the worker has many batches or the batch was revoked,
the worker sends a message too. (A message for each batch cost a connection that came
alone as much as its hand-over: the supervisor woke for it.)

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Batch, Credits

_DESCRIPTOR: Final = itemgetter(0)

MAX_WAITING: Final = 128
"""
A worker with this many unacknowledged connections is passed over. A worker with time
to spare has far fewer; more would wait for it while others might be idle.
"""

ASK_WAITING: Final = MAX_WAITING // 2
"""
With this many unacknowledged connections a worker is asked to acknowledge by message.
"""

BLOCKED_SECONDS: Final = 0.05
"""
A worker that could not take a batch is passed over for this time.
"""


Accepted = tuple[int, int]
"""
A connection that nobody has looked at, as it is handed over: a descriptor, and the
family of its address. This process owns the descriptor, the only one or one of two.
"""


@dataclass(slots=True)
class _Sent:
    number: int
    connections: Sequence[Accepted]
    sent: float


class HandOver:
    """
    The supervisor's half.
    """

    def __init__(self, channel: Channel, numbers: Iterator[int]) -> None:
        """
        Args:
            channel: Of a worker that is ready.
            numbers: Gives each batch of the daemon a greater number. So what an earlier
                process has written into the worker's row is about none of these.
        """
        self._channel = channel
        self._numbers = numbers
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self._credits = os.eventfd(0, flags)
        self._batches: deque[_Sent] = deque()
        self._refused = next(numbers)
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

    def offer(
        self, connections: Sequence[Accepted], now: float, asks: bool = False
    ) -> bool:
        """
        Send a batch.

        Args:
            connections: At most `MAX_DESCRIPTORS`, of one family; owned by
                this if they are sent.
            now: The time.
            asks: Whether the worker is to acknowledge it by message in any case.

        Returns:
            Whether it is on its way; if not, the worker is not open for a while.
        """
        assert len(connections) <= MAX_DESCRIPTORS
        assert not self._revoked
        count = len(connections)
        batch = _Sent(next(self._numbers), connections, now)
        message = Batch(
            batch.number,
            count,
            connections[0][1],
            asks or self.waiting + count >= ASK_WAITING,
        )
        # First, so that the worker never finds a batch before its credit.
        os.eventfd_write(self._credits, 1)
        if not self._channel.offer(message, list(map(_DESCRIPTOR, connections))):
            os.eventfd_read(self._credits)
            self._blocked_until = now + BLOCKED_SECONDS
            return False
        self._batches.append(batch)
        self.waiting += count
        return True

    def written(self, done: int, refused: int) -> None:
        """
        The scoreboard says which batch the worker is done with, and which it has
        refused last; see `Scoreboard.batches`.
        """
        # Another refusal is on its way; until it is here, nobody knows which of the
        # batches up to `done` are meant.
        if refused <= self._refused:
            self.acknowledged(done)

    def acknowledged(self, number: int) -> None:
        """
        The worker is done with all batches up to this one.
        """
        while self._batches and self._batches[0].number <= number:
            batch = self._batches.popleft()
            if batch.connections:
                self.waiting -= len(batch.connections)
                close_all(batch.connections)
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
        self._refused = number
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
            close_all(batch.connections)
        self._batches.clear()
        self.waiting = 0
        os.close(self._credits)
        return untaken


def close_all(connections: Iterable[Accepted]) -> None:
    """
    Close the descriptors of connections.
    """
    for descriptor, _ in connections:
        os.close(descriptor)
