"""
Attributes of values in files of their own, where a file system keeps no extended ones.

NFS of version 3, many FUSE file systems and ramfs have no attributes of users. There
the attribute of each value (`kvd.store.attribute`) is a *sidecar*: a small file below
``.kvd/attributes``. Its text has one line more than the attribute, with a checksum and
the key:

    1 5c3a9e1f ab/cdef
    2 6f1cdd0b22a04a3f8a1f6a54ac0f3a1e 4096 1795890600.123456
    content-type: text/plain

Two files cannot get their names in one step. So a value and its sidecar are bound by
the sidecar's name, which is a digest of the key, and of the length and the time of the
value's file. A sidecar is written before its value gets its name, and removed after the
value has lost it. Whoever has the value open knows the name of its sidecar, whatever
happens to the key meanwhile. A crash leaves a sidecar without a value at worst, and a
file never gets the sidecar of another value: one that another program has replaced or
changed has another time, and so no sidecar, like a file that never had one.

- The time is that of publication, in microseconds. If a sidecar of this name exists,
  the value gets a later time: so no two values of a key share one.
- A file system that keeps whole seconds only has no times enough. There the number of
  the inode is part of the name too: no two files that exist have the same one, so a
  later time is needed only if the sidecar of a file that is gone has the name.
  Elsewhere it is not, so a copy or a backup keeps the attributes of values, if it has
  the sidecars and the times.
- A power cut may leave a sidecar without its content. The checksum tells. So that a
  value without its sidecar is never a torn one, every value is synced before it gets
  its name, at each durability (`kvd.store.upload`).
- A reader that finds no sidecar looks whether its file still has its name: it may have
  been replaced, and the sidecar removed, since the reader opened it
  (`kvd.store.tree.open_value`).

Sidecars stay when another program removes or replaces a value, or a process is killed.
Each upload that ends looks at some others, and removes those that have no value. That
costs little, needs no timer, and no more sidecars can be left over where nothing is
uploaded.

Nothing is kept open: another program may remove ``.kvd`` at any time. All values lose
their attributes then, and are values of others; new ones get new sidecars.
"""

from __future__ import annotations

import errno
import os
import random
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes
from zlib import crc32

from kvd.model.keys import Key, escape
from kvd.model.values import MAX_METADATA_BYTES
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import HIDDEN_NAME
from kvd.store.folders import open_folder, open_path, split

SIDECARS_NAME: Final = "attributes"
"""
Of the folder in ``.kvd``.
"""

SWEPT_SECONDS: Final = 3600.0
"""
Sidecars that are younger stay: their values may be about to be published, or restored
from a backup.
"""

SWEPT_AT_ONCE: Final = 2
"""
How many sidecars an upload that ends looks at.
"""

_FOLDER: Final = os.fsencode(f"{HIDDEN_NAME}/{SIDECARS_NAME}")

_SHARDS: Final = 256
_SHARD_DIGITS: Final = 2
_DIGEST_BYTES: Final = 16
_NAME: Final = re.compile(r"[0-9a-f]{30}")

_FIRST_LINE: Final = re.compile(rb"1 ([0-9a-f]{8}) ([^\n]+)\n")

# A key is escaped, three digits for a byte; names and separators of metadata are not
# counted in its limit.
_MAX_BYTES: Final = 8 * MAX_METADATA_BYTES

_SECOND_NS: Final = 1_000_000_000
_SECOND_US: Final = 1_000_000

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
)

_MOST_LATER_US: Final = 100_000
"""
By how much a time is later at each try at most: some file systems keep no more than
hundredths of a second.
"""

# How often a sidecar of the same name may exist, or another process may remove the
# folder before it is in it.
_TRIES: Final = 100

_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Sidecar(NamedTuple):
    """
    A sidecar that was written for an upload.
    """

    path: bytes
    """From the root of the store."""
    descriptor: int
    """To sync it by; whoever has asked for the sidecar closes it."""
    published_us: int
    """The time of the value's file, in microseconds since the epoch."""
    came: float
    """When it was written, in seconds since the epoch; see `Sidecars.sweep`."""

    @property
    def folders(self) -> list[bytes]:
        """
        The names of the folders from the root to the sidecar.
        """
        return self.path.split(b"/")[:-1]


class Sidecars:
    """
    The sidecars of one store.
    """

    def __init__(self, root: int, modes: Modes = DEFAULT_MODES) -> None:
        """
        Args:
            root: The store's folder; the caller closes it.
            modes: The modes of the files and folders that are made.
        """
        self._root = root
        self._modes = modes
        self._shard = random.randrange(_SHARDS)
        self._names: list[str] = []

    def of(self, root: int) -> Sidecars:
        """
        The same sidecars, by another descriptor of the store's folder.
        """
        return Sidecars(root, self._modes)

    def read(self, key: Key, status: os.stat_result) -> bytes | None:
        """
        The attribute of a value; None if it has no sidecar, or one that kvd does not
        write.

        Args:
            key: The key of the value.
            status: The status of its file.
        """
        found = self._read(path_of(key, status))
        return None if found is None or found[0] != key else found[1]

    def _read(self, path: bytes) -> tuple[Key, bytes] | None:
        try:
            with self._folder_of(path) as (folder, name):
                file = os.open(name, _READ_FLAGS, dir_fd=folder)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        try:
            text = os.read(file, _MAX_BYTES)
        except IsADirectoryError:
            return None
        finally:
            os.close(file)
        return _decode(text)

    @contextmanager
    def _folder_of(
        self, path: bytes, *, make: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """
        The folder of a sidecar, open, and its name there. No link leads to it.
        """
        way, _, name = path.rpartition(b"/")
        folder = open_path(self._root, way, self._modes.folder if make else -1)
        try:
            yield folder, name
        finally:
            os.close(folder)

    def write(
        self,
        file: int,
        key: Key,
        published_us: int,
        attribute_of: Callable[[int], bytes],
    ) -> Sidecar:
        """
        Set the times of a file and write its sidecar. The times are whole seconds if
        the file system keeps no others, and later by the least difference that it keeps
        if there is such a sidecar.

        Args:
            file: The file of a value that has not been published, open.
            key: The key that it is going to have.
            published_us: Its time, in microseconds since the epoch.
            attribute_of: Encodes the attribute, with the time that the file got.

        Raises:
            OSError: It cannot be written.
        """
        # A time without a fraction means that the file system keeps none.
        wanted_us = published_us + (published_us % _SECOND_US == 0)
        later_us = 1
        for _ in range(_TRIES):
            os.utime(file, ns=(1000 * wanted_us, 1000 * wanted_us))
            status = os.fstat(file)
            got_us = status.st_mtime_ns // 1000
            path = path_of(key, status)
            text = _encode(key, attribute_of(got_us))
            try:
                descriptor, came = self._create(path, text)
                return Sidecar(path, descriptor, got_us, came)
            except FileExistsError:
                # Where the inode counts, it is of a file that is gone. It stays all the
                # same: whoever has removed that file may remove its sidecar only now.
                wanted_us += later_us if _has_fraction(status) else _SECOND_US
                later_us = min(10 * later_us, _MOST_LATER_US)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def _create(self, path: bytes, text: bytes) -> tuple[int, float]:
        for _ in range(_TRIES):
            try:
                with self._folder_of(path, make=True) as (folder, name):
                    file = os.open(name, _WRITE_FLAGS, self._modes.file, dir_fd=folder)
            except FileNotFoundError:
                continue  # Removed meanwhile.
            try:
                written = os.write(file, text)
                if written < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                # NFS sends what was written when a descriptor is closed: only then it
                # is known that there is room, and other machines read it.
                os.close(os.dup(file))
                return file, _came_at(os.fstat(file))
            except BaseException:
                self.remove_at(path)
                os.close(file)
                raise
        raise FileNotFoundError(errno.ENOENT, "another program removes it", path)

    def remove(self, key: Key, status: os.stat_result) -> None:
        """
        Remove the sidecar of a value that has lost its name. If that is not possible,
        it is swept later.

        Args:
            key: The key of the value.
            status: The status of its file.
        """
        self.remove_at(path_of(key, status))

    def remove_at(self, path: bytes) -> None:
        """
        Remove a sidecar by its path; see `remove`.
        """
        with suppress(OSError), self._folder_of(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def sweep(self, now: float, count: int = SWEPT_AT_ONCE) -> None:
        """
        Look at some sidecars, and remove those whose values are gone. All of them are
        looked at in turns.

        Args:
            now: The present, by the clock of the file system.
            count: How many.
        """
        if not self._names:
            self._shard = (self._shard + 1) % _SHARDS
        shard = b"%b/%02x/" % (_FOLDER, self._shard)
        try:
            with self._folder_of(shard) as (folder, _):
                self._names = self._names or os.listdir(folder)
                for _ in range(min(count, len(self._names))):
                    with suppress(OSError):  # It is gone, for example.
                        self._sweep(shard, folder, self._names.pop(), now)
        except OSError:
            self._names = []  # There is no such folder: the next one, the next time.

    def _sweep(self, shard: bytes, folder: int, name: str, now: float) -> None:
        if not _NAME.fullmatch(name):
            return  # Another program has put it there.
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if _came_at(status) + SWEPT_SECONDS > now:
            return
        path = shard + os.fsencode(name)
        found = self._read(path)
        if found is None or self._value_path(found[0]) != path:
            self.remove_at(path)

    def _value_path(self, key: Key) -> bytes | None:
        """
        The path of the sidecar that belongs to the present file of a key.
        """
        parents, name = split(key)
        try:
            folder = open_folder(self._root, parents)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)
        return path_of(key, status) if stat.S_ISREG(status.st_mode) else None


def _has_fraction(status: os.stat_result) -> bool:
    return status.st_mtime_ns % _SECOND_NS != 0


def _came_at(status: os.stat_result) -> float:
    """
    When a sidecar was written, or copied with its times, by the clock of the file
    system. A new sidecar that has neither time yet is not taken for an old one: NFS
    first stores a number of its own in those that can be set.
    """
    return max(status.st_ctime, status.st_mtime)


def path_of(key: Key, status: os.stat_result) -> bytes:
    """
    The path of the sidecar of a file.
    """
    inode = 0 if _has_fraction(status) else status.st_ino
    # No key contains a newline.
    bound = b"%b\n%d %d %d" % (key, status.st_size, status.st_mtime_ns, inode)
    digits = blake2b(bound, digest_size=_DIGEST_BYTES).hexdigest()
    shard, name = digits[:_SHARD_DIGITS], digits[_SHARD_DIGITS:]
    return b"%b/%b/%b" % (_FOLDER, shard.encode("ascii"), name.encode("ascii"))


def _encode(key: Key, attribute: bytes) -> bytes:
    rest = b"%b\n%b" % (escape(key).encode("ascii"), attribute)
    return b"1 %08x %b" % (crc32(rest), rest)


def _decode(text: bytes) -> tuple[Key, bytes] | None:
    match = _FIRST_LINE.match(text)
    if match is None:
        return None
    checksum, escaped = match.groups()
    if int(checksum, 16) != crc32(text[match.start(2) :]):
        return None
    key = unquote_to_bytes(escaped)
    # Another program may have written it.
    if b"\0" in key or not {b"", b".", b".."}.isdisjoint(key.split(b"/")):
        return None
    return Key(key), text[match.end() :]
