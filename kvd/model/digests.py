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
    """The header field that contains it."""
    algorithm: str
    """The name of the algorithm in `hashlib`."""
    value: bytes
