"""
Which dialect answers: the one of the longest prefix that the path begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from kvd.http.memo import Memo
from kvd.http.wire.heads import MEMO_HEADS
from kvd.http.wire.kept import KeptFields
from kvd.http.wire.targets import is_path, path_segments
from kvd.interfaces import IDialect
from kvd.model.operations import Operation, Put
from kvd.model.requests import Request
from kvd.plugins import IDialectDeclaration, load
from kvd.settings import DialectChoice


class Mount(NamedTuple):
    """
    A dialect, and the prefix of the keys that it is for.
    """

    dialect: IDialect
    prefix: bytes
    """Of keys, as in `IDialect.understand`."""


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
        self._elsewhere = Mount(load(IDialectDeclaration, "plain"), b"")
        by_prefix = {
            unquote_to_bytes(choice.prefix)[1:]: load(IDialectDeclaration, choice.name)
            for choice in choices
        }
        self._understood: Memo[Request, Operation] = Memo(MEMO_HEADS)
        self._mounts: list[Mount] = sorted(
            (Mount(dialect, prefix) for prefix, dialect in by_prefix.items()),
            key=lambda mount: len(mount.prefix),
            reverse=True,
        )

    @property
    def is_plain(self) -> bool:
        """
        Whether all requests are ``plain``.
        """
        return not self._mounts

    def of(self, target: bytes) -> Mount:
        """
        The dialect for a request target. Two spellings of one path have the same one.

        Raises:
            BadRequest: The path is wrongly encoded.
        """
        if self._mounts and is_path(target):
            path = b"/".join(path_segments(target))
            for mount in self._mounts:
                if path.startswith(mount.prefix):
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
        if self._kept is not None and isinstance(operation, Put):
            operation = self._kept.add(operation, request)
        return self._understood.remember(request, operation)
