"""
A request's turn on its connection: from its head to the end of its reply.

Whether the connection can stay after the reply is decided when the reply's
head is written, since the head has to announce it. A reply may come before
the end of the request's body (a refusal): then the rest of the body is read
past where it is short and sure to come, else the connection is closed. What
belongs to a refused body is never taken for a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.errors import (
    Fault,
    KvdError,
    MethodNotAllowed,
    PeerError,
    RangeNotSatisfiable,
    StoreFault,
)
from kvd.http.access_log import Entry
from kvd.http.dialects.plain import ALLOWED
from kvd.http.methods import exchange_for
from kvd.http.methods.contract import Exchange, Fields, FilePart, Source
from kvd.http.site import Site
from kvd.http.wire.replies import (
    CONTINUE,
    LAST_CHUNK,
    NO_SNIFFING,
    chunk,
    problem,
    reply_head,
    with_length,
)
from kvd.interfaces import Answer, IDialect
from kvd.model.operations import Operation
from kvd.model.requests import Request

T = TypeVar("T")

SKIP_BYTES: Final = 256 * 1024
"""
The rest of a refused body is read past if it is no longer than this; beyond,
closing is cheaper for both sides.
"""

FILE_BYTES: Final = 1024 * 1024
"""
So much of a file is sent at once, before others get their turn; less where the
socket takes less.
"""

CLIENT_LEFT: Final = 499
"""
In the access log, never on the wire: the client broke off before the reply.
"""

SERVICE_UNAVAILABLE: Final = 503

_NOTHING: Final = Exchange()


class Line(Protocol):
    """
    What a turn needs of its connection.
    """

    in_service: float
    """Seconds of the turns that have ended, where connections are recorded."""

    @property
    def peer_name(self) -> str:
        """
        The client, for the log.
        """

    @property
    def local(self) -> Any:
        """
        This end's address, as ``getsockname`` says it.
        """

    @property
    def reads(self) -> bool:
        """
        Whether more bytes of the client may come.
        """

    @property
    def peer_left(self) -> bool:
        """
        Whether nothing of a reply reaches the client any more.
        """

    @property
    def remaining_body(self) -> int | None:
        """
        How much of a body of known length has not been seen yet.
        """

    @property
    def has_input(self) -> bool:
        """
        Whether bytes behind the current event have come.
        """

    def write(self, data: bytes) -> None:
        """
        Send.
        """

    def when(
        self,
        answer: Deferred[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None,
    ) -> None:
        """
        Go on when an answer comes. `undo` takes it instead if the connection
        is lost meanwhile.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """
        See `kvd.net.transport.ServerTransport.send_file`.
        """

    def when_taken(self, then: Callable[[], None]) -> None:
        """
        Go on when the kernel has taken what was written.
        """

    def replied(self) -> None:
        """
        All of the reply is written.
        """

    def break_off(self) -> None:
        """
        The reply cannot be completed: only a break tells the client.
        """


class Turn:
    """
    One request, how far it has come, and what was said.

    Provides `kvd.http.methods.contract.Replier`.
    """

    _log = Logger()

    # How each turn begins; set on the turn itself when that changes.
    _dialect: IDialect | None = None
    _operation: Operation | None = None
    _exchange: Exchange = _NOTHING
    _source: Source | None = None
    _framed = False
    _received = 0
    _sent = 0
    _status = 0
    body_ended = False
    replied = False
    """All of the reply is written; the body may not have ended."""

    def __init__(
        self,
        line: Line,
        site: Site,
        request: Request | None,
        refused: tuple[str, bytes] | None = None,
    ) -> None:
        """
        Args:
            line: The connection.
            site: What all connections share.
            request: None for a head that could not be read, or was refused.
            refused: Method and target of that, as far as they are known.
        """
        self._line = line
        self._site = site
        self._request = request
        self._refused = refused
        self._began = site.clock.seconds()
        site.row.began()
        self.keep = request is not None and request.keep_alive
        """Whether the connection stays after this turn."""

    @property
    def request(self) -> Request:
        """
        See `Replier`.
        """
        assert self._request is not None
        return self._request

    # -- the request ----------------------------------------------------------

    def begin(self) -> None:
        """
        Understand the head.
        """
        request = self.request
        if not self._site.guard.knows(request.host):
            self._site.guard.check(request, self._line.local)
        dialects = self._site.dialects
        place = dialects.of(request.target)
        self._dialect = place.dialect
        self._operation = dialects.understand(place, request)
        self._exchange = exchange_for(self._operation, self, self._site)
        self._exchange.begin()

    def chunk(self, data: bytes) -> None:
        """
        A piece of the body. After the reply it is read past.
        """
        self._received += len(data)
        if not self.replied:
            self._exchange.chunk(data)

    def descriptor(self) -> int | None:
        """
        Where the rest of the body may be moved to; None if it has to come in
        chunks.
        """
        return None if self.replied else self._exchange.descriptor()

    def moved(self, count: int) -> None:
        """
        So many bytes of the body went there.
        """
        self._received += count

    def end(self) -> None:
        """
        The body has ended.
        """
        self.body_ended = True
        if not self.replied:
            self._exchange.end()

    def abandon(self) -> None:
        """
        The connection is lost.
        """
        if not self.replied:
            self._let_go()
            if not self._status:
                self._status = CLIENT_LEFT
            self._note()

    def _let_go(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
        self._exchange.abandon()

    # -- what the exchange calls ----------------------------------------------

    def when(
        self,
        answer: Answer[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None = None,
    ) -> None:
        """
        See `Replier`.
        """
        if isinstance(answer, Deferred):
            self._line.when(answer, then, undo)
        else:
            then(answer)

    def proceed(self) -> None:
        """
        See `Replier`.
        """
        request = self.request
        if request.expects_continue and request.has_body and not self._line.has_input:
            self._line.write(CONTINUE)

    def reply(self, status: int, fields: Fields, body: bytes = b"") -> None:
        """
        See `Replier`.
        """
        status = self._spell(status)
        head = self._head(status, with_length(status, fields, len(body)))
        if not self._sends_body():
            body = b""
        self._sent = len(body)
        self._line.write(head + body)
        self._finish()

    def stream(
        self, status: int, fields: Fields, length: int | None, source: Source
    ) -> None:
        """
        See `Replier`.
        """
        if length is not None:
            fields = [*fields, ("Content-Length", str(length))]
        elif self.request.minor == 1:
            self._framed = True
            fields = [*fields, ("Transfer-Encoding", "chunked")]
        else:
            # HTTP/1.0 knows no chunks: the body ends with the connection.
            self.keep = False
        self._line.write(self._head(self._spell(status), fields))
        if length == 0 or not self._sends_body():
            source.close()
            self._finish()
            return
        self._source = source
        self._next_chunk()

    # -- the reply ------------------------------------------------------------

    def _sends_body(self) -> bool:
        if self._request is not None:
            return self._request.method != "HEAD"
        return self._refused is None or self._refused[0] != "HEAD"

    def _spell(self, status: int) -> int:
        if self._dialect is None:
            return status
        return self._dialect.spell(status, self._operation, bool(self._received))

    def _head(self, status: int, fields: Fields) -> bytes:
        self._status = status
        self.keep = self.keep and self._can_go_on()
        minor = 1 if self._request is None else self._request.minor
        return reply_head(status, fields, close=not self.keep, minor=minor)

    def _can_go_on(self) -> bool:
        """
        Whether another request can follow this reply.
        """
        if self._site.draining:
            return False
        if self.body_ended or not self.request.has_body:
            return True
        # A client that waits for 100 may send the body after the refusal or
        # leave it out (RFC 9110 section 10.1.1): what comes next is unknown.
        rest = self._line.remaining_body
        return (
            rest is not None
            and rest <= SKIP_BYTES
            and self._line.reads
            and not self.request.expects_continue
        )

    def _next_chunk(self) -> None:
        assert self._source is not None
        if self._line.peer_left:
            self._end_source()
            return
        try:
            part = None if self._framed else self._source.file()
            if part is not None:
                self._send_warm(part)
                return
            self.when(self._source.next_chunk(), self._send_chunk)
        except Exception as error:
            self.fail(error)

    def _send_warm(self, part: FilePart) -> None:
        count = min(part.count, FILE_BYTES)
        warming = self._site.warm(part.descriptor, part.offset, count)
        if warming is None:
            self._send_part(part)
        else:
            self._line.when(warming, lambda _: self._send_part(part), None)

    def _send_part(self, part: FilePart) -> None:
        count = min(part.count, FILE_BYTES)
        try:
            sent = self._line.send_file(part.descriptor, part.offset, count)
        except OSError as error:
            raise StoreFault(f"a value cannot be read: {error.strerror}") from error
        if sent is None:
            raise StoreFault("a value was cut short while it was sent")
        assert self._source is not None
        self._source.sent(sent)
        self._sent += sent
        if sent == part.count:
            self._end_source()
        else:
            self._line.when_taken(self._next_chunk)

    def _end_source(self) -> None:
        assert self._source is not None
        self._source.close()
        self._source = None
        self._finish()

    def _send_chunk(self, data: bytes) -> None:
        if data:
            self._sent += len(data)
            self._line.write(chunk(data) if self._framed else data)
            self._line.when_taken(self._next_chunk)
            return
        if self._framed:
            self._line.write(LAST_CHUNK)
        self._end_source()

    def _finish(self) -> None:
        self.replied = True
        # The exchange knows this turn: together they would wait for the
        # garbage collector.
        self._exchange = _NOTHING
        self._note()
        self._line.replied()

    # -- failures -------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """
        Answer with what went wrong, or break off if an answer has begun.
        """
        if not isinstance(error, KvdError):
            self._log.failure("a request failed", failure=Failure(error))
            error = Fault("kvd made a mistake, which its log describes.")
        elif isinstance(error, Fault):
            # Some kinds a client can cause at will, such as too large a value.
            self._log.warn(
                "a request failed: {error}",
                error=error.sentence,
                kind=type(error).__name__,
            )
        if self._status:
            self._line.break_off()
            return
        self._let_go()
        assert isinstance(error, PeerError | Fault)
        fields: Fields = [("Content-Type", "application/problem+json"), NO_SNIFFING]
        if isinstance(error, MethodNotAllowed):
            fields.append(("Allow", ALLOWED))
        elif isinstance(error, RangeNotSatisfiable):
            fields.append(("Content-Range", f"bytes */{error.size}"))
        elif error.status == SERVICE_UNAVAILABLE:
            fields.append(("Retry-After", "1"))
        status = error.status
        self.reply(status, fields, problem(self._spell(status), error.sentence))

    # -- the log --------------------------------------------------------------

    def _note(self) -> None:
        seconds = self._site.clock.seconds() - self._began
        self._site.row.finished(seconds)
        if self._site.recorder is not None:
            self._line.in_service += seconds
        log = self._site.log
        if log is None:
            return
        request = self._request
        method, target = self._refused or ("-", b"-")
        if request is not None:
            method, target = request.method, request.target
        log.note(
            Entry(
                ended=time.time(),
                peer=self._line.peer_name,
                method=method,
                key=_without_query(target),
                status=self._status,
                body_bytes=self._sent or self._received,
                seconds=seconds,
            )
        )


def _without_query(target: bytes) -> str:
    # The wire has refused blanks, control bytes and bytes beyond ASCII.
    return target.partition(b"?")[0].decode("ascii")
