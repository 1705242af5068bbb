"""
What is known of a stored value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from kvd.model.keys import Key

Metadata: TypeAlias = Mapping[str, str]
"""
What a client said of a value and gets back with it: lower-case field names of
HTTP, those of `METADATA_FIELDS`, and their values.
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
The names that metadata may have: fields that describe a representation, and none
that frames a message.
"""

MAX_METADATA_BYTES = 1024
"""
All names and values of one value's metadata together: it has to fit into an
extended attribute beside the id, and ext4 has one block for all of them.
"""


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """
    What is known of one stored value.
    """

    key: Key
    size: int
    """Bytes."""
    etag: str
    """The strong entity tag without its quotes; unique per write."""
    changed: float
    """When it was published, in seconds since the epoch."""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """
    What a commit did.
    """

    info: ValueInfo
    created: bool
    """Nothing was stored under the key before."""
