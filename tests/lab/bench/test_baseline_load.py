"""
Tests for the load: what it says came of requests did come of them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.building import Programs
from bench.loads import Load, Running, Turn, send, sending
from bench.servers import CServer
from kvd.lab.measuring.errors import BenchFailed

pytestmark = pytest.mark.integration

PUT = Load("PUT", 100_000, connections=4, keys=8)
GET = replace(PUT, method="GET")
ALONE = Load("GET", 5, connections=1, keys=1)


@pytest.fixture
def port(programs: Programs, tmp_path: Path) -> Iterator[int]:
    """
    Of a server with files.
    """
    with CServer().start(programs, tmp_path) as running:
        yield running.port


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """
    A server that gives each connection one reply; gives its port.
    """

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if not connection.recv(1 << 16):
                    return
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # A connection that says nothing ends it.
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def test_as_many_requests_are_made_as_were_asked_for(
    programs: Programs, port: int
) -> None:
    """
    And each is counted once.
    """
    put = send(programs, port, PUT, requests=101)
    got = send(programs, port, GET, requests=50)

    assert (101, 0, 10_100_000) == (put.requests, put.errors, put.bytes)
    assert (50, 0, 5_000_000) == (got.requests, got.errors, got.bytes)
    # All may be done before the last client has connected.
    assert put.connects in range(1, 5)
    assert got.connects in range(1, 5)
    assert 0 < put.p50_seconds <= put.p99_seconds <= put.max_seconds * 1.02
    assert put.max_seconds < put.seconds


def test_one_client_reaches_each_key(
    programs: Programs, port: int, tmp_path: Path
) -> None:
    """
    Below the prefix that it is given.
    """
    send(programs, port, replace(PUT, connections=1, prefix="some"), requests=8)

    assert {f"k{n}" for n in range(8)} == {
        path.name for path in (tmp_path / "some").iterdir()
    }
    assert {100_000} == {path.stat().st_size for path in tmp_path.glob("some/*")}


def test_a_request_can_have_a_connection_of_its_own(
    programs: Programs, port: int
) -> None:
    """
    As many as there are requests.
    """
    report = send(programs, port, replace(PUT, new_connections=True), requests=40)

    assert (40, 0, 40) == (report.requests, report.errors, report.connects)


def test_requests_end_after_the_time(programs: Programs, port: int) -> None:
    """
    Those that were begun are waited for.
    """
    report = send(programs, port, PUT, seconds=0.1)

    assert 0 == report.errors
    assert report.requests


def test_a_load_in_the_background_ends_with_the_with(
    programs: Programs, port: int
) -> None:
    """
    What was in progress is no error.
    """
    large = replace(PUT, body_bytes=40_000_000)

    with sending(programs, port, large, seconds=60) as reports:
        # It has begun as soon as one of its values is there.
        while send(programs, port, replace(large, method="GET"), requests=1).errors:
            pass

    assert [0] == [report.errors for report in reports]


def test_each_key_can_be_used_once(
    programs: Programs, port: int, tmp_path: Path
) -> None:
    """
    By whichever connection; spread over folders.
    """
    load = replace(PUT, keys=101, once_per_second=1, folders=4)

    report = send(programs, port, load, requests=101)

    assert (101, 0) == (report.requests, report.errors)
    assert {f"{n % 4:02x}/k{n}" for n in range(101)} == {
        f"{path.parent.name}/{path.name}" for path in (tmp_path / "bench").glob("*/*")
    }
    get = replace(load, method="GET")
    assert 0 == send(programs, port, get, requests=101).errors


def test_a_load_does_not_run_out_of_keys(programs: Programs) -> None:
    """
    If each is used once, there have to be as many as requests.
    """
    load = replace(GET, keys=100, once_per_second=1)

    with pytest.raises(BenchFailed, match=r"101 requests.*there are 100"):
        send(programs, 1, load, requests=101)


def test_a_key_without_a_value_is_what_was_asked_for(
    programs: Programs, port: int
) -> None:
    """
    Any other reply is an error.
    """
    absent = replace(ALONE, absent=True)

    assert 0 == send(programs, port, absent, requests=3).errors

    send(programs, port, replace(ALONE, method="PUT"), requests=1)

    assert "status 200" == send(programs, port, absent, requests=3).first_error


def test_an_unchanged_value_is_asked_for_by_its_tag(
    programs: Programs, port: int, tmp_path: Path
) -> None:
    """
    A reply that brings the value is an error.
    """
    load = replace(GET, unchanged=True)
    server = Running(port, [], tmp_path)
    load.store(programs, server, [])

    report = load.run(programs, server, Turn("only", 0.05))

    assert report.requests
    assert (0, 0) == (report.errors, report.bytes)
    send(programs, port, replace(PUT, body_bytes=99_999, connections=1), requests=8)
    assert "status 200" == load.run(programs, server, Turn("only", 0.05)).first_error


def test_tags_have_to_be_known(programs: Programs, tmp_path: Path) -> None:
    """
    Those of all keys.
    """
    tags = tmp_path / "tags"
    tags.write_text('"one"\n')

    with pytest.raises(BenchFailed, match="no tag for key 1"):
        send(programs, 1, replace(GET, unchanged=True), requests=1, tags=tags)


def test_a_range_has_the_size_that_was_asked_for(programs: Programs, port: int) -> None:
    """
    Wherever it begins.
    """
    send(programs, port, replace(PUT, connections=1), requests=8)

    report = send(programs, port, replace(GET, range_bytes=99_000), requests=50)

    assert (50, 0, 50 * 99_000) == (report.requests, report.errors, report.bytes)


def test_all_of_a_value_is_no_range(programs: Programs) -> None:
    """
    A server that ignores the field has not done what was asked for.
    """
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalue"
    with answering(reply) as port:
        report = send(programs, port, replace(ALONE, range_bytes=5), requests=1)

    assert "status 200" == report.first_error


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ("status 500", b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nvalue"),
        ("status 404", b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nvalue"),
        ("another size", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nvalu"),
        ("no Content-Length", b"HTTP/1.1 200 OK\r\n\r\nvalue"),
        ("more came", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalues"),
        ("within the body", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalu"),
        ("before the reply", b"HTTP/1.1 200 OK\r\n"),
        ("no HTTP", b"nonsense\r\n\r\n"),
    ],
)
def test_a_reply_that_is_wrong_is_an_error(
    programs: Programs, reason: str, reply: bytes
) -> None:
    """
    It is counted with its reason, and not as a request.
    """
    with answering(reply) as port:
        report = send(programs, port, ALONE, requests=3)

    assert (0, 3) == (report.requests, report.errors)
    assert reason in (report.first_error or "")


def test_a_reply_that_is_right_is_none(programs: Programs) -> None:
    """
    Even if the server closes after it, and says so.
    """
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nvalue"

    with answering(reply) as port:
        report = send(programs, port, ALONE, requests=3)

    assert (3, 0, 3) == (report.requests, report.errors, report.connects)


def test_a_load_that_cannot_be_understood_is_not_sent(programs: Programs) -> None:
    """
    It says what it takes.
    """
    with pytest.raises(BenchFailed, match="usage: load"):
        send(programs, 1, replace(ALONE, method="POST"), requests=1)


def test_a_sync_can_be_made_slower(programs: Programs) -> None:
    """
    By so many milliseconds, for a program that knows nothing of it.
    """
    program = (
        "import os, tempfile, time\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    began = time.monotonic()\n"
        "    os.fsync(file.fileno())\n"
        "    os.fdatasync(file.fileno())\n"
        "    print(time.monotonic() - began)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"LD_PRELOAD": str(programs.slow_sync), "SLOW_SYNC_MS": "30"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout

    assert 0.06 <= float(said)
