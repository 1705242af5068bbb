"""
The file store: every value is a file below one folder, named by its key, usable with
``ls``, ``rsync`` and nginx.

    values/                  the root
        ab/cdef              the value of the key ab/cdef
        .kvd/                kvd's own; no key begins with it
            lock             the keys' locks           (kvd.store.locks)
                             and the current epoch     (kvd.store.epochs)
            4711-09fe…/      what a process uploads    (kvd.store.uploads)
                0, 1, …
                k2.ab␟cdef   what was ab/cdef before   (kvd.store.writeback)
            resumable/       uploads of several requests (kvd.store.resuming)
            attributes/      of values, where the file system keeps none
                             (kvd.store.sidecars)

A value is written to the upload folder of the process. A commit sets an attribute that
identifies the value (`kvd.store.attribute`) and renames the file to its key while it
holds the key's lock. At durability ``disk`` the file is synced before and the folders
after (`kvd.store.sync`), in threads; everything else is done in the reactor, without
waiting. At durability ``process`` everything is synced some seconds later, and replaced
values are kept until then. So a value is wholly old, wholly new or absent, and a kill
at any moment leaves only files that the next process removes.

Any number of processes may open one root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kvd.errors import QuotaFull, StoreFull, StoreUnusable
from kvd.interfaces import (
    Answer,
    IFolderStore,
    IGlancingStore,
    IResumingStore,
    IUpload,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.uploads import UploadRecord
from kvd.model.values import NO_METADATA, Metadata, ValueInfo
from kvd.settings import DEFAULT_MODES, Durability, Modes
from kvd.store.epochs import Epochs
from kvd.store.exchange import is_of_one_machine, is_on_a_disk
from kvd.store.faults import absence, fault_of
from kvd.store.folders import prune, split
from kvd.store.hidden import open_hidden, renew_hidden
from kvd.store.keeping import has_sidecars
from kvd.store.listing import FileFolderListing, FileListing, ListingContext
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.populated import Populated
from kvd.store.replaced import AllKept
from kvd.store.reservation import UNLIMITED, Reservation
from kvd.store.resuming import ResumableFolder
from kvd.store.resumption import Resumption
from kvd.store.sidecars import Sidecars
from kvd.store.space import room_beside
from kvd.store.sync import MAX_THREADS, Syncs
from kvd.store.tree import Tree
from kvd.store.upload import FileUpload, UploadContext
from kvd.store.uploads import Kept, Left, UploadFolder, sweep
from kvd.store.value import FileValue, is_absence
from kvd.store.waiting import OffReactor, Underway, resolved
from kvd.store.writeback import Writeback

if TYPE_CHECKING:
    from kvd.store.admission import Admission
    from kvd.store.usage import Usage

_ROOT_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


_log = Logger()


@dataclass(frozen=True, slots=True)
class FastPathState:
    """
    What `kvd.http.fast_path` needs to do the same as the store.
    """

    root: int
    """A descriptor of the store's folder."""
    keeps_attributes: bool
    """Whether the attributes of values are extended ones of their files
    (`kvd.store.keeping`); otherwise there is no fast path."""
    lock: LockFile
    exchanges: bool
    """Whether values are replaced by exchanging names; see `kvd.store.exchange`."""
    kept: AllKept | None
    """The names of replaced values that are kept; see `kvd.store.writeback`."""
    has_epochs: bool
    """Whether an epoch says which values are not kept; see `kvd.store.epochs`."""
    uploads: UploadFolder
    folder_mode: int
    """The mode of a folder that is made."""
    prune: Callable[[Key], None]
    """Removes the folders of a key, as far as they are empty and made by kvd."""
    adopt: Callable[[Key, int, Metadata, int, bytes, int], FileUpload]
    """See `FileStore.adopt`."""
    adopt_synced: Callable[[ValueInfo, int, bytes, int], FileUpload]
    """See `FileStore.adopt_synced`."""
    syncs: Syncs | None
    """None at durability ``process``."""
    sync_threads: int
    """How many files may be synced at once."""
    underway: Underway
    """What has to end before the store can be closed."""
    usage: Usage | None
    """Counts what values take; see `kvd.store.usage`."""
    min_free: int
    """How many bytes of the file system stay free."""


@implementer(IFolderStore, IGlancingStore, IResumingStore)
class FileStore:
    """
    The values below one folder, open in this process.

    Answers are results, except that those of commits and removals are Deferreds at
    durability ``disk`` or when another process has locked the key, and those of
    listings always are.
    """

    def __init__(
        self,
        path: str | int,
        durability: Durability,
        clock: IReactorTime,
        off_reactor: OffReactor,
        syncing: OffReactor | None = None,
        modes: Modes = DEFAULT_MODES,
        *,
        writes_back: bool = True,
        admission: Admission | None = None,
    ) -> None:
        """
        Args:
            path: The path of the root, which must exist and may be a link; or a
                descriptor of the root, which the caller closes.
            durability: The durability that a commit promises.
            clock: Schedules the retries while another process has locked a key.
            off_reactor: Runs the reading of listings.
            syncing: Runs syncs; None: `off_reactor` does.
            modes: The modes of the files and folders that the store makes. The umask of
                this process must permit the mode of files.
            writes_back: Whether to sync published values later, if no client waits for
                a sync (`kvd.store.writeback`); otherwise other processes do.
            admission: Keeps to the limits of the store; None: it has none.

        Raises:
            StoreUnusable: The store cannot be opened.
        """
        self.durability = durability
        self._admission = admission
        self._min_free = 0
        if admission is not None:
            self._min_free = admission.min_free
            admission.free = self._free
        self._underway = Underway()
        with opening(path), ExitStack() as opened, ExitStack() as swept:
            self._root = open_root(path)
            opened.callback(os.close, self._root)
            hidden = open_hidden(self._root, modes.folder)
            opened.callback(os.close, hidden)
            lock = LockFile(self._root, modes)
            opened.callback(lock.close)
            by_sidecars = has_sidecars(self._root, lock.descriptor, modes)
            left = sweep(hidden)
            for each in left:
                swept.callback(each.release)
            renew = partial(renew_hidden, self._root, hidden, modes.folder)
            uploads = UploadFolder(hidden, modes, renew)
            opened.callback(uploads.close)
            resumable = ResumableFolder(hidden, modes.folder)
            opened.callback(resumable.close)
            sidecars = Sidecars(self._root, modes) if by_sidecars else None
            tree = self._tree = Tree(self._root, modes, sidecars)
            self._locks = KeyLocks(lock, clock, self._underway)
            self._restore(left)
            self._writeback = None
            if writes_back and is_on_a_disk(self._root):
                is_shared = is_of_one_machine(self._root)
                epochs = Epochs(lock.descriptor) if is_shared else None
                self._writeback = Writeback(
                    self._root, uploads, left, clock, off_reactor, epochs
                )
                # Which releases them.
                swept.pop_all()
                if durability == "process":
                    tree.kept = self._writeback.kept
                    tree.epochs = epochs
            self._opened = opened.pop_all()
        self._listings = ListingContext(
            self._root, sidecars, off_reactor, self._underway
        )
        self._populated = Populated(self._listings, tree)
        self._syncs = None
        if durability == "disk":
            self._syncs = Syncs(self._root, syncing or off_reactor)
        self._shared = UploadContext(
            self._tree,
            uploads,
            self._locks,
            self._underway,
            off_reactor,
            self._syncs,
            self._full,
            # A value without its attribute must not be a torn one.
            syncs_first=sidecars is not None and self._writeback is not None,
        )
        self.resumable = Resumption(
            resumable,
            self._shared,
            self._begin_resumable,
            self._reserve_rest,
            lambda key: inf if admission is None else admission.limit_of(key),
            clock,
        )
        self.fast_path_state = FastPathState(
            self._root,
            sidecars is None,
            lock,
            tree.exchanges,
            tree.kept,
            tree.epochs is not None,
            uploads,
            modes.folder,
            lambda key: prune(self._root, split(key)[0]),
            self.adopt,
            self.adopt_synced,
            self._syncs,
            threads_of(syncing),
            self._underway,
            None if admission is None else admission.usage,
            self._min_free,
        )

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        try:
            return self.begin_at_once(key, length, metadata)
        except QuotaFull:
            assert self._admission is not None
            if not self._admission.evicts(key, length or 0):
                raise
            # Nobody waits for room when the client has left.
            waiting = self._begin_after_eviction(key, length, metadata)
            return self._underway.stoppable(waiting)
        except StoreFull as full:
            room = None if self._writeback is None else self._writeback.make_room()
            if room is None:
                raise
            # Others may wait for the same room.
            work = self._begin_behind(room, full, key, length, metadata)
            return self._underway.shield(work, lambda upload: upload.discard())

    def _begin_resumable(self, record: UploadRecord) -> Answer[FileUpload]:
        upload = self.begin(record.key, record.length, record.metadata)
        return cast(Answer[FileUpload], upload)

    def _reserve_rest(self, key: Key, length: int | None, rest: int) -> Reservation:
        room = self._reserve(key, length)
        try:
            self._expect_space(rest)
        except BaseException:
            room.release()
            raise
        return room

    async def _begin_after_eviction(
        self, key: Key, length: int | None, metadata: Metadata
    ) -> IUpload:
        assert self._admission is not None
        reservation = await self._admission.reserve_later(
            key, length, lambda: (length or 0) <= self._free()
        )
        try:
            return self.begin_at_once(key, length, metadata, reservation)
        except BaseException:
            reservation.release()
            raise

    async def _begin_behind(
        self,
        room: Deferred[None] | None,
        full: StoreFull,
        key: Key,
        length: int | None,
        metadata: Metadata,
    ) -> IUpload:
        """
        Begin when the removal of kept values has made room. Values that were replaced
        during the first sync are still kept after it, so a second sync may be needed.
        """
        assert self._writeback is not None
        for _ in range(2):
            if room is None:
                break
            await room
            try:
                return self.begin_at_once(key, length, metadata)
            except StoreFull as still_full:
                full = still_full
                room = self._writeback.make_room()
        raise full

    def begin_at_once(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        reserved: Reservation | None = None,
    ) -> FileUpload:
        """
        Begin an upload without waiting for room.

        Args:
            key: See `IStore.begin`.
            length: See `IStore.begin`.
            metadata: See `IStore.begin`.
            reserved: What the quotas hold for it; None: that is asked for now, if there
                are any. The upload's from now on, unless this raises.
        """
        try:
            folder = self._tree.enter_parent(key)
            try:
                if length is not None or self._min_free:
                    self._expect_space(length or 0)
                room = reserved or self._reserve(key, length)
                try:
                    return FileUpload(key, length, metadata, self._shared, folder, room)
                except BaseException:
                    if room is not reserved:
                        room.release()
                    raise
            finally:
                self._tree.leave(folder)
        except OSError as error:
            sentence = f"The upload of /{escape(key)} cannot begin"
            if not os.fstat(self._root).st_nlink:
                sentence += ", as the folder of the store was removed; restart kvd"
            raise fault_of(error, sentence) from error

    def adopt(
        self,
        key: Key,
        length: int,
        metadata: Metadata,
        descriptor: int,
        name: bytes,
        held: int,
    ) -> FileUpload:
        """
        Go on with an upload that `kvd.http.fast_path` has begun.

        Args:
            key: See `begin`.
            length: See `begin`.
            metadata: See `begin`.
            descriptor: Of its file, at the end of what was written. The upload closes
                it.
            name: Of its file in the upload folder.
            held: How many bytes its quotas hold for it.
        """
        return FileUpload(
            key,
            length,
            metadata,
            self._shared,
            reservation=self._held(key, held),
            file=(descriptor, name),
        )

    def adopt_synced(
        self, info: ValueInfo, descriptor: int, name: bytes, held: int
    ) -> FileUpload:
        """
        Publish an upload that `kvd.http.fast_path` has written and synced, at
        durability ``disk``.

        Args:
            info: What it was sealed with.
            descriptor: Of its file. The upload closes it.
            name: Of its file in the upload folder.
            held: How many bytes its quotas hold for it.
        """
        return FileUpload(
            info.key,
            info.size,
            info.metadata,
            self._shared,
            reservation=self._held(info.key, held),
            file=(descriptor, name),
            synced=info,
        )

    def open(self, key: Key, whole: bool = False) -> IValue:
        try:
            value = self._tree.open(key)
        except OSError as error:
            raise fault_of(error, f"/{escape(key)} cannot be opened") from error
        if value is None:
            raise absence(key)
        if self._admission is not None:
            self._admission.opened(value)
        return value

    def stat(self, key: Key) -> ValueInfo:
        value = self.open(key)
        value.close()
        info: ValueInfo = value.info
        return info

    def lacks(self, key: Key) -> bool:
        # With a link on the path, nothing that is found counts; that nothing is, does.
        try:
            os.stat(key, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        act = partial(self._remove_now, key, conditions)
        if self._syncs is None:
            return self._locks.holding(key, lambda: self._tree.forget(act()))
        answer = self._locks.holding(key, act)
        return self._underway.shield(self._remove_on_disk(key, answer, self._syncs))

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> FileListing:
        return FileListing(self._listings, prefix, after, limit)

    def list_folder(
        self, prefix: bytes, after: bytes, limit: int | None
    ) -> FileFolderListing:
        return FileFolderListing(self._listings, prefix, after, limit)

    def has_values(self, prefix: bytes) -> Answer[bool]:
        return self._populated.has_values(prefix)

    def close(self) -> Answer[None]:
        ended = self._underway.ended()
        if isinstance(ended, Deferred):
            return ended.addCallback(lambda _: self._close())
        return self._close()

    def _close(self) -> Answer[None]:
        self.resumable.close()
        written = None if self._writeback is None else self._writeback.stop()
        if isinstance(written, Deferred):
            return written.addCallback(lambda _: self._opened.close())
        self._opened.close()
        return None

    def _restore(self, left: Iterable[Left]) -> None:
        """
        Restore values that a power cut has torn, from the kept values that they had
        replaced. Of several that were kept for a key, the newest comes first, whichever
        process kept it.
        """
        found = [kept for each in left for kept in each.kept()]
        for kept in sorted(found, reverse=True):
            if not self._locks.hold_briefly(kept.key, partial(self._restore_one, kept)):
                _log.warn("/{key} is locked by another process", key=escape(kept.key))

    def _restore_one(self, kept: Kept) -> None:
        key = escape(kept.key)
        try:
            if self._tree.restore(kept):
                _log.warn(
                    "/{key} has its older value again: a power cut tore the newer one",
                    key=key,
                )
        except OSError as error:
            _log.warn("/{key} cannot be restored: {reason}", key=key, reason=error)

    def _expect_space(self, length: int) -> None:
        free = self._free()
        if length <= free:
            return
        sentence = (
            f"The value has {length} bytes; the store has room for {max(0, free)}."
        )
        if self._min_free and self._admission is not None:
            raise QuotaFull(sentence)
        raise StoreFull(sentence)

    def _free(self) -> float:
        """
        How many bytes the file system has room for, beside those that stay free.
        """
        space = os.fstatvfs(self._root)
        room = room_beside(
            self._min_free, space.f_bavail, space.f_frsize, space.f_blocks
        )
        return inf if room is None else room

    def _reserve(self, key: Key, length: int | None) -> Reservation:
        if self._admission is None:
            return UNLIMITED
        return self._admission.reserve(key, length)

    def _held(self, key: Key, held: int) -> Reservation:
        if self._admission is None:
            return UNLIMITED
        return self._admission.held(key, held)

    def _full(self) -> None:
        if self._writeback is not None:
            self._writeback.soon()

    def _remove_now(self, key: Key, conditions: Conditions) -> FileValue:
        try:
            value = self._tree.remove(key, conditions)
        except OSError as error:
            if is_absence(error):  # Removed by a program that takes no locks.
                raise absence(key) from error
            raise fault_of(error, f"/{escape(key)} cannot be removed") from error
        if self._admission is not None:
            self._admission.removed(key, value.info.size)
        return value

    async def _remove_on_disk(
        self, key: Key, answer: Answer[FileValue], syncs: Syncs
    ) -> None:
        value = await resolved(answer)
        await syncs.folders(split(key)[0])
        # Until now a power cut may bring it back.
        self._tree.forget(value)


def threads_of(syncing: OffReactor | None) -> int:
    """
    How many files are synced at once beside what `OffReactor` runs: none, if the store
    has no threads for syncs.
    """
    return 0 if syncing is None else MAX_THREADS


def open_root(path: str | int) -> int:
    """
    Open the folder of a store, by its path or by a descriptor of it.
    """
    if isinstance(path, int):
        # Not a duplicate: two of these must not share the offset of a listing.
        return os.open(".", _ROOT_FLAGS, dir_fd=path)
    return os.open(path, _ROOT_FLAGS)


@contextmanager
def opening(path: str | int) -> Iterator[None]:
    """
    Convert an error of the system to one of the store.

    Raises:
        StoreUnusable: It cannot be opened.
    """
    try:
        yield
    except OSError as error:
        # If the error names a file, it is one of kvd's own in the folder. Some calls
        # name a descriptor, which tells nobody anything.
        name = error.filename
        of = f" ({os.fsdecode(name)})" if isinstance(name, str | bytes) else ""
        raise StoreUnusable(
            f"the store {_path_of(path)} cannot be opened: {error.strerror}{of}"
        ) from error


def _path_of(path: str | int) -> str:
    """
    The path of a folder that may be given by a descriptor, as in workers.
    """
    if isinstance(path, str):
        return path
    try:
        return os.readlink(f"/proc/self/fd/{path}")
    except OSError:  # No /proc, as in some containers.
        return f"with the descriptor {path}"
