"""
Bodies on the real daemon, moved by the kernel or read and written, small ones with
the fast path or without: the same holds for all.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.http import ask, talk
from tests.integration.small_disk import tmpfs
from tests.integration.test_daemon import eventually
from tests.integration.twistd import Twistd

pytestmark = pytest.mark.integration

SOAK_REQUESTS = int(os.environ.get("KVD_SOAK_REQUESTS", "1500"))
"""
``make soak`` sends 100,000.
"""

SPLICE = pytest.mark.parametrize("splice", ["on", "off"])


WAYS = [("on", "on"), ("on", "off"), ("off", "on")]
"""
``--splice`` and ``--fast-path``.
"""


def options(splice: str, store: Path | str, fast_path: str = "on") -> list[str]:
    """
    One worker, so that all connections meet in it.
    """
    return [
        *["--procs=1", "--durability=process", "--control=off"],
        *[f"--store=file:{store}", f"--splice={splice}", f"--fast-path={fast_path}"],
    ]


@pytest.fixture(params=WAYS, ids=["both", "splice", "fast_path"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Twistd]:
    """
    With ``--splice`` and ``--fast-path``, or one of them.
    """
    splice, fast_path = request.param
    chosen = options(splice, tmp_path / "values", fast_path)
    with Twistd(chosen, tmp_path) as daemon:
        yield daemon


def test_a_body_is_verified_by_its_digest(daemon: Twistd, tmp_path: Path) -> None:
    """
    However long it is, and though the kernel could move it; nothing of another one is
    left, and the old value stays.
    """
    for size in (0, 5, 5_000, 300_000, 9_000_000):
        value = os.urandom(size)
        digest = b64encode(hashlib.sha256(value).digest()).decode()
        md5 = b64encode(hashlib.md5(value, usedforsecurity=False).digest()).decode()
        for fields in (
            {"Content-Digest": f"sha-256=:{digest}:"},
            {"Repr-Digest": f"md5=:AAAA:, sha-256=:{digest}:"},
            {"Content-MD5": md5},
        ):
            assert ask(daemon.port, "PUT", "/k", value, fields).status in (201, 204)
            assert value == ask(daemon.port, "GET", "/k").body
            damaged = value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
            for key in ("/k", "/new"):
                assert 400 == ask(daemon.port, "PUT", key, damaged, fields).status
            assert value == ask(daemon.port, "GET", "/k").body
    daemon.stop()
    values = tmp_path / "values"
    assert ["k"] == [path.name for path in values.iterdir() if path.name != ".kvd"]
    left = [path for path in values.rglob("*") if path.is_file()]
    assert {"k", "attributes", "lock"} == {path.name for path in left}


def head(key: str, body_bytes: int) -> bytes:
    """
    Of a PUT.
    """
    return (
        f"PUT /{key} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {body_bytes}\r\n\r\n"
    ).encode()


def status_of(sock: socket.socket) -> int:
    """
    Of a reply without a body.
    """
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, reply
        reply += piece
    return int(reply.split()[1])


def debris(root: Path) -> list[str]:
    """
    Uploads that nobody is writing.
    """
    return [
        name
        for _, _, names in os.walk(root / ".kvd")
        for name in names
        if name not in ("attributes", "lock")
    ]


def test_a_body_split_at_every_byte_around_the_head(daemon: Twistd) -> None:
    """
    Wherever the first packet ends.
    """
    body = os.urandom(300_000)
    first = head("k", len(body))
    for end in range(len(first) - 4, len(first) + 5):
        with talk(daemon.port) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            whole = first + body
            sock.sendall(whole[:end])
            # It is read before the rest comes: another request is answered after.
            ask(daemon.port, "GET", "/none")
            sock.sendall(whole[end:])
            assert status_of(sock) in (201, 204)
        assert body == ask(daemon.port, "GET", "/k").body


def test_a_reset_in_the_middle_leaves_the_old_value(
    daemon: Twistd, tmp_path: Path
) -> None:
    """
    And nothing in the way of the next body.
    """
    old, new = os.urandom(500_000), os.urandom(900_000)
    ask(daemon.port, "PUT", "/k", old)
    for sent in (1, 70_000, 400_000, 899_999):
        with talk(daemon.port) as sock:
            sock.sendall(head("k", len(new)) + new[:sent])
            ask(daemon.port, "GET", "/none")
            # Close with a reset, whatever is on its way (socket(7)).
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert old == ask(daemon.port, "GET", "/k").body
        assert 201 == ask(daemon.port, "PUT", f"/next/{sent}", new).status
        assert new == ask(daemon.port, "GET", f"/next/{sent}").body
    # A worker may hear of a reset after it has answered others.
    eventually(lambda: [] == debris(tmp_path / "values"), "nothing is left of them")


@SPLICE
def test_a_disk_that_fills_in_the_middle(tmp_path: Path, splice: str) -> None:
    """
    Both uploads would fit alone. One is refused, and no byte of it turns up in
    another value.
    """
    one, two = (bytes([letter]) * 700_000 for letter in b"ab")
    with (
        tmpfs(tmp_path / "disk", "size=1m") as disk,
        Twistd(options(splice, disk), tmp_path) as daemon,
        talk(daemon.port) as first,
        talk(daemon.port) as second,
    ):
        first.sendall(head("one", len(one)) + one[:400_000])
        second.sendall(head("two", len(two)) + two[:400_000])
        for sock, body in ((first, one), (second, two)):
            try:
                sock.sendall(body[400_000:])
            except ConnectionError:
                # Refused and closed before all of it was sent.
                pass
        statuses = [status_of(sock) for sock in (first, second)]
        assert 507 in statuses
        assert {201, 507} >= set(statuses)
        for key, body, status in zip(("one", "two"), (one, two), statuses, strict=True):
            got = ask(daemon.port, "GET", f"/{key}")
            assert (200, body) == (got.status, got.body) if status == 201 else 404
        assert [] == debris(disk)
        small = os.urandom(200_000)
        assert ask(daemon.port, "PUT", "/small", small).status in (201, 204)
        assert small == ask(daemon.port, "GET", "/small").body


def test_a_range_of_a_value_that_is_replaced_meanwhile(daemon: Twistd) -> None:
    """
    All of it is of the value that it began with.
    """
    old, new = bytes(8_000_000), b"x" * 8_000_000
    ask(daemon.port, "PUT", "/k", old)
    with talk(daemon.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(
            b"GET /k HTTP/1.1\r\nHost: localhost\r\nRange: bytes=1000000-\r\n"
            b"Connection: close\r\n\r\n"
        )
        begun = sock.recv(4096)
        assert begun.startswith(b"HTTP/1.1 206 ")
        assert 204 == ask(daemon.port, "PUT", "/k", new).status
        received = begun
        while piece := sock.recv(1 << 20):
            received += piece
    assert old[1_000_000:] == received.partition(b"\r\n\r\n")[2]
    assert new == ask(daemon.port, "GET", "/k").body


def test_requests_that_come_right_behind_a_body(daemon: Twistd) -> None:
    """
    They are answered in their order, and are no part of the value.
    """
    bodies = [os.urandom(size) for size in (200_000, 65_536, 1, 65_535, 700_000)]
    sent = b"".join(
        head(f"k{number}", len(body)) + body for number, body in enumerate(bodies)
    )
    with talk(daemon.port) as sock:
        sock.sendall(sent + b"GET /k2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [201] * 5 == [status_of(sock) for _ in bodies]
        assert 200 == status_of(sock)
        assert bodies[2] == sock.recv(10)
    for number, body in enumerate(bodies):
        assert body == ask(daemon.port, "GET", f"/k{number}").body


def test_many_requests_over_one_connection(daemon: Twistd) -> None:
    """
    Puts and gets in turn, each answered right, in a daemon that does not grow.
    """
    at_once = 100
    with talk(daemon.port) as sock:
        replies = sock.makefile("rb")
        for turn in range(SOAK_REQUESTS // at_once):
            bodies = [b"%d-%d" % (turn, n) * 50 for n in range(at_once // 2)]
            sock.sendall(
                b"".join(
                    head(f"k{n}", len(body))
                    + body
                    + b"GET /k%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n
                    for n, body in enumerate(bodies)
                )
            )
            for body in bodies:
                assert replies.readline().split()[1] in (b"201", b"204")
                assert 0 == skip_fields(replies)
                assert replies.readline().startswith(b"HTTP/1.1 200 ")
                assert body == replies.read(skip_fields(replies))


def test_many_requests_one_after_the_other(daemon: Twistd) -> None:
    """
    Each sent when the reply to the one before has come; some on connections of their
    own, some in two pieces.
    """
    with talk(daemon.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = sock.makefile("rb")
        for turn in range(SOAK_REQUESTS // 5):
            key, body = f"folder/{turn % 50}", b"%d" % turn * (turn % 1000)
            whole = head(key, len(body)) + body
            end = turn % len(whole) if turn % 10 == 0 else len(whole)
            sock.sendall(whole[:end])
            sock.sendall(whole[end:])
            assert replies.readline().split()[1] in (b"201", b"204")
            assert 0 == skip_fields(replies)
            for _ in range(3):
                sock.sendall(f"GET /{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert replies.readline().startswith(b"HTTP/1.1 200 ")
                assert body == replies.read(skip_fields(replies))
            if turn % 20 == 0:
                assert body == ask(daemon.port, "GET", f"/{key}").body
                fields = {"Connection": "close"}
                put = ask(daemon.port, "PUT", f"/{key}", body, fields)
                assert (204, "close") == (put.status, put.fields["connection"])


def skip_fields(replies: object) -> int:
    """
    Read past the fields of a reply; gives its length.
    """
    length = 0
    while (line := replies.readline()) != b"\r\n":  # type: ignore[attr-defined]
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return length


def test_what_was_stored_is_what_was_sent(daemon: Twistd) -> None:
    """
    Byte for byte, at sizes around those at which ways part.
    """
    parting = [0, 16_384, 60 * 1024, 65_536]
    for size in (*parting, *(n + 1 for n in parting), 65_535, 1 << 20, 5_000_001):
        body = os.urandom(size)
        assert 201 == ask(daemon.port, "PUT", f"/{size}", body).status
        for _ in range(2):
            got = ask(daemon.port, "GET", f"/{size}").body
        assert hashlib.sha256(body).digest() == hashlib.sha256(got).digest()
