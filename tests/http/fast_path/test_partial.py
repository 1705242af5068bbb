"""
Tests for `kvd.http.fast_path`: bodies that come in several pieces.
"""

from __future__ import annotations

import os
import random
import socket

import pytest

from kvd.dispatch.scoreboard import WORDS_OF_REQUESTS
from kvd.http.fast_path import (
    CLOSES,
    MAX_BODY_BYTES,
    NOTHING,
    SERVED,
    PartialRequest,
)
from kvd.http.states import State
from kvd.model.keys import Key
from tests.http.fast_path.cases import FastPathCase, body_of, field, get, put
from tests.http.fast_path.test_connections import ConnectionCase
from tests.http.test_connection import LIMITS

BODY_SECONDS = LIMITS.body_seconds

WAITING_BYTES = 1024 * 1024
"""
Of all heads that wait.
"""


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
    _, begun, done, *_ = WORDS_OF_REQUESTS
    return words[begun], words[done]


class BodyTests(FastPathCase):
    """
    A head waits in memory for its body; nothing of a body waits there.
    """

    def waits(self, request: bytes) -> PartialRequest:
        """
        A request of which only the head has come.
        """
        partial = self.serve(head_of(request))
        assert not isinstance(partial, int | bytes), partial
        assert b"" == self.reply()
        return partial

    def arrive(self, partial: PartialRequest, body: bytes) -> int | bytes:
        """
        What comes of its body, or of a part of it.
        """
        self.far.sendall(body)
        return self.fast_path.serve_body(self.near.fileno(), partial)

    def test_all_of_a_body(self) -> None:
        """
        Of any size; the report knows all of it.
        """
        seed = random.randrange(1 << 32)
        print("seed", seed)
        dice = random.Random(seed)
        for size in (1, 10, dice.randint(11, 9_000), 64 * 1024, 64 * 1024 + 1):
            body = dice.randbytes(size)
            whole = put("a/k", body)
            partial = self.waits(whole)
            assert NOTHING == self.arrive(partial, b"")
            assert SERVED == self.arrive(partial, body)
            reply = self.reply()
            assert reply.startswith(b"HTTP/1.1 20")
            report = self.fast_path.report()
            assert ("PUT", "/a/k", size, len(whole) + len(reply)) == (
                *(report.method, report.target),
                *(report.body_bytes, report.moved_bytes),
            )
            assert body == self.get(self.store, Key(b"a/k"))
            assert b"" == partial.take()
        assert [] == self.debris()

    def test_a_piece_of_a_body_waits_nowhere(self) -> None:
        """
        Wherever it is split: the ordinary way writes it to the file.
        """
        whole = put("a/k", b"0123456789")
        head = head_of(whole)
        for end in range(len(head) + 1, len(whole)):
            assert whole[:end] == self.serve(whole[:end])
            partial = self.waits(whole)
            assert whole[:end] == self.arrive(partial, whole[len(head) : end])
            with pytest.raises(ValueError, match="taken"):
                self.arrive(partial, b"")

    def test_it_counts_from_its_head_on(self) -> None:
        """
        Once, whoever serves it.
        """
        begun, done = begun_and_done(self)
        partial = self.waits(put("k", b"value"))
        assert (begun + 1, done) == begun_and_done(self)
        self.arrive(partial, b"value")
        assert (begun + 1, done + 1) == begun_and_done(self)

    def test_the_next_request_stays_in_the_socket(self) -> None:
        """
        Not a byte of it is read.
        """
        partial = self.waits(put("k", b"value"))
        assert SERVED == self.arrive(partial, b"value" + put("k", b"other"))
        assert SERVED == self.fast_path.serve(self.near.fileno())
        assert b"other" == self.get(self.store, Key(b"k"))

    def test_a_connection_that_ends_with_it(self) -> None:
        """
        Its outcome says so.
        """
        partial = self.waits(put("k", b"value", b"Connection: close\r\n"))
        assert SERVED | CLOSES == self.arrive(partial, b"value")

    def test_a_client_that_ends_midway(self) -> None:
        """
        What it sent is left to the ordinary way, as is its end.
        """
        partials = [self.waits(put("k", b"value")) for _ in range(2)]
        self.far.sendall(b"val")
        self.far.shutdown(socket.SHUT_WR)
        for partial, sent in zip(partials, (b"val", b""), strict=True):
            left = self.fast_path.serve_body(self.near.fileno(), partial)
            assert head_of(put("k", b"value")) + sent == left
        assert b"" == self.fast_path.serve(self.near.fileno())

    def test_what_is_not_simple_is_left_whole(self) -> None:
        """
        A lock, or anything else that came in its way meanwhile.
        """
        whole = put("k", b"value")
        partial = self.waits(whole)

        def locked() -> None:
            assert whole == self.arrive(partial, b"value")

        self.while_locked(Key(b"k"), locked)
        with pytest.raises(ValueError, match="taken"):
            self.arrive(partial, b"")

    def test_what_may_be_refused_does_not_wait(self) -> None:
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

    def test_waiting_heads_are_bounded(self) -> None:
        """
        By what they take together; further ones are left to the ordinary way.
        """
        whole = put("k", bytes(MAX_BODY_BYTES), b"X: " + b"x" * 900 + b"\r\n")
        head = head_of(whole)
        waiting = [self.waits(whole) for _ in range(WAITING_BYTES // len(head))]
        assert head == self.serve(head)
        waiting.pop().take()
        waiting.append(self.waits(whole))
        assert head == self.serve(head)
        waiting.clear()
        self.waits(whole)

    def test_taken_by_others(self) -> None:
        """
        The head, once.
        """
        whole = put("k", b"value")
        partial = self.waits(whole)
        assert head_of(whole) == partial.take()
        assert b"" == partial.take()

    def test_what_is_no_request(self) -> None:
        """
        Is refused.
        """
        for wrong in (None, b"", 1):
            with pytest.raises(TypeError):
                self.fast_path.serve_body(self.near.fileno(), wrong)  # type: ignore[arg-type]


class WaitingTests(ConnectionCase):
    """
    A connection waits for a body as it always does.
    """

    def partial(self) -> bytes:
        """
        A request of which the head has come; its body.
        """
        assert b"" == self.ask(head_of(put("k", b"value")))
        (connection,) = self.process.connections
        assert State.BODY is connection._state  # type: ignore[attr-defined]
        assert connection._partial is not None  # type: ignore[attr-defined]
        return b"value"

    def test_the_rest_comes(self) -> None:
        """
        And further requests.
        """
        for _ in range(3):
            self.later(BODY_SECONDS / 2)
            rest = self.partial()
            self.later(BODY_SECONDS / 2)
            assert self.ask(rest).startswith(b"HTTP/1.1 20")
            assert b"value" == self.get(self.store, Key(b"k"))
            assert b"value" == body_of(self.ask(get("k")))
        assert 3 == self.watched.behind_heads

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

    def test_a_client_that_sends_no_more(self) -> None:
        """
        It gets 408 after the time of a body, which each byte starts anew.
        """
        assert b"" == self.ask(head_of(put("k", b"value")))
        for _ in range(3):
            self.later(BODY_SECONDS - 1)
            assert b"" == self.ask(b"x")
        # Only here is the last byte noticed.
        self.later(1)
        self.later(BODY_SECONDS - 1)
        assert not self.client.ended
        self.later(1)

        assert self.client.receive().startswith(b"HTTP/1.1 408 ")
        assert [408] == [entry.status for entry in self.notes.entries]
        assert [] == self.found()
        assert [] == self.debris()

    def test_a_client_that_leaves(self) -> None:
        """
        Is noted with what it sent: no body.
        """
        self.partial()
        self.later(2)
        self.client.close()

        (entry,) = self.notes.entries
        assert (499, 0, 2.0) == (entry.status, entry.body_bytes, entry.seconds)
        begun, done = begun_and_done(self)
        assert begun == done
        assert [] == self.found()
        assert [] == self.debris()
        assert not self.process.connections

    def test_a_client_that_closes_its_half(self) -> None:
        """
        The same.
        """
        self.partial()
        self.client.half_close()

        assert [(499, 0)] == [(e.status, e.body_bytes) for e in self.notes.entries]
        assert not self.process.connections

    def test_the_process_drains(self) -> None:
        """
        The request in service is finished by the ordinary way.
        """
        rest = self.partial()
        self.process.fast_path = None
        self.process.draining = True

        reply = self.ask(rest)
        assert reply.startswith(b"HTTP/1.1 201 ")
        assert "close" == field(reply, "Connection")
        assert b"value" == self.get(self.store, Key(b"k"))

    def test_a_reply_that_is_in_the_way(self) -> None:
        """
        A refusal of the whole request comes when it is whole.
        """
        rest = self.partial()
        os.mkdir(os.path.join(self.path, "k"))
        self.place("k/below")

        assert self.ask(rest).startswith(b"HTTP/1.1 409 ")
        assert [409] == [entry.status for entry in self.notes.entries]
        assert self.ask(put("other", b"v")).startswith(b"HTTP/1.1 201 ")

    def test_each_piece_is_written_when_it_comes(self) -> None:
        """
        To a file that is nobody's value yet.
        """
        body = os.urandom(100)
        assert b"" == self.ask(head_of(put("k", body)))
        for end in range(10, 100, 10):
            assert b"" == self.ask(body[end - 10 : end])
            (upload,) = self.debris()
            with open(upload, "rb") as file:
                assert body[:end] == file.read()
        assert self.ask(body[90:]).startswith(b"HTTP/1.1 201 ")
        assert body == self.get(self.store, Key(b"k"))
        assert [] == self.debris()
        assert 0 == self.watched.behind_heads
