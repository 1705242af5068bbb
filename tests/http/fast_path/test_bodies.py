"""
Tests for `kvd.http.fast_path`: bodies that come whole, and bodies that come in pieces.
"""

from __future__ import annotations

import os

from kvd.http.fast_path import MAX_BODY_BYTES
from kvd.model.keys import Key
from tests.http.fast_path.cases import put
from tests.http.fast_path.test_connections import ConnectionCase


def head_of(request: bytes) -> bytes:
    """
    A request without its body.
    """
    return request[: request.index(b"\r\n\r\n") + 4]


class BodyTests(ConnectionCase):
    """
    Nothing of a body waits in memory for the rest.
    """

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
