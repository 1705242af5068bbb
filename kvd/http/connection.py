"""
A connection: where transport and wire meet the requests' turns.

Bytes become events, events go to the turn of the current request, and one
request is answered after the other. `_advance` is the only loop: it takes the
next event unless something is owed first (an answer of the store, or a reply
that the socket has not yet taken). Bytes that arrive meanwhile stop the
reading, so that a client which sends ahead costs one read's worth of memory.

A close with unread bytes makes the kernel send a reset, which may overtake the
reply (RFC 9112 section 9.6); so does whatever comes after the close. So where the
client may still be sending, the kernel holds something of it, or not all of the reply
has arrived, our half is closed first and theirs is awaited, for a while.

A client that has left is served to the end of what it had sent: whoever does not wait
for replies has its values stored all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.errors import BodyTimeout, HeadTimeout, KvdError, OutOfResources, PeerError
from kvd.http.fast_path import CLOSES, NOTHING, QUEUED, SERVED, Joined, Shortcuts
from kvd.http.site import Site
from kvd.http.timeouts import Patience, Waits
from kvd.http.turn import Turn
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA, Mark
from kvd.http.wire.reader import RequestReader
from kvd.model.requests import Request
from kvd.net.splice import Pipe, Stopped
from kvd.net.transport import BODY_BYTES, HEAD_BYTES, ServerTransport

T = TypeVar("T")

MOVE_FROM_BYTES: Final = 64 * 1024
"""
A body, or a rest of one, that is shorter is read and written: that is one read
then, and cheaper than two splices.
"""

FAST_BYTES: Final = 256 * 1024
"""
A client that sent so much for one event may be fast.
"""

GATHER_BYTES: Final = 4 * 1024 * 1024
"""
Of a fast client that is near: so much, or the rest of the body, has to come for the
next event. To wake for every 2 MiB cost half as much again of CPU time per byte (40 MB
to ``null:``). If a second brings nothing, what has come is taken, and the rest of the
body as it comes. One that is farther away would fill its window (``tcp_rmem``) and wait
for a round trip until it hears that there is room again: with 20 ms, 1 Gbit/s and 6 MiB
it sent 88 MB/s instead of 122.
"""


@implementer(IHalfCloseableProtocol)
class HttpConnection(Protocol):
    """
    Serves one connection from its first byte to its last.

    Provides `kvd.http.turn.Line`.
    """

    _log = Logger()

    transport: ServerTransport

    def __init__(self, site: Site) -> None:
        self._site = site
        self._reader = RequestReader(site.limits, site.heads)
        self._made = site.clock.seconds()
        self._patience = Patience(site.bounds, self._made)
        self._turn: Turn | None = None
        self._turns = 0
        self._received = self._counted_sent = self._checked_received = 0
        self._stalled = False
        self._owed = False
        self._advancing = False
        self._paused = False
        self._ending = False
        self._moves: Pipe | None = None
        self._usual_reader: Callable[[], Any] | None = None
        self._joined: Joined | None = None
        self._lost = False
        self._fresh_seconds: float | None = None
        self.reads = True
        self.in_service = 0.0

    # -- what Twisted calls ---------------------------------------------------

    def connectionMade(self) -> None:
        self._site.opened(self)
        shortcuts = self._site.shortcuts
        if shortcuts is not None:
            self._usual_reader = self._read
            self.transport.read_by(self._read)
            if not self._site.wants_reports:
                self._joined = shortcuts.join(self.transport.fileno())

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        self._site.row.received(len(data))
        if self._ending:
            return
        self._reader.feed(data)
        if self._owed:
            self._pause()
        else:
            self._advance()

    def readConnectionLost(self) -> None:
        """
        The client will send no more; it may still read.
        """
        self.reads = False
        if not self._owed:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        Our half is closed, as `_close` wanted.
        """

    def unwatched(self) -> None:
        """
        The transport is about to end, since it cannot wait for anything.
        """
        if self._turn is not None and not self._owed and not self._ending:
            self._give_up(
                OutOfResources(
                    "kvd has no room to wait for the rest of this request; try again."
                )
            )

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._lost = self._ending = True
        if self._joined is not None:
            self._joined.leave()
        self._site.run_queue.discard(self._have_turn)
        if self._moves is not None:
            self._stop_moving()
        if self._turn is not None:
            self._turn.abandon()
        self._count_sent()
        if self._site.recorder is not None:
            self._site.recorder.ended(
                self._site.clock.seconds() - self._made,
                self.in_service,
                self._received + self.transport.bytes_sent,
                self._turns,
            )
        self._site.closed(self)

    # -- events ---------------------------------------------------------------

    def _advance(self) -> None:
        """
        Take events for as long as there are any, nothing is owed, and the time
        slice lasts.
        """
        if self._advancing:
            return
        self._advancing = True
        slice_end = 0.0
        try:
            while not self._owed and not self._ending:
                try:
                    event = self._reader.next_event()
                except PeerError as error:
                    self._give_up(error)
                    break
                if event is NEED_DATA:
                    self._await_input()
                    break
                self._pass_on(event)
                if event.__class__ is Request or not self._reader.buffered:
                    # What begins with a head goes on with it; and most requests end
                    # without a look at the clock.
                    continue
                run_queue = self._site.run_queue
                slice_end = slice_end or run_queue.slice_end()
                if run_queue.seconds() >= slice_end:
                    self._give_way()
        finally:
            self._advancing = False

    def _give_way(self) -> None:
        """
        Go on with what has come after others had their turn.
        """
        if self._owed or self._ending:
            return
        self._owed = True
        self._wait(Waits.TURN)
        self._site.run_queue.add(self._have_turn)

    def _have_turn(self) -> None:
        self._owed = False
        self._wait(Waits.IDLE)
        self._advance()

    def _pass_on(self, event: Request | bytes | Mark) -> None:
        """
        Give an event to the turn that it belongs to.
        """
        turn = self._turn
        if turn is None:
            assert isinstance(event, Request)
            self._turns += 1
            turn = self._turn = Turn(self, self._site, event)
        try:
            if event is END_OF_REQUEST:
                turn.end()
            elif isinstance(event, bytes):
                turn.chunk(event)
            else:
                turn.begin()
        except Exception as error:
            turn.fail(error)
        self._end_turn()

    def _give_up(self, error: PeerError | OutOfResources) -> None:
        """
        Answer to bytes behind which nothing can be trusted, and close.
        """
        if self._turn is None:
            line = error.line if isinstance(error, PeerError) else None
            self._turn = Turn(self, self._site, None, line)
        self._turn.keep = False
        self._turn.fail(error)

    def _end_turn(self) -> None:
        turn = self._turn
        if turn is None or self._owed or self._ending:
            return
        if turn.replied and turn.body_ended:
            self._turn = None
            self.transport.bufferSize = HEAD_BYTES
            self._wait(Waits.IDLE)

    def _await_input(self) -> None:
        if not self.reads:
            self._close()
            return
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        if self._turn is not None:
            self._wait(Waits.BODY)
            self.transport.bufferSize = BODY_BYTES
            self._let_move()
        elif self._reader.mid_head:
            self._wait(Waits.HEAD)

    # -- shortcuts ------------------------------------------------------------

    def _read(self) -> Any:
        """
        Called instead of `dataReceived`.
        """
        shortcuts = self._site.shortcuts
        if shortcuts is None or self._patience.waits is not Waits.IDLE or self._ending:
            return self.transport.read()
        try:
            outcome = shortcuts.serve(self.transport.fileno())
        except OSError:
            return CONNECTION_LOST
        return self.go_on_after(shortcuts, outcome)

    def go_on_after(self, shortcuts: Shortcuts, outcome: int | bytes) -> Any:
        """
        Do what is left to do behind a shortcut.

        Args:
            outcome: What `Shortcuts.serve` answered.

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
        self._turns += 1
        if self._site.wants_reports:
            report = shortcuts.report()
            self.in_service += report.seconds
            self._received += report.moved_bytes
            self._site.tell(report, self.peer_name)
        if outcome == SERVED:
            self._wait(Waits.IDLE)
            return None
        if outcome & QUEUED:
            self.transport.write(shortcuts.take_unsent())
            self._count_sent()
        if outcome & CLOSES:
            self._close()
        else:
            self.when_taken(lambda: self._wait(Waits.IDLE))
        return None

    # -- bodies that are moved ------------------------------------------------

    def _let_move(self) -> None:
        """
        From here on move the body to its file, if it is long enough and has a
        known length, and if the exchange has a file for it.
        """
        if self._site.pipe is None or self._moves or self._reader.buffered:
            return
        if (self._reader.remaining_body or 0) < MOVE_FROM_BYTES:
            return
        assert self._turn is not None
        if self._turn.descriptor() is not None:
            self._moves = self._site.pipe
            self._moves.movers += 1
            self._stalled = False
            self.transport.read_by(self._move)

    def _move(self) -> Any:
        """
        Called instead of `dataReceived`.
        """
        turn, pipe = self._turn, self._moves
        target = None if turn is None or self._owed else turn.descriptor()
        if target is None or pipe is None:
            # The reply came early, or the store is to be waited for.
            self._stop_moving()
            return self.transport.doRead()
        if not pipe.may_move(self, self._site.row.turn):
            # There is still input, so the reactor comes back.
            return None
        assert turn is not None
        limit = self._reader.remaining_body
        assert limit
        try:
            moved = pipe.move(self.transport.fileno(), target, limit)
        except OSError:
            return CONNECTION_LOST
        count = moved if isinstance(moved, int) else moved.count
        self._received += count
        self._site.row.received(count)
        turn.moved(count)
        self._reader.skip_body(count)
        if not isinstance(moved, int):
            return self._stop_at(moved, turn)
        rest = limit - count
        if not rest:
            self._stop_moving()
            self._advance()
            return None
        self.transport.gather(min(self._worth_waiting_for(count), rest))
        return None

    def _worth_waiting_for(self, count: int) -> int:
        """
        How much has to come for the next event, after so much for this one.
        """
        if self._stalled:
            return 1
        if count >= FAST_BYTES and self.transport.is_near():
            return GATHER_BYTES
        return self.transport.gathers

    def _stop_at(self, stopped: Stopped, turn: Turn) -> Any:
        """
        Nothing more can be moved; bytes that were on the way may have to be written.
        """
        if stopped.rest:
            self._stop_moving()
            self.dataReceived(stopped.rest)
            if not turn.replied:
                # They could be written after all.
                self._site.stop_moving()
        return CONNECTION_DONE if stopped.ended else None

    def _stop_moving(self) -> None:
        assert self._moves is not None
        self._moves.movers -= 1
        self._moves.forget(self)
        self._moves = None
        self.transport.gather(1)
        self.transport.read_by(self._usual_reader)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    # -- what a turn calls ----------------------------------------------------

    @property
    def peer_name(self) -> str:
        """
        See `Line`.
        """
        return self.transport.peer_name

    @property
    def peer_left(self) -> bool:
        """
        See `Line`.
        """
        return self.transport.peer_left

    @property
    def local(self) -> Any:
        """
        See `Line`.
        """
        return self.transport.socket.getsockname()

    @property
    def remaining_body(self) -> int | None:
        """
        See `Line`.
        """
        return self._reader.remaining_body

    @property
    def has_input(self) -> bool:
        """
        See `Line`.
        """
        return bool(self._reader.buffered)

    def write(self, data: bytes) -> None:
        """
        See `Line`.
        """
        self.transport.write(data)

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """
        See `Line`.
        """
        return self.transport.send_file(descriptor, offset, count)

    def when(
        self,
        answer: Deferred[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None,
    ) -> None:
        """
        See `Line`.
        """
        self._owed = True
        self._wait(Waits.STORE)
        self._site.answers_due += 1

        def come(result: T | Failure) -> None:
            self._site.settled()
            self._owed = False
            if self._lost:
                self._come_late(result, undo)
                return
            assert self._turn is not None
            try:
                if isinstance(result, Failure):
                    result.raiseException()
                then(result)
            except Exception as error:
                self._turn.fail(error)
            self._go_on()

        answer.addBoth(come)

    def _come_late(self, result: Any, undo: Callable[[Any], object] | None) -> None:
        if isinstance(result, Failure):
            if not isinstance(result.value, KvdError):
                self._log.failure("after its connection was lost", failure=result)
        elif undo is not None:
            undo(result)

    def when_taken(self, then: Callable[[], None]) -> None:
        """
        See `Line`.
        """
        self._owed = True
        self._wait(Waits.READER)

        def taken() -> None:
            self._owed = False
            self._count_sent()
            then()
            self._go_on()

        self.transport.after_flush(taken)

    def _go_on(self) -> None:
        self._end_turn()
        self._advance()

    def replied(self) -> None:
        """
        See `Line`.
        """
        assert self._turn is not None
        self._count_sent()
        if not self._turn.keep:
            self._close()
        elif self.transport.queued:
            # Who sends requests ahead and reads no reply stops here.
            self.when_taken(lambda: None)

    def break_off(self) -> None:
        """
        See `Line`.
        """
        self._ending = True
        self._be_idle(False)
        self.transport.abortConnection()

    def _count_sent(self) -> None:
        sent = self.transport.bytes_sent
        self._site.row.sent(sent - self._counted_sent)
        self._counted_sent = sent

    # -- the end --------------------------------------------------------------

    def _close(self) -> None:
        """
        Close after what was written, so that the client gets to read it.
        """
        if self._ending:
            return
        self._ending = True
        if not self._may_hear_more():
            self._wait(Waits.READER)
            self.transport.loseConnection()
            return
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        self._linger()
        self.transport.loseWriteConnection()

    def _linger(self) -> None:
        """
        Wait for the client to close, once it has the reply.
        """
        delivered = self.transport.is_delivered()
        self._wait(Waits.LINGER if delivered else Waits.READER)

    def _may_hear_more(self) -> bool:
        if not self.reads:
            return False
        unread = self._turn is not None and not self._turn.body_ended
        return (
            unread
            or self._paused
            or bool(self._reader.buffered)
            or not self.transport.is_settled()
        )

    def drain(self, seconds: float) -> None:
        """
        The worker stops: finish the request in service, begin no other.

        Args:
            seconds: So long a client may be idle from now on before it sends one more:
                also one that reads a reply which began before and did not tell that the
                connection ends. The next request may be on its way, as that of a client
                that was accepted a moment ago is, and closing now would lose it. Its
                reply tells.
        """
        if self._ending:
            return
        self._fresh_seconds = seconds
        if self._patience.waits is Waits.IDLE:
            self._wait(Waits.IDLE)

    def abort(self) -> None:
        """
        Break off at once.
        """
        if not self._lost:
            self.break_off()

    def _wait(self, waits: Waits) -> None:
        self._be_idle(waits is Waits.IDLE)
        self._patience.wait(waits, self._site.clock.seconds())

    def _be_idle(self, idle: bool) -> None:
        if self._joined is not None:
            self._joined.idle = idle and self._site.shortcuts is not None

    def _progress(self, waits: Waits) -> tuple[int, int]:
        """
        See `Patience.is_over`. Each look at what the kernel knows is a system call.
        """
        if waits is Waits.READER:
            # Not what comes meanwhile: who only sends reads nothing.
            return self.transport.bytes_delivered, self.transport.unheard_bytes()
        if waits is Waits.LINGER:
            return self._received + self.transport.bytes_delivered, 0
        return self._received + self.transport.bytes_sent, 0

    def check_time(self, now: float) -> None:
        """
        Called a few times a second: end what has waited for too long.
        """
        if self._moves is not None and self._received == self._checked_received:
            # Less than what is gathered may have come.
            self._stalled = True
            self.transport.gather(1)
        self._checked_received = self._received
        patience = self._patience
        if self._joined is not None and self._joined.served is not None:
            patience.asked(self._joined.served)
        if self._ending and patience.waits is Waits.READER and not self._lost:
            self._linger()
        waits = patience.waits
        over = patience.is_over(now, *self._progress(waits))
        if waits is Waits.IDLE and self._fresh_seconds is not None:
            is_stale = patience.lasted(now) >= self._fresh_seconds
            # What is there already is read first.
            over = over or (is_stale and not self.transport.has_input())
        if not over:
            return
        if waits is Waits.IDLE:
            self._close()
        elif waits is Waits.LINGER:
            # Not a reset: the client may still read what its kernel has of the reply,
            # and not every kernel keeps that then.
            self.transport.loseConnection()
        elif waits is Waits.HEAD:
            self._give_up(
                HeadTimeout(
                    "The head of the request was not complete after"
                    f" {patience.bound():g} seconds."
                )
            )
        elif waits is Waits.BODY and self._turn is not None and not self._turn.replied:
            self._give_up(
                BodyTimeout(
                    "The body of the request stood still for"
                    f" {patience.bound():g} seconds."
                )
            )
        else:
            self.abort()
