"""
Goes through everything below a folder.

Depth first, with one open folder per level, so that memory does not grow with
the number of values. Nothing is followed but folders, and nothing is given
that a request could not have put there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from twisted.logger import Logger

from kvd.interfaces import ValueInfo
from kvd.keys import MAX_KEY_BYTES, Key, escape
from kvd.store.folders import FOLDER_FLAGS
from kvd.store.tree import Tree, open_value
from kvd.store.value import FileValue, is_absence

HIDDEN: Final = b".kvd"
"""
How the names in the root begin that are kvd's own.
"""

_ABOVE_ALL: Final = b"\xff" * (MAX_KEY_BYTES + 1)

_STRIDE: Final = 256
"""
After so many names of one folder somebody may look at the clock: every 0.1 ms.
"""

_NO_SEGMENT: Final = re.compile(rb"[\x00-\x1f\x7f]")

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
        Whether a key that begins so can be wanted. Asked of every name in a
        folder, most of which are passed over for it: a page has a thousand keys
        of perhaps a million.
        """
        return prefix < self.end and (
            prefix >= self.after or self.after.startswith(prefix)
        )


class Found(NamedTuple):
    """
    A name that may be a value's.
    """

    folder: int
    """Open until the walk goes on."""
    name: bytes
    key: Key


def describe(found: Found) -> ValueInfo | None:
    """
    What is known of a value; None if it is none, or gone, or not ours to read.

    Raises:
        OSError: It cannot be told.
    """
    return _info_from(partial(open_value, *found), found.key)


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


def walk(folder: int, prefix: bytes, span: Span) -> Iterator[Found | None]:
    """
    Everything below a folder but folders; None from time to time, for those
    who look at the clock.

    Args:
        folder: Where to begin; closed at the end.
        prefix: What its keys begin with.
        span: What it cannot have is mostly left out, and never entered.

    Raises:
        OSError: It cannot go on.
    """
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries, 1):
                if count % _STRIDE == 0:
                    yield None
                name = os.fsencode(entry.name)
                key = prefix + name
                if not span.may_have(key) or not _is_key(key, name):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield Found(folder, name, Key(key))
                elif span.may_have(key + b"/"):
                    yield None
                    inner = _open_inner(folder, name, key)
                    if inner is not None:
                        yield from walk(inner, key + b"/", span)
    finally:
        os.close(folder)


def _is_key(key: bytes, name: bytes) -> bool:
    return not (
        len(key) > MAX_KEY_BYTES or key.startswith(HIDDEN) or _NO_SEGMENT.search(name)
    )


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
