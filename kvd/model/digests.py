"""
Digests that a body has to have.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Digest:
    """
    What a body has to have.
    """

    field: str
    """That says so."""
    algorithm: str
    """As `hashlib` names it."""
    value: bytes
