"""
Calls of a client that are cancelled, and servers that are silent: over HTTP as Twisted
speaks it, over no socket.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.client import BrokenOff, Client, Entry, TimedOut
from kvd.client.asking import Asker, treq_of
from kvd.client.sources import PIECE_BYTES

URL = "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 30.0

Call: TypeAlias = Callable[[Client], Coroutine[Deferred[Any], Any, object]]


class SlowSource:
    """
    Gives its pieces on request.
    """

    length: int | None = None

    def __init__(self) -> None:
        self.piece: Deferred[bytes] = Deferred()

    def rewind(self) -> bool:
        return False

    def next_piece(self) -> Deferred[bytes]:
        self.piece = Deferred()
        return self.piece


class SlowSink:
    """
    Takes a piece, and then none.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.taken: Deferred[None] = Deferred(self._cancel)

    def _cancel(self, taken: Deferred[None]) -> None:
        self.cancelled = True

    def write(self, data: bytes) -> Deferred[None]:
        return self.taken


async def listed(client: Client) -> list[Entry]:
    """
    A whole listing.
    """
    return [entry async for entry in client.list("p/")]


CALLS: dict[str, Call] = {
    "put": lambda client: client.put("k", b"value"),
    "put a large value": lambda client: client.put("k", b"x" * 3 * PIECE_BYTES),
    "put a slow source": lambda client: client.put("k", SlowSource()),
    "get": lambda client: client.get("k", io.BytesIO()),
    "stat": lambda client: client.stat("k"),
    "remove": lambda client: client.remove("k"),
    "list": listed,
}


class Narrow(StringTransport):
    """
    Has no room for a second piece until it is asked for one.
    """

    socket: Any = None

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and len(data) >= PIECE_BYTES:
            self.producer.pauseProducing()


class Kernel:
    """
    A socket that knows what the other end has acknowledged.
    """

    def __init__(self) -> None:
        self.acknowledged = 0

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return struct.pack("120xQ", self.acknowledged)


class GivenUpCase(SynchronousTestCase):
    """
    One call, and the connection that it makes.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        asker = Asker(
            URL,
            treq_of(self.reactor),
            self.reactor,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self.client = Client(URL, asker)
        self.transport = Narrow()

    def begin(self, call: Call) -> Deferred[object]:
        """
        Call.
        """
        return Deferred.fromCoroutine(call(self.client))

    def connect(self) -> Protocol:
        """
        Let the last connection come about.
        """
        *_, factory, _, _ = self.reactor.tcpClients[-1]
        protocol: Protocol = factory.buildProtocol(None)
        self.transport = Narrow()
        protocol.makeConnection(self.transport)
        return protocol

    def connected(self, call: Call) -> tuple[Deferred[object], Protocol]:
        """
        Call, and let the connection come about.
        """
        calling = self.begin(call)
        return calling, self.connect()

    def is_over(self) -> bool:
        """
        Whether the connection is ended or about to be.
        """
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def lose(self, protocol: Protocol) -> None:
        """
        Let the end of the connection come about.
        """
        protocol.connectionLost(Failure(ConnectionLost()))

    def check_cancelled(self, calling: Deferred[object]) -> None:
        """
        A call that was cancelled says so, and leaves nothing that waits.
        """
        self.failureResultOf(calling, CancelledError)
        assert [] == self.reactor.getDelayedCalls()


PROBLEM = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
    b'Content-Length: 100\r\n\r\n{"detail"'
)
VALUE = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 100\r\n\r\nbegin'
LISTING = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b'Content-Length: 100\r\n\r\n{"key"'
)
DRAINING = (
    b"HTTP/1.1 503 Ending\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 1\r\nContent-Length: 2\r\n\r\n{}"
)

HALF_REPLIES = {
    "the body of a value": ("get", VALUE),
    "the body of a listing": ("list", LISTING),
    "the words of a refusal": ("remove", PROBLEM),
    "a head": ("get", VALUE[:20]),
}


class CancelledTests(GivenUpCase):
    """
    A call that is cancelled ends with that, at once, and with its connection.
    """

    def test_while_it_connects(self) -> None:
        """
        There is no connection afterwards.
        """
        for name, call in CALLS.items():
            with self.subTest(name):
                calling = self.begin(call)
                calling.cancel()
                self.check_cancelled(calling)

    def test_before_there_is_a_reply(self) -> None:
        """
        Whether the request was sent, is being sent, or waits for its own source.
        """
        for name, call in CALLS.items():
            with self.subTest(name):
                calling, protocol = self.connected(call)
                assert b" /" in self.transport.value()
                calling.cancel()
                self.check_cancelled(calling)
                assert self.is_over()
                self.lose(protocol)

    def test_in_the_middle_of_a_reply(self) -> None:
        """
        Whatever it is a reply to.
        """
        for name, (call, reply) in HALF_REPLIES.items():
            with self.subTest(name):
                calling, protocol = self.connected(CALLS[call])
                protocol.dataReceived(reply)
                self.assertNoResult(calling)
                calling.cancel()
                self.check_cancelled(calling)
                assert self.is_over()
                self.lose(protocol)

    def test_while_its_own_sink_takes_its_time(self) -> None:
        """
        The sink is notified, too.
        """
        sink = SlowSink()
        calling, protocol = self.connected(lambda client: client.get("k", sink))
        protocol.dataReceived(VALUE)
        calling.cancel()

        self.check_cancelled(calling)
        assert sink.cancelled
        assert self.is_over()

    def test_between_two_tries(self) -> None:
        """
        There is no second.
        """
        calling, protocol = self.connected(CALLS["get"])
        protocol.dataReceived(DRAINING)
        self.assertNoResult(calling)
        tries = len(self.reactor.tcpClients)
        calling.cancel()

        self.failureResultOf(calling, CancelledError)
        self.reactor.advance(10)
        assert tries == len(self.reactor.tcpClients)

    def test_a_source_that_somebody_else_cancels_ends_the_call(self) -> None:
        """
        It was not the call that was cancelled first, but nobody waits on.
        """
        source = SlowSource()
        calling, protocol = self.connected(lambda client: client.put("k", source))
        source.piece.cancel()

        self.failureResultOf(calling, CancelledError)
        assert self.is_over()
        self.lose(protocol)


class SilentServerTests(GivenUpCase):
    """
    A server that accepts and is silent is given up.
    """

    def test_before_there_is_a_reply(self) -> None:
        """
        What became of a PUT or DELETE is unknown, and that is said.
        """
        for name, call in CALLS.items():
            if name == "put a slow source":
                continue
            with self.subTest(name):
                calling, protocol = self.connected(call)
                # Once more for what had been sent before the first look.
                self.reactor.pump([TIMEOUT_SECONDS - 1, 1, TIMEOUT_SECONDS])
                error = self.failureResultOf(calling, TimedOut).value
                assert "no byte moved for 30 seconds" in error.sentence
                changes = name.startswith(("put", "remove"))
                assert changes == ("is unknown" in error.sentence)
                assert self.is_over()
                assert [] == self.reactor.getDelayedCalls()
                self.lose(protocol)

    def test_not_a_second_too_early(self) -> None:
        """
        The time is what was asked for.
        """
        calling, protocol = self.connected(CALLS["get"])
        self.reactor.advance(TIMEOUT_SECONDS - 0.1)
        self.assertNoResult(calling)
        self.reactor.advance(0.1)

        self.failureResultOf(calling, TimedOut)
        self.lose(protocol)

    def test_in_the_middle_of_a_reply(self) -> None:
        """
        The connection is not left behind.
        """
        for name, (call, reply) in HALF_REPLIES.items():
            with self.subTest(name):
                calling, protocol = self.connected(CALLS[call])
                protocol.dataReceived(reply)
                self.reactor.advance(TIMEOUT_SECONDS)
                error = self.failureResultOf(calling, TimedOut).value
                assert isinstance(error, BrokenOff)
                assert self.is_over()
                self.lose(protocol)

    def test_before_there_is_a_connection(self) -> None:
        """
        A lookup of a name has no bound of its own.
        """
        calling = self.begin(CALLS["get"])
        self.reactor.advance(TIMEOUT_SECONDS)

        self.failureResultOf(calling, TimedOut)

    def test_a_reply_that_comes_slowly_is_taken(self) -> None:
        """
        Silence counts, not the whole time.
        """
        sink = io.BytesIO()
        calling, protocol = self.connected(lambda client: client.get("k", sink))
        protocol.dataReceived(VALUE)
        for _ in range(95):
            self.reactor.advance(TIMEOUT_SECONDS - 1)
            protocol.dataReceived(b"x")

        self.successResultOf(calling)
        assert b"begin" + b"x" * 95 == sink.getvalue()

    def test_a_sink_or_a_source_may_take_its_time(self) -> None:
        """
        It is not the server that is waited for.
        """
        sink, source = SlowSink(), SlowSource()
        getting, protocol = self.connected(lambda client: client.get("k", sink))
        protocol.dataReceived(VALUE)
        putting, sending = self.connected(lambda client: client.put("k", source))
        self.reactor.pump([TIMEOUT_SECONDS] * 10)

        self.assertNoResult(getting)
        self.assertNoResult(putting)
        source.piece.callback(b"")
        self.reactor.pump([TIMEOUT_SECONDS] * 2)
        self.failureResultOf(putting, TimedOut)
        getting.cancel()
        self.failureResultOf(getting, CancelledError)
        self.lose(sending)
        self.lose(protocol)

    def test_a_slow_network_is_no_silence(self) -> None:
        """
        What the other end's system has acknowledged has moved.
        """
        calling, protocol = self.connected(CALLS["put a large value"])
        kernel = self.transport.socket = Kernel()
        for _ in range(20):
            kernel.acknowledged += 1
            self.reactor.advance(TIMEOUT_SECONDS)
        self.assertNoResult(calling)

        self.reactor.advance(TIMEOUT_SECONDS)
        self.failureResultOf(calling, TimedOut)
        self.lose(protocol)
