"""
Keys: the names of values.

A key is one or more segments of 1 to 255 bytes, joined by ``/``, at most 1,024 bytes in
all. A segment may contain any byte except ``/`` and control bytes; a key need not be
UTF-8.
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
    Whether the last segment is a name that NFS, or FUSE without ``hard_remove``, gives
    to a file that is removed while it is open. Such a name is not a key: otherwise a
    removed value would appear under another name.
    """
    return _LEFTOVER.fullmatch(key) is not None


def escape(key: bytes) -> str:
    """
    Percent-encode a key (or a prefix of keys) for a listing, a log or a URL.
    """
    return quote_from_bytes(key, safe="/")
