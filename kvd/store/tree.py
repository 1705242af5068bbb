"""
Values as files below a root: finding, publishing, restoring and removing them.

Nothing here waits, except for the disk. Methods that change a key are called while its
lock is held (`kvd.store.locks`), so that no other kvd changes the same key meanwhile.
Other keys may come and go at any time, and with them the folders that this key needs.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple, Protocol

from kvd.errors import KeyConflict, StoreFault
from kvd.model.conditions import Conditions
from kvd.model.keys import Key, escape
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.epochs import Epochs, epoch_of_value
from kvd.store.exchange import exchange_is_cheaper
from kvd.store.faults import absence, folder_conflict, path_conflict
from kvd.store.folders import Parents, open_folder, prune, remove_empty, split
from kvd.store.placing import (
    CREATED,
    KEPT,
    SCARCE,
    SPARE_BYTES,
    SPARE_SHARE,
    SPARE_TIMES,
    UNLINKED,
    UNSEALED,
    Descriptors,
    Names,
    Placed,
    Present,
    Room,
    Seal,
    SealWriter,
    place,
    place_in_python,
)
from kvd.store.replaced import MOST_KEPT, AllKept, keeps_replaced, note_change
from kvd.store.sidecars import Sidecars
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

KEEPING: Final = (MOST_KEPT, SPARE_SHARE, SPARE_BYTES, SPARE_TIMES, SLASH)
"""
For the fast path: how many replaced values are kept at once at most, those of
`kvd.store.placing`, and what stands for a slash in the names of what is kept.
"""


class CannotBeKept(Exception):
    """
    The replaced value cannot be kept, so the new one must be synced before it is
    published.
    """


class CannotBeSealed(Exception):
    """
    The attribute or the times of the file cannot be set, with the errno of that.
    """

    def __init__(self, error: int) -> None:
        super().__init__(os.strerror(error))
        self.error = OSError(error, os.strerror(error))


class Sealed(Protocol):
    """
    A written file that is to be published.
    """

    @property
    def descriptor(self) -> int: ...

    def seal_with(self, epoch: int) -> Seal:
        """
        What it is sealed with if it is published now, in an epoch.
        """

    def was_sealed(self, published_us: int, epoch: int) -> None:
        """
        It has this date and this epoch; a date of 0: none.
        """


class _Publication(NamedTuple):
    """
    One that was done.
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
        self.kept: AllKept | None = None
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
        file: Sealed,
        write: SealWriter | None = None,
        *,
        synced: bool = False,
    ) -> FileValue | None:
        """
        Seal a finished file, and rename it to its key.

        Args:
            uploads: The folder of the file.
            upload: The name of the file, which is gone afterwards.
            key: The key.
            conditions: What must be true of the current value.
            file: The file itself.
            write: Seals it, where attributes are in files of their own.
            synced: Whether the file is synced: then the value that it replaces need not
                be kept.

        Returns:
            The value that the key had, closed; None: it had none. When its name is
            lost on the disk too, `forget` it.

        Raises:
            CannotBeKept: The file must be synced first.
            CannotBeSealed: The file cannot be sealed.
        """
        try:
            for _ in range(_TRIES):
                done = self._publish(
                    uploads, upload, key, conditions, file, write, synced=synced
                )
                if done is not None:
                    return done.replaced
            raise StoreFault(
                f"/{escape(key)} cannot be published: other processes keep removing its"
                " folder or the upload itself."
            )
        except BaseException:
            prune(self._root, split(key)[0])
            raise

    def _publish(
        self,
        uploads: UploadFolder,
        upload: bytes,
        key: Key,
        conditions: Conditions,
        file: Sealed,
        write: SealWriter | None,
        *,
        synced: bool,
    ) -> _Publication | None:
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
            keeps = self._keeps(key, current, synced)
            kept = uploads.name_to_keep(key) if keeps else b""
            if kept is None:
                raise CannotBeKept
            names = Names(upload, name, kept)
            epoch = 0 if synced or self.epochs is None else self.epochs.current()
            seal = file.seal_with(epoch)
            placed = self._place(uploads, folder, names, current, file, seal, write)
            file.was_sealed(placed.sealed_us, placed.sealed_epoch)
            uploads.note_left(placed.left, placed.left_error)
            self._check(placed)
        except FileNotFoundError:
            return None  # Pruned after it was opened, or removed by another program.
        except IsADirectoryError as error:
            if not remove_empty(folder, name):
                raise folder_conflict(key) from error
            return None
        finally:
            self.leave(folder)
        note_change(self.kept, key, kept if placed.result == KEPT else b"")
        return _Publication(current)

    def _keeps(self, key: Key, current: FileValue | None, synced: bool) -> bool:
        """
        Whether what a key has is kept when it is replaced.

        Raises:
            CannotBeKept: It should be, but too much is kept already.
        """
        if current is None or synced:
            return False
        keeps = keeps_replaced(self.kept, key, MOST_KEPT)
        if keeps is None:
            raise CannotBeKept
        return keeps

    def _place(
        self,
        uploads: UploadFolder,
        folder: int,
        names: Names,
        current: FileValue | None,
        file: Sealed,
        seal: Seal,
        write: SealWriter | None,
    ) -> Placed:
        lock = -1 if self.epochs is None else self.epochs.lock
        descriptors = Descriptors(uploads.descriptor, file.descriptor, folder, lock)
        keeps = bool(names.kept)
        room = self._room() if keeps else Room(0, 0)
        present = _present(current)
        if write is None:
            return place(descriptors, names, keeps, self.exchanges, room, present, seal)
        return place_in_python(
            descriptors, names, keeps, self.exchanges, room, present, seal, write
        )

    def _room(self) -> Room:
        space = os.fstatvfs(self._root)
        unit = space.f_frsize
        return Room(space.f_bavail * unit, space.f_blocks * unit)

    @staticmethod
    def _check(placed: Placed) -> None:
        if placed.result >= CREATED:
            return
        if placed.result in (SCARCE, UNLINKED):
            # Not permitted, not supported, or too many links.
            raise CannotBeKept
        if placed.result == UNSEALED:
            raise CannotBeSealed(placed.error)
        raise OSError(placed.error, os.strerror(placed.error))

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
        note_change(self.kept, key, b"")
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


def _present(current: FileValue | None) -> Present:
    if current is None:
        return Present(False, 0, 0, 0)
    size = current.info.size
    if not current.is_ours:
        return Present(True, size, 0, 0)
    earliest_us = round(current.info.changed * 1_000_000)
    return Present(True, size, earliest_us, epoch_of_value(current.status))


def _is_folder(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
