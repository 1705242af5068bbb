"""
What all connections of a process share. (What lives as long as a listening socket is in
`kvd.net.port`, as a connection in `kvd.http.connection`, and as a request in
`kvd.http.request`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kvd.access.networks import OpenConnections
from kvd.http.access_log import Entry
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import FastPath
from kvd.http.half_handshakes import HalfHandshakes
from kvd.http.host_guard import HostGuard
from kvd.http.pieces import Pieces
from kvd.http.recorder import Recorder
from kvd.http.run_queue import RunQueue
from kvd.http.timeouts import bounds_of
from kvd.http.wire.heads import Heads
from kvd.interfaces import IStore
from kvd.ipc.row import Row, lone_row
from kvd.net.splice import Pipe
from kvd.net.transport import ServerTransport
from kvd.settings import Limits

if TYPE_CHECKING:
    from kvd.access.proxies import Proxies
    from kvd.http.authorization import Authorization
    from kvd.http.closed import Closed
    from kvd.http.cors import Cors
    from kvd.http.reply_fields import GuessType

Readahead = Callable[[int, int, int], Deferred[None] | None]
"""
See `kvd.net.readahead.Readahead.ensure`.
"""


class IRequestLog(Protocol):
    """
    Where finished requests are logged; see `kvd.log.buffered.BufferedWriter`.
    """

    collect: Callable[[], None]

    def note(self, entry: Entry) -> None:
        """
        Take one entry.
        """

    def note_all(self, entries: Sequence[Entry]) -> None:
        """
        Take the entries that were collected.
        """

    def expect(self) -> None:
        """
        There is something to collect.
        """


class Commits(Protocol):
    """
    See `kvd.http.commits.Commits`.
    """

    def begun(self) -> None:
        """
        A connection waits for a commit.
        """

    def watched(self) -> None:
        """
        The reactor watches it from now on.
        """


class OpenConnection(Protocol):
    """
    A connection, as its process sees it.
    """

    transport: ServerTransport
    counted_for: Any
    """The peer whose open connections this is counted among; None: no peer's."""

    def check_time(self, now: float) -> None:
        """
        Called a few times a second: end what has waited for too long.
        """

    def rules_changed(self) -> None:
        """
        Another rights file decides from now on, or the first one, or none any more.
        """

    def drain(self, seconds: float) -> None:
        """
        The process stops: finish the request in service, and begin only one more, if it
        arrives soon.

        Args:
            seconds: How soon.
        """

    def abort(self) -> None:
        """
        Break off at once.
        """


class ProcessContext:
    """
    What all connections of a process use, and what the process knows of them all.
    """

    _log = Logger()

    def __init__(
        self,
        store: IStore,
        dialects: Dialects,
        limits: Limits,
        clock: IReactorTime,
        log: IRequestLog | None = None,
        released: Callable[[], None] = lambda: None,
        row: Row | None = None,
        pipe: Pipe | None = None,
        readahead: Readahead = lambda descriptor, offset, count: None,
        recorder: Recorder | None = None,
        guard: HostGuard | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        """
        Args:
            store: Keeps the values.
            dialects: Understand requests and choose the statuses of replies.
            limits: What one client may ask.
            clock: Tells the time.
            log: Gets an entry for each request; None: there is no access log.
            released: Called when a connection ended or the store answered.
            row: Where this process counts; None: only for itself.
            pipe: Through which bodies are moved to files; None: they are read
                and written.
            readahead: Reads a part of a file into memory before it is sent; raises
                OSError if it cannot begin.
            recorder: Records each connection that ended; None: nothing is recorded.
            guard: Knows which hosts a request may name, whichever socket it came to;
                None: those that a `HostGuard` without addresses allows.
            pieces: How much is sent at a time; None: always the same.
        """
        self.store = store
        self.dialects = dialects
        self.limits = limits
        self.clock = clock
        self.log = log
        self._released = released
        self.row = row or lone_row()
        self.pipe = pipe
        self.readahead = readahead
        self.recorder = recorder
        self.guard = guard or HostGuard()
        self.pieces = pieces or Pieces()
        self.heads = Heads(limits)
        self.bounds = bounds_of(limits)
        self.by_address: OpenConnections | None = None
        """How many connections each address has, if that is limited."""
        self.run_queue = RunQueue(clock.callLater, self.row)
        self.half_handshakes = HalfHandshakes()
        self.proxies: Proxies | None = None
        """Knows the clients of requests that proxies forward. None: no proxy is
        trusted."""
        self.address_rate: Callable[[object], None] | None = None
        """Counts a request of a client, given what ``accept`` said of it, and raises
        `TooManyRequests`. None: they may send as many as they like."""
        self.authorization: Authorization | Closed | None = None
        """Decides what each client may do. None: everything."""
        self.cors: Cors | None = None
        """Tells browsers which pages may use kvd. None: no other site's."""
        self.has_pages = False
        """Whether browsers get a page of a folder (`kvd.http.browser`)."""
        self.guess_type: GuessType | None = None
        """Gives the type of a value that was stored without one. None: nobody does."""
        self.fast_path: FastPath | None = None
        """Serves the requests that it can. None: there is none, or kvd is draining."""
        self.commits: Commits | None = None
        """What the fast path has written that waits for syncs, at durability
        ``disk``."""
        self.draining = False
        self.connections: set[OpenConnection] = set()
        self.answers_due = 0
        """How many answers the store owes, also to connections that are gone."""

    def opened(self, connection: OpenConnection, *, is_counted: bool = False) -> None:
        """
        A connection has begun.

        Args:
            is_counted: Whether the scoreboard has it already.
        """
        self.connections.add(connection)
        if connection.counted_for is None:
            self.count_for_address(connection)
        if not is_counted:
            self.row.opened()

    def closed(self, connection: OpenConnection) -> None:
        """
        A connection has ended.
        """
        self.connections.discard(connection)
        if self.by_address is not None and connection.counted_for is not None:
            self.by_address.closed(connection.counted_for)
        self.row.closed()
        self._released()

    def count_for_address(self, connection: OpenConnection) -> None:
        """
        Count a connection among those of its address, if these are limited. Of the
        connections of a trusted proxy, the requests are counted instead, each for its
        own client.
        """
        peer = connection.transport.client
        if self.by_address is not None and not self.is_proxy(peer):
            connection.counted_for = peer
            self.by_address.opened(peer)

    def is_proxy(self, peer: Any) -> bool:
        """
        Whether a peer is a trusted proxy.
        """
        return self.proxies is not None and self.proxies.trusts(peer)

    def asked(self) -> None:
        """
        The store owes an answer.
        """
        self.answers_due += 1

    def answered(self) -> None:
        """
        An answer that was due has come.
        """
        self.answers_due -= 1
        self._released()

    def stop_moving(self) -> None:
        """
        The files of this store can be written, but splice(2) cannot move bytes to them.
        """
        if self.pipe is not None:
            self.pipe = None
            self._log.info(
                "the kernel moves no bytes to the files of this store (splice); bodies"
                " are read and written instead"
            )
