"""
Walks over the objects of a bucket.

The engine lists names, sizes and its own entity tags; kvd's own are with each object,
so each is asked for, several at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredSemaphore
from zope.interface import implementer

from kvd.errors import EngineFailed, KeyAbsent
from kvd.interfaces import Answer, IListing
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.s3.engine import Engine
from kvd.s3.names import decode, encode, is_key
from kvd.s3.requests import Ask
from kvd.s3.together import together
from kvd.s3.value import stat_object

SLICE_KEYS: Final = 100
PAGE_KEYS: Final = 1000
"""
What S3 gives at once.
"""

ASKED_AT_ONCE: Final = 16


@implementer(IListing)
class ObjectListing:
    """
    A walk over the values whose keys begin with a prefix, in the order of their keys.
    """

    def __init__(
        self, engine: Engine, root: str, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        """
        Args:
            engine: Lists the objects.
            root: Begins the names of all objects.
            prefix: See `IStore.list`.
            after: See `IStore.list`.
            limit: See `IStore.list`.
        """
        self._engine = engine
        self._root = root
        self._prefix = root + encode(prefix)
        self._after = root + encode(after) if limit is not None and after else ""
        self._limit = limit
        self._ended = bool(prefix) and not is_key(prefix.removesuffix(b"/"))

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        if self._ended:
            return []
        return Deferred.fromCoroutine(self._next_slice())

    async def _next_slice(self) -> Sequence[ValueInfo]:
        """
        The next values; those that were removed meanwhile are left out.
        """
        found: list[ValueInfo] = []
        wanted = SLICE_KEYS if self._limit is None else self._limit
        while not self._ended and len(found) < wanted:
            found += await self._page(min(wanted - len(found), PAGE_KEYS))
            if self._limit is None and found:
                return found
        self._ended = True
        return found

    async def _page(self, count: int) -> list[ValueInfo]:
        query = f"list-type=2&max-keys={count}&prefix={quote(self._prefix, safe='~')}"
        if self._after:
            query += f"&start-after={quote(self._after, safe='~')}"
        reply = await self._engine.ask(Ask("GET", "", query))
        document = await self._engine.document(reply)
        names = [each.text or "" for each in document.findall("Contents/Key")]
        if names != sorted(names) or (names and names[0] <= self._after):
            raise EngineFailed("The engine does not list names in their order.")
        if names:
            self._after = names[-1]
        if document.findtext("IsTruncated") != "true":
            self._ended = True
        elif not names:
            raise EngineFailed("The engine lists nothing, and says that there is more.")
        return await self._describe(names)

    async def _describe(self, names: Sequence[str]) -> list[ValueInfo]:
        semaphore = DeferredSemaphore(ASKED_AT_ONCE)
        asked = []
        for name in names:
            key = decode(name.removeprefix(self._root))
            if key is not None:
                asked.append(semaphore.run(self._stat, key, name))
        found = await together(asked)
        return [info for info in found if info is not None]

    def _stat(self, key: Key, name: str) -> Deferred[ValueInfo | None]:
        async def stat() -> ValueInfo | None:
            try:
                return (await stat_object(self._engine, key, name)).info
            except KeyAbsent:
                return None

        return Deferred.fromCoroutine(stat())

    def close(self) -> None:
        self._ended = True
