"""
Clients that speak TLS to a connection under test.
"""

from __future__ import annotations

import socket
import ssl
from functools import cache, partial
from typing import Any

from twisted.internet.protocol import Protocol

from kvd.net.tls import make_context
from kvd.net.tls_transport import TLSTransport
from kvd.net.transport import serve_connection
from tests.certificates import authority, credentials
from tests.stepped import Client, SteppedReactor, tcp_pair


class ClientSocket(ssl.SSLSocket):
    """
    The client's end, as a socket that does not block.
    """

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            # Both ends have said so.
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None
        except ssl.SSLError as error:
            # The server has ended.
            raise BrokenPipeError from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def shutdown(self, how: int) -> None:
        # Below TLS, so that it can still be read.
        socket.socket.shutdown(self, how)


@cache
def server_context() -> ssl.SSLContext:
    """
    What the connections under test share.
    """
    return make_context(credentials())


def client_context() -> ssl.SSLContext:
    """
    A client that knows the authority of `server_context`.
    """
    context = ssl.create_default_context(cadata=authority().cert_pem)
    context.sslsocket_class = ClientSocket
    return context


def serve(
    reactor: SteppedReactor,
    protocol: Protocol,
    near: socket.socket,
    context: ssl.SSLContext | None = None,
) -> None:
    """
    Serve a connection over TLS.
    """
    near.setblocking(False)
    if near.family != socket.AF_UNIX:
        # As on every connection of a port.
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    make_transport = partial(TLSTransport, context=context or server_context())
    serve_connection(near, "", protocol, reactor, make_transport=make_transport)
    reactor.settle()


def shake_hands(reactor: SteppedReactor, client: ssl.SSLSocket) -> None:
    """
    Complete a handshake.

    Raises:
        ssl.SSLError: It fails.
    """
    for _ in range(20):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            reactor.settle()
        else:
            reactor.settle()
            return
    raise AssertionError("the handshake does not end")


def connect(
    reactor: SteppedReactor,
    protocol: Protocol,
    over_tcp: bool = False,
    window: int | None = None,
) -> Client:
    """
    As `tests.stepped.connect`, over TLS.
    """
    near, far = tcp_pair(window) if over_tcp else socket.socketpair()
    serve(reactor, protocol, near)
    far.setblocking(False)
    client = client_context().wrap_socket(
        far, do_handshake_on_connect=False, server_hostname="localhost"
    )
    shake_hands(reactor, client)
    return Client(reactor, client)
