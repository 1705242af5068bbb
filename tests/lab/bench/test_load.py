"""
Tests for the load: `kvd.lab.bench.client`, `kvd.lab.bench.load`, `kvd.lab.bench.sink`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvd.lab.bench.client import PutClient, RequestFailed, TimedOut
from kvd.lab.bench.load import Load, _send_share
from kvd.lab.bench.programs import send, sink
from kvd.lab.bench.sink import listen, serve
from kvd.lab.bench.storm import Storm
from kvd.lab.measuring.errors import BenchFailed
from tests.ports import unused_port

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
        report = send(port, load)

    assert 22 == len(report.latencies)
    assert {} == report.failures
    assert 0 < max(report.latencies) <= report.seconds


def test_a_server_that_is_not_there_fails_every_request(tmp_path: Path) -> None:
    """
    The report comes nevertheless.
    """
    report = send(unused_port(), Load(6, 1000, 3, True))

    assert 6 == report.failed
    assert [] == report.latencies


def test_a_load_that_cannot_be_sent_says_why(tmp_path: Path) -> None:
    """
    With what its program said last.
    """
    with pytest.raises(BenchFailed, match="could not be sent") as caught:
        send(1, Load(1, 1, 0, True))

    assert "ZeroDivisionError" in caught.value.output


def send_storm(port: int, connections: int, seconds: float) -> Storm:
    """
    A storm that is over.
    """
    storm = Storm(port, b"x", lambda connection: f"key/{connection}")
    storm.run(connections, time.monotonic() + seconds)
    return storm


def test_a_storm_has_many_connections_at_once() -> None:
    """
    Each sends one request after another until the time is over: one at least, whose
    latency has the opening of its connection in it.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    came: list[bytes] = []

    def work() -> None:
        connections = [listener.accept()[0] for _ in range(20)]
        for connection in connections:
            with connection:
                came.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                while connection.recv(1000):
                    connection.sendall(b"HTTP/1.1 201 Created\r\n")
                    connection.sendall(b"Content-Length: 0\r\n\r\n")

    thread = threading.Thread(target=work)
    thread.start()
    storm = send_storm(listener.getsockname()[1], 20, 0.2)
    thread.join()
    listener.close()

    assert {} == storm.failures
    assert {f"PUT /key/{number} HTTP/1.1" for number in range(20)} == {
        head.split(b"\r\n")[0].decode() for head in came
    }
    assert all(head.endswith(b"\r\nContent-Length: 1\r\n\r\nx") for head in came)
    assert len(storm.latencies) > 20
    # Those that were served when the time was over were begun before.
    assert 20 >= storm.late >= 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "status 503",
        ),
        (b"HTTP/1.1 204 No", "the connection ended before the reply did"),
        (b"FTP\r\n\r\n", "HttpParser"),
    ],
)
def test_what_fails_in_a_storm(reply: bytes, reason: str) -> None:
    """
    Each failure ends its connection, and is counted.
    """
    with answering(reply) as port:
        storm = send_storm(port, 1, 0.1)

    ((found, count),) = storm.failures.items()
    assert reason in found
    assert 1 == count
    assert [] == storm.latencies


def test_a_storm_that_nobody_takes() -> None:
    """
    All of its connections are refused.
    """
    storm = send_storm(unused_port(), 3, 0.1)

    assert {3} == set(storm.failures.values())
