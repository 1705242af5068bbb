"""
Making sure that the disk has it, at durability ``disk``.

A value is there after a power cut if its file, its name in the folder, and the
name of every folder above it are. The file is synced before it gets its name.
The folders are synced after: all of them up to the root, since any may be new
and made by another upload that has not synced it yet (a folder without changes
costs 36 µs on ext4, one with changes 200).

Syncs block, so they are done in threads, many at once: the disk then writes
together what the waiting uploads have in common, such as a commit of its
journal. A file is synced as soon as it is complete, each in a thread of its
own. Folders are synced in batches: one is on its way at a time, and who comes
meanwhile waits for the next one with all the others, so that a folder is
synced once for many. In a batch each path has a thread of its own. Who
comes alone waits for nobody.

One folder after the other would be the end of sharing where keys lie in many
folders. With 256 of them on a tmpfs whose syncs were made to last 5 ms, 64
clients and 2 workers, that was 330 PUTs a second, 8 times the rate of one
client; with a thread for each path it is 2,300, 50 times.

One syncfs(2) for all files that wait would cost half the processor time. But it
also writes whatever else the filesystem has to write, such as large uploads
that have only begun, and tells each of them of anybody's failure.

A sync that failed is not tried again: the kernel tells of a lost page once and
then forgets it (fsync(2)). So when a folder's sync fails, it fails for those
too who already wait for the next sync of this folder.

Nor is a sync believed that says nothing. XFS answers fsync of a folder with success
when the file system was shut down before, by an error of its log or its device, and
the rename is gone (Linux 6.18); what it says of anything else, fstat(2) for one, is
EIO from then on. Other file systems become read-only after an error, and some of them
(f2fs) then answer every fsync with success, as there is nothing to write. So `sync`
looks behind each fsync whether there still is a file system that writes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, gatherResults

from kvd.errors import StoreExhausted, StoreFault, StoreFull, SyncFailed
from kvd.store.faults import fault_of
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.waiting import OffReactor

MAX_THREADS: Final = 32
"""
So many syncs at once; further ones take turns. In the measurement above, 8 gave
1,300 PUTs a second, 16 gave 2,040 and 32 gave 2,320. On ext4 as it is, with all
keys in one folder, there was no difference.
"""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = (ctypes.c_int,)

Path = tuple[bytes, ...]
Failed = dict[Path, OSError]


def sync(descriptor: int) -> None:
    """
    Sync a file or a folder. It blocks.

    Raises:
        OSError: What was written may be lost.
    """
    os.fsync(descriptor)
    _look_behind(descriptor)


def sync_all(folder: int) -> None:
    """
    Sync everything in the file system of a folder. It blocks.

    Raises:
        OSError: Something that was written may be lost; it may be somebody else's.
    """
    if _libc.syncfs(folder):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _look_behind(folder)


def _look_behind(descriptor: int) -> None:
    # After the sync: what ended the file system may have come with it.
    os.fstat(descriptor)
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def sync_file(descriptor: int, off_reactor: OffReactor) -> None:
    """
    Sync a file that has no name yet.

    Raises:
        StoreFull: The filesystem found out only now.
        SyncFailed: The file is lost.
    """
    try:
        await off_reactor(partial(sync, descriptor))
    except OSError as error:
        fault = fault_of(error, "The upload cannot be synced")
        if isinstance(fault, StoreFull):
            raise fault from error
        raise _sync_failed(error, "The upload was lost at its sync") from error


class Syncs:
    """
    Syncs what one store changes.
    """

    def __init__(self, root: int, off_reactor: OffReactor) -> None:
        self._root = root
        self._off_reactor = off_reactor
        self._waiting: list[_Waiter] = []
        self._syncing = False

    async def file(self, descriptor: int) -> None:
        """
        Sync a file that has no name yet; see `sync_file`.
        """
        await sync_file(descriptor, self._off_reactor)

    async def folders(self, path: Iterable[bytes]) -> None:
        """
        Sync a folder and those around it up to the root. Where a part of the
        path is gone, what was in it is too, and the rest is synced.

        Raises:
            SyncFailed: One of them failed.
        """
        waiter = _Waiter(tuple(path))
        self._waiting.append(waiter)
        if not self._syncing:
            self._sync_next()
        await waiter.done

    def _sync_next(self) -> None:
        batch, self._waiting = self._waiting, []
        self._syncing = True
        folders = Folders(self._root)
        syncs = [
            self._off_reactor(partial(folders.sync, path))
            for path in {waiter.path for waiter in batch}
        ]
        gatherResults(syncs).addCallback(self._synced, folders.failed, batch)

    def _synced(self, _: object, failed: Failed, batch: list[_Waiter]) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.error_in(failed) is None:
                self._waiting.append(waiter)
            else:
                batch.append(waiter)
        self._syncing = False
        if self._waiting:
            self._sync_next()
        for waiter in batch:
            error = waiter.error_in(failed)
            if error is None:
                waiter.done.callback(None)
            else:
                waiter.done.errback(
                    _sync_failed(error, "The folder of the key cannot be synced")
                )


class _Waiter:
    """
    Who waits for the folders of one path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: Deferred[None] = Deferred()

    def error_in(self, failed: Failed) -> OSError | None:
        """
        The error of the first folder on the path that has one.
        """
        for depth in range(len(self.path) + 1):
            if self.path[:depth] in failed:
                return failed[self.path[:depth]]
        return None


class Folders:
    """
    The folders on the paths of one batch, each synced once.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._begun: set[Path] = set()
        self.failed: Failed = {}
        """The errors of those that failed."""

    def sync(self, path: Path) -> None:
        """
        Sync the folders on a path that no other path's thread has begun to.

        It blocks, and may be called in several threads at once. All folders are
        synced when all calls have returned.
        """
        try:
            folder = os.dup(self._root)
        except OSError as error:
            self.failed[()] = error
            return
        here: Path = ()
        try:
            for depth in range(len(path) + 1):
                here = path[:depth]
                if here:
                    inner = os.open(here[-1], FOLDER_FLAGS, dir_fd=folder)
                    os.close(folder)
                    folder = inner
                if here not in self._begun:
                    # Two threads that come here at once both sync: so what.
                    self._begun.add(here)
                    sync(folder)
        except (FileNotFoundError, NotADirectoryError):
            # Pruned, maybe after the folder around it was synced: once more.
            self._sync_again(folder, here[:-1])
        except OSError as error:
            self.failed[here] = error
        finally:
            os.close(folder)

    def _sync_again(self, folder: int, path: Path) -> None:
        try:
            sync(folder)
        except OSError as error:
            self.failed[path] = error


def _sync_failed(error: OSError, sentence: str) -> StoreFault:
    failed = fault_of(error, sentence)
    if not isinstance(failed, StoreExhausted):
        failed = SyncFailed(f"{sentence}: {error.strerror}.")
    failed.__cause__ = error
    return failed
