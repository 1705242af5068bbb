"""
Which dialect answers: the one of the longest prefix that the path begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from kvd.access.rules import ByPrefix
from kvd.http.memo import Memo
from kvd.http.wire.heads import MEMO_HEADS
from kvd.http.wire.kept import KeptFields
from kvd.http.wire.resumption import refuse_part
from kvd.http.wire.targets import is_path, path_segments
from kvd.interfaces import ICollectionDialect, IDialect
from kvd.model.operations import Operation, Put
from kvd.model.requests import Request
from kvd.plugins import IDialectDeclaration, load
from kvd.settings import DialectChoice

PLAIN: Final = "plain"


class Mount(NamedTuple):
    """
    A dialect, and the prefix of the keys that it is for.
    """

    dialect: IDialect
    prefix: bytes
    """Of keys, as in `IDialect.understand`."""
    root_methods: frozenset[str] = frozenset()
    """Of `ICollectionDialect`."""
    inner: tuple[bytes, ...] = ()
    """Prefixes within this one that other mounts are for."""


class Dialects:
    """
    The dialects of a daemon by prefix; ``plain`` where none was chosen.
    """

    def __init__(
        self, choices: Sequence[DialectChoice], kept_fields: Sequence[str] = ()
    ) -> None:
        """
        Args:
            choices: Which dialect is where.
            kept_fields: See `KeptFields`.
        """
        self._kept = KeptFields(kept_fields) if kept_fields else None
        self._elsewhere = Mount(load(IDialectDeclaration, PLAIN), b"")
        by_prefix = {
            unquote_to_bytes(choice.prefix)[1:]: load(IDialectDeclaration, choice.name)
            for choice in choices
        }
        self._understood: Memo[Request, Operation] = Memo(MEMO_HEADS)
        self._mounts: list[Mount] = sorted(
            (
                Mount(
                    dialect,
                    prefix,
                    _root_methods(dialect),
                    tuple(
                        other
                        for other in by_prefix
                        if other != prefix and other.startswith(prefix)
                    ),
                )
                for prefix, dialect in by_prefix.items()
            ),
            key=lambda mount: len(mount.prefix),
            reverse=True,
        )

        self.plain: Final = ByPrefix(
            {
                unquote_to_bytes(choice.prefix)[1:]: choice.name == PLAIN
                for choice in choices
            }
        )
        """By prefix, whether its keys are ``plain``; those without a prefix are."""

    @property
    def has_plain(self) -> bool:
        """
        Whether there are keys that are ``plain``.
        """
        items = self.plain.items
        return self.plain.of(b"", True) or any(is_plain for _, is_plain in items)

    def understand_plainly(self, request: Request) -> Operation:
        """
        What a request asks for where it is ``plain``, whatever its key. It is not
        remembered: elsewhere it means something else.
        """
        return self._with_kept(
            self._elsewhere.dialect.understand(request, b""), request
        )

    def of(self, target: bytes, method: str) -> Mount:
        """
        The dialect for the target of a request. Two spellings of one path have the same
        one.

        Raises:
            BadRequest: The path is wrongly encoded.
        """
        if self._mounts and is_path(target):
            path = b"/".join(path_segments(target))
            for mount in self._mounts:
                if path.startswith(mount.prefix) or (
                    method in mount.root_methods and path + b"/" == mount.prefix
                ):
                    return mount
        return self._elsewhere

    def understand(self, mount: Mount, request: Request) -> Operation:
        """
        What a request asks for in the dialect of its mount; see
        `IDialect.understand`.

        What a request means is remembered (`kvd.http.wire.heads`).
        """
        known = self._understood.find(request)
        if known is not None:
            return known
        operation = mount.dialect.understand(request, mount.prefix)
        if operation.__class__ is Put:
            refuse_part(request)
        operation = self._with_kept(operation, request)
        return self._understood.remember(request, operation)

    def _with_kept(self, operation: Operation, request: Request) -> Operation:
        if self._kept is not None and isinstance(operation, Put):
            return self._kept.add(operation, request)
        return operation


def _root_methods(dialect: IDialect) -> frozenset[str]:
    if ICollectionDialect.providedBy(dialect):
        return ICollectionDialect(dialect).root_methods
    return frozenset()
