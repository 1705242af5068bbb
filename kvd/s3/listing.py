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
from kvd.interfaces import Answer, IFolderListing, IListing
from kvd.model.keys import Key
from kvd.model.values import Entry, Folder, ValueInfo
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

_BEHIND: Final = "~~"
"""
No code of a byte is as great.
"""


def _is_in_order(names: Sequence[str], after: str) -> bool:
    """
    Whether names are in the order of their bytes, or folder by folder as SeaweedFS has
    them, and come after another one. The names of keys are the same in both orders, but
    those of other stores and programs in the bucket are between them.
    """
    if not names:
        return True
    if after < names[0] and [*names] == sorted(names):
        return True
    paths = [name.split("/") for name in names]
    return after.split("/") < paths[0] and paths == sorted(paths)


class _Pages:
    """
    The names of objects, page by page in the engine's order.
    """

    def __init__(self, engine: Engine, root: str, prefix: bytes) -> None:
        """
        Args:
            engine: Lists the objects.
            root: Begins the names of all objects.
            prefix: Begins the keys.
        """
        self._engine = engine
        self._root = root
        self._prefix = root + encode(prefix)
        self.ended = bool(prefix) and not is_key(prefix.removesuffix(b"/"))

    async def page(self, after: str, count: int) -> list[str]:
        """
        The next names, without the root.

        Args:
            after: Only greater ones are listed; empty: all.
            count: How many at most.
        """
        query = f"list-type=2&max-keys={count}&prefix={quote(self._prefix, safe='~')}"
        if after:
            after = self._root + after
            query += f"&start-after={quote(after, safe='~')}"
        reply = await self._engine.ask(Ask("GET", "", query))
        document = await self._engine.document(reply)
        names = [each.text or "" for each in document.findall("Contents/Key")]
        if not _is_in_order(names, after):
            raise EngineFailed("The engine does not list names in their order.")
        if document.findtext("IsTruncated") != "true":
            self.ended = True
        elif not names:
            raise EngineFailed("The engine lists nothing, and says that there is more.")
        return [name.removeprefix(self._root) for name in names]

    async def describe(self, keys: Sequence[Key]) -> list[ValueInfo]:
        """
        The values of keys, without those that were removed meanwhile.
        """
        semaphore = DeferredSemaphore(ASKED_AT_ONCE)
        found = await together([semaphore.run(self._stat, key) for key in keys])
        return [info for info in found if info is not None]

    def _stat(self, key: Key) -> Deferred[ValueInfo | None]:
        async def stat() -> ValueInfo | None:
            name = self._root + encode(key)
            try:
                return (await stat_object(self._engine, key, name)).info
            except KeyAbsent:
                return None

        return Deferred.fromCoroutine(stat())


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
        self._pages = _Pages(engine, root, prefix)
        self._after = encode(after) if limit is not None else ""
        self._limit = limit

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        if self._pages.ended:
            return []
        return Deferred.fromCoroutine(self._next_slice())

    async def _next_slice(self) -> Sequence[ValueInfo]:
        """
        The next values; those that were removed meanwhile are left out.
        """
        pages, found = self._pages, list[ValueInfo]()
        wanted = SLICE_KEYS if self._limit is None else self._limit
        while not pages.ended and len(found) < wanted:
            count = min(wanted - len(found), PAGE_KEYS)
            names = await pages.page(self._after, count)
            if names:
                self._after = names[-1]
            found += await pages.describe(_keys_of(names))
            if self._limit is None and found:
                return found
        pages.ended = True
        return found

    def close(self) -> None:
        self._pages.ended = True


def _keys_of(names: Sequence[str]) -> list[Key]:
    return [key for key in map(decode, names) if key is not None]


@implementer(IFolderListing)
class ObjectFolderListing:
    """
    One folder, in the order of its entries.

    Engines know ``/`` as a delimiter at most, which the names here do not have. So the
    first key of a folder stands for all of them, and the next page begins behind them.
    """

    def __init__(
        self, engine: Engine, root: str, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        """
        Args:
            engine: Lists the objects.
            root: Begins the names of all objects.
            prefix: See `IFolderStore.list_folder`.
            after: See `IFolderStore.list_folder`.
            limit: See `IFolderStore.list_folder`.
        """
        self._pages = _Pages(engine, root, prefix)
        self._prefix = prefix
        self._last = after if limit is not None else b""
        self._begin = encode(self._last)
        self._limit = limit

    def next_slice(self) -> Answer[Sequence[Entry]]:
        if self._pages.ended:
            return []
        return Deferred.fromCoroutine(self._next_slice())

    async def _next_slice(self) -> Sequence[Entry]:
        found: list[Entry] = []
        wanted = SLICE_KEYS if self._limit is None else self._limit
        while not self._pages.ended and len(found) < wanted:
            names = await self._names(wanted - len(found))
            keys = [Key(name) for name in names if not name.endswith(b"/")]
            described = {info.key: info for info in await self._pages.describe(keys)}
            for name in names:
                if name.endswith(b"/"):
                    found.append(Folder(name))
                elif name in described:
                    found.append(described[Key(name)])
            if self._limit is None and found:
                return found
        self._pages.ended = True
        return found

    async def _names(self, count: int) -> list[bytes]:
        """
        The next keys, and prefixes of folders.
        """
        pages, names = self._pages, list[bytes]()
        while True:
            for found in await pages.page(self._begin, PAGE_KEYS):
                key = decode(found)
                if key is None:
                    self._begin = found
                    continue
                end = key.find(b"/", len(self._prefix)) + 1
                name = key[:end] if end else key
                if name > self._last:
                    if len(names) == count:
                        pages.ended = False
                        return names
                    names.append(name)
                    self._last = name
                self._begin = encode(name) + _BEHIND if end else encode(name)
            if pages.ended or len(names) == count:
                return names

    def close(self) -> None:
        self._pages.ended = True
