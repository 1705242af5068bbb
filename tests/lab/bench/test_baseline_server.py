"""
Tests for the server in C that kvd is put beside: what it is compared in, it has to
do right.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.building import Programs
from bench.servers import CServer
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

CLOSES = b"Connection: close\r\n"


@pytest.fixture(params=["readwrite", "splice"])
def port(
    request: pytest.FixtureRequest, programs: Programs, tmp_path: Path
) -> Iterator[int]:
    """
    Of a server with files, for each way to take a body.
    """
    with CServer(put=request.param).start(programs, tmp_path) as running:
        yield running.port


def ask(port: int, sent: bytes, piece_bytes: int = 1 << 20) -> bytes:
    """
    Send bytes, in pieces, and read until the server closes.
    """
    with socket.create_connection(
        ("127.0.0.1", port), timeout=PATIENCE_SECONDS
    ) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), piece_bytes):
            sock.sendall(sent[start : start + piece_bytes])
        received = bytearray()
        while chunk := sock.recv(1 << 16):
            received += chunk
        return bytes(received)


def put(path: bytes, body: bytes, fields: bytes = b"") -> bytes:
    """
    An upload.
    """
    return b"PUT %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        path,
        fields,
        len(body),
        body,
    )


def get(path: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    """
    A request without a body.
    """
    return b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, path, fields)


def status(reply: bytes) -> int:
    """
    Of the first reply.
    """
    return int(reply.split()[1])


@pytest.mark.parametrize("size", [0, 1, 4096, 16384, 3_000_001])
def test_a_value_comes_back_as_it_was_put(port: int, size: int) -> None:
    """
    Of any size, byte for byte; in pieces that end anywhere.
    """
    body = (bytes(range(251)) * (size // 251 + 1))[:size]

    assert 201 == status(ask(port, put(b"/a/b", body, CLOSES), 70_001))
    assert 204 == status(ask(port, put(b"/a/b", body, CLOSES)))

    head, _, came = ask(port, get(b"/a/b", CLOSES)).partition(b"\r\n\r\n")

    assert b"Content-Length: %d\r\n" % size in head + b"\r\n"
    assert body == came


def test_a_head_may_come_byte_by_byte(port: int) -> None:
    """
    And its body, too.
    """
    assert 201 == status(ask(port, put(b"/key", b"value", CLOSES), 1))
    assert ask(port, get(b"/key", CLOSES), 1).endswith(b"\r\n\r\nvalue")


def test_requests_of_a_connection_are_answered_in_turn(port: int) -> None:
    """
    Also if they come at once.
    """
    first = put(b"/key", b"1") + get(b"/key")
    second = put(b"/key", b"22") + get(b"/key", CLOSES)

    assert (
        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: x\r\n\r\n1"
        b"HTTP/1.1 204 No Content\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: x\r\n"
        b"Connection: close\r\n\r\n22"
    ) == re.sub(rb"ETag: \S+", b"ETag: x", ask(port, first + second))


def test_a_removed_value_is_gone(port: int) -> None:
    """
    For whoever asks next.
    """
    assert 201 == status(ask(port, put(b"/key", b"value", CLOSES)))
    assert 204 == status(ask(port, get(b"/key", CLOSES, b"DELETE")))
    assert 404 == status(ask(port, get(b"/key", CLOSES, b"DELETE")))
    assert 404 == status(ask(port, get(b"/key", CLOSES)))


def test_an_upload_may_wait_until_it_is_asked_for(port: int) -> None:
    """
    With ``Expect: 100-continue``.
    """
    sent = put(b"/key", b"value", CLOSES + b"Expect: 100-continue\r\n")
    with socket.create_connection(
        ("127.0.0.1", port), timeout=PATIENCE_SECONDS
    ) as sock:
        sock.sendall(sent.removesuffix(b"value"))

        assert b"HTTP/1.1 100 Continue\r\n\r\n" == sock.recv(1000)

        sock.sendall(b"value")

        assert 201 == status(sock.recv(1000))


def test_a_value_that_has_not_changed_is_not_sent(port: int) -> None:
    """
    To a client that knows its entity tag.
    """
    assert 201 == status(ask(port, put(b"/key", b"value", CLOSES)))
    tag = re.search(rb"\r\nETag: (\S+)\r\n", ask(port, get(b"/key", CLOSES)))
    assert tag
    condition = b"If-None-Match: %s\r\n" % tag[1]

    reply = ask(port, get(b"/key", condition) + get(b"/key", CLOSES))

    assert 304 == status(reply)
    assert reply.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 OK\r\n")
    assert 204 == status(ask(port, put(b"/key", b"new value", CLOSES)))
    assert 200 == status(ask(port, get(b"/key", condition + CLOSES)))


@pytest.mark.parametrize(
    ("asked", "expected", "content_range", "body"),
    [
        (b"bytes=0-0", 206, b"bytes 0-0/10", b"0"),
        (b"bytes=3-6", 206, b"bytes 3-6/10", b"3456"),
        (b"bytes=8-99", 206, b"bytes 8-9/10", b"89"),
        (b"bytes=10-11", 416, None, b""),
        (b"bytes=6-3", 200, None, b"0123456789"),
        (b"bytes=-3", 200, None, b"0123456789"),
        (b"bytes=1-2, 4-5", 200, None, b"0123456789"),
    ],
)
def test_a_range_is_sent(
    port: int, asked: bytes, expected: int, content_range: bytes | None, body: bytes
) -> None:
    """
    One with both ends; all others are ignored.
    """
    assert 201 == status(ask(port, put(b"/key", b"0123456789", CLOSES)))

    reply = ask(port, get(b"/key", b"Range: %s\r\n" % asked + CLOSES))

    head, _, came = reply.partition(b"\r\n\r\n")
    found = re.search(rb"\r\nContent-Range: ([^\r]+)", head)
    assert expected == status(reply)
    assert content_range == (found and found[1])
    assert body == came


def test_an_upload_can_be_synced(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The file, its folder, and the root, in which that folder is new.
    """
    monkeypatch.setenv("LD_PRELOAD", str(programs.slow_sync))
    monkeypatch.setenv("SLOW_SYNC_MS", "50")
    with CServer(sync=True).start(programs, tmp_path) as server:
        began = time.monotonic()
        assert 201 == status(ask(server.port, put(b"/a/b", b"value", CLOSES)))

        assert 0.15 <= time.monotonic() - began

    assert b"value" == (tmp_path / "a" / "b").read_bytes()


@pytest.mark.parametrize(
    ("expected", "sent"),
    [
        (400, b"nonsense\r\n\r\n"),
        (400, b"GET / HTTP/2.0\r\n\r\n"),
        (400, get(b"/")),
        (400, get(b"key")),
        (400, get(b"/a/../b")),
        (400, get(b"/a//b")),
        (400, get(b"/%2e%2e/b")),
        (400, get(b"/%00")),
        (400, get(b"/%4")),
        (400, get(b"/a", b"no colon\r\n")),
        (400, b"PUT /a HTTP/1.1\r\nContent-Length: 1x\r\n\r\n"),
        (400, b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        (405, get(b"/a", b"", b"POST")),
        (411, get(b"/a", b"", b"PUT")),
        (431, get(b"/a", b"a: " + b"b" * 20_000 + b"\r\n")[: 16 * 1024]),
        (501, get(b"/a", b"Transfer-Encoding: chunked\r\n", b"PUT")),
    ],
)
def test_what_cannot_be_served_is_refused(
    port: int, expected: int, sent: bytes
) -> None:
    """
    And the connection closed, since nobody knows where the next request begins.
    """
    assert expected == status(ask(port, sent))


def test_a_client_that_goes_leaves_the_server_to_others(port: int) -> None:
    """
    In the middle of an upload or of a download.
    """
    body = bytes(20_000_000)
    assert 201 == status(ask(port, put(b"/key", body, CLOSES)))
    for begun in (put(b"/other", body)[:100_000], get(b"/key")):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(begun)

    assert 404 == status(ask(port, get(b"/absent", CLOSES)))
