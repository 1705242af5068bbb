"""
A request to an engine, and the head of its reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.web.iweb import IResponse

from kvd.client.sending import Body
from kvd.client.sources import ISource
from kvd.s3.endpoints import Endpoint


@dataclass(frozen=True, slots=True)
class Ask:
    """
    A request.
    """

    method: str
    name: str = ""
    """Of the object; empty: the bucket is meant."""
    query: str = ""
    """Percent-encoded."""
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes | ISource = b""
    expected: frozenset[int] = frozenset()
    """Statuses that are answers, beside those of success."""
    fresh: bool = False
    """Whether to make a connection for it. The engine may have closed a kept one, and
    a body that is sent as it comes cannot be sent again."""
    endpoint: Endpoint | None = None
    """Where to send it, unless that fails; None: anywhere."""
    sends: Callable[[Body], None] | None = None
    """Is told of what sends the body, at each attempt."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The head of a reply.
    """

    status: int
    response: IResponse
    endpoint: Endpoint
    was_read: bool = False
    """Whether its body is behind us."""

    def field(self, name: str) -> str:
        """
        A field; empty if there is none.
        """
        values = self.response.headers.getRawHeaders(name)
        return values[-1] if values else ""

    @property
    def length(self) -> int | None:
        """
        The length of the body; None: it is unknown.
        """
        length = self.response.length
        return length if isinstance(length, int) else None

    def number(self, name: str) -> int | None:
        """
        A field that is a number; None if it is not.
        """
        text = self.field(name)
        return int(text) if text.isdecimal() else None
