"""
A store of objects in a bucket.

Keys have no folders here: ``a`` and ``a/b`` can both have values, so no key is in
conflict with another.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kvd.errors import PreconditionFailed
from kvd.interfaces import Answer, IConditionalStore, IFolderStore, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import NO_METADATA, Metadata, ValueInfo
from kvd.s3.buffered_upload import BUFFERED_BYTES, BufferedUpload
from kvd.s3.engine import Engine
from kvd.s3.guards import CHANGED, Change, Guards, Kept, try_conditions
from kvd.s3.listing import ObjectFolderListing, ObjectListing
from kvd.s3.multipart_upload import LARGEST_SINGLE_BYTES, MultipartUpload
from kvd.s3.names import object_name
from kvd.s3.requests import Ask
from kvd.s3.streamed_upload import StreamedUpload
from kvd.s3.upload import UploadContext
from kvd.s3.value import open_object, stat_object
from kvd.store.level import begins
from kvd.store.waiting import Underway

WAITING_BYTES: Final = 1024 * 1024
"""
A value of known length that is no longer waits for its last byte, so that its request
can be repeated; beyond `BUFFERED_BYTES` in a file. When a node of SeaweedFS is killed,
requests of the next seconds fail, or wait for half a minute for a lock that the node
had; a client that repeats its own meets that again.
"""


@implementer(IConditionalStore, IFolderStore)
class ObjectStore:
    """
    The objects of a bucket whose names begin with a prefix.
    """

    durability = "engine"

    def __init__(self, engine: Engine, prefix: str) -> None:
        """
        Args:
            engine: Where the bucket is; the store closes it.
            prefix: Empty, or ending with ``/``.
        """
        self._engine = engine
        self._prefix = prefix
        self._underway = Underway()
        self._guards = Guards(self._try_engine)
        self._uploads = UploadContext(engine, self._guards, self._underway)

    def _try_engine(self) -> Deferred[Kept]:
        return self._underway.stoppable(try_conditions(self._engine, self._prefix))

    def start(self) -> None:
        """
        Find out which conditions the engine keeps, before anybody asks.
        """
        self._guards.start()

    def keeps_conditions(self) -> Answer[bool]:
        return Deferred.fromCoroutine(self._keeps_conditions())

    async def _keeps_conditions(self) -> bool:
        kept, put = await self._guards.kept(), Change.PUT
        return put in kept.create and put in kept.quoted | kept.bare

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        name = object_name(self._prefix, key)
        if length is not None and length <= BUFFERED_BYTES:
            return BufferedUpload(self._uploads, key, name, length, metadata)
        if length is None or not WAITING_BYTES < length <= LARGEST_SINGLE_BYTES:
            return MultipartUpload(
                self._uploads, key, name, length, metadata, conditions
            )
        upload = StreamedUpload(self._uploads, key, name, length, metadata, conditions)
        return Deferred.fromCoroutine(upload.begin())

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        name = object_name(self._prefix, key)
        return Deferred.fromCoroutine(open_object(self._engine, key, name, whole))

    def stat(self, key: Key) -> Answer[ValueInfo]:
        return Deferred.fromCoroutine(self._stat(key))

    async def _stat(self, key: Key) -> ValueInfo:
        name = object_name(self._prefix, key)
        return (await stat_object(self._engine, key, name)).info

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        return self._underway.shield(self._remove(key, conditions))

    async def _remove(self, key: Key, conditions: Conditions) -> None:
        name = object_name(self._prefix, key)
        # The engine does not say whether there was an object.
        current = await stat_object(self._engine, key, name)
        guard: dict[str, str] = {}
        if conditions != UNCONDITIONAL:
            conditions.check_change(current.info)
            guard = await self._guards.field(Change.REMOVE, current.engine_tag)
        expected = CHANGED if guard else frozenset({404})
        reply = await self._engine.ask(
            Ask("DELETE", name, fields=guard, expected=expected)
        )
        self._engine.dismiss(reply)
        if guard and reply.status in CHANGED:
            raise PreconditionFailed(
                f"Another client changed /{escape(key)} at the same time."
            )

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> ObjectListing:
        return ObjectListing(self._engine, self._prefix, prefix, after, limit)

    def list_folder(
        self, prefix: bytes, after: bytes, limit: int | None
    ) -> ObjectFolderListing:
        return ObjectFolderListing(self._engine, self._prefix, prefix, after, limit)

    def has_values(self, prefix: bytes) -> Answer[bool]:
        return Deferred.fromCoroutine(begins(self.list(prefix, b"", 1)))

    def close(self) -> Answer[None]:
        self._guards.stop()
        ended = self._underway.ended()
        if isinstance(ended, Deferred):
            return ended.addCallback(lambda _: self._engine.close())
        return self._engine.close()
