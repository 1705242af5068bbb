"""
How connections come to workers, as far as the pool has a part in it.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from kvd.ipc.channel import Channel
from kvd.ipc.messages import Message


class Distribution(Protocol):
    """
    Brings connections to workers.
    """

    def joined(self, worker: int, channel: Channel) -> None:
        """
        A worker is ready for connections.
        """

    def leaving(self, worker: int) -> None:
        """
        A worker is about to drain. Connections that it has not taken yet go to other
        workers at once.
        """

    def left(self, worker: int) -> None:
        """
        A worker is gone, whether or not it had joined or was leaving. Connections on
        their way to it go to other workers at once.
        """

    def received(self, worker: int, message: Message) -> None:
        """
        A worker has sent a message about connections.
        """

    def handing_over(self, worker: int) -> int:
        """
        The number of connections on their way to a worker.
        """

    def finish(self) -> Deferred[None]:
        """
        Stop listening, and deliver the connections already accepted. Workers may still
        leave.

        Returns:
            Fires when workers may drain; soon, even if some connections could not be
            delivered.
        """

    def close(self) -> None:
        """
        Release everything: the last worker has ended.
        """


class NoDistribution:
    """
    Brings no connections to workers that are not to serve yet.

    Provides `Distribution`.
    """

    def joined(self, worker: int, channel: Channel) -> None:
        """
        See `Distribution`.
        """

    def leaving(self, worker: int) -> None:
        """
        See `Distribution`.
        """

    def left(self, worker: int) -> None:
        """
        See `Distribution`.
        """

    def received(self, worker: int, message: Message) -> None:
        """
        See `Distribution`.
        """

    def handing_over(self, worker: int) -> int:
        """
        See `Distribution`.
        """
        return 0

    def finish(self) -> Deferred[None]:
        """
        See `Distribution`.
        """
        return succeed(None)

    def close(self) -> None:
        """
        See `Distribution`.
        """
