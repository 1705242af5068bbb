"""
Clients that make much work with few bytes, at full speed:
``python -m bench.figures.attackers KIND PORT CONNECTIONS``, until it is terminated.

Each sends its kind's request, or the beginning of an endless one, again and again, and
throws away whatever comes back. One that is disconnected connects again.
"""

from __future__ import annotations

import selectors
import socket
import sys
from dataclasses import dataclass
from typing import Final

PIECE_BYTES: Final = 256 * 1024

_CHUNKED_PUT: Final = (
    b"PUT /attacked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_GET: Final = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
_PUT: Final = b"PUT /attacked HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nz"
# As many of the shortest extensions as there may be, and no line like one of a thousand
# before it, whose meaning a server may have kept.
_EXTENDED: Final = b"".join(
    b"1;%04d" % number + b";a" * 120 + b"\r\nz\r\n" for number in range(2000)
)
_TRAILERS: Final = b"".join(b"t%d:\r\n" % number for number in range(100))


@dataclass(frozen=True)
class Attack:
    """
    What one connection sends.
    """

    first: bytes
    """Once."""
    then: bytes
    """Behind it, without end."""


ATTACKS: Final = {
    "chunks": Attack(_CHUNKED_PUT, b"1\r\nz\r\n"),
    "extensions": Attack(_CHUNKED_PUT, _EXTENDED),
    "gets": Attack(b"", _GET),
    "puts": Attack(b"", _PUT),
    "empty-lines": Attack(b"", b"\r\n" + _GET),
    "trailers": Attack(b"", _CHUNKED_PUT + b"0\r\n" + _TRAILERS + b"\r\n"),
}


class _Attacker:
    def __init__(self, attack: Attack, port: int) -> None:
        self._port = port
        self._first = attack.first
        self._then = attack.then * -(-PIECE_BYTES // len(attack.then))
        self.connect()

    def connect(self) -> None:
        """
        Begin anew.
        """
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.setblocking(False)
        self._rest = memoryview(self._first or self._then)

    def send(self) -> None:
        """
        Send what the socket takes.
        """
        try:
            while True:
                self._rest = self._rest[self.socket.send(self._rest) :]
                if not self._rest:
                    self._rest = memoryview(self._then)
        except BlockingIOError:
            pass

    def receive(self) -> None:
        """
        Throw away what has come.

        Raises:
            ConnectionResetError: The server has disconnected.
        """
        if not self.socket.recv(PIECE_BYTES):
            raise ConnectionResetError


def main(kind: str, port: int, connections: int) -> None:
    """
    Attack.
    """
    selector = selectors.DefaultSelector()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE

    def watch(attacker: _Attacker) -> None:
        selector.register(attacker.socket, both, attacker)

    for _ in range(connections):
        watch(_Attacker(ATTACKS[kind], port))
    print("attacking", flush=True)
    while True:
        for key, events in selector.select():
            attacker: _Attacker = key.data
            try:
                if events & selectors.EVENT_READ:
                    attacker.receive()
                if events & selectors.EVENT_WRITE:
                    attacker.send()
            except OSError:
                selector.unregister(attacker.socket)
                attacker.socket.close()
                attacker.connect()
                watch(attacker)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
