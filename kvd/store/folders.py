"""
Folders below the root of a store, reached without ever following a link.

A path is walked one name at a time, each opened relative to the one before and
refused if it is a link, so that nothing placed below the root leads out of it.
``..`` is never a name here; `prune`, which climbs by it, makes sure that it
comes out where it went in.

Folders come and go: a PUT makes those it needs, a DELETE prunes those it
emptied, in any process, without a lock. This is safe because the kernel
decides: ``rmdir`` fails on a folder that holds something, and nothing can be
put into a folder that is gone (ENOENT), which tells whoever tries to make it
again.

Only folders that kvd made come and go (`kvd.store.conferring`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeAlias

from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.settings import DEFAULT_MODES
from kvd.store.conferring import is_own, is_plain, make_folder, mark

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

MAX_DEPTH: Final = MAX_KEY_BYTES // 2
"""
The folders that the longest key can lead through.
"""

Parents: TypeAlias = Sequence[bytes]
"""
The names of the folders from the root to a value.
"""


def split(key: Key) -> tuple[Parents, bytes]:
    """
    The folders that a key leads through, and the name in the last of them.
    """
    *parents, name = key.split(b"/")
    return parents, name


def open_folder(
    root: int, parents: Parents, *, make: bool = False, mode: int = DEFAULT_MODES.folder
) -> int:
    """
    Open the folder at the end of a path; the caller closes it.

    Args:
        root: Where the path begins.
        parents: May be empty: the root itself.
        make: Make what is missing.
        mode: The permissions of what is made.

    Raises:
        FileNotFoundError: A folder is missing; with `make`, it was removed
            again meanwhile.
        NotADirectoryError: A name is a value's, or a link.
        OSError: Anything else.
    """
    if not parents:
        # No duplicate: two of these must not share their place in a listing.
        return os.open(".", FOLDER_FLAGS, dir_fd=root)
    folder = root
    for name in parents:
        try:
            inner = _enter(folder, name, make, mode)
        finally:
            if folder != root:
                os.close(folder)
        folder = inner
    return folder


def _enter(folder: int, name: bytes, make: bool, mode: int) -> int:
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    # Two descriptors are put by for what follows: one to open the folder, one more
    # to `prune` it if the next step fails. Else want of them would leave it empty.
    put_by = os.dup(folder)
    try:
        os.close(os.dup(folder))
        inner = make_folder(folder, name, mode)
    except FileExistsError:
        # Somebody who needs it too was faster.
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    finally:
        os.close(put_by)
    try:
        mark(inner)
    except OSError:
        os.close(inner)
        os.rmdir(name, dir_fd=folder)
        raise
    return inner


def prune(root: int, parents: Parents) -> None:
    """
    Remove the folder at the end of a path and those around it, as far as they
    are empty and kvd made them; never the root.

    An empty folder is as good as none, so a failure is none either. Whoever
    empties a folder prunes it: where another was faster, that one goes on.
    """
    folder = root
    try:
        # Which folder contains each name. Numbers, not descriptors: a key may
        # lead through more folders than a process may have files open.
        walked: list[tuple[bytes, tuple[int, int]]] = []
        for name in parents:
            try:
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            except OSError:
                break  # Pruned by another, or made by nobody: begin above it.
            walked.append((name, _identity(folder)))
            if folder != root:
                os.close(folder)
            folder = inner
        for name, container in reversed(walked):
            try:
                if not is_own(folder):
                    return
                outer = os.open("..", FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = outer
                if _identity(folder) != container:
                    return  # Moved by somebody while we were in it.
                os.rmdir(name, dir_fd=folder)
            except OSError:
                return  # Mostly ENOTEMPTY.
    finally:
        if folder != root:
            os.close(folder)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def remove_empty(folder: int, name: bytes, depth: int = MAX_DEPTH) -> bool:
    """
    Remove a folder that holds nothing but folders, however deep, unless somebody made
    one of them to confer something on what is created in it.

    Args:
        folder: Where it is.
        name: Its name.
        depth: How many levels are looked at; more than a key can lead through
            were made by others and are left to them.

    Returns:
        Whether it is gone. If it is not, it holds or confers something, and only
        empty folders may have been removed from it.
    """
    try:
        inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    try:
        if not (is_own(inner) or is_plain(inner)):
            return False
        with os.scandir(inner) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False) or depth == 0:
                    return False
                if not remove_empty(inner, os.fsencode(entry.name), depth - 1):
                    return False
    finally:
        os.close(inner)
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        pass  # Pruned by somebody else meanwhile.
    except OSError:
        return False  # Filled meanwhile.
    return True
