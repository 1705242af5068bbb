"""
The null store: writes every chunk to /dev/null and keeps nothing.

It is for measuring the cost of a request without storage: chunks go through the same
system calls as in the file store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from zope.interface import implementer

from kvd.errors import BadSetting, KeyAbsent, StoreUnusable
from kvd.interfaces import IListing, IStore, IStoreMaker, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.settings import Durability
from kvd.store.attribute import new_etag
from kvd.store.faults import fault_of


@implementer(IUpload)
class NullUpload:
    """
    An upload whose bytes are discarded.
    """

    def __init__(
        self, descriptor: int, key: Key, length: int | None, metadata: Metadata
    ) -> None:
        self._descriptor = descriptor
        self._key = key
        self._length = length
        self._metadata = metadata
        self._written_bytes = 0

    def write(self, chunk: bytes) -> None:
        try:
            self._written_bytes += os.write(self._descriptor, chunk)
        except OSError as error:
            raise fault_of(error, "/dev/null cannot be written") from error

    def fileno(self) -> int:
        return self._descriptor

    def commit(self, conditions: Conditions) -> Published:
        conditions.check_change(None)
        # The number of bytes that were spliced to the descriptor is unknown here.
        size = self._written_bytes if self._length is None else self._length
        info = ValueInfo(self._key, size, new_etag(), time.time(), self._metadata)
        return Published(info, created=True)

    def discard(self) -> None:
        # There is nothing to discard.
        pass


@implementer(IListing)
class EmptyListing:
    """
    An empty listing.
    """

    def next_slice(self) -> Sequence[ValueInfo]:
        return ()

    def close(self) -> None:
        pass


@implementer(IStore)
class NullStore:
    """
    A store that discards all values.
    """

    durability = "none"

    def __init__(self) -> None:
        """
        Raises:
            StoreUnusable: There is no /dev/null.
        """
        try:
            # One for all uploads: writes to it have no offset and no order.
            self._descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreUnusable(
                f"/dev/null cannot be opened: {error.strerror}"
            ) from error

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> NullUpload:
        return NullUpload(self._descriptor, key, length, metadata)

    def open(self, key: Key, whole: bool = False) -> IValue:
        raise _absent(key)

    def stat(self, key: Key) -> ValueInfo:
        raise _absent(key)

    def remove(self, key: Key, conditions: Conditions) -> None:
        raise _absent(key)

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> EmptyListing:
        return EmptyListing()

    def close(self) -> None:
        os.close(self._descriptor)


def _absent(key: Key) -> KeyAbsent:
    return KeyAbsent(f"/{escape(key)} has no value: the null store keeps none.")


@implementer(IStoreMaker)
class NullStoreMaker:
    """
    Opens the null store; the setting is ``null:`` without a path.
    """

    def resolve(self, path: str) -> str:
        if path:
            raise BadSetting(
                f"the null store has no location, but got {path!r}; write null:"
            )
        return path

    def prepare(self, path: str) -> None:
        NullStore().close()

    def open_store(self, path: str, durability: Durability) -> NullStore:
        return NullStore()


maker = NullStoreMaker()
