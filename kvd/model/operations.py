"""
What a request asks for, whichever dialect it was said in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.digests import Digest
from kvd.model.keys import Key


@dataclass(frozen=True, slots=True)
class Put:
    """
    Store the body under the key.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL
    metadata: Mapping[str, str] = field(default_factory=dict)
    digests: tuple[Digest, ...] = ()
    """What the body has to have; else nothing is stored."""
    empty: bool = False
    """Store an empty value, and read past whatever body there is."""


@dataclass(frozen=True, slots=True)
class Get:
    """
    Send the value under the key, or what is known of it.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL
    body: bool = True
    """False: only the head of the reply (HEAD)."""
    ranges: bool = True
    """Whether a ``Range`` in the request counts."""


@dataclass(frozen=True, slots=True)
class Delete:
    """
    Remove the value under the key.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class List:
    """
    Send a listing of the keys that begin with a prefix.
    """

    prefix: bytes
    after: bytes = b""
    limit: int | None = None
    body: bool = True


@dataclass(frozen=True, slots=True)
class FixedReply:
    """
    Reply without asking the store anything.
    """

    status: int
    fields: tuple[tuple[str, str], ...] = ()


Operation = Put | Get | Delete | List | FixedReply
