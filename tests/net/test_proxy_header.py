"""
Tests for `kvd.net.proxy_header`.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import Any, Final

import pytest

from kvd.errors import ProxyHeaderRefused
from kvd.net.proxy_header import (
    MAX_HEADER_BYTES,
    Header,
    HeaderReader,
    may_begin,
    read_header,
)

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command: int, family: int, rest: bytes) -> bytes:
    """
    A header of version 2.
    """
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


TCP4: Final = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1")
TCP6: Final = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + bytes(16)
PORTS: Final = struct.pack(">HH", 4711, 443)
# PP2_TYPE_AUTHORITY, and one that nobody knows.
EXTRA: Final = b"\x02\x00\x0bkvd.example" + b"\xe5\x00\x03abc"

RIGHT: Final[list[tuple[bytes, Any]]] = [
    (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n", ("203.0.113.9", 4711)),
    (b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n", ("2001:db8::9", 4711, 0, 0)),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n", ("203.0.113.9", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (binary(0x21, 0x11, TCP4 + PORTS), ("203.0.113.9", 4711)),
    (binary(0x21, 0x21, TCP6 + PORTS), ("2001:db8::9", 4711, 0, 0)),
    (binary(0x21, 0x11, TCP4 + PORTS + EXTRA), ("203.0.113.9", 4711)),
    (binary(0x21, 0x31, b"/run/a".ljust(216, b"\0")), ""),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x00, EXTRA), None),
    (binary(0x21, 0x12, TCP4 + PORTS), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, TCP4 + PORTS + EXTRA), None),
    # A family that does not count in a check of the proxy's own.
    (binary(0x20, 0xFF, b"abc"), None),
    (binary(0x21, 0x11, (TCP4 + PORTS).ljust(MAX_HEADER_BYTES - 16)), None),
]
RIGHT[-1] = (RIGHT[-1][0], ("203.0.113.9", 4711))

WRONG: Final = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 203.0.113.9 10.0.0.1 4711 443\r\n",
    b"PROXY TCP5 203.0.113.9 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443 1\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 04711 443\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 -1 443\r\n",
    b"PROXY TCP4 203.0.113 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 2001:db8::9 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4  203.0.113.9 10.0.0.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\n" + b" " * 80,
    b"PROXY UNKNOWN" + b" " * 120 + b"\r\n",
    b"PROXY \xff\r\n",
    binary(0x11, 0x11, TCP4 + PORTS),
    binary(0x22, 0x11, TCP4 + PORTS),
    binary(0x21, 0x13, TCP4 + PORTS),
    binary(0x21, 0x11, TCP4),
    binary(0x21, 0x21, TCP4 + PORTS),
    binary(0x21, 0x31, b"/run/a"),
    binary(0x21, 0x11, (TCP4 + PORTS).ljust(MAX_HEADER_BYTES - 15)),
]


@pytest.mark.parametrize(("data", "source"), RIGHT)
def test_header_says_who_the_client_is(data: bytes, source: Any) -> None:
    """
    Whatever follows it, and however it was cut.
    """
    assert Header(len(data), source) == read_header(data)
    assert Header(len(data), source) == read_header(data + b"GET /")
    for end in range(len(data)):
        assert read_header(data[:end]) is None


@pytest.mark.parametrize("data", WRONG)
def test_a_malformed_header_is_refused(data: bytes) -> None:
    """
    As soon as it is known, and never read in part.
    """
    with pytest.raises(ProxyHeaderRefused):
        read_header(data)
    outcomes = set()
    for end in range(len(data)):
        try:
            outcomes.add(read_header(data[:end]))
        except ProxyHeaderRefused:
            pass
    assert outcomes <= {None}


def test_any_bytes_are_a_header_or_refused() -> None:
    """
    Nothing else comes of them.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    for _ in range(3000):
        data = bytearray(source.choice(RIGHT)[0][:200])
        for _ in range(source.randrange(4)):
            data[source.randrange(len(data))] = source.randrange(256)
        start = source.choice([b"", SIGNATURE, b"PROXY TCP4 ", bytes(data)])
        whole = start + source.randbytes(source.randrange(64))
        try:
            header = read_header(whole)
        except ProxyHeaderRefused:
            continue
        assert may_begin(whole)
        assert header is None or header.size <= len(whole)


@pytest.mark.parametrize(("data", "source"), RIGHT)
def test_nothing_behind_the_header_is_read(data: bytes, source: Any) -> None:
    """
    However it is cut; and what has come of it is not left to wake the reactor again.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    cuts = random.Random(seed)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        for _ in range(20):
            reader = HeaderReader(near)
            whole, sent = data + b"rest", 0
            header = None
            while header is None:
                with pytest.raises(BlockingIOError):
                    reader.read()
                size = cuts.choice([1, 1, 2, 7, len(whole)])
                far.sendall(whole[sent : sent + size])
                sent = min(len(whole), sent + size)
                header = reader.read()
            far.sendall(whole[sent:])

            assert Header(len(data), source) == header
            assert b"rest" == near.recv(100)


def test_an_end_is_one() -> None:
    """
    Before a header, and within one.
    """
    for begun in (b"", b"PROXY TCP4"):
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            reader = HeaderReader(near)
            far.sendall(begun)
            far.close()
            if begun:
                assert reader.read() is None
            with pytest.raises(EOFError):
                reader.read()
