"""
Tests for the load: `kvd.bench.client`, `kvd.bench.load`, `kvd.bench.sink`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvd.bench.client import PutClient, RequestFailed, TimedOut
from kvd.bench.errors import BenchFailed
from kvd.bench.load import Load, _send_share
from kvd.bench.programs import send, sink, unused_port
from kvd.bench.sink import listen, serve

BODY_BYTES = 300_000

both_modes = pytest.mark.parametrize("keep_alive", [False, True])


@pytest.fixture
def body() -> Iterator[int]:
    """
    A descriptor of a body.
    """
    descriptor = os.memfd_create("body")
    os.write(descriptor, os.urandom(BODY_BYTES))
    yield descriptor
    os.close(descriptor)


@contextmanager
def sink_answering(status: bytes) -> Iterator[int]:
    """
    A sink in this process; gives its port.
    """
    listener = listen()

    def work() -> None:
        try:
            serve(listener, status=status)
        except OSError:
            # Its listener was shut down.
            pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """
    A server that says one thing to its only client, whatever that sends, and
    hangs up; gives its port.
    """
    listener = listen()

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("requests", "clients", "expected"),
    [(8, 4, [2, 2, 2, 2]), (7, 3, [3, 2, 2]), (2, 3, [1, 1, 0])],
)
def test_shares_add_up(requests: int, clients: int, expected: list[int]) -> None:
    """
    Who comes first takes one more.
    """
    assert expected == Load(requests, 1, clients, False).shares()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_what_succeeds(reply: bytes, body: int) -> None:
    """
    201 and 204, read to their end.
    """
    with answering(reply) as port:
        client = PutClient(port, body, BODY_BYTES, keep_alive=True)
        client.put("key")
        client.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\n\r\n", "507"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status 200"),
        (b"", "before the reply"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nye", "before the reply"),
        (b"+OK POP3 server ready\r\n\r\n", "HttpParser"),
    ],
)
def test_what_fails(reply: bytes, reason: str, body: int) -> None:
    """
    Everything else, with the reason.
    """
    with answering(reply) as port:
        client = PutClient(port, body, BODY_BYTES, keep_alive=True)

        with pytest.raises(RequestFailed, match=reason):
            client.put("key")


def test_nobody_listens(body: int) -> None:
    """
    That is a failure of the request, too.
    """
    client = PutClient(unused_port(), body, BODY_BYTES, keep_alive=False)

    with pytest.raises(RequestFailed, match="refused"):
        client.put("key")


def impatient_client(listener: socket.socket, body: int) -> PutClient:
    """
    One that does not wait long for a server that reads nothing.
    """
    port = listener.getsockname()[1]
    return PutClient(port, body, BODY_BYTES, keep_alive=True, timeout_seconds=0.02)


def test_silence_ends(body: int) -> None:
    """
    A server that reads nothing and says nothing does not hold a client for ever.
    """
    with listen() as listener:
        client = impatient_client(listener, body)

        with pytest.raises(TimedOut):
            client.put("key")


def test_a_client_gives_up_on_a_server_that_stands_still(body: int) -> None:
    """
    And counts as failed what it did not send.
    """
    with listen() as listener:
        client = impatient_client(listener, body)

        part = _send_share(client, 0, 10)

    assert 10 == sum(part["failures"].values())
    assert 2 == len(part["failures"])
    assert [] == part["latencies"]


@both_modes
def test_a_client_goes_on_after_failures(keep_alive: bool, body: int) -> None:
    """
    Each is counted under its reason.
    """
    with sink_answering(b"503 Service Unavailable") as port:
        client = PutClient(port, body, BODY_BYTES, keep_alive=keep_alive)

        part = _send_share(client, 0, 5)

    assert {"status 503": 5} == part["failures"]
    assert [] == part["latencies"]


@both_modes
def test_every_request_is_sent_and_counted(keep_alive: bool, tmp_path: Path) -> None:
    """
    Also where the clients' shares differ.
    """
    load = Load(22, BODY_BYTES, 4, keep_alive)
    with sink(4) as port:
        report = send(port, load, str(tmp_path))

    assert 22 == len(report.latencies)
    assert {} == report.failures
    assert 0 < max(report.latencies) <= report.seconds


def test_a_server_that_is_not_there_fails_every_request(tmp_path: Path) -> None:
    """
    The report comes nevertheless.
    """
    report = send(unused_port(), Load(6, 1000, 3, True), str(tmp_path))

    assert 6 == report.failed
    assert [] == report.latencies


def test_a_load_that_cannot_be_sent_says_why(tmp_path: Path) -> None:
    """
    With what its program said last.
    """
    with pytest.raises(BenchFailed, match="could not be sent") as caught:
        send(1, Load(1, 1, 0, True), str(tmp_path))

    assert "ZeroDivisionError" in caught.value.said
