"""
Tests for `kvd.http.fast_path`: requests that come in records, and replies that go so.
"""

from __future__ import annotations

import os
import socket
import ssl

import pytest

from kvd.http.fast_path import LOST, NOTHING, QUEUED, REMAINS, SERVED, Joined
from kvd.net.secure_socket import RECORD_BYTES
from kvd.net.sockets import bytes_unread
from tests.http.fast_path.cases import FastPathCase, body_of, get, put, without_date


class PlayedSocket:
    """
    Gives records, and takes as much as it is told to.
    """

    def __init__(self, *records: bytes | Exception | None) -> None:
        self.records = list(records)
        self.sent = b""
        self.room: int | Exception = 1 << 30

    def receive(self) -> object:
        """
        See `kvd.net.secure_socket.SecureSocket`.
        """
        record = self.records.pop(0) if self.records else None
        if isinstance(record, Exception):
            raise record
        return record

    def transmit(self, data: bytes) -> int:
        """
        See `kvd.net.secure_socket.SecureSocket`.
        """
        if isinstance(self.room, Exception):
            raise self.room
        taken = min(len(data), self.room)
        self.sent += data[:taken]
        return taken


class PlayedRecords(PlayedSocket):
    """
    Whose records go through a true socket, though nobody encrypts them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.unsent = b""
        self.ended = False
        self.held: list[tuple[bytes, int]] = []
        self.empty: list[BaseException] = []
        self._fed = self._written = b""
        self.functions = self.feed, self.read, self.write, self.take

    def feed(self, record: bytes) -> int:
        """
        See `kvd.net.secure_socket.RecordFunctions`.
        """
        self._fed = record[5:]
        return len(record)

    def read(self, size: int, buffer: memoryview) -> int:
        """
        See `kvd.net.secure_socket.RecordFunctions`.
        """
        assert size <= len(buffer)
        if self._fed == b"none":
            raise ssl.SSLWantReadError
        buffer[: len(self._fed)] = self._fed
        return len(self._fed)

    def write(self, data: bytes) -> int:
        """
        See `kvd.net.secure_socket.RecordFunctions`.
        """
        self._written = data
        return len(data)

    def take(self) -> bytes:
        """
        See `kvd.net.secure_socket.RecordFunctions`.
        """
        return record(self._written)

    def without_data(self, error: BaseException) -> None:
        """
        See `kvd.net.secure_socket.SecureSocket`.
        """
        self.empty.append(error)
        if len(self.empty) > 1:
            raise ConnectionAbortedError

    def hold(self, rest: bytes, size: int) -> None:
        """
        See `kvd.net.secure_socket.SecureSocket`.
        """
        self.held.append((rest, size))


def record(data: bytes) -> bytes:
    """
    As `PlayedRecords` has it.
    """
    return b"\x17\3\3" + len(data).to_bytes(2, "big") + data


class SecureTests(FastPathCase):
    """
    `FastPath.serve_secure` reads nothing from the socket and writes nothing to it.
    """

    def serve_secure(self, played: PlayedSocket) -> int | bytes:
        """
        What comes of its records.
        """
        return self.fast_path.serve_secure(self.near.fileno(), played)

    def test_a_request_and_its_reply_are_records(self) -> None:
        """
        Also where there is no value.
        """
        self.keep("k", b"value")
        played = PlayedSocket(get("k"))

        assert SERVED == self.serve_secure(played)
        assert b"value" == body_of(played.sent)
        played = PlayedSocket(get("none"))
        assert SERVED == self.serve_secure(played)
        assert played.sent.startswith(b"HTTP/1.1 404 ")
        assert b"" == self.reply()

    def test_files_fill_records(self) -> None:
        """
        What is longer than a few is left, with its file.
        """
        for size in (1, 4096, RECORD_BYTES, 3 * RECORD_BYTES, 4 * RECORD_BYTES, 99_999):
            body = os.urandom(size)
            self.keep("k", body)
            played = PlayedSocket(get("k"))
            outcome = self.serve_secure(played)
            sent = body_of(played.sent)
            if size < 4 * RECORD_BYTES - 1000:
                assert (SERVED, body) == (outcome, sent)
                continue
            assert outcome == SERVED | REMAINS
            assert 4 * RECORD_BYTES == len(played.sent)
            rest = self.fast_path.take_remainder()
            with open(rest.descriptor, "rb") as file:
                file.seek(rest.offset)
                assert body == sent + file.read(rest.rest_bytes)
            assert (b"", len(sent)) == (rest.unsent, rest.body_bytes)

    def test_what_the_socket_does_not_take_is_left(self) -> None:
        """
        Whether it is full or broken: who sends next finds out.
        """
        self.keep("k", b"value")
        rooms: list[int | Exception] = [0, 7, ConnectionResetError()]
        for room in rooms:
            played = PlayedSocket(get("k"))
            played.room = room
            assert SERVED | QUEUED == self.serve_secure(played)
            unsent = self.fast_path.take_unsent()
            assert (played.sent + unsent).endswith(b"\r\n\r\nvalue")
            assert len(played.sent) == (room if isinstance(room, int) else 0)

    def test_a_body_may_take_several_records(self) -> None:
        """
        If they are there. If not, the request is left with what has come of it.
        """
        self.keep("k", b"value")
        body = os.urandom(3 * RECORD_BYTES)
        request = put("k", body)
        pieces = [
            request[at : at + RECORD_BYTES]
            for at in range(0, len(request), RECORD_BYTES)
        ]
        self.serve_secure(PlayedSocket(put("k", b"x")))

        assert SERVED == self.serve_secure(PlayedSocket(*pieces))
        stored = PlayedSocket(get("k"))
        assert SERVED == self.serve_secure(stored)
        assert body == body_of(stored.sent)
        ends: list[bytes | Exception | None] = [None, b"", ConnectionResetError()]
        for end in ends:
            left = self.serve_secure(PlayedSocket(*pieces[:2], end))
            assert left == b"".join(pieces[:2])
        # With another request behind it, in the same record.
        more = PlayedSocket(*pieces[:-1], pieces[-1] + get("k"))
        assert request + get("k") == self.serve_secure(more)

    def test_nothing_the_end_and_errors_differ(self) -> None:
        """
        An error that is not the connection's is raised.
        """
        assert NOTHING == self.serve_secure(PlayedSocket(None))
        assert b"" == self.serve_secure(PlayedSocket(b""))
        assert LOST == self.serve_secure(PlayedSocket(ConnectionResetError()))
        with pytest.raises(ZeroDivisionError):
            self.serve_secure(PlayedSocket(ZeroDivisionError()))
        with pytest.raises(ValueError, match="too long"):
            self.serve_secure(PlayedSocket(bytes(RECORD_BYTES + 1)))

    def join(self) -> tuple[PlayedRecords, Joined]:
        """
        A connection that has its functions.
        """
        played = PlayedRecords()
        joined = self.fast_path.join(self.near.fileno())
        joined.secure, joined.records = played, played.functions
        return played, joined

    def test_an_idle_connection_is_served_by_its_own_functions(self) -> None:
        """
        A record is read from the socket, and no more than that.
        """
        self.keep("k", b"value")
        number = self.near.fileno()
        _, joined = self.join()
        self.far.sendall(2 * record(get("k")))
        for _ in range(2):
            assert self.fast_path.serve_idle(number)
            reply = self.far.recv(65536)
            assert record(reply[5:]) == reply
            assert b"value" == body_of(reply[5:])
        assert 0 == bytes_unread(self.near)

        # Where there is nothing any more, a plain connection may have the number.
        joined.leave()
        assert SERVED == self.serve(get("k"))
        assert b"value" == body_of(self.reply())

    def test_what_is_not_usual_is_left_to_the_methods(self) -> None:
        """
        A part of a record, a record without data, and the end.
        """
        number = self.near.fileno()
        played, _ = self.join()
        for part in (record(b"abc")[:3], record(b"abc")[:-1], b"\x17\3\3\xff\xffz"):
            self.far.sendall(part)
            assert self.fast_path.serve_idle(number)
            assert part[: max(5, len(part) - bytes_unread(self.near))] == played.begun
            # Then these take all that comes.
            assert self.fast_path.serve_idle(number)
            played.begun = b""
            self.near.recv(100) if bytes_unread(self.near) else None

        self.far.sendall(2 * record(b"none"))
        assert self.fast_path.serve_idle(number)
        assert [ssl.SSLWantReadError] == list(map(type, played.empty))
        assert not self.fast_path.serve_idle(number)
        assert LOST == self.fast_path.serve(number)

        self.far.sendall(record(b""))
        assert not self.fast_path.serve_idle(number)
        assert b"" == self.fast_path.serve(number)
        assert played.ended

    def test_what_the_socket_does_not_take_of_a_record_is_held(self) -> None:
        """
        All that is in the record counts as unsent; and while something is held, the
        methods send.
        """
        body = os.urandom(10_000)
        self.keep("k", body)
        number = self.near.fileno()
        played, _ = self.join()
        self.far.sendall(record(get("k")))
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        filled = self.fill()
        assert not self.fast_path.serve_idle(number)
        assert SERVED | QUEUED == self.fast_path.serve(number)

        unsent = self.fast_path.take_unsent()
        ((rest, size),) = played.held
        assert (body, size) == (body_of(unsent), len(unsent))
        assert record(unsent).endswith(rest)
        while filled:
            filled -= len(self.far.recv(filled))
        played.unsent = rest
        self.far.sendall(record(get("k")))
        assert self.fast_path.serve_idle(number)
        assert without_date(unsent) == without_date(played.sent)

    def fill(self) -> int:
        """
        Fill the socket; how much it took.
        """
        filled = 0
        while True:
            try:
                filled += self.near.send(bytes(1000), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return filled

    def test_a_body_of_many_short_records_is_left(self) -> None:
        """
        After some of them, others have their turn.
        """
        self.keep("k", b"value")
        self.serve_secure(PlayedSocket(put("k", b"x")))
        request = put("k", bytes(1000))
        head = request[:-1000]
        played = PlayedSocket(head, *[b"\0"] * 1000)

        left = self.serve_secure(played)

        assert isinstance(left, bytes)
        assert len(left) < len(head) + 100
        assert 1000 == len(left) - len(head) + len(played.records)
