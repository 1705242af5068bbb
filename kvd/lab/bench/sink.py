"""
A server that discards what it receives: ``python -m kvd.lab.bench.sink``.

It shows the ceiling of the load, since it costs almost nothing: it reads a head, lets
the kernel discard the body (``MSG_TRUNC``, see tcp(7)), and answers 204. Its processes
share the connections evenly. There are no more of them than processors: with one for
each connection the machine would be busy switching between them. It prints its port
when it listens.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import sys
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD_BYTES: Final = 4096
_PIECE_BYTES: Final = 1 << 20


class _Connection:
    """
    The connection of one client.
    """

    def __init__(self, connection: socket.socket, reply: bytes) -> None:
        self.socket = connection
        self._reply = reply
        self._head = b""
        self._left = 0

    def read(self, buffer: bytearray) -> bool:
        """
        Read what has arrived; false after the client has closed the connection.
        """
        try:
            while True:
                if not self._left:
                    data = self.socket.recv(_HEAD_BYTES)
                    count = len(data)
                    self._read_head(data)
                else:
                    count = self.socket.recv_into(
                        buffer, min(self._left, _PIECE_BYTES), socket.MSG_TRUNC
                    )
                    self._left -= count
                    if not self._left:
                        self.socket.sendall(self._reply)
                if not count:
                    return False
        except BlockingIOError:
            return True
        except ConnectionError:
            # The client counts the failure.
            return False

    def _read_head(self, data: bytes) -> None:
        head, end, body = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return
        self._head = b""
        length = _LENGTH.search(head)
        self._left = int(length[1]) - len(body) if length else 0
        if not self._left:
            self.socket.sendall(self._reply)


def listen() -> socket.socket:
    """
    A listening socket on a free port of this machine.
    """
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def serve(
    listener: socket.socket, most: int = 1000, status: bytes = b"204 No Content"
) -> None:
    """
    Serve for ever.

    Args:
        listener: May be shared with other processes.
        most: The number of connections that are open at a time; further ones are left
            to other processes.
        status: Of each reply.
    """
    # A 204 has no length (RFC 9110 section 8.6).
    length = b"" if status.startswith(b"204") else b"Content-Length: 0\r\n"
    reply = b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n"
    buffer = bytearray(_PIECE_BYTES)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    there = 0
    with selector:
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    if _accept(listener, selector, reply):
                        there += 1
                        if there == most:
                            selector.unregister(listener)
                elif not key.data.read(buffer):
                    selector.unregister(key.data.socket)
                    key.data.socket.close()
                    if there == most:
                        selector.register(listener, selectors.EVENT_READ)
                    there -= 1


def _accept(
    listener: socket.socket, selector: selectors.BaseSelector, reply: bytes
) -> bool:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        # Another process was faster.
        return False
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, _Connection(connection, reply))
    return True


def main(clients: str) -> None:
    """
    Serve so many clients, until this process's standard input ends.
    """
    listener = listen()
    processes = min(int(clients), os.cpu_count() or 1)
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            try:
                serve(listener, most=-(-int(clients) // processes))
            finally:
                os._exit(1)
        children.append(child)
    try:
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
