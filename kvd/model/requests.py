"""
Requests, as a dialect receives them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """
    The head of a request: its syntax is checked, its meaning is not known yet.
    """

    method: str
    target: bytes
    """As sent: origin, absolute, authority or asterisk form."""
    minor: int
    """The minor version: 0, or 1 for all later ones."""
    fields: dict[bytes, bytes] = field(repr=False)
    """By lower-case name; the values of repeated fields are joined by ``", "``.
    They may have secrets, so a traceback shows none."""
    length: int | None
    """The body's length, if there is a ``Content-Length``."""
    chunked: bool
    """Whether the body is chunked. With neither length nor chunks there is no body."""
    keep_alive: bool
    """Whether the client wants the connection to stay open (RFC 9112 section 9.3)."""
    expects_continue: bool
    """Whether the client waits for ``100 Continue`` before the body."""
    host: bytes | None = None
    """The host, perhaps with a port: from a target that is a whole URL, else from
    ``Host`` (RFC 9112 section 3.2.2)."""

    @property
    def has_body(self) -> bool:
        """
        Whether a body with at least one byte, or with chunks, follows.
        """
        return self.chunked or bool(self.length)
