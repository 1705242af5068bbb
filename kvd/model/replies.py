"""
Replies, as a dialect renders them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from kvd.errors import KvdError

Fields = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Reply:
    """
    The reply to a request.
    """

    status: int
    fields: Fields = ()
    """Without the length of the body, and without those of the connection."""
    body: bytes | AsyncGenerator[bytes, None] = b""
    """A generator gives it piece by piece; an empty piece is skipped. It is closed
    where the client leaves before its end."""
    error: KvdError | None = None
    """What was wrong, where the reply is a refusal. Without a body, it is told as a
    problem (RFC 9457)."""
