"""
Epochs: which values were published since the latest sync began.

At durability ``process`` a value that is replaced is kept until the one in its place is
on the disk (`kvd.store.writeback`). But a value that was never on the disk is not worth
keeping: whoever published it keeps the value before it. Any process may have published
it, so all processes that have a store open must agree on when the latest sync began.

An *epoch* begins with each sync of any of them. Its number is drawn at random and is
the fraction of the modification time of the file of locks, which they all have open. A
value is stamped with the current epoch before it is published: the fraction of its
access time, which is about two seconds ahead. So the file system does not change it
when a program reads the file, since it is later than the last change (the mount option
``relatime``, which is the default); with other options it may, and then the value
belongs to no epoch. After a value was replaced, it need not be kept if

- it belongs to the current epoch, and
- its end has no place on the disk yet (`kvd.store.unwritten.has_no_place`): another
  program may have synced it, or the file system may have written it by itself.

Why nothing is lost. A process *takes* the files that it will remove, begins an epoch,
syncs, and removes them. Let value 1 have replaced value 0, which is on the disk and was
kept, and let value 2 replace value 1, both in the epoch that is still current after
that. Value 0 was kept after value 1 was stamped, so no epoch has begun since it could
first be taken. So the sync after which it is removed has not begun, and will cover
value 2. By induction the same holds for any number of values.

- A value that was synced before it was published, because the one before it could not
  be kept, belongs to no epoch.
- An epoch also begins when a process turns from one file of locks to another, as others
  may still use the first.
- No clock is trusted.
- File systems that several machines may have mounted have no epochs, as times are
  cached there. If a file system keeps no fractions, no value belongs to an epoch.

One sync can do for several processes (*group commit*). All of them take their files at
about the same moment, and a little later one of them syncs; the others wait for its
lock on the file of locks. Who gets the lock next needs no sync of its own, if the
latest epoch began after it took its files, and the sync of that epoch has succeeded. An
extended attribute of the file of locks says so.

The kernel reports a failed write once to each open file, at its next sync, but not to
files that are opened later. So the attribute also says since when the process has seen
no error. A process relies on it only if that is not later than the first of its own
publications that the sync must cover.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from kvd.native import compiled

AHEAD_SECONDS: Final = 2
"""
How far the access time of a value is ahead, rounded down.
"""

BATCH_SECONDS: Final = 0.25
"""
How long a sync waits for other processes to take their files. Their reactors may be
busy for some ten milliseconds.
"""

HOLD_SECONDS: Final = 30.0
"""
How long a sync waits for that of another process, which may have been stopped.
"""

_LONGEST_PAUSE_SECONDS: Final = 0.1

_SYNCED: Final = "user.kvd.synced"

_SECOND_NS: Final = 1_000_000_000
_MICROSECOND_NS: Final = 1_000


def epoch_in_python(nanosecond: int, /) -> int:
    """
    The epoch that a fraction of a second is; 0 for none. Without a C compiler, this
    does what ``kvd/native/place.c`` does.
    """
    return nanosecond if nanosecond % _MICROSECOND_NS else 0


def stamp_in_python(file: int, published_us: int, epoch: int, /) -> None:
    """
    See `stamp`. Without a C compiler, this does what ``kvd/native/attribute.c`` does.
    """
    accessed_ns = published_ns = _MICROSECOND_NS * published_us
    if epoch:
        second = published_ns // _SECOND_NS + AHEAD_SECONDS
        accessed_ns = second * _SECOND_NS + epoch
    os.utime(file, ns=(accessed_ns, published_ns))


def stamped_epoch_in_python(
    second: int, nanosecond: int, changed_second: int, /
) -> int:
    """
    See `stamped_epoch`. Without a C compiler, this does what
    ``kvd/native/attribute.c`` does.
    """
    return nanosecond if second - AHEAD_SECONDS == changed_second else 0


_native = compiled("_fast_path")
_epoch_in: Callable[[int], int] = (
    epoch_in_python if _native is None else _native.epoch_of
)
stamp: Callable[[int, int, int], None] = (
    stamp_in_python if _native is None else partial(_native.stamp, AHEAD_SECONDS)
)
"""
Give a file the times of a value.

Args:
    file: The descriptor of the file.
    published_us: The time of its publication, in microseconds since the epoch.
    epoch: The epoch to which it belongs; 0 for none.

Raises:
    OSError: They cannot be set.
"""
stamped_epoch: Callable[[int, int, int], int] = (
    stamped_epoch_in_python
    if _native is None
    else partial(_native.stamped_epoch, AHEAD_SECONDS)
)
"""
The epoch that a value was stamped with; 0 for none.

Args:
    second: Of its access time, since the epoch.
    nanosecond: Of the same, within the second.
    changed_second: Of the time of its last change.
"""


def epoch_of(lock: os.stat_result) -> int:
    """
    The current epoch, from the status of the file of locks; 0 for none.

    Whole microseconds are no epoch. They are what kvd gives to values that belong to no
    epoch, and what file systems without fractions keep.
    """
    return _epoch_in(lock.st_mtime_ns % _SECOND_NS)


def current_epoch(lock: int) -> int:
    """
    The current epoch; 0 for none, or if it cannot be read.

    Args:
        lock: A descriptor of the file of locks; -1 for none.
    """
    try:
        return epoch_of(os.fstat(lock))
    except OSError:  # XFS that was shut down by an error.
        return 0


def begin_epoch(lock: int) -> int:
    """
    Begin an epoch.

    Args:
        lock: A descriptor of the file of locks.

    Returns:
        The epoch; 0 for none.
    """
    fraction = (
        _MICROSECOND_NS * secrets.randbelow(_SECOND_NS // _MICROSECOND_NS)
        + 1
        + secrets.randbelow(_MICROSECOND_NS - 1)
    )  # fmt: skip
    now = int(time.time()) * _SECOND_NS + fraction
    try:
        os.utime(lock, ns=(now, now))
    except PermissionError:
        # Another user's file. Its time can only be set to the present, which is as
        # good, except that two epochs within one tick of the kernel would be the same.
        os.utime(lock)
    return epoch_of(os.fstat(lock))


def is_of(epoch: int, value: os.stat_result) -> bool:
    """
    Whether a value was published in an epoch.
    """
    return epoch != 0 and epoch == epoch_of_value(value)


def epoch_of_value(value: os.stat_result) -> int:
    """
    The epoch that a value was published in, as its stamp says; 0 for none.
    """
    accessed = divmod(value.st_atime_ns, _SECOND_NS)
    return stamped_epoch(*accessed, value.st_mtime_ns // _SECOND_NS)


class Epochs:
    """
    The epochs of one store, as one process sees them.
    """

    def __init__(self, lock: int) -> None:
        """
        Args:
            lock: The descriptor of the file of locks. It may become that of another
                file.
        """
        self.lock = lock

    def current(self) -> int:
        """
        The current epoch; 0 for none, or if it cannot be read.
        """
        return current_epoch(self.lock)

    def take(self, since: float, no_error_since: float) -> SharedSync:
        """
        Prepare a sync. What has been published so far will be covered by it.

        Args:
            since: What was published before is covered by an earlier sync. By a clock
                that all processes share.
            no_error_since: When this process opened the store, or saw an error.

        Raises:
            OSError: There is no descriptor left.
        """
        return SharedSync(os.dup(self.lock), since, no_error_since)


class SharedSync:
    """
    A sync that other processes may do, or rely on.
    """

    def __init__(self, lock: int, since: float, no_error_since: float) -> None:
        self._lock = lock
        self._since = since
        self._no_error_since = no_error_since
        self._epoch = current_epoch(lock)

    def run(self, sync: Callable[[], None], batched: bool) -> None:
        """
        Sync, unless another process has done so meanwhile; blocks.

        Args:
            sync: Syncs everything.
            batched: Whether to wait for other processes that want to share.

        Raises:
            OSError: What has been published may be lost.
        """
        try:
            if batched:
                time.sleep(BATCH_SECONDS)
            is_held = self._hold()
            if is_held and self._is_done():
                return
            epoch = begin_epoch(self._lock)
            sync()
            if is_held and epoch:
                self._say_done(epoch)
        finally:
            # The lock belongs to the open file, which has another descriptor.
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            self.close()

    def close(self) -> None:
        """
        Do without it.
        """
        os.close(self._lock)

    def _hold(self) -> bool:
        pause = 0.005
        deadline = time.monotonic() + HOLD_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
            except OSError:
                return False  # Not supported, for example.
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _is_done(self) -> bool:
        epoch = current_epoch(self._lock)
        if 0 in (epoch, self._epoch) or epoch == self._epoch:
            return False
        try:
            done, no_error_since = os.getxattr(self._lock, _SYNCED).split()
            return int(done) == epoch and float(no_error_since) <= self._since
        except (OSError, ValueError):
            return False

    def _say_done(self, epoch: int) -> None:
        with suppress(OSError):  # Then everybody syncs.
            text = b"%d %f" % (epoch, self._no_error_since)
            os.setxattr(self._lock, _SYNCED, text)
