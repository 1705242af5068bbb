"""
Uploads that several requests write.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata


@dataclass(frozen=True, slots=True)
class PartInfo:
    """
    A part of a value that is uploaded in parts.
    """

    number: int
    """From 1 up; a value has its parts in the order of their numbers."""
    size: int
    etag: str
    changed: float


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """
    What is known of such an upload.
    """

    key: Key
    length: int | None
    """Of the whole value, in bytes; None: the client has not said it yet."""
    metadata: Metadata = field(default_factory=dict)
    conditions: Conditions = UNCONDITIONAL
    """Of the request that began it; they are decided when the value is published."""
    user: str | None = None
    """Who has begun it; None: somebody without a name."""
    lifetime_seconds: float = 86400.0
    """How long it is kept after the last byte."""
    done: bool = False
    """Whether the value was published."""
