"""
Values as files below a root: finding, publishing, restoring and removing them.

Nothing here waits, except for the disk. Methods that change a key are called while its
lock is held (`kvd.store.locks`), so that no other kvd changes the same key meanwhile.
Other keys may come and go at any time, and with them the folders that this key needs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from kvd.errors import KeyConflict, StoreFault
from kvd.model.conditions import Conditions
from kvd.model.keys import Key, escape
from kvd.native import compiled
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.epochs import Epochs, is_of
from kvd.store.exchange import exchange_is_cheaper, exchange_names
from kvd.store.faults import absence, folder_conflict, path_conflict
from kvd.store.folders import Parents, open_folder, prune, remove_empty, split
from kvd.store.sidecars import Sidecars
from kvd.store.unwritten import has_no_place
from kvd.store.uploads import SLASH, Kept, UploadFolder
from kvd.store.value import (
    FileValue,
    describe,
    is_absence,
    open_file,
)

# How often a call accepts that another process prunes a folder between its making and
# its use. Two processes that did nothing else lost at most twice in a row.
_TRIES: Final = 100

SOMETHING: Final = Key(b"")
"""
The entry in `Tree.kept` that says that something has changed, whether or not a replaced
value is kept.
"""


MOST_KEPT: Final = 65536
"""
The most replaced values that are kept at once, however long a sync takes.
"""


_SPARE_SHARE: Final = 16
_SPARE_BYTES: Final = 1 << 30
_SPARE_TIMES: Final = 4

KEEPING: Final = (MOST_KEPT, _SPARE_SHARE, _SPARE_BYTES, _SPARE_TIMES, SLASH)
"""
The same for the fast path, and what stands for a slash in
the names of what is kept.
"""


def is_scarce_in_python(size: int, free: int, all_bytes: int, /) -> bool:
    """
    See `is_scarce`. Without a C compiler, this does what ``kvd/native/publish.c`` does.
    """
    least = min(all_bytes // _SPARE_SHARE, _SPARE_BYTES)
    return free < max(least, _SPARE_TIMES * size)


_native = compiled("_fast_path")
_is_scarce: Callable[[int, int, int], bool] = (
    is_scarce_in_python
    if _native is None
    else partial(_native.is_scarce, _SPARE_SHARE, _SPARE_BYTES, _SPARE_TIMES)
)


def is_scarce(size: int, root: int) -> bool:
    """
    Whether there is too little room to keep a value that is replaced: the value would
    take much of the free room, or there is little room in any case.

    Args:
        size: The size of the value in bytes.
        root: A folder of the file system.
    """
    space = os.fstatvfs(root)
    unit = space.f_frsize
    return _is_scarce(size, space.f_bavail * unit, space.f_blocks * unit)


class CannotBeKept(Exception):
    """
    The replaced value cannot be kept, so the new one must be synced before it is
    published.
    """


class _Placed(NamedTuple):
    """
    A publication that was done.
    """

    replaced: FileValue | None
    """The value that was replaced, if there was one; closed."""


class Tree:
    """
    The files below one root.
    """

    def __init__(
        self,
        root: int,
        modes: Modes = DEFAULT_MODES,
        sidecars: Sidecars | None = None,
    ) -> None:
        """
        Args:
            root: The store's folder; the caller closes it.
            modes: The modes of folders that are made.
            sidecars: Where the attributes of values are; None: in the file system.
        """
        self._root = root
        self._modes = modes
        self.sidecars = sidecars
        self.exchanges = exchange_is_cheaper(root)
        """Whether values are replaced by exchanging names; see `kvd.store.exchange`."""
        self.kept: dict[Key, bytes] | None = None
        """The names of replaced values that are kept; see `kvd.store.writeback`."""
        self.epochs: Epochs | None = None
        """By which is decided whether a replaced value need be kept; None: all are."""

    def _enter(self, parents: Parents, *, make: bool = False) -> int:
        """
        Open the folder of a key; see `open_folder`. Call `leave` afterwards.
        """
        if not parents:
            return self._root
        return open_folder(self._root, parents, make=make, mode=self._modes.folder)

    def leave(self, folder: int) -> None:
        """
        Close a folder that was entered.
        """
        if folder != self._root:
            os.close(folder)

    def open(self, key: Key) -> FileValue | None:
        """
        Open a value; return None if there is none.
        """
        parents, name = split(key)
        try:
            folder = self._enter(parents)
            try:
                return open_value(folder, name, key, self.sidecars)
            finally:
                self.leave(folder)
        except OSError as error:
            if is_absence(error):
                return None
            raise

    def enter_parent(self, key: Key) -> int:
        """
        Open the folder in which a value will be, or the last one on its path that
        exists; call `leave` afterwards. Detects early that a value cannot have this
        key.

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
        Return the exception for a key whose path contains something that is not a
        folder.
        """
        parents, _ = split(key)
        for depth in range(1, len(parents) + 1):
            path = b"/".join(parents[:depth])
            try:
                status = os.stat(path, dir_fd=self._root, follow_symlinks=False)
            except OSError:
                break  # It has disappeared since.
            if stat.S_ISREG(status.st_mode):
                return path_conflict(key, path)
            if stat.S_ISLNK(status.st_mode):
                return path_conflict(key, path, "a link, which kvd does not follow,")
            if not stat.S_ISDIR(status.st_mode):
                return path_conflict(key, path, "neither a value nor a folder")
        return path_conflict(key, b"/".join(parents), "no folder")

    def publish(
        self,
        uploads: UploadFolder,
        upload: bytes,
        key: Key,
        conditions: Conditions,
        seal: Callable[[float | None, int], object],
        *,
        synced: bool = False,
    ) -> FileValue | None:
        """
        Rename a finished file to its key.

        Args:
            uploads: The folder of the file.
            upload: The name of the file, which is gone afterwards.
            key: The key.
            conditions: What must be true of the current value.
            seal: Called before the rename, with the date of the current value if kvd
                wrote it: the date of the new value must not be earlier; and with the
                epoch of the new value.
            synced: Whether the file is synced: then the value that it replaces need not
                be kept.

        Returns:
            The value that the key had, closed; None: it had none. When its name is
            lost on the disk too, `forget` it.

        Raises:
            CannotBeKept: The file must be synced first.
        """
        try:
            for _ in range(_TRIES):
                placed = self._place(
                    uploads, upload, key, conditions, seal, synced=synced
                )
                if placed is not None:
                    return placed.replaced
            raise StoreFault(
                f"/{escape(key)} cannot be published: other processes keep removing its"
                " folder or the upload itself."
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
        seal: Callable[[float | None, int], object],
        *,
        synced: bool,
    ) -> _Placed | None:
        """
        Try to publish; return None if that failed but may succeed now.
        """
        parents, name = split(key)
        try:
            folder = self._enter(parents, make=True)
        except FileNotFoundError:
            return None  # Pruned between being made and being opened.
        except NotADirectoryError as error:
            raise self._path_conflict(key) from error
        try:
            current = self._current(folder, name, key)
            conditions.check_change(None if current is None else current.info)
            # The date of a foreign file may be in the future. Then no client has seen
            # it (`kvd.http.methods.get`).
            ours = current if current is not None and current.is_ours else None
            epoch = 0 if synced or self.epochs is None else self.epochs.current()
            seal(None if ours is None else ours.info.changed, epoch)
            if current is None:
                os.rename(
                    upload, name, src_dir_fd=uploads.descriptor, dst_dir_fd=folder
                )
                self._changed()
            else:
                self._replace(uploads, upload, folder, name, current, synced=synced)
        except FileNotFoundError:
            return None  # Pruned after it was opened, or removed by another program.
        except IsADirectoryError as error:
            if not remove_empty(folder, name):
                raise folder_conflict(key) from error
            return None
        finally:
            self.leave(folder)
        return _Placed(current)

    def _replace(
        self,
        uploads: UploadFolder,
        upload: bytes,
        folder: int,
        name: bytes,
        current: FileValue,
        *,
        synced: bool,
    ) -> None:
        kept = b""
        key = current.info.key
        if self.kept is not None and key not in self.kept and not synced:
            if len(self.kept) >= MOST_KEPT or is_scarce(current.info.size, self._root):
                raise CannotBeKept
            kept = _keep(uploads, folder, name, key)
        try:
            if self.exchanges:
                exchange_names(uploads.descriptor, upload, folder, name)
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
            if self._is_unsynced(uploads, kept, current):
                uploads.remove(kept)
            else:
                self.kept[key] = kept
        self._changed()

    def _is_unsynced(
        self, uploads: UploadFolder, kept: bytes, value: FileValue
    ) -> bool:
        """
        Whether a value that was replaced has never been on the disk; see
        `kvd.store.epochs`.
        """
        if (
            self.epochs is None
            or not value.is_ours
            or not is_of(self.epochs.current(), value.status)
        ):
            return False
        try:
            file = open_file(uploads.descriptor, kept)
        except OSError:
            return False
        try:
            return has_no_place(file, value.info.size)
        finally:
            os.close(file)

    def _changed(self) -> None:
        if self.kept is not None:
            self.kept[SOMETHING] = b""

    def restore(self, kept: Kept) -> bool:
        """
        Restore the kept value of a key if its current value is torn. The caller holds
        the key's lock.

        Returns:
            Whether the value was restored.
        """
        parents, name = split(kept.key)
        try:
            folder = self._enter(parents)
        except OSError:
            return False
        try:
            if self._is_torn(folder, name, kept.key) and self._is_whole(kept):
                os.rename(kept.name, name, src_dir_fd=kept.folder, dst_dir_fd=folder)
                return True
        except OSError as error:
            if not is_absence(error):
                raise
        finally:
            self.leave(folder)
        return False

    def remove(self, key: Key, conditions: Conditions) -> FileValue:
        """
        Remove a value, and the folders that become empty.

        Returns:
            The value, closed. When its name is lost on the disk too, `forget` it.

        Raises:
            KeyAbsent: The key has no value.
            PreconditionFailed: A condition does not hold.
        """
        parents, name = split(key)
        folder = self._enter(parents)
        try:
            current = self._current(folder, name, key)
            if current is None:
                raise absence(key)
            conditions.check_change(current.info)
            os.unlink(name, dir_fd=folder)
        finally:
            self.leave(folder)
        self._changed()
        # Pruning needs no lock, but happens under the key's lock so that a later sync
        # finds the remaining folders.
        prune(self._root, parents)
        return current

    def forget(self, value: FileValue) -> None:
        """
        Remove what is left of a value that has lost its name. Not earlier: its readers
        need its sidecar.
        """
        if self.sidecars is not None and value.is_ours:
            self.sidecars.remove(value.info.key, value.status)

    def _current(self, folder: int, name: bytes, key: Key) -> FileValue | None:
        """
        Describe a file of a folder as a value, which is closed; return None if it is
        not a value.
        """
        try:
            value = open_value(folder, name, key, self.sidecars)
        except OSError as error:
            if is_absence(error):
                return None
            raise
        if value is not None:
            value.close()
        return value

    def _is_torn(self, folder: int, name: bytes, key: Key) -> bool:
        """
        Whether a file lacks some of what kvd wrote.

        Raises:
            OSError: It cannot be opened; see `is_absence`.
        """
        descriptor = open_file(folder, name)
        try:
            described = describe(descriptor, key, self.sidecars)
            return described is None and stat.S_ISREG(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def _is_whole(self, kept: Kept) -> bool:
        """
        Whether a file is a value and has everything that was written.

        Raises:
            OSError: It cannot be opened; see `is_absence`.
        """
        descriptor = open_file(kept.folder, kept.name)
        try:
            described = describe(descriptor, kept.key, self.sidecars)
            return described is not None and (
                described.is_ours or not kept.may_be_unfinished
            )
        finally:
            os.close(descriptor)


def open_value(
    folder: int, name: bytes, key: Key, sidecars: Sidecars | None = None
) -> FileValue | None:
    """
    Open a file of a folder as a value; return None if it is not a value.

    Args:
        folder: The folder.
        name: The name of the file.
        key: The key of the value.
        sidecars: Where its attribute is; None: in the file system.

    Raises:
        OSError: It cannot be opened; see `is_absence`.
    """
    for _ in range(_TRIES):
        value = _open_once(folder, name, key, sidecars)
        if (
            sidecars is None
            or value is None
            or value.is_ours
            or _has_name(value, folder, name)
        ):
            return value
        # It was replaced, and its sidecar removed, before that was read.
        value.close()
    raise StoreFault(f"/{escape(key)} cannot be opened: it is replaced all the time.")


def _open_once(
    folder: int, name: bytes, key: Key, sidecars: Sidecars | None
) -> FileValue | None:
    descriptor = open_file(folder, name)
    value = None
    try:
        described = describe(descriptor, key, sidecars)
        if described is not None:
            value = FileValue(descriptor, described)
    finally:
        if value is None:
            os.close(descriptor)
    return value


def _has_name(value: FileValue, folder: int, name: bytes) -> bool:
    """
    Whether the file of a value still has its name. If another file has it, or none,
    that may be a value too: its sidecar is written before.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, value.status)


def _keep(uploads: UploadFolder, folder: int, name: bytes, key: Key) -> bytes:
    """
    Link a value to a second name before it is replaced.

    Returns:
        The name in the upload folder.

    Raises:
        CannotBeKept: It cannot be linked.
        FileNotFoundError: The value or the upload folder is gone.
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
        # Not permitted, not supported, or too many links.
        raise CannotBeKept from error
    return kept


def _is_folder(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
