"""
The values of the store, as far as the sender of one request may use them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import deferLater

from kvd.errors import (
    Forbidden,
    KeyAbsent,
    PreconditionFailed,
    RangeNotSatisfiable,
    ValueFixed,
    ValueTooLarge,
)
from kvd.http.admission import Admission
from kvd.http.context import ProcessContext
from kvd.http.wire.digests import Verification
from kvd.interfaces import ICachingStore, IGlancingStore, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.digests import Digest
from kvd.model.exchanges import SMALL_BYTES
from kvd.model.keys import Key, escape
from kvd.model.operations import Delete, Get, List, Operation, Put, PutPart
from kvd.model.reserved import LOCKS
from kvd.model.uploads import PartInfo
from kvd.model.values import NO_METADATA, Entry, Metadata, Published, ValueInfo
from kvd.store.conditional import keeps_conditions
from kvd.store.copying import SLICE_BYTES, copy_bytes
from kvd.store.level import has_values, list_folder
from kvd.store.waiting import resolved

if TYPE_CHECKING:
    from kvd.http.multipart import Multipart

Fill = Callable[[IUpload], Coroutine[Any, Any, None]]


class PermittedValues:
    """
    See `kvd.model.exchanges.Values`.
    """

    def __init__(
        self,
        context: ProcessContext,
        admission: Admission,
        inner: tuple[bytes, ...] = (),
    ) -> None:
        """
        Args:
            context: Of the process.
            admission: That of the request.
            inner: See `Mount`.
        """
        self.scheme = admission.scheme
        self._admission = admission
        self._permitted = admission.permitted
        self._inner = inner
        self._context = context
        self._store: Final = context.store
        self.durability = context.store.durability

    @property
    def user(self) -> str | None:
        """
        See `Values`.
        """
        return self._admission.user

    @property
    def network(self) -> str:
        """
        See `Values`.
        """
        return self._admission.network

    def is_elsewhere(self, key: bytes) -> bool:
        """
        See `Values`.
        """
        return key.startswith(self._inner)

    def _may_change(self, operation: Delete | Put | PutPart) -> Operation:
        """
        An operation that changes a key, as it is permitted.
        """
        permitted: Operation = self._permitted(operation)
        key = operation.key
        if self.is_elsewhere(key):
            raise Forbidden(
                f"/{escape(key)} belongs to another dialect, which is spoken below a"
                " prefix of its own (--dialect): change it by a request for itself."
            )
        return permitted

    async def stat(self, key: Key) -> ValueInfo | None:
        """
        See `Values`.
        """
        self._permitted(Get(key))
        return await self._current(key)

    async def read(self, key: Key) -> tuple[ValueInfo, bytes] | None:
        """
        See `Values`.
        """
        self._permitted(Get(key))
        return await self._read(key)

    async def _read(self, key: Key) -> tuple[ValueInfo, bytes] | None:
        """
        A small value as the store has it now: `open` of a near cache may give an older
        one, until the store was asked.
        """
        if ICachingStore.providedBy(self._store) and await self._current(key) is None:
            return None
        try:
            value = await resolved(self._store.open(key))
        except KeyAbsent:
            return None
        with closing(value):
            size, data = value.info.size, b""
            if size > SMALL_BYTES:
                raise ValueTooLarge(
                    f"The value has {size} bytes; at most {SMALL_BYTES} were expected."
                )
            while len(data) < size:
                piece = await resolved(value.read(len(data), size - len(data)))
                data += piece
            return value.info, data

    async def write(
        self,
        key: Key,
        data: bytes,
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata = NO_METADATA,
    ) -> Published:
        """
        See `Values`.
        """
        put = self._put(key, conditions, metadata)
        if put.digests:
            verification = Verification(put.digests)
            verification.update(data)
            verification.check()
        return await self._write(put, data)

    async def _write(self, put: Put, data: bytes) -> Published:
        async def fill(upload: IUpload) -> None:
            if data:
                await resolved(upload.write(data))

        return await self._publish(put, len(data), fill)

    async def copy(
        self,
        source: Key,
        target: Key,
        conditions: Conditions = UNCONDITIONAL,
        metadata: Metadata | None = None,
        of_source: Conditions = UNCONDITIONAL,
    ) -> Published:
        """
        See `Values`.
        """
        copied = await self._copy(source, target, conditions, metadata, of_source)
        return copied[1]

    async def remove(self, key: Key, conditions: Conditions = UNCONDITIONAL) -> None:
        """
        See `Values`.
        """
        self._may_change(Delete(key))
        await resolved(self._store.remove(key, conditions))

    async def move(
        self, source: Key, target: Key, conditions: Conditions = UNCONDITIONAL
    ) -> Published:
        """
        See `Values`.
        """
        self._may_change(Delete(source))
        etag, published = await self._copy(source, target, conditions, None)
        unchanged = Conditions(if_match=EntityTags(frozenset((etag,))))
        with suppress(KeyAbsent):  # Somebody else has removed it meanwhile.
            await self.remove(source, unchanged)
        return published

    async def folder(
        self, prefix: bytes, after: bytes = b"", limit: int | None = None
    ) -> AsyncGenerator[Sequence[Entry], None]:
        """
        See `Values`.
        """
        self._permitted(List(prefix))
        with closing(list_folder(self._store, prefix, after, limit)) as listing:
            while entries := await resolved(listing.next_slice()):
                yield entries

    async def has_values(self, prefix: bytes) -> bool:
        """
        See `Values`.
        """
        self._permitted(List(prefix))
        return await resolved(has_values(self._store, prefix))

    async def list(
        self, prefix: bytes, after: bytes = b"", limit: int | None = None
    ) -> AsyncGenerator[Sequence[ValueInfo], None]:
        """
        See `Values`.
        """
        self._permitted(List(prefix))
        with closing(self._store.list(prefix, after, limit)) as listing:
            while infos := await resolved(listing.next_slice()):
                yield infos

    async def can_lock(self) -> bool:
        """
        See `Values`.
        """
        return await resolved(keeps_conditions(self._store))

    async def locks(self, prefix: bytes) -> tuple[ValueInfo | None, bytes]:
        """
        See `Values`.
        """
        store, key = self._store, Key(prefix + LOCKS)
        # Usually there is none, and each PUT asks once or twice.
        if IGlancingStore.providedBy(store) and store.lacks(key):
            return None, b""
        if not await self.can_lock():
            return None, b""
        return await self._read(key) or (None, b"")

    async def keep_locks(
        self, prefix: bytes, data: bytes, known: ValueInfo | None
    ) -> None:
        """
        See `Values`.
        """
        if known is None:
            conditions = Conditions(if_none_match=EntityTags(any=True))
        else:
            conditions = Conditions(if_match=EntityTags(frozenset((known.etag,))))
        await self._write(Put(Key(prefix + LOCKS), conditions), data)

    async def begin_parts(self, folder: bytes, key: Key, metadata: Metadata) -> str:
        """
        See `Values`.
        """
        self._put(key, UNCONDITIONAL, metadata)
        return await self._parts(folder, key).begin(metadata)

    async def parts_of(
        self, folder: bytes, key: Key, upload: str
    ) -> Sequence[PartInfo]:
        """
        See `Values`.
        """
        self._put(key, UNCONDITIONAL)
        parts = self._parts(folder, key)
        await parts.record(upload)
        return await parts.infos(upload)

    async def check_upload(self, folder: bytes, key: Key, upload: str) -> None:
        """
        See `Values`.
        """
        self._may_change(PutPart(key))
        await self._parts(folder, key).record(upload)

    async def copy_part(
        self,
        folder: bytes,
        key: Key,
        upload: str,
        number: int,
        source: Key,
        part: tuple[int, int] | None,
        of_source: Conditions = UNCONDITIONAL,
    ) -> PartInfo:
        """
        See `Values`.
        """
        self._permitted(Get(source))
        await self.check_upload(folder, key, upload)
        # Not at the top: only where it is needed.
        from kvd.http.multipart import key_of_part

        context = self._context
        value = await resolved(self._store.open(source))
        with closing(value):
            of_source.check_change(value.info)
            size = value.info.size
            first, last = part or (0, size - 1)
            if last >= size or first > last + (part is None):
                raise RangeNotSatisfiable(
                    f"The source has {size} bytes, and no part that ends with the byte"
                    f" {last}.",
                    size,
                )

            async def fill(target: IUpload) -> None:
                span = (first, last + 1 - first)
                await copy_bytes(value, target, context.readahead, context.clock, span)

            place = Put(key_of_part(key, upload, number))
            published = await self._publish(place, last + 1 - first, fill)
        info = published.info
        return PartInfo(number, info.size, info.etag, info.changed)

    async def join_parts(
        self,
        folder: bytes,
        key: Key,
        upload: str,
        parts: Sequence[PartInfo],
        conditions: Conditions = UNCONDITIONAL,
        digests: Sequence[Digest] = (),
    ) -> Published:
        """
        See `Values`.
        """
        self._put(key, conditions)
        uploads, context = self._parts(folder, key), self._context
        metadata = await uploads.record(upload)
        put = self._put(key, conditions, metadata)
        named = ((part.number, part.etag) for part in parts)
        marked = uploads.marked(put.metadata, upload, named)
        put = replace(put, metadata=marked, digests=(*put.digests, *digests))
        size = sum(part.size for part in parts)
        limit = context.limits.value_bytes
        if limit is not None and size > limit:
            raise ValueTooLarge(f"A value may have at most {limit} bytes here.")

        async def fill(target: IUpload) -> None:
            verification = Verification(put.digests)
            for part in parts:
                value = await uploads.open(upload, part)
                with closing(value):
                    if put.digests:
                        await self._verify(value, verification)
                    await copy_bytes(value, target, context.readahead, context.clock)
            verification.check()

        published = await self._publish(put, size, fill)
        await uploads.remove_published(upload)
        return published

    async def joined(
        self, folder: bytes, key: Key, upload: str, parts: Iterable[tuple[int, str]]
    ) -> ValueInfo | None:
        """
        See `Values`.
        """
        self._put(key, UNCONDITIONAL)
        info = await self._current(key)
        uploads = self._parts(folder, key)
        return info if info and uploads.is_joined(info, upload, parts) else None

    async def drop_parts(self, folder: bytes, key: Key, upload: str) -> None:
        """
        See `Values`.
        """
        self._may_change(PutPart(key))
        parts = self._parts(folder, key)
        await parts.record(upload)
        await parts.remove(upload)

    async def uploads(self, folder: bytes) -> Sequence[tuple[Key, str, float]]:
        """
        See `Values`.
        """
        self._permitted(List(folder))
        # Not at the top: only where it is needed.
        from kvd.http.multipart import begun

        found = await begun(self._store, folder)
        return [(key, upload, info.changed) for key, upload, info in found]

    def _parts(self, folder: bytes, key: Key) -> Multipart:
        from kvd.http.multipart import Multipart

        limits = self._context.limits
        return Multipart(self._store, folder, key, limits.upload_seconds)

    def _put(
        self, key: Key, conditions: Conditions, metadata: Metadata = NO_METADATA
    ) -> Put:
        # What is said about a value has rules too.
        put = self._may_change(Put(key, conditions, metadata))
        assert isinstance(put, Put)
        if put.once:
            # Without reading both, another value cannot be told from the same one.
            absent = EntityTags(any=True)
            put = replace(put, conditions=replace(conditions, if_none_match=absent))
        return put

    async def _copy(
        self,
        source: Key,
        target: Key,
        conditions: Conditions,
        metadata: Metadata | None,
        of_source: Conditions = UNCONDITIONAL,
    ) -> tuple[str, Published]:
        """
        The entity tag of the source, and what was published.
        """
        self._permitted(Get(source))
        # Before anything is asked of the store.
        self._put(target, conditions)
        value = await resolved(self._store.open(source))
        with closing(value):
            info = value.info
            of_source.check_change(info)
            kept = info.metadata if metadata is None else metadata
            put = self._put(target, conditions, kept)
            if put.digests:
                verification = Verification(put.digests)
                await self._verify(value, verification)
                verification.check()

            async def fill(upload: IUpload) -> None:
                context = self._context
                await copy_bytes(value, upload, context.readahead, context.clock)

            return info.etag, await self._publish(put, info.size, fill)

    async def _verify(self, value: IValue, verification: Verification) -> None:
        context, offset, size = self._context, 0, value.info.size
        while offset < size:
            await deferLater(context.clock, 0.0)
            count = min(SLICE_BYTES, size - offset)
            descriptor = value.fileno()
            if descriptor is not None:
                ahead = context.readahead(descriptor, offset, count)
                if ahead is not None:
                    await ahead
            data = await resolved(value.read(offset, count))
            verification.update(data)
            offset += len(data)

    async def _current(self, key: Key) -> ValueInfo | None:
        try:
            return await resolved(self._store.stat(key))
        except KeyAbsent:
            return None

    async def _publish(self, put: Put, size: int, fill: Fill) -> Published:
        store, conditions = self._store, put.conditions
        try:
            if conditions is not UNCONDITIONAL:
                conditions.check_change(await self._current(put.key))
            upload = await resolved(
                store.begin(put.key, size, put.metadata, conditions)
            )
            try:
                await fill(upload)
            except BaseException:
                upload.discard()
                raise
            return await resolved(upload.commit(conditions))
        except PreconditionFailed as error:
            if not put.once:
                raise
            raise ValueFixed(
                "The key has a value already, and below this prefix a value cannot be"
                " replaced: choose another key."
            ) from error
