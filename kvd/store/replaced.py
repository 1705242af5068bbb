"""
Which values are kept when they are replaced, until the values in their place are on the
disk (`kvd.store.writeback`).

A process has one dict of what has changed since its last sync, which both ways read
and write: the keys whose replaced values are kept, each with the name of its file in
the upload folder, and `SOMETHING`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from kvd.model.keys import Key
from kvd.native import compiled

MOST_KEPT: Final = 65536
"""
The most replaced values that are kept at once, however long a sync takes.
"""

SOMETHING: Final = Key(b"")
"""
The entry of a change for which no value is kept: there is something to sync. Its name
is empty.
"""

AllKept: TypeAlias = dict[Key, bytes]
"""
The names of the replaced values that are kept.
"""


def keeps_replaced_in_python(
    kept: AllKept | None, key: Key, most: int, /
) -> bool | None:
    """
    See `keeps_replaced`. Without a C compiler, this does what ``kvd/native/put.c``
    does.
    """
    if kept is None or key in kept:
        return False
    return True if len(kept) < most else None


def note_change_in_python(kept: AllKept | None, key: Key, name: bytes, /) -> None:
    """
    See `note_change`. Without a C compiler, this does what ``kvd/native/put.c``
    does.
    """
    if kept is not None:
        kept[key if name else SOMETHING] = name


_native = compiled("_fast_path")
keeps_replaced: Callable[[AllKept | None, Key, int], bool | None] = (
    keeps_replaced_in_python if _native is None else _native.keeps_replaced
)
"""
Whether the value that a key has is kept when it is replaced: not if an earlier one is
kept already, since then this one was never synced.

Args:
    kept: What is kept; None for a store that keeps nothing.
    key: The key.
    most: How many are kept at most.

Returns:
    None: it should be, but too many are kept, so what replaces it must be synced first.
"""
note_change: Callable[[AllKept | None, Key, bytes], None] = (
    note_change_in_python if _native is None else _native.note_change
)
"""
Note that a value was published or removed.

Args:
    kept: What is kept; None for a store that keeps nothing.
    key: The key.
    name: Under which the value that it had is kept; empty: it is not.
"""
