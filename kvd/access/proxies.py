"""
The client of a request that a proxy has forwarded.

A proxy appends the address of whoever it has the request from to a field: each entry
is worth as much as the proxy that has written it. So the field is read from its end,
as long as the entries are those of trusted proxies; the first other one is the client.
What stands before it is what the client says of itself.

Only one field is read, since a proxy that writes one passes on what a client sends as
the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from twisted.logger import Logger

from kvd.access.networks import ipv4_of

UNIX: Final = "unix"
"""
Among the networks: whoever connects to a Unix socket.
"""

MOST_REMEMBERED: Final = 4096
"""
Of how many addresses it is remembered whether they are trusted.
"""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# One pair of RFC 7239 section 4, and what separates it from the next one. Some proxies
# write addresses without the quotes that they need.
_PAIR: Final = re.compile(
    rb"[ \t]*(?:(" + _TOKEN + rb')=("(?:[^"\\]|\\.)*"|[^",;\s]*))?[ \t]*([;,]|$)'
)
_ESCAPED: Final = re.compile(rb"\\(.)")
# An address, perhaps with a port, in which RFC 7239 allows names.
_NODE: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:([0-9]{1,5})|_[0-9A-Za-z._-]+))?"
    rb"|([0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)"
)


class Proxies:
    """
    Knows which proxies are trusted, and reads what they say.
    """

    _log = Logger()

    def __init__(self, trusted: Collection[str], field: str) -> None:
        """
        Args:
            trusted: Networks, and perhaps `UNIX`.
            field: ``x-forwarded-for`` or ``forwarded``.
        """
        self._networks = [ip_network(each) for each in trusted if each != UNIX]
        self._trusts_unix = UNIX in trusted
        self._name = field
        self._field = field.encode("ascii")
        self._nodes = _in_forwarded if field == "forwarded" else _in_list
        self._remembered: dict[str, bool] = {}
        self._complained = False

    def trusts(self, peer: Any) -> bool:
        """
        Whether a peer is a trusted proxy.

        Args:
            peer: As ``accept`` says of it.
        """
        if not isinstance(peer, tuple):
            return self._trusts_unix
        host = peer[0]
        known = self._remembered.get(host)
        if known is None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[host] = self._is_within(host)
        return known

    def _is_within(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            # Of a connection that was reset before it was accepted.
            return False
        if isinstance(address, IPv6Address):
            address = ipv4_of(address)
        return any(address in network for network in self._networks)

    def client_of(self, peer: Any, fields: Mapping[bytes, bytes]) -> Any:
        """
        The client of a request.

        Args:
            peer: The address that it came from, as ``accept`` returned it.
            fields: Of its head.

        Returns:
            The peer itself, if it is no trusted proxy, or says nothing that can be
            read. Otherwise an address as ``accept`` would say of it; its port is None
            if nobody has named it.
        """
        value = fields.get(self._field)
        if value is None:
            return peer
        if not self.trusts(peer):
            self._complain(peer)
            return peer
        for node in reversed(self._nodes(value)):
            client = _read_node(node)
            if client is None:
                # What stands before it was written by whoever this is.
                break
            peer = client
            if not self.trusts(peer):
                break
        return peer

    def _complain(self, peer: Any) -> None:
        if not self._complained:
            self._complained = True
            self._log.warn(
                "{host} sends the field {field} and is not among --trusted-proxies: the"
                " field is ignored; this is said once",
                host=peer[0] if isinstance(peer, tuple) else UNIX,
                field=self._name,
            )


def _in_list(value: bytes) -> list[bytes]:
    """
    The entries of ``X-Forwarded-For``.
    """
    return [node.strip(b" \t") for node in value.split(b",")]


def _in_forwarded(value: bytes) -> list[bytes]:
    """
    The parameters ``for`` of the elements of ``Forwarded``; empty where an element has
    none. None at all if it is malformed: a quote that a client has left open would hide
    what the proxy has written behind it.
    """
    nodes = [b""]
    at = 0
    while at <= len(value):
        match = _PAIR.match(value, at)
        if match is None:
            return []
        name, text, separator = match.groups()
        if name is not None and name.lower() == b"for":
            if text.startswith(b'"'):
                text = _ESCAPED.sub(rb"\1", text[1:-1])
            nodes[-1] = text
        if separator == b",":
            nodes.append(b"")
        if not separator:
            break
        at = match.end()
    return nodes


def _read_node(node: bytes) -> tuple[Any, ...] | None:
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    bracketed, ipv4, port, bare = match.groups()
    text = (bracketed or ipv4 or bare).decode("ascii")
    number = None if port is None else int(port)
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = ipv4_of(address)
    if isinstance(address, IPv6Address):
        return str(address), number, 0, 0
    return str(address), number
