"""
A connection: where transport and wire meet the requests' handlers.

The connection turns bytes into events and gives them to the handler of the current
request, one request after the other. `advance` is the only loop: it takes the next
event unless the connection waits for something else (an answer of the store, or a
socket that has not taken the reply yet). `kvd.http.states` has the table of its states.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.access.networks import network_of
from kvd.errors import (
    BodyTimeout,
    HandshakeFailed,
    HeadTimeout,
    OutOfResources,
    PeerError,
    ProxyHeaderRefused,
    TLSExpected,
)
from kvd.http.fast_path import (
    CLOSES,
    COMMITS,
    LEAVES_UPLOAD,
    LOST,
    NOTHING,
    QUEUED,
    REMAINS,
    SERVED,
    Commit,
    FastPath,
    Joined,
    Remainder,
)
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.methods import handler_for
from kvd.http.methods.put import PutHandler
from kvd.http.mover import BodyMover, is_worth_moving
from kvd.http.recorder import Recorder
from kvd.http.request import (
    RequestHandler,
    too_many_connections,
    unread_request,
)
from kvd.http.states import ENDING, RECEIVING, WAITING, Input, State
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA, Mark
from kvd.interfaces import IUpload
from kvd.model.requests import Request
from kvd.model.values import Published
from kvd.net.proxy_header import HeaderReader
from kvd.net.splice import Stopped
from kvd.net.transport import BODY_BYTES, HEAD_BYTES, ServerTransport


@implementer(IHalfCloseableProtocol)
class HttpConnection(ConnectionLifecycle, Protocol):
    """
    Serves one connection from its first byte to its last.
    """

    transport: ServerTransport

    _log = Logger()

    _handler: RequestHandler | None = None
    _mover: BodyMover | None = None
    _header: HeaderReader
    """Of a connection that a proxy makes."""
    _commit: Commit | None = None
    """Of the fast path, which this connection waits for."""
    _requests = 0

    # -- what Twisted calls ---------------------------------------------------

    def connectionMade(self) -> None:
        self.context.opened(self, is_counted=self._is_counted)
        transport = self.transport
        if self._behind_proxy:
            self._state = State.PROXY
            self._header = HeaderReader(transport.socket)
            transport.read_by(self._read_proxy_header)
        elif transport.needs_handshake:
            # The first state, over TLS.
            self._state = State.HANDSHAKE
            transport.read_by(self._shake_hands)
        else:
            self._begin_requests()

    def _begin_requests(self) -> None:
        context = self.context
        transport = self.transport
        self._read_as_usual()
        fast_path = self._fast_path()
        if fast_path is None:
            return
        joined = fast_path.join(transport.fileno())
        joined.connection = self
        if context.log is not None:
            joined.peer, joined.user = transport.client, transport.peer_user
            joined.proxy = transport.proxy_name
        secure = transport.secure
        if secure is not None:
            joined.secure, joined.records = secure, secure.functions
        self._joined = joined

    def dataReceived(self, data: bytes) -> None:
        count = len(data)
        self._received += count
        self.context.row.received(count)
        state = self._state
        if state in ENDING:
            return
        self.reader.feed(data)
        if state in WAITING:
            self._pause_input()
        else:
            self.advance()

    def readConnectionLost(self) -> None:
        """
        The client will not send any more; it may still read.
        """
        self._input = Input.ENDED
        if self._state in WAITING:
            return
        if self._state in RECEIVING:
            self._wait(State.CLOSING)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        This half is closed, as `_close` wanted.
        """

    def unwatched(self) -> None:
        """
        The transport is about to end, because the reactor cannot watch it.
        """
        self.take_upload()
        if self._handler is not None and self._state in RECEIVING:
            self._refuse(
                OutOfResources(
                    "kvd cannot wait for the rest of this request now; try again."
                )
            )

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.learn_of_commit()
        context, transport = self.context, self.transport
        self.take_upload()
        self._enter(State.CLOSED)
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.leave()
        context.run_queue.discard(self._resume)
        context.run_queue.discard(self._shake_hands_later)
        if transport.needs_handshake:
            context.half_handshakes.discard(self._give_way, self._network)
        if self._mover is not None:
            self._stop_moving()
        # A cycle: the transport holds a method of this connection, which holds the
        # transport. Without it, both are freed without the garbage collector.
        transport.read_by(None)
        commit, self._commit = self._commit, None
        if commit is not None:
            self._handler = self._handler_of(commit)
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost()
        self._count_sent()
        if context.recorder is not None:
            self._record(context.recorder, joined)
        context.closed(self)

    def _record(self, recorder: Recorder, joined: Joined | None) -> None:
        in_service, requests = self.in_service, self._requests
        count = self._received + self.transport.bytes_sent
        if joined is not None:
            in_service += joined.seconds
            requests += joined.requests
            count += joined.bytes
        open_seconds = self.context.clock.seconds() - self._made
        recorder.ended(open_seconds, in_service, count, requests)

    # -- the header of a proxy ------------------------------------------------

    def _read_proxy_header(self) -> Any:
        """
        Go on with the header of the PROXY protocol; called instead of `dataReceived`.
        """
        reader, transport = self._header, self.transport
        is_trusted = self.context.is_proxy(transport.client)
        try:
            header = reader.read()
        except BlockingIOError:
            return None
        except EOFError:
            return CONNECTION_DONE
        except OSError:
            return CONNECTION_LOST
        except ProxyHeaderRefused as error:
            if is_trusted:
                self._proxy_header_refused(error)
                return None
            # A client of its own, which need not send one.
            return self._begin_behind_proxy(reader.begun)
        if header is None:
            return None
        if not is_trusted:
            self._log.warn(
                "{peer} sends the header of a proxy and is not among --trusted-proxies:"
                " the header is ignored",
                peer=transport.peer_name,
            )
        elif header.source is not None:
            transport.is_forwarded_for(header.source)
            by_address = self.context.by_address
            if by_address is not None and not self.context.is_proxy(header.source):
                if not by_address.has_room(header.source):
                    self._refuse_before_requests(too_many_connections())
                    return None
                self.context.count_for_address(self)
        return self._begin_behind_proxy(b"")

    def _begin_behind_proxy(self, begun: bytes) -> Any:
        transport = self.transport
        if transport.needs_handshake and not begun:
            self._wait(State.HANDSHAKE)
            transport.read_by(self._shake_hands)
        else:
            self._wait(State.IDLE)
            self._begin_requests()
            if begun:
                self.dataReceived(begun)
        # What is behind the header mostly comes with it.
        return transport.doRead()

    def _proxy_header_refused(self, error: ProxyHeaderRefused) -> None:
        self._log.warn(
            "no connection for the proxy {peer}: {reason}",
            peer=self.transport.peer_name,
            reason=error.sentence,
        )
        self._refuse_before_requests(error)

    def _refuse_before_requests(self, error: PeerError) -> None:
        """
        Refuse a connection of which nothing but a header was read.
        """
        self.transport.read_by(None)
        if self.transport.needs_handshake:
            # What it sends is not for kvd, and it could not read a reply.
            self._close()
        else:
            self._refuse(error)

    # -- TLS ------------------------------------------------------------------

    def _shake_hands(self) -> Any:
        """
        Go on with the handshake; called instead of `dataReceived`.
        """
        run_queue = self.context.run_queue
        if not run_queue.has_time():
            # A step may take a millisecond, and many clients may come at once.
            self.transport.stopReading()
            run_queue.add(self._shake_hands_later, self._network)
            return None
        return self._go_on_shaking()

    def _shake_hands_later(self) -> None:
        if self._state is State.HANDSHAKE:
            self.transport.read_by(self._go_on_shaking)
            self.transport.read_again()

    def _go_on_shaking(self) -> Any:
        transport = self.transport
        try:
            is_complete = transport.handshake()
        except TLSExpected as error:
            transport.read_by(None)
            self._refuse(error)
            return None
        except HandshakeFailed as error:
            self._handshake_failed(error.sentence)
            return None
        except OSError:
            return CONNECTION_LOST
        if not is_complete:
            transport.read_by(self._shake_hands)
            if transport.is_shaking:
                self.context.half_handshakes.add(self._give_way, self._network)
            return None
        self.context.half_handshakes.discard(self._give_way, self._network)
        self._wait(State.IDLE)
        self._begin_requests()
        # The first request mostly comes with the end of the handshake.
        result = transport.doRead()
        secure = transport.secure
        if secure is not None and transport.connected:
            secure.release()
        return result

    @property
    def _network(self) -> str:
        return network_of(self.transport.client)

    def _give_way(self) -> None:
        self._log_no_handshake(
            "too many are half done, and its address has the most of them"
        )
        self.abort()

    def _handshake_failed(self, reason: str) -> None:
        self._log_no_handshake(reason)
        # What still comes is thrown away.
        self.transport.read_by(None)
        self.transport.set_low_water_mark(1)
        self._close()

    def _log_no_handshake(self, reason: str) -> None:
        self._log.info(
            "no connection over TLS with {peer}: {reason}",
            peer=self.transport.peer_name,
            reason=reason,
            kind=reason,
        )

    # -- events ---------------------------------------------------------------

    def advance(self) -> None:
        """
        Take events until there are none, or the connection waits for something else, or
        its time slice is over.
        """
        reader = self.reader
        slice_end = 0.0
        while self._state in RECEIVING:
            try:
                event = reader.next_event()
            except PeerError as error:
                # The reader keeps the error, and its traceback would keep the reader.
                self._refuse(error.with_traceback(None))
                return
            if event is NEED_DATA:
                self._await_input()
                return
            self._take(event)
            is_begun = event.__class__ is Request and self._handler is not None
            if is_begun or not reader.buffered:
                # Most requests are served without looking at the clock. A slice does
                # not end between a head and its body, unless the head was refused.
                continue
            run_queue = self.context.run_queue
            slice_end = slice_end or run_queue.slice_end()
            if run_queue.seconds() >= slice_end and self._state in RECEIVING:
                # Others have their slices first.
                self._wait(State.SLICE)
                run_queue.add(self._resume, self._network)

    def _resume(self) -> None:
        # It may have been aborted meanwhile.
        if self._state is State.SLICE:
            self._receive()
            self.advance()

    def _take(self, event: Request | bytes | Mark) -> None:
        """
        Give an event to the handler of the request that it belongs to.
        """
        handler = self._handler
        if handler is None:
            assert isinstance(event, Request)
            self._begin_request(event)
            handler = self._handler = handler_for(self, event)
        try:
            if event is END_OF_REQUEST:
                handler.end()
            elif isinstance(event, bytes):
                handler.received += len(event)
                handler.chunk(event)
            else:
                handler.start()
        except Exception as error:
            handler.fail(error)

    def _begin_request(self, request: Request) -> None:
        self._requests += 1
        self._enter(State.BODY)
        self.context.row.began(request.method)

    def _refuse(self, error: PeerError | OutOfResources) -> None:
        """
        Refuse bytes after which nothing can be trusted, and close.
        """
        handler = self._handler
        if handler is None:
            request = unread_request(error)
            self.context.row.began(request.method)
            handler = self._handler = RequestHandler(self, request)
        handler.keep = False
        handler.fail(error)

    def _await_input(self) -> None:
        if self._input is not Input.OPEN:
            if self._input is Input.ENDED:
                self._close()
                return
            self._resume_input()
        if self.reader.in_request:
            self._wait(State.BODY)
            self.transport.bufferSize = BODY_BYTES
            self._move_if_worthwhile()
        elif self.reader.buffered:
            if self._state is not State.HEAD:
                self._wait(State.HEAD)
        elif self._state is not State.IDLE:
            # The rest of a refused body has been skipped.
            self._wait(State.IDLE)
            self.transport.bufferSize = HEAD_BYTES

    def check_time(self, now: float) -> None:
        """
        Called a few times a second: end what has waited too long.
        """
        self.learn_of_commit()
        self.take_upload()
        if self._mover is not None:
            self._mover.check()
        if not self._is_over(now):
            return
        state = self._state
        bound = self._timeouts.bound(state)
        if state is State.IDLE:
            self._close()
        elif state is State.PROXY:
            self._proxy_header_refused(
                ProxyHeaderRefused(
                    "The header of the PROXY protocol was not complete after"
                    f" {bound:g} seconds."
                )
            )
        elif state is State.HANDSHAKE:
            self._handshake_failed(
                f"the handshake was not complete after {bound:g} seconds"
            )
        elif state is State.LINGER:
            # Not with a reset: some kernels drop what the client has not read then.
            self.transport.loseConnection()
        elif state is State.HEAD:
            self._refuse(
                HeadTimeout(
                    f"The head of the request was not complete after {bound:g} seconds."
                )
            )
        elif state is State.BODY and self._handler is not None:
            self._refuse(
                BodyTimeout(f"Nothing of the body arrived for {bound:g} seconds.")
            )
        else:
            self.abort()

    # -- the fast path --------------------------------------------------------

    def _read_as_usual(self) -> None:
        self.transport.read_by(None if self._fast_path() is None else self._read_fast)

    def _fast_path(self) -> FastPath | None:
        """
        The fast path, if it may serve this connection. It knows what the sender of a
        head may do, and not whom a certificate names.
        """
        context, transport = self.context, self.transport
        if context.authorization is not None and transport.peer_user is not None:
            return None
        if context.is_proxy(transport.client):
            # Each of its requests has a client of its own.
            return None
        return context.fast_path

    def _read_fast(self) -> Any:
        """
        Try the fast path; called instead of `dataReceived`.
        """
        self.learn_of_commit()
        fast_path = self.context.fast_path
        if fast_path is None or self._state is not State.IDLE:
            return self.transport.read()
        descriptor, secure = self.transport.fileno(), self.transport.secure
        outcome = (
            fast_path.serve(descriptor)
            if secure is None
            else fast_path.serve_secure(descriptor, secure)
        )
        return self.after_fast_path(fast_path, outcome)

    def after_fast_path(self, fast_path: FastPath, outcome: int | bytes) -> Any:
        """
        Do what is left to do after the fast path.

        Args:
            outcome: What `FastPath.serve` answered.

        Returns:
            As `IReadDescriptor.doRead`.
        """
        if isinstance(outcome, bytes):
            if not outcome:
                return CONNECTION_DONE
            self.dataReceived(outcome)
            return None
        if outcome == NOTHING:
            return None
        if outcome == LEAVES_UPLOAD:
            self.take_upload()
            return None
        if outcome == LOST:
            return CONNECTION_LOST
        if outcome & REMAINS:
            self._go_on(fast_path.take_remainder())
            return None
        if outcome == COMMITS:
            self._wait_for_commit(fast_path.take_commit(self))
        else:
            self._after_reply(fast_path, outcome)
        return None

    def _after_reply(self, fast_path: FastPath, outcome: int) -> None:
        if outcome == SERVED:
            self._wait(State.IDLE)
            return
        if outcome & CLOSES:
            if outcome & QUEUED:
                self.transport.write(fast_path.take_unsent())
                self._count_sent()
            self._close()
        else:
            self.send_rest(fast_path.take_unsent())

    def _go_on(self, rest: Remainder) -> None:
        """
        Send the rest of a reply that the fast path has begun.
        """
        count = len(rest.request)
        self._received += count
        self.context.row.received(count)
        self.transport.bytes_sent += rest.sent_bytes
        try:
            request = self.context.heads.parse(rest.request)
            self._begin_request(request)
            handler = handler_for(self, request)
        except BaseException:
            os.close(rest.descriptor)
            raise
        self._handler = handler
        handler.go_on(rest)

    def take_upload(self) -> None:
        """
        See `ConnectionLifecycle`.

        A client that needs no longer than from one `check_time` to the next for a body
        costs little that way; all others are served as without the fast path, and time
        out as they do.
        """
        upload = None if self._joined is None else self._joined.take_upload()
        if upload is None:
            return
        self._received += len(upload.request) + upload.received
        self.transport.bytes_sent += upload.sent
        self._counted_sent += upload.sent
        self._requests += 1
        self._enter(State.BODY)
        try:
            request = self.context.heads.parse(upload.request)
            handler = handler_for(self, request)
        except BaseException:
            os.close(upload.descriptor)
            raise
        self.reader.resume(request, upload.received)
        self._handler = handler
        handler.resume(upload)
        if upload.unsent:
            self.transport.write(upload.unsent)
        if upload.unwritten:
            self.dataReceived(upload.unwritten)
        else:
            self.advance()
        if self._state is State.BODY:
            self._timeouts.start(upload.waits_since)

    # -- commits of the fast path ---------------------------------------------

    def _wait_for_commit(self, commit: Commit) -> None:
        context = self.context
        self._commit = commit
        assert context.commits is not None
        context.commits.begun()
        self._requests += 1
        self._received += len(commit.head) + commit.size
        self.transport.bytes_sent += commit.sent
        self._counted_sent += commit.sent
        self._enter(State.BODY)
        self.wait_for_store()

    def learn_of_commit(self) -> None:
        """
        Something else than its reply happens: from now on, this connection knows what
        the fast path has it wait for.
        """
        commit = None if self._joined is None else self._joined.take_commit(self)
        if commit is not None:
            self._wait_for_commit(commit)

    def send_rest(self, rest: bytes) -> None:
        """
        Send what the socket did not take of a reply of the fast path.
        """
        self.transport.write(rest)
        self._count_sent()
        self.when_taken()

    def committed(self, fast_path: FastPath) -> None:
        """
        The value is on the disk, and the connection has waited for it.
        """
        commit, self._commit = self._commit, None
        assert commit is not None
        self._after_reply(
            fast_path, fast_path.reply_to(commit, self.transport.fileno())
        )
        if self._state is State.IDLE and (
            self._input is not Input.OPEN or self.reader.buffered
        ):
            self.advance()

    def reply_to_commit(self, published: Published) -> None:
        """
        The value is on the disk; the reply is not that of the fast path.
        """
        self._take_commit().published(published)
        self.advance()

    def continue_commit(self, upload: IUpload) -> None:
        """
        The value is still to be published.
        """
        handler = self._take_commit()
        try:
            handler.publish(upload)
        except Exception as error:
            handler.fail(error)
        self.advance()

    def refuse_commit(self, error: BaseException) -> None:
        """
        The value is lost.
        """
        self._take_commit().fail(error)
        self.advance()

    def _take_commit(self) -> PutHandler:
        """
        Serve the request of the commit in the ordinary way from now on.
        """
        commit, self._commit = self._commit, None
        assert commit is not None
        handler = self._handler = self._handler_of(commit)
        return handler

    def _handler_of(self, commit: Commit) -> PutHandler:
        handler = handler_for(self, self.context.heads.parse(commit.head))
        assert isinstance(handler, PutHandler)
        handler.began_before(commit.seconds)
        handler.received = commit.size
        return handler

    # -- bodies that are moved ------------------------------------------------

    def _move_if_worthwhile(self) -> None:
        """
        Move the rest of the body to its file from now on, if it is long enough, has a
        known length, and its handler has a file for it.
        """
        pipe, handler = self.context.pipe, self._handler
        if pipe is None or handler is None or self._mover is not None:
            return
        if self.transport.secure is not None:
            # What has come is encrypted.
            return
        if is_worth_moving(self.reader) and handler.descriptor() is not None:
            self._mover = BodyMover(pipe, self.transport, self.reader)
            self.transport.read_by(self._move)

    def _move(self) -> Any:
        """
        Move what has arrived; called instead of `dataReceived`.
        """
        handler, mover = self._handler, self._mover
        target = None
        if handler is not None and self._state is State.BODY:
            target = handler.descriptor()
        if handler is None or mover is None or target is None:
            # The reply came early, or the connection waits for the store.
            self._stop_moving()
            return self.transport.doRead()
        row = self.context.row
        try:
            moved = mover.move(target, row.turn)
        except OSError:
            return CONNECTION_LOST
        count = moved.count if isinstance(moved, Stopped) else moved
        self._received += count
        row.received(count)
        handler.received += count
        if count:
            self._timeouts.start(self.context.clock.seconds())
        if isinstance(moved, Stopped):
            return self._stop_at(moved, handler)
        if not self.reader.movable:
            self._stop_moving()
            self.advance()
        return None

    def _stop_at(self, stopped: Stopped, handler: RequestHandler) -> Any:
        """
        Nothing more can be moved; bytes that are in the pipe have to be written.
        """
        if stopped.rest:
            self._stop_moving()
            self.dataReceived(stopped.rest)
            if self._handler is handler:
                # The file took them when they were written.
                self.context.stop_moving()
        return CONNECTION_DONE if stopped.ended else None

    def _stop_moving(self) -> None:
        if self._mover is not None:
            self._mover.stop()
            self._mover = None
            self._read_as_usual()
