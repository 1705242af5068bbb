"""
Names that dialects keep for themselves, beside the values of their clients.
"""

from __future__ import annotations

from typing import Final

COLLECTION: Final = b".kvd-collection"
"""
The last segment of the value that makes a folder last. Dialects that have such folders
share it.
"""

LOCKS: Final = b".kvd-locks"
"""
The name of the value with the locks on keys below a prefix; it follows the prefix. The
dialect that has locks refuses it in paths.
"""

MULTIPART: Final = b".kvd-multipart"
"""
The name of folders with parts of values that are uploaded in parts, and with what is
known of these uploads.
"""


def is_reserved(key: bytes) -> bool:
    """
    Whether a key is one of these: it is listed as any other, but it is no client's.
    """
    return key.rpartition(b"/")[2] == COLLECTION or is_record(key)


def is_record(key: bytes) -> bool:
    """
    Whether a key is one of those with which a dialect keeps what its clients are about
    to do: it means nothing elsewhere.
    """
    *folders, last = key.split(b"/")
    return last == LOCKS or MULTIPART in folders
