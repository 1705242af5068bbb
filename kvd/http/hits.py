"""
Hits of a near cache, as the fast path serves them (``kvd/native/hits.c``).

A near cache knows for some time which value a key has, and in which of its files that
value is. It offers that to the fast path, which serves the key from the file like a
value of the file store, until that time has passed or the offer is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from zope.interface import implementer

from kvd.http.fast_path import HitTable
from kvd.interfaces import IHits
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.store.attribute import encode_metadata
from kvd.store.value import LATEST

_ID_CHARACTERS: Final = 32
"""
Of the entity tags that the fast path knows.
"""

MOST_PARTS: Final = 256
"""
For so many different metadata, what their replies look like is kept.
"""


@implementer(IHits)
class FastHits:
    """
    Offers hits to the fast path, as far as it can serve them.
    """

    def __init__(
        self,
        table: HitTable,
        make_parts: Callable[[bytes, bytes, str], object],
        ending_of: Callable[[Key], bytes],
    ) -> None:
        """
        Args:
            table: Of the fast path.
            make_parts: Called with the metadata of a value, as lines, what `ending_of`
                gave, and what ``Cache-Status`` says; returns what replies look like, or
                None.
            ending_of: Gives of a key what the type of its value depends on.
        """
        self._offer = table.offer
        self._parts = lru_cache(MOST_PARTS)(make_parts)
        self._ending_of = ending_of
        self.withdraw = table.withdraw

    def offer(
        self, info: ValueInfo, file: ValueInfo, until: float, cache_status: str
    ) -> None:
        """
        See `kvd.interfaces.IHits`.
        """
        etag, changed = info.etag, info.changed
        if len(etag) != _ID_CHARACTERS or not etag.isascii():
            return
        if not 0 <= changed <= LATEST:
            return
        try:
            lines = encode_metadata(info.metadata)
        except ValueError:
            # Another program has stored it.
            return
        parts = self._parts(lines, self._ending_of(info.key), cache_status)
        if parts is not None:
            names = info.key, file.key, file.etag
            self._offer(*names, until, etag, int(changed), parts, info)
