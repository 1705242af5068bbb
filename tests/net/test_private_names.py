"""
What kvd uses of Twisted that is not public: a Twisted that lacks one of these names, or
that takes one of kvd's for itself, fails here.
"""

from __future__ import annotations

import ast
import inspect
import socket
from types import BuiltinFunctionType, ModuleType
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import _WrappingProtocol
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import (
    HTTP11ClientProtocol,
    LengthEnforcingConsumer,
    Request,
    TransportProxyProducer,
)
from twisted.web.http import _IdentityTransferDecoder
from twisted.web.http_headers import Headers

import kvd.net.port
import kvd.net.reactor
import kvd.net.sending
import kvd.net.transport
from kvd.client.sending import Body
from kvd.client.sources import BytesSource
from kvd.net.secure_socket import SecureSocket
from tests.stepped import SteppedReactor
from tests.tls import server_context

IN_PORT: Final = {
    "_logConnectionLostMsg",
    "_realPortNumber",
    "_shouldShutdown",
}
IN_TRANSPORT: Final = {
    "_aborting",
    "_closeWriteConnection",
    "_tempDataBuffer",
    "_tempDataLen",
    "_writeDisconnected",
    "_writeDisconnecting",
}
IN_REACTOR: Final = {
    "_doReadOrWrite",
    "_justStopped",
    "_newTimedCalls",
    "_pendingTimedCalls",
    "_poller",
    "_reads",
    "_selectables",
}
NOT_DOCUMENTED: Final = {"dataBuffer", "offset", "readConnectionLost"}
"""
In the transport: public by their names alone.
"""


def private_names(module: ModuleType) -> set[str]:
    """
    All attributes with an underscore that a module reads, writes or defines.
    """
    tree = ast.parse(inspect.getsource(module))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef):
            names |= {
                node.id for node in ast.walk(kind) if isinstance(node, ast.Name)
            } | {node.name for node in kind.body if isinstance(node, ast.FunctionDef)}
    return {name for name in names if name[:1] == "_" and name[:2] != "__"}


class PrivateNamesTests(SynchronousTestCase):
    """
    Of what kvd's classes name, exactly these are of Twisted's classes below them.
    """

    def shared(self, module: ModuleType, base: Any) -> set[str]:
        """
        The private names of a module that a base of its classes has too.
        """
        return private_names(module) & set(dir(base))

    def test_port(self) -> None:
        """
        Of `kvd.net.port`.
        """
        assert IN_PORT == self.shared(kvd.net.port, tcp.Port(0, Factory()))

    def test_transport(self) -> None:
        """
        Of `kvd.net.transport` and `kvd.net.sending`.
        """
        reactor = SteppedReactor()
        self.addCleanup(reactor.dispose)
        with socket.socket() as sock:
            base = tcp.Connection(sock, Protocol(), reactor)

            modules = (kvd.net.transport, kvd.net.sending)
            shared = set().union(*(self.shared(each, base) for each in modules))
            assert IN_TRANSPORT == shared
            assert set(dir(base)) >= NOT_DOCUMENTED

    def test_reactor(self) -> None:
        """
        Of `kvd.net.reactor`.
        """
        reactor = EPollReactor()
        self.addCleanup(reactor._poller.close)
        for reader in reactor.removeAll() + list(reactor._internalReaders):
            self.addCleanup(reader.connectionLost, None)

        assert IN_REACTOR == self.shared(kvd.net.reactor, reactor)

    def test_what_reads_and_writes_records(self) -> None:
        """
        Of `kvd.net.secure_socket`, which can do without: the inner object of another.
        """
        near, far = socket.socketpair()
        with far, near:
            functions = SecureSocket(near, server_context(), None).functions

        assert {BuiltinFunctionType} == set(map(type, functions))

    def test_what_brings_the_body_of_a_reply(self) -> None:
        """
        Of `kvd.client.sockets`, which can do without: the connection below it.
        """
        connection: Any = object()

        assert connection is TransportProxyProducer(connection)._producer

    def test_what_counts_the_body_of_a_reply(self) -> None:
        """
        Of `kvd.client.sockets`: how much is to come, in the parser of the protocol that
        an endpoint has wrapped.
        """
        protocol = HTTP11ClientProtocol()
        wrapping = _WrappingProtocol(Deferred(), protocol)
        wrapping.makeConnection(StringTransport())
        request = Request(b"GET", b"/", Headers({b"Host": [b"h"]}), None)
        asked = protocol.request(request)
        wrapping.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n5\r\nab")
        self.successResultOf(asked)
        inside: Any = wrapping
        decoder = inside._wrappedProtocol._parser.bodyDecoder

        assert isinstance(decoder, _IdentityTransferDecoder)
        assert 95 == decoder.contentLength

    def test_what_is_said_to_have_come_has_come(self) -> None:
        """
        The end of a reply is found behind the bytes that it was told of.
        """
        bodies: list[bytes] = []
        decoder = _IdentityTransferDecoder(100, bodies.append, bodies.append)
        decoder.contentLength -= 99
        decoder.dataReceived(b"ab")

        assert [b"a", b"b"] == bodies

    def test_what_sends_the_body_of_a_request(self) -> None:
        """
        Of `kvd.client.sending`: the connection below it, and how much is to come.
        """
        connection: Any = object()
        consumer = LengthEnforcingConsumer(
            Body(BytesSource(b"12345")), connection, Deferred()
        )

        assert connection is consumer._consumer
        assert 5 == consumer._length

    def test_what_the_clock_changes(self) -> None:
        """
        Of `kvd.system.clock`: when a call is to come, and by which clock.
        """

        def ignore(call: DelayedCall) -> None:
            """
            What a reactor would do.
            """

        call = DelayedCall(1.0, len, (), {}, ignore, ignore, lambda: 2.0)

        assert (1.0, 2.0) == (call.time, call.seconds())
