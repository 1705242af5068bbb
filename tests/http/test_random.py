"""
Connections that meet whatever comes, in any order: late answers of the store, errors,
clients that leave, slow readers, time, draining and aborts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from random import Random
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import LogLevel, capturedLogs

from kvd.errors import StoreFault
from kvd.http import mover
from kvd.http.methods import get
from kvd.interfaces import Answer
from kvd.ipc.row import WORDS_OF_REQUESTS
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, Published
from kvd.net.splice import Pipe
from kvd.settings import Limits
from tests.chance import new_seed
from tests.descriptors import Descriptors
from tests.http.counted import counted, logged
from tests.http.test_connection import ConnectionCase
from tests.http.test_moving import DescriptorStore, DescriptorUpload

T = TypeVar("T")

RUNS = 20
STEPS = 40

# So often half a minute passes at the end, at most: more than any bound takes.
ENDS = 200

HOST = b"Host: kvd\r\n"
TO_COME = b"Content-Length: 4\r\n\r\n"
IN_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
LONG = 900_000

HEADS = [
    b"GET /%k HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%k HTTP/1.1\r\n" + HOST + b"Range: bytes=1-\r\n\r\n",
    b"GET /%k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    b"GET /%k HTTP/1.1\r\n" + HOST + TO_COME + b"abcd",
    b"GET /%k HTTP/1.0\r\n\r\n",
    b"HEAD /%k HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /?limit=2 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"DELETE /%k HTTP/1.1\r\n" + HOST + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /%k HTTP/1.1\r\n" + HOST + TO_COME + b"abcd",
    b"POST /%k HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n" + TO_COME,
    b"POST /%k HTTP/1.1\r\n" + HOST + IN_CHUNKS + b"3\r\nabc\r\n0\r\nT: x\r\n\r\n",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PUT /a//b HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % LONG,
    b"PUT /%k HTTP/1.1\r\nHost: elsewhere.example\r\n" + TO_COME + b"abcd",
    b"PUT /%k HTTP/1.1\r\n" + HOST + IN_CHUNKS + b"3\r\nabc\r\n0\r\nT: x\r\n\r\n",
    b"PUT /%k HTTP/1.1\r\n" + HOST + IN_CHUNKS + b"no\r\n",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b'If-Match: "x"\r\n' + TO_COME + b"abcd",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b"If-None-Match: *\r\n" + TO_COME + b"abcd",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b"Content-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    b"PUT /%k HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n" + TO_COME,
    b"PUT /%k HTTP/1.0\r\nConnection: keep-alive\r\n" + TO_COME + b"abcd",
    b"\r\n",
    b"nonsense\r\n\r\n",
]


class AnyTimeUpload(DescriptorUpload):
    """
    Does not fail by chance when it is committed: then it would have to be discarded.
    """

    _store: AnyTimeStore

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._store.is_sure = True
        try:
            return super().commit(conditions)
        finally:
            self._store.is_sure = False


class AnyTimeStore(DescriptorStore):
    """
    Answers at once, with a Deferred that has fired, or whenever `fire` is called; and
    now and then with an error.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.due: list[Callable[[], None]] = []
        self.is_prompt = self.is_sure = False

    def make_upload(
        self, key: Key, length: int | None, metadata: Metadata
    ) -> AnyTimeUpload:
        return AnyTimeUpload(self, key, length, metadata)

    def answer(self, act: Callable[[], T]) -> Answer[T]:
        kind = 0 if self.is_prompt else self.random.randrange(8)
        if kind < 2:
            return act()
        if kind == 2:
            return maybeDeferred(act)
        if kind == 3 and not self.is_sure and self.random.random() < 0.2:
            return fail(StoreFault("by chance"))
        if kind == 4 and not self.is_sure and self.random.random() < 0.1:
            raise StoreFault("by chance")
        waiting: Deferred[None] = Deferred()
        if not self.is_sure and self.random.random() < 0.1:
            self.due.append(lambda: waiting.errback(StoreFault("late, by chance")))
        else:
            self.due.append(lambda: waiting.callback(None))
        return waiting.addCallback(lambda _: act())

    def fire(self) -> None:
        """
        Give one of the answers that are due.
        """
        self.due.pop(self.random.randrange(len(self.due)))()


@pytest.mark.untraced
class RandomTests(ConnectionCase):
    """
    No order of events makes kvd fail, or keep what it does not need any more.
    """

    store: AnyTimeStore
    runs = RUNS
    limits = Limits(
        head_seconds=10,
        body_seconds=60,
        reader_seconds=60,
        idle_seconds=600,
        value_bytes=1_000_000,
    )

    def setUp(self) -> None:
        self.random = Random(new_seed())
        self.patch(mover, "MOVE_FROM_BYTES", 1000)
        self.patch(get, "CHUNK_BYTES", 1000)
        super().setUp()
        self.client.close()
        self.reactor.settle()

    def make_store(self) -> AnyTimeStore:
        return AnyTimeStore(self.random)

    def make_pipe(self) -> Pipe | None:
        pipe = Pipe()
        self.addCleanup(pipe.close)
        return pipe

    def test_whatever_comes(self) -> None:
        """
        At the end everything is closed, counted and logged.
        """
        for _ in range(self.runs):
            self.run_once()

    def put(self, key: bytes, value: bytes) -> str:
        """
        See `ConnectionCase`. The store answers at once.
        """
        self.store.is_prompt = True
        try:
            return super().put(key, value)
        finally:
            self.store.is_prompt = False

    def is_due(self) -> bool:
        """
        Whether the store has something to answer.
        """
        return bool(self.store.due)

    def answer(self) -> None:
        """
        The store answers.
        """
        self.store.fire()

    def rest(self) -> None:
        """
        Nobody wants anything any more.
        """

    def some_request(self) -> bytes:
        """
        A request, or what a client may take for one.
        """
        random = self.random
        head = random.choice(HEADS).replace(b"%k", b"k%d" % random.randrange(4))
        size = next((size for size in (200_000, LONG) if b" %d\r" % size in head), 0)
        head += bytes(random.choice((0, 10, 70_000, size, size)) if size else 0)
        if b"Expect" in head and random.random() < 0.6:
            head += b"abcd"
        return head

    def some_requests(self) -> bytes:
        """
        One of them, some, or many of a kind.
        """
        random = self.random
        many = b""
        if random.random() < 0.2:
            many = 60 * random.choice(HEADS[:2]).replace(b"%k", b"k0")
        count = random.choice((1, 1, 3, 12))
        return many + b"".join(self.some_request() for _ in range(count))

    def run_once(self) -> None:
        """
        Some steps, and the end.
        """
        random, process = self.random, self.process
        opened = Descriptors("socket:", "pipe:", "/memfd:", "/tmp/")
        self.put(b"k0", os.urandom(random.choice((0, 500, 3_000_000))))
        process.draining = False
        # A time slice may end after each event.
        slice_end = random.choice((0.0, 1e18))
        self.patch(process.run_queue, "slice_end", lambda: slice_end or -1.0)
        clients: list[tuple[socket.socket, bytearray]] = []
        with capturedLogs() as events:
            for _ in range(STEPS):
                self.step(clients)
            # Then all come to an end.
            for sock, _ in clients:
                sock.close()
            for _ in range(ENDS):
                while self.is_due():
                    self.answer()
                self.later(31)
                if not (process.connections or self.is_due()):
                    break
            self.rest()
        bad = [
            event
            for event in events
            if event["log_level"] >= LogLevel.error or "log_failure" in event
        ]
        assert [] == bad
        assert set() == process.connections
        assert 0 == process.answers_due
        assert 0 == self.uploads()
        assert process.pipe is not None
        assert 0 == process.pipe.movers
        words, at = process.row.words.tolist(), WORDS_OF_REQUESTS
        assert words[at.begun] == words[at.done] == len(self.notes.entries)
        assert 0 == words[at.uploads]
        assert logged(self.notes.entries) == counted(words)
        assert 0 == opened.more

    def step(self, clients: list[tuple[socket.socket, bytearray]]) -> None:
        """
        One thing that a client, the store, time or the process does.
        """
        random = self.random
        kind = random.randrange(22)
        if not clients or (kind == 0 and len(clients) < 4):
            clients.append((self.some_client(), bytearray()))
            return
        try:
            if kind < 17:
                self.go_on(kind, *random.choice(clients))
            elif kind < 19:
                self.leave(clients)
            else:
                self.end(kind)
        except OSError:
            # The connection has ended, or the kernel takes no more.
            pass
        self.reactor.settle(random.choice((0, 1, 3)))

    def some_client(self) -> socket.socket:
        """
        A client whose reader is fast or slow.
        """
        random = self.random
        if random.random() < 0.5:
            client = self.connect()
        else:
            client = self.connect_over_tcp(random.choice((None, 4096)))
        if random.random() < 0.5:
            # Whatever is written is queued soon.
            for connection in self.process.connections:
                near = connection.transport.socket
                near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        return client.socket

    def go_on(self, kind: int, sock: socket.socket, to_send: bytearray) -> None:
        """
        Something that belongs to a request.
        """
        random = self.random
        if kind < 10:
            if kind < 8:
                to_send += self.some_requests()
            cut = random.choice((1, 20, 200, 10**9, 10**9, 10**9))
            sent = sock.send(to_send[:cut])
            del to_send[:sent]
        elif kind < 13:
            while self.is_due() and random.random() < 0.8:
                self.answer()
        elif kind < 16:
            sock.recv(random.choice((100, 1_000_000)))
        else:
            self.later(random.choice((0.5, 4, 11, 61, 601)))

    def leave(self, clients: list[tuple[socket.socket, bytearray]]) -> None:
        """
        A client leaves, or says that it sends no more.
        """
        random = self.random
        client = random.choice(clients)
        sock, _ = client
        if random.random() < 0.5:
            sock.shutdown(socket.SHUT_WR)
            return
        if random.random() < 0.5:
            # With a reset.
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.close()
        clients.remove(client)

    def end(self, kind: int) -> None:
        """
        The process breaks a connection off, or drains.
        """
        random = self.random
        connections = list(self.process.connections)
        if kind == 19 and connections and random.random() < 0.3:
            random.choice(connections).abort()
        elif kind == 20 and random.random() < 0.2:
            self.process.draining = True
            for connection in connections:
                connection.drain(1.0)
