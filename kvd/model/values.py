"""
Descriptions of stored values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kvd.model.keys import Key

Metadata: TypeAlias = Mapping[str, str]
"""
What a client says about a value: names in lower case, and their values, with characters
that the value of an HTTP field may have. A name (`is_metadata_name`) is

- one of `METADATA_FIELDS`, or that of a field that begins with ``x-``: the value is
  given back by each GET;
- or a dialect's own: its prefix, a dot and a word, such as ``dav.executable``. Only the
  dialect that stored it shows it.
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
The fields that describe a representation; none that frames a message.
"""

MAX_METADATA_BYTES = 3072
"""
The limit for all names and values of one value's metadata. They have to fit into an
extended attribute with the id, and ext4 has one block for all attributes of a file, 4
KiB in general. S3 has 2 KiB for the fields of users, beside those of the
representation.
"""

LEAST_METADATA_BYTES = 1024
"""
So much of it every store keeps; one that keeps less than the limit refuses the rest.
"""

_NAME: Final = re.compile(r"x-[0-9a-z!#$%&'*+.^_`|~-]+|[a-z][0-9a-z]*\.[0-9a-z._-]+")
_OWN: Final = re.compile(r"[a-z][0-9a-z]*\.")


def is_metadata_name(name: str) -> bool:
    """
    Whether metadata may have a name.
    """
    return name in METADATA_FIELDS or bool(_NAME.fullmatch(name))


def is_field(name: str) -> bool:
    """
    Whether a name of metadata is that of an HTTP field, and not a dialect's own.
    """
    return not _OWN.match(name)


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
