"""
FastPath to a true file store, and one client.
"""

from __future__ import annotations

import os
import re
import socket
from unittest import mock

from twisted.internet.task import Clock

from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import CLOSES, SERVED, FastPath, Report
from kvd.http.templates import fast_path_to
from kvd.model.keys import Key
from kvd.settings import Limits
from kvd.store import attribute
from kvd.store.file import FileStore
from tests.stepped import Client, SteppedReactor, connect
from tests.store.cases import FileStoreCase

HOST = b"Host: kvd\r\n"


def get(key: str | bytes, fields: bytes = b"", minor: int = 1) -> bytes:
    """
    A whole GET.
    """
    return _line("GET", key, minor) + HOST + fields + b"\r\n"


def head(key: str | bytes, fields: bytes = b"", minor: int = 1) -> bytes:
    """
    A whole HEAD.
    """
    return _line("HEAD", key, minor) + HOST + fields + b"\r\n"


def put(key: str | bytes, body: bytes, fields: bytes = b"", minor: int = 1) -> bytes:
    """
    A whole PUT.
    """
    length = b"Content-Length: %d\r\n" % len(body)
    return _line("PUT", key, minor) + HOST + length + fields + b"\r\n" + body


def _line(method: str, key: str | bytes, minor: int) -> bytes:
    return b"%b /%b HTTP/1.%d\r\n" % (method.encode(), _bytes(key), minor)


def _bytes(key: str | bytes) -> bytes:
    return key.encode("latin-1") if isinstance(key, str) else key


def field(reply: bytes, name: str) -> str | None:
    """
    What a field of a reply says.
    """
    head = reply.partition(b"\r\n\r\n")[0].decode("latin-1")
    found = re.search(rf"(?im)^{name}: ([^\r]*)", head)
    return found[1] if found else None


def body_of(reply: bytes) -> bytes:
    """
    What stands behind the head of a reply.
    """
    return reply.partition(b"\r\n\r\n")[2]


def without_date(reply: bytes) -> bytes:
    """
    What replies to the same request have in common: the next may be of another second.
    """
    return re.sub(rb"\r\nDate: [^\r]*", b"", reply)


class FastPathCase(FileStoreCase):
    """
    A test in which one client has a connection, and only the fast path reads
    from it.
    """

    limits = Limits()

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self.process = self.make_process(self.store)
        self.fast_path = self.make_fast_path(self.process)
        # The folder of uploads is made, as the ordinary way does it.
        self.result(self.store.begin(Key(b"first"), 0)).discard()
        self.near, self.far = self.pair()

    def make_process(self, store: FileStore) -> ProcessContext:
        """
        What a worker would have around the store.
        """
        return ProcessContext(store, Dialects(()), self.limits, Clock())

    def make_fast_path(self, process: ProcessContext) -> FastPath:
        """
        As a worker has them.
        """
        made = fast_path_to(process)
        assert made is not None, "kvd is installed without what a C compiler makes"
        process.fast_path = made
        return made

    def report(self) -> None:
        """
        Report what is served from now on.
        """
        self.fast_path.report_to(True, True, lambda are_many: None)

    def reported(self) -> list[Report]:
        """
        The requests that were served since the last call.
        """
        return self.fast_path.take_reports()[0]

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """
        Two ends of a connection: ours, and a client's.
        """
        near, far = socket.socketpair()
        for end in (near, far):
            self.addCleanup(end.close)
        far.setblocking(False)
        return near, far

    def keep(self, key: str, body: bytes) -> str:
        """
        Publish a value; its entity tag.
        """
        return self.publish(self.store, Key(key.encode()), body).info.etag

    def serve(self, request: bytes) -> int | bytes:
        """
        What comes of a request.
        """
        self.far.sendall(request)
        return self.fast_path.serve(self.near.fileno())

    def reply(self) -> bytes:
        """
        What the client has got.
        """
        pieces = []
        try:
            while piece := self.far.recv(1 << 20):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)

    def served(self, request: bytes) -> bytes:
        """
        The reply to a request that the fast path serves, on a connection that stays.
        """
        outcome = self.serve(request)
        assert 1 == outcome, outcome
        return self.reply()

    def assert_left(self, request: bytes) -> None:
        """
        Nothing is done with a request, neither at the first time nor when its form
        is known; whoever is asked next has it whole.
        """
        before = self.contents()
        for _ in range(2):
            assert request == self.serve(request)
            assert b"" == self.reply()
        assert before == self.contents()
        assert [] == self.debris()

    def lose_content(self, name: str) -> None:
        """
        Replace a value's file by one of which nothing was ever written, as a power cut
        can; from now on the fast path finds such files.
        """
        path = os.path.join(self.path, name)
        status, said = os.stat(path), os.getxattr(path, attribute.NAME)
        os.unlink(path)
        with open(path, "xb") as file:
            os.truncate(file.fileno(), status.st_size)
        os.setxattr(path, attribute.NAME, said)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with mock.patch(
            "kvd.http.templates.reports_unwritten_parts", return_value=True
        ):
            self.fast_path = self.make_fast_path(self.process)

    def contents(self) -> dict[str, tuple[bytes | None, bytes | None]]:
        """
        The body and the attribute of each file below the root.
        """
        contents: dict[str, tuple[bytes | None, bytes | None]] = {}
        for name in self.found():
            path = os.path.join(self.path, name)
            if os.path.islink(path) or not os.path.isfile(path):
                contents[name] = None, None
                continue
            with open(path, "rb") as file:
                contents[name] = file.read(), attribute_of(path)
        return contents


class FallbackCase(FastPathCase):
    """
    The same without the fast path: put before a suite, it has the suite's requests take
    the ordinary way through Python, on one connection after the other.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        super().setUp()
        self.process.fast_path = None
        self._client: Client | None = None
        self._reply = b""

    def make_process(self, store: FileStore) -> ProcessContext:
        return ProcessContext(store, Dialects(()), self.limits, self.reactor)

    def serve(self, request: bytes) -> int | bytes:
        if self._client is None:
            self._client = connect(self.reactor, HttpConnection(self.process))
            self.addCleanup(self._client.socket.close)
        self._reply = self._client.send(request).receive()
        if not self._client.ended:
            return SERVED
        self._client = None
        return SERVED | CLOSES

    def reply(self) -> bytes:
        return self._reply


def attribute_of(path: str) -> bytes | None:
    """
    What kvd has said of a file; None for nothing.
    """
    try:
        return os.getxattr(path, attribute.NAME, follow_symlinks=False)
    except OSError:
        return None
