"""
The fields of a reply that describe a value.
"""

from __future__ import annotations

import time
from typing import Final

from kvd.http.memo import Memo
from kvd.http.wire.replies import NO_SNIFFING, http_date
from kvd.model.values import Published, ValueInfo

Fields = list[tuple[str, str]]

DEFAULT_TYPE: Final = ("Content-Type", "application/octet-stream")

_FIELDS: Final[Memo[ValueInfo, Fields]] = Memo(512)


def fields_of(info: ValueInfo) -> Fields:
    """
    The fields that describe a value, except the length of what is sent.
    """
    if is_ahead(info):
        return _described(info)
    # The store gives the same object again for a small value that it has in memory.
    return _FIELDS.find(info) or _FIELDS.remember(info, _described(info))


def is_ahead(info: ValueInfo) -> bool:
    """
    Whether the date of a value is in the future: the clock was set back, or another
    program has changed the file's date.
    """
    return info.changed > time.time()


def _validators(info: ValueInfo) -> Fields:
    # Never later than the reply's own date (RFC 9110 section 8.8.2.1).
    return [
        ("ETag", f'"{info.etag}"'),
        ("Last-Modified", http_date(min(info.changed, time.time()))),
    ]


def unchanged_fields(info: ValueInfo) -> Fields:
    """
    The fields of a 304: of the metadata, only what is about caching (RFC 9110 section
    15.4.5).
    """
    kept = [(name, info.metadata.get(name)) for name in ("cache-control", "expires")]
    fields = [(name.title(), value) for name, value in kept if value]
    return [*_validators(info), *fields]


def _described(info: ValueInfo) -> Fields:
    fields = [*_validators(info), ("Accept-Ranges", "bytes"), NO_SNIFFING]
    # An older kvd stored fields without a value.
    fields += [(name.title(), value) for name, value in info.metadata.items() if value]
    if not info.metadata.get("content-type"):
        fields.append(DEFAULT_TYPE)
    return fields


def published_reply(published: Published, durability: str) -> tuple[int, Fields]:
    """
    The status and the fields of the reply to a PUT.
    """
    return 201 if published.created else 204, [
        ("ETag", f'"{published.info.etag}"'),
        ("Kvd-Durability", durability),
    ]
