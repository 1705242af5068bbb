"""
The rights of users, by prefix.

For one table of rights the longest prefix that a key begins with counts, and no other.
A user has the rights of three tables together: those of anybody (``[anonymous]``),
those of every user (``[everyone]``), and the user's own. They are joined once, when the
rights file is read, so a request looks up one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class Right(Flag):
    """
    What a request may need.
    """

    READ = auto()
    WRITE = auto()
    DELETE = auto()
    LIST = auto()


NO_RIGHT: Final = Right(0)


class ByPrefix(Generic[T]):
    """
    What is said about keys by prefix: of all prefixes that a key begins with, the
    longest one counts.
    """

    __slots__ = ("items",)

    def __init__(self, by_prefix: Mapping[bytes, T]) -> None:
        """
        Args:
            by_prefix: Prefixes as `kvd.model.prefixes.read_prefix` returns them.
        """
        self.items: Final = sorted(by_prefix.items(), key=lambda item: -len(item[0]))
        """The longest prefixes first."""

    def of(self, key: bytes, default: T) -> T:
        """
        What is said about a key, or about all keys below a prefix.
        """
        for prefix, said in self.items:
            if key.startswith(prefix):
                return said
        return default


Rights = ByPrefix[Right]


def joined(tables: Iterable[Mapping[bytes, Right]]) -> Rights:
    """
    One table that gives, for each key, the rights of all tables together.
    """
    several = [ByPrefix(table) for table in tables]
    prefixes = {prefix for table in several for prefix, _ in table.items}
    return ByPrefix({prefix: _together(several, prefix) for prefix in prefixes})


def _together(tables: Iterable[Rights], key: bytes) -> Right:
    rights = NO_RIGHT
    for table in tables:
        rights |= table.of(key, NO_RIGHT)
    return rights


@dataclass(frozen=True, slots=True)
class Principal:
    """
    Whoever sends a request.
    """

    name: str | None
    """None: a client without credentials."""
    rights: Rights
    rate: int | None = None
    """How many requests per second this user may send; None: as many as come."""
    at_once: int | None = None
    """How many requests of this user a worker serves at the same time."""

    @property
    def is_limited(self) -> bool:
        """
        Whether each of this user's requests is counted.
        """
        return self.rate is not None or self.at_once is not None

    def may(self, right: Right, key: bytes) -> bool:
        """
        Whether this client has a right for a key.
        """
        return right in self.rights.of(key, NO_RIGHT)

    def may_below(self, right: Right, prefix: bytes) -> bool:
        """
        Whether this client has a right for all keys below a prefix. A listing of ``/``
        names the keys below ``/secret/`` too, so it needs the right for both.

        Args:
            prefix: Empty for all keys, or ending with a slash.
        """
        return self.may(right, prefix) and all(
            right in rights
            for below, rights in self.rights.items
            if below.startswith(prefix)
        )


@dataclass(frozen=True, slots=True)
class Token:
    """
    A token of a user.
    """

    user: str
    digest: bytes
    """The SHA-256 of the token."""
    expires: float | None = None
    """In seconds since the epoch; None: never."""

    def has_expired(self, now: float) -> bool:
        """
        Whether it is valid no more.
        """
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True, slots=True)
class AccessKey:
    """
    A key with which a user signs requests (`kvd.access.signatures`).
    """

    user: str
    secret: str = field(repr=False)
    """As it is: the signature cannot be computed from a hash of it."""
    expires: float | None = None
    """In seconds since the epoch; None: never."""

    def has_expired(self, now: float) -> bool:
        """
        Whether it is valid no more.
        """
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True, slots=True)
class User:
    """
    A user of the rights file.
    """

    principal: Principal
    password_hash: str | None = field(repr=False)
    """Argon2id, in the form of the Password Hashing Competition; None: this user has
    tokens only."""


@dataclass(frozen=True, slots=True)
class PrefixRules:
    """
    What holds for all values below a prefix, whoever writes them.
    """

    content_addressed: bool = False
    """Whether the last segment of a key has to be the SHA-256 of the value."""
    write_once: bool = False
    """Whether a value cannot be replaced by another one."""


NO_RULES: Final = PrefixRules()


@dataclass(frozen=True, slots=True)
class AccessRules:
    """
    What a rights file says.
    """

    anonymous: Principal
    users: Mapping[str, User]
    tokens: Mapping[bytes, Token]
    """By the first `TOKEN_INDEX_BYTES` of their digests."""
    prefixes: ByPrefix[PrefixRules]
    access_keys: Mapping[str, AccessKey] = field(default_factory=dict)
    """By their names, which are sent in clear."""

    @property
    def has_passwords(self) -> bool:
        """
        Whether a user has one.
        """
        return any(user.password_hash is not None for user in self.users.values())


TOKEN_INDEX_BYTES: Final = 8
"""
So many bytes of a digest find the token whose digest is then compared in constant time.
"""
