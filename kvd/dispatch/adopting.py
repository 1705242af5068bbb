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
from kvd.ipc.messages import Acknowledged, Batch, Refused

ACKNOWLEDGE_SECONDS: Final = 0.001
"""
Batches that wait together are acknowledged together: a message costs the supervisor
more than a connection. But the worker serves requests while it adopts, and what it has
served must not count as on its way: so it acknowledges in between after this time.
"""


class Adopting:
    """
    Takes credits for batches of connections, and lets the reactor adopt the
    connections.
    """

    _log = Logger()

    def __init__(self, channel: Channel, factory: ServerFactory, reactor: Any) -> None:
        """
        Args:
            channel: To the supervisor.
            factory: Serves each connection.
            reactor: Adopts the connections and provides the time.
        """
        self._channel = channel
        self._factory = factory
        self._reactor = reactor
        self._credits = -1
        self._spare = -1
        # The last batch that is done with, and the last that the supervisor knows of.
        self._done = -1
        self._reported = -1
        self._began = 0.0
        self.leaving = False
        """Whether all batches are refused from now on."""

    def credits_came(self, descriptor: int) -> None:
        """
        The counter of credits has arrived; owned by this.
        """
        assert self._credits == -1
        self._credits = descriptor
        self._keep_spare()

    def batch_came(self, batch: Batch, descriptors: Sequence[int]) -> None:
        """
        A batch has arrived, with these descriptors.
        """
        if self._reported == self._done:
            self._began = self._reactor.seconds()
        if not self._take_credit():
            _close_all(descriptors)
        elif self.leaving or len(descriptors) != batch.connections:
            # Leaving, or out of descriptors: the kernel drops what it cannot
            # place (unix(7)), and the supervisor still has them.
            _close_all(descriptors)
            self._channel.send(Refused(batch.number))
            self._reported = batch.number
        else:
            for descriptor in descriptors:
                self._adopt(descriptor, batch.family)
        self._done = batch.number
        if self._reactor.seconds() - self._began >= ACKNOWLEDGE_SECONDS:
            self.acknowledge()

    def _take_credit(self) -> bool:
        try:
            os.eventfd_read(self._credits)
        except BlockingIOError:
            return False
        return True

    def _adopt(self, descriptor: int, family: int) -> None:
        adopt = self._reactor.adoptStreamConnection
        try:
            try:
                adopt(descriptor, family, self._factory)
            except OSError as error:
                if error.errno != errno.EMFILE or self._spare == -1:
                    raise
                # Adopting duplicates the descriptor, which needs a free one. The
                # supervisor closes its copy, so the connection would be lost.
                os.close(self._spare)
                self._spare = -1
                adopt(descriptor, family, self._factory)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._log_failure()
            # Else it was reset on its way: there is no client to serve.
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
            self._spare = os.dup(self._credits)
        except OSError:
            # The next close of a connection makes room.
            pass

    def acknowledge(self) -> None:
        """
        Acknowledge all batches that are done with: no other waits to be read.
        """
        if self._reported != self._done:
            self._reported = self._done
            self._channel.send(Acknowledged(self._done))


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
