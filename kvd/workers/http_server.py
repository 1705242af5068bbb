"""
The HTTP server in one process: a store, the sockets that the process accepts from, and
its connections.

With ``--procs 0`` the twistd process itself has one, otherwise each worker.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kvd.access.networks import OpenConnections, network_of
from kvd.http.closed import Closed
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.host_guard import HostGuard
from kvd.http.pieces import Pieces
from kvd.http.templates import fast_path_to
from kvd.ipc.row import BATCH_WORD, Row, lone_row
from kvd.ipc.syncs import count_syncs
from kvd.net.bell import Bell
from kvd.net.factory import ServerFactory
from kvd.net.listening import family_of
from kvd.net.port import Port
from kvd.net.reactor import poller_of
from kvd.net.readahead import Readahead
from kvd.net.sockets import peer_of
from kvd.net.splice import Pipe
from kvd.net.tcp_memory import TCPMemory
from kvd.net.transport import serve_connection
from kvd.settings import TLS, Limits, Settings, TCPAddress, UNIXAddress
from kvd.store.waiting import in_threads_of
from kvd.workers.checking import Checking
from kvd.workers.http_factory import HttpFactory, SharedFactory
from kvd.workers.loading import LoadedPlugins, load_plugins
from kvd.workers.outputs import Outputs

if TYPE_CHECKING:
    from ssl import SSLContext

    from kvd.access.counting import CountingMemory, OpenCounts
    from kvd.access.rates import Rates
    from kvd.access.rules import AccessRules
    from kvd.http.authorization import Authorization

# How often to check connections for timeouts.
CHECK_SECONDS: Final = 1.0

FRESH_SECONDS: Final = 1.0
"""
How long a draining process waits for a request on an idle connection, but no longer
than half of the time for draining.
"""

# How long to wait for connections that were aborted at the end of draining. Those that
# remain end with the process.
ABORT_SECONDS: Final = 1.0


class HttpServer:
    """
    Accepts connections and serves them, until it is drained.

    Call `start`, then `listen` and `unlisten` any number of times, then `drain`, then
    `stop`.
    """

    process: ProcessContext
    """What all connections share, once this has started."""

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
        self._counting: CountingMemory | None = None
        self._counts: OpenCounts | None = None
        self._authorization: Authorization | None = None
        """By the last rights file that this process could apply."""
        self._verifying: socket.socket | None = None
        """Of the first one, if there was none when this process began."""
        self._checking = Checking(
            lambda: self.process.connections, reactor, self._before_check
        )
        self._ports: dict[str, Port] = {}
        self.may_accept: Callable[[int], bool] = lambda waiting: True
        """Called before this process accepts a connection from a socket that other
        processes accept from too, with how many connections wait there."""
        self.share_of: Callable[[int], int] = lambda waiting: waiting
        """Returns how many of the connections that wait there this process may accept
        in one turn."""
        self._full = False
        self._drained: Deferred[None] | None = None

    def start(self) -> None:
        """
        Open the store.

        Raises:
            OperatorError: The store or a plugin cannot be used.
        """
        settings = self._settings
        parts = self._parts or load_plugins(settings)
        self._contexts = parts.contexts
        self._outputs = Outputs(
            settings, self._worker, self._reactor, self._row.epoch_ns
        )
        count_syncs(self._row)
        self._pipe = Pipe() if settings.splice else None
        self._tcp_memory = TCPMemory()
        self.process = ProcessContext(
            parts.open_store(settings, self._worker),
            parts.dialects,
            settings.limits,
            self._reactor,
            self._outputs.access_log,
            self._released,
            self._row,
            self._pipe,
            Readahead(in_threads_of(self._reactor)).ensure,
            self._outputs.recorder,
            HostGuard(settings.listen, settings.allowed_hosts),
            Pieces(self._tcp_memory.is_short),
        )
        if settings.trusted_proxies:
            from kvd.access.proxies import Proxies

            self.process.proxies = Proxies(
                settings.trusted_proxies, settings.forwarded_field
            )
        if parts.counting is not None:
            self._limit(parts.counting, parts)
        if settings.cors:
            from kvd.http.cors import Cors

            self.process.cors = Cors(settings.cors)
        self.process.has_pages = settings.browser
        if settings.guess_types:
            from kvd.http.guessing import guess_type

            self.process.guess_type = guess_type
        if settings.fast_path and settings.limits.address_rate is None:
            self.process.fast_path = fast_path_to(self.process)
        if self.process.commits is not None:
            self._reactor.addReader(self.process.commits)
            self.process.commits.watched()
            if poller_of(self._reactor) is not None:
                assert self.process.fast_path is not None
                self._reactor.before_wait = self.process.fast_path.hand_over
        self._checking.start(check_interval(settings.limits))

    def _limit(self, memory: CountingMemory, parts: LoadedPlugins) -> None:
        """
        Bound what addresses and users may do.
        """
        # Only where there are limits or users, so that no other worker pays for it.
        from kvd.access.rates import Rates

        process, limits = self.process, self._settings.limits
        self._counting = memory
        rates, counts = Rates(memory), self._open_counts(memory)
        if limits.address_connections is not None:
            process.by_address = OpenConnections(limits.address_connections, counts)
        if limits.address_rate is not None:
            process.address_rate = _address_rate(
                rates, limits.address_rate, self._reactor
            )
        rules, has_password = parts.rules, parts.has_password
        if rules is not None:
            assert has_password is not None
            self._decide_by(rules, memory, has_password)

    def _open_counts(self, memory: CountingMemory) -> OpenCounts:
        """
        The one of this process.
        """
        if self._counts is None:
            self._counts = memory.open_counts(self._worker)
        return self._counts

    def _decide_by(
        self,
        rules: AccessRules,
        memory: CountingMemory,
        has_password: Callable[[str, str], bool],
    ) -> None:
        # Only where there is a rights file, so that no other worker pays for it.
        from kvd.access.authentication import Authentication
        from kvd.access.logins import Logins
        from kvd.access.rates import Rates
        from kvd.access.throttle import Throttle
        from kvd.http.authorization import Authorization

        throttle, logins = Throttle(self._reactor, memory), Logins(memory)
        authentication = Authentication(
            rules,
            throttle,
            logins,
            self._outputs.thread_for("passwords"),
            has_password,
        )
        self.process.authorization = self._authorization = Authorization(
            rules,
            authentication,
            Rates(memory),
            self._open_counts(memory),
            self._reactor,
        )

    def adopt_rules(self, rules: AccessRules, counting: int, verifying: int) -> None:
        """
        Decide by another rights file, or by the first one, about each request that is
        not permitted yet.

        Args:
            rules: What it says.
            counting: A descriptor of the memory of `kvd.access.counting`; owned by the
                caller.
            verifying: A descriptor of the socket to the process that verifies
                passwords; owned by the caller.
        """
        if self._authorization is not None:
            self._authorization.adopt(rules)
            self.process.authorization = self._authorization
        else:
            from kvd.access.counting import CountingMemory
            from kvd.access.verifying import Verifier

            if self._counting is None:
                self._counting = CountingMemory(counting)
            requests = self._verifying = socket.socket(fileno=os.dup(verifying))
            self._decide_by(rules, self._counting, Verifier(requests).has_password)
        self._forget_decisions()

    def adopt_no_rules(self) -> None:
        """
        There is no rights file any more: permit everything.
        """
        self.process.authorization = None
        self._forget_decisions()

    def close_to_all(self) -> None:
        """
        Refuse all requests that are not permitted yet, since this process cannot decide
        about them.
        """
        self.process.authorization = Closed()
        self._forget_decisions()

    def _forget_decisions(self) -> None:
        if self.process.fast_path is not None:
            self.process.fast_path.forget_templates()
        for connection in list(self.process.connections):
            connection.rules_changed()

    def serve_idle(self) -> Callable[[int], bool]:
        """
        Returns a function that serves a request on a readable descriptor without
        calling its connection; see `FastPath.serve_idle`. It is the reactor's
        ``serve_readable`` from now on.
        """
        fast_path = self.process.fast_path
        if fast_path is None:
            return _leave_all
        poller = poller_of(self._reactor)
        if poller is not None:
            limit = self._settings.limits.connections
            fast_path.hold(poller, limit, self._adopt_held)
        return fast_path.serve_idle

    def _adopt_held(self, descriptor: int, made: float, peer: Any) -> None:
        """
        Serve a connection that the fast path has held.
        """
        process = self.process
        connection = None
        built = HttpConnection(process, held_since=made)
        try:
            connection = socket.socket(fileno=descriptor)
            if peer is None:
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
        fast_path = self.factory.fast_path()
        if fast_path is not None:
            plain = bytes(
                self._context_of(group) is None and not address.proxy
                for group, address in enumerate(self._settings.listen)
            )
            fast_path.take_batches(channel, credits, BATCH_WORD, plain, adopt, came)

    # -- connections ----------------------------------------------------------

    def source(self, group: int) -> tuple[int, ServerFactory]:
        """
        What a connection that is handed over to this process needs.

        Args:
            group: The number of the address that it has come to.

        Returns:
            Its address family, and what serves it.
        """
        address = self._settings.listen[group]
        assert isinstance(address, TCPAddress | UNIXAddress)
        return family_of(address), self._factory(group)

    def _factory(self, group: int) -> HttpFactory:
        context = self._context_of(group)
        behind_proxy = self._settings.listen[group].proxy
        if context is None and not behind_proxy:
            return self.factory
        return HttpFactory(self, context, behind_proxy=behind_proxy)

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
        group = int(name.partition("/")[0])
        if bell is None:
            port = self._adopt_port(sock, self._factory(group))
        else:
            factory = SharedFactory(
                self,
                self._context_of(group),
                behind_proxy=self._settings.listen[group].proxy,
            )
            port = self._adopt_port(sock, factory)
            try:
                factory.accepts_by(port, Bell(os.dup(bell), port.rung, self._reactor))
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
        process = self.process
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
        if self._full and self.process.row.open < limit:
            self._full = False
            for port in self._ports.values():
                port.resumeProducing()
        self._check_drained()

    def _adopt_all_held(self) -> None:
        fast_path = self.process.fast_path
        if fast_path is not None:
            fast_path.adopt_held(inf)

    def _before_check(self) -> None:
        self.process.pieces.measure()
        fast_path = self.process.fast_path
        if fast_path is not None:
            # Those that stay for long time out like all others.
            interval = check_interval(self._settings.limits)
            fast_path.adopt_held(self._reactor.seconds() - interval)

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
        process = self.process
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
        self._last_look = self._reactor.callLater(
            self._fresh_seconds, self._checking.check
        )
        self._check_drained()
        return drained

    def _check_drained(self) -> None:
        process = self.process
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
        connections = list(self.process.connections)
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
        self._tcp_memory.close()
        written = self._outputs.flush()
        closed = maybeDeferred(self.process.store.close)

        async def ended() -> None:
            try:
                await closed
            finally:
                if self.process.commits is not None:
                    self._reactor.removeReader(self.process.commits)
                count_syncs(None)
                for one in written:
                    await one
                self._outputs.end()
                if self._verifying is not None:
                    self._verifying.close()

        return Deferred.fromCoroutine(ended())


def _leave_all(descriptor: int) -> bool:
    return False


def _address_rate(
    rates: Rates, per_second: int, clock: IReactorTime
) -> Callable[[object], None]:
    def count(peer: object) -> None:
        rates.check(f"The address {network_of(peer)}", per_second, clock)

    return count


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
