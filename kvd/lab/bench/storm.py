"""
Many connections of one client. All are opened at once and kept, and each sends one
request after another.

`kvd.lab.bench.client` uses a process for each connection, which is too many for
thousands of connections.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from httptools import HttpParserError

from kvd.lab.bench.client import TIMEOUT_SECONDS, Reply

_REPLY_BYTES: Final = 1 << 14


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    number: int
    requests: int = 0
    began: float = 0.0
    reply: Reply = field(default_factory=Reply)


class Storm:
    """
    One process's part of a storm.
    """

    def __init__(self, port: int, body: bytes, key_of: Callable[[int], str]) -> None:
        """
        Args:
            port: Of the server, on 127.0.0.1.
            body: The value that is stored.
            key_of: The key of each connection.
        """
        self._port = port
        self._body = body
        self._key_of = key_of
        self._fields = f"Host: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self.latencies: list[float] = []
        """Of all requests that succeeded; the first one of a connection includes making
        the connection."""
        self.late = 0
        """How many of them ended after the time was over."""
        self.failures: Counter[str] = Counter()

    def run(self, connections: int, until: float) -> None:
        """
        Open all connections, and send requests over them until a moment
        (`time.monotonic`).
        """
        for number in range(connections):
            self._open(number)
        while self._connections:
            ready = self._poll.poll(TIMEOUT_SECONDS)
            if not ready:
                break
            for descriptor, _ in ready:
                self._go_on(self._connections[descriptor], until)
        for connection in list(self._connections.values()):
            self._end(connection, f"no byte moved for {TIMEOUT_SECONDS:g} s")
        self._poll.close()

    def _open(self, number: int) -> None:
        connection = _Connection(socket.socket(), number, began=time.monotonic())
        connection.socket.setblocking(False)
        connection.socket.connect_ex(("127.0.0.1", self._port))
        descriptor = connection.socket.fileno()
        self._connections[descriptor] = connection
        # It becomes writable when it has connected.
        self._poll.register(descriptor, select.EPOLLOUT)

    def _go_on(self, connection: _Connection, until: float) -> None:
        try:
            if not connection.requests:
                self._poll.modify(connection.socket, select.EPOLLIN)
                self._send(connection)
                return
            data = connection.socket.recv(_REPLY_BYTES)
            if not data:
                self._end(connection, "the connection ended before the reply did")
                return
            connection.reply.feed(data)
        except (OSError, HttpParserError) as error:
            self._end(connection, f"{type(error).__name__}: {error}")
            return
        if connection.reply.complete:
            self._replied(connection, until)

    def _send(self, connection: _Connection) -> None:
        connection.requests += 1
        key = self._key_of(connection.number)
        # Far less than an empty buffer of the kernel holds.
        connection.socket.send(
            f"PUT /{key} HTTP/1.1\r\n{self._fields}".encode("ascii") + self._body
        )

    def _replied(self, connection: _Connection, until: float) -> None:
        now = time.monotonic()
        if connection.reply.status not in (201, 204):
            self._end(connection, f"status {connection.reply.status}")
            return
        self.latencies.append(now - connection.began)
        self.late += now > until
        if now > until:
            self._end(connection)
            return
        connection.began, connection.reply = now, Reply()
        try:
            self._send(connection)
        except OSError as error:
            self._end(connection, f"{type(error).__name__}: {error}")

    def _end(self, connection: _Connection, why: str = "") -> None:
        if why:
            self.failures[why] += 1
        del self._connections[connection.socket.fileno()]
        connection.socket.close()

    def results(self) -> dict[str, Any]:
        """
        Its part of the report.
        """
        return {
            "latencies": self.latencies,
            "failures": self.failures,
            "late": self.late,
        }
