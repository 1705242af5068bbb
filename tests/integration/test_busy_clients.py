"""
Clients that make as much work as they can, and others beside them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final

import pytest

from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

BUSY_CLIENTS: Final = 4

REQUESTS: Final = 20
"""
Of others beside them.
"""

CHUNK: Final = b"1\r\nz\r\n"
HEAD: Final = (
    "PUT /{} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)
GET: Final = b"GET /v HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_GET: Final = b"GET /v HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
AT_ONCE: Final = 20_000

SEND_BUFFER_BYTES: Final = 64 * 1024
"""
So that little is on its way at the end.
"""


@pytest.fixture(params=["on", "off"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Twistd]:
    """
    One worker, with the fast path or without.
    """
    options = ["--procs=1", "--durability=process", "--control=off"]
    options.append(f"--fast-path={request.param}")
    with Twistd(options, tmp_path) as daemon:
        assert 201 == ask(daemon.port, "PUT", "/v", b"value").status
        yield daemon


@contextmanager
def busy(
    client: Callable[[int, int, Event], None], port: int
) -> Iterator[list[Future[None]]]:
    """
    Some of a kind, until the ``with`` is left; then what came of them is there.
    """
    enough = Event()
    with ThreadPoolExecutor(BUSY_CLIENTS) as pool:
        clients = [
            pool.submit(client, port, number, enough) for number in range(BUSY_CLIENTS)
        ]
        try:
            yield clients
        finally:
            enough.set()
    for done in clients:
        done.result()


def connect(port: int) -> socket.socket:
    """
    A connection to the daemon.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return sock


def send_chunks(port: int, number: int, enough: Event) -> None:
    """
    One byte in each, all of which are stored.
    """
    with connect(port) as sock:
        sock.sendall(HEAD.format(number).encode())
        count = 0
        while not enough.is_set():
            sock.sendall(CHUNK * AT_ONCE)
            count += AT_ONCE
        sock.sendall(b"0\r\n\r\n")
        reply = sock.recv(1000)
    assert reply.startswith(b"HTTP/1.1 201 "), reply
    assert b"z" * count == ask(port, "GET", f"/{number}").body


def send_requests(port: int, number: int, enough: Event) -> None:
    """
    Without waiting for replies, all of which come.
    """
    with (
        ThreadPoolExecutor(1) as reader,
        connect(port) as sock,
    ):
        replies = reader.submit(count_replies, sock)
        count = 1
        while not enough.is_set():
            sock.sendall(GET * 1000)
            count += 1000
        sock.sendall(LAST_GET)
        assert count == replies.result()


def count_replies(sock: socket.socket) -> int:
    """
    Until the end.
    """
    count, rest = 0, b""
    while piece := sock.recv(1 << 20):
        *found, rest = (rest + piece).split(b"\r\n\r\nvalue")
        count += len(found)
    assert not rest
    return count


@pytest.mark.parametrize("client", [send_chunks, send_requests])
def test_others_are_served(
    daemon: Twistd, client: Callable[[int, int, Event], None]
) -> None:
    """
    Though there is always more to do, and nobody's bytes are lost.
    """
    with busy(client, daemon.port) as clients:
        for number in range(REQUESTS):
            value = str(number).encode()
            assert b"value" == ask(daemon.port, "GET", "/v").body
            assert 201 == ask(daemon.port, "PUT", f"/other/{number}", value).status
            assert value == ask(daemon.port, "GET", f"/other/{number}").body
        assert not any(one.done() for one in clients)
