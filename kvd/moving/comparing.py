"""
The values of two stores side by side.

Both stores are listed in the order of the keys' bytes, a page at a time, as two sorted
files are merged. So the memory that it takes does not grow with the number of values.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
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


async def in_order(store: IStore, prefix: bytes) -> AsyncGenerator[ValueInfo, None]:
    """
    All values below a prefix, in the order of their keys' bytes.

    Raises:
        StoreFault: The listing cannot continue.
    """
    after = b""
    while True:
        listing = store.list(prefix, after, PAGE_VALUES)
        try:
            page = await resolved(listing.next_slice())
        finally:
            listing.close()
        for info in page:
            yield info
        if len(page) < PAGE_VALUES:
            return
        after = page[-1].key


async def pairs(
    source: IStore, destination: IStore, prefix: bytes
) -> AsyncGenerator[Pair, None]:
    """
    All keys below a prefix that have a value in either store, in the order of their
    bytes. A value that comes or goes meanwhile may be missing.

    Raises:
        StoreFault: A listing cannot continue.
    """
    async with (
        aclosing(in_order(source, prefix)) as sources,
        aclosing(in_order(destination, prefix)) as destinations,
    ):
        one = await anext(sources, None)
        other = await anext(destinations, None)
        while one is not None or other is not None:
            key = min(info.key for info in (one, other) if info is not None)
            here = one if one is not None and one.key == key else None
            there = other if other is not None and other.key == key else None
            yield Pair(key, here, there)
            if here is not None:
                one = await anext(sources, None)
            if there is not None:
                other = await anext(destinations, None)
