"""
Which pages of other origins may use kvd, by prefix (CORS, in the Fetch standard).

A browser asks before it sends another site's PUT or DELETE, and gives another site's
page no reply, unless kvd says that it may. Without the setting kvd says nothing.

kvd never allows a browser to add the passwords that it remembers
(``Access-Control-Allow-Credentials``): a page that is to be a user has to send the
credentials itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvd.access.rules import ByPrefix
from kvd.errors import BadRequest
from kvd.http.reply_fields import Fields
from kvd.http.wire.digests import DIGEST_FIELDS
from kvd.http.wire.targets import is_path, path_segments
from kvd.model.prefixes import read_prefix
from kvd.model.requests import Request
from kvd.model.values import METADATA_FIELDS
from kvd.settings import ANY_ORIGIN, CorsChoice

PREFLIGHT_SECONDS: Final = 7200
"""
How long a browser may remember what it was told; none keeps it for longer than some
hours.
"""

METHODS: Final = "GET, HEAD, PUT, PATCH, DELETE"

_SENT: Final = ", ".join(
    sorted(
        {
            *("Authorization", "Range", "If-Range"),
            *("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"),
            *DIGEST_FIELDS,
            *(name.title() for name in METADATA_FIELDS),
            *("Upload-Complete", "Upload-Length", "Upload-Offset"),
        }
    )
)
_SHOWN: Final = (
    "Accept-Ranges, Content-Range, ETag, Kvd-Durability, Link, Location, Retry-After,"
    " Upload-Complete, Upload-Length, Upload-Limit, Upload-Offset"
)

_NOBODY: Final[frozenset[str]] = frozenset()


class Cors:
    """
    The origins that may use a daemon.
    """

    def __init__(self, choices: Sequence[CorsChoice]) -> None:
        self.origins: Final = ByPrefix(
            {
                read_prefix(choice.prefix): frozenset(choice.origins)
                for choice in choices
            }
        )

    def fields(self, request: Request) -> Fields:
        """
        What a reply says to browsers, whatever else it says.
        """
        origins = self._origins_for(request.target)
        if not origins:
            return []
        origin = request.fields.get(b"origin", b"").decode("latin-1")
        fields: Fields = []
        if ANY_ORIGIN in origins:
            origin = ANY_ORIGIN
        else:
            # A cache must not give one origin's reply to another.
            fields.append(("Vary", "Origin"))
            if origin not in origins:
                return fields
        fields.append(("Access-Control-Allow-Origin", origin))
        if request.method != "OPTIONS":
            return [*fields, ("Access-Control-Expose-Headers", _SHOWN)]
        if b"access-control-request-method" not in request.fields:
            return fields
        return [
            *fields,
            ("Access-Control-Allow-Methods", METHODS),
            ("Access-Control-Allow-Headers", _SENT),
            ("Access-Control-Max-Age", str(PREFLIGHT_SECONDS)),
        ]

    def allows(self, request: Request) -> bool:
        """
        Whether the page that a request comes from may use what it asks for.
        """
        origins = self._origins_for(request.target)
        origin = request.fields.get(b"origin", b"").decode("latin-1")
        return ANY_ORIGIN in origins or origin in origins

    def _origins_for(self, target: bytes) -> frozenset[str]:
        if not is_path(target):
            return _NOBODY
        try:
            path = b"/".join(path_segments(target))
        except BadRequest:
            return _NOBODY
        return self.origins.of(path, _NOBODY)
