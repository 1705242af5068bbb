"""
The life of a connection: what it waits for, for how long, and how it ends.
`kvd.http.states` has the table of its states.

A close with unread bytes makes the kernel send a reset, which may overtake the reply
(RFC 9112 section 9.6); so does whatever comes after the close. So where the client may
still be sending, where the kernel holds unread bytes, or where part of the reply has
not arrived, kvd closes its own half first and waits for the client's, for a while.

kvd serves everything that a client sent before it left: the values of a client that
does not wait for replies are stored all the same. Only what is behind a request whose
refusal it does not wait for is not served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.access.networks import network_of
from kvd.errors import KvdError
from kvd.http.context import ProcessContext
from kvd.http.fast_path import FastPath, Joined
from kvd.http.states import ENDING, TRANSITIONS, Input, State
from kvd.http.timeouts import Timeouts
from kvd.http.wire.reader import RequestReader
from kvd.net.transport import HEAD_BYTES, ServerTransport

T = TypeVar("T")


class ConnectionLifecycle:
    """
    The part of a connection that its request handler uses, and its process.
    """

    _log = Logger()

    transport: ServerTransport
    counted_for: Any = None
    """See `kvd.http.context.OpenConnection`."""

    _state = State.IDLE
    _input = Input.OPEN
    _handler: object | None = None
    """Of the request in service."""
    _joined: Joined | None = None
    """As the fast path knows this connection."""
    _give_up: Callable[[], object] | None = None
    """Ends the wait for what only the client wants, while that is waited for."""
    _refusal: IDelayedCall | None = None
    """The next one that is due."""
    _drain_seconds: float | None = None
    _received = _counted_sent = 0
    in_service = 0.0
    """How many seconds the requests that have ended took, where connections are
    recorded."""

    def __init__(
        self,
        context: ProcessContext,
        held_since: float | None = None,
        *,
        behind_proxy: bool = False,
    ) -> None:
        """
        Args:
            context: What this connection shares with others.
            held_since: When it was accepted, if the fast path has held it since then,
                and has counted it (`FastPath.hold`).
            behind_proxy: Whether it begins with the header of a proxy.
        """
        self.context = context
        self.reader = RequestReader(context.limits, context.heads)
        self._is_counted = held_since is not None
        self._behind_proxy = behind_proxy
        self._made = context.clock.seconds() if held_since is None else held_since
        self._timeouts = Timeouts(context.bounds, self._made)

    @property
    def _network(self) -> str:
        return network_of(self.transport.client)

    def _enter(self, state: State) -> None:
        assert state in TRANSITIONS[self._state], (self._state, state)
        self._state = state
        if self._joined is not None:
            self._update_joined(self._joined)

    def _update_joined(self, joined: Joined) -> None:
        joined.idle = self._state is State.IDLE and self._fast_path() is not None

    def _wait(self, state: State) -> None:
        """
        Enter a state and start its time.
        """
        assert state in TRANSITIONS[self._state], (self._state, state)
        self._state = state
        if self._joined is not None:
            self._update_joined(self._joined)
        self._timeouts.start(self.context.clock.seconds())

    def _receive(self) -> None:
        """
        Stop waiting for something else, and wait for the client's bytes again.
        """
        if self._handler is not None or self.reader.in_request:
            self._enter(State.BODY)
        else:
            self._wait(State.IDLE)

    def dataReceived(self, data: bytes) -> None:
        """
        See `IProtocol.dataReceived`.
        """
        raise NotImplementedError

    def learn_of_commit(self) -> None:
        """
        Something else happens than the end of what the fast path waits for alone.
        """
        raise NotImplementedError

    def rules_changed(self) -> None:
        """
        See `kvd.http.context.OpenConnection`.
        """
        raise NotImplementedError

    def _fast_path(self) -> FastPath | None:
        """
        The fast path, if it may serve this connection.
        """
        raise NotImplementedError

    def advance(self) -> None:
        """
        Take the events that have arrived, unless the connection waits for something
        else.
        """
        raise NotImplementedError

    def take_upload(self) -> None:
        """
        Go on by itself with the upload that the fast path has begun on this connection,
        if there is one.
        """
        raise NotImplementedError

    # -- what a request handler calls -----------------------------------------

    @property
    def may_receive(self) -> bool:
        """
        Whether the client may still send.
        """
        return self._input is not Input.ENDED

    def wait_for_store(self) -> None:
        """
        The store was asked. `answered` is called when it answers.
        """
        self._wait(State.STORE)
        self.context.asked()

    def answered(self) -> bool:
        """
        The store has answered. `advance` is called afterwards.

        Returns:
            Whether the connection is still there.
        """
        self.context.answered()
        if self._state is not State.STORE:
            return False
        self._enter(State.BODY)
        return True

    def when_answered(
        self,
        answer: Deferred[T],
        then: Callable[[T], None],
        failed: Callable[[BaseException], None],
        undo: Callable[[T], object] | None = None,
        *,
        for_client: bool = False,
    ) -> None:
        """
        Continue when the store has answered; now, if it has already.

        Args:
            answer: The answer.
            then: Called with it.
            failed: Called with why there is none, or with what `then` raises.
            undo: Called with it in place of `then` if the connection is lost by then.
            for_client: Whether only the client wants it: then it is cancelled as soon
                as nobody can read the reply.
        """
        self.wait_for_store()
        if for_client:
            self._give_up = answer.cancel
        is_later = False

        def arrived(result: T | Failure) -> None:
            self._give_up = None
            if not self.answered():
                self._arrived_late(result, undo)
                return
            if isinstance(result, Failure):
                # Not raised here: the error would know this frame by its traceback,
                # and the frame the error.
                assert result.value is not None
                failed(result.value)
            else:
                try:
                    then(result)
                except Exception as error:
                    failed(error)
            if is_later:
                self.advance()

        answer.addBoth(arrived)
        # For an answer that was already there, the caller goes on by itself.
        is_later = True

    def _arrived_late(self, result: Any, undo: Callable[[Any], object] | None) -> None:
        if isinstance(result, Failure):
            if not isinstance(result.value, KvdError | CancelledError):
                self._log.failure("after its connection was lost", failure=result)
        elif undo is not None:
            undo(result)

    def refuse_later(self, seconds: float, refuse: Callable[[], None]) -> None:
        """
        Call `refuse` after so many seconds, and `advance` afterwards; soon if kvd
        drains, which is not to wait for it. A client that leaves before that, or has
        left, ends here, with the replies that it had before: it would cost a connection
        for nothing.
        """
        if self._input is Input.ENDED:
            self._close()
            return
        if self.context.draining:
            seconds = 0.0
        self._wait(State.DELAY)

        def is_due() -> None:
            self._refusal = None
            # It may have been closed or aborted meanwhile.
            if self._state is State.DELAY:
                self._enter(State.BODY)
                refuse()
                self.advance()

        self._refusal = self.context.clock.callLater(seconds, is_due)

    def when_taken(self, then: Callable[[], None] | None = None) -> None:
        """
        Continue when the kernel has taken what was written.
        """
        self._wait(State.SENDING)

        def taken() -> None:
            self._receive()
            self._count_sent()
            if then is not None:
                then()
            self.advance()

        pieces = self.context.pieces
        pieces.measure()
        self.transport.limit_unsent(pieces.most_unsent)
        self.transport.after_flush(taken)

    def relay(self, give_up: Callable[[], object]) -> None:
        """
        A body is moved on from now on, until `relayed`.

        Args:
            give_up: Called as soon as nobody can read it.
        """
        self._give_up = give_up
        self._wait(State.RELAY)

    def relayed(self) -> bool:
        """
        It is moved no longer. `advance` is called afterwards.

        Returns:
            Whether the connection is still there.
        """
        self._give_up = None
        if self._state is not State.RELAY:
            return False
        self._receive()
        self._count_sent()
        return True

    def replied(self, keep: bool) -> None:
        """
        The whole reply is written: the connection forgets this request's handler.

        Args:
            keep: Whether another request may follow. If so, the rest of this request's
                body is skipped; if not, the connection ends.
        """
        self._handler = None
        self._count_sent()
        if not keep:
            self._close()
            return
        if self.reader.in_request:
            self.reader.skip()
        else:
            self._wait(State.IDLE)
        transport = self.transport
        transport.bufferSize = HEAD_BYTES
        if transport.queued:
            # A client that sends requests ahead and reads no reply stops here.
            self.when_taken()

    def abort(self) -> None:
        """
        Break off at once. After an incomplete reply this is how the client learns of
        it.
        """
        self.learn_of_commit()
        self.take_upload()
        if self._state not in (State.BROKEN, State.CLOSED):
            self._enter(State.BROKEN)
            self.transport.abortConnection()

    def _give_up_reply(self) -> None:
        """
        The client reads no more: wait no longer for what only it wants. What changes
        the store goes on.
        """
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    # -- what moves the body of a request calls -------------------------------

    def receives_for(self, handler: object) -> bool:
        """
        Whether the next bytes are of the body that this handler takes.
        """
        return self._state is State.BODY and self._handler is handler

    @property
    def waits_for_store(self) -> bool:
        """
        Whether the store has been asked, and has not answered.
        """
        return self._state is State.STORE

    def count_moved(self, count: int) -> None:
        """
        So many bytes of a body were received without `dataReceived`.
        """
        self._received += count
        self.context.row.received(count)
        if count:
            self._timeouts.start(self.context.clock.seconds())

    def moves_no_more(self) -> None:
        """
        The rest of a body is not moved: `dataReceived` gets it.
        """
        raise NotImplementedError

    # -- input ----------------------------------------------------------------

    def pause_input(self) -> None:
        """
        Leave what comes in the kernel, until the connection waits for it.
        """
        if self._input is Input.OPEN:
            self._input = Input.PAUSED
            self.transport.pauseProducing()

    def _resume_input(self) -> None:
        if self._input is Input.PAUSED:
            self._input = Input.OPEN
            self.transport.resumeProducing()

    # -- the end --------------------------------------------------------------

    def _close(self) -> None:
        """
        Close after everything written has been sent, so that the client can read it.
        """
        if self._state in ENDING:
            return
        if not self._may_receive_more():
            self._wait(State.CLOSING)
            self.transport.loseConnection()
            return
        self._resume_input()
        # The client may take its time to close, once it has the reply.
        self._wait(State.LINGER if self.transport.is_delivered() else State.CLOSING)
        self.transport.loseWriteConnection()

    def _may_receive_more(self) -> bool:
        if self._input is Input.ENDED:
            return False
        return (
            self.reader.in_request
            or self._input is Input.PAUSED
            or bool(self.reader.buffered)
            or not self.transport.is_drained()
        )

    def drain(self, seconds: float) -> None:
        """
        The process stops: finish the request in service, and begin only one more, if it
        arrives soon.

        Args:
            seconds: How soon. A client that was accepted a moment ago may be sending,
                or has read a reply that did not yet announce the end of the connection;
                closing now would lose its request. The reply to that request announces
                the end.
        """
        self.learn_of_commit()
        if self._state in ENDING:
            return
        self.take_upload()
        self._drain_seconds = seconds
        if self._state is State.IDLE:
            self._wait(State.IDLE)
        elif self._refusal is not None:
            self._refusal.reset(0.0)

    # -- time -----------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """
        Called a few times a second: end what has waited too long.
        """
        raise NotImplementedError

    def _is_over(self, now: float) -> bool:
        """
        Whether the connection has been in its state too long.
        """
        if self._state is State.CLOSING and self.transport.is_delivered():
            self._wait(State.LINGER)
        state = self._state
        if state is State.RELAY:
            self._count_sent()
            if not self.transport.waits_for_peer:
                # The store has bounds of its own.
                self._timeouts.start(now)
        joined = self._joined
        if joined is not None and joined.served is not None and state is State.IDLE:
            self._timeouts.start_from(joined.served)
        is_over = self._timeouts.is_over(state, now, *self._progress())
        if state is State.IDLE and self._drain_seconds is not None:
            is_stale = self._timeouts.lasted(now) >= self._drain_seconds
            # What has already arrived is read first.
            is_over = is_over or (is_stale and not self.transport.has_input())
        return is_over

    def _progress(self) -> tuple[int, int]:
        """
        See `Timeouts.is_over`. What the kernel knows costs a system call.
        """
        transport = self.transport
        if self._state in (State.SENDING, State.RELAY, State.CLOSING):
            # Received bytes do not count: a client that only sends reads nothing.
            return transport.bytes_delivered, transport.unheard_bytes()
        if self._state is State.LINGER:
            return self._received + transport.bytes_delivered, 0
        return self._received + transport.bytes_sent, 0

    def _count_sent(self) -> None:
        sent = self.transport.bytes_sent
        self.context.row.sent(sent - self._counted_sent)
        self._counted_sent = sent
