"""
What a port asks of its factory beyond Twisted's `buildProtocol`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import protocol
from twisted.internet.interfaces import IAddress, IReactorFDSet

from kvd.net.sockets import address_of
from kvd.net.transport import (
    MakeTransport,
    ServerTransport,
    serve_connection,
)


class ServerFactory(protocol.ServerFactory):
    """
    Serves the connections of one listening socket, and those that are handed over.

    With the defaults it is a `twisted.internet.protocol.ServerFactory`, whose port
    accepts one connection per wake-up.
    """

    noisy = False

    batch_size: int | None = 1
    """How many connections a port accepts per wake-up, if they are there; None: it
    asks `share` each time."""

    takes_all = False
    """Whether a port that has accepted `batch_size` connections also accepts those that
    wait then, in the same wake-up."""

    gate: Callable[[int], bool] | None = None
    """Asked before connections are accepted, with how many seem to wait: whether this
    process may accept. If not, another process that listens there may, or this one a
    moment later. None: always."""

    wakes_one = False
    """Whether the kernel wakes only one of the processes that wait for connections at
    the socket. The port calls `leave` when it leaves one that waits there."""

    make_transport: MakeTransport = ServerTransport
    """Makes the transport of a connection that stays."""

    def share(self, waiting: int) -> int:
        """
        How many connections to accept in this wake-up, where `batch_size` is None.

        Args:
            waiting: How many seem to wait.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """
        What waits at the socket is left to other processes, if `wakes_one`.
        """

    def batch_accepted(self) -> None:
        """
        The connections of one wake-up are accepted.
        """

    def accept(
        self, listener: socket.socket, count: int, stays: int
    ) -> tuple[int, int, int, Any]:
        """
        Accept connections, until there is one that the factory does not take.

        Args:
            listener: Listening and non-blocking.
            count: How many at most.
            stays: How many at most that do not end at once.

        Returns:
            How many were accepted, and how many of them have not ended; fewer of both
            if no more wait. If the last one is the caller's: its descriptor, and what
            ``accept`` said of the other end, or None if that was not asked; else -1 and
            None. `take` is asked next.

        Raises:
            OSError: None could be accepted, or none waits.
        """
        raw: Any = listener
        # As `socket.accept` calls it, which then makes a socket of the descriptor: that
        # takes 3 microseconds and a system call.
        return 1, 1, *raw._accept()

    def take_descriptors(self, descriptors: Sequence[int]) -> int:
        """
        Take connections that were handed over, before sockets are made of them, until
        there is one that the factory does not take.

        Args:
            descriptors: Of the connections, as other processes may still have; those
                that it takes are the factory's.

        Returns:
            How many were taken. `take` is asked next, for the first of the others.
        """
        return 0

    def take(self, connection: socket.socket, peer: Any) -> bool:
        """
        Take a connection as it is, before a protocol is made for it.

        Args:
            connection: The factory's, if it takes it.
            peer: What ``accept`` said of the other end.

        Returns:
            Whether it was taken; else `buildProtocol` is asked next.
        """
        return False

    def first_read(self, built: Any) -> Callable[[], Any] | None:
        """
        What is called in place of the first read of a connection, because `take` has
        read from it already; None: nothing was read.

        Args:
            built: The protocol that `buildProtocol` has just made for it.
        """
        return None

    def connected(self, built: Any) -> None:
        """
        A protocol has its transport, and has been given the bytes that had come.
        """


class AnyFactory(ServerFactory):
    """
    A factory of Twisted's own kind, for kvd's ports.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        See `Factory.buildProtocol`.
        """
        return self._factory.buildProtocol(addr)

    def doStart(self) -> None:
        """
        See `Factory.doStart`.
        """
        self._factory.doStart()

    def doStop(self) -> None:
        """
        See `Factory.doStop`.
        """
        self._factory.doStop()


def server_factory(factory: Any) -> ServerFactory:
    """
    A factory as kvd's ports use it, whichever kind it is.
    """
    return factory if isinstance(factory, ServerFactory) else AnyFactory(factory)


def make_connection(
    connection: socket.socket, peer: Any, factory: ServerFactory, reactor: IReactorFDSet
) -> None:
    """
    Serve a connection that the factory did not take.

    Args:
        connection: The factory's from here on.
        peer: What ``accept`` or ``getpeername`` said of the other end.
        factory: Makes its protocol.
        reactor: Watches it.
    """
    built: Any = factory.buildProtocol(address_of(peer))
    if built is None:
        connection.close()
        return
    serve_connection(
        connection,
        peer,
        built,
        reactor,
        factory.first_read(built),
        factory.make_transport,
    )
    factory.connected(built)
