"""
kvd's listening port: Twisted's, except in how it accepts and how it ends.

Twisted's own port for Unix sockets changes the mode of the socket's file, and unlinks
it when *one* of the workers that share the socket stops. Its port for TCP accepts up to
a hundred connections per wake-up: the first of several workers on one socket takes
nearly all (measured with 64 keep-alive connections over 8 workers: 663 requests/s
against 1,889 with one per wake-up), and it runs past a limit on open connections.

So this port, for both families, asks its factory (`kvd.net.factory.ServerFactory`) how
many to accept, and whether to accept at all. It can be paused. It leaves connections in
the kernel's queue while this process has no descriptors. It stops without touching the
socket, which other processes may hold too.

How many are accepted per wake-up follows the length of the queue. With a fixed number
a storm of connections starves: the more are open, the longer a turn of the reactor
takes, and the fewer are accepted. (One per turn, 2,000 clients at once and two workers:
the last were accepted after 0.8 to 2 seconds, when open connections had had thirty
turns.)
"""

from __future__ import annotations

import errno
import os
import select
import socket
from select import EPOLLEXCLUSIVE, EPOLLIN
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.net.factory import ServerFactory, make_connection
from kvd.net.listening import accept_queue
from kvd.net.sockets import address_of, peer_of

# What accept(2) reports of a connection that died in the queue, or of a packet
# filter; the next one may be fine.
_PEER_ERRORS = frozenset(
    (
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    )
)

MAX_PEER_ERRORS: Final = 100
"""
After this many such errors in a row the peers are not to blame: a filter of system
calls, for example, may answer EPERM and leave the connection in the queue.
"""

# After any other error. Mostly this process or machine has run out of something; but
# accept(2) can fail in more ways than its manual lists (a filter of system calls, a
# security module, a network file system below a Unix socket), and whoever gives up is
# deaf for ever. The connection stays in the queue; trying at once again would spin.
_PAUSE_SECONDS: Final = 0.1

GATE_SECONDS: Final = 0.001
"""
How long a port that may not accept waits before it asks its gate again: the socket
stays readable until some process has accepted the connection.
"""

GATE_LIMIT_SECONDS: Final = 0.02
"""
A connection waits no longer because of a gate. Then it is accepted whatever the gate
says, since what the gate knows may be old.
"""

MAX_BATCH: Final = 1024
"""
The most that are accepted per wake-up, however many wait: this holds up the connections
that are open for 30 to 50 ms.
"""

PARTS: Final = 16
"""
The gate is asked this many times per wake-up at most: to ask before each connection
costs a fifth of accepting it.
"""

SERVED_PART: Final = 16
"""
The gate is asked again after this many connections that ended with their requests,
which were served at once; and after each one that stays, if few wait.
"""

_MAX_UNIX_QUEUE: Final = 10_000
"""
The kernel does not report how many wait at a Unix socket. kvd removes its file before
it accepts them, so no more come meanwhile.
"""


def waiting_at(listener: socket.socket) -> int:
    """
    How many connections wait at a socket; of a Unix socket, at the most.
    """
    if listener.family == socket.AF_UNIX:
        return _MAX_UNIX_QUEUE
    return accept_queue(listener)[0]


_CLOSED: Final = Failure(CONNECTION_DONE)


class Port(tcp.Port):
    """
    Accepts connections from one listening socket, over TCP or a Unix socket.

    `pauseProducing` leaves connections in the kernel's queue until
    `resumeProducing`.
    """

    factory: ServerFactory
    reactor: Any

    _log = Logger()
    _shouldShutdown = False

    def __init__(
        self, listener: socket.socket, factory: ServerFactory, reactor: Any
    ) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this from here on.
            factory: Serves the connections.
            reactor: Watches the socket; its clock is used.
        """
        host, number = "", 0
        if listener.family != socket.AF_UNIX:
            host, number = listener.getsockname()[:2]
        super().__init__(number, factory, interface=host, reactor=reactor)
        self._listener = listener
        self._kind = listener.family, listener.type, listener.proto
        self._guessed = None if _reports_its_queue(listener) else 1
        self._retry: Any = None
        self._gated_since: float | None = None
        self._complained = False
        self._peer_errors = 0
        self.as_usual = True
        """Whether a connection may be accepted as soon as the gate is open. Otherwise
        `may_accept_one` has to be called."""
        self._wanted = False
        self._is_rung = False
        """Whether it looks because of another process, which has woken all."""

    def startListening(self) -> None:
        """
        See `IListeningPort.startListening`.
        """
        self.factory.doStart()
        self.socket = self._listener
        self.fileno = self._listener.fileno  # type: ignore[method-assign]  # as in tcp.Port
        self._realPortNumber = self.port
        self.connected = True
        self.resumeProducing()

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """
        See `IListeningPort.getHost`.
        """
        return address_of(self._listener.getsockname())

    def resumeProducing(self) -> None:
        """
        Accept from now on.
        """
        self._wanted = True
        if self._retry is None:
            self._watch()

    def _watch(self) -> None:
        try:
            if self.factory.wakes_one:
                self.reactor.watch(self, EPOLLIN | EPOLLEXCLUSIVE)
            else:
                self.startReading()
        except OSError as error:
            # The kernel watches no more for this user (epoll_ctl(2): ENOSPC, ENOMEM).
            self._pause_after(error)

    def unwatched(self, number: int) -> None:
        """
        The poller could not watch the socket again, with the error of this number.
        """
        self.reactor.unwatched(self)
        self._pause_after(OSError(number, os.strerror(number)))

    def pauseProducing(self) -> None:
        """
        Leave connections in the queue for now.
        """
        self._wanted = False
        self.stopReading()
        # The kernel may have woken this process for one that it does not accept now.
        self.factory.leave()

    def rung(self) -> None:
        """
        Another process has left what waits here, if something does.
        """
        if self._wanted and self._retry is None and self._somebody_waits():
            self._is_rung = True
            try:
                self.doRead()
            finally:
                self._is_rung = False

    def doRead(self) -> None:
        """
        See `IReadDescriptor.doRead`.
        """
        factory = self.factory
        size = factory.batch_size
        if factory.gate is not None or size is None:
            self._accept_share()
        elif self._accept(size) and factory.takes_all:
            # What comes from now on waits for the next wake-up.
            self._accept(min(self._waiting(), MAX_BATCH))
            self._guess_anew()
        factory.batch_accepted()

    def may_accept_one(self, is_open: bool | None = None) -> bool | None:
        """
        Whether to accept the only connection that waits. Called in place of `doRead`,
        if this is not `as_usual` or the gate is closed.

        Args:
            is_open: What the gate has said; None: it was not asked.

        Returns:
            None: `doRead` must be called. If not now, this port asks again later.
        """
        if self._complained or self._peer_errors:
            return None
        if self._may_now(1, is_open):
            return True
        self._stop_watching(GATE_SECONDS)
        return False

    def _accept_share(self) -> None:
        factory = self.factory
        waiting = self._waiting()
        if not waiting:
            # Another process was faster.
            return
        size = factory.batch_size
        left = max(1, factory.share(waiting) if size is None else size)
        left = min(left, MAX_BATCH)
        part = stays = left
        if factory.gate is not None:
            # One that is served at once makes this process no busier.
            stays = max(1, left // PARTS)
            part = max(stays, SERVED_PART)
        while waiting:
            if not self._may_now(waiting):
                self._stop_watching(GATE_SECONDS)
                break
            accepted = self._accept(min(part, left), stays)
            left -= accepted
            if not accepted or left < stays:
                break
            # Others take theirs meanwhile.
            waiting = self._waiting()
        self._guess_anew()

    def _accept(self, count: int, stays: int = MAX_BATCH) -> int:
        """
        Accept some.

        Args:
            count: How many at most.
            stays: How many at most that are not served at once.

        Returns:
            How many were accepted; 0 if further attempts make no sense now.
        """
        left = count
        while left and stays:
            accepted, stayed, more = self.accept_some(left, stays)
            # The last one may have been one too many, for whoever pauses this.
            if not self._wanted or not more:
                return 0
            left -= accepted
            stays -= stayed
        return count - left

    def _waiting(self) -> int:
        """
        How many connections wait to be accepted, or seem to.
        """
        return accept_queue(self.socket)[0] if self._guessed is None else self._guessed

    def _guess_anew(self) -> None:
        if self._guessed is not None and self._wanted and self._retry is None:
            self._guess()

    def _guess(self) -> bool:
        """
        Where the kernel does not report how many wait, as for a Unix socket, assume
        twice as many each time that some are left, and one when none is.

        Returns:
            Whether some are left.
        """
        left = self._somebody_waits()
        if self._guessed is not None:
            self._guessed = min(2 * self._guessed, MAX_BATCH) if left else 1
        return left

    def _may_now(self, waiting: int, is_open: bool | None = None) -> bool:
        gate = self.factory.gate
        if is_open is None:
            is_open = gate is None or gate(waiting)
        if is_open:
            self._end_gated()
            return True
        now = self.reactor.seconds()
        if self._gated_since is None:
            self._gated_since = now
            self.as_usual = False
            self._leave()
        if now - self._gated_since <= GATE_LIMIT_SECONDS:
            return False
        self._end_gated()
        return True

    def _end_gated(self) -> None:
        self._gated_since = None
        self.as_usual = not (self._complained or self._peer_errors)

    def _somebody_waits(self) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def accept_some(self, count: int, stays: int) -> tuple[int, int, bool]:
        """
        Accept connections, if some wait, until the factory leaves one to this port.

        Args:
            count: How many at most.
            stays: How many at most that do not end at once.

        Returns:
            How many were accepted or died in the queue, how many of them stay, and
            whether further attempts make sense now.
        """
        died = 0
        while died < count:
            try:
                accepted, stayed, descriptor, peer = self.factory.accept(
                    self._listener, count - died, stays
                )
                break
            except BlockingIOError:
                return died, 0, False
            except OSError as error:
                self._peer_errors += 1
                self.as_usual = False
                if (
                    error.errno not in _PEER_ERRORS
                    or self._peer_errors >= MAX_PEER_ERRORS
                ):
                    self._pause_after(error)
                    return died, 0, False
                died += 1
        else:
            return died, 0, False
        self._complained = False
        self._peer_errors = 0
        self.as_usual = self._gated_since is None
        accepted += died
        if descriptor == -1:
            return accepted, stayed, accepted == count or stayed == stays
        self.serve(descriptor, peer)
        return accepted, stayed, True

    def serve(self, descriptor: int, peer: Any = None) -> None:
        """
        Serve a connection that its factory has accepted and not taken.

        Args:
            descriptor: Owned by this.
            peer: What ``accept`` said of the other end; None: that was not asked.
        """
        connection = None
        try:
            connection = socket.socket(*self._kind, descriptor)
            if peer is None:
                peer = peer_of(connection)
            if not self.factory.take(connection, peer):
                make_connection(connection, peer, self.factory, self.reactor)
        except Exception:
            # A mistake of ours; raised from here, it would end the listening.
            self._log.failure("a connection that was accepted cannot be served")
            if connection is None:
                os.close(descriptor)
            else:
                connection.close()

    def _pause_after(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self.as_usual = False
            self._log.warn(
                "no connection can be accepted for now: {error}; new ones wait",
                error=error.strerror or str(error),
            )
        self._stop_watching(_PAUSE_SECONDS)
        self._leave()

    def _leave(self) -> None:
        if not self._is_rung:
            self.factory.leave()

    def _stop_watching(self, seconds: float) -> None:
        self.stopReading()

        def retry() -> None:
            self._retry = None
            if not self._guess():
                # Another has taken it; who comes later waits anew.
                self._end_gated()
            if self._wanted:
                self._watch()

        if self._retry is None:
            self._retry = self.reactor.callLater(seconds, retry)

    def empty(self) -> None:
        """
        Accept what waits in the queue now, and no more, however many come meanwhile.
        """
        left = waiting_at(self.socket)
        # What it has just accepted may have stopped it.
        while left > 0 and self.connected:
            accepted, _, _ = self.accept_some(left, left)
            if not accepted:
                break
            left -= accepted

    def loseConnection(self, connDone: Failure = _CLOSED) -> Deferred[None]:
        """
        Accept no more, and close this process's descriptor of the socket, at once.
        """
        if self.connected:
            self.connectionLost(connDone)
        return succeed(None)

    stopListening = loseConnection

    def connectionLost(self, reason: Failure) -> None:
        """
        The port is stopped, the reactor is shutting down, or the descriptor turned out
        bad.
        """
        if not self.connected:
            return
        self.pauseProducing()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        super().connectionLost(reason)

    def _logConnectionLostMsg(self) -> None:
        """
        Log nothing: sockets come and go with the policy and the workers.
        """


def _reports_its_queue(listener: socket.socket) -> bool:
    try:
        accept_queue(listener)
    except OSError:
        return False
    return True
