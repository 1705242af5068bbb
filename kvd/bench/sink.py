"""
A server that does nothing with what it gets: ``python -m kvd.bench.sink``.

It shows how fast the load could be if the server cost almost nothing: its
processes accept, read a head, have the kernel discard the body (``MSG_TRUNC``,
see tcp(7)), and answer 204. It prints its port once it listens.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD_BYTES: Final = 4096
_PIECE_BYTES: Final = 1 << 20


def listen() -> socket.socket:
    """
    A listening socket on a free port of this machine.
    """
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def serve(listener: socket.socket, status: bytes = b"204 No Content") -> None:
    """
    Serve one connection after the other, for ever.
    """
    buffer = bytearray(_PIECE_BYTES)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while _answer(connection, buffer, status):
                    pass
            except ConnectionError:
                # The client's matter, which counts its failures.
                pass


def _answer(connection: socket.socket, buffer: bytearray, status: bytes) -> bool:
    """
    Serve a request; false when there is none.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(_HEAD_BYTES)
        if not data:
            return False
        head += data
    head, _, begun = head.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    left = int(length[1]) - len(begun) if length else 0
    while left:
        count = connection.recv_into(
            buffer, min(left, _PIECE_BYTES), socket.MSG_TRUNC | socket.MSG_WAITALL
        )
        if not count:
            return False
        left -= count
    # A 204 has no length (RFC 9110 section 8.6).
    length_field = b"" if status.startswith(b"204") else b"Content-Length: 0\r\n"
    connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + length_field + b"\r\n")
    return True


def main(processes: str) -> None:
    """
    Serve from so many processes, which end with this one's standard input.
    """
    listener = listen()
    children = []
    for _ in range(int(processes)):
        child = os.fork()
        if child == 0:
            try:
                serve(listener)
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
