"""
The factories of a process's connections: which of them need a protocol, and which end
before there is one.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.interfaces import IAddress

from kvd.http.access_log import NOBODY, Entry
from kvd.http.admission import too_many_connections
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.fast_path import FastPath
from kvd.http.reply_fields import refusal_fields
from kvd.http.wire.replies import problem, reply_head, with_length
from kvd.net.bell import Bell
from kvd.net.factory import ServerFactory
from kvd.net.port import Port
from kvd.net.sockets import close_both_ways, name_of
from kvd.net.transport import HEAD_BYTES

if TYPE_CHECKING:
    from ssl import SSLContext

EXCLUSIVE_BATCH: Final = 16
"""
How many connections to accept per wake-up from a socket that no other process accepts
from, if more arrive meanwhile: a turn of the reactor for each would cost a sixth more
for each short connection.
"""

UNINTERRUPTED: Final = 64
"""
How many connections one compiled call may serve: in the one or two milliseconds that
this takes, no other thread of the process runs, and no signal is handled.
"""


class Server(Protocol):
    """
    What serves the connections; `kvd.workers.http_server.HttpServer`.
    """

    process: ProcessContext
    """What all connections share."""
    may_accept: Callable[[int], bool]
    """Called before this process accepts a connection from a socket that other
    processes accept from too, with how many connections wait there."""
    share_of: Callable[[int], int]
    """Returns how many of the connections that wait there this process may accept in
    one turn."""

    def served(self, protocol: HttpConnection, /) -> None:
        """
        A connection has begun, whichever process accepted it; also while draining.
        """


def _too_many_connections() -> bytes:
    """
    The reply to a connection that its address may not have.
    """
    error = too_many_connections()
    body = problem(error.status, error.sentence)
    fields = with_length(error.status, refusal_fields(error), len(body))
    return reply_head(error.status, fields, close=True, minor=1) + body


class HttpFactory(ServerFactory):
    """
    Serves connections from a socket that no other process accepts from, and those that
    were handed over.
    """

    batch_size: int | None = EXCLUSIVE_BATCH
    takes_all = True

    def __init__(
        self,
        server: Server,
        context: SSLContext | None = None,
        *,
        behind_proxy: bool = False,
    ) -> None:
        """
        Args:
            server: Has what connections share.
            context: Of the address, where it speaks TLS.
            behind_proxy: Whether connections begin with the header of a proxy.
        """
        self._server = server
        self._behind_proxy = behind_proxy
        self._is_plain = context is None and not behind_proxy
        if context is not None:
            from kvd.net.tls_transport import TLSTransport

            self.make_transport = partial(TLSTransport, context=context)
        self._first: Callable[[HttpConnection], Callable[[], Any]] | None = None
        self._counted_for: Any = None

    def accept(
        self, listener: socket.socket, count: int, stays: int
    ) -> tuple[int, int, int, Any]:
        """
        See `ServerFactory.accept`. A connection that ends with its only request, or
        that the fast path holds, never gets a Python socket.
        """
        fast_path = self.fast_path()
        if fast_path is None:
            return super().accept(listener, count, stays)
        descriptor = listener.fileno()
        accepted = stayed = 0
        while True:
            asked = min(count - accepted, UNINTERRUPTED)
            try:
                more, stay, left, peer = fast_path.accept(
                    descriptor, asked, stays - stayed
                )
            except OSError:
                if not accepted:
                    raise
                # The error comes again, or none waits.
                return accepted, stayed, -1, None
            accepted += more
            stayed += stay
            if left != -1 or more < asked or accepted == count:
                return accepted, stayed, left, peer

    def take_descriptors(self, descriptors: Sequence[int]) -> int:
        """
        See `ServerFactory.take_descriptors`. A connection that ends with its only
        request never gets a Python socket.
        """
        fast_path = self.fast_path()
        return 0 if fast_path is None else fast_path.serve_new(descriptors)

    def fast_path(self) -> FastPath | None:
        """
        The fast path, if it may serve connections from their start: not where it
        depends on the client.
        """
        process = self._server.process
        if process.by_address is not None or process.proxies is not None:
            # Nobody has looked at the peer.
            return None
        return self._plain_fast_path()

    def _plain_fast_path(self) -> FastPath | None:
        """
        The fast path, if requests come in plain.
        """
        return self._server.process.fast_path if self._is_plain else None

    def take(self, connection: socket.socket, peer: Any) -> bool:
        """
        See `ServerFactory.take`. The fast path serves the first request before a
        protocol is made. A connection that ends with it never gets one.
        """
        self._first = self._counted_for = None
        process = self._server.process
        by_address = process.by_address
        is_proxy = process.is_proxy(peer)
        if by_address is not None and not is_proxy:
            if not by_address.has_room(peer):
                self._refuse(process, connection, peer)
                return True
            # Before its client has a reply: another worker may have the next one
            # already.
            by_address.opened(peer)
            self._counted_for = peer
        fast_path = self._plain_fast_path()
        if fast_path is None or is_proxy:
            return False
        descriptor = connection.fileno()
        if self.fast_path() is None and fast_path.serve_new((descriptor,)):
            if by_address is not None:
                by_address.closed(peer)
            connection.detach()
            return True
        outcome = fast_path.serve(descriptor)
        self._first = lambda built: partial(built.after_fast_path, fast_path, outcome)
        return False

    def _refuse(
        self, process: ProcessContext, connection: socket.socket, peer: Any
    ) -> None:
        """
        Refuse a connection of an address that has too many, and close it.
        """
        process.row.opened()
        process.row.closed()
        try:
            # Unread, what it has sent would reset it, and the reply might be lost.
            connection.recv(HEAD_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            pass
        if self._is_plain:
            # Over TLS, a handshake would cost more than what is refused.
            try:
                connection.send(_too_many_connections(), socket.MSG_DONTWAIT)
            except OSError:
                pass
        close_both_ways(connection)
        if process.log is not None:
            process.log.note(
                Entry(time.time(), name_of(peer), NOBODY, "-", "-", 429, 0, 0.0)
            )

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection:
        """
        See `Factory.buildProtocol`.
        """
        built = HttpConnection(self._server.process, behind_proxy=self._behind_proxy)
        built.counted_for, self._counted_for = self._counted_for, None
        return built

    def first_read(self, built: HttpConnection) -> Callable[[], Any] | None:
        """
        See `ServerFactory.first_read`.
        """
        first, self._first = self._first, None
        return None if first is None else first(built)

    def connected(self, built: HttpConnection) -> None:
        """
        See `ServerFactory.connected`.
        """
        self._server.served(built)


class SharedFactory(HttpFactory):
    """
    Serves connections from a socket that other processes accept from too.
    """

    batch_size = None
    takes_all = False
    wakes_one = True
    _bell: Bell | None = None

    def __init__(
        self,
        server: Server,
        context: SSLContext | None = None,
        *,
        behind_proxy: bool = False,
    ) -> None:
        super().__init__(server, context, behind_proxy=behind_proxy)
        self._unshare: Callable[[], None] = lambda: None
        # Looked up for each call, since the attribute may change.
        self.gate = lambda waiting: server.may_accept(waiting)

    def share(self, waiting: int) -> int:
        """
        See `Server.share_of`.
        """
        return self._server.share_of(waiting)

    def accepts_by(self, port: Port, bell: Bell) -> None:
        """
        Let the fast path accept a lone connection.

        Args:
            port: Has begun to listen with this factory.
            bell: Of its socket; closed with the port.
        """
        self._bell = bell
        fast_path = self.fast_path()
        if fast_path is not None:
            descriptor = port.fileno()
            fast_path.share(descriptor, port, self._server)
            self._unshare = partial(fast_path.unshare, descriptor)

    def stopFactory(self) -> None:
        """
        See `Factory.stopFactory`: its port has stopped.
        """
        self._unshare()
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def leave(self) -> None:
        """
        See `ServerFactory.leave`.
        """
        if self._bell is not None:
            self._bell.ring()
