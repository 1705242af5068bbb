"""
One request: from its head to the end of its reply.

A request handler receives the events of its request, asks the store and replies. Each
kind of operation has a handler of its own (`kvd.http.methods`), which overrides
`begin`, `chunk`, `end` and `abandon`. A handler raises every refusal that it can in
`begin`, before it asks for a body.

Who sends the request, and what that sender may do, is in `kvd.http.admission`. A body
that is not sent with the head of the reply is in `kvd.http.body_sender`.

The head of the reply announces whether the connection stays, so this is decided when
the head is written. A refusal may be sent before the end of the request's body. If the
rest of the body is short and sure to come, the reader skips it (`RequestReader.skip`);
otherwise the connection is closed.

A handler and its connection know each other until the reply is complete; then the
connection forgets its handler, so that reference counting frees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.access.permit import Permit
from kvd.errors import AccessRefused, Fault, KvdError, PeerError, RefusedLater
from kvd.http.access_log import Entry, key_of, sender_of
from kvd.http.admission import Admission
from kvd.http.body_sender import BodySender
from kvd.http.dialects.choice import Mount
from kvd.http.fast_path import PartialUpload, Remainder
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.reply_fields import Fields, refusal_fields
from kvd.http.source import OpenFile, Source
from kvd.http.values import PermittedValues
from kvd.http.wire.replies import CONTINUE, problem, reply_head, with_length
from kvd.interfaces import Answer, ISigningDialect, IUpload
from kvd.ipc.row import CLIENT_LEFT
from kvd.model.exchanges import Values
from kvd.model.operations import Operation
from kvd.model.replies import Reply
from kvd.model.requests import Request

T = TypeVar("T")


class RequestHandler:
    """
    Serves one request. The base class ignores the body and replies only when `fail` is
    called: it answers requests whose head cannot be read.
    """

    _log = Logger()

    # On the class, because most requests change few of these.
    received = 0
    """How many bytes of the body have come."""
    _sending: BodySender | None = None
    """Sends the body of the reply, unless it is sent with the head."""
    _sent = 0
    """How many bytes of the body of the reply were sent."""
    _status = 0
    """That of the reply; 0: it has not begun."""

    def __init__(
        self,
        connection: ConnectionLifecycle,
        request: Request,
        mount: Mount | None = None,
        operation: Operation | None = None,
    ) -> None:
        """
        Args:
            connection: The one that the request came on.
            request: Its head.
            mount: Its dialect chooses the status of the reply; None if it is unknown.
            operation: What the request asks for; None if the request is refused.
        """
        self._connection = connection
        self._context = context = connection.context
        self._request = request
        self._admission = Admission(context, connection.transport, request)
        self._dialect = None if mount is None else mount.dialect
        self._inner = () if mount is None else mount.inner
        self._operation = operation
        self._began = context.clock.seconds()
        self.keep = request.keep_alive
        """Whether the connection stays after this request."""

    def start(self) -> None:
        """
        Begin, if the client may do what it asks for.
        """
        permit = self._admission.ask(self._operation, self._dialect)
        if permit is None:
            self.begin()
        else:
            self.when(permit, self._admitted, undo=Permit.ended)

    def _admitted(self, permit: Permit) -> None:
        self._admission.permit = permit
        self._operation = permit.operation
        self.begin()

    # -- what a method overrides ----------------------------------------------

    def begin(self) -> None:
        """
        The head has been understood.
        """

    def chunk(self, data: bytes) -> None:
        """
        A piece of the body has come.
        """

    def movable_to(self) -> IUpload | None:
        """
        The upload to which the body may be moved without a call of `chunk`, or None.
        May change with every chunk.
        """
        return None

    @property
    def keeps_part(self) -> bool:
        """
        Whether what comes of a body is kept if the rest of it does not come.
        """
        return False

    def end(self) -> None:
        """
        The body is complete.
        """

    def abandon(self) -> None:
        """
        `end` will not be called: the client left, or was refused.
        """

    # -- what a method calls --------------------------------------------------

    def when(
        self,
        answer: Answer[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None = None,
    ) -> None:
        """
        Call `then` with an answer of the store, now or when it arrives. If the
        connection is lost before that, call `undo` instead.
        """
        if isinstance(answer, Deferred):
            self._connection.when_answered(answer, then, self.fail, undo)
        else:
            then(answer)

    def want(
        self,
        answer: Answer[T],
        then: Callable[[T], None],
        undo: Callable[[T], object] | None = None,
    ) -> None:
        """
        As `when`, with an answer that only the client wants: it is cancelled as soon as
        nobody can read the reply.
        """
        if isinstance(answer, Deferred):
            self._connection.when_answered(
                answer, then, self.fail, undo, for_client=True
            )
        else:
            then(answer)

    def values(self) -> Values:
        """
        What the sender may use of the store.
        """
        return PermittedValues(self._context, self._admission, self._inner)

    def proceed(self) -> None:
        """
        Nothing forbids the body: send ``100 Continue`` if the client waits for it.
        """
        request = self._request
        if request.expects_continue and request.has_body:
            connection = self._connection
            if not connection.reader.buffered:
                connection.transport.write(CONTINUE)

    def reply(self, status: int, fields: Fields, body: bytes = b"") -> None:
        """
        Send a whole reply.
        """
        self.send(Reply(status, fields, body))

    def send(self, reply: Reply) -> None:
        """
        Send a whole reply, whose body is no generator.
        """
        reply = self._rendered(reply)
        status, body, error = reply.status, reply.body, reply.error
        assert isinstance(body, bytes)
        if error is not None and not body:
            body = problem(status, error.sentence)
        head = self._head(status, with_length(status, reply.fields, len(body)))
        if self._request.method == "HEAD":
            body = b""
        self._sent = len(body)
        self._connection.transport.write(head + body)
        self._finish()

    def stream(
        self, status: int, fields: Fields, length: int | None, source: Source
    ) -> None:
        """
        Send a reply whose body comes from a source. Without a length, the body is sent
        in chunks, or to an HTTP/1.0 client up to the end of the connection.
        """
        request = self._request
        reply = self._rendered(Reply(status, fields))
        status, fields = reply.status, [*reply.fields]
        in_chunks = length is None and request.minor == 1
        if length is not None:
            fields = [*fields, ("Content-Length", str(length))]
        elif in_chunks:
            fields = [*fields, ("Transfer-Encoding", "chunked")]
        else:
            # HTTP/1.0 knows no chunks: the body ends with the connection.
            self.keep = False
        head = self._head(status, fields)
        connection = self._connection
        connection.transport.write(head)
        if length == 0 or request.method == "HEAD":
            source.close()
            self._finish()
            return
        self._sending = BodySender(
            connection, source, self._body_is_over, in_chunks=in_chunks
        )
        self._sending.go_on()

    # -- what the fast path has begun -----------------------------------------

    def began_before(self, seconds: float) -> None:
        """
        The request came so many seconds ago.
        """
        self._began -= seconds

    def resume(self, upload: PartialUpload) -> None:
        """
        The fast path has begun to receive the body. Called in place of `begin`.
        """
        raise NotImplementedError

    def go_on(self, rest: Remainder) -> None:
        """
        Send the rest of a reply that the fast path has begun.
        """
        self.began_before(rest.seconds)
        self._status = rest.status
        connection = self._connection
        self._sending = BodySender(
            connection, self.rest_of(rest), self._body_is_over, sent=rest.body_bytes
        )
        if rest.unsent:
            connection.transport.write(rest.unsent)
        connection.when_taken(self._sending.go_on)

    def rest_of(self, rest: Remainder) -> Source:
        """
        The rest of a reply that the fast path has begun.
        """
        return OpenFile(rest.descriptor, rest.offset, rest.rest_bytes)

    # -- the reply ------------------------------------------------------------

    def _rendered(self, reply: Reply) -> Reply:
        """
        A reply in the dialect of the request.
        """
        dialect = self._dialect
        if dialect is None:
            return reply
        status, fields, body, error = (
            reply.status,
            reply.fields,
            reply.body,
            reply.error,
        )
        try:
            rendered: Reply = dialect.render(
                reply, self._request, self._operation, bool(self.received)
            )
        except Exception:
            # What was asked for may be done already, and a 500 would be rendered too.
            self._log.failure(
                "a dialect cannot render the status {status}", status=status
            )
            self._dialect = None
            return Reply(status, fields, body, error)
        if isinstance(error, AccessRefused):
            # Clients act on these statuses, whatever else they understand.
            rendered.status = status
        return rendered

    def _head(self, status: int, fields: Sequence[tuple[str, str]]) -> bytes:
        self._status = status
        self.keep = self.keep and self._can_go_on()
        cors = self._context.cors
        if cors is not None:
            fields = [*fields, *cors.fields(self._request)]
        return reply_head(
            status, fields, close=not self.keep, minor=self._request.minor
        )

    def _can_go_on(self) -> bool:
        """
        Whether another request can follow this reply.
        """
        if self._context.draining or self._connection.transport.has_expired():
            return False
        request, reader = self._request, self._connection.reader
        if not (reader.in_request and request.has_body):
            # botocore waits for 100 before an empty body too, and mistakes the reply
            # that follows on this connection if it gets none.
            return (
                request.has_body
                or not request.expects_continue
                or not ISigningDialect.providedBy(self._dialect)
            )
        # A client that waits for 100 may send the body after a refusal or leave it out
        # (RFC 9110 section 10.1.1), so what comes next is unknown.
        return (
            reader.can_skip
            and self._connection.may_receive
            and not request.expects_continue
        )

    def _body_is_over(self, error: BaseException | None) -> None:
        if error is None:
            self._stop_sending()
            self._finish()
        else:
            self.fail(error)

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.close()
            self._sent = sending.sent

    def _finish(self) -> None:
        self._ended()
        self._connection.replied(self.keep)

    # -- failures -------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """
        Reply with what went wrong, or abort the connection if the reply has begun.
        """
        if isinstance(error, RefusedLater):
            self._connection.refuse_later(
                error.seconds, partial(self.fail, error.reason)
            )
            return
        if isinstance(error, CancelledError) and self._connection.transport.peer_left:
            # Only the client wanted what was waited for.
            self.lost()
            self._connection.replied(self.keep)
            return
        if not isinstance(error, KvdError):
            self._log.failure("a request failed", failure=Failure(error))
            error = Fault("kvd made a mistake, which its log describes.")
        elif isinstance(error, Fault):
            # No traceback: a client can cause some of these at will.
            self._log.warn(
                "a request failed: {error}",
                error=error.sentence,
                kind=type(error).__name__,
            )
        if self._status:
            self._connection.abort()
            return
        self.abandon()
        assert isinstance(error, PeerError | Fault)
        self.send(Reply(error.status, refusal_fields(error), error=error))

    def lost(self) -> None:
        """
        The connection was lost before the reply was complete.
        """
        self._stop_sending()
        self.abandon()
        self._status = self._status or CLIENT_LEFT
        self._ended()

    # -- the end --------------------------------------------------------------

    def _ended(self) -> None:
        """
        Nothing more is done for this request: give back what it was granted, and note
        it.
        """
        context = self._context
        self._admission.end()
        seconds = context.clock.seconds() - self._began
        context.row.finished(seconds, self._request.method, self._status)
        if context.recorder is not None:
            self._connection.in_service += seconds
        if context.log is not None:
            context.log.note(self._entry(seconds))

    def _entry(self, seconds: float) -> Entry:
        request, admission = self._request, self._admission
        peer, proxy = admission.names()
        return Entry(
            ended=time.time(),
            peer=peer,
            sender=sender_of(request, admission.user),
            method=request.method,
            key=key_of(request.target),
            status=self._status,
            body_bytes=self._sent or self.received,
            seconds=seconds,
            proxy=proxy,
        )


def unread_request(error: BaseException) -> Request:
    """
    A stand-in for a request whose head cannot be read, with what is known of it.
    """
    line = error.line if isinstance(error, PeerError) else None
    method, target = line or ("-", b"-")
    return Request(
        method,
        target,
        minor=1,
        fields={},
        length=None,
        chunked=False,
        keep_alive=False,
        expects_continue=False,
    )
