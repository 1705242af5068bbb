"""
Syncs files and folders, at durability ``disk``.

A value survives a power cut if its file, its name in the folder, and the name of every
folder above it do. The file is synced before it gets its name. The folders are synced
after: all of them up to the root, since any may be new and made by another upload that
has not synced it yet (a folder without changes costs 36 µs on ext4, one with changes
200).

Syncs block, so they are done in threads, many at once: then the disk writes what the
waiting uploads have in common, such as a commit of its journal, only once. Each file is
synced when it is complete, in a thread of its own; those that the fast path completes
in one turn of the reactor begin together (``kvd/native/sync.c``). Folders are synced in
batches: one batch is active at a time, and uploads that complete meanwhile wait for the
next one together, so that a folder is synced once for many. In a batch each path has a
thread of its own. A single upload waits for no other.

If a batch synced one folder after the other, keys in many folders would share nothing.
With 256 folders on a tmpfs whose syncs were made to last 5 ms, 64 clients and 2
workers, that was 330 PUTs a second, 8 times the rate of one client; with a thread for
each path it is 2,300, 50 times.

One syncfs(2) for all files that wait would cost half the processor time. But it also
writes everything else in the file system, such as large uploads that have only begun,
and reports any failure to all of them.

A sync that failed is not tried again: the kernel reports a lost page once and then
forgets it (fsync(2)). So when the sync of a folder fails, it also fails for uploads
that already wait for the next sync of this folder.

The success of fsync is not enough either. XFS reports success for an fsync of a folder
if the file system was shut down before, by an error of its log or its device, and the
rename is lost (Linux 6.18); other calls, such as fstat(2), return EIO from then on.
Other file systems become read-only after an error, and some of them (f2fs) then report
success for every fsync, since there is nothing to write. So after each fsync, `sync`
checks that the file system still writes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.errors import (
    Fault,
    NoThread,
    StoreExhausted,
    StoreFault,
    StoreFull,
    SyncFailed,
)
from kvd.native import compiled
from kvd.store.faults import fault_of
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.waiting import OffReactor

MAX_THREADS: Final = 32
"""
The most syncs at once; further ones wait. In the measurement above, 8 gave 1,300 PUTs a
second, 16 gave 2,040 and 32 gave 2,320. On plain ext4, with all keys in one folder,
there was no difference.
"""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = (ctypes.c_int,)

_counting: Final = Lock()
_took: Callable[[int], None] | None = None

Path = tuple[bytes, ...]
Failed = dict[Path, OSError]
Found = tuple[int, int] | None
"""Of `FolderSync`."""


def sync_in_python(descriptor: int) -> None:
    """
    See `Sync`. Without a C compiler, this does what ``kvd/native/sync.c`` does in one
    call.
    """
    began = time.monotonic_ns()
    try:
        os.fsync(descriptor)
        _check_writable(descriptor)
    finally:
        # Threads take turns: they count in the same words.
        with _counting:
            if _took is not None:
                _took(time.monotonic_ns() - began)


def report_to(took: Callable[[int], None]) -> None:
    """
    Set what `sync_in_python` calls after each sync, with the time that it took, in
    nanoseconds; one thread at a time.
    """
    global _took
    with _counting:
        _took = took


def sync_folders_in_python(root: int, path: bytes, first: int) -> Found:
    """
    See `FolderSync`; and `sync_in_python`.
    """
    depth = 0
    try:
        folder = os.dup(root)
    except OSError as error:
        return depth, error.errno or 0
    try:
        if first == 0:
            sync(folder)
        for name in path.split(b"/") if path else ():
            try:
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                # Pruned, perhaps after the folder around it was synced: sync that
                # again.
                sync(folder)
                break
            except OSError:
                depth += 1
                raise
            depth += 1
            os.close(folder)
            folder = inner
            if depth >= first:
                sync(folder)
    except OSError as error:
        return depth, error.errno or 0
    finally:
        os.close(folder)
    return None


class Sync(Protocol):
    """
    Syncs a file or a folder; blocks.
    """

    def __call__(self, descriptor: int, /) -> None:
        """
        Sync it.

        Raises:
            OSError: Written data may be lost.
        """


class FolderSync(Protocol):
    """
    Syncs the folders on a path; blocks, and may be called in several threads at once.
    """

    def __call__(self, root: int, path: bytes, first: int, /) -> Found:
        """
        Sync them. If a part of the path is gone, the folder around it is synced, and
        none that was in it.

        Args:
            root: The folder where the path begins.
            path: The names on it, with slashes between them; empty for the root itself.
            first: The depth of the first folder to sync; that of the root is 0.

        Returns:
            The depth of the folder that cannot be synced, and the number of the error.
        """


class LaterFolderSync(Protocol):
    """
    Has the folders on a path synced, and does not block.
    """

    def __call__(
        self, path: bytes, first: int, done: Callable[[Found], None], /
    ) -> bool:
        """
        Begin.

        Args:
            path: See `FolderSync`.
            first: See `FolderSync`.
            done: Called with what `FolderSync` returns, in the reactor.

        Returns:
            Whether there is a thread for it.
        """


_native = compiled("_fast_path")
sync: Sync = sync_in_python if _native is None else _native.sync
sync_folders: FolderSync = (
    sync_folders_in_python if _native is None else _native.sync_folders
)
"""
The compiled ones, where there are any. A thread that calls them waits for the
interpreter's lock once, not behind each system call.
"""


def sync_all(folder: int) -> None:
    """
    Sync everything in the file system of a folder; blocks.

    Raises:
        OSError: Written data may be lost, of kvd or of another program.
    """
    if _libc.syncfs(folder):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _check_writable(folder)


def _check_writable(descriptor: int) -> None:
    # After the sync: an error during it may have shut down the file system.
    os.fstat(descriptor)
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def sync_file(descriptor: int, off_reactor: OffReactor) -> None:
    """
    Sync a file that has no name yet.

    Raises:
        StoreFull: The file system reports only now that it is full.
        SyncFailed: The file is lost.
    """
    try:
        await off_reactor(partial(sync, descriptor))
    except OSError as error:
        raise file_fault(error) from error


def file_fault(error: OSError) -> Fault:
    """
    Return the exception to raise when the sync of a file has failed; see `sync_file`.
    """
    fault = fault_of(error, "The upload cannot be synced")
    if isinstance(fault, StoreFull):
        return fault
    return _sync_failed(error, "The upload was lost at its sync")


class Syncs:
    """
    Syncs the changes of one store.
    """

    _log = Logger()

    def __init__(self, root: int, off_reactor: OffReactor) -> None:
        self._root = root
        self._off_reactor = off_reactor
        self._waiting: list[_Waiter] = []
        self._batch: list[_Waiter] = []
        self._failed: Failed = {}
        # How many paths of the batch are not synced yet.
        self._unsynced = 0
        self.sync_folders_later: LaterFolderSync = self._sync_off_reactor
        """Syncs the folders of a batch; a process that has something cheaper than
        `off_reactor` may set it."""

    async def file(self, descriptor: int) -> None:
        """
        Sync a file that has no name yet; see `sync_file`.
        """
        await sync_file(descriptor, self._off_reactor)

    async def folders(self, path: Iterable[bytes]) -> None:
        """
        Sync a folder and the folders around it, up to the root. If a part of the path
        is gone, with everything in it, the rest is synced.

        Raises:
            SyncFailed: One of them failed.
        """
        (done,) = self.folders_of([tuple(path)])
        await done

    def folders_of(self, paths: Iterable[Path]) -> Sequence[Deferred[None]]:
        """
        The same for several paths in one batch.

        Returns:
            What tells that a path is synced, for each of them.
        """
        waiters = [_Waiter(path) for path in paths]
        self._waiting += waiters
        if waiters and not self._batch:
            self._sync_next()
        return [waiter.done for waiter in waiters]

    def _sync_next(self) -> None:
        self._batch, self._waiting = self._waiting, []
        self._failed = {}
        shared = list(share(dict.fromkeys(waiter.path for waiter in self._batch)))
        self._unsynced = len(shared)
        for path, first in shared:
            done = partial(self._path_synced, path)
            if not self.sync_folders_later(b"/".join(path), first, done):
                self._failed[()] = NoThread()
                self._path_synced(path, None)

    def _sync_off_reactor(
        self, path: bytes, first: int, done: Callable[[Found], None]
    ) -> bool:
        try:
            found = self._off_reactor(partial(sync_folders, self._root, path, first))
        except NoThread:
            return False
        # A bug in kvd; what it concerns is unknown, and the next batch waits.
        found.addErrback(self._mistaken)
        found.addCallback(done)
        return True

    def _mistaken(self, failure: Failure) -> Found:
        self._log.failure("folders cannot be synced", failure=failure)
        return 0, errno.EIO

    def _path_synced(self, path: Path, found: Found) -> None:
        if found is not None:
            depth, number = found
            self._failed[path[:depth]] = OSError(number, os.strerror(number))
        self._unsynced -= 1
        if not self._unsynced:
            self._synced()

    def _synced(self) -> None:
        batch, failed = self._batch, self._failed
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.error_in(failed) is None:
                self._waiting.append(waiter)
            else:
                batch.append(waiter)
        self._batch = []
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
    A commit or removal that waits for the folders of one path.
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


def share(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """
    Share out the folders on some paths, so that each is synced once: yield a path with
    the depth of the first folder on it that no earlier path has, if there is one.
    """
    taken: set[Path] = set()
    for path in paths:
        first = 0
        while first <= len(path) and path[:first] in taken:
            first += 1
        if first <= len(path):
            taken.update(path[:depth] for depth in range(first, len(path) + 1))
            yield path, first


def _sync_failed(error: OSError, sentence: str) -> StoreFault:
    failed = fault_of(error, sentence)
    if not isinstance(failed, StoreExhausted):
        failed = SyncFailed(f"{sentence}: {error.strerror}.")
    failed.__cause__ = error
    return failed
