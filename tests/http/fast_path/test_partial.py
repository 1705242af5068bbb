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
from tests.http.fast_path.cases import HOST, FastPathCase, body_of, field, get, put
from tests.http.fast_path.test_connections import ConnectionCase
from tests.http.test_connection import LIMITS

BODY_SECONDS = LIMITS.body_seconds

WAITING_BYTES = 8 * 1024 * 1024
"""
Of all bodies that wait.
"""


def begun_and_done(case: FastPathCase) -> tuple[int, int]:
    """
    How many requests the scoreboard knows.
    """
    words = case.process.row.words
    _, begun, done, *_ = WORDS_OF_REQUESTS
    return words[begun], words[done]


class PiecesTests(FastPathCase):
    """
    What has come of a body waits in memory for the rest.
    """

    def waits(self, beginning: bytes) -> PartialRequest:
        """
        A request of which only the beginning has come.
        """
        partial = self.serve(beginning)
        assert not isinstance(partial, int | bytes), partial
        assert b"" == self.reply()
        return partial

    def rest(self, partial: PartialRequest, rest: bytes) -> int | bytes:
        """
        What comes of more of it.
        """
        self.far.sendall(rest)
        return self.fast_path.serve_rest(self.near.fileno(), partial)

    def test_wherever_it_is_split(self) -> None:
        """
        Behind the head, or anywhere in the body.
        """
        whole = put("a/k", b"0123456789")
        for end in range(len(whole) - 10, len(whole)):
            partial = self.waits(whole[:end])
            assert NOTHING == self.rest(partial, b"")
            assert SERVED == self.rest(partial, whole[end:])
            assert self.reply().startswith(b"HTTP/1.1 20")
            assert b"0123456789" == self.get(self.store, Key(b"a/k"))
            assert b"" == partial.take()

    def test_many_pieces(self) -> None:
        """
        Up to the longest body; the report knows all of it.
        """
        seed = random.randrange(1 << 32)
        print("seed", seed)
        dice = random.Random(seed)
        for size in (1, 64 * 1024, 64 * 1024 + 1, 300_000, MAX_BODY_BYTES):
            body = dice.randbytes(size)
            whole = put("a/k", body)
            at = len(whole) - size
            partial = self.waits(whole[:at])
            outcome: int | bytes = NOTHING
            while at < len(whole):
                assert NOTHING == outcome
                end = min(len(whole), at + dice.randint(1, 60_000))
                outcome = self.rest(partial, whole[at:end])
                at = end
            assert SERVED == outcome
            assert ("PUT", "/a/k", size) == (
                self.fast_path.report().method,
                self.fast_path.report().target,
                self.fast_path.report().body_bytes,
            )
            moved = len(whole) + len(self.reply())
            assert moved == self.fast_path.report().moved_bytes
            assert body == self.get(self.store, Key(b"a/k"))
        assert [] == self.debris()

    def test_it_counts_from_its_head_on(self) -> None:
        """
        Once, whoever serves it.
        """
        begun, done = begun_and_done(self)
        partial = self.waits(put("k", b"value")[:-1])
        assert (begun + 1, done) == begun_and_done(self)
        self.rest(partial, b"e")
        assert (begun + 1, done + 1) == begun_and_done(self)

    def test_the_next_request_stays_in_the_socket(self) -> None:
        """
        Not a byte of it is read.
        """
        partial = self.waits(put("k", b"value")[:-1])
        assert SERVED == self.rest(partial, b"e" + put("k", b"other"))
        assert SERVED == self.fast_path.serve(self.near.fileno())
        assert b"other" == self.get(self.store, Key(b"k"))

    def test_a_connection_that_ends_with_it(self) -> None:
        """
        Its outcome says so.
        """
        partial = self.waits(put("k", b"value", b"Connection: close\r\n")[:-1])
        assert SERVED | CLOSES == self.rest(partial, b"e")

    def test_a_client_that_ends_midway(self) -> None:
        """
        What it sent is left to the ordinary way, as is its end.
        """
        beginning = put("k", b"value")[:-2]
        partial = self.waits(beginning)
        self.far.sendall(b"u")
        self.far.shutdown(socket.SHUT_WR)
        left = self.fast_path.serve_rest(self.near.fileno(), partial)
        assert beginning + b"u" == left
        assert b"" == self.fast_path.serve(self.near.fileno())

    def test_what_is_not_simple_is_left_whole(self) -> None:
        """
        A lock, or anything else that came in its way meanwhile.
        """
        whole = put("k", b"value")
        partial = self.waits(whole[:-1])

        def locked() -> None:
            assert whole == self.rest(partial, b"e")

        self.while_locked(Key(b"k"), locked)
        with pytest.raises(ValueError, match="taken"):
            self.rest(partial, b"")

    def test_what_may_be_refused_does_not_wait(self) -> None:
        """
        So that the client hears of it before it sends the rest.
        """
        self.served(put("value", b"v"))
        self.served(put("folder/k", b"v"))
        os.symlink("folder", os.path.join(self.path, "link"))
        for key in ("value/k", "value/a/k", "folder", "link/k"):
            request = put(key, b"value")[:-1]
            assert request == self.serve(request)
        assert [] == self.debris()

    def test_waiting_bodies_are_bounded(self) -> None:
        """
        By what they take together; further ones are left to the ordinary way.
        """
        head = put("k", bytes(MAX_BODY_BYTES))[:-MAX_BODY_BYTES]
        most = WAITING_BYTES // (MAX_BODY_BYTES + len(head))
        waiting = [self.waits(head) for _ in range(most)]
        assert head == self.serve(head)
        waiting.pop().take()
        waiting.append(self.waits(head))
        assert head == self.serve(head)
        waiting.clear()
        self.waits(head)

    def test_taken_by_others(self) -> None:
        """
        All that has come, once.
        """
        beginning = put("k", b"value")[:-1]
        partial = self.waits(beginning)
        assert beginning == partial.take()
        assert b"" == partial.take()

    def test_what_is_no_request(self) -> None:
        """
        Is refused.
        """
        for wrong in (None, b"", 1):
            with pytest.raises(TypeError):
                self.fast_path.serve_rest(self.near.fileno(), wrong)  # type: ignore[arg-type]


class WaitingTests(ConnectionCase):
    """
    A connection waits for the rest of a body as it always does.
    """

    def partial(self) -> bytes:
        """
        A request of which all but a byte has come; that byte.
        """
        assert b"" == self.ask(put("k", b"value")[:-1])
        (connection,) = self.process.connections
        assert State.BODY is connection._state  # type: ignore[attr-defined]
        assert connection._partial is not None  # type: ignore[attr-defined]
        return b"e"

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
        assert 3 == self.watched.in_pieces

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
        assert b"" == self.ask(put("k", b"value")[:-3])
        for _ in range(2):
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
        Is noted with what it sent.
        """
        self.partial()
        self.later(2)
        self.client.close()

        (entry,) = self.notes.entries
        assert (499, 4, 2.0) == (entry.status, entry.body_bytes, entry.seconds)
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

        assert [(499, 4)] == [(e.status, e.body_bytes) for e in self.notes.entries]
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

    def test_a_head_alone(self) -> None:
        """
        As many clients send it.
        """
        whole = put("k", b"value")
        head = whole[: -len(b"value")]
        assert HOST in head
        assert b"" == self.ask(head)
        assert self.ask(b"value").startswith(b"HTTP/1.1 201 ")
        assert (1, 0) == (self.watched.in_pieces, self.watched.left)
