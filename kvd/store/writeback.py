"""
Getting to the disk what was published, at durability ``process``, where nobody waits
for it.

A file system that is left alone writes a file some half a minute after it was
written to, and names after five seconds (ext4) or thirty (XFS). So for a while a name
leads to a file of which nothing is on the disk, and the file that had the name before
is gone: a power cut then costs the new value and the old one, however long that has
been there. To begin the writing of the new file early makes the while shorter and
does not end it: what was on its way when the names were written is still lost. So

- everything is synced a few seconds after it was published (syncfs(2), in a thread):
  no more is lost than was written in these seconds;
- the file that had a key's name is *kept* until then, in the upload folder, under a
  name that says the key. Swapping names (`kvd.store.exchange`) puts it there at no
  cost; else it gets a second name before it loses the first. Of a key that is written
  again before the sync, only the first is kept: what came between was never synced.

What is kept is removed after the sync. If that fails, what is kept stays until the next
start, up to a bound. If none comes, since the process or the machine
was killed, whoever opens the store next finds the folder (`kvd.store.uploads`). A key
whose value was torn then gets back what is kept for it, if that is whole; the folder
is removed after the next sync.

A file can be torn without being shorter than it should be (`kvd.store.unwritten`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.interfaces import Answer
from kvd.model.keys import Key
from kvd.store.sync import sync_all
from kvd.store.uploads import Left, UploadFolder
from kvd.store.waiting import OffReactor

SYNC_SECONDS: Final = 5.0
"""
What was published is synced after so long at the latest, unless the disk is still busy
with the sync before.
"""

MAX_KEPT: Final = 16384
"""
If more keys were written to, it is synced earlier.
"""

_CHECK_SECONDS: Final = 1.0


class Writeback:
    """
    Syncs what one store published some seconds ago.
    """

    _log = Logger()

    def __init__(
        self,
        root: int,
        uploads: UploadFolder,
        left: Iterable[Left],
        clock: IReactorTime,
        off_reactor: OffReactor,
    ) -> None:
        """
        Args:
            root: The store's folder; stays the caller's.
            uploads: Where replaced values are kept.
            left: What other processes left; removed after the next sync.
            clock: Tells when.
            off_reactor: Where to wait for the disk.
        """
        self._root = root
        self._uploads = uploads
        self._left = list(left)
        self._clock = clock
        self._off_reactor = off_reactor
        self.kept: dict[Key, bytes] = {}
        """
        The keys whose values were replaced since the last sync, and the name under
        which the upload folder keeps the one that each had. `kvd.store.tree` and
        `kvd.http.fast_path` enter them; if something else has changed, it is not empty.
        """
        self._since: float | None = None
        self._syncing: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._staying = 0  # Of what was kept, since its sync failed.
        self._checking = LoopingCall(self._check)
        self._checking.clock = clock
        self._checking.start(_CHECK_SECONDS, now=False)

    def _is_due(self) -> bool:
        if not self.kept and not self._left:
            self._since = None
            return False
        now = self._clock.seconds()
        if self._since is None:
            # Up to `_CHECK_SECONDS` ago.
            self._since = now - _CHECK_SECONDS
        return (
            now - self._since >= SYNC_SECONDS - _CHECK_SECONDS
            or len(self.kept) > MAX_KEPT
        )

    def _check(self) -> None:
        if self._syncing is None and self._is_due():
            self._sync()

    def soon(self) -> None:
        """
        Sync at the next look: there is want of room, and what is kept takes some.
        """
        if self.kept:
            self._since = self._clock.seconds() - SYNC_SECONDS

    def make_room(self) -> Deferred[None] | None:
        """
        Sync now, for want of room.

        Returns:
            When something that was kept has been removed; None if nothing is kept.
        """
        if self._syncing is None and (self._left or any(self.kept.values())):
            self._sync()
        if self._syncing is None:
            return None
        room: Deferred[None] = Deferred()
        self._waiting.append(room)
        return room

    def _sync(self) -> Answer[None]:
        left = self._left
        names = [name for name in self.kept.values() if name]
        work = partial(self._sync_and_remove, self._uploads.descriptor, names, left)
        try:
            syncing = self._off_reactor(work)
        except RuntimeError as error:
            self._log.warn("no thread to sync in can be had: {reason}", reason=error)
            return None
        # In place: it is shared. From here on what is published is not in this sync for
        # certain, so what it replaces is kept anew.
        self.kept.clear()
        self._left = []
        self._since = None
        self._syncing = syncing
        syncing.addErrback(self._failed, left)
        return syncing.addCallback(self._synced)

    def _sync_and_remove(
        self, folder: int, names: Sequence[bytes], left: Iterable[Left]
    ) -> None:
        try:
            sync_all(self._root)
        except OSError:
            # What is kept stays where it is: whoever opens the store next may need it.
            # But a disk that fails for long must not be filled.
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
                pass  # Removed by hand, or it goes with its folder.

    def _failed(self, failure: Failure, left: Iterable[Left]) -> None:
        self._log.error(
            "what was published in the last seconds cannot be synced, and may be lost"
            " with the next power cut; what it replaced stays in .kvd until the next"
            " start: {reason}",
            reason=failure.value,
        )
        for each in left:
            each.release()

    def _synced(self, _: None) -> None:
        self._syncing = None
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            room.callback(None)

    def stop(self) -> Answer[None]:
        """
        Sync what is left to sync. Nothing may be published any more.
        """
        if self._checking.running:
            self._checking.stop()
        if self._syncing is not None:
            return self._syncing.addCallback(lambda _: self._last())
        return self._last()

    def _last(self) -> Answer[None]:
        if not self.kept and not self._left:
            return None
        answer = self._sync()
        if self.kept:  # There was no thread.
            self._uploads.stays = True
        return answer
