"""
Two stores that look like one, while values move from one to the other.

Values are written to the store, and read from the *fallback* if the store has none
under the key. Removals reach both; nothing is ever written to the fallback.

`Mirror` may copy the fallback to the store meanwhile. So a key may come to be in both,
but a value that is only in the fallback has never been elsewhere. It copies a value
only if the store has none, and removes its copy if the value has gone from the fallback
meanwhile. All orders below follow from that.

One thing is not as in a single store. If a value is removed while it is copied, the
copy can be read for a moment after the removal was acknowledged, between its
publication and its removal; and it stays if the process that copies is killed in that
moment.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from kvd.errors import KeyAbsent, PreconditionFailed
from kvd.interfaces import (
    Answer,
    IConditionalStore,
    IListing,
    IStore,
    IStreamedUpload,
    IUpload,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.moving.copying import ABSENT, copy, digest_of, exactly
from kvd.store.conditional import keeps_conditions
from kvd.store.faults import absence, folder_conflict, path_conflict
from kvd.store.waiting import resolved

T = TypeVar("T")


@implementer(IConditionalStore)
class FallbackStore:
    """
    A store, and a fallback for what it does not have.

    When a value is copied from the fallback to the store, it gets a new entity tag.
    """

    def __init__(self, store: IStore, fallback: IStore, clock: IReactorTime) -> None:
        """
        Args:
            store: Where values are written.
            fallback: Where other values are read.
            clock: Lets the reactor do other work while a value is copied.
        """
        self.durability: str = store.durability
        self._store = store
        self._fallback = fallback
        self._clock = clock

    def keeps_conditions(self) -> Answer[bool]:
        # Only this one is written to.
        return keeps_conditions(self._store)

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        return _answer(self._begin(key, length, metadata, conditions))

    async def _begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata,
        conditions: Conditions,
    ) -> IUpload:
        await self._expect_no_conflict(key)
        asked = await self.translated(conditions, key)
        upload = await resolved(self._store.begin(key, length, metadata, asked))
        return _FallbackUpload(upload, key, self, conditions, asked)

    async def _expect_no_conflict(self, key: Key) -> None:
        """
        Raises:
            KeyConflict: In the fallback, the key is a folder of other keys, or a part
                of its path is a value.
        """
        segments = key.split(b"/")
        for count in range(1, len(segments)):
            parent = Key(b"/".join(segments[:count]))
            if await _stat(self._fallback, parent) is not None:
                raise path_conflict(key, parent)
        below = self._fallback.list(key + b"/", b"", 1)
        try:
            if await resolved(below.next_slice()):
                raise folder_conflict(key)
        finally:
            below.close()

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        return _answer(self._read(lambda store: store.open(key, whole)))

    def stat(self, key: Key) -> Answer[ValueInfo]:
        return _answer(self._read(lambda store: store.stat(key)))

    async def _read(self, read: Callable[[IStore], Answer[T]]) -> T:
        with suppress(KeyAbsent):
            return await resolved(read(self._store))
        with suppress(KeyAbsent):
            return await resolved(read(self._fallback))
        # It may have been copied, or written, and removed from the fallback since.
        return await resolved(read(self._store))

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        return _answer(self._remove(key, conditions))

    async def _remove(self, key: Key, conditions: Conditions) -> None:
        here = await _stat(self._store, key)
        old = await _stat(self._fallback, key)
        current = here or old
        if current is None:
            raise absence(key)
        conditions.check_change(current)
        if old is not None:
            # First: if the newer value went first, the older one would be read.
            await self._remove_old(key, conditions if here is None else UNCONDITIONAL)
        if here is not None:
            try:
                await resolved(self._store.remove(key, conditions))
            except KeyAbsent:
                # `Mirror` removes its copy of what is no longer in the fallback.
                if old is None:
                    raise

    async def _remove_old(self, key: Key, conditions: Conditions) -> None:
        """
        Remove a value from the fallback, and the copy of it that `Mirror` has published
        since the caller looked.
        """
        with suppress(KeyAbsent):  # Another client removes it too.
            old = await resolved(self._fallback.open(key))
            try:
                await resolved(self._fallback.remove(key, conditions))
                await self._remove_copy(old)
            finally:
                old.close()

    async def _remove_copy(self, old: IValue) -> None:
        found = await resolved(self._store.open(old.info.key))
        try:
            is_copy = found.info.size == old.info.size and await digest_of(
                found, self._clock
            ) == await digest_of(old, self._clock)
        finally:
            found.close()
        if is_copy:
            with suppress(PreconditionFailed):  # Replaced by another client.
                await resolved(
                    self._store.remove(old.info.key, exactly(found.info.etag))
                )

    async def falls_back(self, key: Key) -> bool:
        """
        Whether the fallback has a value.
        """
        return await _stat(self._fallback, key) is not None

    async def translated(self, conditions: Conditions, key: Key) -> Conditions:
        """
        Conditions that mean the same if they are evaluated by the store alone.
        """
        if conditions == UNCONDITIONAL:
            return conditions
        old = await _stat(self._fallback, key)
        if old is None or await _stat(self._store, key) is not None:
            return conditions
        conditions.check_change(old)
        # So that the check and the publication are one step.
        try:
            copied, _ = await copy(
                self._fallback, self._store, key, ABSENT, self._clock
            )
        except KeyAbsent:
            conditions.check_change(None)
            return conditions
        except PreconditionFailed:  # There is one in the store now.
            return conditions
        if not await self.falls_back(key):
            # As `Mirror` does.
            with suppress(KeyAbsent, PreconditionFailed):
                await resolved(self._store.remove(key, exactly(copied.info.etag)))
        return exactly(copied.info.etag)

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> IListing:
        if limit is None:
            return _Stream(self._store, self._fallback, prefix)
        return _Page(self._store, self._fallback, prefix, after, limit)

    def close(self) -> Answer[None]:
        return _answer(self._close())

    async def _close(self) -> None:
        try:
            await resolved(self._fallback.close())
        finally:
            await resolved(self._store.close())


@implementer(IUpload)
class _FallbackUpload:
    """
    An upload to the store, whose conditions are about both.
    """

    def __init__(
        self,
        upload: IUpload,
        key: Key,
        stores: FallbackStore,
        conditions: Conditions,
        asked: Conditions,
    ) -> None:
        """
        Args:
            upload: To the store.
            key: Its key.
            stores: Both.
            conditions: Those that are known.
            asked: What they are for the store alone.
        """
        self._upload = upload
        self._key = key
        self._stores = stores
        self._conditions = conditions
        self._asked = asked
        self._committing = False

    def write(self, chunk: bytes) -> Answer[None]:
        return self._upload.write(chunk)

    def fileno(self) -> int | None:
        return self._upload.fileno()

    def __conform__(self, interface: InterfaceClass) -> object:
        # Bytes may take the same ways.
        return interface(self._upload, None) if interface is IStreamedUpload else None

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._committing = True
        return _answer(self._commit(conditions))

    async def _commit(self, conditions: Conditions) -> Published:
        try:
            asked = self._asked
            if conditions != self._conditions:
                asked = await self._stores.translated(conditions, self._key)
            is_new = not await self._stores.falls_back(self._key)
        except BaseException:
            self._upload.discard()
            raise
        published = await resolved(self._upload.commit(asked))
        return replace(published, created=published.created and is_new)

    def discard(self) -> None:
        if not self._committing:
            self._upload.discard()


@implementer(IListing)
class _Page:
    """
    A page of both, in the order of the keys.
    """

    def __init__(
        self, store: IStore, fallback: IStore, prefix: bytes, after: bytes, limit: int
    ) -> None:
        # First: a value that is copied meanwhile is in the other one too.
        self._pages = [one.list(prefix, after, limit) for one in (fallback, store)]
        self._limit = limit
        self._ended = False

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        return _answer(self._next_slice())

    async def _next_slice(self) -> Sequence[ValueInfo]:
        if self._ended:
            return ()
        self._ended = True
        found: dict[Key, ValueInfo] = {}
        for page in self._pages:
            found |= {info.key: info for info in await resolved(page.next_slice())}
        return [found[key] for key in sorted(found)][: self._limit]

    def close(self) -> None:
        for page in self._pages:
            page.close()


@implementer(IListing)
class _Stream:
    """
    All values of the fallback, and then those of the store that are new: so a value
    that is copied meanwhile is listed once.
    """

    def __init__(self, store: IStore, fallback: IStore, prefix: bytes) -> None:
        self._store = store
        self._fallback = fallback
        self._streams = [one.list(prefix, b"", None) for one in (fallback, store)]
        self._is_of_fallback = True

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        return _answer(self._next_slice())

    async def _next_slice(self) -> Sequence[ValueInfo]:
        described: list[ValueInfo] = []
        if self._is_of_fallback:
            found = await resolved(self._streams[0].next_slice())
            if found:
                for info in found:
                    described.append(await _stat(self._store, info.key) or info)
                return described
            self._is_of_fallback = False
        # An empty slice would be the end.
        while not described and (
            found := await resolved(self._streams[1].next_slice())
        ):
            for info in found:
                if await _stat(self._fallback, info.key) is None:
                    described.append(info)
        return described

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


async def _stat(store: IStore, key: Key) -> ValueInfo | None:
    try:
        return await resolved(store.stat(key))
    except KeyAbsent:
        return None


def _answer(work: Coroutine[Deferred[Any], Any, T]) -> Answer[T]:
    """
    Begin some work; a result, if it has ended already.
    """
    begun = Deferred.fromCoroutine(work)
    if not begun.called:
        return begun
    results: list[T | Failure] = []
    begun.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
