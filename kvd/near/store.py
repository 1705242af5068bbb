"""
A store with a cache near by.

The cache is a file store of its own, in which the key of a value is the digest of its
key and its entity tag: so what is there never changes, and what was replaced is never
found. It goes when it was not read for the longest time (`kvd.store.evicting`). The
store says which entity tag a key has. It is asked for each request, or as often as the
operator wants; only that is remembered, by each process for itself.

Writes go to the store. The cache can be lost or damaged at any time: a file that is not
as kvd wrote it is not used.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import partial
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.errors import KeyAbsent, KvdError, StoreFault, StoreFull
from kvd.interfaces import (
    Answer,
    ICachedValue,
    IListing,
    IStore,
    IUpload,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.near.filling import AHEAD_BYTES, Filling
from kvd.store.waiting import Underway, resolved

MOST_KNOWN: Final = 16_384
"""
How many keys a process remembers.
"""

_MARK: Final = {"content-type": "application/vnd.kvd.near"}
"""
Metadata of what the cache contains. A file that another program has put there, or has
changed, does not have it.
"""

_log = Logger()


class _Known(NamedTuple):
    """
    What the store has said of a key.
    """

    info: ValueInfo
    since: float


@implementer(IStore)
class NearStore:
    """
    A store, and a cache of what was read from it.
    """

    def __init__(
        self, store: IStore, cache: IStore, fresh_seconds: float, clock: IReactorTime
    ) -> None:
        """
        Args:
            store: Has all values.
            cache: Has some of them; its values have descriptors.
            fresh_seconds: How long the store is not asked again whether a key has
                another value. So a reader may get an older value for so long after
                another process has published a newer one.
            clock: Measures that.
        """
        self.durability: str = store.durability
        self._store = store
        self._cache = cache
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._fillings: dict[Key, Filling] = {}
        self._underway = Underway()

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        answer = self._store.begin(key, length, metadata, conditions)
        if isinstance(answer, Deferred):
            return answer.addCallback(_Upload, key, self)
        return _Upload(answer, key, self)

    def open(self, key: Key) -> Answer[IValue]:
        return Deferred.fromCoroutine(self._open(key))

    async def _open(self, key: Key) -> IValue:
        known = self._known.get(key)
        if known is not None:
            info, status = known.info, "hit"
            if self._clock.seconds() - known.since >= self._fresh_seconds:
                info = await self._stat(key)
                status = "fwd=stale; fwd-status=304"
            found = await self._find(info)
            if found is not None:
                return _Cached(info, found, f"kvd; {status}")
        try:
            value = await resolved(self._store.open(key))
        except KeyAbsent:
            self.forget(key)
            raise
        self.remember(value.info)
        found = await self._find(value.info)
        if found is not None:
            info = value.info
            value.close()
            return _Cached(info, found, "kvd; fwd=stale; fwd-status=304")
        return _Missed(value, self)

    def stat(self, key: Key) -> Answer[ValueInfo]:
        # Always of the store: it decides about conditions of PUT.
        return Deferred.fromCoroutine(self._stat(key))

    async def _stat(self, key: Key) -> ValueInfo:
        try:
            info = await resolved(self._store.stat(key))
        except KeyAbsent:
            self.forget(key)
            raise
        self.remember(info)
        return info

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        self.forget(key)
        answer = self._store.remove(key, conditions)
        if isinstance(answer, Deferred):
            # It may have been read meanwhile.
            return answer.addCallback(lambda _: self.forget(key))
        return answer

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> IListing:
        return self._store.list(prefix, after, limit)

    def close(self) -> Answer[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for filling in self._fillings.values():
            filling.stop()
        await resolved(self._underway.ended())
        try:
            await resolved(self._cache.close())
        finally:
            await resolved(self._store.close())

    def remember(self, info: ValueInfo) -> None:
        """
        The store says that a key has this value.
        """
        self._known[info.key] = _Known(info, self._clock.seconds())
        self._known.move_to_end(info.key)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def forget(self, key: Key) -> None:
        """
        The value of a key may be another one, or none.
        """
        self._known.pop(key, None)

    async def _find(self, info: ValueInfo) -> IValue | None:
        """
        A value in the cache.
        """
        try:
            value = await resolved(self._cache.open(_name_of(info)))
        except KeyAbsent:
            return None
        except KvdError as error:
            _log.warn("the near cache cannot be read: {reason}", reason=error.sentence)
            return None
        if value.info.size != info.size or value.info.metadata != _MARK:
            value.close()
            return None
        return value

    def filling(self, value: IValue) -> Filling | None:
        """
        The filling of a value, begun now if there is none; None if the cache cannot
        take it. The caller is counted as a reader.

        Args:
            value: The value in the store. If there is a filling, it takes care of it.
        """
        name = _name_of(value.info)
        filling = self._fillings.get(name)
        if filling is not None:
            value.close()
            filling.readers += 1
            return filling
        upload = self._begin_filling(name, value)
        descriptor = None if upload is None else upload.fileno()
        if upload is None or descriptor is None:
            if upload is not None:
                upload.discard()
            return None
        ended = partial(self._filled, name)
        filling = Filling(value, upload, descriptor, ended)
        self._fillings[name] = filling
        filling.readers = 1
        self._underway.shield(filling.run()).addErrback(_mistake)
        return filling

    def _filled(self, name: Key) -> None:
        del self._fillings[name]

    def _begin_filling(self, name: Key, value: IValue) -> IUpload | None:
        """
        Begin an upload to the cache, if it has room at once.
        """
        try:
            answer = self._cache.begin(name, value.info.size, _MARK)
        except StoreFull:
            return None  # The value is larger than the cache, for example.
        except KvdError as error:
            _log.warn(
                "/{key} does not get into the near cache: {reason}",
                key=escape(value.info.key),
                reason=error.sentence,
            )
            return None
        if not isinstance(answer, Deferred):
            return answer
        # Room is being made, for later values: no client waits for it.
        answer.addCallbacks(_discard, _ignore_refusal)
        return None

    async def again(self, info: ValueInfo) -> IValue:
        """
        Open the same value of the store once more.

        Raises:
            StoreFault: It was replaced, or cannot be read.
            KeyAbsent: It was removed.
        """
        value = await resolved(self._store.open(info.key))
        if value.info.etag != info.etag:
            value.close()
            raise StoreFault("The value was replaced while it was read.")
        return value


def _name_of(info: ValueInfo) -> Key:
    text = info.key + b"\0" + info.etag.encode()
    name = hashlib.sha256(text).hexdigest()
    return Key(f"{name[:2]}/{name[2:]}".encode())


def _discard(upload: IUpload) -> None:
    upload.discard()


def _ignore_refusal(failure: Failure) -> None:
    """
    The next value may find room.
    """
    failure.trap(KvdError)


def _mistake(failure: Failure) -> None:
    _log.failure("a mistake while the near cache was filled", failure=failure)


@implementer(ICachedValue)
class _Cached:
    """
    A value of the cache.
    """

    def __init__(self, info: ValueInfo, value: IValue, cache_status: str) -> None:
        self.info = info
        self.cache_status = cache_status
        self._value = value
        self.read = value.read
        self.fileno = value.fileno
        self.close = value.close


@implementer(ICachedValue)
class _Missed:
    """
    A value that the cache does not have. It gets there once somebody reads it from near
    its beginning.
    """

    cache_status = "kvd; fwd=uri-miss"

    def __init__(self, value: IValue, near: NearStore) -> None:
        """
        Args:
            value: The value in the store; this object's from now on.
            near: Fills the cache.
        """
        self.info = value.info
        self._value: IValue | None = value
        self._near = near
        self._filling: Filling | None = None
        self._has_begun = False

    def fileno(self) -> int | None:
        return None

    def read(self, offset: int, count: int) -> Answer[bytes]:
        return Deferred.fromCoroutine(self._read(offset, count))

    async def _read(self, offset: int, count: int) -> bytes:
        if not self._has_begun and offset <= AHEAD_BYTES and self._value is not None:
            self._has_begun = True
            self._filling = self._near.filling(self._value)
            if self._filling is not None:
                self._value = None
        if self._filling is not None:
            chunk = await self._filling.read(offset, count)
            if chunk is not None:
                return chunk
        if self._value is None:
            self._value = await self._near.again(self.info)
        return await resolved(self._value.read(offset, count))

    def close(self) -> None:
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.leave()
        value, self._value = self._value, None
        if value is not None:
            value.close()


@implementer(IUpload)
class _Upload:
    """
    An upload to the store.
    """

    def __init__(self, upload: IUpload, key: Key, near: NearStore) -> None:
        self._upload = upload
        self._key = key
        self._near = near
        self.write = upload.write
        self.fileno = upload.fileno
        self.discard = upload.discard

    def commit(self, conditions: Conditions) -> Answer[Published]:
        # Whatever comes of it.
        self._near.forget(self._key)
        answer = self._upload.commit(conditions)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._published)
        return self._published(answer)

    def _published(self, published: Published) -> Published:
        self._near.remember(published.info)
        return published
