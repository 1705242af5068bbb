"""
Which hosts a request may be for.

A page from anywhere may have its own name lead to 127.0.0.1, and then ask what answers
there as if it were its own server (DNS rebinding). What it cannot do is to make the
browser send another name than its own in ``Host``. So at a loopback address only names
that mean this machine are answered, and those that the operator allows.

Other addresses have no names to be told from others: no page leads a browser to a Unix
socket, and a public address was opened for all who reach it, by whatever name.
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
    Knows where kvd listens, and by which names it may be called there.
    """

    def __init__(
        self,
        addresses: Iterable[Address | SystemdAddress] = (),
        allowed: Collection[str] = (),
    ) -> None:
        """
        Args:
            addresses: All at which requests come in, with their ports.
            allowed: See `kvd.settings.Settings.allowed_hosts`.
        """
        self._guarded = {
            (address.interface, address.port)
            for address in addresses
            if isinstance(address, TCPAddress) and not is_public(address)
        }
        self._allows_all = ANY_HOST in allowed or not self._guarded
        self._allowed = {name.encode("ascii") for name in allowed}
        # Most requests are for the same one.
        self._known_last: bytes | None = None

    def knows(self, host: bytes | None) -> bool:
        """
        Whether a request may be answered wherever it came in.

        Args:
            host: See `Request.host`; None where there is none, which no browser does.
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
        Refuse what is not for this server.

        Args:
            local: Where the connection came in, as ``getsockname`` says it.

        Raises:
            Misdirected: The request has to go elsewhere.
        """
        host = request.host
        if self.knows(host) or not self._guards(local):
            return
        assert host is not None
        raise Misdirected(
            f"This address is this machine's alone, and {_shown(host)} is no name of"
            " it: ask for localhost or 127.0.0.1, or have kvd started with"
            " --allowed-host and that name."
        )

    def _guards(self, local: Any) -> bool:
        # A connection to an address of its own comes to the listener of that, and not
        # to one of all addresses.
        return isinstance(local, tuple) and local[:2] in self._guarded


def _shown(host: bytes) -> str:
    return repr(host[:80].decode("ascii", "backslashreplace"))
