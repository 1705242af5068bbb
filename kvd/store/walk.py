"""
Walks over everything below a folder.

The walk is depth-first, with one open folder per level, so memory does not grow with
the number of values. It does not follow links, and returns only names that are keys.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from twisted.logger import Logger

from kvd.model.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Key, escape, is_leftover
from kvd.model.values import Entry, Folder, ValueInfo
from kvd.store.folders import FOLDER_FLAGS, open_folder
from kvd.store.sidecars import Sidecars
from kvd.store.tree import Tree, open_value
from kvd.store.value import FileValue, is_absence

HIDDEN: Final = b".kvd"
"""
The beginning of kvd's own names in the root.
"""

_ABOVE_ALL: Final = b"\xff" * (MAX_KEY_BYTES + 1)

BATCH_NAMES: Final = 64
"""
How many names of a folder one step of the walk looks at: a step for each name took more
than twice as long.
"""

WAITING_FOLDERS: Final = 4096
"""
How many folders in a folder are sorted before they are entered.
"""

# os.fsencode would ask for these for each name.
_ENCODING: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())

_NO_SEGMENT: Final = re.compile(rb"[\x00-\x1f\x7f]")

# The same, or the beginning of a name that may not be a key.
_NO_KEY: Final = re.compile(rb"[\x00-\x1f\x7f]|\.nfs|\.fuse_hidden")

_log = Logger()


class Span:
    """
    The range of keys that a walk is for: after one key, and before another, which may
    be lowered during the walk.
    """

    __slots__ = ("after", "end")

    def __init__(self, after: bytes = b"") -> None:
        self.after = after
        self.end: bytes = _ABOVE_ALL

    def may_have(self, prefix: bytes) -> bool:
        """
        Whether a key with this prefix can be in the span.
        """
        return prefix < self.end and (
            prefix >= self.after or self.after.startswith(prefix)
        )


class Batch(NamedTuple):
    """
    Names in one folder that may be values; may be empty.
    """

    folder: int
    """Open until the walk continues."""
    prefix: bytes
    """The prefix of the keys."""
    names: Sequence[bytes]


def describe(
    sidecars: Sidecars | None, folder: int, name: bytes, key: Key
) -> ValueInfo | None:
    """
    Describe a value; return None if it is not a value, gone, or not readable for kvd.

    Args:
        sidecars: Where its attribute is; None: in the file system.
        folder: The folder that it is in.
        name: The name of its file.
        key: Its key.

    Raises:
        OSError: It cannot be described.
    """
    return _info_from(partial(open_value, folder, name, key, sidecars), key)


def look(tree: Tree, key: Key) -> ValueInfo | None:
    """
    Describe a value from the root, after the walk.
    """
    return _info_from(partial(tree.open, key), key)


def describe_entry(
    sidecars: Sidecars | None, folder: int, name: bytes, key: Key
) -> Entry | None:
    """
    Describe what a name of `walk_folder` stands for; return None if it is no value, and
    no folder that has any. See `describe`.

    Raises:
        OSError: It cannot be described.
    """
    if not name.endswith(b"/"):
        return describe(sidecars, folder, name, key)
    inner = _open_inner(folder, name[:-1], key[:-1])
    return Folder(key) if inner is not None and _has_value(inner, key) else None


def look_entry(root: int, sidecars: Sidecars | None, key: Key) -> Entry | None:
    """
    Like `describe_entry`, from the root, after the walk.
    """
    if not key.endswith(b"/"):
        return look(Tree(root, sidecars=sidecars), key)
    try:
        inner = open_folder(root, key[:-1].split(b"/"))
    except OSError as error:
        if is_absence(error):
            return None
        raise
    return Folder(key) if _has_value(inner, key) else None


def _has_value(folder: int, prefix: bytes) -> bool:
    with closing(walk(folder, prefix, Span())) as walked:
        return any(
            # Whatever its attribute says.
            describe(None, batch.folder, name, Key(batch.prefix + name)) is not None
            for batch in walked
            for name in batch.names
        )


def _info_from(open_it: Callable[[], FileValue | None], key: Key) -> ValueInfo | None:
    try:
        value = open_it()
    except PermissionError as error:
        _skip(key, error)
        return None
    except OSError as error:
        if is_absence(error):
            return None
        raise
    if value is None:
        return None
    value.close()
    return value.info


def walk(folder: int, prefix: bytes, span: Span) -> Generator[Batch, None, None]:
    """
    Walk over everything below a folder except folders, in short batches.

    Args:
        folder: The folder; closed at the end.
        prefix: The prefix of the keys in it.
        span: Most keys outside of the span are left out, and no folder outside is
            entered.

    Raises:
        OSError: The walk cannot continue.
    """
    try:
        with os.scandir(folder) as entries:
            for names, folders in _read(entries, prefix, span):
                yield Batch(folder, prefix, names)
                for name in folders:
                    inner_prefix = prefix + name + b"/"
                    if span.may_have(inner_prefix):
                        inner = _open_inner(folder, name, prefix + name)
                        if inner is None:
                            # A step too: thousands may follow each other.
                            yield Batch(folder, prefix, ())
                        else:
                            yield from walk(inner, inner_prefix, span)
    finally:
        os.close(folder)


def walk_folder(folder: int, prefix: bytes, span: Span) -> Generator[Batch, None, None]:
    """
    Like `walk`, but over this folder alone. The names of folders in it end with a
    slash.
    """
    try:
        with os.scandir(folder) as entries:
            for names, folders in _read(entries, prefix, span):
                yield Batch(folder, prefix, [*names, *(f + b"/" for f in folders)])
    finally:
        os.close(folder)


def _read(
    entries: Iterator[os.DirEntry[str]], prefix: bytes, span: Span
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """
    The names in a folder that can be in the span; folders separately, many at once and
    sorted. The folders with the smallest keys may fill a page, and then the others need
    not be entered.
    """
    waiting: list[bytes] = []
    while batch := list(islice(entries, BATCH_NAMES)):
        names, folders = _look_through(batch, prefix, span)
        waiting += _keys_only(prefix, folders)
        if len(waiting) < WAITING_FOLDERS:
            yield _keys_only(prefix, names), []
        else:
            yield _keys_only(prefix, names), sorted(waiting)
            waiting = []
    yield [], sorted(waiting)


def _look_through(
    entries: Iterable[os.DirEntry[str]], prefix: bytes, span: Span
) -> tuple[list[bytes], list[bytes]]:
    """
    The names that can be in the span; folders separately.
    """
    names, folders = [], []
    # A page may need a thousand of a million names. So each name is compared with the
    # span first, as in `Span.may_have`.
    after, end = span.after, span.end
    for entry in entries:
        name = entry.name.encode(*_ENCODING)
        key = prefix + name
        if key >= end or (key < after and not after.startswith(key)):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(name)
        else:
            names.append(name)
    return names, folders


def _keys_only(prefix: bytes, names: list[bytes]) -> list[bytes]:
    """
    The names that can be in a key.
    """
    room = MAX_KEY_BYTES - len(prefix)
    together = b"".join(names)
    if (
        room >= MAX_SEGMENT_BYTES
        and not _NO_KEY.search(together)
        and (prefix or HIDDEN not in together)
    ):
        return (
            names  # Nearly always. A check of each name would take ten times as long.
        )
    return [
        name
        for name in names
        if len(name) <= room
        and not _NO_SEGMENT.search(name)
        and (prefix or not name.startswith(HIDDEN))
        and not is_leftover(name)
    ]


def _open_inner(folder: int, name: bytes, key: bytes) -> int | None:
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None  # Pruned meanwhile.
    except PermissionError as error:
        # For example the lost+found of a file system.
        _skip(key, error)
        return None


def _skip(key: bytes, error: OSError) -> None:
    _log.warn("/{key} is not listed: {reason}", key=escape(key), reason=error)
