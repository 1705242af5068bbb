"""
kvd's reactors, and how sockets come to them.

All connections come through the two calls of Twisted's `IReactorSocket`:
`adoptStreamPort` has a reactor accept from a listening socket, `adoptStreamConnection`
serves a connection that another process accepted. kvd's reactors make kvd's own port
(`kvd.net.port`) and transport (`kvd.net.transport`) of them.

A worker's reactor is Twisted's for epoll with five differences. It adopts sockets in
this way. Its loop is compiled, where it can be (``kvd/native/reactor.c``). Its clock
is the monotonic one (`kvd.system.clock`). It hands events on without setting the
context of Twisted's old logging system first: a lookup and five calls for each event,
of which kvd makes no use, since its loggers name themselves. Measured with ``make
figures FIGURES=get`` (4 KiB GETs over 32 connections), that was 8 of 61 microseconds of
CPU for each. And it asks the fast path before it calls anything of a connection
(`WorkerReactor.serve_readable`).

`install_adoption` gives the same two methods to the reactor of ``twistd``, whichever
``twistd --reactor`` names, and lets it hand events on in the same way if it is
Twisted's for epoll. In the supervisor, the dispatcher accepts before anything of a port
is called.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from select import EPOLLIN
from typing import Any, Final, Protocol

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.interfaces import IReactorSocket
from twisted.internet.main import installReactor
from zope.interface import implementer

from kvd.native import compiled
from kvd.net.factory import ServerFactory, make_connection, server_factory
from kvd.net.port import Port
from kvd.net.sockets import peer_of

FAMILIES: Final = frozenset((socket.AF_INET, socket.AF_INET6, socket.AF_UNIX))

SELECT_DESCRIPTORS: Final = 1024
"""
FD_SETSIZE.
"""

_LONGEST_SECONDS: Final = 2_147_483.0
"""
The longest time that epoll_wait(2) waits: milliseconds in 31 bits.
"""


def adopt_stream_port(
    reactor: Any, fileDescriptor: int, addressFamily: int, factory: Any
) -> Port:
    """
    See `IReactorSocket.adoptStreamPort`. A `kvd.net.factory.ServerFactory` is asked
    more than others.

    Raises:
        UnsupportedAddressFamily: It is not that of a TCP or Unix socket.
        OSError: This process has no descriptor left.
    """
    listener = _duplicate(fileDescriptor, addressFamily)
    try:
        listener.setblocking(False)
        port = Port(listener, server_factory(factory), reactor)
        port.startListening()
    except BaseException:
        listener.close()
        raise
    return port


def adopt_stream_connection(
    reactor: Any, fileDescriptor: int, addressFamily: int, factory: Any
) -> None:
    """
    See `IReactorSocket.adoptStreamConnection`.

    Raises:
        UnsupportedAddressFamily: It is not that of a TCP or Unix socket.
        OSError: This process has no descriptor left.
    """
    _check_family(addressFamily)
    factory = server_factory(factory)
    descriptor = os.dup(fileDescriptor)
    try:
        if factory.take_descriptors([descriptor]):
            return
    except BaseException:
        os.close(descriptor)
        raise
    take_connection(reactor, descriptor, addressFamily, factory)


def take_connection(
    reactor: Any, descriptor: int, family: int, factory: ServerFactory
) -> None:
    """
    Do as `adopt_stream_connection` does, with a descriptor that the factory did not
    take, and that the caller needs no more: it is neither duplicated nor left open,
    whatever is raised.
    """
    try:
        connection = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        peer = peer_of(connection)
        if not factory.take(connection, peer):
            make_connection(connection, peer, factory, reactor)
    except BaseException:
        connection.close()
        raise


def _check_family(family: int) -> None:
    if family not in FAMILIES:
        raise UnsupportedAddressFamily(family)


def _duplicate(descriptor: int, family: int) -> socket.socket:
    _check_family(family)
    own = os.dup(descriptor)
    try:
        # `socket.fromfd` would keep the copy of what is no socket.
        return socket.socket(family, socket.SOCK_STREAM, 0, own)
    except BaseException:
        os.close(own)
        raise


def install_adoption(reactor: Any) -> None:
    """
    Give a reactor that somebody else made the methods with which kvd's own adopt
    sockets, and its way to hand on events if it polls as they do.

    Args:
        reactor: Of this process, and kvd's to change; running or not. It can watch
            descriptors (`IReactorFDSet`).
    """
    reactor.adoptStreamPort = partial(adopt_stream_port, reactor)
    reactor.adoptStreamConnection = partial(adopt_stream_connection, reactor)
    reactor.serve_readable = _leave_all
    reactor.before_wait = None
    reactor.counts = None
    reactor.polling = False
    if isinstance(reactor, EPollReactor):
        reactor.doIteration = partial(poll, reactor)  # type: ignore[method-assign]  # as it calls its own


def poller_of(reactor: Any) -> int | None:
    """
    The descriptor of the epoll instance of a reactor that calls its ``serve_readable``
    for every event of a descriptor that it does not know; None: it does not.
    """
    if not isinstance(reactor, EPollReactor) or not hasattr(reactor, "serve_readable"):
        return None
    descriptor: int = reactor._poller.fileno()
    return descriptor


def _leave_all(descriptor: int) -> bool:
    return False


def poll_in_python(reactor: Any, timeout: float | None, /) -> None:
    """
    Do as `EPollReactor.doPoll`, but hand events on directly, and poll again while
    nothing else is due. Errors of a selectable are logged, and end it, in
    ``_doReadOrWrite``.
    """
    selectables = reactor._selectables
    counts, serve_readable = reactor.counts, reactor.serve_readable
    before_wait = reactor.before_wait
    # An event may have the reactor iterate, which is one turn, whatever is due then.
    once = reactor.polling or timeout == 0
    reactor.polling = True
    try:
        while True:
            if before_wait is not None:
                before_wait()
            if counts is not None:
                counts.waits()
            events = reactor._poller.poll(
                -1 if timeout is None else timeout, len(selectables)
            )
            if counts is not None:
                counts.woke()
            for descriptor, event in events:
                is_offered = event == EPOLLIN or descriptor not in selectables
                if is_offered and serve_readable(descriptor):
                    continue
                # One event may end another's selectable.
                selectable = selectables.get(descriptor)
                if selectable is not None:
                    reactor._doReadOrWrite(selectable, descriptor, event)
            if once:
                return
            timeout = _next_timeout(reactor)
            if timeout == 0:
                return
    finally:
        reactor.polling = False


def _next_timeout(reactor: Any) -> float | None:
    """
    How long a reactor may wait after it has handled events: what its ``timeout`` says,
    or 0 if its ``runUntilCurrent`` has something to do before, or if it does not run:
    then one turn was asked for (``iterate``). Those two take as long as serving a
    request with the fast path. It is 0 too after a turn that an event asked for, which
    has changed what the reactor keeps.
    """
    if not reactor.polling or not reactor.running or reactor._justStopped:
        return 0
    if reactor._newTimedCalls or reactor.threadCallQueue:
        return 0
    calls = reactor._pendingTimedCalls
    if not calls:
        return None
    left: float = calls[0].time - reactor.seconds()
    return max(0.0, min(left, _LONGEST_SECONDS))


_native: Final = compiled("_reactor")
poll: Final[Callable[[Any, float | None], None]] = (
    poll_in_python if _native is None else _native.poll
)
"""
The loop, compiled where it can be.
"""


def most_descriptors(reactor: Any) -> int | None:
    """
    How many descriptors a process with this reactor can use; None: as many as it gets.
    select(2) knows none from `SELECT_DESCRIPTORS` on, and Twisted's reactor would drop
    a connection with such a number. A process that is out of descriptors leaves
    connections in the queue instead.
    """
    # Not at the top: workers have no use for it.
    from twisted.internet.selectreactor import SelectReactor

    return SELECT_DESCRIPTORS if isinstance(reactor, SelectReactor) else None


class LoopTimes(Protocol):
    """
    Counts how long a reactor waits and works.
    """

    def waits(self) -> None:
        """
        The reactor waits for events from now on.
        """

    def woke(self) -> None:
        """
        The reactor has events, or nothing to wait for.
        """


@implementer(IReactorSocket)
class WorkerReactor(EPollReactor):
    """
    An epoll reactor that adopts sockets as described above, hands events on directly,
    and counts how long it waits.
    """

    seconds = staticmethod(time.monotonic)
    adoptStreamPort = adopt_stream_port
    adoptStreamConnection = adopt_stream_connection
    take_connection = take_connection

    def unwatched(self, reader: Any) -> None:
        """
        The poller does not watch a descriptor any more.
        """
        self._reads.discard(reader.fileno())
        self._selectables.pop(reader.fileno(), None)

    def watch(self, reader: Any, events: int) -> None:
        """
        Do as `addReader`, with these events of epoll_ctl(2).
        """
        descriptor = reader.fileno()
        if descriptor not in self._reads:
            self._poller.register(descriptor, events)
            self._reads.add(descriptor)
            self._selectables[descriptor] = reader

    def __init__(self, counts: LoopTimes) -> None:
        """
        Args:
            counts: Where it counts.
        """
        self.counts = counts
        self.polling = False
        """Whether it waits for events, or hands them on."""
        self.serve_readable: Callable[[int], bool] = _leave_all
        """Given each descriptor that can be read; returns whether nothing is left to do
        with it in this turn."""
        self.before_wait: Callable[[], object] | None = None
        """Called each time before the reactor waits for events, for what a turn has
        gathered; None: nothing is gathered. One that is set in a turn is called from
        the end of that turn, or of a later one, on."""
        super().__init__()
        self.doIteration = self.doPoll = partial(poll, self)  # type: ignore[method-assign]


def install(counts: LoopTimes) -> WorkerReactor:
    """
    Make and install the reactor of this process.
    """
    reactor = WorkerReactor(counts)
    installReactor(reactor)
    return reactor
