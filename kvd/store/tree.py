"""
Keys as paths below a root: what is there, and the steps that change it.

Everything here is done at once and waits for nothing but the disk. What
changes something is called while the key's lock is held (`kvd.store.locks`),
so that no other kvd changes the same key meanwhile. Other keys may come and go
all the time, and with them the folders that this one needs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from kvd.errors import KeyAbsent, KeyConflict, StoreFault
from kvd.model.conditions import Conditions
from kvd.model.keys import Key, escape
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.exchange import swap, swapping_is_cheaper
from kvd.store.faults import folder_conflict, path_conflict
from kvd.store.folders import Parents, open_folder, prune, remove_empty, split
from kvd.store.uploads import Kept, UploadFolder
from kvd.store.value import (
    FileValue,
    describe,
    is_absence,
    open_file,
)

# How often a folder may be pruned by others between being made and being used.
# Two processes that did nothing else but that lost twice in a row at the most.
_TRIES: Final = 100

SOMETHING: Final = Key(b"")
"""
What is entered in `Tree.kept` when something has changed, whether or not anything is
kept for it.
"""


MOST_KEPT: Final = 65536
"""
So many replaced values are kept at once, however long a sync takes; the same in
`kvd.http.fast_path`.
"""


_SPARE_SHARE: Final = 16
_SPARE_BYTES: Final = 1 << 30
_SPARE_TIMES: Final = 4


def is_scarce(size: int, root: int) -> bool:
    """
    Whether there is too little room to keep a value that is replaced: most of it would
    be taken, or there is little anyway, however small the value. `kvd.http.fast_path`
    goes by the same.

    Args:
        size: Of the value, in bytes.
        root: In the file system in question.
    """
    space = os.fstatvfs(root)
    free = space.f_bavail * space.f_frsize
    least = min(space.f_blocks * space.f_frsize // _SPARE_SHARE, _SPARE_BYTES)
    return free < max(least, _SPARE_TIMES * size)


class CannotBeKept(Exception):
    """
    What is to be replaced cannot be kept: what replaces it must be synced before.
    """


class Tree:
    """
    The files below one root.
    """

    def __init__(self, root: int, modes: Modes = DEFAULT_MODES) -> None:
        """
        Args:
            root: Stays the caller's.
            modes: Of what is made.
        """
        self._root = root
        self._modes = modes
        self.swaps = swapping_is_cheaper(root)
        """How a value is replaced; see `kvd.store.exchange`."""
        self.kept: dict[Key, bytes] | None = None
        """Where what is replaced is kept for a while; see `kvd.store.writeback`."""

    def _enter(self, parents: Parents, *, make: bool = False) -> int:
        """
        Open the folder of a key; see `open_folder`. Then `leave` it.
        """
        if not parents:
            return self._root
        return open_folder(self._root, parents, make=make, mode=self._modes.folder)

    def leave(self, folder: int) -> None:
        """
        Let go of what was entered.
        """
        if folder != self._root:
            os.close(folder)

    def open(self, key: Key) -> FileValue | None:
        """
        Open a value; None if there is none.
        """
        parents, name = split(key)
        try:
            folder = self._enter(parents)
            try:
                return open_value(folder, name, key)
            finally:
                self.leave(folder)
        except OSError as error:
            if is_absence(error):
                return None
            raise

    def enter_near(self, key: Key) -> int:
        """
        Open the folder in which a value will be, or the last on the way to it that
        exists; then `leave` it. Finds out early that a value cannot have this key.

        Raises:
            KeyConflict: See `IStore.begin`.
        """
        parents, name = split(key)
        try:
            folder = self._enter(parents)
        except FileNotFoundError:
            return self._enter_last(parents)
        except NotADirectoryError as error:
            raise self._path_conflict(key) from error
        try:
            if _is_folder(folder, name) and not remove_empty(folder, name):
                raise folder_conflict(key)
        except BaseException:
            self.leave(folder)
            raise
        return folder

    def _enter_last(self, parents: Parents) -> int:
        for depth in range(len(parents) - 1, 0, -1):
            try:
                return self._enter(parents[:depth])
            except FileNotFoundError:
                continue
        return self._root

    def _path_conflict(self, key: Key) -> KeyConflict:
        """
        What to raise where a key leads through something that is no folder.
        """
        parents, _ = split(key)
        for depth in range(1, len(parents) + 1):
            way = b"/".join(parents[:depth])
            try:
                status = os.stat(way, dir_fd=self._root, follow_symlinks=False)
            except OSError:
                break  # It was, a moment ago.
            if stat.S_ISREG(status.st_mode):
                return path_conflict(key, way)
            if stat.S_ISLNK(status.st_mode):
                return path_conflict(key, way, "a link, which kvd does not follow,")
            if not stat.S_ISDIR(status.st_mode):
                return path_conflict(key, way, "neither a value nor a folder")
        return path_conflict(key, b"/".join(parents), "no folder")

    def publish(
        self,
        uploads: UploadFolder,
        upload: bytes,
        key: Key,
        conditions: Conditions,
        seal: Callable[[float | None], object],
        *,
        synced: bool = False,
    ) -> bool:
        """
        Give a finished file its name.

        Args:
            uploads: The folder that it is in.
            upload: Its name there; gone afterwards.
            key: Where it goes.
            conditions: What must hold of the value that is there.
            seal: Called before it gets its name, with the date of the value that is
                there, if kvd wrote it: the new one's must not be earlier.
            synced: Whether the file is on the disk: then what it replaces need not be
                kept.

        Returns:
            Whether a value was there.

        Raises:
            CannotBeKept: It must be synced before.
        """
        try:
            for _ in range(_TRIES):
                replaced = self._place(
                    uploads, upload, key, conditions, seal, synced=synced
                )
                if replaced is not None:
                    return replaced
            raise StoreFault(
                f"/{escape(key)} cannot be published: its folder, or the upload"
                " itself, is removed by others again and again."
            )
        except BaseException:
            prune(self._root, split(key)[0])
            raise

    def _place(
        self,
        uploads: UploadFolder,
        upload: bytes,
        key: Key,
        conditions: Conditions,
        seal: Callable[[float | None], object],
        *,
        synced: bool,
    ) -> bool | None:
        """
        Try to; None if the way was not clear but may be now.
        """
        parents, name = split(key)
        try:
            folder = self._enter(parents, make=True)
        except FileNotFoundError:
            return None  # Pruned between being made and being opened.
        except NotADirectoryError as error:
            raise self._path_conflict(key) from error
        try:
            current = _current(folder, name, key)
            conditions.check_change(None if current is None else current.info)
            # What a file of others says may be any time. If it is in the future, no
            # client was told (`kvd.http.methods.get`).
            ours = current if current is not None and current.is_ours else None
            seal(None if ours is None else ours.info.changed)
            if current is None:
                os.rename(
                    upload, name, src_dir_fd=uploads.descriptor, dst_dir_fd=folder
                )
                self._changed()
            else:
                size = current.info.size
                self._replace(uploads, upload, folder, name, key, size, synced=synced)
        except FileNotFoundError:
            return None  # Pruned after it was opened, or removed by a stranger.
        except IsADirectoryError as error:
            if not remove_empty(folder, name):
                raise folder_conflict(key) from error
            return None
        finally:
            self.leave(folder)
        return current is not None

    def _replace(
        self,
        uploads: UploadFolder,
        upload: bytes,
        folder: int,
        name: bytes,
        key: Key,
        size: int,
        *,
        synced: bool,
    ) -> None:
        kept = b""
        if self.kept is not None and key not in self.kept and not synced:
            if len(self.kept) >= MOST_KEPT or is_scarce(size, self._root):
                raise CannotBeKept
            kept = _keep(uploads, folder, name, key)
        try:
            if self.swaps:
                swap(uploads.descriptor, upload, folder, name)
                uploads.remove(upload)
            else:
                os.rename(
                    upload, name, src_dir_fd=uploads.descriptor, dst_dir_fd=folder
                )
        except OSError:
            if kept:
                uploads.remove(kept)
            raise
        if self.kept is not None and kept:
            self.kept[key] = kept
        self._changed()

    def _changed(self) -> None:
        if self.kept is not None:
            self.kept[SOMETHING] = b""

    def restore(self, kept: Kept) -> bool:
        """
        Give a key back the value that is kept for it, if its own was torn. The key is
        locked.

        Returns:
            Whether it got it.
        """
        parents, name = split(kept.key)
        try:
            folder = self._enter(parents)
        except OSError:
            return False
        try:
            if _is_torn(folder, name, kept.key) and _is_whole(kept):
                os.rename(kept.name, name, src_dir_fd=kept.folder, dst_dir_fd=folder)
                return True
        except OSError as error:
            if not is_absence(error):
                raise
        finally:
            self.leave(folder)
        return False

    def remove(self, key: Key, conditions: Conditions) -> None:
        """
        Remove a value, and the folders that it leaves empty.

        Raises:
            KeyAbsent: There is none.
            PreconditionFailed: It is not the one that was meant.
        """
        parents, name = split(key)
        folder = self._enter(parents)
        try:
            current = _current(folder, name, key)
            if current is None:
                raise KeyAbsent(f"/{escape(key)} has no value.")
            conditions.check_change(current.info)
            os.unlink(name, dir_fd=folder)
        finally:
            self.leave(folder)
        self._changed()
        # Within the key's lock, though it needs none: so a sync that follows
        # finds the folders as they stay.
        prune(self._root, parents)


def open_value(folder: int, name: bytes, key: Key) -> FileValue | None:
    """
    Open the value that a file of a folder is; None if it is none.

    Raises:
        OSError: It cannot be opened; see `is_absence`.
    """
    descriptor = open_file(folder, name)
    value = None
    try:
        described = describe(descriptor, key)
        if described is not None:
            value = FileValue(descriptor, described)
    finally:
        if value is None:
            os.close(descriptor)
    return value


def _current(folder: int, name: bytes, key: Key) -> FileValue | None:
    """
    The value that a file of a folder is, closed: for what is known of it. None if it
    is none.
    """
    try:
        value = open_value(folder, name, key)
    except OSError as error:
        if is_absence(error):
            return None
        raise
    if value is not None:
        value.close()
    return value


def _keep(uploads: UploadFolder, folder: int, name: bytes, key: Key) -> bytes:
    """
    Give a value a second name, before it is replaced.

    Returns:
        Its name among the uploads.

    Raises:
        CannotBeKept: There can be none.
        FileNotFoundError: The value is gone, or the folder of uploads.
    """
    kept = uploads.name_to_keep(key)
    if kept is None:
        raise CannotBeKept
    try:
        os.link(
            name,
            kept,
            src_dir_fd=folder,
            dst_dir_fd=uploads.descriptor,
            follow_symlinks=False,
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        # Forbidden, unknown here, or one too many.
        raise CannotBeKept from error
    return kept


def _is_torn(folder: int, name: bytes, key: Key) -> bool:
    """
    Whether a file is less than what kvd wrote.

    Raises:
        OSError: It cannot be opened; see `is_absence`.
    """
    descriptor = open_file(folder, name)
    try:
        described = describe(descriptor, key)
        return described is None and stat.S_ISREG(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _is_whole(kept: Kept) -> bool:
    """
    Whether a file is a value, with all that was written.

    Raises:
        OSError: It cannot be opened; see `is_absence`.
    """
    descriptor = open_file(kept.folder, kept.name)
    try:
        described = describe(descriptor, kept.key)
        return described is not None and (
            described.is_ours or not kept.may_be_unfinished
        )
    finally:
        os.close(descriptor)


def _is_folder(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
