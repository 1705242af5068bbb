"""
Writing off the path of what is written about.

To tell something costs an append to a list. Twice a second the list is written
in a thread. What a slow disk does not take is dropped and counted: requests do
not wait for it, and memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

FLUSH_SECONDS: Final = 0.5

# What waits for a disk which takes none costs memory.
MAX_WAITING: Final = 100_000


class Gathering(Generic[T]):
    """
    Gathers entries and writes them now and then.

    They are written in the order in which they were told. A process that is
    killed loses what it gathered in the last half second.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        clock: IReactorTime,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        """
        Args:
            name: Of the file, for the log: "the access log".
            write: Writes entries; may block, and fail with OSError.
            clock: When to write.
            off_reactor: Runs a function elsewhere.
        """
        self._name = name
        self._write = write
        self._clock = clock
        self._off_reactor = off_reactor
        self._waiting: list[T] = []
        self._dropped = 0
        self._scheduled = False
        self._failed = False

    def note(self, entry: T) -> None:
        """
        Take one entry.
        """
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        self._off_reactor(lambda: self._write(entries)).addBoth(self._flushed)

    def _flushed(self, result: Failure | None) -> None:
        # One write at a time, so that entries keep their order.
        if isinstance(result, Failure):
            self._complain(result.value)
        else:
            self._failed = False
        if self._dropped:
            self._log.warn(
                "{dropped} entries of {name} were dropped: its file takes them too"
                " slowly",
                dropped=self._dropped,
                name=self._name,
            )
            self._dropped = 0
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._clock.callLater(FLUSH_SECONDS, self._flush)

    def _complain(self, error: BaseException | None) -> None:
        if not self._failed:
            self._failed = True
            self._log.warn(
                "{name} cannot be written, its entries are lost: {error}",
                name=self._name,
                error=error,
            )

    def stop(self) -> None:
        """
        Write what waits, in this thread.
        """
        entries, self._waiting = self._waiting, []
        if entries:
            try:
                self._write(entries)
            except OSError as error:
                self._complain(error)
