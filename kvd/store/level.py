"""
One folder of a store, without what is further below.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kvd.interfaces import Answer, IFolderListing, IFolderStore, IListing, IStore
from kvd.model.keys import MAX_KEY_BYTES
from kvd.model.values import Entry, Folder, entry_key
from kvd.store.waiting import resolved

PAGE_KEYS: Final = 100

_BELOW: Final = b"\xff" * (MAX_KEY_BYTES + 1)
"""
Behind the prefix of a folder, this comes after all keys in it.
"""


def list_folder(
    store: IStore, prefix: bytes, after: bytes = b"", limit: int | None = None
) -> IFolderListing:
    """
    List one folder of any store; see `IFolderStore.list_folder`.
    """
    if IFolderStore.providedBy(store):
        return IFolderStore(store).list_folder(prefix, after, limit)
    return SkippingListing(store, prefix, after, limit)


def has_values(store: IStore, prefix: bytes) -> Answer[bool]:
    """
    Whether a store has a value below a prefix; see `IFolderStore.has_values`.
    """
    if IFolderStore.providedBy(store):
        return IFolderStore(store).has_values(prefix)
    return Deferred.fromCoroutine(begins(store.list(prefix, b"", None)))


async def begins(listing: IListing) -> bool:
    """
    Whether a listing has a value; it is closed then.
    """
    with closing(listing):
        return bool(await resolved(listing.next_slice()))


@implementer(IFolderListing)
class SkippingListing:
    """
    Lists a folder by pages of all that is below it: from each folder in it, the next
    page begins after its last key.
    """

    def __init__(
        self, store: IStore, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        """
        Args:
            store: Lists pages.
            prefix: See `IFolderStore.list_folder`.
            after: See there.
            limit: See there.
        """
        self._store = store
        self._prefix = prefix
        self._begins_after = after if limit is not None else b""
        self._after = self._begins_after
        self._limit = limit
        self._ended = False

    def next_slice(self) -> Answer[Sequence[Entry]]:
        if self._ended:
            return ()
        return Deferred.fromCoroutine(self._next_slice())

    async def _next_slice(self) -> Sequence[Entry]:
        found: list[Entry] = []
        wanted = PAGE_KEYS if self._limit is None else self._limit
        while not self._ended and len(found) < wanted:
            found += await self._page(wanted - len(found))
        if self._limit is not None:
            self._ended = True
        return found

    async def _page(self, count: int) -> Sequence[Entry]:
        """
        At most so many entries of the next page of keys.
        """
        listing = self._store.list(self._prefix, self._after, count)
        try:
            infos = await resolved(listing.next_slice())
        finally:
            listing.close()
        if len(infos) < count:
            self._ended = True
        found: list[Entry] = []
        skipped = b""
        for info in infos:
            if skipped and info.key.startswith(skipped):
                continue
            inner, slash, _ = info.key[len(self._prefix) :].partition(b"/")
            entry: Entry = info
            self._after = info.key
            if slash:
                skipped = self._prefix + inner + slash
                entry = Folder(skipped)
                self._after = skipped + _BELOW
            if entry_key(entry) > self._begins_after:
                found.append(entry)
        return found

    def close(self) -> None:
        self._ended = True
