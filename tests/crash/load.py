"""
Clients that write, read and remember what they were promised.

A value says itself who wrote it, as which of his writes, and how long it is,
and ends with a checksum: so a torn one is recognised, and so is an old one.
"""

from __future__ import annotations

import http.client
import random
import select
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chance import new_seed
from tests.integration.http import ask_over
from tests.patience import PATIENCE_SECONDS

KEYS: Final = 20
"""
Per client: few, so that they are overwritten often.
"""

MAX_BYTES: Final = 200_000
SMALL_BYTES: Final = 5_000
"""
Half of the values are no longer: they go another way (`kvd.http.fast_path`).
"""

TIMEOUT_SECONDS: Final = 20

SLOW_SECONDS: Final = 0.1
"""
A request that takes longer is remembered.
"""


@dataclass(frozen=True)
class Cut:
    """
    A request whose connection ended before the reply was complete.
    """

    port: int
    """The client's."""
    connected: float
    """When the connection began, by the monotonic clock."""
    began: float
    """When the request did."""
    ended: float
    """When the client saw the end."""


@dataclass
class Report:
    """
    What happened to all clients together.
    """

    requests: int = 0
    cut: list[Cut] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Sentences about what must never happen."""
    refused: int = 0
    """Requests for which no connection came about."""
    longest_seconds: float = 0.0
    """From the connect to the end of the reply, of those that succeeded."""
    slow: list[tuple[float, float]] = field(default_factory=list)
    """When each of them began that took longer than `SLOW_SECONDS`, by the monotonic
    clock, and how long it took."""
    log: Sequence[str] = ()
    """The lines that the daemon printed."""
    stopped_seconds: float = 0.0
    """For how long a worker was stopped at most before its end: on a busy machine long
    enough for clients to notice that, rather than the death."""

    @property
    def broken(self) -> int:
        """
        How many requests were cut off.
        """
        return len(self.cut)


def value_of(client: int, key: int, number: int, rng: random.Random) -> bytes:
    """
    The bytes of one write.
    """
    body = rng.randbytes(rng.randrange(rng.choice((SMALL_BYTES, MAX_BYTES))))
    head = f"{client} {key} {number} {len(body)}\n".encode()
    return head + body + zlib.crc32(head + body).to_bytes(4, "big")


def number_in(value: bytes, client: int, key: int) -> int | None:
    """
    Which of the client's writes a value is; None if it is none, or torn.
    """
    head, _, rest = value.partition(b"\n")
    try:
        found_client, found_key, number, length = map(int, head.split())
    except ValueError:
        return None
    whole = (client, key, length + 4) == (found_client, found_key, len(rest))
    if whole and zlib.crc32(value[:-4]) == int.from_bytes(value[-4:], "big"):
        return number
    return None


class Client(threading.Thread):
    """
    One client; with a new connection for each request, or with one that stays.
    """

    def __init__(
        self,
        number: int,
        port: int,
        stays: bool,
        report: Report,
        end: threading.Event,
        seed: int,
        pause_seconds: float,
    ) -> None:
        super().__init__(name=f"client {number}")
        self.number = number
        self._port = port
        self._stays = stays
        self._report = report
        self._end = end
        self._pause_seconds = pause_seconds
        self._rng = random.Random(seed + number)
        self._connection: http.client.HTTPConnection | None = None
        self._connected = 0.0
        self._own_port = 0
        # What may be found under each key: the last write that was promised,
        # and those behind it that nobody said anything of.
        self._promised: dict[int, int] = {}
        self._doubtful: defaultdict[int, set[int]] = defaultdict(set)
        self._writes = 0

    def run(self) -> None:
        """
        Until the end; then everything is read once more.
        """
        try:
            while not self._end.is_set():
                key = self._rng.randrange(KEYS)
                if self._rng.random() < 0.5:
                    self._put(key)
                else:
                    self._get(key)
                if self._pause_seconds:
                    self._end.wait(self._rng.uniform(0.0, 2 * self._pause_seconds))
            for key in range(KEYS):
                self._get(key)
        except Exception as error:
            self._report.wrong.append(f"{self.name}: {error!r}")
        finally:
            self._hang_up()

    def _put(self, key: int) -> None:
        self._writes += 1
        value = value_of(self.number, key, self._writes, self._rng)
        reply = self._ask("PUT", key, value)
        if reply is None:
            self._doubtful[key].add(self._writes)
        elif reply[0] in (201, 204):
            self._promised[key] = self._writes
            self._doubtful[key].clear()
        else:
            self._report.wrong.append(f"PUT {key}: {reply[0]} {reply[1][:200]!r}")

    def _get(self, key: int) -> None:
        reply = self._ask("GET", key)
        if reply is None:
            return
        status, value = reply
        allowed: set[int | None] = {self._promised.get(key), *self._doubtful[key]}
        number = None if status == 404 else number_in(value, self.number, key)
        torn = status != 404 and number is None
        if torn or number not in allowed:
            self._report.wrong.append(
                f"{self.name} GET {key}: {status}, write {number}, allowed {allowed}"
            )

    def _ask(
        self, method: str, key: int, body: bytes | None = None
    ) -> tuple[int, bytes] | None:
        began = time.monotonic()
        if self._connection is not None and _has_ended(self._connection):
            # A connection may be closed between two requests.
            self._hang_up()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=TIMEOUT_SECONDS
            )
            self._connected, self._own_port = time.monotonic(), 0
        self._report.requests += 1
        try:
            if not self._own_port:
                self._own_port = _connect(self._connection)
            got = ask_over(self._connection, method, f"/{self.number}/{key}", body)
            reply = got.status, got.body
        except (
            ConnectionRefusedError,
            BrokenPipeError,
            ConnectionResetError,
            http.client.RemoteDisconnected,
            http.client.IncompleteRead,
        ) as error:
            self._hang_up()
            if isinstance(error, ConnectionRefusedError):
                self._report.refused += 1
                self._end.wait(0.02)
            else:
                self._report.cut.append(
                    Cut(self._own_port, self._connected, began, time.monotonic())
                )
            return None
        except TimeoutError:
            self._hang_up()
            self._report.wrong.append(
                f"{self.name}, port {self._own_port}, got no reply to {method} {key}"
                f" within {TIMEOUT_SECONDS} s; its connection is"
                f" {time.monotonic() - self._connected:.1f} s old"
            )
            return None
        seconds = time.monotonic() - began
        self._report.longest_seconds = max(self._report.longest_seconds, seconds)
        if seconds > SLOW_SECONDS:
            self._report.slow.append((began, seconds))
        if not self._stays:
            self._hang_up()
        return reply

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(connection: http.client.HTTPConnection) -> int:
    """
    Returns:
        The port of this end.
    """
    connection.connect()
    assert connection.sock is not None
    port: int = connection.sock.getsockname()[1]
    return port


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    # http.client closes its end where the reply announced the end.
    sock = connection.sock
    return sock is None or bool(select.select([sock], [], [], 0)[0])


class Load:
    """
    Several clients, for the length of a ``with``; half of them keep their
    connections.
    """

    def __init__(self, port: int, clients: int, pause_seconds: float = 0.0) -> None:
        """
        Args:
            port: Where they ask.
            clients: How many there are.
            pause_seconds: How long each waits between two requests, on average. Without
                it they take all that is left of the machine.
        """
        self.report = Report()
        self._end = threading.Event()
        seed = new_seed()
        self._clients = [
            Client(
                number,
                port,
                number % 2 == 0,
                self.report,
                self._end,
                seed,
                pause_seconds,
            )
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def go_on(self, requests: int = 60) -> None:
        """
        Wait until there have been so many more requests.
        """
        enough = self.report.requests + requests
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.report.requests < enough:
            assert time.monotonic() < deadline, "the clients ask no more"
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for client in self._clients:
            client.join()
