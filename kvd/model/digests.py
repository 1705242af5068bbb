"""
Digests of bodies.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Digest:
    """
    A digest that a body must have.
    """

    field: str
    """The header field that contains it; empty if the key does."""
    algorithm: str
    """The name of the algorithm in `hashlib`, or ``crc32``, ``crc32c`` or
    ``crc64nvme``."""
    value: bytes
    is_key: bool = False
    """Whether the key of the value has to be this digest, in hexadecimal digits."""
