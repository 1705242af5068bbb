"""
Taking connections from a listening socket that somebody else holds.

Twisted's ``adoptStreamPort`` does nearly this. Its port for Unix sockets,
though, changes the mode of the socket's file and unlinks it when *one* of the
workers that share it stops; its port for TCP takes up to a hundred connections
per wake-up, which lets the first of several workers on one socket take nearly
all (measured with 64 keep-alive connections over 8 workers: 663 requests/s
against 1,889 with one per wake-up), and which runs past a limit on open
connections.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

# What accept(2) reports of a connection that died in the queue, or of a packet
# filter; the next one may be fine.
_OF_THE_PEER = frozenset(
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

# After any other error. Mostly this process or machine has run out of something; but
# accept(2) can fail in more ways than its manual tells (a filter of system calls, a
# security module, a network file system below a Unix socket), and whoever gives up is
# deaf for ever. The connection stays in the queue; trying at once again would spin.
_PAUSE_SECONDS: Final = 0.1

GATE_SECONDS: Final = 0.001
"""
After so long, who may not accept asks again: the socket stays readable until somebody
has taken the connection.
"""

KEPT_SECONDS: Final = 0.02
"""
Nobody waits for longer because of a gate: then it is passed, whatever it says, since
what it goes by may be old.
"""

# struct tcp_info of linux/tcp.h: eight bytes, then tcpi_rto, _ato, _snd_mss and
# _rcv_mss, then tcpi_unacked and _sacked, which tell of the queue where a socket
# listens.
_TCP_INFO: Final = struct.Struct("=8x16xII")

_UNIX_AT_MOST: Final = 10_000
"""
Of a Unix socket the kernel does not tell how many wait. kvd removes its file before it
takes them, so nobody comes meanwhile.
"""


def queue_of(listener: socket.socket) -> tuple[int, int]:
    """
    How many connections wait to be accepted at a TCP socket, and how many may.
    """
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    waiting, limit = _TCP_INFO.unpack(info)
    return waiting, limit


def waiting_at(listener: socket.socket) -> int:
    """
    How many connections wait at a socket; of a Unix socket, at the most.
    """
    if listener.family == socket.AF_UNIX:
        return _UNIX_AT_MOST
    return queue_of(listener)[0]


class Acceptor(FileDescriptor):
    """
    Accepts from one listening socket, by default one connection per wake-up:
    others wait at the same socket, or other work waits in this process.

    Stopping it leaves the socket listening: others may hold it too.
    """

    _log = Logger()

    def __init__(
        self,
        listener: socket.socket,
        accepted: Callable[[socket.socket, Any], None],
        reactor: Any,
        at_once: int = 1,
        done: Callable[[], None] = lambda: None,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this from here on.
            accepted: Gets each connection and what ``accept`` said of its peer.
            reactor: Watches the socket and tells the time.
            at_once: How many connections to accept per wake-up, if they wait.
            done: Called after them.
            may: Whether to accept, asked before each; if not, another who polls the
                socket may, or this one a moment later, and after `KEPT_SECONDS` in
                any case.
        """
        super().__init__(reactor)
        self._at_once = at_once
        self._done = done
        self._may = may
        self._clock: IReactorTime = reactor
        self._listener = listener
        self._accepted = accepted
        self._retry: Any = None
        self._kept_since: float | None = None
        self._complained = False
        self._wanted = False

    def fileno(self) -> int:
        return self._listener.fileno()

    def logPrefix(self) -> str:
        return "kvd"

    def start(self) -> None:
        """
        Accept from now on; also after a `pause`.
        """
        self._wanted = True
        if self._retry is None:
            self._watch()

    def _watch(self) -> None:
        try:
            self.startReading()
        except OSError as error:
            # The kernel watches no more for this user (epoll_ctl(2): ENOSPC, ENOMEM).
            self._pause_after(error)

    def pause(self) -> None:
        """
        Leave connections in the queue until the next `start`.
        """
        self._wanted = False
        self.stopReading()

    def doRead(self) -> None:
        for _ in range(self._at_once):
            if not self._may_now():
                self._look_away(GATE_SECONDS)
                break
            # The last one may have been one too many, for whoever pauses this.
            if not (self.accept_one() and self._wanted):
                break
        self._done()

    def _may_now(self) -> bool:
        if self._may():
            self._kept_since = None
            return True
        now = self._clock.seconds()
        if self._kept_since is None:
            self._kept_since = now
        if now - self._kept_since <= KEPT_SECONDS:
            return False
        self._kept_since = None
        return True

    def _somebody_waits(self) -> bool:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        return bool(poll.poll(0))

    def accept_one(self) -> bool:
        """
        Accept one connection, if one waits.

        Returns:
            Whether another attempt makes sense right away.
        """
        try:
            connection, peer = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _OF_THE_PEER:
                return True
            self._pause_after(error)
            return False
        self._complained = False
        try:
            self._accepted(connection, peer)
        except Exception:
            # A mistake of ours; raised from here, it would end the listening.
            self._log.failure("a connection that was accepted cannot be served")
            connection.close()
        return True

    def _pause_after(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._log.warn(
                "no connection can be accepted for now: {error}; new ones wait",
                error=error.strerror or str(error),
            )
        self._look_away(_PAUSE_SECONDS)

    def _look_away(self, seconds: float) -> None:
        self.stopReading()

        def retry() -> None:
            self._retry = None
            if not self._somebody_waits():
                # Another has taken it; who comes later waits anew.
                self._kept_since = None
            if self._wanted:
                self._watch()

        if self._retry is None:
            self._retry = self._clock.callLater(seconds, retry)

    def empty(self) -> None:
        """
        Accept what waits in the queue now, and no more, however many come meanwhile.
        """
        for _ in range(waiting_at(self._listener)):
            if not self.accept_one():
                break

    def close(self) -> None:
        """
        Accept no more, and close this process's descriptor of the socket.
        """
        self.pause()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._listener.close()

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor is shutting down, or the descriptor turned out bad.
        """
        super().connectionLost(reason)
        self.close()
