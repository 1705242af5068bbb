"""
What replies say about values. Entity tags have no quotes here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes


@dataclass(frozen=True)
class Stored:
    """
    What a reply to PUT promises.
    """

    etag: str
    created: bool
    """Whether the key had no value before."""
    durability: str
    """What the promise survives: ``disk`` or ``process``."""


@dataclass(frozen=True)
class Value:
    """
    What is known of a value before its bytes.
    """

    size: int
    """Of the whole value, also where only its end was requested."""
    etag: str
    changed: str
    """When it was stored, as an HTTP date."""
    content_type: str
    content_encoding: str | None
    """The bytes are handed on as they are stored, never decoded."""


@dataclass(frozen=True)
class Entry:
    """
    A line of a listing.
    """

    key: bytes
    size: int
    etag: str
    changed: str
    """When it was stored (RFC 3339)."""


def entry(line: bytes) -> Entry:
    """
    Read a line of a listing.

    Raises:
        ValueError: It is not one.
    """
    try:
        facts = json.loads(line)
    except RecursionError as error:
        raise ValueError("no line of a listing is nested so deeply") from error
    match facts:
        case {
            "key": str(key),
            "size": int(size),
            "etag": str(etag),
            "changed": str(changed),
        } if (etag + changed).isascii() and (etag + changed).isprintable():
            return Entry(unquote_to_bytes(key), size, etag.strip('"'), changed)
    raise ValueError(f"{line[:80]!r} is not a line of a listing")
