"""
The fields of a reply that describe a value.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from kvd.errors import (
    Fault,
    MethodNotAllowed,
    PeerError,
    RangeNotSatisfiable,
    TooManyRequests,
    Unauthorized,
    UploadMismatch,
)
from kvd.http.wire.kept import CLIENT_TIME
from kvd.http.wire.replies import NO_SNIFFING, http_date
from kvd.model.values import Published, ValueInfo, is_field

Fields = list[tuple[str, str]]

SERVICE_UNAVAILABLE: Final = 503

CHALLENGES: Final = (
    ("WWW-Authenticate", 'Basic realm="kvd", charset="UTF-8"'),
    ("WWW-Authenticate", 'Bearer realm="kvd"'),
)

DEFAULT_TYPE: Final = ("Content-Type", "application/octet-stream")

# Anywhere in the field: of several types, browsers take the last that they can read.
_ACTIVE: Final = re.compile(r"html|xml|xsl|svg|multipart|rfc822|mht", re.IGNORECASE)

SANDBOX: Final = ("Content-Security-Policy", "sandbox")
"""
With each value of a type that browsers may show as a page: it runs no script, and has
an origin of its own. Otherwise a value could use kvd with the rights of whoever opens
it.
"""


def _validators(info: ValueInfo) -> Fields:
    # Never later than the reply's own date (RFC 9110 section 8.8.2.1).
    return [
        ("ETag", f'"{info.etag}"'),
        ("Last-Modified", http_date(min(info.changed, time.time()))),
    ]


GuessType = Callable[[bytes], str | None]
"""
See `kvd.http.guessing.guess_type`.
"""


def part_fields(
    info: ValueInfo, first: int, length: int, guess: GuessType | None = None
) -> Fields:
    """
    The fields of a 206, except the length of what is sent.

    Args:
        info: Describes the value.
        first: Where the part begins.
        length: How many bytes it has.
        guess: See `fields_of`.
    """
    last = first + length - 1
    return [
        *fields_of(info, guess),
        ("Content-Range", f"bytes {first}-{last}/{info.size}"),
    ]


def unchanged_fields(info: ValueInfo) -> Fields:
    """
    The fields of a 304: of the metadata, only what is about caching (RFC 9110 section
    15.4.5).
    """
    kept = [(name, info.metadata.get(name)) for name in ("cache-control", "expires")]
    fields = [(name.title(), value) for name, value in kept if value]
    return [*_validators(info), *fields]


def fields_of(info: ValueInfo, guess: GuessType | None = None) -> Fields:
    """
    The fields that describe a value, except the length of what is sent.

    Args:
        info: Describes the value.
        guess: Gives the type of a value that has none; None: nobody guesses.
    """
    fields = [*_validators(info), ("Accept-Ranges", "bytes"), NO_SNIFFING]
    # An older kvd stored fields without a value.
    fields += [
        (name.title(), value)
        for name, value in info.metadata.items()
        if value and is_field(name)
    ]
    kind = info.metadata.get("content-type")
    if not kind:
        kind = None if guess is None else guess(info.key)
        fields.append(("Content-Type", kind) if kind else DEFAULT_TYPE)
    if kind and is_active(kind):
        fields.append(SANDBOX)
    return fields


def is_active(kind: str) -> bool:
    """
    Whether browsers may show a value of this type as a page, so that it needs
    `SANDBOX`.
    """
    return _ACTIVE.search(kind) is not None


def cache_field(status: str) -> tuple[str, str]:
    """
    The field of a reply that says where its value came from
    (`kvd.interfaces.ICachedValue`). It is the last of those that describe the value.
    """
    return "Cache-Status", status


def refusal_fields(error: PeerError | Fault) -> Fields:
    """
    The fields of a reply that says what is wrong (`kvd.http.wire.replies.problem`),
    except its length.
    """
    fields: Fields = [("Content-Type", "application/problem+json"), NO_SNIFFING]
    if isinstance(error, MethodNotAllowed):
        fields.append(("Allow", error.allowed))
    elif isinstance(error, Unauthorized):
        # Basic first: browsers ask for a user and a password then.
        fields += CHALLENGES
    elif isinstance(error, RangeNotSatisfiable):
        fields.append(("Content-Range", f"bytes */{error.size}"))
    elif isinstance(error, UploadMismatch):
        fields.append(("Upload-Offset", str(error.offset)))
    elif isinstance(error, TooManyRequests):
        fields.append(("Retry-After", str(error.seconds)))
    elif error.status == SERVICE_UNAVAILABLE:
        fields.append(("Retry-After", "1"))
    return fields


def published_reply(published: Published, durability: str) -> tuple[int, Fields]:
    """
    The status and the fields of the reply to a PUT.
    """
    fields: Fields = [
        ("ETag", f'"{published.info.etag}"'),
        ("Kvd-Durability", durability),
    ]
    if CLIENT_TIME in published.info.metadata:
        fields.append(("X-OC-Mtime", "accepted"))
    return 201 if published.created else 204, fields
