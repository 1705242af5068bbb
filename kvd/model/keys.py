"""
Keys: the names of values.

A key is one or more segments of 1 to 255 bytes, joined by ``/``, together at
most 1,024 bytes. Any byte but ``/`` and control bytes may stand in a segment,
whether or not the whole is UTF-8.
"""

from __future__ import annotations

import re
from typing import Final, NewType
from urllib.parse import quote_from_bytes

Key = NewType("Key", bytes)
"""
A checked key: decoded bytes, segments joined by ``/``, no ``/`` at either end.
"""

MAX_SEGMENT_BYTES = 255
MAX_KEY_BYTES = 1024


_LEFTOVER: Final = re.compile(rb"(?:.*/)?\.(?:nfs[0-9a-f]{24}|fuse_hidden[0-9a-f]{16})")


def is_leftover(key: bytes) -> bool:
    """
    Whether the last segment is the name that a file system gives to a file which is
    removed while somebody has it open: NFS, and FUSE without ``hard_remove``. It is no
    key, or a removed value would be one under another name.
    """
    return _LEFTOVER.fullmatch(key) is not None


def escape(key: bytes) -> str:
    """
    Percent-encode a key (or a prefix of keys) for a listing, a log or a URL.
    """
    return quote_from_bytes(key, safe="/")
