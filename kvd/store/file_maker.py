"""
Starts a file store: its folder is made and tested before the first worker starts, and
each worker opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from twisted.internet.defer import execute
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.logger import Logger
from zope.interface import implementer

from kvd.errors import BadSetting
from kvd.interfaces import IBoundedStoreMaker, IFileStoreMaker, IHeldStoreMaker
from kvd.settings import DEFAULT_MODES, Bounds, Durability, Modes, User
from kvd.store.file import FileStore, open_root, opening
from kvd.store.preparing import make_root, probe, settle
from kvd.store.sync import MAX_THREADS
from kvd.store.threads import Threads
from kvd.store.waiting import in_threads_of
from kvd.system.privileges import acting_as

if TYPE_CHECKING:
    from kvd.store.admission import Admission

_log = Logger()


@implementer(IBoundedStoreMaker, IFileStoreMaker, IHeldStoreMaker)
@dataclass(frozen=True, slots=True)
class FileStoreMaker:
    """
    Opens the store in a folder: ``file:./values``.
    """

    modes: Modes = DEFAULT_MODES
    user: User | None = None
    bounds: Bounds | None = None
    usage: int = -1
    row: int = 0

    def making(self, modes: Modes, user: User | None) -> FileStoreMaker:
        return replace(self, modes=modes, user=user)

    def bounded(self, bounds: Bounds, usage: int, row: int) -> FileStoreMaker:
        return replace(self, bounds=bounds, usage=usage, row=row)

    def resolve(self, path: str) -> str:
        if not path or "\0" in path:
            raise BadSetting(
                f"the file store needs a folder, but got {path!r}; write file:./values"
            )
        return os.path.abspath(path)

    def prepare(self, path: str) -> None:
        with _own_folders():
            # Before the change of user: the folder around it may belong to root.
            make_root(path, self.modes.folder, self.user)
            self._probe(path)

    def _probe(self, path: str) -> None:
        with acting_as(self.user):
            settle(path, self.modes)
            # It never has to wait: no other process locks this key.
            store = FileStore(
                path,
                "process",
                Clock(),
                execute,
                modes=self.modes,
                writes_back=False,
            )
            with closing(store):
                probe(store, path)

    def hold(self, path: str) -> int:
        with opening(path):
            return open_root(path)

    def open_held(self, path: str, durability: Durability, held: int) -> FileStore:
        if not _is_same(path, held):
            _log.warn(
                "{path} is no longer the folder that kvd opened at its start: kvd still"
                " uses that one, wherever it is now; restart kvd to use the new one",
                path=path,
            )
        return self._open(held, durability)

    def open_store(self, path: str, durability: Durability) -> FileStore:
        return self._open(path, durability)

    def _open(self, path: str | int, durability: Durability) -> FileStore:
        # Not at the top: this import installs a reactor.
        from twisted.internet import reactor

        # As a daemon, twistd sets the umask 077. This process creates everything with
        # explicit permissions; to set those of each value afterwards would be one more
        # call.
        os.umask(os.umask(0o077) & ~self.modes.file)
        syncing = None
        if durability == "disk":
            syncing = Threads(reactor, MAX_THREADS)
            # The store is closed by then, so nothing is underway.
            reactor.addSystemEventTrigger("during", "shutdown", syncing.stop)
        return FileStore(
            path,
            durability,
            IReactorTime(reactor),
            in_threads_of(reactor),
            syncing,
            self.modes,
            admission=self._admission(IReactorTime(reactor)),
        )

    def _admission(self, clock: IReactorTime) -> Admission | None:
        if self.bounds is None:
            return None
        # Not at the top: only a store with limits needs it.
        from kvd.store.admission import Admission
        from kvd.store.usage import UsageMemory

        return Admission(UsageMemory(self.usage), self.bounds, self.row, clock)


maker = FileStoreMaker()


@contextmanager
def _own_folders() -> Iterator[None]:
    """
    Let this process enter the folders that it makes, before they have their modes.
    """
    mask = os.umask(0o077)
    os.umask(mask & ~0o700)
    try:
        yield
    finally:
        os.umask(mask)


def _is_same(path: str, folder: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(folder))
    except OSError:
        return False
