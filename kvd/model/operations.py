"""
The operations that a request can ask for, in any dialect.
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
    """The digests that the body must have; otherwise nothing is stored."""
    once: bool = False
    """The key's value may not be replaced by another one."""
    empty: bool = False
    """Store an empty value, and skip the body if there is one."""


@dataclass(frozen=True, slots=True)
class Get:
    """
    Send the value under the key, or only the head of that reply.
    """

    key: Key
    conditions: Conditions = UNCONDITIONAL
    body: bool = True
    """False: only the head of the reply (HEAD)."""
    ranges: bool = True
    """Whether to obey a ``Range`` in the request."""


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
    Send a fixed reply, without asking the store.
    """

    status: int
    fields: tuple[tuple[str, str], ...] = ()


Operation = Put | Get | Delete | List | FixedReply
