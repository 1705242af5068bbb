"""
Making sure that the disk has it, at durability ``disk``.

A value is there after a power cut if its file, its name in the folder, and the
name of every folder above it are. The file is synced before it gets its name.
The folders are synced after: all of them up to the root, since any may be new
and made by another upload that has not synced it yet (a folder without changes
costs 36 µs on ext4, one with changes 200).

Syncs block, so they are done in threads. Files are synced each on its own.
Folders are synced in batches: one is on its way at a time, and who comes
meanwhile waits for the next one with all the others, so that a folder is
synced once for many; who comes alone does not wait for anybody.

A sync that failed is not tried again: the kernel tells of a lost page once and
then forgets it (fsync(2)). So when a folder's sync fails, it fails for those
too who already wait for the next sync of this folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial

from twisted.internet.defer import Deferred

from kvd.errors import StoreFull, SyncFailed
from kvd.store.faults import fault_of
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.waiting import OffReactor

Path = tuple[bytes, ...]
Failed = Mapping[Path, OSError]


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
        Sync a file that has no name yet.

        Raises:
            StoreFull: The filesystem found out only now.
            SyncFailed: The file is lost.
        """
        try:
            await self._off_reactor(partial(os.fsync, descriptor))
        except OSError as error:
            fault = fault_of(error, "The upload cannot be synced")
            if isinstance(fault, StoreFull):
                raise fault from error
            raise _sync_failed(error, "The upload was lost at its sync") from error

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
        paths = {waiter.path for waiter in batch}
        self._off_reactor(partial(sync_paths, self._root, paths)).addCallback(
            self._synced, batch
        )

    def _synced(self, failed: Failed, batch: list[_Waiter]) -> None:
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


def sync_paths(root: int, paths: Iterable[Path]) -> Failed:
    """
    Sync all folders on all the paths, each once.

    Returns:
        The errors of those that failed.
    """
    synced: set[Path] = set()
    failed: dict[Path, OSError] = {}
    for path in paths:
        try:
            folder = os.dup(root)
        except OSError as error:
            return {(): error}
        _sync_path(folder, path, synced, failed)
    return failed


def _sync_path(
    folder: int, path: Path, synced: set[Path], failed: dict[Path, OSError]
) -> None:
    here: Path = ()
    try:
        for depth in range(len(path) + 1):
            here = path[:depth]
            if here:
                inner = os.open(here[-1], FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = inner
            if here not in synced:
                synced.add(here)
                os.fsync(folder)
    except (FileNotFoundError, NotADirectoryError):
        # Pruned, maybe after the folder around it was synced: once more.
        _sync_again(folder, here[:-1], failed)
    except OSError as error:
        failed[here] = error
    finally:
        os.close(folder)


def _sync_again(folder: int, path: Path, failed: dict[Path, OSError]) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        failed[path] = error


def _sync_failed(error: OSError, sentence: str) -> SyncFailed:
    failed = SyncFailed(f"{sentence}: {error.strerror}.")
    failed.__cause__ = error
    return failed
