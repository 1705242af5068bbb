"""
Whom a connection is counted for.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvd.access.counting import OpenCounts


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
    address = ipv4_of(IPv6Address(host.partition("%")[0]))
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Address(int(address) >> 64 << 64))


def ipv4_of(address: IPv6Address) -> IPv4Address | IPv6Address:
    """
    The IPv4 address that an address stands for, if it does.
    """
    return address if address.ipv4_mapped is None else address.ipv4_mapped


class OpenConnections:
    """
    How many connections each address has open, at all processes.
    """

    def __init__(self, limit: int, counts: OpenCounts) -> None:
        """
        Args:
            limit: How many one may have.
            counts: Of what is open.
        """
        self._limit = limit
        self._counts = counts

    def has_room(self, peer: Any) -> bool:
        """
        Whether the address of another connection may have it.
        """
        return self._counts[_name_of(peer)] < self._limit

    def opened(self, peer: Any) -> None:
        """
        A connection has begun.
        """
        self._counts.add(_name_of(peer))

    def closed(self, peer: Any) -> None:
        """
        A connection has ended.
        """
        self._counts.remove(_name_of(peer))


def _name_of(peer: Any) -> str:
    # Users are counted in the same table.
    return f"address {network_of(peer)}"
