"""
The operations that a request can ask for, in any dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

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


@dataclass(frozen=True, slots=True)
class Compound:
    """
    An operation that consists of others: its parts are what its fields hold, operations
    and tuples of them. COPY, for example, has a `Get` of the source and a `Put` of the
    target; MOVE has a `Delete` of the source too.

    It may be carried out if each part may (`kvd.http.authorization`), so a compound
    states no right of its own. Its handler has to carry out the parts as it finds them
    in the permitted operation, because rules of a prefix are added there: a `Put` may
    have become one that demands a digest, or that replaces no other value.
    """

    def with_parts(self, permitted: Callable[[Operation], Operation]) -> Self:
        """
        The same with each part replaced.

        Args:
            permitted: Called with each part. What it raises is raised.
        """
        return replace(
            self,
            **{
                each.name: _replaced(getattr(self, each.name), permitted)
                for each in fields(self)
            },
        )


def _replaced(value: Any, permitted: Callable[[Operation], Operation]) -> Any:
    if isinstance(value, Operation):
        return permitted(value)
    if isinstance(value, tuple):
        return tuple(_replaced(item, permitted) for item in value)
    return value


Operation = Put | Get | Delete | List | FixedReply | Compound
