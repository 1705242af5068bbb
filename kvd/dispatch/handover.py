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
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final

from kvd.dispatch.lane import make_lane
from kvd.dispatch.primitives import Accepted
from kvd.ipc.channel import Channel
from kvd.ipc.messages import MAX_DESCRIPTORS, Alive, Credits, pack_batch

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


class HandOver:
    """
    The supervisor's half.
    """

    def __init__(
        self, channel: Channel, row: memoryview, numbers: Iterator[int]
    ) -> None:
        """
        Args:
            channel: To a worker that is ready.
            row: Where the worker writes which batches it is done with; see
                `Scoreboard.batches`. Owned by this.
            numbers: Gives each batch of the daemon a greater number, so that no batch
                has a number that an earlier process wrote into the worker's row.
        """
        self._channel = channel
        self._numbers = numbers
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self._credits = os.eventfd(0, flags)
        self.lane = make_lane(
            channel.fileno(), channel.queue, self._credits, row, next(numbers)
        )
        """What is on its way."""
        self._blocked_until = 0.0
        self._asked: float | None = None
        self.leaving = False
        """Whether the worker gets no more connections."""
        channel.send(Credits(), [self._credits])

    def is_open(self, now: float) -> bool:
        """
        Whether the worker should be offered connections.
        """
        return (
            not self.lane.revoked
            and not self.leaving
            and self.lane.waiting < MAX_WAITING
            and now >= self._blocked_until
        )

    def offer(
        self, connections: list[Accepted], now: float, asks: bool = False
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
        count = len(connections)
        assert count <= MAX_DESCRIPTORS
        assert not self.lane.revoked
        number = next(self._numbers)
        asks = asks or self.lane.waiting + count >= ASK_WAITING
        message = pack_batch(number, count, connections[0][1], asks)
        # First, so that the worker never receives a batch before its credit.
        os.eventfd_write(self._credits, 1)
        if not self._channel.offer_packed(message, list(map(_DESCRIPTOR, connections))):
            os.eventfd_read(self._credits)
            self._blocked_until = now + BLOCKED_SECONDS
            return False
        self.lane.sent(number, connections, now)
        return True

    def ask(self, now: float, sign: float) -> None:
        """
        Have the worker write a time stamp, if it lives; once, until it has.

        Args:
            now: The time.
            sign: When it wrote the last one.
        """
        if self._asked is None or sign > self._asked:
            self._asked = now
            self._channel.send(Alive())

    def refused(self, number: int, now: float) -> Sequence[Accepted]:
        """
        The worker gives a batch back.

        Returns:
            Its connections, which the caller owns.
        """
        self._blocked_until = now + BLOCKED_SECONDS
        return self.lane.refuse(number)

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
        return self.lane.revoke(credits)

    def close(self) -> list[Accepted]:
        """
        The worker is lost.

        Returns:
            The connections that it had not taken, which the caller owns. Those that it
            had taken are closed: it may have read from them.
        """
        untaken = self.revoke()
        self.lane.close()
        os.close(self._credits)
        return untaken
