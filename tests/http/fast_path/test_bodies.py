"""
Tests for `kvd.http.fast_path`: bodies that come whole, and bodies that come in pieces.
"""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob

from kvd.http.connection import HttpConnection
from kvd.http.fast_path import (
    CLOSES,
    LEAVES_UPLOAD,
    LINGERS,
    MAX_BODY_BYTES,
    MAX_PARTIAL_BYTES,
    NOTHING,
    SERVED,
    Joined,
    PartialUpload,
)
from kvd.http.states import State
from kvd.http.wire.replies import CONTINUE
from kvd.ipc.row import WORDS_OF_REQUESTS
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from tests.chance import new_seed
from tests.http.fast_path.cases import FastPathCase, body_of, field, get, put
from tests.http.fast_path.test_connections import ConnectionCase
from tests.http.fast_path.test_idle import IdleCase
from tests.http.test_connection import LIMITS

BODY_SECONDS = LIMITS.body_seconds


def head_of(request: bytes) -> bytes:
    """
    A request without its body.
    """
    return request[: request.index(b"\r\n\r\n") + 4]


def begun_and_done(case: FastPathCase) -> tuple[int, int]:
    """
    How many requests the scoreboard knows.
    """
    words = case.process.row.words
    return words[WORDS_OF_REQUESTS.begun], words[WORDS_OF_REQUESTS.done]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """
    No file gets longer than this.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class PartialUploadTests(FastPathCase):
    """
    What has come of a body is in a file; the last piece publishes it.
    """

    joined: Joined

    def setUp(self) -> None:
        super().setUp()
        self.joined = self.fast_path.join(self.near.fileno())
        self.report()

    def start(self, request: bytes) -> None:
        """
        A part of a request comes, whose upload begins.
        """
        assert NOTHING == self.serve(request)
        assert b"" == self.reply()

    def written(self) -> bytes:
        """
        What the file of the only upload holds.
        """
        (path,) = self.debris()
        with open(path, "rb") as file:
            return file.read()

    def take(self) -> PartialUpload:
        """
        The upload, as it is now.
        """
        upload = self.joined.take_upload()
        assert upload is not None
        self.addCleanup(os.close, upload.descriptor)
        return upload

    def test_bodies_of_any_size_in_pieces(self) -> None:
        """
        Each piece is in the file when it has come; the report knows all of it.
        """
        dice = random.Random(new_seed())
        for size in (1, 10, dice.randint(11, 9_000), 65_537, MAX_PARTIAL_BYTES):
            body = dice.randbytes(size)
            whole = put("a/k", body)
            head = len(head_of(whole))
            before = self.joined.bytes
            ends = sorted(dice.randint(head, len(whole)) for _ in range(3))
            self.start(whole[:head])
            for begin, end in zip([head, *ends], ends, strict=False):
                if end in (begin, len(whole)):
                    continue
                self.arrive(whole[begin:end])
                assert whole[head:end] == self.written()
            last = max(end for end in (head, *ends) if end < len(whole))
            assert SERVED == self.arrive(whole[last:])
            reply = self.reply()
            assert reply.startswith(b"HTTP/1.1 20")
            (report,) = self.reported()
            assert ("PUT", "/a/k", size) == (
                *(report.method, report.target, report.body_bytes),
            )
            assert before + len(whole) + len(reply) == self.joined.bytes
            assert body == self.get(self.store, Key(b"a/k"))
            assert [] == self.debris()
            assert self.joined.take_upload() is None

    def arrive(self, piece: bytes) -> int | bytes:
        """
        What comes of a piece of a body.
        """
        sender = memoryview(piece)
        outcome: int | bytes = NOTHING
        while sender:
            sent = self.far.send(sender)
            sender = sender[sent:]
            outcome = self.fast_path.serve(self.near.fileno())
            assert NOTHING == outcome or not sender
        return outcome

    def test_it_counts_from_its_head_on(self) -> None:
        """
        Once.
        """
        begun, done = begun_and_done(self)
        self.start(head_of(put("k", b"value")))
        assert (begun + 1, done) == begun_and_done(self)
        assert SERVED == self.serve(b"value")
        assert (begun + 1, done + 1) == begun_and_done(self)

    def test_the_next_request_stays_in_the_socket(self) -> None:
        """
        Not a byte of it is read.
        """
        self.start(head_of(put("k", b"value")))
        assert SERVED == self.serve(b"value" + put("k", b"other"))
        assert SERVED == self.fast_path.serve(self.near.fileno())
        assert b"other" == self.get(self.store, Key(b"k"))

    def test_a_longer_one_is_left(self) -> None:
        """
        To be moved inside the kernel; but not if all of it is there.
        """
        whole = put("k", bytes(MAX_PARTIAL_BYTES + 1))
        assert whole[:1000] == self.serve(whole[:1000])
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * len(whole))
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(whole))
        self.served(whole)

    def test_a_connection_that_ends_with_it(self) -> None:
        """
        At once, unless more has come.
        """
        closing = put("k", b"value", b"Connection: close\r\n")
        self.start(head_of(closing))
        assert SERVED | CLOSES == self.serve(b"value")
        self.reply()
        self.start(head_of(closing))
        assert SERVED | CLOSES | LINGERS == self.serve(b"value" + b"x")

    def test_a_client_that_waits_to_be_asked(self) -> None:
        """
        Is asked once its upload has begun, unless the body has come already.
        """
        whole = put("k", b"value", b"Expect: 100-continue\r\n")
        assert self.served(whole).startswith(b"HTTP/1.1 201 ")
        self.start(whole[:-3])
        assert SERVED == self.serve(b"lue")
        assert self.reply().startswith(b"HTTP/1.1 204 ")
        sent = self.process.row.words[WORDS_OF_REQUESTS.bytes_out]
        counted = self.joined.bytes
        assert NOTHING == self.serve(head_of(whole))
        assert CONTINUE == self.reply()
        assert SERVED == self.serve(b"value")
        reply = self.reply()
        assert reply.startswith(b"HTTP/1.1 204 ")
        moved = len(CONTINUE) + len(reply)
        assert sent + moved == self.process.row.words[WORDS_OF_REQUESTS.bytes_out]
        assert counted + len(whole) + moved == self.joined.bytes
        assert NOTHING == self.serve(head_of(whole))
        upload = self.take()
        assert (len(CONTINUE), b"") == (upload.sent, upload.unsent)

    def test_a_client_that_cannot_be_asked_yet(self) -> None:
        """
        The ordinary way sends it what its socket does not take.
        """
        head = head_of(put("k", b"value", b"Expect: 100-continue\r\n"))
        self.far.sendall(head)
        self.near.shutdown(socket.SHUT_WR)
        assert LEAVES_UPLOAD == self.fast_path.serve(self.near.fileno())
        upload = self.take()
        assert (0, CONTINUE) == (upload.sent, upload.unsent)

    def test_what_is_taken(self) -> None:
        """
        The head, the open file, and how much is in it.
        """
        whole = put("k", b"value")
        self.start(whole[:-2])
        upload = self.take()

        assert (head_of(whole), 3, b"") == (
            *(upload.request, upload.received),
            upload.unwritten,
        )
        assert [upload.name] == [os.path.basename(p).encode() for p in self.debris()]
        assert self.joined.take_upload() is None
        assert 0 == upload.held
        file = os.dup(upload.descriptor)
        adopted = upload.adopt(Key(b"k"), 5, {}, file, upload.name, upload.held)
        adopted.write(b"ue")
        self.result(adopted.commit(UNCONDITIONAL))
        assert b"value" == self.get(self.store, Key(b"k"))
        assert [] == self.debris()

    def test_a_client_that_ends_midway(self) -> None:
        """
        The upload is left to the ordinary way, as is the end.
        """
        self.start(put("k", b"value")[:-3])
        self.far.sendall(b"u")
        self.far.shutdown(socket.SHUT_WR)
        assert LEAVES_UPLOAD == self.fast_path.serve(self.near.fileno())
        assert 3 == self.take().received
        assert b"" == self.fast_path.serve(self.near.fileno())

    def test_what_cannot_be_published_is_left_in_its_file(self) -> None:
        """
        For whoever may wait for the lock.
        """
        self.start(head_of(put("k", b"value")))

        def locked() -> None:
            assert LEAVES_UPLOAD == self.serve(b"value")

        self.while_locked(Key(b"k"), locked)
        assert b"value" == self.written()
        assert 5 == self.take().received

    def test_what_the_file_does_not_take(self) -> None:
        """
        Is left too.
        """
        self.start(head_of(put("k", b"value")))
        with file_size_limit(3):
            assert LEAVES_UPLOAD == self.serve(b"valu")
        upload = self.take()
        assert (3, b"u") == (upload.received, upload.unwritten)

    def test_what_may_be_refused_does_not_begin(self) -> None:
        """
        So that the client hears of it before it sends the body.
        """
        self.served(put("value", b"v"))
        self.served(put("folder/k", b"v"))
        os.symlink("folder", os.path.join(self.path, "link"))
        for key in ("value/k", "value/a/k", "folder", "link/k"):
            head = head_of(put(key, b"value"))
            assert head == self.serve(head)
        assert [] == self.debris()

    def test_an_upload_that_nobody_cares_for(self) -> None:
        """
        A new connection has begun it, and does not join: it is discarded.
        """
        near, far = self.pair()
        begun, done = begun_and_done(self)
        far.sendall(put("k", b"value")[:-1])
        assert NOTHING == self.fast_path.serve(near.fileno())
        assert b"valu" == self.written()
        self.served(get("none"))
        assert [] == self.debris()
        assert (begun + 2, done + 2) == begun_and_done(self)
        assert self.fast_path.join(near.fileno()).take_upload() is None

    def test_a_new_connection_joins(self) -> None:
        """
        Its upload goes on.
        """
        near, far = self.pair()
        far.sendall(put("k", b"value")[:-1])
        assert 0 == self.fast_path.serve_new([near.fileno()])
        joined = self.fast_path.join(near.fileno())
        assert NOTHING == self.fast_path.serve(near.fileno())
        far.sendall(b"e")
        assert self.fast_path.serve_idle(near.fileno())
        assert far.recv(1000).startswith(b"HTTP/1.1 201 ")
        assert joined.take_upload() is None


class KeepingTests(PartialUploadTests):
    """
    The same on a disk, where what is replaced is kept until the next sync.
    """

    keeps = True
    exchanges = True

    def kept(self) -> set[bytes]:
        """
        The keys of which something is kept.
        """
        state = self.store.fast_path_state
        assert state.kept is not None
        return {bytes(key) for key in state.kept if key}

    def debris(self) -> list[str]:
        """
        All files of the upload folder that are not kept.
        """
        state = self.store.fast_path_state
        assert state.kept is not None
        kept = {os.fsdecode(name) for name in state.kept.values()}
        (folder,) = glob(os.path.join(self.path, ".kvd", "*", ""))
        return [folder + name for name in os.listdir(folder) if name not in kept]

    def test_a_sync_while_it_comes(self) -> None:
        """
        Whether what it replaces has to be kept is decided when it is published.
        """
        state = self.store.fast_path_state
        assert state.kept is not None
        for first in (True, False):
            self.served(put("k", b"old"))
            if first:
                state.kept.clear()
            self.start(head_of(put("k", b"value")))
            # Another one is published meanwhile, or a sync has taken the list.
            if first:
                self.store_as_usual(b"between")
            else:
                state.kept.clear()
            outcome = self.serve(b"value")
            # Its file has no name under which a value may be kept.
            assert (SERVED if first else LEAVES_UPLOAD) == outcome
            if first:
                assert {b"k"} == self.kept()
                assert b"value" == self.get(self.store, Key(b"k"))
            else:
                assert 5 == self.take().received

    def store_as_usual(self, body: bytes) -> None:
        """
        Publish a value of the same key.
        """
        self.publish(self.store, Key(b"k"), body)


class ArrivingTests(ConnectionCase):
    """
    A connection waits for a body as it always does.
    """

    def start(self, body: bytes = b"") -> bytes:
        """
        A request of which the head has come, and a part of the body; the rest.
        """
        assert b"" == self.ask(head_of(put("k", b"value")) + body)
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        # It does not know yet.
        assert State.IDLE is connection._state
        assert 1 == len(self.debris())
        return b"value"[len(body) :]

    def test_the_rest_comes(self) -> None:
        """
        Sooner or later; and further requests.
        """
        for sent, seconds in ((b"", 0), (b"val", 0), (b"", 1), (b"val", 1)):
            self.later(BODY_SECONDS / 2)
            rest = self.start(sent)
            if seconds:
                self.later(seconds)
                self.later(BODY_SECONDS / 2)
            assert self.ask(rest).startswith(b"HTTP/1.1 20")
            assert b"value" == self.get(self.store, Key(b"k"))
            assert b"value" == body_of(self.ask(get("k")))
        assert 6 == self.watched.served
        assert [] == self.debris()
        begun, done = begun_and_done(self)
        assert 8 == begun == done

    def test_a_client_that_waits_to_be_asked(self) -> None:
        """
        Sooner or later; what it was sent is recorded once.
        """
        sent = 0
        for seconds in (0, 1):
            whole = put("k", b"value", b"Expect: 100-continue\r\n")
            assert CONTINUE == self.ask(head_of(whole))
            if seconds:
                self.later(seconds)
            reply = self.ask(b"value")
            assert reply.startswith(b"HTTP/1.1 20")
            sent += len(CONTINUE) + len(reply)
        assert sent == self.process.row.words[WORDS_OF_REQUESTS.bytes_out]

    def test_large_bodies_of_fast_and_slow_clients(self) -> None:
        """
        Up to those that the kernel moves.
        """
        for size in (65_000, 70_000, 262_144, MAX_BODY_BYTES, MAX_BODY_BYTES + 1):
            body = os.urandom(size)
            assert self.ask(put("k", body)).startswith(b"HTTP/1.1 20")
            assert body == self.get(self.store, Key(b"k"))
        assert [] == self.debris()
        assert 1 == len(self.process.connections)

    def test_each_piece_is_written_when_it_comes(self) -> None:
        """
        To a file that is nobody's value yet; whoever writes it.
        """
        body = os.urandom(100)
        for waits in (False, True):
            assert b"" == self.ask(head_of(put("k", body)))
            for end in range(10, 100, 10):
                assert b"" == self.ask(body[end - 10 : end])
                (upload,) = self.debris()
                with open(upload, "rb") as file:
                    assert body[:end] == file.read()
                if waits and end == 50:
                    self.later(1)
            assert self.ask(body[90:]).startswith(b"HTTP/1.1 20")
            assert body == self.get(self.store, Key(b"k"))
            assert [] == self.debris()
        assert 1 == self.watched.served

    def test_a_client_that_sends_no_more(self) -> None:
        """
        It gets 408 after the time of a body, which each byte starts anew.
        """
        assert b"" == self.ask(head_of(put("k", b"value")))
        for _ in range(3):
            self.later(BODY_SECONDS - 1)
            assert b"" == self.ask(b"x")
        self.later(BODY_SECONDS - 1)
        assert not self.client.ended
        self.later(1)

        assert self.client.receive().startswith(b"HTTP/1.1 408 ")
        assert [408] == [entry.status for entry in self.notes.entries]
        assert [] == self.found()
        assert [] == self.debris()

    def test_a_client_that_leaves(self) -> None:
        """
        Is noted with what it sent; the value that was there stays.
        """
        self.keep("k", b"old")
        for sent in (b"", b"val"):
            self.start(sent)
            self.client.close()

            entry = self.notes.entries.pop()
            assert (499, len(sent)) == (entry.status, entry.body_bytes)
            begun, done = begun_and_done(self)
            assert begun == done
            assert [] == self.debris()
            assert not self.process.connections
            self.client = self.connect()
        assert b"old" == self.get(self.store, Key(b"k"))

    def test_a_client_that_closes_its_half(self) -> None:
        """
        The same.
        """
        self.start(b"va")
        self.client.half_close()

        assert [(499, 2)] == [(e.status, e.body_bytes) for e in self.notes.entries]
        assert not self.process.connections
        assert [] == self.debris()

    def test_the_process_drains(self) -> None:
        """
        The request in service is finished, and the last one.
        """
        rest = self.start(b"v")
        self.process.draining, self.process.fast_path = True, None
        for connection in self.process.connections:
            connection.drain(1)

        reply = self.ask(rest)
        assert reply.startswith(b"HTTP/1.1 201 ")
        assert "close" == field(reply, "Connection")
        assert b"value" == self.get(self.store, Key(b"k"))
        assert not self.process.connections

    def test_it_is_broken_off(self) -> None:
        """
        As at the end of draining.
        """
        self.start(b"v")
        for connection in list(self.process.connections):
            connection.abort()
        self.reactor.settle()

        assert [499] == [entry.status for entry in self.notes.entries]
        assert [] == self.debris()
        assert not self.process.connections

    def test_the_reactor_cannot_watch_it(self) -> None:
        """
        The client is told.
        """
        self.start(b"v")
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        connection.unwatched()

        assert self.client.receive().startswith(b"HTTP/1.1 503 ")
        assert [] == self.debris()

    def test_the_disk_is_full(self) -> None:
        """
        The ordinary way says so; what follows is served.
        """
        rest = self.start()
        with file_size_limit(3):
            reply = self.ask(rest)
        assert reply.startswith(b"HTTP/1.1 507 ")
        assert [507] == [entry.status for entry in self.notes.entries]
        assert [] == self.debris()
        assert self.ask(put("k", b"other")).startswith(b"HTTP/1.1 201 ")
        begun, done = begun_and_done(self)
        assert 2 == begun == done

    def test_the_key_is_locked(self) -> None:
        """
        The reply waits for the lock.
        """
        rest = self.start()

        def locked() -> None:
            assert b"" == self.ask(rest)

        self.while_locked(Key(b"k"), locked)
        self.clock.advance(1)
        assert self.client.receive().startswith(b"HTTP/1.1 201 ")
        assert b"value" == self.get(self.store, Key(b"k"))

    def test_something_comes_in_the_way(self) -> None:
        """
        A refusal of the whole request comes when it is whole.
        """
        rest = self.start()
        os.mkdir(os.path.join(self.path, "k"))
        self.place("k/below")

        assert self.ask(rest).startswith(b"HTTP/1.1 409 ")
        assert [409] == [entry.status for entry in self.notes.entries]
        assert self.ask(put("other", b"v")).startswith(b"HTTP/1.1 201 ")


class UnreportedTests(IdleCase):
    """
    Where nobody hears of requests, no method of the connection is called for them.
    """

    def test_no_call_for_the_pieces(self) -> None:
        """
        Nor when the last has come.
        """
        for piece in (head_of(put("k", b"value")), b"va", b"l"):
            assert b"" == self.ask(piece)
        assert self.ask(b"ue").startswith(b"HTTP/1.1 201 ")
        assert b"value" == self.get(self.store, Key(b"k"))
        assert (4, 0) == (self.watched.idle, self.watched.left)
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        assert (0, 0) == (connection._requests, connection._received)

    def test_the_time_between_requests_begins_with_the_last_piece(self) -> None:
        """
        As with all of it.
        """
        assert b"" == self.ask(head_of(put("k", b"value")))
        self.reactor.advance(LIMITS.idle_seconds - 1)
        assert self.ask(b"value").startswith(b"HTTP/1.1 201 ")
        self.later(LIMITS.idle_seconds - 1)
        assert self.process.connections
        self.later(1)
        assert not self.process.connections
