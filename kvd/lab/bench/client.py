"""
One client of the load: a blocking socket that sends the same body again and again, and
waits for each reply.

It must cost little compared with the server that it measures. The body is a file in
memory that the kernel sends (sendfile(2)), so its bytes are not copied on this side.
The head leaves in the same segment as the beginning of the body (``MSG_MORE``).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from httptools import HttpParserError, HttpResponseParser

TIMEOUT_SECONDS: Final = 30.0

_REPLY_BYTES: Final = 1 << 16

_SMALL_BYTES: Final = 4096
"""
A body up to here is cheaper to send with its head, in one call.
"""


class RequestFailed(Exception):
    """
    A request had no reply, or a wrong one.
    """


class TimedOut(RequestFailed):
    """
    No byte moved until the timeout.
    """


class Reply:
    """
    A reply while it is parsed.
    """

    complete = False

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.status = 0
        self.stays = False

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        # 100 Continue and the like precede the reply.
        self.complete = self.status >= 200
        self.stays = self._parser.should_keep_alive()

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)


class PutClient:
    """
    Stores a body under one key after another.
    """

    def __init__(
        self,
        port: int,
        body: int,
        body_bytes: int,
        *,
        keep_alive: bool,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """
        Args:
            port: Of the server, on 127.0.0.1.
            body: A descriptor of a file with the body; its position is not used.
            body_bytes: The length of the body.
            keep_alive: Whether the connection is kept, or made for each request.
            timeout_seconds: Of each system call.
        """
        self._port = port
        self._body = body
        self._body_bytes = body_bytes
        self._keep_alive = keep_alive
        self._timeout_seconds = timeout_seconds
        self._fields = f"Host: 127.0.0.1:{port}\r\nContent-Length: {body_bytes}\r\n"
        if not keep_alive:
            self._fields += "Connection: close\r\n"
        self._small: bytes | None = None
        if body_bytes <= _SMALL_BYTES:
            self._small = os.pread(body, body_bytes, 0)
        self._socket: socket.socket | None = None

    def put(self, key: str) -> None:
        """
        Send one request and read its reply. After a failure the next request
        has a new connection.

        Raises:
            RequestFailed: It was not answered with 201 or 204.
        """
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._send(self._socket, key)
            stays = self._read_reply(self._socket)
        except BlockingIOError as error:
            # A call on a blocking socket raises this after its timeout.
            self.close()
            raise TimedOut(f"no byte moved for {self._timeout_seconds:g} s") from error
        except (OSError, HttpParserError) as error:
            self.close()
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        except RequestFailed:
            self.close()
            raise
        if not (stays and self._keep_alive):
            self.close()

    def close(self) -> None:
        """
        Close the connection.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # The kernel's timeouts: with one of Python's the descriptor would not
            # block, and sendfile would need polling.
            timeout = _timeval(self._timeout_seconds)
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, timeout)
            connection.connect(("127.0.0.1", self._port))
        except BaseException:
            connection.close()
            raise
        return connection

    def _send(self, connection: socket.socket, key: str) -> None:
        head = f"PUT /{key} HTTP/1.1\r\n{self._fields}\r\n".encode("ascii")
        if self._small is not None:
            connection.sendall(head + self._small)
            return
        connection.sendall(head, socket.MSG_MORE)
        sent = 0
        while sent < self._body_bytes:
            sent += os.sendfile(
                connection.fileno(), self._body, sent, self._body_bytes - sent
            )

    def _read_reply(self, connection: socket.socket) -> bool:
        reply = Reply()
        while not reply.complete:
            data = connection.recv(_REPLY_BYTES)
            if not data:
                raise RequestFailed("the connection ended before the reply did")
            reply.feed(data)
        if reply.status not in (201, 204):
            raise RequestFailed(f"status {reply.status}")
        return reply.stays


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
