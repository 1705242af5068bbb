"""
What requests and connections leave behind: nothing, also if nobody collects garbage.
"""

import gc
from unittest import TestCase

from kvd.testing import MemoryStore
from tests.http.fast_path.cases import get
from tests.http.fast_path.test_connections import (
    ConnectionCase as FastPathConnectionCase,
)
from tests.http.test_connection import HOST, ConnectionCase, status

PUT = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
REQUESTS = [
    (PUT + b"hello", 201),
    (b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"GET /k HTTP/1.1\r\n" + HOST + b"Range: bytes=1-2\r\n\r\n", 206),
    (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    (PUT.replace(b"/k", b"/a//b") + b"hello", 400),
    (b"POST /k HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    (b"DELETE /k HTTP/1.1\r\n" + HOST + b"\r\n", 204),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 204),
]


class Uncollected(TestCase):
    """
    Nothing is freed but by reference counting.
    """

    def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)


class FreedTests(Uncollected, ConnectionCase):
    """
    Reference counting frees a request with its reply, and a connection with its end.
    """

    def test_requests(self) -> None:
        """
        Of every kind, refused ones too, on a connection that stays.
        """
        for request, expected in REQUESTS:
            assert (request, expected) == (request, status(self.ask(request)))
            assert (request, 0) == (request, gc.collect())

    def test_connections(self) -> None:
        """
        Whether they end in time, or in the middle of a request or of a head.
        """
        for sent in (b"", REQUESTS[0][0], PUT + b"he", PUT[:9], b"nonsense\r\n\r\n"):
            client = self.connect()
            client.send(sent).receive()
            client.close()
            del client
            assert 1 == len(self.process.connections)
            assert (sent, 0) == (sent, gc.collect())


class LateAnswersTests(FreedTests):
    """
    See there; the store answers later.
    """

    def make_store(self) -> MemoryStore:
        return MemoryStore(self.reactor)


class FastPathFreedTests(Uncollected, FastPathConnectionCase):
    """
    The same for connections that the fast path looks at first.
    """

    def test_connections(self) -> None:
        """
        Whether it served something or not.
        """
        self.keep("k", b"value")
        gc.collect()
        for sent in (b"", get("k"), get("k", b"Connection: close\r\n"), get("k")[:9]):
            client = self.connect()
            client.send(sent).receive()
            client.close()
            del client
            assert 1 == len(self.process.connections)
            assert (sent, 0) == (sent, gc.collect())
