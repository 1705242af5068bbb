"""
Connections on their way from the supervisor to one worker.

The supervisor sends them in batches. With every batch it adds one credit to a counter
(an eventfd that both processes hold), and the worker takes a credit before it uses the
batch: the process that takes the credit owns the batch. So the supervisor can revoke a
batch that a worker has not taken yet, because the worker is dead, stopped or slow, and
give it to another worker; two processes never read from the same connection. The
supervisor keeps its own descriptor of each connection until the worker has acknowledged
the batch. The client does not notice when one of two descriptors is closed.

The worker acknowledges a batch on the scoreboard, which wakes no process. The
supervisor reads the scoreboard when it dispatches the next connections, and when it
looks for late batches. If the supervisor might otherwise wait, because the worker has
all it may have or a batch was revoked, the worker sends a message too. (With one for
each batch, the supervisor woke up for it, which cost as much as the hand-over of a
single connection.)

============ ================================= ======================================
a batch      means                             next
============ ================================= ======================================
sent         sent, with a credit               taken, or revoked
taken        the worker took the credit        acknowledged, or refused
revoked      the supervisor took the credit    acknowledged (the worker found none)
refused      given back by the worker          sent again, to any worker
acknowledged the supervisor closes its copies
============ ================================= ======================================

All credits are equal. That is enough, because a worker takes batches in order: if two
credits are left, they belong to the last two batches. For the same reason the
supervisor sends nothing to a worker that has not yet noticed that batches were revoked:
the worker would take the credits of newer batches for the revoked ones.
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
A worker with this many unacknowledged connections gets no more. A worker that is not
overloaded has far fewer; more would wait for it while others might be idle.
"""

ASK_WAITING: Final = MAX_WAITING // 2
"""
A worker with this many unacknowledged connections is asked to acknowledge by message.
"""

BLOCKED_SECONDS: Final = 0.05
"""
A worker that could not take a batch gets none for this time.
"""


Accepted = tuple[int, int]
"""
A connection that was accepted and not read from: its descriptor, and the number of the
address that it has come to. This process owns the descriptor; a worker may own another
one.
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
            channel: To a worker that is ready.
            numbers: Gives each batch of the daemon a greater number, so that no batch
                has a number that an earlier process wrote into the worker's row.
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
        """Whether the worker gets no more connections."""
        self.waiting = 0
        """The number of connections on their way."""
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
            connections: At most `MAX_DESCRIPTORS`, of one address; owned by this
                object if they are sent.
            now: The time.
            asks: Whether the worker has to acknowledge the batch by message in any
                case.

        Returns:
            Whether the batch was sent; if not, the worker is not open for a while.
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
        # First, so that the worker never receives a batch before its credit.
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
        The scoreboard says up to which batch the worker is done, and which one it
        refused last; see `Scoreboard.batches`.
        """
        # If another refusal is on its way, it is not known yet which of the batches up
        # to `done` were taken.
        if refused <= self._refused:
            self.acknowledged(done)

    def acknowledged(self, number: int) -> None:
        """
        The worker has taken all batches up to this one.
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
            Its connections, which the caller owns.
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
        When the oldest batch on its way was sent; None if there is none.
        """
        for batch in self._batches:
            if batch.connections:
                return batch.sent
        return None

    def revoke(self) -> list[Accepted]:
        """
        Take back the batches for which the worker has taken no credit.

        Returns:
            Their connections, which the caller owns.
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
        The worker is lost.

        Returns:
            The connections that it had not taken, which the caller owns. Those that it
            had taken are closed: it may have read from them.
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
