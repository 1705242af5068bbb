"""
The locks of keys, shared by all processes that have a store open.

``If-Match`` and ``If-None-Match`` must be evaluated at the moment of publication, but
no system call does a compare-and-swap on files. So every publication and every removal
holds the key's lock from reading the current value to the change.

The lock is an open-file-description lock (fcntl(2), F_OFD_SETLK) on one byte of one
file, at an offset that is a hash of the key: nothing is written (though the time of the
file has a meaning, see `kvd.store.epochs`), any number of keys can be locked at once,
and the kernel releases the lock when a process dies. Two keys whose offsets collide (62
bits) merely wait for each other.

Such a lock belongs to the open file, so it does not exclude two uploads of one process
from each other. It need not: the lock is taken, the work done and the lock released
within one call in the reactor's thread, which nothing else in that thread can
interrupt. So no table of holders is needed, and the lock is held for microseconds,
never across a wait or a sync.

Another program may remove or replace the file or its folder; then processes that opened
it before and after would lock different files. So after taking a lock, a process checks
whether the name still leads to the same file; if not, it locks the new file.

If another process holds the lock, the reactor must not block; it tries again after
growing pauses, until a timeout that is longer than any live process holds a lock.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import StoreBusy
from kvd.interfaces import Answer
from kvd.model.keys import Key, escape
from kvd.native import compiled
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import HIDDEN_NAME, conferred
from kvd.store.epochs import begin_epoch
from kvd.store.faults import fault_of
from kvd.store.hidden import open_hidden
from kvd.store.waiting import Underway

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.02
TIMEOUT_SECONDS: Final = 10.0

_BRIEF_TRIES: Final = 200

_NAME: Final = "lock"
_PATH: Final = f"{HIDDEN_NAME}/{_NAME}"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

# How often a call accepts that the file was removed again while it took the lock.
_RENEWALS: Final = 100

# struct flock: type, whence, start, length, pid (which must be 0 for this kind of
# lock); padded to the size of the C structure.
_FLOCK: Final = struct.Struct("@hhqqi4x")

# Offsets are signed, and start + length must not overflow.
_OFFSETS: Final = (1 << 62) - 1


def hashed(key: Key) -> int:
    """
    See `offset_of`. Without a C compiler, this does what ``kvd/native/offset.c`` does.
    """
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") & _OFFSETS


def is_found_in_python(root: int, device: int, inode: int, /) -> bool:
    """
    See `is_found`. Without a C compiler, this does what ``kvd/native/publish.c`` does.
    """
    try:
        found = os.stat(_PATH, dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return (device, inode) == (found.st_dev, found.st_ino)


_native = compiled("_fast_path")
offset_of: Callable[[Key], int] = hashed if _native is None else _native.offset_of
"""
The offset of a key's byte in the lock file, the same in every process.
"""
is_found: Callable[[int, int, int], bool] = (
    is_found_in_python if _native is None else _native.is_found
)
"""
Whether a file is still found as the lock file of a store.

Args:
    root: The store's folder.
    device: The device of the file.
    inode: Its inode.
"""


class LockFile:
    """
    The file whose bytes are locked, at its path below the root.
    """

    def __init__(self, root: int, modes: Modes = DEFAULT_MODES) -> None:
        """
        Args:
            root: The store's folder; the caller closes it.
            modes: The modes of the file and its folder, if they are made.

        Raises:
            OSError: The file cannot be opened.
        """
        self._root = root
        self._modes = modes
        self.descriptor = self._open()
        """Open for writing; the number never changes."""
        self.renewed: Callable[[], object] = lambda: None
        """Called when the descriptor has become another file."""
        self._look()

    def _open(self) -> int:
        hidden = open_hidden(self._root, self._modes.folder)
        try:
            return _open_or_make(hidden, self._modes.file)
        finally:
            os.close(hidden)

    def _look(self) -> None:
        status = os.fstat(self.descriptor)
        self._identity = status.st_dev, status.st_ino

    def is_found(self) -> bool:
        """
        Whether the path still leads to the open file.
        """
        return is_found(self._root, *self._identity)

    def renew(self) -> None:
        """
        Open the file that the path leads to now. No lock may be held.

        Raises:
            OSError: The file cannot be opened.
        """
        descriptor = self._open()
        try:
            # The next sync of this process will be known by the new file only.
            with suppress(OSError):
                begin_epoch(self.descriptor)
            os.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            os.close(descriptor)
        self._look()
        self.renewed()

    def close(self) -> None:
        """
        Close the file.
        """
        os.close(self.descriptor)


def _open_or_make(hidden: int, mode: int) -> int:
    try:
        lock = os.open(_NAME, _FLAGS | os.O_EXCL, mode, dir_fd=hidden)
    except FileExistsError:
        return os.open(_NAME, _FLAGS, mode, dir_fd=hidden)
    try:
        if not conferred(hidden).access:
            os.fchmod(lock, mode)
    except BaseException:
        os.close(lock)
        raise
    # The time of its creation is no epoch if it is a whole number of microseconds.
    with suppress(OSError):
        begin_epoch(lock)
    return lock


class KeyLocks:
    """
    Calls functions while holding a key's lock.
    """

    def __init__(self, file: LockFile, clock: IReactorTime, underway: Underway):
        """
        Args:
            file: The lock file; the caller closes it.
            clock: Schedules the retries.
            underway: Counts the calls that wait.
        """
        self._file = file
        self._clock = clock
        self._underway = underway

    def holding(self, key: Key, act: Callable[[], T]) -> Answer[T]:
        """
        Call a function while holding the key's lock; immediately if the lock is free.

        Raises:
            StoreBusy: Another process does not release the lock.
        """
        offset = offset_of(key)
        if self._take(offset):
            return self._act(offset, act)
        return self._underway.shield(self._later(key, offset, act))

    def hold_at_once(self, key: Key, act: Callable[[], object]) -> bool:
        """
        Call a function while holding the key's lock, if it is free.

        Returns:
            Whether the function was called.
        """
        offset = offset_of(key)
        is_taken = self._take(offset)
        if is_taken:
            self._act(offset, act)
        return is_taken

    def hold_briefly(self, key: Key, act: Callable[[], object]) -> bool:
        """
        Call a function while holding the key's lock, before the reactor runs, so that
        the call may block for a short time.

        Returns:
            Whether the function was called; another process may keep the lock.
        """
        for _ in range(_BRIEF_TRIES):
            if self.hold_at_once(key, act):
                return True
            time.sleep(FIRST_PAUSE_SECONDS)
        return False

    async def _later(self, key: Key, offset: int, act: Callable[[], T]) -> T:
        deadline = self._clock.seconds() + TIMEOUT_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while self._clock.seconds() < deadline:
            await deferLater(self._clock, pause)
            if self._take(offset):
                return self._act(offset, act)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        raise StoreBusy(
            f"/{escape(key)} has been locked by another process for"
            f" {TIMEOUT_SECONDS:.0f} seconds."
        )

    def _act(self, offset: int, act: Callable[[], T]) -> T:
        try:
            return act()
        finally:
            self._set(fcntl.F_UNLCK, offset)

    def _take(self, offset: int) -> bool:
        try:
            for _ in range(_RENEWALS):
                self._set(fcntl.F_WRLCK, offset)
                if self._file.is_found():
                    return True
                # Removed or replaced: later processes lock another file.
                self._set(fcntl.F_UNLCK, offset)
                self._file.renew()
        except (BlockingIOError, PermissionError):  # EAGAIN; POSIX allows EACCES.
            return False
        except OSError as error:
            raise fault_of(error, "The store's lock file cannot be locked") from error
        return False

    def _set(self, kind: int, offset: int) -> None:
        request = _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(self._file.descriptor, fcntl.F_OFD_SETLK, request)
