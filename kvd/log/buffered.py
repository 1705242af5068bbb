"""
A buffered log writer, so that no request waits for a log.

To note an entry costs an append to a list. Twice a second a thread writes the list. If
a slow disk, or a pipe that nobody reads, takes less than what comes, entries are left
out and counted, and so are those that a full disk does not take: neither requests nor
the end of the process wait, and memory is bounded. The log says soon how many are
missing, and then once in `REPORT_SECONDS`, also while the thread is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

FLUSH_SECONDS: Final = 0.5

# The bounds of what waits in memory: the number of entries, and the bytes in them that
# clients choose. The thread may hold as much again.
MAX_WAITING: Final = 100_000
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024

FIRST_REPORT_SECONDS: Final = 1.0
"""
How long after the first entry that is missing the log says so.
"""

REPORT_SECONDS: Final = 10.0
"""
How often at most the log says how many entries are missing.
"""

STOP_SECONDS: Final = 1.0
"""
How long writing the last entries may take.
"""


class Lost(Exception):
    """
    A file did not take all entries.
    """

    def __init__(self, count: int, error: OSError) -> None:
        """
        Args:
            count: How many it did not take, or not whole.
            error: Why.
        """
        super().__init__(error.strerror)
        self.count = count


class BufferedWriter(Generic[T]):
    """
    Keeps entries and writes them twice a second, in their order.

    A process that is killed loses the entries of the last half second.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        clock: IReactorTime,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]],
        size: Callable[[T], int] = lambda entry: 0,
    ) -> None:
        """
        Args:
            name: What the file is called in messages: "the access log".
            write: Writes entries; may block, and may raise OSError, or `Lost` if it
                knows how many it could not write.
            clock: Schedules the writing.
            off_reactor: Runs functions in a thread, in order; some may never return.
            size: How many bytes of an entry clients choose.
        """
        self._name = name
        self._write = write
        self._clock = clock
        self._off_reactor = off_reactor
        self._size = size
        self._waiting: list[T] = []
        self._waiting_bytes = 0
        self._missing = 0
        """How many entries are missing and not reported yet."""
        self._reason = ""
        self._reporting: IDelayedCall | None = None
        self._scheduled: IDelayedCall | None = None
        self._writing = False
        self.collect: Callable[[], None] = lambda: None
        """Called before an entry is noted, and before entries are written: calls
        `note_all` with those that come first."""

    def note(self, entry: T) -> None:
        """
        Add an entry.
        """
        self.collect()
        self._add(entry)

    def note_all(self, entries: Sequence[T]) -> None:
        """
        Add the entries that were collected.
        """
        for entry in entries:
            self._add(entry)

    def expect(self) -> None:
        """
        There is something to collect: write soon.
        """
        # One write at a time, so that what waits is bounded.
        if self._scheduled is None and not self._writing:
            self._scheduled = self._clock.callLater(FLUSH_SECONDS, self._flush)

    def _add(self, entry: T) -> None:
        if (
            len(self._waiting) >= MAX_WAITING
            or self._waiting_bytes >= MAX_WAITING_BYTES
        ):
            self._lose(1, "its file takes them too slowly")
            return
        self._waiting.append(entry)
        self._waiting_bytes += self._size(entry)
        self.expect()

    def _flush(self) -> None:
        self._scheduled = None
        self._writing = True
        self.collect()
        self._write_waiting().addCallback(self._flushed)

    def _write_waiting(self) -> Deferred[None]:
        entries, self._waiting = self._waiting, []
        self._waiting_bytes = 0

        def failed(failure: Failure) -> None:
            error = failure.value
            count = error.count if isinstance(error, Lost) else len(entries)
            self._lose(count, str(getattr(error, "strerror", None) or error))

        # Called even with nothing to write: it fires after what is being written.
        written = self._off_reactor(lambda: self._write(entries) if entries else None)
        return written.addErrback(failed)

    def _flushed(self, _: None) -> None:
        self._writing = False
        self.collect()
        if self._waiting:
            self.expect()

    def _lose(self, count: int, reason: str) -> None:
        self._missing += count
        self._reason = reason
        if self._reporting is None:
            self._reporting = self._clock.callLater(FIRST_REPORT_SECONDS, self._report)

    def _report(self) -> None:
        self._reporting = None
        if self._missing:
            self._report_missing()
            self._reporting = self._clock.callLater(REPORT_SECONDS, self._report)

    def _report_missing(self) -> None:
        if self._missing:
            self._log.warn(
                "entries that are missing in {name}: {count}; {reason}",
                count=self._missing,
                name=self._name,
                reason=self._reason,
                kind=self._name,
            )
            self._missing = 0

    def stop(self) -> Deferred[None]:
        """
        Write the entries that wait. No entry may follow.

        Returns:
            Fires when all is written, or after `STOP_SECONDS`; never fails.
        """
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        self.collect()
        if not (self._writing or self._waiting):
            self._end_reporting()
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        count = len(self._waiting)
        late = self._clock.callLater(STOP_SECONDS, self._late, count, stopped)

        def written(_: None) -> None:
            if late.active():
                late.cancel()
                self._end_reporting()
                stopped.callback(None)

        self._write_waiting().addCallback(written)
        return stopped

    def _late(self, count: int, stopped: Deferred[None]) -> None:
        # How much of what is being written gets there, nobody can count.
        self._missing += count
        self._reason = "its file takes them too slowly"
        self._end_reporting()
        stopped.callback(None)

    def _end_reporting(self) -> None:
        if self._reporting is not None and self._reporting.active():
            self._reporting.cancel()
        self._report_missing()
