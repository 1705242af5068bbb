"""
Clients that send requests ahead and look at how their connections end.

``python -m tests.changes.pipelining [RESTARTS [CLIENTS]]`` restarts a daemon under
them, and prints how many connections ended within a reply, or without a word.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Final

from kvd.admin.control.asking import ControlSocket
from tests.integration.http import ask
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

AHEAD: Final = 16
"""
So many requests are on their way on each connection.
"""

SMALL_WINDOW: Final = 8 * 1024
"""
Of every other client: most of a large reply waits in the daemon's kernel then.
"""

SIZES: Final = (5, 2_000, 40_000, 200_000)
"""
Of the values: those that come from memory, in one piece, and by ``sendfile``.
"""

_LENGTH: Final = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nConnection: close\r\n", re.IGNORECASE)


class Replies:
    """
    Counts the whole replies in what comes of a connection.
    """

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.whole = 0
        self.announced = False
        """Whether the last whole reply said that the connection ends."""

    def take(self, data: bytes) -> None:
        """
        Some bytes have come.
        """
        while data:
            if self._left:
                taken = min(self._left, len(data))
                data = data[taken:]
                self._left -= taken
                self.whole += not self._left
                continue
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = b""
            head += b"\r\n"
            length = _LENGTH.search(head)
            self._left = int(length[1]) if length else 0
            self.announced = bool(_CLOSE.search(head))
            self.whole += not self._left

    @property
    def within(self) -> bool:
        """
        Whether a reply has begun and not ended.
        """
        return bool(self._head or self._left)


class Pipelines:
    """
    Clients at work for the length of a ``with``.
    """

    def __init__(self, port: int, clients: int) -> None:
        """
        Args:
            port: Of a daemon with a value of each of `SIZES` under its size.
            clients: How many.
        """
        self._port = port
        self._stop = Event()
        self._lock = Lock()
        self._threads = [
            Thread(target=self._run, args=[number]) for number in range(clients)
        ]
        self.connections = self.replies = 0
        self.lost: list[str] = []
        """What was wrong with how connections ended."""

    def __enter__(self) -> Pipelines:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        size = SIZES[number % len(SIZES)]
        request = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size
        while not self._stop.is_set():
            replies = Replies()
            try:
                self._talk(request, replies, narrow=number // len(SIZES) % 2 == 1)
                end = "ended"
            except OSError as error:
                end = str(error)
            with self._lock:
                self.connections += 1
                self.replies += replies.whole
                if self._stop.is_set():
                    continue
                if replies.within or not replies.announced:
                    where = "within" if replies.within else "without a word after"
                    self.lost.append(f"{end} {where} reply {replies.whole} of {size}")

    def _talk(self, request: bytes, replies: Replies, *, narrow: bool) -> None:
        with socket.socket() as sock:
            sock.settimeout(PATIENCE_SECONDS)
            if narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
            sock.connect(("127.0.0.1", self._port))
            sock.sendall(request * AHEAD)
            while data := sock.recv(1 << 16):
                before = replies.whole
                replies.take(data)
                if self._stop.is_set():
                    return
                if replies.whole > before:
                    try:
                        sock.sendall(request * (replies.whole - before))
                    except ConnectionError:
                        # The end; what was sent before it is to be read.
                        pass


def restart_under_pipelines(
    restarts: int, clients: int, folder: Path, options: Sequence[str] = ()
) -> Pipelines:
    """
    Replace all workers so many times.
    """
    options = [
        *["--procs=2", f"--store=file:{folder}/values", f"--control={folder}/control"],
        *["--durability=process", *options],
    ]
    with (
        closing(ControlSocket(str(folder / "control"))) as asked,
        Twistd(options, folder) as daemon,
    ):
        for size in SIZES:
            assert 201 == ask(daemon.port, "PUT", f"/{size}", b"x" * size).status
        with Pipelines(daemon.port, clients) as pipelines:
            for _ in range(restarts):
                asked.change("restart", {})
    return pipelines


def main() -> int:
    """
    Print what became of the connections.
    """
    restarts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    with tempfile.TemporaryDirectory(prefix="kvd-pipelining-") as folder:
        pipelines = restart_under_pipelines(restarts, clients, Path(folder))
    print(
        f"{restarts} restarts, {clients} clients with {AHEAD} requests ahead:"
        f" {len(pipelines.lost)} lost of {pipelines.connections} connections,"
        f" {pipelines.replies} replies"
    )
    for sentence in pipelines.lost[:20]:
        print(f"  {sentence}")
    return bool(pipelines.lost)


if __name__ == "__main__":
    sys.exit(main())
