"""
The worker's half of a hand-over; `kvd.dispatch.handover` has the theory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.protocol import ServerFactory
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

    def __init__(self, channel: Channel, factory: ServerFactory, reactor: Any) -> None:
        """
        Args:
            channel: To the supervisor.
            factory: Serves each connection.
            reactor: Adopts the connections and tells the time.
        """
        self._channel = channel
        self._factory = factory
        self._reactor = reactor
        self._claims = -1
        self._spare = -1
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
        self._keep_spare()

    def dealt(self, deal: Deal, descriptors: Sequence[int]) -> None:
        """
        A batch has come.
        """
        if self._told == self._settled:
            self._began = self._reactor.seconds()
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
        if self._reactor.seconds() - self._began >= TELL_SECONDS:
            self.heard()

    def _claim(self) -> bool:
        try:
            os.eventfd_read(self._claims)
        except BlockingIOError:
            return False
        return True

    def _adopt_one(self, descriptor: int, family: int) -> None:
        adopt = self._reactor.adoptStreamConnection
        try:
            try:
                adopt(descriptor, family, self._factory)
            except OSError as error:
                if error.errno != errno.EMFILE or self._spare == -1:
                    raise
                # To adopt is to duplicate, and the supervisor lets go of this one.
                os.close(self._spare)
                self._spare = -1
                adopt(descriptor, family, self._factory)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._log_failure()
            # Else reset while it was on its way: nobody is left to serve.
        except Exception:
            self._log_failure()
        finally:
            os.close(descriptor)
            if self._spare == -1:
                self._keep_spare()

    def _log_failure(self) -> None:
        self._log.failure("a connection that was handed over cannot be served")

    def _keep_spare(self) -> None:
        """
        Keep a descriptor in reserve, for when there is no other.
        """
        try:
            self._spare = os.dup(self._claims)
        except OSError:
            # The next close of a connection makes room.
            pass

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
