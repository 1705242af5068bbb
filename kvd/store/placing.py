"""
How a written file gets the name of its key while the key is locked: what comes behind
the look at what the key has now, and behind the decision that it may be replaced.

The file is sealed: with its attribute, and with the date of its publication, which is
never earlier than that of the value before it. Then it gets its name in one atomic
step. If what it replaces is kept (`kvd.store.writeback`), that has a second name by
then, unless no sync has begun since it was published (`kvd.store.epochs`).

``kvd/native/place.c`` has these steps, for the fast path too. They are here once more
for an installation without a compiler, and for a store that keeps attributes in files
of their own, which the fast path does not serve. ``tests/store/test_placing.py``
compares both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from kvd.native import compiled
from kvd.store import attribute
from kvd.store.epochs import AHEAD_SECONDS, current_epoch, stamp
from kvd.store.exchange import exchange_names
from kvd.store.unwritten import has_no_place
from kvd.store.value import READ_FLAGS, open_file

CREATED: Final = 0
REPLACED: Final = 1
KEPT: Final = 2
"""
The file has its name: there was none; there was one, and what it had is gone, or kept.
"""
SCARCE: Final = -1
UNSEALED: Final = -2
UNLINKED: Final = -3
UNNAMED: Final = -4
"""
Nothing was done but to seal the file: there is too little room to keep what it
replaces; it cannot be sealed; what it replaces cannot have a second name; it cannot
have its own, for instance because its folder is gone.
"""

SPARE_SHARE: Final = 16
SPARE_BYTES: Final = 1 << 30
SPARE_TIMES: Final = 4
"""
Nothing is kept where less than this share of a file system is free, and less than so
many bytes; nor what takes more than one part in so many of what is free.
"""


class Descriptors(NamedTuple):
    """
    What is open.
    """

    uploads: int
    """The folder of uploads."""
    file: int
    """The file."""
    folder: int
    """The folder in which it gets its name."""
    lock: int
    """The file of locks; -1 for a store without epochs."""


class Names(NamedTuple):
    """
    Of files.
    """

    upload: bytes
    """That of the file so far, in the folder of uploads."""
    name: bytes
    """The one that it gets."""
    kept: bytes
    """The one that what it replaces gets in the folder of uploads, if that is kept."""


class Present(NamedTuple):
    """
    What a key has now.
    """

    exists: bool
    """Whether it has a value."""
    size: int
    earliest_us: int
    """The date of the value, if kvd wrote it, in microseconds; else 0. The date of a
    foreign file may be in the future; then no client has seen it
    (`kvd.http.methods.get`)."""
    epoch: int
    """The epoch of the value; 0 for none."""


class Seal(NamedTuple):
    """
    What a file is sealed with.
    """

    etag: str
    size: int
    lines: bytes
    """Of its metadata (`attribute.encode_metadata`)."""
    sealed_us: int
    """The date that it was sealed with; 0: it was not."""
    sealed_epoch: int
    """The epoch of this seal."""
    now_us: int
    """The present."""
    epoch: int
    """The epoch that it is to have."""


class Room(NamedTuple):
    """
    That of the file system, in bytes; it matters only if something is kept.
    """

    free: int
    all: int


class Placed(NamedTuple):
    """
    What came of it.
    """

    result: int
    sealed_us: int
    """See `Seal`."""
    sealed_epoch: int
    """The same."""
    error: int
    """An errno, unless the file has its name."""
    left: bytes
    """A file that could not be removed from the folder of uploads; empty: none."""
    left_error: int
    """Why not."""


SealWriter = Callable[[int, Seal, int], int]
"""
Called with a file, what it is sealed with, and its date in microseconds; returns the
date that it got.
"""


def write_seal(file: int, seal: Seal, published_us: int) -> int:
    """
    Seal a file with its attribute and its times.
    """
    text = attribute.encode(seal.etag, seal.size, published_us, seal.lines)
    os.setxattr(file, attribute.NAME, text)
    stamp(file, published_us, seal.epoch)
    return published_us


def seal_in_python(
    file: int, earliest_us: int, seal: Seal, /, write: SealWriter = write_seal
) -> int:
    """
    See `seal_file`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    if (
        seal.sealed_us
        and seal.epoch == seal.sealed_epoch
        and seal.sealed_us // 1_000_000 == seal.now_us // 1_000_000
        and earliest_us <= seal.sealed_us
    ):
        return seal.sealed_us
    return write(file, seal, max(seal.now_us, earliest_us))


def is_scarce_in_python(size: int, free: int, all_bytes: int, /) -> bool:
    """
    See `is_scarce`. Without a C compiler, this does what ``kvd/native/place.c`` does.
    """
    least = min(all_bytes // SPARE_SHARE, SPARE_BYTES)
    return free < max(least, SPARE_TIMES * size)


def place_in_python(
    descriptors: Descriptors,
    names: Names,
    keeps: bool,
    exchanges: bool,
    room: Room,
    present: Present,
    seal: Seal,
    /,
    write: SealWriter = write_seal,
) -> Placed:
    """
    See `place`. Without a C compiler, this does what ``kvd/native/place.c`` does.

    Args:
        write: Seals the file otherwise, where attributes are files of their own.
    """
    uploads, file, folder, _ = descriptors
    upload, name, kept = names
    keeps = keeps and present.exists
    if keeps and is_scarce(present.size, *room):
        return Placed(SCARCE, seal.sealed_us, seal.sealed_epoch, 0, b"", 0)
    try:
        sealed_us = seal_in_python(file, present.earliest_us, seal, write)
    except OSError as error:
        return Placed(UNSEALED, 0, seal.epoch, error.errno or 0, b"", 0)
    removing = _Removing(uploads)
    if keeps:
        try:
            os.link(
                name,
                kept,
                src_dir_fd=folder,
                dst_dir_fd=uploads,
                follow_symlinks=False,
            )
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError)
            result = UNNAMED if is_gone else UNLINKED
            return Placed(result, sealed_us, seal.epoch, error.errno or 0, b"", 0)
    try:
        if present.exists and exchanges:
            exchange_names(uploads, upload, folder, name)
            removing.remove(upload)
        else:
            os.rename(upload, name, src_dir_fd=uploads, dst_dir_fd=folder)
    except OSError as error:
        if keeps:
            removing.remove(kept)
        return Placed(UNNAMED, sealed_us, seal.epoch, error.errno or 0, *removing.left)
    stays = keeps and not _is_unsynced(descriptors, kept, present)
    if keeps and not stays:
        removing.remove(kept)
    result = KEPT if stays else REPLACED if present.exists else CREATED
    return Placed(result, sealed_us, seal.epoch, 0, *removing.left)


class _Removing:
    """
    Removes files from the folder of uploads.
    """

    def __init__(self, uploads: int) -> None:
        self._uploads = uploads
        self.left = (b"", 0)
        """The last one that stayed, and why."""

    def remove(self, name: bytes) -> None:
        """
        Remove a file; if that fails, it is removed with the folder later.
        """
        try:
            os.unlink(name, dir_fd=self._uploads)
        except OSError as error:
            self.left = name, error.errno or 0


def _is_unsynced(descriptors: Descriptors, kept: bytes, value: Present) -> bool:
    """
    Whether a value that was replaced has never been on the disk; see
    `kvd.store.epochs`.
    """
    if not value.epoch or value.epoch != current_epoch(descriptors.lock):
        return False
    try:
        file = open_file(descriptors.uploads, kept)
    except OSError:
        return False
    try:
        return has_no_place(file, value.size)
    finally:
        os.close(file)


_native = compiled("_fast_path")


def _place_compiled(
    descriptors: Descriptors,
    names: Names,
    keeps: bool,
    exchanges: bool,
    room: Room,
    present: Present,
    seal: Seal,
    /,
) -> Placed:
    assert _native is not None
    return Placed(
        *_native.place(
            descriptors,
            names,
            (keeps, exchanges),
            READ_FLAGS,
            AHEAD_SECONDS,
            (SPARE_SHARE, SPARE_BYTES, SPARE_TIMES),
            room,
            present,
            seal,
        )
    )


seal_file: Callable[[int, int, Seal], int] = (
    seal_in_python if _native is None else partial(_native.seal, AHEAD_SECONDS)
)
"""
Seal a file, unless its seal is still right.

Args:
    file: Its descriptor.
    earliest_us: The earliest permitted date, in microseconds; 0: any.
    seal: What it is sealed with.

Returns:
    The date that it has.

Raises:
    OSError: It cannot be sealed.
"""
place: Callable[[Descriptors, Names, bool, bool, Room, Present, Seal], Placed] = (
    place_in_python if _native is None else _place_compiled
)
"""
Seal a file, unless its seal is still right, and give it its name. The key is locked.

Args:
    descriptors: What is open.
    names: Of files.
    keeps: Whether what it replaces is kept.
    exchanges: Whether values are replaced by exchanging names (`kvd.store.exchange`).
    room: That of the file system.
    present: What the key has now.
    seal: What the file is sealed with.
"""
is_scarce: Callable[[int, int, int], bool] = (
    is_scarce_in_python
    if _native is None
    else partial(_native.is_scarce, SPARE_SHARE, SPARE_BYTES, SPARE_TIMES)
)
"""
Whether there is too little room to keep a value that is replaced: the value would take
much of the free room, or there is little room in any case.

Args:
    size: The size of the value in bytes.
    free: How many bytes are free.
    all_bytes: How many the file system has.
"""
