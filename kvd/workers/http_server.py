"""
The HTTP server in one process: a store, the sockets that the process accepts from, and
its connections.

With ``--procs 0`` the twistd process itself has one, otherwise each worker.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kvd.access.networks import network_of
from kvd.access.rules import AccessRules
from kvd.errors import TooManyRequests
from kvd.http.access_log import AccessLog, Entry, append_to
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import CLOSES, SERVED, FastPath, entry_of
from kvd.http.host_guard import HostGuard
from kvd.http.recorder import Recorder, record_to
from kvd.http.reply_fields import refusal_fields
from kvd.http.templates import fast_path_to
from kvd.http.wire.replies import problem, reply_head, with_length
from kvd.interfaces import (
    IBoundedStoreMaker,
    IFileStoreMaker,
    IHeldStoreMaker,
    IStore,
    IStoreMaker,
)
from kvd.ipc.scoreboard import BATCH_WORD, Row, lone_row
from kvd.log.writer import Writer
from kvd.net.bell import Bell
from kvd.net.factory import ServerFactory
from kvd.net.listening import family_of
from kvd.net.port import Port
from kvd.net.reactor import poller_of
from kvd.net.readahead import Readahead
from kvd.net.splice import Pipe
from kvd.net.transport import (
    HEAD_BYTES,
    close_both_ways,
    name_of,
    peer_of,
    serve_connection,
)
from kvd.plugins import IStoreDeclaration, load
from kvd.settings import (
    TLS,
    Limits,
    Modes,
    Settings,
    StoreLocation,
    TCPAddress,
    UNIXAddress,
    User,
)
from kvd.store.waiting import in_threads_of

if TYPE_CHECKING:
    from ssl import SSLContext

    from kvd.access.rates import Rates
    from kvd.http.authorization import Authorization

# How often to check connections for timeouts.
CHECK_SECONDS: Final = 1.0

FRESH_SECONDS: Final = 1.0
"""
How long a draining process waits for a request on an idle connection, but no longer
than half of the time for draining.
"""

EXCLUSIVE_BATCH: Final = 16
"""
How many connections to accept per wake-up from a socket that no other process accepts
from, if more arrive meanwhile: a turn of the reactor for each would cost a sixth more
for each short connection.
"""

UNINTERRUPTED: Final = 64
"""
How many connections one compiled call may serve: in the one or two milliseconds that
this takes, no other thread of the process runs, and no signal is handled.
"""

# How long to wait for connections that were aborted at the end of draining. Those that
# remain end with the process.
ABORT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class LoadedPlugins:
    """
    The plugins that the settings choose by name, imported; the rights of users, and
    what connections over TLS share.

    Looking up a name searches all installed plugins, and writes to memory that forks
    share: one MiB for each worker, if each does it.
    """

    store: IStoreMaker
    dialects: Dialects
    rules: AccessRules | None = None
    """What the rights file says."""
    rates: Rates | None = None
    """Counts requests, if somebody may send only so many; shared by all forks."""
    held: int | None = None
    """A descriptor of what the store is in, which the supervisor has opened; see
    `IHeldStoreMaker`."""
    contexts: Mapping[TLS, SSLContext] = field(default_factory=dict)
    """Made before the fork, workers share the keys of session tickets."""
    fallback: IStoreMaker | None = None
    """Of the store for what the first one does not have."""
    usage: int | None = None
    """A descriptor of the memory in which processes count what the store takes; None:
    it has no limits."""

    def open_store(self, settings: Settings, worker: int) -> IStore:
        """
        Open the store of this process.

        Args:
            settings: All settings.
            worker: The number of this worker.

        Raises:
            StoreUnusable: It cannot be opened.
        """
        store = self._open_store(settings, worker)
        if self.fallback is None or settings.fallback_store is None:
            return store
        # Not at the top: only where there is one. And not the reactor, which this
        # import installs.
        from twisted.internet import reactor

        from kvd.moving.fallback import FallbackStore

        path = settings.fallback_store.path
        fallback = self.fallback.open_store(path, settings.durability)
        return FallbackStore(store, fallback, IReactorTime(reactor))

    def _open_store(self, settings: Settings, worker: int) -> IStore:
        path = settings.store.path
        maker = self.store
        if self.usage is not None and settings.bounds is not None:
            row = row_of_worker(worker)
            maker = IBoundedStoreMaker(maker).bounded(settings.bounds, self.usage, row)
        if self.held is None:
            return maker.open_store(path, settings.durability)
        maker = IHeldStoreMaker(maker)
        return maker.open_held(path, settings.durability, self.held)


def row_of_worker(worker: int) -> int:
    """
    The row of a worker in the memory of `kvd.store.usage`. The first is the evictor's.
    """
    return worker + 1


def load_plugins(settings: Settings) -> LoadedPlugins:
    """
    Import the plugins that the settings choose, read the rights file, and make what TLS
    needs.

    Raises:
        OperatorError: A plugin or a certificate cannot be used.
    """
    store = load_store(settings.store, settings.modes)
    dialects = Dialects(settings.dialects)
    fallback = _load_fallback(settings)
    users, rules = settings.users, None
    contexts = _load_contexts(settings)
    # Each only where it is needed, so that no other worker pays for it; and all before
    # the fork, so that workers share it.
    if settings.cors:
        import kvd.http.cors
    if users is not None:
        import kvd.access.throttle
        import kvd.http.authorization  # noqa: F401
        from kvd.access.rights_file import parse_rights

        rules = parse_rights(users.text, users.path)
    if settings.limits.address_rate is None and not (rules and rules.has_rates):
        return LoadedPlugins(
            store, dialects, rules, contexts=contexts, fallback=fallback
        )
    from kvd.access.rates import Rates

    return LoadedPlugins(
        store, dialects, rules, Rates(), contexts=contexts, fallback=fallback
    )


def _load_fallback(settings: Settings) -> IStoreMaker | None:
    if settings.fallback_store is None:
        return None
    import kvd.moving.fallback  # noqa: F401 - before the fork

    return load_store(settings.fallback_store, settings.modes)


def _load_contexts(settings: Settings) -> Mapping[TLS, SSLContext]:
    if not settings.credentials:
        return {}
    # Only where there is TLS, so that no other worker pays for it.
    import kvd.net.tls_transport  # noqa: F401 - before the fork
    from kvd.net.tls import make_context

    return {each.tls: make_context(each) for each in settings.credentials}


def load_store(
    location: StoreLocation, modes: Modes, user: User | None = None
) -> IStoreMaker:
    """
    Import a store.

    Args:
        location: Its scheme.
        modes: The permissions of the files that it creates.
        user: The user that this process will switch to before it opens the store.

    Raises:
        OperatorError: The store cannot be used.
    """
    maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
    if IFileStoreMaker.providedBy(maker):
        return IFileStoreMaker(maker).making(modes, user)
    return maker


class HttpServer:
    """
    Accepts connections and serves them, until it is drained.

    Call `start`, then `listen` and `unlisten` any number of times, then `drain`, then
    `stop`.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        worker: int,
        reactor: Any,
        row: Row | None = None,
        parts: LoadedPlugins | None = None,
    ) -> None:
        """
        Args:
            settings: All settings, with the actual addresses of the sockets.
            worker: The number of this worker, for its logs.
            reactor: Adopts the sockets (`kvd.net.reactor`).
            row: Where this process counts; None: a row that only it can read.
            parts: The plugins that the settings choose; None: `start` loads them.
        """
        self._row = row or lone_row()
        self._parts = parts
        self._settings = settings
        self._worker = worker
        self._reactor = reactor
        self.factory = HttpFactory(self)
        """Serves connections in plain that are handed over to this process."""
        self._contexts: Mapping[TLS, SSLContext] = {}
        self._ports: dict[str, Port] = {}
        self._writers: list[Writer] = []
        self.may_accept: Callable[[int], bool] = lambda waiting: True
        """Called before this process accepts a connection from a socket that other
        processes accept from too, with how many connections wait there."""
        self.share_of: Callable[[int], int] = lambda waiting: waiting
        """Returns how many of the connections that wait there this process may accept
        in one turn."""
        self._full = False
        self._drained: Deferred[None] | None = None
        self._checking = LoopingCall(self._check)
        self._checking.clock = reactor

    def start(self) -> None:
        """
        Open the store.

        Raises:
            OperatorError: The store or a plugin cannot be used.
        """
        settings = self._settings
        parts = self._parts or load_plugins(settings)
        self._contexts = parts.contexts
        self._access_log = self._open_access_log()
        self._recorder = self._open_record()
        self._pipe = Pipe() if settings.splice else None
        self._process = ProcessContext(
            parts.open_store(settings, self._worker),
            parts.dialects,
            settings.limits,
            self._reactor,
            self._access_log,
            self._released,
            self._row,
            self._pipe,
            Readahead(in_threads_of(self._reactor)).ensure,
            self._recorder,
            HostGuard(settings.listen, settings.allowed_hosts),
        )
        if parts.rules is not None:
            self._process.authorization = self._authorization(parts.rules, parts.rates)
        rate = settings.limits.address_rate
        if rate is not None:
            assert parts.rates is not None
            self._process.address_rate = _address_rate(parts.rates, rate, self._reactor)
        if settings.cors:
            from kvd.http.cors import Cors

            self._process.cors = Cors(settings.cors)
        if settings.fast_path and rate is None:
            self._process.fast_path = fast_path_to(self._process)
        if self._process.commits is not None:
            self._reactor.addReader(self._process.commits)
        self._checking.start(check_interval(settings.limits), now=False)

    def _authorization(self, rules: AccessRules, rates: Rates | None) -> Authorization:
        # Only where there are users, so that no other worker pays for it.
        from kvd.access.authentication import Authentication
        from kvd.access.throttle import Throttle
        from kvd.http.authorization import Authorization

        throttle = Throttle(self._reactor)
        verify = self._thread_for("passwords")
        authentication = Authentication(rules, throttle, verify)
        return Authorization(rules, authentication, rates, self._reactor)

    def serve_idle(self) -> Callable[[int], bool]:
        """
        Returns a function that serves a request on a readable descriptor without
        calling its connection; see `FastPath.serve_idle`. It is the reactor's
        ``serve_readable`` from now on.
        """
        fast_path = self._process.fast_path
        if fast_path is None:
            return _leave_all
        poller = poller_of(self._reactor)
        if poller is not None:
            limit = self._settings.limits.connections
            fast_path.hold(poller, limit, self._adopt_held)
        return fast_path.serve_idle

    def _adopt_held(self, descriptor: int, made: float) -> None:
        """
        Serve a connection that the fast path has held.
        """
        process = self._process
        connection = None
        built = HttpConnection(process, held_since=made)
        try:
            connection = socket.socket(fileno=descriptor)
            peer = peer_of(connection)
            serve_connection(connection, peer, built, self._reactor)
            self.served(built)
        except Exception:
            self._log.failure("a connection that was accepted cannot be served")
            if built not in process.connections:
                process.row.closed()
            if connection is None:
                os.close(descriptor)
            else:
                connection.close()

    def take_batches(
        self,
        channel: int,
        credits: int,
        adopt: Callable[[int, int], None],
        came: Callable[[bytes, list[int], int], None],
    ) -> None:
        """
        Let the function of `serve_idle` serve connections that are handed over, until
        this is drained; see `FastPath.take_batches`.
        """
        fast_path = self.factory.unreported()
        if fast_path is not None:
            plain = bytes(
                self._context_of(group) is None
                for group in range(len(self._settings.listen))
            )
            fast_path.take_batches(channel, credits, BATCH_WORD, plain, adopt, came)

    def _open_access_log(self) -> AccessLog | None:
        path = self._settings.access_log
        if path is None:
            return None
        return AccessLog(
            self._worker, append_to(path), self._reactor, self._thread_for(path)
        )

    def _open_record(self) -> Recorder | None:
        path = self._settings.record
        if path is None:
            return None
        return Recorder(
            self._worker,
            record_to(path),
            self._reactor,
            self._thread_for(path),
            self._row.epoch_ns,
        )

    def _thread_for(self, path: str) -> Callable[[Callable[[], None]], Deferred[None]]:
        """
        Returns a function that defers work to a thread for one file: a write to it may
        block for ever.
        """
        writer = Writer(path)
        self._writers.append(writer)
        return lambda function: writer.defer(function, self._reactor)

    # -- connections ----------------------------------------------------------

    def source(self, group: int) -> tuple[int, ServerFactory]:
        """
        What a connection that is handed over to this process needs.

        Args:
            group: The number of the address that it has come to.

        Returns:
            Its address family, and what serves it.
        """
        context = self._context_of(group)
        address = self._settings.listen[group]
        assert isinstance(address, TCPAddress | UNIXAddress)
        return family_of(address), self._factory(context)

    def _factory(self, context: SSLContext | None) -> HttpFactory:
        return self.factory if context is None else HttpFactory(self, context)

    def _context_of(self, group: int) -> SSLContext | None:
        """
        What connections to an address share over TLS; None where it speaks none.
        """
        if not self._contexts:
            return None
        address = self._settings.listen[group]
        tls = address.tls if isinstance(address, TCPAddress) else None
        return None if tls is None else self._contexts[tls]

    def listen(self, name: str, sock: socket.socket, bell: int | None = None) -> None:
        """
        Accept from a socket.

        Args:
            name: The number of its address, a slash and its own, for `unlisten`;
                replaces a socket of the same name.
            sock: Listening and non-blocking. The caller closes it, now or later.
            bell: If other processes accept from it too, and get their share of the
                connections: the descriptor of the bell that wakes all of them
                (`kvd.net.bell`); the caller closes it, now or later. None: this is the
                only process.

        Raises:
            OSError: This process has no descriptor left for it.
        """
        self.unlisten(name)
        context = self._context_of(int(name.partition("/")[0]))
        if bell is None:
            port = self._adopt_port(sock, self._factory(context))
        else:
            factory = SharedFactory(self, context)
            port = self._adopt_port(sock, factory)
            try:
                factory.accepts_by(port, os.dup(bell))
            except BaseException:
                port.stopListening()
                raise
        self._ports[name] = port
        if self._full:
            port.pauseProducing()

    def _adopt_port(self, sock: socket.socket, factory: HttpFactory) -> Port:
        port: Port = self._reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
        return port

    def unlisten(self, name: str) -> None:
        """
        Stop accepting from a socket. Connections in its queue stay there for other
        processes that hold it. An unknown name is ignored.
        """
        port = self._ports.pop(name, None)
        if port is not None:
            port.stopListening()

    def served(self, protocol: HttpConnection) -> None:
        """
        A connection has begun, whichever process accepted it; also while draining.
        """
        process = self._process
        if process.draining:
            protocol.drain(self._fresh_seconds)
        if not self._full and process.row.open >= self._settings.limits.connections:
            self._full = True
            for port in self._ports.values():
                port.pauseProducing()
            # This hears of the end of each connection from now on.
            self._adopt_all_held()

    def _released(self) -> None:
        """
        A connection ended, or the store answered.
        """
        limit = self._settings.limits.connections
        if self._full and self._process.row.open < limit:
            self._full = False
            for port in self._ports.values():
                port.resumeProducing()
        self._check_drained()

    def _adopt_all_held(self) -> None:
        fast_path = self._process.fast_path
        if fast_path is not None:
            fast_path.adopt_held(inf)

    def _check(self) -> None:
        now = self._reactor.seconds()
        fast_path = self._process.fast_path
        if fast_path is not None:
            # Those that stay for long time out like all others.
            fast_path.adopt_held(now - check_interval(self._settings.limits))
        for connection in list(self._process.connections):
            try:
                connection.check_time(now)
            except Exception:
                # A bug in kvd; the other connections must still be checked.
                self._log.failure("the time of a connection cannot be checked")
                connection.abort()

    # -- the end --------------------------------------------------------------

    def drain(self, seconds: float, others_serve: bool = False) -> Deferred[None]:
        """
        Accept the connections that already wait in the accept queues, then stop
        accepting. Let requests in progress finish, and close idle connections. A client
        that is connected may send one more request within `FRESH_SECONDS`; the reply
        says that the connection will close.

        Args:
            seconds: After this time, the remaining connections are aborted: uploads are
                discarded, replies are cut off.
            others_serve: Whether other workers take the connections in the accept
                queues.

        Returns:
            Fires when no connection is left.
        """
        process = self._process
        self._adopt_all_held()
        process.draining = True
        if process.fast_path is not None:
            process.fast_path.leave_batches()
            process.fast_path = None
        self._fresh_seconds = min(FRESH_SECONDS, seconds / 2)
        for name in list(self._ports):
            if not others_serve:
                self._ports[name].empty()
            self.unlisten(name)
        for connection in list(process.connections):
            connection.drain(self._fresh_seconds)
        drained = self._drained = Deferred()
        self._bound = self._reactor.callLater(seconds, self._abort_all, seconds)
        self._last_look = self._reactor.callLater(self._fresh_seconds, self._check)
        self._check_drained()
        return drained

    def _check_drained(self) -> None:
        process = self._process
        if not (process.connections or process.answers_due):
            self._end_drain()

    def _end_drain(self) -> None:
        if self._drained is not None:
            drained, self._drained = self._drained, None
            for call in (self._bound, self._last_look):
                if call.active():
                    call.cancel()
            drained.callback(None)

    def _abort_all(self, seconds: float) -> None:
        connections = list(self._process.connections)
        self._log.warn(
            "{count} connections were still busy after {seconds} seconds of"
            " draining and are aborted",
            count=len(connections),
            seconds=seconds,
        )
        # Aborting takes a turn of the reactor, and the store may owe an answer.
        self._bound = self._reactor.callLater(ABORT_SECONDS, self._end_drain)
        for connection in connections:
            connection.abort()

    def stop(self) -> Deferred[None]:
        """
        Close the store and write the buffered log entries.
        """
        self._checking.stop()
        if self._pipe is not None:
            self._pipe.close()
        written = [log.stop() for log in (self._access_log, self._recorder) if log]
        closed = maybeDeferred(self._process.store.close)

        async def ended() -> None:
            try:
                await closed
            finally:
                if self._process.commits is not None:
                    self._reactor.removeReader(self._process.commits)
                # All of these writes have begun, and they never fail.
                for one in written:
                    await one
                for writer in self._writers:
                    writer.end()

        return Deferred.fromCoroutine(ended())


def _leave_all(descriptor: int) -> bool:
    return False


def _address_rate(
    rates: Rates, per_second: int, clock: IReactorTime
) -> Callable[[object], None]:
    def count(peer: object) -> None:
        rates.check(f"The address {network_of(peer)}", per_second, clock)

    return count


def _too_many_connections() -> bytes:
    """
    The reply to a connection that its address may not have.
    """
    error = TooManyRequests(
        "This address has as many open connections as it may: close one first.", 1
    )
    body = problem(error.status, error.sentence)
    fields = with_length(error.status, refusal_fields(error), len(body))
    return reply_head(error.status, fields, close=True, minor=1) + body


class HttpFactory(ServerFactory):
    """
    Serves connections from a socket that no other process accepts from, and those that
    were handed over.
    """

    batch_size: int | None = EXCLUSIVE_BATCH
    takes_all = True

    def __init__(self, server: HttpServer, context: SSLContext | None = None) -> None:
        """
        Args:
            server: Has what connections share.
            context: Of the address, where it speaks TLS.
        """
        self._server = server
        self._is_plain = context is None
        if context is not None:
            from kvd.net.tls_transport import TLSTransport

            self.make_transport = partial(TLSTransport, context=context)
        self._first: Callable[[HttpConnection], Callable[[], Any]] | None = None

    def accept(
        self, listener: socket.socket, count: int, stays: int
    ) -> tuple[int, int, int, Any]:
        """
        See `ServerFactory.accept`. A connection that ends with its only request, or
        that the fast path holds, never gets a Python socket.
        """
        fast_path = self.unreported()
        if fast_path is None:
            return super().accept(listener, count, stays)
        descriptor = listener.fileno()
        accepted = stayed = 0
        while True:
            asked = min(count - accepted, UNINTERRUPTED)
            try:
                more, stay, left = fast_path.accept(descriptor, asked, stays - stayed)
            except OSError:
                if not accepted:
                    raise
                # The error comes again, or none waits.
                return accepted, stayed, -1, None
            accepted += more
            stayed += stay
            if left != -1 or more < asked or accepted == count:
                return accepted, stayed, left, None

    def take_descriptors(self, descriptors: Sequence[int]) -> int:
        """
        See `ServerFactory.take_descriptors`. A connection that ends with its only
        request never gets a Python socket.
        """
        fast_path = self.unreported()
        return 0 if fast_path is None else fast_path.serve_new(descriptors)

    def unreported(self) -> FastPath | None:
        """
        The fast path, if nobody wants to know about each request.
        """
        process = self._server._process
        if process.wants_reports or process.by_address is not None:
            return None
        return self._fast_path()

    def _fast_path(self) -> FastPath | None:
        """
        The fast path, if requests come in plain.
        """
        return self._server._process.fast_path if self._is_plain else None

    def take(self, connection: socket.socket, peer: Any) -> bool:
        """
        See `ServerFactory.take`. A connection that ends with its only request never
        gets a protocol, if the fast path serves the request.
        """
        process = self._server._process
        by_address = process.by_address
        if by_address is not None and not by_address.has_room(peer):
            self._refuse(process, connection, peer)
            return True
        fast_path = self._fast_path()
        if fast_path is None:
            self._first = None
            return False
        began = process.clock.seconds()
        outcome = fast_path.serve(connection.fileno())
        if outcome == SERVED | CLOSES:
            # Before the client can see the end.
            self._count(process, fast_path, peer, process.clock.seconds() - began)
            close_both_ways(connection)
            return True
        self._first = lambda built: partial(built.after_fast_path, fast_path, outcome)
        return False

    def _refuse(
        self, process: ProcessContext, connection: socket.socket, peer: Any
    ) -> None:
        """
        Refuse a connection of an address that has too many, and close it.
        """
        process.row.opened()
        process.row.closed()
        try:
            # Unread, what it has sent would reset it, and the reply might be lost.
            connection.recv(HEAD_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            pass
        if self._is_plain:
            # Over TLS, a handshake would cost more than what is refused.
            try:
                connection.send(_too_many_connections(), socket.MSG_DONTWAIT)
            except OSError:
                pass
        close_both_ways(connection)
        if process.log is not None:
            process.log.note(Entry(time.time(), name_of(peer), "-", "-", 429, 0, 0.0))

    def _count(
        self, process: ProcessContext, fast_path: FastPath, peer: Any, seconds: float
    ) -> None:
        """
        Count a connection that ended with its only request.
        """
        process.row.opened()
        process.row.closed()
        if not process.wants_reports:
            return
        report = fast_path.report()
        if process.log is not None:
            process.log.note(entry_of(report, name_of(peer)))
        if process.recorder is not None:
            process.recorder.ended(seconds, report.seconds, report.moved_bytes, 1)

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection:
        """
        See `Factory.buildProtocol`.
        """
        return HttpConnection(self._server._process)

    def first_read(self, built: HttpConnection) -> Callable[[], Any] | None:
        """
        See `ServerFactory.first_read`.
        """
        first, self._first = self._first, None
        return None if first is None else first(built)

    def connected(self, built: HttpConnection) -> None:
        """
        See `ServerFactory.connected`.
        """
        self._server.served(built)


class SharedFactory(HttpFactory):
    """
    Serves connections from a socket that other processes accept from too.
    """

    batch_size = None
    takes_all = False
    wakes_one = True
    _bell: Bell | None = None

    def __init__(self, server: HttpServer, context: SSLContext | None = None) -> None:
        super().__init__(server, context)
        self._unshare: Callable[[], None] = lambda: None
        # Looked up for each call, since the attribute may change.
        self.gate = lambda waiting: server.may_accept(waiting)

    def share(self, waiting: int) -> int:
        """
        See `HttpServer.share_of`.
        """
        return self._server.share_of(waiting)

    def accepts_by(self, port: Port, bell: int) -> None:
        """
        Let the fast path accept a connection that comes alone.

        Args:
            port: Has begun to listen with this factory.
            bell: The descriptor of the bell of its socket; owned by this.
        """
        self._bell = Bell(bell, port.rung, self._server._reactor)
        fast_path = self.unreported()
        if fast_path is not None:
            descriptor = port.fileno()
            fast_path.share(descriptor, port.may_accept_one, port.serve, port.unwatched)
            self._unshare = partial(fast_path.unshare, descriptor)

    def stopFactory(self) -> None:
        """
        See `Factory.stopFactory`: its port has stopped.
        """
        self._unshare()
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def leave(self) -> None:
        """
        See `ServerFactory.leave`.
        """
        if self._bell is not None:
            self._bell.ring()


def check_interval(limits: Limits) -> float:
    """
    How often to check for timeouts: a quarter of the shortest timeout, at most a
    second.
    """
    shortest = min(
        limits.idle_seconds,
        limits.head_seconds,
        limits.body_seconds,
        limits.reader_seconds,
    )
    return max(0.02, min(CHECK_SECONDS, shortest / 4))
