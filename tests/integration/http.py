"""
A plain client for integration tests: nothing of kvd's own.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.patience import PATIENCE_SECONDS

TIMEOUT_SECONDS = PATIENCE_SECONDS


@dataclass(frozen=True)
class Reply:
    """
    What came back.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    fields: Mapping[str, str] | None = None,
) -> Reply:
    """
    One request over a connection of its own.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        return ask_over(connection, method, target, body, fields)
    finally:
        connection.close()


def ask_over(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None = None,
    fields: Mapping[str, str] | None = None,
) -> Reply:
    """
    One request over a connection that stays. Head and body go out together, as far
    as a packet takes them.
    """
    if connection.sock is None:
        connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    connection.request(method, target, body, dict(fields or {}))
    if connection.sock is not None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    response = connection.getresponse()
    lowered = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, lowered, response.read())


@contextmanager
def talk(port: int) -> Iterator[socket.socket]:
    """
    A bare connection. Its kernel sends everything at once: what it held back until
    earlier bytes are acknowledged would be lost if the client left.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    """
    All that comes until the server closes.
    """
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)
