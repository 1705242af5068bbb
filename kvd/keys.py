"""
Keys: the names of values.

A key is one or more segments of 1 to 255 bytes, joined by ``/``, together at
most 1,024 bytes. Any byte but ``/`` and control bytes may stand in a segment,
whether or not the whole is UTF-8.
"""

from __future__ import annotations

from typing import NewType
from urllib.parse import quote_from_bytes

Key = NewType("Key", bytes)
"""
A checked key: decoded bytes, segments joined by ``/``, no ``/`` at either end.
"""

MAX_SEGMENT_BYTES = 255
MAX_KEY_BYTES = 1024


def escape(key: bytes) -> str:
    """
    Percent-encode a key (or a prefix of keys) for a listing, a log or a URL.
    """
    return quote_from_bytes(key, safe="/")
