"""
Which hosts a request may be for.

A web page can make its own name resolve to 127.0.0.1 and then send requests to whatever
listens there, as if that were the page's own server (DNS rebinding). It cannot make the
browser send another name than the page's in ``Host``. So at a loopback address kvd
answers only names that mean this machine, and those that the operator allows.

Other addresses need no guard. No page leads a browser to a Unix socket, and a public
address was opened to every client that reaches it, under any name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from kvd.errors import Misdirected
from kvd.model.requests import Request
from kvd.net.listening import is_public
from kvd.settings import ANY_HOST, Address, SystemdAddress, TCPAddress

# The name, then perhaps the dot of the root of all names, and a port.
_PARTS: Final = re.compile(rb"(\[[^\[\]]*\]|[^:\[\]]+?)\.?(?::[0-9]*)?")
_THIS_MACHINE: Final = re.compile(
    rb"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]", re.IGNORECASE
)


class HostGuard:
    """
    Knows at which addresses kvd listens, and which host names are allowed there.
    """

    def __init__(
        self,
        addresses: Iterable[Address | SystemdAddress] = (),
        allowed: Collection[str] = (),
    ) -> None:
        """
        Args:
            addresses: All addresses at which requests arrive, with their ports.
            allowed: See `kvd.settings.Settings.allowed_hosts`.
        """
        self._guarded = {
            (address.interface, address.port)
            for address in addresses
            if isinstance(address, TCPAddress) and not is_public(address)
        }
        self._allows_all = ANY_HOST in allowed or not self._guarded
        self._allowed = {name.encode("ascii") for name in allowed}
        # Most requests name the same host.
        self._known_last: bytes | None = None

    def knows(self, host: bytes | None) -> bool:
        """
        Whether a host is allowed at every address.

        Args:
            host: See `Request.host`; None for a request without one, which no browser
                sends.
        """
        if self._allows_all or host is None or host == self._known_last:
            return True
        parts = _PARTS.fullmatch(host)
        if parts is None:
            return False
        name = parts[1]
        if _THIS_MACHINE.fullmatch(name) is None and name.lower() not in self._allowed:
            return False
        self._known_last = host
        return True

    def check(self, request: Request, local: Any) -> None:
        """
        Refuse a request for another host.

        Args:
            local: The address at which the connection arrived, from ``getsockname``.

        Raises:
            Misdirected: The host is not allowed at this address.
        """
        host = request.host
        if self.knows(host) or not self._guards(local):
            return
        assert host is not None
        raise Misdirected(
            f"This address is for this machine only, and {_shown(host)} is not its"
            " name: use localhost or 127.0.0.1, or start kvd with --allowed-host and"
            " that name."
        )

    def _guards(self, local: Any) -> bool:
        # The kernel prefers a listener on the very address over one on all addresses.
        return isinstance(local, tuple) and local[:2] in self._guarded


def _shown(host: bytes) -> str:
    return repr(host[:80].decode("ascii", "backslashreplace"))
