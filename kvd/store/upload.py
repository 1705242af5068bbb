"""
A value of the file store while it is written.

    open ──commit──> committing ──> ended
      └───discard──────────────────^

While a commit is on its way, `discard` does nothing: a thread may be syncing
the file, and the commit alone says what becomes of it. When it ends, for
whatever reason, the file is either under its key or gone.

A value is *sealed* with its attribute and its date, while the key is locked: the date
is that of publication, and never earlier than that of the value before it. At
durability ``disk`` it is sealed before its sync too, so that one sync has all. If it
is published in a later second than that, or behind a value of a later date, it is
sealed anew, and synced again before the folders are. At durability ``process`` it is
synced only where what it replaces cannot be kept; its seal then need not be, since it
gets to the disk before its name, in the journal.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kvd.errors import MetadataTooLarge, StoreFault, StoreFull
from kvd.interfaces import Answer, IUpload
from kvd.model.conditions import Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.store import attribute
from kvd.store.faults import fault_of
from kvd.store.folders import split
from kvd.store.locks import KeyLocks
from kvd.store.sync import Syncs, sync_file
from kvd.store.tree import CannotBeKept, Tree
from kvd.store.uploads import UploadFolder
from kvd.store.waiting import OffReactor, Underway, resolved


@dataclass(frozen=True, slots=True)
class Premises:
    """
    What all uploads of one store use.
    """

    tree: Tree
    uploads: UploadFolder
    locks: KeyLocks
    underway: Underway
    off_reactor: OffReactor
    """Where a file is synced at durability ``process``, if it must be."""
    syncs: Syncs | None
    """None at durability ``process``."""
    full: Callable[[], None]
    """Called where there was no room."""


@implementer(IUpload)
class FileUpload:
    """
    A file in the upload folder that will get a key's name.
    """

    def __init__(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata,
        premises: Premises,
        near: int | None = None,
    ) -> None:
        """
        Args:
            key: Where it will be.
            length: See `IStore.begin`.
            metadata: See there.
            premises: What all uploads use.
            near: The folder in which it will be, or the nearest that exists.

        Raises:
            OSError: The file cannot be created.
            ValueError: The metadata cannot be kept.
        """
        self._key = key
        self._length = length
        self._metadata = metadata
        self._metadata_lines = attribute.encode_metadata(metadata)
        self._premises = premises
        self._committing = False
        self._etag = attribute.new_etag()
        self._size = 0
        self._sealed: ValueInfo | None = None
        self._descriptor, self._name = premises.uploads.create(near)

    def write(self, chunk: bytes) -> None:
        try:
            written = os.write(self._descriptor, chunk)
            # A disk that fills up takes a part and refuses the rest.
            while written < len(chunk):
                written += os.write(self._descriptor, memoryview(chunk)[written:])
        except OSError as error:
            raise self._fault_of(error, "written") from error

    def fileno(self) -> int:
        return self._descriptor

    def discard(self) -> None:
        if not self._committing:
            self._end()

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._committing = True
        premises = self._premises
        if premises.syncs is not None:
            work = self._commit_to_disk(conditions, premises.syncs)
            return premises.underway.shield(work)
        try:
            self._measure()
            answer = self._publish(conditions)
        except CannotBeKept:
            return premises.underway.shield(self._publish_synced(conditions))
        except BaseException:
            self._end()
            raise
        if isinstance(answer, Deferred):
            return premises.underway.shield(self._end_after(answer, conditions))
        self._end()
        return answer

    async def _commit_to_disk(self, conditions: Conditions, syncs: Syncs) -> Published:
        try:
            self._measure()
            synced = self._seal(None)
            await syncs.file(self._descriptor)
            published = await resolved(self._publish(conditions))
            if published.info is not synced:
                await syncs.file(self._descriptor)
        finally:
            self._end()
        await syncs.folders(split(self._key)[0])
        return published

    async def _end_after(
        self, answer: Deferred[Published], conditions: Conditions
    ) -> Published:
        try:
            return await answer
        except CannotBeKept:
            return await self._publish_synced(conditions)
        finally:
            self._end()

    async def _publish_synced(self, conditions: Conditions) -> Published:
        try:
            await sync_file(self._descriptor, self._premises.off_reactor)
            return await resolved(self._publish(conditions, synced=True))
        finally:
            self._end()

    def _measure(self) -> None:
        """
        See how long the value has become.
        """
        try:
            self._size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise self._fault_of(error, "measured") from error
        if self._length not in (None, self._size):
            raise StoreFault(
                f"The upload of /{escape(self._key)} has {self._size} bytes;"
                f" it was begun with {self._length}."
            )

    def _seal(self, earliest: float | None) -> ValueInfo:
        """
        Say in the file's attribute which value it is, and give the file its date,
        unless they say so already.

        Args:
            earliest: What the date must not be before; None: anything.
        """
        now_us = time.time_ns() // 1000
        sealed = self._sealed
        if (
            sealed is not None
            and int(sealed.changed) == now_us // 1_000_000
            and (earliest is None or earliest <= sealed.changed)
        ):
            return sealed
        published_us = now_us
        if earliest is not None:
            published_us = max(now_us, round(earliest * 1_000_000))
        text = attribute.encode(
            self._etag, self._size, published_us, self._metadata_lines
        )
        try:
            os.setxattr(self._descriptor, attribute.NAME, text)
            os.utime(self._descriptor, ns=(1000 * published_us, 1000 * published_us))
        except OSError as error:
            if error.errno == errno.ENOSPC and self._has_room():
                raise MetadataTooLarge(
                    f"Fields of {len(self._metadata_lines)} bytes are to be kept with"
                    f" /{escape(self._key)}: that is more than the file system of the"
                    " store keeps for one file. Send fewer or shorter ones."
                ) from error
            raise self._fault_of(error, "sealed") from error
        self._sealed = ValueInfo(
            self._key, self._size, self._etag, published_us / 1_000_000, self._metadata
        )
        return self._sealed

    def _has_room(self) -> bool:
        """
        Whether it is not the disk that is full, but what a file has room for beside
        its content: ext4 has one block for it.
        """
        space = os.fstatvfs(self._descriptor)
        return bool(self._metadata_lines) and space.f_bavail > 0

    def _publish(
        self, conditions: Conditions, *, synced: bool = False
    ) -> Answer[Published]:
        act = partial(self._publish_now, conditions, synced=synced)
        return self._premises.locks.holding(self._key, act)

    def _publish_now(self, conditions: Conditions, *, synced: bool) -> Published:
        premises = self._premises
        try:
            replaced = premises.tree.publish(
                premises.uploads,
                self._name,
                self._key,
                conditions,
                self._seal,
                synced=synced,
            )
        except OSError as error:
            raise self._fault_of(error, "published") from error
        self._name = b""
        assert self._sealed is not None
        return Published(self._sealed, created=not replaced)

    def _end(self) -> None:
        """
        Let go of the file, and of its name unless it became a value.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        if self._name:
            self._premises.uploads.remove(self._name)

    def _fault_of(self, error: OSError, done: str) -> Exception:
        fault = fault_of(error, f"The upload of /{escape(self._key)} cannot be {done}")
        if isinstance(fault, StoreFull):
            self._premises.full()
        return fault
