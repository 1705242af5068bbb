"""
The locks of keys, among all processes that have a store open.

``If-Match`` and ``If-None-Match`` must be decided at the moment of publication,
but no system call compares and swaps a file. So every publication and every
removal holds the key's lock from the look at the current value to the change.

The lock is an open-file-description lock (fcntl(2), F_OFD_SETLK) on one byte
of one file, at an offset made of the key: nothing is written, any number of
keys can be locked at once, and the kernel lets go when a process dies. Two
keys whose offsets collide (62 bits) merely wait for one another.

Such a lock belongs to the open file and not to whoever asked, so it does not
keep two uploads of one process apart. It need not: the lock is taken, the
work done and the lock let go within one call on the reactor's thread, which
nothing else on that thread can interrupt. So no table of holders is needed,
and the lock is held for microseconds, never across a wait or a sync.

Somebody may remove or replace the file, or the folder that it is in; then processes
that opened it before and after would lock each their own. So whoever has got a lock
looks whether the file is still the one that is found by its name, and else locks that
one instead.

If another process holds the lock, the reactor must not wait for it; the call
is repeated after pauses that grow, for so long as no living process would
hold it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import StoreBusy
from kvd.interfaces import Answer
from kvd.model.keys import Key, escape
from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import conferred
from kvd.store.faults import fault_of
from kvd.store.hidden import HIDDEN_NAME, open_hidden
from kvd.store.waiting import Underway

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 10.0

_BRIEF_TRIES: Final = 200

_NAME: Final = "lock"
_PATH: Final = f"{HIDDEN_NAME}/{_NAME}"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

# How often the file may be removed again while it is locked.
_RENEWALS: Final = 100

# struct flock: type, whence, start, length, pid, which must be 0 for this kind
# of lock; padded to the size of the C structure.
_FLOCK: Final = struct.Struct("@hhqqi4x")

# Offsets are signed, and start + length must not overflow.
_OFFSETS: Final = (1 << 62) - 1


def offset_of(key: Key) -> int:
    """
    Where in the lock file the key's byte is, in every process the same.
    """
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") & _OFFSETS


class LockFile:
    """
    The file in which the bytes are locked, as it is found below the root.
    """

    def __init__(self, root: int, modes: Modes = DEFAULT_MODES) -> None:
        """
        Args:
            root: The store's folder; stays the caller's.
            modes: Of the file, and of the folder that it is in, if they are made.

        Raises:
            OSError: It cannot be opened.
        """
        self._root = root
        self._modes = modes
        self.descriptor = self._open()
        """For writing; the same for as long as this lives."""
        self.renewed: Callable[[], object] = lambda: None
        """Called when it has become another file."""
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
        Whether whoever opens it now opens the same file.
        """
        try:
            found = os.stat(_PATH, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return False
        return self._identity == (found.st_dev, found.st_ino)

    def renew(self) -> None:
        """
        Open what is found now; none of its locks may be held.

        Raises:
            OSError: It cannot be opened.
        """
        descriptor = self._open()
        try:
            os.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            os.close(descriptor)
        self._look()
        self.renewed()

    def close(self) -> None:
        """
        Let go of it.
        """
        os.close(self.descriptor)


def _open_or_make(hidden: int, mode: int) -> int:
    try:
        lock = os.open(_NAME, _FLAGS | os.O_EXCL, mode, dir_fd=hidden)
    except FileExistsError:
        return os.open(_NAME, _FLAGS, mode, dir_fd=hidden)
    if not conferred(hidden).access:
        os.fchmod(lock, mode)
    return lock


class KeyLocks:
    """
    Does things while holding a key's lock.
    """

    def __init__(self, file: LockFile, clock: IReactorTime, underway: Underway):
        """
        Args:
            file: Opened by this process; the caller closes it.
            clock: For the pauses.
            underway: Keeps count of who waits.
        """
        self._file = file
        self._clock = clock
        self._underway = underway

    def holding(self, key: Key, act: Callable[[], T]) -> Answer[T]:
        """
        Call something while the key's lock is held; at once if it is free.

        Raises:
            StoreBusy: Another process does not let go.
        """
        offset = offset_of(key)
        if self._take(offset):
            return self._act(offset, act)
        return self._underway.shield(self._later(key, offset, act))

    def hold_briefly(self, key: Key, act: Callable[[], object]) -> bool:
        """
        Call something while the key's lock is held, where the reactor does not run yet
        and may wait.

        Returns:
            Whether it was called: another process may not let go.
        """
        offset = offset_of(key)
        for _ in range(_BRIEF_TRIES):
            if self._take(offset):
                self._act(offset, act)
                return True
            time.sleep(FIRST_PAUSE_SECONDS)
        return False

    async def _later(self, key: Key, offset: int, act: Callable[[], T]) -> T:
        deadline = self._clock.seconds() + PATIENCE_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while self._clock.seconds() < deadline:
            await deferLater(self._clock, pause)
            if self._take(offset):
                return self._act(offset, act)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        raise StoreBusy(
            f"/{escape(key)} has been locked by another process for"
            f" {PATIENCE_SECONDS:.0f} seconds."
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
                # Removed or replaced: others, who came later, lock another one.
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
