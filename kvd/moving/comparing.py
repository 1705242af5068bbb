"""
The values of two stores side by side.

Both stores are listed in the order of the keys' bytes, a page at a time, as two sorted
files are merged. So the memory that it takes does not grow with the number of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.interfaces import IStore
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.store.waiting import resolved

PAGE_VALUES: Final = 10_000
"""
How many values one page has. A file store walks over a whole folder for each page.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A key and its values in both stores; at least one has a value.
    """

    key: Key
    source: ValueInfo | None
    destination: ValueInfo | None


class Values:
    """
    All values of a store below a prefix, in the order of their keys' bytes.
    """

    # Not an asynchronous generator: Python 3.11 cannot close one in which ``anext``
    # with a default is waiting.

    def __init__(self, store: IStore, prefix: bytes) -> None:
        self._store = store
        self._prefix = prefix
        self._page: Sequence[ValueInfo] = ()
        self._taken = 0
        self._is_last = False

    async def first(self) -> ValueInfo | None:
        """
        The first value that was not taken; None at the end.

        Raises:
            StoreFault: The listing cannot continue.
        """
        while self._taken == len(self._page):
            if self._is_last:
                return None
            after = self._page[-1].key if self._page else b""
            self._page = await self._read(after)
            self._taken = 0
            self._is_last = len(self._page) < PAGE_VALUES
        return self._page[self._taken]

    def take(self) -> None:
        """
        Take the value that `first` has returned.
        """
        self._taken += 1

    async def _read(self, after: bytes) -> Sequence[ValueInfo]:
        listing = self._store.list(self._prefix, after, PAGE_VALUES)
        try:
            return await resolved(listing.next_slice())
        finally:
            listing.close()


class Pairs:
    """
    All keys below a prefix that have a value in either of two stores, in the order of
    their bytes. A value that comes or goes meanwhile may be missing.
    """

    def __init__(self, source: IStore, destination: IStore, prefix: bytes) -> None:
        self._source = Values(source, prefix)
        self._destination = Values(destination, prefix)

    async def next(self) -> Pair | None:
        """
        The next key; None at the end.

        Raises:
            StoreFault: A listing cannot continue.
        """
        here = await self._source.first()
        there = await self._destination.first()
        found = [info.key for info in (here, there) if info is not None]
        if not found:
            return None
        key = min(found)
        if here is not None and here.key == key:
            self._source.take()
        else:
            here = None
        if there is not None and there.key == key:
            self._destination.take()
        else:
            there = None
        return Pair(key, here, there)
