"""
Syncs published values later, at durability ``process``, where no request waits for a
sync.

By itself, a file system writes the content of a file about half a minute after the
change, and names after five seconds (ext4) or thirty (XFS). So for a while a name
refers to a file that is not on the disk yet, and the file that had the name before is
gone: a power cut then destroys both the new value and the old one, however old it is.
Starting the write of the new file early only shortens this time: content that is still
being written when the names are written is lost. So

- everything is synced a few seconds after it was published (syncfs(2), in a thread): a
  power cut loses at most what was written in these seconds;
- until then the replaced file of a key is *kept* in the upload folder, under a name
  that contains the key. An exchange of names (`kvd.store.exchange`) moves it there at
  no cost; otherwise it is linked to its second name before it loses the first. If a key
  is written again before the sync, only its first file is kept: the later ones were
  never synced. `kvd.store.epochs` says so of files that other processes published.

All processes sync at the same moments, multiples of the period of the monotonic clock,
so that one sync does for all of them (`kvd.store.epochs`). With 32 workers under load
there was a sync every 0.15 s otherwise.

Kept files are removed after the sync. If the sync fails, they stay until the next
start, up to a bound. If no sync happens, since the process or the machine was killed,
the next process that opens the store finds the folder (`kvd.store.uploads`). It
restores the kept file of each key whose value is torn, if the kept file is whole; the
folder is removed after the next sync.

A torn file need not be too short (`kvd.store.unwritten`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.interfaces import Answer
from kvd.store.epochs import BATCH_SECONDS, Epochs
from kvd.store.replaced import AllKept
from kvd.store.sync import sync_all
from kvd.store.uploads import Left, UploadFolder
from kvd.store.waiting import OffReactor

SYNC_SECONDS: Final = 5.0
"""
The longest time from a publication to the beginning of its sync, unless the disk is
still busy with the sync before.
"""

MAX_KEPT: Final = 16384
"""
If more keys than this were changed, the sync comes earlier.
"""

_PERIOD_SECONDS: Final = SYNC_SECONDS - BATCH_SECONDS

_CHECKS: Final = 5
"""
How often in a period it is checked whether there are too many.
"""


class Writeback:
    """
    Syncs what one store has published, some seconds later.
    """

    _log = Logger()

    def __init__(
        self,
        root: int,
        uploads: UploadFolder,
        left: Iterable[Left],
        clock: IReactorTime,
        off_reactor: OffReactor,
        epochs: Epochs | None = None,
    ) -> None:
        """
        Args:
            root: The store's folder; the caller closes it.
            uploads: The upload folder, which keeps replaced values.
            left: The folders that other processes left; removed after the next sync.
            clock: Schedules the syncs.
            off_reactor: Runs the syncs.
            epochs: By which syncs are shared with other processes; None: they are not.
        """
        self._root = root
        self._uploads = uploads
        self._left = list(left)
        self._clock = clock
        self._off_reactor = off_reactor
        self._epochs = epochs
        self.kept: AllKept = {}
        """
        What has changed since the last sync. `kvd.store.tree` and `kvd.http.fast_path`
        add entries.
        """
        self._period = self._current_period()  # At the last check.
        self._is_urgent = False
        self._taken = self._no_error_since = clock.seconds()
        self._syncing: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._staying = 0  # Kept files that stay since their sync failed.
        self._next = self._check_later()

    def _current_period(self) -> int:
        # A timer may fire a little early.
        return int((self._clock.seconds() + 0.001) / _PERIOD_SECONDS)

    def _check_later(self) -> IDelayedCall:
        # Not a `LoopingCall`: if it begins late, it stays late.
        seconds = _PERIOD_SECONDS / _CHECKS
        pause = seconds - self._clock.seconds() % seconds
        return self._clock.callLater(pause, self._check)

    def _check(self) -> None:
        self._next = self._check_later()
        period = self._current_period()
        is_due = period != self._period or self._is_urgent or len(self.kept) > MAX_KEPT
        self._period = period
        if is_due and self._syncing is None and (self.kept or self._left):
            self._sync(batched=True)

    def soon(self) -> None:
        """
        Sync at the next check: room is scarce, and kept files take some.
        """
        if self.kept:
            self._is_urgent = True

    def make_room(self) -> Deferred[None] | None:
        """
        Sync now, because there is no room.

        Returns:
            Fires when kept files have been removed; None if none are kept.
        """
        if self._syncing is None and (self._left or any(self.kept.values())):
            self._sync(batched=False)
        if self._syncing is None:
            return None
        room: Deferred[None] = Deferred()
        self._waiting.append(room)
        return room

    def _sync(self, batched: bool) -> Answer[None]:
        left = self._left
        names = [name for name in self.kept.values() if name]
        folder = self._uploads.descriptor
        sync = partial(sync_all, self._root)
        shared = None
        try:
            if self._epochs is not None:
                shared = self._epochs.take(self._taken, self._no_error_since)
                sync = partial(shared.run, sync, batched)
            syncing = self._off_reactor(
                partial(self._sync_and_remove, sync, folder, names, left)
            )
        except OSError as error:  # No descriptor, or no thread.
            if shared is not None:
                shared.close()
            self._is_urgent = True
            self._log.warn(
                "a sync cannot be started, and is tried again: {reason}", reason=error
            )
            return None
        # In place: it is shared. What is published from here on may miss this sync, so
        # what it replaces is kept again.
        self.kept.clear()
        self._left = []
        self._is_urgent = False
        self._taken = self._clock.seconds()
        self._syncing = syncing
        syncing.addErrback(self._failed, left)
        return syncing.addCallback(self._synced)

    def _sync_and_remove(
        self,
        sync: Callable[[], None],
        folder: int,
        names: Sequence[bytes],
        left: Iterable[Left],
    ) -> None:
        try:
            sync()
        except OSError:
            # Kept files stay: the next process that opens the store may need them. But
            # a disk that fails for long must not be filled.
            if self._staying < MAX_KEPT:
                self._staying += len(names)
                self._uploads.stays = True
            else:
                self._remove(folder, names)
            raise
        self._remove(folder, names)
        for each in left:
            each.remove()

    def _remove(self, folder: int, names: Iterable[bytes]) -> None:
        for name in names:
            try:
                os.unlink(name, dir_fd=folder)
            except OSError:
                pass  # Removed by hand, or removed with its folder.

    def _failed(self, failure: Failure, left: Iterable[Left]) -> None:
        self._log.error(
            "values published in the last seconds cannot be synced, and the next power"
            " cut may lose them; the values that they replaced stay in .kvd until the"
            " next start: {reason}",
            reason=failure.value,
        )
        self._no_error_since = self._clock.seconds()
        for each in left:
            each.release()

    def _synced(self, _: None) -> None:
        self._syncing = None
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            room.callback(None)

    def stop(self) -> Answer[None]:
        """
        Do the last sync. Nothing may be published afterwards.
        """
        if self._next.active():
            self._next.cancel()
        if self._syncing is not None:
            return self._syncing.addCallback(lambda _: self._last())
        return self._last()

    def _last(self) -> Answer[None]:
        if not self.kept and not self._left:
            return None
        answer = self._sync(batched=False)
        if self.kept:  # There was no thread.
            self._uploads.stays = True
        return answer
