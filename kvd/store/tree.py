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
from typing import Final

from kvd.conditions import Conditions
from kvd.errors import KeyAbsent, StoreFault
from kvd.interfaces import ValueInfo
from kvd.keys import Key, escape
from kvd.store.faults import folder_conflict, path_conflict
from kvd.store.folders import open_folder, prune, remove_empty, split
from kvd.store.value import FileValue, describe, is_absence, open_file

# How often a folder may be pruned by others between being made and being used.
# Two processes that did nothing else but that lost twice in a row at the most.
_TRIES: Final = 100


class Tree:
    """
    The files below one root.
    """

    def __init__(self, root: int) -> None:
        self._root = root

    def open(self, key: Key) -> FileValue | None:
        """
        Open a value; None if there is none.
        """
        parents, name = split(key)
        try:
            if not parents:
                return open_value(self._root, name, key)
            folder = open_folder(self._root, parents)
            try:
                return open_value(folder, name, key)
            finally:
                os.close(folder)
        except OSError as error:
            if is_absence(error):
                return None
            raise

    def stat(self, key: Key) -> ValueInfo | None:
        """
        What is known of a value; None if there is none.
        """
        value = self.open(key)
        if value is None:
            return None
        value.close()
        return value.info

    def expect_room_for(self, key: Key) -> None:
        """
        Find out early that a value cannot have this key.

        Raises:
            KeyConflict: See `IStore.begin`.
        """
        parents, name = split(key)
        try:
            folder = open_folder(self._root, parents)
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            raise path_conflict(key) from error
        try:
            if _is_folder(folder, name) and not remove_empty(folder, name):
                raise folder_conflict(key)
        finally:
            os.close(folder)

    def publish(
        self, uploads: int, upload: str, key: Key, conditions: Conditions
    ) -> ValueInfo | None:
        """
        Give a finished file its name.

        Args:
            uploads: The folder that it is in.
            upload: Its name there; gone afterwards.
            key: Where it goes.
            conditions: What must hold of the value that is there.

        Returns:
            The value that was there.
        """
        current = self.stat(key)
        conditions.check_change(current)
        parents, _ = split(key)
        try:
            for _ in range(_TRIES):
                if self._rename(uploads, upload, key):
                    return current
            raise StoreFault(
                f"/{escape(key)} cannot be published: its folder, or the upload"
                " itself, is removed by others again and again."
            )
        except BaseException:
            prune(self._root, parents)
            raise

    def _rename(self, uploads: int, upload: str, key: Key) -> bool:
        """
        Try to; False if the way was not clear but may be now.
        """
        parents, name = split(key)
        try:
            folder = open_folder(self._root, parents, make=True)
        except FileNotFoundError:
            return False  # Pruned between being made and being opened.
        except NotADirectoryError as error:
            raise path_conflict(key) from error
        try:
            os.rename(upload, name, src_dir_fd=uploads, dst_dir_fd=folder)
        except FileNotFoundError:
            return False  # Pruned after it was opened.
        except IsADirectoryError as error:
            if not remove_empty(folder, name):
                raise folder_conflict(key) from error
            return False
        finally:
            os.close(folder)
        return True

    def remove(self, key: Key, conditions: Conditions) -> None:
        """
        Remove a value, and the folders that it leaves empty.

        Raises:
            KeyAbsent: There is none.
            PreconditionFailed: It is not the one that was meant.
        """
        current = self.stat(key)
        if current is None:
            raise KeyAbsent(f"/{escape(key)} has no value.")
        conditions.check_change(current)
        parents, name = split(key)
        folder = open_folder(self._root, parents)
        try:
            os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
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
            info, is_ours = described
            value = FileValue(descriptor, info, is_ours=is_ours)
    finally:
        if value is None:
            os.close(descriptor)
    return value


def _is_folder(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
