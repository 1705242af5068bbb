"""
Small requests on the real daemon: what is seen of them is the same with the fast path
and without.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from kvd.http.record import read_record
from tests.integration.http import TIMEOUT_SECONDS, ask, read_to_end, talk
from tests.integration.small_disk import tmpfs
from tests.integration.test_bodies import debris
from tests.integration.test_status import status_of
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

FAST_PATH = pytest.mark.parametrize("fast_path", ["on", "off"])
PUT = b"PUT /a/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
GET = b"GET /a/k HTTP/1.1\r\nHost: localhost\r\n"
HEAD = b"HEAD /a/k HTTP/1.1\r\nHost: localhost\r\n"
MISS = b"GET /a/none HTTP/1.1\r\nHost: localhost\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n"


def seen(folder: Path, fast_path: str, *options: str) -> dict[str, object]:
    """
    What clients see of a daemon, without what differs from one moment to the next,
    and what it logs of them.
    """
    folder.mkdir()
    path = str(folder / "socket")
    chosen = [
        *["--durability=process", f"--fast-path={fast_path}", "--access-log=log"],
        *[f"--control={folder}/control", f"--record={folder}/record", *options],
        *["--listen=tcp:0:interface=127.0.0.1", f"--listen=unix:{path}"],
    ]
    with Twistd(chosen, folder) as daemon:
        port = daemon.port
        ask(port, "PUT", "/a/first", b"v")
        ask(port, "PUT", "/large", bytes(2_000_000))
        replies = exchange(socket.AF_INET, ("127.0.0.1", port))
        replies += exchange(socket.AF_UNIX, path)
        rows = status_of(folder / "control")["workers"]
        daemon.stop()
    log = re.sub(r"127\.0\.0\.1:\d+", "tcp", (folder / "log").read_text())
    fields = ("accepted", "requests", "bytes_in", "bytes_out")
    return {
        "replies": replies,
        # Peer, user, method, key, status, bytes.
        "entries": Counter(tuple(line.split()[2:8]) for line in log.splitlines()),
        "counts": {name: sum(row[name] for row in rows) for name in fields},
        "record": Counter(
            (connection.bytes, connection.requests)
            for connection in read_record(str(folder / "record"))
        ),
    }


def exchange(family: int, address: tuple[str, int] | str) -> list[bytes]:
    """
    Requests on connections that stay and on others that do not; what came back.
    """
    replies = []
    for _ in range(10):
        with connected(family, address) as sock:
            sock.sendall(PUT + b"\r\nvalue")
            replies.append(sock.recv(10_000))
            for _ in range(5):
                for request in (GET, HEAD, MISS):
                    sock.sendall(request + b"\r\n")
                    replies.append(sock.recv(10_000))
            sock.sendall(GET + CLOSE + b"\r\n")
            replies.append(read_to_end(sock))
        for request in (
            PUT + CLOSE + b"\r\nother",
            *(each + CLOSE + b"\r\n" for each in (GET, HEAD, MISS, LARGE)),
        ):
            with connected(family, address) as sock:
                sock.sendall(request)
                replies.append(read_to_end(sock))
    return [re.sub(rb"(Date|Last-Modified|ETag): [^\r]*", rb"\1", r) for r in replies]


def connected(family: int, address: tuple[str, int] | str) -> socket.socket:
    """
    A connection of whichever kind.
    """
    sock = socket.socket(family)
    sock.settimeout(TIMEOUT_SECONDS)
    sock.connect(address)
    return sock


@pytest.mark.parametrize("policy", ["reuseport", "roundrobin", "shared"])
def test_both_ways_answer_alike(tmp_path: Path, policy: str) -> None:
    """
    Replies, the access log, the counts of the workers, the record of connections:
    whoever accepts, over whichever kind of socket.
    """
    options = [f"--policy={policy}", "--procs=2"]
    with_them = seen(tmp_path / "on", "on", *options)

    assert seen(tmp_path / "off", "off", *options) == with_them


def test_nobody_is_waited_for(tmp_path: Path) -> None:
    """
    Clients that connect and say nothing hold up no other.
    """
    with (
        Twistd(["--procs=1", "--durability=process"], tmp_path) as daemon,
        talk(daemon.port),
        talk(daemon.port),
    ):
        assert 404 == ask(daemon.port, "GET", "/k").status


@FAST_PATH
@pytest.mark.parametrize("limit", ["size=200k", "size=10m,nr_inodes=30"])
def test_a_disk_that_small_values_fill(
    tmp_path: Path, fast_path: str, limit: str
) -> None:
    """
    507 when it is full, and nothing left behind; what was stored is there, can be
    replaced while there is room for one more, and removed.
    """
    with (
        tmpfs(tmp_path / "disk", limit) as disk,
        Twistd(
            [
                *["--procs=1", "--durability=process", f"--fast-path={fast_path}"],
                f"--store=file:{disk}",
            ],
            tmp_path,
        ) as daemon,
    ):
        statuses: list[int] = []
        while 507 not in statuses:
            number = len(statuses)
            body = b"%d" % number * 1000
            statuses.append(ask(daemon.port, "PUT", f"/{number}", body).status)
        assert 20 < len(statuses)
        assert {201, 507} == set(statuses)
        assert [] == debris(disk)
        for number in range(len(statuses) - 1):
            for _ in range(2):
                got = ask(daemon.port, "GET", f"/{number}")
                assert b"%d" % number * 1000 == got.body
        for key in ("/0", "/1"):
            assert 204 == ask(daemon.port, "DELETE", key).status
            # Until somebody asks, a value that was read is held open.
            assert 404 == ask(daemon.port, "GET", key).status
        for status in (201, 204, 204):
            assert status == ask(daemon.port, "PUT", "/again", b"value").status
        assert [] == debris(disk)


@FAST_PATH
def test_two_daemons_on_one_folder(tmp_path: Path, fast_path: str) -> None:
    """
    What one replaces or removes, the other does not have any more.
    """
    options = [
        *["--procs=1", "--durability=process", "--store=file:both"],
        *[f"--fast-path={fast_path}", "--control=off"],
    ]
    with Twistd(options, tmp_path) as first, Twistd(options, tmp_path) as second:
        ports = [first.port, second.port]
        for number in range(200):
            body = b"%d" % number
            status = 201 if number % 10 == 0 else 204
            assert status == ask(ports[number % 2], "PUT", "/a/k", body).status
            for port in (*ports, *ports):
                assert body == ask(port, "GET", "/a/k").body
            if number % 10 == 9:
                assert 204 == ask(ports[number % 2], "DELETE", "/a/k").status
                for port in (*ports, *ports):
                    assert 404 == ask(port, "GET", "/a/k").status
