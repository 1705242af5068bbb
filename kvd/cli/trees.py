"""
Folders of this machine: what is sent of one, and where a value is put below one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field

from kvd.cli.errors import LocalError, unwritable
from kvd.cli.keys import checked_key


@dataclass(frozen=True, slots=True)
class LocalFile:
    """
    A regular file.
    """

    name: bytes
    """Its path below the folder: the rest of its key."""
    path: str
    size: int
    changed_ms: int
    """In milliseconds since the epoch, as precise as a listing of the daemon."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """
    What is not sent.
    """

    name: bytes
    path: str
    sentence: str
    is_failure: bool
    """Whether that was not to be expected: a link inside a folder is."""


@dataclass(slots=True)
class Tree:
    """
    What was found in a folder.
    """

    files: dict[bytes, LocalFile] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def names_left_out(self) -> frozenset[bytes]:
        """
        The names of what was found and left out; empty for the folder itself.
        """
        return frozenset(one.name for one in self.left_out)


def is_below_any(name: bytes, names: Set[bytes]) -> bool:
    """
    Whether a name, or the name of a folder above it, is among others.
    """
    while name:
        if name in names:
            return True
        name = name.rpartition(b"/")[0]
    return b"" in names


def read_tree(folder: str, follow: bool) -> Tree:
    """
    All files below a folder. A link to the folder itself is followed.

    Args:
        folder: Where they are.
        follow: Whether links inside it are followed too. Otherwise they are left out.

    Raises:
        LocalError: The folder cannot be read.
    """
    tree = Tree()
    try:
        seen = os.stat(folder)
        os.scandir(folder).close()
    except OSError as error:
        raise LocalError(f"{folder} cannot be read: {error.strerror}.") from error
    _read(folder, b"", follow, ((seen.st_dev, seen.st_ino),), tree)
    return tree


def _read(
    folder: str,
    above: bytes,
    follow: bool,
    parents: tuple[tuple[int, int], ...],
    tree: Tree,
) -> None:
    for name, path, seen in _entries(folder, above, follow, tree):
        if stat.S_ISDIR(seen.st_mode):
            found = seen.st_dev, seen.st_ino
            if found in parents:
                sentence = "it is a link to a folder that it is in."
                tree.left_out.append(LeftOut(name, path, sentence, True))
            else:
                _read(path, name + b"/", follow, (*parents, found), tree)
        elif stat.S_ISREG(seen.st_mode):
            tree.files[name] = LocalFile(
                name, path, seen.st_size, seen.st_mtime_ns // 1_000_000
            )
        elif stat.S_ISLNK(seen.st_mode):
            sentence = "a link was left out; -L sends what links lead to."
            tree.left_out.append(LeftOut(name, path, sentence, False))
        else:
            sentence = "it is a device, a pipe or a socket, and was not sent."
            tree.left_out.append(LeftOut(name, path, sentence, True))


def _entries(
    folder: str, above: bytes, follow: bool, tree: Tree
) -> Iterator[tuple[bytes, str, os.stat_result]]:
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        sentence = f"it cannot be read: {error.strerror}."
        tree.left_out.append(LeftOut(above.rstrip(b"/"), folder, sentence, True))
        return
    for entry in entries:
        name = above + os.fsencode(entry.name)
        try:
            yield name, entry.path, entry.stat(follow_symlinks=follow)
        except FileNotFoundError as error:
            if entry.is_symlink():
                sentence = "the link leads to nothing."
                tree.left_out.append(LeftOut(name, entry.path, sentence, True))
            # Otherwise it was removed meanwhile.
            del error
        except OSError as error:
            sentence = f"it cannot be read: {error.strerror}."
            tree.left_out.append(LeftOut(name, entry.path, sentence, True))


def place_below(folder: str, key: bytes, name: bytes) -> str:
    """
    The path for a value below a folder; the folders above it are made. Nothing is
    written outside the folder, whatever a key says and whatever links are there.

    Args:
        folder: Made if it is missing.
        key: Of the value.
        name: The end of the key that is its path below the folder.

    Raises:
        LocalError: There can be no such file.
    """
    checked_key(key)
    *parts, last = os.fsdecode(name).split("/")
    try:
        os.makedirs(folder, exist_ok=True)
        path = folder
        for part in parts:
            path = os.path.join(path, part)
            try:
                os.mkdir(path)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise LocalError(
                        f"{path} is not a folder, so nothing can be put into it."
                    ) from None
        path = os.path.join(path, last)
        with suppress(FileNotFoundError):
            mode = os.lstat(path).st_mode
            if not stat.S_ISREG(mode):
                what = "a link" if stat.S_ISLNK(mode) else "no regular file"
                raise LocalError(f"{path} is {what}, and is left alone.")
    except OSError as error:
        raise unwritable(error.filename or folder, error) from error
    return path
