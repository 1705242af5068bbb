"""
A connection: where transport and wire meet the requests' handlers.

What comes before the first request is in `kvd.http.opening`, and what the fast path
serves in `kvd.http.fast_connection`.

The connection turns bytes into events and gives them to the handler of the current
request, one request after the other. `advance` is the only loop: it takes the next
event unless the connection waits for something else (an answer of the store, or a
socket that has not taken the reply yet). `kvd.http.states` has the table of its states.
"""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.errors import BodyTimeout, HeadTimeout, OutOfResources, PeerError
from kvd.http.fast_connection import FastConnection
from kvd.http.fast_path import Joined
from kvd.http.methods import handler_for
from kvd.http.mover import BodyMover, is_worth_moving
from kvd.http.opening import OpeningConnection
from kvd.http.recorder import Recorder
from kvd.http.request import RequestHandler, unread_request
from kvd.http.states import ENDING, RECEIVING, WAITING, Input, State
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA, Mark
from kvd.model.requests import Request
from kvd.net.sockets import has_ended, was_reset
from kvd.net.transport import BODY_BYTES, HEAD_BYTES, ServerTransport


@implementer(IHalfCloseableProtocol)
class HttpConnection(FastConnection, OpeningConnection, Protocol):
    """
    Serves one connection from its first byte to its last.
    """

    transport: ServerTransport

    _mover: BodyMover | None = None

    # -- what Twisted calls ---------------------------------------------------

    def connectionMade(self) -> None:
        self.context.opened(self, is_counted=self._is_counted)
        self._open()

    def dataReceived(self, data: bytes) -> None:
        count = len(data)
        self._received += count
        self.context.row.received(count)
        state = self._state
        if state in ENDING:
            return
        self.reader.feed(data)
        if state in WAITING:
            self.pause_input()
        else:
            self.advance()

    def readConnectionLost(self) -> None:
        """
        The client will not send any more; it may still read.
        """
        self._input = Input.ENDED
        if self._state is State.DELAY:
            self._close()
            return
        if self._state in WAITING:
            if self.transport.peer_left:
                self._client_left()
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
        self._shake_hands_no_more()
        if self._mover is not None:
            self._mover.stop()
        # A cycle: the transport holds a method of this connection, which holds the
        # transport. Without it, both are freed without the garbage collector.
        transport.read_by(None)
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            refusal.cancel()
        commit, self._commit = self._commit, None
        if commit is not None:
            self._handler = self._handler_of(commit)
        self._give_up_reply()
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
        See `ConnectionLifecycle`.
        """
        self.learn_of_commit()
        self.take_upload()
        if self._mover is not None:
            self._mover.check()
        state = self._state
        if state is State.IDLE and self.transport.has_expired():
            # Another request would be served for whoever the client was.
            self._close()
            return
        if self._input is not Input.OPEN and self._has_left():
            return
        if not self._is_over(now):
            return
        state = self._state
        bound = self._timeouts.bound(state)
        if state is State.IDLE:
            self._close()
        elif state is State.PROXY:
            self._proxy_header_is_late(bound)
        elif state is State.HANDSHAKE:
            self._handshake_is_late(bound)
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

    def _has_left(self) -> bool:
        """
        Whether the client has left, which is acted upon. The reactor does not tell, as
        nothing is read: what the client sent ahead stays in the kernel, or it has
        closed its half.
        """
        state, transport = self._state, self.transport
        if state is State.DELAY and has_ended(transport.socket):
            self._close()
            return True
        if state in (State.STORE, State.RELAY) and (
            # The kernel says it once.
            transport.peer_left or was_reset(transport.socket)
        ):
            self._client_left()
            return True
        return False

    def _client_left(self) -> None:
        """
        The client neither sends nor reads any more: give up what nobody can have.
        """
        if self._lacks_body():
            self.abort()
            return
        if not self.transport.peer_left:
            self.transport.lose_peer()
        self._give_up_reply()

    def _lacks_body(self) -> bool:
        """
        Whether the request in service is of no use, as the rest of its body will not
        come. Where its length does not tell, that is found out when the store takes
        more: all that has come would have to be kept in memory meanwhile.
        """
        handler = self._handler
        if handler is None or handler.keeps_part:
            return False
        held = 0 if self._mover is None else self._mover.held
        return self.reader.lacks(held + self.transport.most_unread())

    # -- bodies that are moved ------------------------------------------------

    def _move_if_worthwhile(self) -> None:
        """
        Move the rest of the body from now on, if that is possible and worth it.
        """
        pipe, handler = self.context.pipe, self._handler
        if pipe is None or handler is None or self._mover is not None:
            return
        if is_worth_moving(self, handler):
            self._mover = BodyMover(self, handler, pipe)

    def moves_no_more(self) -> None:
        """
        See `ConnectionLifecycle`.
        """
        self._mover = None
        self._read_as_usual()
