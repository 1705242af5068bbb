"""
One request: from its head to the end of its reply.

A request handler receives the events of its request, asks the store and replies. Each
kind of operation has a handler of its own (`kvd.http.methods`), which overrides
`begin`, `chunk`, `end` and `abandon`. A handler raises every refusal that it can in
`begin`, before it asks for a body.

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
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.access.networks import network_of
from kvd.access.permit import Permit
from kvd.errors import (
    AccessRefused,
    Fault,
    KvdError,
    PeerError,
    RefusedLater,
    StoreFault,
    TooManyRequests,
)
from kvd.http.access_log import Entry, sender_of
from kvd.http.dialects.choice import Mount
from kvd.http.fast_path import PartialUpload, Remainder
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.relay import Relay
from kvd.http.reply_fields import Fields, refusal_fields
from kvd.http.source import FilePart, OpenFile, Source, Stream
from kvd.http.values import values_for
from kvd.http.wire.replies import (
    CONTINUE,
    LAST_CHUNK,
    chunk,
    problem,
    reply_head,
    with_length,
)
from kvd.http.wire.targets import without_user
from kvd.interfaces import Answer, ISigningDialect, IStreamedUpload
from kvd.ipc.row import CLIENT_LEFT
from kvd.model.exchanges import Values
from kvd.model.operations import Operation
from kvd.model.replies import Reply
from kvd.model.requests import Request
from kvd.net.sockets import name_of

if TYPE_CHECKING:
    from kvd.access.proxies import Proxies

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
    _permit: Permit | None = None
    _is_open = False
    """Whether everything was permitted when this began; a rights file may have come
    since."""
    _client: Any = None
    """Whoever a proxy has forwarded this for; None: the client of the connection."""
    _counted_for: Any = None
    """The client among whose open connections this is counted; None: nobody."""
    _source: Source | None = None
    _relay: Relay | None = None
    """Moves its bytes."""
    _wanted: Deferred[Any] | None = None
    """The last answer that only the client wants; it may have come."""
    _framed = False
    _sent = 0
    _status = 0

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
        self._context = connection.context
        self._request = request
        self._dialect = None if mount is None else mount.dialect
        self._inner = () if mount is None else mount.inner
        self._operation = operation
        self._began = connection.context.clock.seconds()
        self.keep = request.keep_alive
        """Whether the connection stays after this request."""

    def start(self) -> None:
        """
        Begin, if the client may do what it asks for.
        """
        context, operation = self._context, self._operation
        transport = self._connection.transport
        peer = transport.client
        if context.proxies is not None:
            peer = self._forwarded(context.proxies, peer)
        if operation is not None and context.address_rate is not None:
            context.address_rate(peer)
        authorization = context.authorization
        if authorization is None or operation is None:
            self._is_open = authorization is None
            self.begin()
            return
        self.when(
            authorization.authorize(
                self._request,
                operation,
                peer,
                transport.peer_user,
                may_be_signed=ISigningDialect.providedBy(self._dialect),
            ),
            self._authorized,
            undo=_end,
        )

    def _forwarded(self, proxies: Proxies, peer: Any) -> Any:
        """
        The client of a request, which is counted among what its address has open if it
        comes from a proxy.
        """
        client = proxies.client_of(peer, self._request.fields)
        if client is not peer:
            self._client = client
        by_address = self._context.by_address
        if by_address is not None and proxies.trusts(peer):
            if not by_address.has_room(client):
                raise too_many_connections()
            by_address.opened(client)
            self._counted_for = client
        return client

    def _authorized(self, permit: Permit) -> None:
        self._permit = permit
        self._operation = permit.operation
        self.begin()

    def began_before(self, seconds: float) -> None:
        """
        The request came so many seconds ago.
        """
        self._began -= seconds

    # -- what a method overrides ----------------------------------------------

    def begin(self) -> None:
        """
        The head has been understood.
        """

    def resume(self, upload: PartialUpload) -> None:
        """
        The fast path has begun to receive the body. Called in place of `begin`.
        """
        raise NotImplementedError

    def chunk(self, data: bytes) -> None:
        """
        A piece of the body has come.
        """

    def descriptor(self) -> int | None:
        """
        A descriptor to which the body may be moved without a call of `chunk`, or None.
        May change with every chunk.
        """
        return None

    def streamed(self) -> IStreamedUpload | None:
        """
        What takes the body on over a connection, to which it may be moved without a
        call of `chunk`, or None. May change with every chunk.
        """
        return None

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
        if not isinstance(answer, Deferred):
            then(answer)
            return
        connection = self._connection
        connection.wait_for_store()
        is_later = False

        def arrived(result: T | Failure) -> None:
            if not connection.answered():
                self._arrived_late(result, undo)
                return
            if isinstance(result, Failure):
                # Not raised here: the error would know this frame by its traceback,
                # and the frame the error.
                assert result.value is not None
                self.fail(result.value)
            else:
                try:
                    then(result)
                except Exception as error:
                    self.fail(error)
            if is_later:
                connection.advance()

        answer.addBoth(arrived)
        # For an answer that was already there, the caller goes on by itself.
        is_later = True

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
            self._wanted = answer
        self.when(answer, then, undo)

    def client_left(self) -> None:
        """
        Nobody can read the reply, for which the connection waits. Give up what only the
        client wants; what changes the store goes on.
        """
        if self._relay is not None:
            self._relay.client_left()
        elif self._wanted is not None:
            self._wanted.cancel()

    def _arrived_late(self, result: Any, undo: Callable[[Any], object] | None) -> None:
        if isinstance(result, Failure):
            if not isinstance(result.value, KvdError | CancelledError):
                self._log.failure("after its connection was lost", failure=result)
        elif undo is not None:
            undo(result)

    @property
    def scheme(self) -> str:
        """
        Of the URL that the client has asked for.
        """
        return "http" if self._connection.transport.secure is None else "https"

    def values(self) -> Values:
        """
        What the sender may use of the store.
        """
        return values_for(
            self._context,
            self._permit,
            is_open=self._is_open,
            scheme=self.scheme,
            user=self._user,
            network=self._network,
            inner=self._inner,
        )

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
        if length is not None:
            fields = [*fields, ("Content-Length", str(length))]
        elif request.minor == 1:
            self._framed = True
            fields = [*fields, ("Transfer-Encoding", "chunked")]
        else:
            # HTTP/1.0 knows no chunks: the body ends with the connection.
            self.keep = False
        head = self._head(status, fields)
        self._connection.transport.write(head)
        if length == 0 or request.method == "HEAD":
            source.close()
            self._finish()
            return
        self._source = source
        self._next_chunk()

    def go_on(self, rest: Remainder) -> None:
        """
        Send the rest of a reply that the fast path has begun.
        """
        self.began_before(rest.seconds)
        self._status = rest.status
        self._sent = rest.body_bytes
        self._source = self.rest_of(rest)
        connection = self._connection
        if rest.unsent:
            connection.transport.write(rest.unsent)
        connection.when_taken(self._next_chunk)

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

    def _next_chunk(self) -> None:
        source = self._source
        assert source is not None
        if self._connection.transport.peer_left:
            self._end_source()
            return
        try:
            part = None if self._framed else source.file()
            stream = None if self._framed or part else source.stream()
            if part is not None:
                self._read_ahead(part)
            elif stream is not None and self._can_pass_on():
                self._pass_on(stream)
            else:
                self.want(source.next_chunk(), self._send_chunk)
        except Exception as error:
            self.fail(error)

    def _read_ahead(self, part: FilePart) -> None:
        count = min(part.count, self._context.pieces.bytes)
        try:
            read = self._context.readahead(part.descriptor, part.offset, count)
        except OSError as error:
            raise _unreadable(error) from error
        if read is None:
            self._send_part(part)
        else:

            def send(_: None) -> None:
                self._send_part(part)

            self.when(read, send)

    def _send_part(self, part: FilePart) -> None:
        count = min(part.count, self._context.pieces.bytes)
        connection, source = self._connection, self._source
        assert source is not None
        try:
            sent = connection.transport.send_file(part.descriptor, part.offset, count)
        except OSError as error:
            if not source.lose_file():
                raise _unreadable(error) from error
            self._next_chunk()
            return
        if sent is None:
            if not source.lose_file():
                raise StoreFault("a value was cut short while it was sent")
            self._next_chunk()
            return
        source.sent(sent)
        self._sent += sent
        if sent == part.count and not source.has_more():
            self._end_source()
        else:
            connection.when_taken(self._next_chunk)

    def _can_pass_on(self) -> bool:
        """
        Whether the kernel can move a body from another socket to the client's.
        """
        transport = self._connection.transport
        return self._context.pipe is not None and transport.is_plain_tcp

    def _pass_on(self, stream: Stream) -> None:
        connection, context = self._connection, self._context
        assert context.pipe is not None
        transport = connection.transport
        if transport.queued:
            connection.when_taken(self._next_chunk)
            return
        connection.relay()
        relay = self._relay = Relay(
            transport, context.pipe, context.pieces, stream, self._relayed
        )
        if relay.begin():
            # The caller goes on by itself.
            connection.relayed()
            self._passed_on(relay)

    def _relayed(self, relay: Relay, error: StoreFault | None) -> None:
        connection = self._connection
        if not connection.relayed():
            return
        try:
            if error is None:
                self._passed_on(relay)
            else:
                self.fail(error)
        except Exception as failure:
            self.fail(failure)
        connection.advance()

    def _passed_on(self, relay: Relay) -> None:
        source, stream = self._source, relay.stream
        assert source is not None
        self._end_relay()
        stream.taken(relay.taken, relay.ended)
        self._next_chunk()

    def _end_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.stop()
            self._sent += relay.taken

    def _send_chunk(self, data: bytes) -> None:
        connection = self._connection
        if data:
            self._sent += len(data)
            connection.transport.write(chunk(data) if self._framed else data)
            connection.when_taken(self._next_chunk)
            return
        if self._framed:
            connection.transport.write(LAST_CHUNK)
        self._end_source()

    def _end_source(self) -> None:
        self._close_source()
        self._finish()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _finish(self) -> None:
        self._note()
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
            # By `client_left`.
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
        self._close_source()
        self.abandon()
        assert isinstance(error, PeerError | Fault)
        self.send(Reply(error.status, refusal_fields(error), error=error))

    def lost(self) -> None:
        """
        The connection was lost before the reply was complete.
        """
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.cancel()
        self._end_relay()
        self._close_source()
        self.abandon()
        self._status = self._status or CLIENT_LEFT
        self._note()

    # -- the log --------------------------------------------------------------

    def _note(self) -> None:
        context = self._context
        if self._permit is not None:
            self._permit.ended()
        if self._counted_for is not None and context.by_address is not None:
            context.by_address.closed(self._counted_for)
        seconds = context.clock.seconds() - self._began
        context.row.finished(seconds, self._request.method, self._status)
        if context.recorder is not None:
            self._connection.in_service += seconds
        log = context.log
        if log is None:
            return
        transport = self._connection.transport
        peer, proxy = transport.peer_name, transport.proxy_name
        if self._client is not None:
            peer, proxy = name_of(self._client), peer
        log.note(
            Entry(
                ended=time.time(),
                peer=peer,
                sender=sender_of(self._request, self._user()),
                method=self._request.method,
                key=_for_log(self._request.target),
                status=self._status,
                body_bytes=self._sent or self.received,
                seconds=seconds,
                proxy=proxy,
            )
        )

    def _user(self) -> str | None:
        """
        Who has sent this.
        """
        if self._permit is not None:
            # Whatever the rights file says by now.
            return self._permit.user
        certified = self._connection.transport.peer_user
        authorization = self._context.authorization
        if authorization is None:
            return certified
        return authorization.user_of(self._request, certified)

    def _network(self) -> str:
        """
        Where this comes from.
        """
        client = self._client
        return network_of(
            self._connection.transport.client if client is None else client
        )


def too_many_connections() -> TooManyRequests:
    """
    The refusal of a connection that its address may not have, or of a request that a
    proxy has forwarded for it.
    """
    return TooManyRequests(
        "This address has as many open connections as it may: close one first.", 1
    )


def _end(permit: Permit) -> None:
    permit.ended()


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


def _unreadable(error: OSError) -> StoreFault:
    return StoreFault(f"a value cannot be read: {error.strerror}")


def _for_log(target: bytes) -> str:
    """
    A target without its query and its user.
    """
    # The wire has refused blanks, control bytes and bytes beyond ASCII.
    return without_user(target).partition(b"?")[0].decode("ascii")
