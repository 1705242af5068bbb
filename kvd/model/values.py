"""
Descriptions of stored values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from kvd.model.keys import Key

Metadata: TypeAlias = Mapping[str, str]
"""
What a client says about a value and gets back with it: names of HTTP fields in lower
case, those of `METADATA_FIELDS`, and their values.
"""

NO_METADATA: Metadata = {}

METADATA_FIELDS = frozenset(
    (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    )
)
"""
The names that metadata may have: fields that describe a representation, none that
frames a message.
"""

MAX_METADATA_BYTES = 1024
"""
The limit for all names and values of one value's metadata: they have to fit into an
extended attribute with the id, and ext4 has one block for all attributes of a file.
"""


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """
    The description of a stored value.
    """

    key: Key
    size: int
    """In bytes."""
    etag: str
    """The strong entity tag without its quotes; unique per write."""
    changed: float
    """When it was published, in seconds since the epoch."""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folder:
    """
    A folder that has values, in it or further below.
    """

    prefix: bytes
    """That of the keys in it, with the slash."""


Entry: TypeAlias = ValueInfo | Folder
"""
What one folder contains.
"""


def entry_key(entry: Entry) -> bytes:
    """
    By which entries are in order: the key, or the prefix of a folder.
    """
    return entry.prefix if isinstance(entry, Folder) else entry.key


@dataclass(frozen=True, slots=True)
class Published:
    """
    The result of a commit.
    """

    info: ValueInfo
    created: bool
    """Whether the key had no value before."""
