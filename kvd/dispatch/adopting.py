"""
The worker's half of a hand-over; `kvd.dispatch.handover` has the theory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from twisted.logger import Logger

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Acknowledged, Batch, Refused
from kvd.ipc.row import Row
from kvd.net.factory import ServerFactory


class Adopting:
    """
    Takes credits for batches of connections, and lets the reactor adopt the
    connections.
    """

    _log = Logger()

    def __init__(
        self,
        channel: Channel,
        source: Callable[[int], tuple[int, ServerFactory]],
        reactor: Any,
        row: Row,
    ) -> None:
        """
        Args:
            channel: To the supervisor.
            source: For the number of an address that connections have come to, their
                address family and what serves them.
            reactor: Adopts the connections.
            row: Where the worker writes which batches it is done with.
        """
        self._channel = channel
        self._source = cache(source)
        self._reactor = reactor
        self._row = row
        self._credits = -1
        self.leaving = False
        """Whether all batches are refused from now on."""

    def credits_came(self, descriptor: int) -> None:
        """
        The counter of credits has arrived; owned by this.
        """
        assert self._credits == -1
        self._credits = descriptor

    def batch_came(self, batch: Batch, descriptors: Sequence[int]) -> None:
        """
        A batch has arrived, with these descriptors.
        """
        number = batch.number
        if not self._take_credit():
            _close_all(descriptors)
            # Until it knows that this was found, the supervisor sends nothing more.
            asks = True
        elif self.leaving or len(descriptors) != batch.connections:
            # Leaving, or out of descriptors: the kernel drops what it cannot
            # place (unix(7)), and the supervisor still has them.
            _close_all(descriptors)
            self._row.batch_refused(number)
            self._channel.send(Refused(number))
            return
        else:
            self._serve(descriptors, *self._source(batch.group))
            asks = batch.asks
        self._row.batch_done(number)
        if asks:
            self._channel.send(Acknowledged(number))

    def _take_credit(self) -> bool:
        try:
            os.eventfd_read(self._credits)
        except BlockingIOError:
            return False
        return True

    def _serve(
        self, descriptors: Sequence[int], family: int, factory: ServerFactory
    ) -> None:
        while descriptors:
            taken = factory.take_descriptors(descriptors)
            if taken < len(descriptors):
                self._adopt(descriptors[taken], family, factory)
            descriptors = descriptors[taken + 1 :]

    def adopt(self, descriptor: int, group: int) -> None:
        """
        Let the reactor adopt a connection that its factory did not take.
        """
        self._adopt(descriptor, *self._source(group))

    def _adopt(self, descriptor: int, family: int, factory: ServerFactory) -> None:
        try:
            self._reactor.take_connection(descriptor, family, factory)
        except Exception:
            self._log.failure("a connection that was handed over cannot be served")


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
