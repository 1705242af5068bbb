"""
Whom a connection is counted for.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any


def network_of(peer: Any) -> str:
    """
    Whom a connection is counted for: its IPv4 address; of an IPv6 address the first 64
    bits, of which a customer has all addresses; all Unix sockets together.

    Args:
        peer: What ``accept`` said of the other end.
    """
    if not isinstance(peer, tuple):
        return "unix"
    host: str = peer[0]
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


class OpenConnections:
    """
    How many connections each address has open.
    """

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: How many one may have.
        """
        self._limit = limit
        self._open: dict[str, int] = {}

    def has_room(self, peer: Any) -> bool:
        """
        Whether the address of another connection may have it.
        """
        return self._open.get(network_of(peer), 0) < self._limit

    def opened(self, peer: Any) -> None:
        """
        A connection has begun.
        """
        network = network_of(peer)
        self._open[network] = self._open.get(network, 0) + 1

    def closed(self, peer: Any) -> None:
        """
        A connection has ended.
        """
        network = network_of(peer)
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]
