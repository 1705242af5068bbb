"""
The header of the PROXY protocol, versions 1 and 2: what a proxy sends before the first
byte of a client, so that the server learns the client's address. Its source is
``doc/proxy-protocol.txt`` of HAProxy.

Nothing behind the header is read: those bytes are of a request or of TLS, and whoever
reads them has its own way to the socket.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from kvd.access.networks import ipv4_of
from kvd.errors import ProxyHeaderRefused

MAX_LINE_BYTES: Final = 107
"""
The longest header of version 1.
"""

MAX_HEADER_BYTES: Final = 4096
"""
The longest header of version 2 that kvd reads. What follows the addresses (the name of
a server, facts about TLS) takes some hundred bytes.
"""

_LINE: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_START_BYTES: Final = 16
"""
Of version 2: the signature, version and command, family, and the length of the rest.
"""

_LOCAL: Final = 0x20
_PROXY: Final = 0x21

# The length of the addresses by the second byte behind the signature.
_ADDRESS_BYTES: Final = {
    0x00: 0,
    0x11: 12,
    0x12: 12,
    0x21: 36,
    0x22: 36,
    0x31: 216,
    0x32: 216,
}
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31

_KINDS: Final[dict[str, type[IPv4Address] | type[IPv6Address]]] = {
    "TCP4": IPv4Address,
    "TCP6": IPv6Address,
}
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
MAX_PORT: Final = 65535


class Header(NamedTuple):
    """
    A whole header.
    """

    size: int
    """In bytes."""
    source: Any
    """The client, as ``accept`` would say of it; None: the proxy itself, for a check
    of its own, or it does not know."""


def may_begin(data: bytes) -> bool:
    """
    Whether bytes are a header, or may become one.
    """
    return (
        data.startswith((_LINE, _SIGNATURE))
        or _LINE.startswith(data)
        or (_SIGNATURE.startswith(data))
    )


def read_header(data: bytes) -> Header | None:
    """
    Read the header with which bytes begin.

    Returns:
        None if it is not complete.

    Raises:
        ProxyHeaderRefused: There is none, or it is malformed.
    """
    if not may_begin(data):
        raise ProxyHeaderRefused(
            "This address expects the PROXY protocol, but the connection does not begin"
            " with its header."
        )
    if data.startswith(_LINE):
        return _read_line(data)
    if len(data) < _START_BYTES:
        return None
    return _read_binary(data)


def _read_line(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= MAX_LINE_BYTES:
            raise ProxyHeaderRefused(
                "The line of the PROXY protocol does not end within"
                f" {MAX_LINE_BYTES} bytes."
            )
        return None
    words = data[len(_LINE) : end].decode("ascii", "backslashreplace").split(" ")
    if words[0] == "UNKNOWN":
        return Header(end + 2, None)
    try:
        family, source, destination, *ports = words
        kind = _KINDS[family]
        kind(destination)
        address = kind(source)
        port, _ = map(_port, ports)
    except (KeyError, ValueError) as error:
        raise ProxyHeaderRefused(
            f"The line of the PROXY protocol is malformed: {words}."
        ) from error
    return Header(end + 2, _peer(address, port))


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > MAX_PORT:
        raise ValueError(text)
    return int(text)


def _read_binary(data: bytes) -> Header | None:
    command, family = data[12], data[13]
    size = _START_BYTES + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderRefused(
            "The header of the PROXY protocol has the version and command"
            f" {command:#x}, which is neither {_LOCAL:#x} nor {_PROXY:#x}."
        )
    if size > MAX_HEADER_BYTES:
        raise ProxyHeaderRefused(
            f"The header of the PROXY protocol has {size} bytes; at most"
            f" {MAX_HEADER_BYTES} are read."
        )
    if command == _PROXY and family not in _ADDRESS_BYTES:
        raise ProxyHeaderRefused(
            f"The header of the PROXY protocol has the unknown family {family:#x}."
        )
    if command == _PROXY and size < _START_BYTES + _ADDRESS_BYTES[family]:
        raise ProxyHeaderRefused(
            f"The header of the PROXY protocol has {size} bytes, too few for its"
            " addresses."
        )
    if len(data) < size:
        return None
    return Header(size, _source(data, family) if command == _PROXY else None)


def _source(data: bytes, family: int) -> Any:
    at = _START_BYTES
    if family == _TCP4:
        source: IPv4Address | IPv6Address = IPv4Address(data[at : at + 4])
        return _peer(source, int.from_bytes(data[at + 8 : at + 10], "big"))
    if family == _TCP6:
        source = IPv6Address(data[at : at + 16])
        return _peer(source, int.from_bytes(data[at + 32 : at + 34], "big"))
    # The source of a Unix socket has no name that means anything here. Datagrams, and
    # what is unspecified, say nothing about a connection.
    return "" if family == _UNIX else None


def _peer(address: IPv4Address | IPv6Address, port: int) -> tuple[Any, ...]:
    if isinstance(address, IPv6Address):
        address = ipv4_of(address)
    if isinstance(address, IPv6Address):
        return str(address), port, 0, 0
    return str(address), port


class HeaderReader:
    """
    Reads the header from a socket, in as many pieces as it comes in.
    """

    def __init__(self, connection: socket.socket) -> None:
        """
        Args:
            connection: Non-blocking.
        """
        self._connection = connection
        self.begun = b""
        """What was read so far, until the header is complete."""

    def read(self) -> Header | None:
        """
        Read what has come, and nothing beyond the header.

        Returns:
            None if it is not complete.

        Raises:
            ProxyHeaderRefused: There is none, or it is malformed. What was read is
                `begun`.
            OSError: Nothing has come (BlockingIOError), or the peer is gone.
            EOFError: The peer sends no more.
        """
        left = MAX_HEADER_BYTES - len(self.begun)
        data = self._connection.recv(left, socket.MSG_PEEK)
        if not data:
            raise EOFError
        header = read_header(self.begun + data)
        # All of it belongs to the header, if that goes on. Left unread, it would wake
        # the reactor again and again.
        count = len(data) if header is None else header.size - len(self.begun)
        self.begun += self._connection.recv(count)
        return header
