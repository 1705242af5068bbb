"""
The worker's half of a hand-over; `kvd.dispatch.handover` has the theory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Deal, Declined, Settled

TELL_SECONDS: Final = 0.001
"""
Of batches that wait together is told together: a message costs the supervisor more
than a connection. But a request may keep the worker while it adopts, and what it has
served since must not count as on its way: so it tells in between after so long.
"""


class Adopting:
    """
    Claims batches of connections and hands them on.
    """

    _log = Logger()

    def __init__(
        self,
        channel: Channel,
        adopt: Callable[[socket.socket, Any], None],
        clock: IReactorTime,
    ) -> None:
        """
        Args:
            channel: To the supervisor.
            adopt: Gets each connection and its peer.
            clock: Tells the time.
        """
        self._channel = channel
        self._clock = clock
        self._adopt = adopt
        self._claims = -1
        self._settled = -1
        self._told = -1
        self._began = 0.0
        self.leaving = False
        """Whether everything is declined from now on."""

    def claims(self, descriptor: int) -> None:
        """
        The counter has come; owned by this.
        """
        assert self._claims == -1
        self._claims = descriptor

    def dealt(self, deal: Deal, descriptors: Sequence[int]) -> None:
        """
        A batch has come.
        """
        if self._told == self._settled:
            self._began = self._clock.seconds()
        if not self._claim():
            _close_all(descriptors)
        elif self.leaving or len(descriptors) != deal.connections:
            # Leaving, or out of descriptors: the kernel drops what it cannot
            # place (unix(7)), and the supervisor has them still.
            _close_all(descriptors)
            self._channel.send(Declined(deal.batch))
            self._told = deal.batch
        else:
            for descriptor in descriptors:
                self._adopt_one(descriptor, deal.family)
        self._settled = deal.batch
        if self._clock.seconds() - self._began >= TELL_SECONDS:
            self.heard()

    def _claim(self) -> bool:
        try:
            os.eventfd_read(self._claims)
        except BlockingIOError:
            return False
        return True

    def _adopt_one(self, descriptor: int, family: int) -> None:
        connection = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
        connection.setblocking(False)
        try:
            peer = connection.getpeername()
        except OSError:
            # Reset while it was on its way: nobody is left to serve.
            connection.close()
            return
        try:
            self._adopt(connection, peer)
        except Exception:
            self._log.failure("a connection that was handed over cannot be served")
            connection.close()

    def heard(self) -> None:
        """
        No more messages for now: tell what was settled.
        """
        if self._told != self._settled:
            self._told = self._settled
            self._channel.send(Settled(self._settled))


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
