"""
Clients that are slow and steady, on true sockets: they are waited for, whatever buffers
lie between; and those that stand still are not.
"""

from __future__ import annotations

import random
import re
import select
import socket
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.integration.http import ask
from tests.integration.test_bodies import SPLICE
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

TIMEOUT_SECONDS: Final = 4
"""
Of readers and of bodies.
"""

STEPS: Final = 100
STEP_SECONDS: Final = 0.1
"""
What is slow lasts for two and a half timeouts; on a busy machine several steps are one.
Then all go on as fast as they can.
"""

READ_BYTES: Final = 2_000
"""
In a step: 80,000 bytes in a timeout, which are fewer than make room in a socket for
kvd to send more.
"""


class SlowClient(ABC):
    """
    Moves a little in each step.
    """

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.socket = sock

    @abstractmethod
    def step(self, steps: int) -> None:
        """
        Move a little, so many times.
        """

    @abstractmethod
    def finish(self) -> None:
        """
        Move the rest, and see that nothing is missing.
        """


class SlowReader(SlowClient):
    """
    Reads some replies slowly.
    """

    def __init__(
        self, name: str, sock: socket.socket, requests: bytes, expected: bytes
    ) -> None:
        super().__init__(name, sock)
        self._expected = expected
        self._received = b""
        sock.sendall(requests)

    def step(self, steps: int) -> None:
        self._received += self.socket.recv(READ_BYTES * steps)

    def finish(self) -> None:
        pieces = [self._received]
        while piece := self.socket.recv(1 << 20):
            pieces.append(piece)
        assert self._expected == bodies(b"".join(pieces)), self.name


class SlowWriter(SlowClient):
    """
    Writes a request slowly, after its head.
    """

    def __init__(
        self, name: str, sock: socket.socket, port: int, fields: str, body: bytes
    ) -> None:
        super().__init__(name, sock)
        self._port = port
        self._rest = body
        sock.sendall(
            f"PUT /{name} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n".encode()
        )

    def step(self, steps: int) -> None:
        self.socket.sendall(self._rest[:steps])
        self._rest = self._rest[steps:]

    def finish(self) -> None:
        self.socket.sendall(self._rest)
        reply = self.socket.recv(1000)
        assert reply.startswith(b"HTTP/1.1 201 "), (self.name, reply)
        assert VALUE == ask(self._port, "GET", f"/{self.name}").body, self.name


VALUE: Final = random.Random(24).randbytes(1_500_000)


def get(key: str, *fields: str) -> bytes:
    """
    A GET.
    """
    lines = [f"GET /{key} HTTP/1.1", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode()


def bodies(replies: bytes) -> bytes:
    """
    Of replies with lengths, one after the other.
    """
    found = []
    while replies:
        head, _, replies = replies.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head[:100]
        matched = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert matched, head
        length = int(matched[1])
        found.append(replies[:length])
        replies = replies[length:]
    return b"".join(found)


def chunked(value: bytes) -> bytes:
    """
    In small chunks first, then in a great one.
    """
    small, rest = value[:500], value[500:]
    lines = [b"1\r\n%c\r\n" % byte for byte in small]
    return b"".join([*lines, b"%x\r\n" % len(rest), rest, b"\r\n0\r\n\r\n"])


class Connections(ExitStack):
    """
    To a daemon; closed with the ``with``.
    """

    def __init__(self, daemon: Twistd, path: Path) -> None:
        super().__init__()
        self.port = daemon.port
        self._path = path

    def tcp(self, buffer_bytes: int = 0) -> socket.socket:
        """
        One with a small buffer to receive in, if one is asked for.
        """
        sock = self.enter_context(socket.socket())
        sock.settimeout(TIMEOUT_SECONDS * 15)
        if buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def unix(self) -> socket.socket:
        """
        One over the Unix socket.
        """
        sock = self.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(TIMEOUT_SECONDS * 15)
        sock.connect(str(self._path))
        return sock


def is_cut_off(sock: socket.socket) -> bool:
    """
    Whether a connection ends within a time; nothing is read of it.
    """
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(TIMEOUT_SECONDS * 15_000))


def start(tmp_path: Path, splice: str) -> Twistd:
    """
    A daemon with one worker, at a port and at a path.
    """
    return Twistd(
        [
            *["--procs=1", "--durability=process", "--control=off"],
            *[f"--store=file:{tmp_path}/values", f"--splice={splice}"],
            f"--reader-timeout={TIMEOUT_SECONDS}",
            f"--body-timeout={TIMEOUT_SECONDS}",
            "--listen=tcp:0:interface=127.0.0.1",
            f"--listen=unix:{tmp_path}/socket",
        ],
        tmp_path,
    )


@SPLICE
def test_slow_and_steady_clients_are_waited_for(tmp_path: Path, splice: str) -> None:
    """
    Readers and writers of any kind get, and store, every byte.
    """
    with (
        start(tmp_path, splice) as daemon,
        Connections(daemon, tmp_path / "socket") as connections,
    ):
        port, tcp, unix = daemon.port, connections.tcp, connections.unix
        for key, value in (("great", VALUE), ("small", VALUE[:3000])):
            assert 201 == ask(port, "PUT", f"/{key}", value).status
        one = get("great", "Connection: close")
        many = get("small") * 400 + get("small", "Connection: close")
        small = VALUE[:3000] * 401
        length = f"Content-Length: {len(VALUE)}"
        coding = "Transfer-Encoding: chunked"
        clients: list[SlowClient] = [
            SlowReader("small window", tcp(4096), one, VALUE),
            SlowReader("usual window", tcp(), one, VALUE),
            SlowReader("Unix socket", unix(), one, VALUE),
            SlowReader("many replies", tcp(4096), many, small),
            SlowReader("many replies, Unix", unix(), many, small),
            SlowWriter("length", tcp(), port, length, VALUE),
            SlowWriter("length-unix", unix(), port, length, VALUE),
            SlowWriter("chunked", tcp(), port, coding, chunked(VALUE)),
            SlowWriter("chunked-unix", unix(), port, coding, chunked(VALUE)),
        ]
        began, done = time.monotonic(), 0
        while done < STEPS:
            time.sleep(STEP_SECONDS)
            due = int((time.monotonic() - began) / STEP_SECONDS)
            for client in clients:
                client.step(due - done)
            done = due
        for client in clients:
            client.finish()


def test_clients_that_stand_still_are_not_waited_for(tmp_path: Path) -> None:
    """
    A reader is cut off, a writer gets a reply; and the value that there was stays.
    """
    with (
        start(tmp_path, "on") as daemon,
        Connections(daemon, tmp_path / "socket") as connections,
    ):
        port, tcp, unix = daemon.port, connections.tcp, connections.unix
        assert 201 == ask(port, "PUT", "/great", VALUE).status
        readers = [tcp(4096), tcp(), unix()]
        for sock in readers:
            sock.sendall(get("great"))
        writer = tcp()
        writer.sendall(
            b"PUT /great HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nz"
        )
        assert writer.recv(1000).startswith(b"HTTP/1.1 408 ")
        for sock in readers:
            assert is_cut_off(sock)

        assert VALUE == ask(port, "GET", "/great").body
