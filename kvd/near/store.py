"""
A store with a cache near by.

The cache is a file store of its own, in which the key of a value is the digest of its
key and its entity tag: so what is there never changes, and what was replaced is never
found. What was not read for the longest time is removed (`kvd.store.evicting`). The
store says which entity tag a key has. It is asked at each request, or again only after
the time that the operator gave; each process remembers its answers for itself.

Writes go to the store. The cache can be lost or damaged at any time: a file that is not
as kvd wrote it is not used.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from functools import partial
from typing import Final, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from kvd.errors import KeyAbsent, KvdError, StoreFault, StoreFull
from kvd.interfaces import (
    Answer,
    ICachedValue,
    ICachingStore,
    IConditionalStore,
    IFolderListing,
    IFolderStore,
    IHits,
    IListing,
    IStore,
    IStreamedUpload,
    IUpload,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.near.filling import AHEAD_BYTES, Filling
from kvd.store.conditional import keeps_conditions
from kvd.store.level import has_values, list_folder
from kvd.store.value import Described, FileValue
from kvd.store.waiting import Underway, resolved

T = TypeVar("T")

MOST_KNOWN: Final = 4_096
"""
How many keys a process remembers, in 3 MiB of memory; with much metadata, in 6. Those
that the fast path serves take 1 MiB more.
"""

FAULT_SECONDS: Final = 5.0
"""
How long a store that failed is not asked about values that may be stale: their clients
would wait for it each time.
"""

_HIT: Final = "hit"
"""
What ``Cache-Status`` says of a value about which the store was not asked.
"""

_MARK: Final = {"content-type": "application/vnd.kvd.near"}
"""
Metadata of what the cache contains. A file that another program has put there, or has
changed, does not have it.
"""

_log = Logger()


class _Known(NamedTuple):
    """
    What is known of a key.
    """

    info: ValueInfo | None
    """What the store has said; None: nothing since this process changed the value."""
    until: float
    """So long, the store is not asked again."""


@implementer(ICachingStore, IConditionalStore, IFolderStore)
class NearStore:
    """
    A store, and a cache of what was read from it.
    """

    def __init__(
        self,
        store: IStore,
        cache: IStore,
        fresh_seconds: float,
        clock: IReactorTime,
        stale_seconds: float = 0.0,
    ) -> None:
        """
        Args:
            store: Has all values.
            cache: Has some of them; its values have descriptors.
            fresh_seconds: How long the store is not asked again whether a key has
                another value. So a reader may get an older value for so long after
                another process has published a newer one.
            clock: Measures that.
            stale_seconds: How much longer a value is given, if the store cannot say
                whether it is still the same.
        """
        self.durability: str = store.durability
        self.cache = cache
        self.hits: IHits | None = None
        self._store = store
        self._fresh_seconds = fresh_seconds
        self._stale_seconds = stale_seconds
        self._asks_again = 0.0
        """When the store is asked again about what may be stale."""
        self._clock = clock
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._fillings: dict[Key, Filling] = {}
        self._makes_room = False
        """Whether an upload waits for room in the cache."""
        self._underway = Underway()

    def keeps_conditions(self) -> Answer[bool]:
        return keeps_conditions(self._store)

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

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        return Deferred.fromCoroutine(self._open(key))

    async def _open(self, key: Key) -> IValue:
        known = self._known.get(key)
        if known is not None and known.info is not None:
            info, status = await self._current(known.info, known.until)
            found = await self._find(info)
            if found is not None:
                return self._found(info, found, f"kvd; {status}")
            filling = self._fillings.get(_name_of(info))
            if filling is not None:
                return _Missed(info, None, self, filling)
        known = self._known.get(key)
        try:
            value = await resolved(self._store.open(key))
        except KeyAbsent:
            self._absent(key, known)
            raise
        self._said(value.info, known)
        found = await self._find(value.info)
        if found is not None:
            info = value.info
            value.close()
            return self._found(info, found, "kvd; fwd=stale; fwd-status=304")
        return _Missed(value.info, value, self)

    def _found(self, info: ValueInfo, value: IValue, cache_status: str) -> IValue:
        """
        A value that is in the cache, and offered to `hits` from now on.
        """
        if self.hits is not None and self._fresh_seconds:
            known = self._known.get(info.key)
            if known is not None and known.info == info:
                self.hits.offer(info, value.info, known.until, f"kvd; {_HIT}")
        return _Cached(info, value, cache_status, self)

    async def _current(self, info: ValueInfo, until: float) -> tuple[ValueInfo, str]:
        """
        The value that a key has now, and how that is known.

        Args:
            info: The one that it had.
            until: See `_Known`.
        """
        now = self._clock.seconds()
        beyond = now - until
        if beyond < 0:
            return info, _HIT
        may_be_stale = beyond < self._stale_seconds
        if not may_be_stale or now >= self._asks_again:
            try:
                return await self._stat(info.key), "fwd=stale; fwd-status=304"
            except StoreFault as fault:
                if not may_be_stale:
                    raise
                self._asks_again = self._clock.seconds() + FAULT_SECONDS
                _log.warn("older values are served: {error}", error=fault.sentence)
        # A negative time says that it is stale (RFC 9211 section 2.4).
        return info, f"hit; ttl={-int(beyond) - 1}; detail=unreachable"

    def stat(self, key: Key) -> Answer[ValueInfo]:
        # Always of the store: it decides about conditions of PUT.
        return Deferred.fromCoroutine(self._stat(key))

    async def _stat(self, key: Key) -> ValueInfo:
        known = self._known.get(key)
        try:
            info = await resolved(self._store.stat(key))
        except KeyAbsent:
            self._absent(key, known)
            raise
        self._said(info, known)
        return info

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        self.changed(key)
        answer = self._store.remove(key, conditions)
        if isinstance(answer, Deferred):
            # It may have been read meanwhile, and be removed even after a fault.
            answer.addBoth(self._removed, key)
        return answer

    def _removed(self, result: T, key: Key) -> T:
        self.changed(key)
        return result

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> IListing:
        return self._store.list(prefix, after, limit)

    def list_folder(
        self, prefix: bytes, after: bytes, limit: int | None
    ) -> IFolderListing:
        return list_folder(self._store, prefix, after, limit)

    def has_values(self, prefix: bytes) -> Answer[bool]:
        return has_values(self._store, prefix)

    def close(self) -> Answer[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        for filling in list(self._fillings.values()):
            filling.stop()
        await resolved(self._underway.ended())
        try:
            await resolved(self.cache.close())
        finally:
            await resolved(self._store.close())

    def _said(self, info: ValueInfo, known: _Known | None) -> None:
        """
        The store says that a key has this value.

        Args:
            known: What was known of the key when the store was asked. If this process
                has changed the value since, the answer may be about the older one.
        """
        if self._known.get(info.key) is known:
            self._remember(info.key, info)

    def _absent(self, key: Key, known: _Known | None) -> None:
        """
        The store says that a key has no value; see `_said`.
        """
        if known is None or known.info is None:
            return
        if self._known.get(key) is known:
            del self._known[key]
            self._withdraw(key)

    def changed(self, key: Key) -> _Known:
        """
        This process changes, or may have changed, the value of a key.

        Returns:
            What is known now, for `published`.
        """
        return self._remember(key, None)

    def published(self, info: ValueInfo, known: _Known) -> None:
        """
        This process has published a value.

        Args:
            info: Describes it.
            known: What `changed` returned before that. If it is not known any more,
                another client of this process has changed the value too, and only the
                store can tell who was the last.
        """
        is_last = self._known.get(info.key) is known
        self._remember(info.key, info if is_last else None)

    def _remember(self, key: Key, info: ValueInfo | None) -> _Known:
        until = self._clock.seconds() + self._fresh_seconds
        known = self._known[key] = _Known(info, until)
        self._known.move_to_end(key)
        self._withdraw(key)
        if len(self._known) > MOST_KNOWN:
            oldest, _ = self._known.popitem(last=False)
            self._withdraw(oldest)
        return known

    def _withdraw(self, key: Key) -> None:
        if self.hits is not None:
            self.hits.withdraw(key)

    async def _find(self, info: ValueInfo) -> IValue | None:
        """
        A value in the cache.
        """
        try:
            value = await resolved(self.cache.open(_name_of(info)))
        except KeyAbsent:
            return None
        except KvdError as error:
            _log.warn("the near cache cannot be read: {reason}", reason=error.sentence)
            return None
        if value.info.size != info.size or value.info.metadata != _MARK:
            value.close()
            return None
        return value

    def lose(self, info: ValueInfo) -> None:
        """
        Remove a value from the cache, whose file cannot be read.
        """
        name = _name_of(info)
        _log.warn(
            "the near cache loses /{key}, which cannot be read there",
            key=escape(info.key),
        )
        self._underway.shield(_remove(self.cache, name)).addErrback(_mistake)

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
        if upload is None:
            return None
        ended = partial(self._filled, name)
        try:
            filling = Filling(value, upload, ended, self._clock)
        except OSError as error:
            upload.discard()
            _not_kept(value, str(error))
            return None
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
            answer = self.cache.begin(name, value.info.size, _MARK)
        except StoreFull:
            return None  # The value is larger than the cache, for example.
        except KvdError as error:
            _not_kept(value, error.sentence)
            return None
        if not isinstance(answer, Deferred):
            return answer
        # Room is being made, for later values: no client waits for it. One upload that
        # does is enough to ask for it.
        answer.addCallbacks(_discard, _ignore_refusal)
        if self._makes_room:
            answer.cancel()
        else:
            self._makes_room = True
            answer.addBoth(self._has_made_room)
        return None

    def _has_made_room(self, _: None) -> None:
        self._makes_room = False

    def resume(self, info: ValueInfo, descriptor: int) -> IValue:
        file = Described(info, True, os.fstat(descriptor))
        return _Cached(info, FileValue(descriptor, file), f"kvd; {_HIT}", self)

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


async def _remove(cache: IStore, name: Key) -> None:
    try:
        await resolved(cache.remove(name, UNCONDITIONAL))
    except KvdError as error:
        _log.warn("the near cache cannot remove it: {reason}", reason=error.sentence)


def _not_kept(value: IValue, reason: str) -> None:
    _log.warn(
        "/{key} does not get into the near cache: {reason}",
        key=escape(value.info.key),
        reason=reason,
    )


def _discard(upload: IUpload) -> None:
    upload.discard()


def _ignore_refusal(failure: Failure) -> None:
    """
    The next value may find room.
    """
    failure.trap(KvdError, CancelledError)


def _mistake(failure: Failure) -> None:
    _log.failure("a mistake while the near cache was filled", failure=failure)


class _Reading:
    """
    A reader, for whom the value of the store may have to be opened again.
    """

    def __init__(self, info: ValueInfo, near: NearStore) -> None:
        self.info = info
        self._near = near
        self._is_closed = False

    async def _open_again(self) -> IValue:
        """
        Open the value of the store.

        Raises:
            CancelledError: The reader has left meanwhile; nobody else would close it.
        """
        value = await self._near.again(self.info)
        if self._is_closed:
            value.close()
            raise CancelledError
        return value


@implementer(ICachedValue)
class _Cached(_Reading):
    """
    A value of the cache. If its file cannot be read, the rest comes from the store.
    """

    def __init__(
        self, info: ValueInfo, value: IValue, cache_status: str, near: NearStore
    ) -> None:
        """
        Args:
            info: What the store has said of the value.
            value: That of the cache; this object's from now on.
            cache_status: See `ICachedValue`.
            near: Has the store.
        """
        super().__init__(info, near)
        self.cache_status = cache_status
        self._value: IValue | None = value
        self._is_lost = False

    def fileno(self) -> int | None:
        if self._is_lost or self._value is None:
            return None
        return self._value.fileno()

    def lose_file(self) -> bool:
        if not self._is_lost:
            self._is_lost = True
            self._near.lose(self.info)
            value, self._value = self._value, None
            if value is not None:
                value.close()
        return True

    def read(self, offset: int, count: int) -> Answer[bytes]:
        if self._value is None or self._is_lost:
            return Deferred.fromCoroutine(self._read(offset, count))
        try:
            return self._value.read(offset, count)
        except StoreFault:
            self.lose_file()
            return Deferred.fromCoroutine(self._read(offset, count))

    async def _read(self, offset: int, count: int) -> bytes:
        if self._value is None:
            self._value = await self._open_again()
        return await resolved(self._value.read(offset, count))

    def close(self) -> None:
        self._is_closed = True
        value, self._value = self._value, None
        if value is not None:
            value.close()


@implementer(ICachedValue)
class _Missed(_Reading):
    """
    A value that the cache does not have. It gets there once somebody reads it from near
    its beginning.
    """

    def __init__(
        self,
        info: ValueInfo,
        value: IValue | None,
        near: NearStore,
        filling: Filling | None = None,
    ) -> None:
        """
        Args:
            info: What the store has said of the value.
            value: The value in the store; this object's from now on. None: it is opened
                if it is needed.
            near: Fills the cache.
            filling: One that runs, for this reader too.
        """
        super().__init__(info, near)
        self.cache_status = "kvd; fwd=uri-miss"
        self._value = value
        self._filling = filling
        self._has_begun = filling is not None
        if filling is not None:
            filling.readers += 1
            # RFC 9211 section 2.6.
            self.cache_status += "; collapsed"

    def lose_file(self) -> bool:
        return False

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
        if self._is_closed:
            # The client has left while it waited; nobody would close another value.
            raise CancelledError
        if self._value is None:
            self._value = await self._open_again()
        return await resolved(self._value.read(offset, count))

    def close(self) -> None:
        self._is_closed = True
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

    def __conform__(self, interface: InterfaceClass) -> object:
        # Bytes may take the same ways.
        return interface(self._upload, None) if interface is IStreamedUpload else None

    def commit(self, conditions: Conditions) -> Answer[Published]:
        known = self._near.changed(self._key)
        answer = self._upload.commit(conditions)
        if isinstance(answer, Deferred):
            return answer.addCallbacks(
                self._published, self._failed, callbackArgs=(known,)
            )
        return self._published(answer, known)

    def _published(self, published: Published, known: _Known) -> Published:
        self._near.published(published.info, known)
        return published

    def _failed(self, failure: Failure) -> Failure:
        # It may be published even after a fault, and have been read meanwhile.
        self._near.changed(self._key)
        return failure
