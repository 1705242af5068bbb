"""
Requests, before anybody has understood what they ask for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Request:
    """
    The head of a request: strictly checked, but not yet understood.
    """

    method: str
    target: bytes
    """As sent: origin, absolute, authority or asterisk form."""
    minor: int
    """The minor version: 0, or 1 for all later ones."""
    fields: dict[bytes, bytes]
    """By lower-case name; several of one name joined by ``", "``."""
    length: int | None
    """The body's length where ``Content-Length`` gives one."""
    chunked: bool
    """The body comes in chunks. Neither length nor chunks: no body."""
    keep_alive: bool
    """The client wants the connection to stay (RFC 9112 section 9.3)."""
    expects_continue: bool
    """The client waits for ``100 Continue`` before the body."""
    host: bytes | None = None
    """Whom it is for, perhaps with a port: what a whole URL as target says, else
    ``Host`` (RFC 9112 section 3.2.2)."""

    @property
    def has_body(self) -> bool:
        """
        Whether bytes of a body follow.
        """
        return self.chunked or bool(self.length)
