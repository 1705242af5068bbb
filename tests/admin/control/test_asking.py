"""
Tests for `kvd.admin.control.asking`, against a server within the test.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from kvd.admin.control.asking import TIMEOUT_SECONDS, ControlSocket
from kvd.errors import ChangeImpossible, ControlUnusable

Serve = Callable[[Sequence[bytes]], ControlSocket]


def reply(status: int, body: bytes) -> bytes:
    """
    A reply of the server.
    """
    return b"HTTP/1.1 %d Words\r\nContent-Length: %d\r\n\r\n%b" % (
        *(status, len(body)),
        body,
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """
    Play a daemon that sends replies, one after the other, to one client.
    """
    threads: list[threading.Thread] = []
    path = str(tmp_path / "control")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def answer(replies: Sequence[bytes]) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as said:
            for each in replies:
                length = 0
                while (line := said.readline().lower()) not in (b"", b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split()[1])
                said.read(length)
                connection.sendall(each)

    def start(replies: Sequence[bytes]) -> ControlSocket:
        thread = threading.Thread(target=answer, args=(replies,))
        thread.start()
        threads.append(thread)
        return ControlSocket(path)

    yield start
    for thread in threads:
        thread.join(30)
    listener.close()


def test_a_change_that_is_done_returns(serve: Serve) -> None:
    """
    Several changes can follow each other.
    """
    with closing(serve([reply(200, b"{}")] * 2)) as asked:
        asked.change("policy", {"policy": "shared"})
        asked.change("restart", {})


def test_the_reason_of_a_refusal_is_raised(serve: Serve) -> None:
    """
    In the daemon's words.
    """
    with (
        closing(serve([reply(409, b'{"error": "not now"}')])) as asked,
        pytest.raises(ChangeImpossible, match="not now"),
    ):
        asked.change("restart", {})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(404, b"<html>"), "does not know restart"),
        (reply(405, b""), "has no workers"),
        (reply(409, b"{}"), "has no workers"),
        (reply(200, b"{}")[:-1], "ended before it had answered"),
        (b"", "ended before it had answered"),
    ],
)
def test_a_reply_that_is_not_of_a_daemon_names_the_socket(
    serve: Serve, answer: bytes, words: str
) -> None:
    """
    It may come from another server, or be cut off.
    """
    with (
        closing(serve([answer])) as asked,
        pytest.raises(ControlUnusable, match=words),
    ):
        asked.change("restart", {})


def test_a_change_has_no_timeout_and_the_status_has_one(serve: Serve) -> None:
    """
    In either order over the same connection.
    """
    status = reply(200, b'{"workers": []}')
    with closing(serve([status, reply(200, b"{}"), status])) as asked:
        asked.status()
        asked.change("restart", {})
        assert asked._connection.sock.gettimeout() is None

        asked.status()
        assert TIMEOUT_SECONDS == asked._connection.sock.gettimeout()
