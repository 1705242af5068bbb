"""
Uploads to the file store.

    open ──commit──> committing ──> ended
      └───discard──────────────────^

During a commit, `discard` does nothing: a thread may be syncing the file, and only the
commit decides its fate. When the commit ends, for any reason, the file is either under
its key or gone.

A value is *sealed* with its attribute and its date, while the key is locked: the date
is that of publication, and never earlier than that of the value that it replaces. At
durability ``disk`` it is also sealed before its sync, so that one sync covers
everything. If it is published in a later second, or after a value with a later date, it
is sealed again, and synced again before the folders. At durability ``process`` a value
is synced only if the value that it replaces cannot be kept; its seal then need not be
synced, since the journal writes it to the disk before the name. Where attributes are in
files of their own (`kvd.store.sidecars`), each value is synced before it is published.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
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
from kvd.store.placing import Seal, SealWriter, seal_file, seal_in_python
from kvd.store.reservation import UNLIMITED, Reservation
from kvd.store.sidecars import Sidecar
from kvd.store.sync import Syncs, sync_file
from kvd.store.tree import CannotBeKept, CannotBeSealed, Tree
from kvd.store.uploads import UploadFolder
from kvd.store.value import FileValue
from kvd.store.waiting import OffReactor, Underway, resolved


@dataclass(frozen=True, slots=True)
class UploadContext:
    """
    What all uploads of one store share.
    """

    tree: Tree
    uploads: UploadFolder
    locks: KeyLocks
    underway: Underway
    off_reactor: OffReactor
    """Runs the sync of a file at durability ``process``, if one is needed."""
    syncs: Syncs | None
    """None at durability ``process``."""
    full: Callable[[], None]
    """Called when there was no room."""
    syncs_first: bool = False
    """Whether values are synced before they are published at durability ``process``
    too."""


@implementer(IUpload)
class FileUpload:
    """
    A file in the upload folder that will be renamed to a key.
    """

    def __init__(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata,
        shared: UploadContext,
        parent: int | None = None,
        reservation: Reservation = UNLIMITED,
        file: tuple[int, bytes] | None = None,
        synced: ValueInfo | None = None,
        written: int = 0,
    ) -> None:
        """
        Args:
            key: The key of the value.
            length: See `IStore.begin`.
            metadata: See `IStore.begin`.
            shared: What all uploads of the store share.
            parent: The folder in which the value will be, or the last one on its path
                that exists.
            reservation: What the quotas hold for it; the upload's, unless this raises.
            file: A file in the upload folder that holds the beginning of the value: its
                descriptor and its name. None: a new one is created.
            synced: What that file was sealed with, if all but its publication is done
                already, at durability ``disk``.
            written: How many bytes the file has.

        Raises:
            OSError: The file cannot be created.
            ValueError: The metadata cannot be kept.
        """
        self._key = key
        self._length = length
        self._metadata = metadata
        self._metadata_lines = attribute.encode_metadata(metadata)
        self._shared = shared
        self._committing = False
        self._epoch = 0
        self._reservation = reservation
        self._sealed = synced
        self._etag = attribute.new_etag() if synced is None else synced.etag
        self._size = written if synced is None else synced.size
        self._sidecar: Sidecar | None = None
        self._replaced: FileValue | None = None
        self._descriptor, self._name = file or shared.uploads.create(parent)

    def leave(self) -> tuple[int, bytes]:
        """
        Forget the name of the file, which is not removed at the end any more.

        Returns:
            The descriptor and the name in the upload folder.
        """
        name, self._name = self._name, b""
        return self._descriptor, name

    def enter(self, link: Callable[[int, bytes], None]) -> None:
        """
        Give the file a name again, to be published; see `UploadFolder.enter`.
        """
        try:
            self._name = self._shared.uploads.enter(link)
        except OSError as error:
            raise self._fault_of(error, "published") from error

    def write(self, chunk: bytes) -> Answer[None]:
        if self._length is None:
            self._size += len(chunk)
            room = self._reservation.grow(self._size)
            if isinstance(room, Deferred):
                return room.addCallback(lambda _: self._write(chunk))
        self._write(chunk)
        return None

    def _write(self, chunk: bytes) -> None:
        if self._descriptor < 0:
            return  # Discarded while it waited for room.
        try:
            written = os.write(self._descriptor, chunk)
            # A disk that fills up takes a part and refuses the rest.
            while written < len(chunk):
                written += os.write(self._descriptor, memoryview(chunk)[written:])
        except OSError as error:
            raise self._fault_of(error, "written") from error

    def fileno(self) -> int | None:
        if self._length is None and self._reservation is not UNLIMITED:
            # Each chunk is counted before it is written.
            return None
        return self._descriptor

    def discard(self) -> None:
        if not self._committing:
            self._end()

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._committing = True
        shared = self._shared
        if shared.syncs is not None:
            work = self._commit_to_disk(conditions, shared.syncs)
            return shared.underway.shield(work)
        try:
            self._measure()
            if shared.syncs_first:
                return shared.underway.shield(self._publish_synced(conditions))
            answer = self._publish(conditions)
        except CannotBeKept:
            return shared.underway.shield(self._publish_synced(conditions))
        except BaseException:
            self._end()
            raise
        if isinstance(answer, Deferred):
            return shared.underway.shield(self._end_after(answer, conditions))
        self._end()
        return answer

    async def _commit_to_disk(self, conditions: Conditions, syncs: Syncs) -> Published:
        try:
            synced = self._sealed
            if synced is None:
                self._measure()
                synced = self._seal()
                await self._sync(syncs)
            published = await resolved(self._publish(conditions))
            if published.info is not synced:
                await self._sync(syncs)
        finally:
            self._end()
        await syncs.folders(split(self._key)[0])
        # Until now a power cut may bring it back.
        self._forget_replaced()
        return published

    async def _sync(self, syncs: Syncs) -> None:
        await syncs.file(self._descriptor)
        if self._sidecar is not None:
            await syncs.file(self._sidecar.descriptor)
            await syncs.folders(self._sidecar.folders)

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
            await sync_file(self._descriptor, self._shared.off_reactor)
            return await resolved(self._publish(conditions, synced=True))
        finally:
            self._end()

    def _measure(self) -> None:
        """
        Determine the size of the value, and check it.
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
        self._reservation.fit(self._size)

    @property
    def descriptor(self) -> int:
        """
        See `kvd.store.tree.Sealed`.
        """
        return self._descriptor

    def seal_with(self, epoch: int) -> Seal:
        """
        See `kvd.store.tree.Sealed`.
        """
        sealed = self._sealed
        return Seal(
            self._etag,
            self._size,
            self._metadata_lines,
            0 if sealed is None else round(sealed.changed * 1_000_000),
            self._epoch,
            time.time_ns() // 1000,
            epoch,
        )

    def was_sealed(self, published_us: int, epoch: int) -> None:
        """
        See `kvd.store.tree.Sealed`.
        """
        sealed = self._sealed
        changed = published_us / 1_000_000
        if sealed is not None and (changed, epoch) == (sealed.changed, self._epoch):
            return
        self._epoch = epoch
        self._sealed = None
        if published_us:
            self._sealed = ValueInfo(
                self._key, self._size, self._etag, changed, self._metadata
            )

    def _seal(self) -> ValueInfo:
        """
        Seal the file before it is synced.
        """
        seal = self.seal_with(0)
        write = self._seal_writer()
        try:
            if write is None:
                published_us = seal_file(self._descriptor, 0, seal)
            else:
                published_us = seal_in_python(self._descriptor, 0, seal, write)
        except OSError as error:
            raise self._fault_of_seal(error) from error
        self.was_sealed(published_us, 0)
        assert self._sealed is not None
        return self._sealed

    def _fault_of_seal(self, error: OSError) -> Exception:
        if error.errno == errno.ENOSPC and self._has_room():
            return MetadataTooLarge(
                f"Fields of {len(self._metadata_lines)} bytes are to be kept with"
                f" /{escape(self._key)}: that is more than the file system of the"
                " store keeps for one file. Send fewer or shorter ones."
            )
        return self._fault_of(error, "sealed")

    def _seal_writer(self) -> SealWriter | None:
        """
        What writes the attribute, if it is not kept with the file.
        """
        return None if self._shared.tree.sidecars is None else self._write_sidecar

    def _write_sidecar(self, file: int, seal: Seal, published_us: int) -> int:
        sidecars = self._shared.tree.sidecars
        assert sidecars is not None
        self._drop_sidecar()
        self._sidecar = sidecars.write(file, self._key, published_us, self._attribute)
        return self._sidecar.published_us

    def _attribute(self, published_us: int) -> bytes:
        return attribute.encode(
            self._etag, self._size, published_us, self._metadata_lines
        )

    def _drop_sidecar(self, *, remove: bool = True) -> None:
        """
        Forget the sidecar.

        Args:
            remove: Whether it is of no use, since there is no such value.
        """
        sidecars, sidecar = self._shared.tree.sidecars, self._sidecar
        if sidecars is None or sidecar is None:
            return
        self._sidecar = None
        with suppress(OSError):  # It says nothing new: all was sent, or synced, before.
            os.close(sidecar.descriptor)
        if remove:
            sidecars.remove_at(sidecar.path)
        sidecars.sweep(sidecar.came)

    def _has_room(self) -> bool:
        """
        Whether the disk still has room, so that only the space for the attributes of a
        file is full: ext4 has one block for it.
        """
        space = os.fstatvfs(self._descriptor)
        return (
            bool(self._metadata_lines)
            and space.f_bavail > 0
            and self._shared.tree.sidecars is None
        )

    def _publish(
        self, conditions: Conditions, *, synced: bool = False
    ) -> Answer[Published]:
        act = partial(self._publish_now, conditions, synced=synced)
        return self._shared.locks.holding(self._key, act)

    def _publish_now(self, conditions: Conditions, *, synced: bool) -> Published:
        shared = self._shared
        try:
            replaced = shared.tree.publish(
                shared.uploads,
                self._name,
                self._key,
                conditions,
                self,
                self._seal_writer(),
                synced=synced,
            )
        except CannotBeSealed as refused:
            raise self._fault_of_seal(refused.error) from refused.error
        except OSError as error:
            raise self._fault_of(error, "published") from error
        self._name = b""
        self._replaced = replaced
        self._reservation.published(None if replaced is None else replaced.info.size)
        if shared.syncs is None:
            self._forget_replaced()
        assert self._sealed is not None
        return Published(self._sealed, created=replaced is None)

    def _forget_replaced(self) -> None:
        replaced, self._replaced = self._replaced, None
        if replaced is not None:
            self._shared.tree.forget(replaced)

    def _end(self) -> None:
        """
        Close the file, and remove it unless it became a value.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        self._drop_sidecar(remove=bool(self._name))
        if self._name:
            self._shared.uploads.remove(self._name)
        self._reservation.release()

    def _fault_of(self, error: OSError, done: str) -> Exception:
        fault = fault_of(error, f"The upload of /{escape(self._key)} cannot be {done}")
        if isinstance(fault, StoreFull):
            self._shared.full()
        return fault
