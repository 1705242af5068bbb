"""
Folders below the root of a store, opened without following links.

A path is opened without following links (openat2(2); one name at a time, each relative
to the one before, where folders are made), so that nothing below the root leads out of
it. No key contains ``..``;
`prune`, which climbs by it, checks that it arrives at the folder from which it
descended.

Folders come and go: a PUT makes the folders that it needs, a DELETE prunes the folders
that it has emptied, in any process, without a lock. This is safe because of the
kernel's guarantees: ``rmdir`` fails if the folder is not empty, and a file cannot be
created in a removed folder (ENOENT), which makes the PUT create the folder again.

A folder that another program made stays, unless it is empty, confers nothing
(`kvd.store.conferring`), and a value is to get its name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.native import compiled
from kvd.settings import DEFAULT_MODES
from kvd.store.conferring import (
    is_own,
    is_plain,
    make_folder_in_python,
    mark,
    unmake_folder,
)

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

MAX_DEPTH: Final = MAX_KEY_BYTES // 2
"""
The number of folders in the path of the longest key.
"""

Parents: TypeAlias = Sequence[bytes]
"""
The names of the folders from the root to a value.
"""


def split(key: Key) -> tuple[Parents, bytes]:
    """
    Split a key into the names of its folders and the name of its file.
    """
    *parents, name = key.split(b"/")
    return parents, name


def open_folder(
    root: int, parents: Parents, *, make: bool = False, mode: int = DEFAULT_MODES.folder
) -> int:
    """
    Open the folder at the end of a path; the caller closes it.

    Args:
        root: The folder where the path begins.
        parents: The names on the path; empty for the root itself.
        make: Whether to make missing folders.
        mode: The permissions of folders that are made.

    Raises:
        FileNotFoundError: A folder is missing; with `make`, it was removed again
            meanwhile.
        NotADirectoryError: A name is a value or a link.
        OSError: Anything else.
    """
    if not parents:
        # Not a duplicate: two of these must not share the offset of a listing.
        return os.open(".", FOLDER_FLAGS, dir_fd=root)
    return open_path(root, b"/".join(parents), mode if make else -1)


class PathOpener(Protocol):
    """
    Opens the folder at the end of a path.
    """

    def __call__(self, root: int, path: bytes, mode: int, /) -> int:
        """
        See `open_folder`.

        Args:
            root: The folder where the path begins.
            path: The names on it, with slashes between them; not empty.
            mode: The permissions of folders that are made; below 0: none are made.
        """


def open_path_by_names(root: int, path: bytes, mode: int) -> int:
    """
    See `PathOpener`. Without a C compiler, this does what ``kvd/native/folder.c`` does
    in one call.
    """
    folder = root
    for name in path.split(b"/"):
        try:
            inner = _enter(folder, name, mode)
        finally:
            if folder != root:
                os.close(folder)
        folder = inner
    return folder


_native = compiled("_fast_path")
open_path: PathOpener = open_path_by_names if _native is None else _native.open_folder
"""
The compiled one, where there is one.
"""


def _enter(folder: int, name: bytes, mode: int) -> int:
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if mode < 0:
            raise
    # Two descriptors are reserved for what follows: one to open the folder, one to
    # `prune` it if the next step fails. Otherwise a lack of descriptors would leave an
    # empty folder.
    reserved = os.dup(folder)
    try:
        os.close(os.dup(folder))
        inner = make_folder_in_python(folder, name, mode)
    except FileExistsError:
        # Another request made it first.
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    finally:
        os.close(reserved)
    try:
        mark(inner)
    except OSError:
        os.close(inner)
        unmake_folder(folder, name)
        raise
    return inner


def prune(root: int, parents: Parents) -> None:
    """
    Remove the folder at the end of a path and the folders around it, as far as they are
    empty and made by kvd; never the root.

    An empty folder does no harm, so failures are ignored. Each process that empties a
    folder prunes it: if another process was faster, that one continues.
    """
    folder = root
    try:
        # Each name with the identity of its folder. Not descriptors: a key may have
        # more folders than a process may have open files.
        walked: list[tuple[bytes, tuple[int, int]]] = []
        for name in parents:
            try:
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            except OSError:
                break  # Pruned by another process, or never made: begin above it.
            walked.append((name, _identity(folder)))
            if folder != root:
                os.close(folder)
            folder = inner
        for name, container in reversed(walked):
            try:
                if not is_own(folder, root):
                    return
                outer = os.open("..", FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = outer
                if _identity(folder) != container:
                    return  # Another process moved it meanwhile.
                os.rmdir(name, dir_fd=folder)
            except OSError:
                return  # Usually ENOTEMPTY.
    finally:
        if folder != root:
            os.close(folder)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def remove_empty(folder: int, name: bytes, depth: int = MAX_DEPTH) -> bool:
    """
    Remove a folder that contains nothing but folders, at any depth, unless one of them
    was made by another program and confers something on files created in it.

    Args:
        folder: The folder that contains it.
        name: Its name.
        depth: How many levels to look at. Folders deeper than any key were made by
            other programs and stay.

    Returns:
        Whether the folder is gone. If not, it contains or confers something, and only
        empty folders in it may have been removed.
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
        pass  # Pruned by another process meanwhile.
    except OSError:
        return False  # Filled meanwhile.
    return True
