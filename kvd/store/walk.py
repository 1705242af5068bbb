"""
Goes through everything below a folder.

Depth first, with one open folder per level, so that memory does not grow with
the number of values. Nothing is followed but folders, and nothing is given
that a request could not have put there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from twisted.logger import Logger

from kvd.model.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Key, escape, is_leftover
from kvd.model.values import ValueInfo
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.tree import Tree, open_value
from kvd.store.value import FileValue, is_absence

HIDDEN: Final = b".kvd"
"""
How the names in the root begin that are kvd's own.
"""

_ABOVE_ALL: Final = b"\xff" * (MAX_KEY_BYTES + 1)

BATCH_NAMES: Final = 64
"""
Names of one folder are looked at so many at once: a step of the walk for each
took more than twice as long.
"""

WAITING_FOLDERS: Final = 4096
"""
So many of a folder's folders are put in order before they are entered.
"""

# What os.fsencode would ask for each name.
_ENCODING: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())

_NO_SEGMENT: Final = re.compile(rb"[\x00-\x1f\x7f]")

# The same, or what a name begins with that may be no key either.
_NO_KEY: Final = re.compile(rb"[\x00-\x1f\x7f]|\.nfs|\.fuse_hidden")

_log = Logger()


class Span:
    """
    Which keys a walk is for: those after one key, and before another that may
    come nearer while it goes on.
    """

    __slots__ = ("after", "end")

    def __init__(self, after: bytes = b"") -> None:
        self.after = after
        self.end: bytes = _ABOVE_ALL

    def may_have(self, prefix: bytes) -> bool:
        """
        Whether a key that begins so can be wanted.
        """
        return prefix < self.end and (
            prefix >= self.after or self.after.startswith(prefix)
        )


class Batch(NamedTuple):
    """
    Names in one folder that may be values'; perhaps none.
    """

    folder: int
    """Open until the walk goes on."""
    prefix: bytes
    """What the keys begin with."""
    names: Sequence[bytes]


def describe(folder: int, name: bytes, key: Key) -> ValueInfo | None:
    """
    What is known of a value; None if it is none, or gone, or not ours to read.

    Raises:
        OSError: It cannot be told.
    """
    return _info_from(partial(open_value, folder, name, key), key)


def look(tree: Tree, key: Key) -> ValueInfo | None:
    """
    The same from the root, after the walk.
    """
    return _info_from(partial(tree.open, key), key)


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
    Everything below a folder but folders, in batches that take little time.

    Args:
        folder: Where to begin; closed at the end.
        prefix: What its keys begin with.
        span: What it cannot have is mostly left out, and never entered.

    Raises:
        OSError: It cannot go on.
    """
    try:
        with os.scandir(folder) as entries:
            for names, folders in _read(entries, prefix, span):
                yield Batch(folder, prefix, names)
                for name in folders:
                    inner_prefix = prefix + name + b"/"
                    if span.may_have(inner_prefix):
                        inner = _open_inner(folder, name, prefix + name)
                        if inner is not None:
                            yield from walk(inner, inner_prefix, span)
    finally:
        os.close(folder)


def _read(
    entries: Iterator[os.DirEntry[str]], prefix: bytes, span: Span
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """
    The names in a folder that can be wanted: those of folders apart, many at once and
    in order. Those whose keys are smallest may end a page, and then the others need
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
    The names that can be wanted: those of folders apart.
    """
    names, folders = [], []
    # Of a million names a page wants a thousand. So each is first held against
    # the span, as `Span.may_have` does, before anything else is done with it.
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
    The names that a request could have put there.
    """
    room = MAX_KEY_BYTES - len(prefix)
    together = b"".join(names)
    if (
        room >= MAX_SEGMENT_BYTES
        and not _NO_KEY.search(together)
        and (prefix or HIDDEN not in together)
    ):
        return names  # Nearly always: a look at each would take ten times as long.
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
        # The lost+found of a filesystem is an ordinary case.
        _skip(key, error)
        return None


def _skip(key: bytes, error: OSError) -> None:
    _log.warn("/{key} is not listed: {reason}", key=escape(key), reason=error)
