"""
How long a normal client waits while thousands of others are slow, each kind of them
from another address; and how much others are served while one guesses passwords.

``SLOW="heads bodies readers hellos handshakes passwords"`` names the kinds, and
``SLOW_CONNECTIONS`` how many there are (10,000).

==========  ===========================================================================
heads       send the head of a request, a byte a second
bodies      send a body, a byte a second
readers     read a value of 8 MB, 1,000 bytes a second
hellos      send the first message of TLS, a byte a second
handshakes  send all of it, and then nothing
passwords   send wrong passwords, each when the last one is answered; 100 connections
==========  ===========================================================================

On a machine with other work it may run at a real-time priority, of 2 or more: ``chrt 10
make figures FIGURES=slow``. Whoever measures then comes before the daemon, and the slow
clients after it. With one priority for all, they would wait for each other's slices of
100 milliseconds (sched(7)), which no server can help: half-done handshakes gave a p99
of 252 milliseconds, and of 2.8 with three.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.building import Programs, build
from bench.figures.daemon import connect, store_small
from bench.figures.waiting import show_waits, waits
from bench.loads import Load, Running, send
from kvd.lab.measuring.daemon import Daemon, daemon
from kvd.lab.measuring.processes import (
    cpu_seconds,
    kill_group,
    started,
    tree,
    unused_port,
)
from kvd.lab.measuring.table import percent
from kvd.workers.verification import NICE

CONNECTIONS: Final = 10_000
WORKERS: Final = 2
QUIET_SECONDS: Final = 3.0
SLOW_SECONDS: Final = 8.0
STEP_SECONDS: Final = 1.0
GUESSING: Final = 100
LARGE_BYTES: Final = 8_000_000

_ELSEWHERE: Final = "127.0.0.2", 0
# `socket` has a name for it from Python 3.12 on.
_BIND_ADDRESS_NO_PORT: Final = 24
_HOST: Final = b" HTTP/1.1\r\nHost: localhost\r\n"
_FIRST: Final = {
    "heads": b"GET /small" + _HOST,
    "bodies": b"PUT /slow" + _HOST + b"Content-Length: 100000\r\n\r\n",
    "readers": b"GET /large" + _HOST + b"\r\n",
    "hellos": b"",
    "handshakes": b"",
    "passwords": b"",
}


def measure_slow(folder: Path) -> None:
    """
    GETs of 4 KiB beside slow clients of each kind, and before.
    """
    programs = build(Path("build", "bench", "programs").absolute())
    for kind in os.environ.get("SLOW", " ".join(_FIRST)).split():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            _measure(kind, Path(own), programs)


def _measure(kind: str, folder: Path, programs: Programs) -> None:
    users = folder / "users.toml"
    users.touch(0o600)
    users.write_text('[anonymous.rights]\n"/" = ["read", "write"]\n')
    cert, key = programs.certificate
    port = unused_port()
    options = [f"--procs={WORKERS}", f"--users={users}", "--durability=process"]
    options.append(f"--listen=tls:{port}:interface=127.0.0.1:cert={cert}:key={key}")
    with daemon(*options, cwd=str(folder)) as served, _before_others():
        store_small(served.port, "/small")
        _store_large(served.port)
        if kind == "passwords":
            _guess(served, folder, programs)
            return
        context = None
        if kind in ("hellos", "handshakes"):
            context = _client()
        else:
            port = served.port
        title = f"slow: {kind}"
        quiet = show_waits(f"{title}: none", waits(port, QUIET_SECONDS, context))
        count = int(os.environ.get("SLOW_CONNECTIONS", CONNECTIONS))
        with _others(kind, port, count):
            busy = show_waits(f"{title}: {count}", waits(port, SLOW_SECONDS, context))
        print(f"{title}: p99 is {busy / quiet:.1f} times as long", flush=True)


def _guess(served: Daemon, folder: Path, programs: Programs) -> None:
    """
    What others get while passwords are guessed; and what part of the processors' time
    that takes: to verify them, and to send them, which is no cost of kvd.
    """
    port = served.port
    load = Load("GET", 4096, connections=16, keys=16)
    load.store(programs, Running(port, [], folder), [])
    rates, verifying, sending = [], [], []
    for guessing in (0, GUESSING, 0, GUESSING):
        with _others("passwords", port, guessing) as others:
            used = _verifying_seconds(served.pid), cpu_seconds([others.pid])
            report = send(programs, port, load, seconds=QUIET_SECONDS)
            capacity = (os.cpu_count() or 1) * report.seconds
            verifying.append((_verifying_seconds(served.pid) - used[0]) / capacity)
            sending.append((cpu_seconds([others.pid]) - used[1]) / capacity)
        rates.append(report.requests / report.seconds)
    ratio = (rates[1] + rates[3]) / (rates[0] + rates[2])
    title = "slow: passwords"
    print(f"{title}: others get {ratio:.2f} of what they get without", flush=True)
    for name, first, second in (("first", 0, 1), ("next", 2, 3)):
        print(
            f"{title}: in the {name} {QUIET_SECONDS:g} seconds of guesses,"
            f" {rates[second] / rates[first]:.2f}; verifying took"
            f" {percent(verifying[second], 1)} of the processors' time, and sending"
            f" them {percent(sending[second], 1)}",
            flush=True,
        )


def _verifying_seconds(supervisor: int) -> float:
    """
    The processor time of the process that verifies passwords.
    """
    return cpu_seconds(
        pid for pid in tree(supervisor) if os.getpriority(os.PRIO_PROCESS, pid) == NICE
    )


@contextmanager
def _before_others() -> Iterator[None]:
    _rank(+1)
    try:
        yield
    finally:
        _rank(-1)


def _rank(change: int) -> None:
    """
    Change the priority of this process, if it is a real-time one.
    """
    policy = os.sched_getscheduler(0)
    if policy in (os.SCHED_RR, os.SCHED_FIFO):
        priority = os.sched_getparam(0).sched_priority
        os.sched_setscheduler(0, policy, os.sched_param(priority + change))


@contextmanager
def _others(kind: str, port: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bench.figures.slow", kind, str(port), str(count)]
    with started(command, kill_group, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def _store_large(port: int) -> None:
    with connect(port) as sock:
        head = b"PUT /large" + _HOST + b"Content-Length: %d\r\n\r\n" % LARGE_BYTES
        sock.sendall(head + bytes(LARGE_BYTES))
        sock.recv(1000)


def _client() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ---- The others, in a process of their own -----------------------------------------


class _Slow:
    """
    A slow client, which connects again when it is disconnected.
    """

    def __init__(self, kind: str, port: int) -> None:
        self._kind, self._port = kind, port
        self.connect()

    def connect(self) -> None:
        """
        Begin anew.
        """
        self.socket = socket.socket()
        if self._kind == "readers":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # A port is chosen with the other end in view, so that one on which an earlier
        # client's connection still ends will do (ip(7)).
        self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind(_ELSEWHERE)
        self.socket.connect(("127.0.0.1", self._port))
        self.socket.setblocking(False)
        self._rest = _FIRST[self._kind] or _hello()
        if self._kind in ("hellos", "passwords"):
            return
        self.socket.send(self._rest)
        self._rest = b""

    def step(self) -> None:
        """
        Do what is done each second.
        """
        try:
            if self._kind == "hellos":
                self.socket.send(self._rest[:1])
                self._rest = self._rest[1:]
            elif self._kind in ("heads", "bodies"):
                self.socket.send(b"x")
            elif not self.socket.recv(1000):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self.socket.close()
            self.connect()


def _hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = _client().wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _be_slow(kind: str, port: int, count: int) -> None:
    hello = _hello()
    _FIRST["hellos"] = _FIRST["handshakes"] = hello
    # Each has its moment of the second.
    clients: deque[tuple[float, _Slow]] = deque()
    for _ in range(count):
        clients.append((time.monotonic() + STEP_SECONDS, _Slow(kind, port)))
        if clients[0][0] < time.monotonic():
            _step(clients)
    print("connected", flush=True)
    while True:
        time.sleep(max(0.0, clients[0][0] - time.monotonic()))
        _step(clients)


def _step(clients: deque[tuple[float, _Slow]]) -> None:
    due, client = clients.popleft()
    client.step()
    clients.append((max(due, time.monotonic()) + STEP_SECONDS, client))


def _guess_without_end(port: int, count: int) -> None:
    selector = selectors.DefaultSelector()

    def guess(sock: socket.socket) -> None:
        pair = b64encode(b"ci:" + os.urandom(8).hex().encode())
        field = b"Authorization: Basic " + pair
        sock.sendall(b"GET /small" + _HOST + field + b"\r\n\r\n")

    def begin() -> None:
        sock = socket.create_connection(("127.0.0.1", port), source_address=_ELSEWHERE)
        selector.register(sock, selectors.EVENT_READ)
        guess(sock)

    for _ in range(count):
        begin()
    print("connected", flush=True)
    while True:
        for key, _ in selector.select():
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            if sock.recv(65536):
                guess(sock)
                continue
            selector.unregister(sock)
            sock.close()
            begin()


if __name__ == "__main__":
    _rank(-2)
    if sys.argv[1] == "passwords":
        _guess_without_end(int(sys.argv[2]), int(sys.argv[3]))
    _be_slow(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
