"""
Which dialect answers: the one of the longest prefix that the path begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from kvd.interfaces import IDialect
from kvd.kept import Kept
from kvd.operations import Operation
from kvd.plugins import IDialectDeclaration, load
from kvd.settings import DialectChoice
from kvd.wire.events import Request
from kvd.wire.heads import KEPT_HEADS
from kvd.wire.targets import raw_path


class Dialects:
    """
    The dialects of a daemon by prefix; ``plain`` where none was chosen.
    """

    def __init__(self, choices: Sequence[DialectChoice]) -> None:
        self._default: IDialect = load(IDialectDeclaration, "plain")
        by_prefix = {
            unquote_to_bytes(choice.prefix): load(IDialectDeclaration, choice.name)
            for choice in choices
        }
        self._understood: Kept[Request, Operation] = Kept(KEPT_HEADS)
        self._by_prefix: list[tuple[bytes, IDialect]] = sorted(
            by_prefix.items(), key=lambda item: len(item[0]), reverse=True
        )

    @property
    def is_plain(self) -> bool:
        """
        Whether all requests are ``plain``.
        """
        return not self._by_prefix

    def of(self, target: bytes) -> IDialect:
        """
        The dialect for a request target. Two spellings of one path get the
        same answer.
        """
        if self._by_prefix:
            path = unquote_to_bytes(raw_path(target))
            for prefix, dialect in self._by_prefix:
                if path.startswith(prefix):
                    return dialect
        return self._default

    def understand(self, dialect: IDialect, request: Request) -> Operation:
        """
        What a request asks for in its dialect; see `IDialect.understand`.

        A request that comes again (`kvd.wire.heads`) is not asked about again.
        """
        known = self._understood.find(request)
        if known is not None:
            return known
        return self._understood.keep(request, dialect.understand(request))
