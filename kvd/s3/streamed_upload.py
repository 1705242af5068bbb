"""
Large values of known length, which are sent as they come, in one request.

The last byte is kept back until the commit, and an engine publishes nothing before it:
so nothing is published that is not committed. The head of the request has been sent by
then, so the conditions have to be known when the upload begins.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.client.sending import Body
from kvd.errors import EngineFailed
from kvd.interfaces import Answer, IStreamedUpload, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.s3.guards import CHANGED
from kvd.s3.record import fields_of, published_at
from kvd.s3.requests import Ask
from kvd.s3.upload import (
    ObjectUpload,
    UploadContext,
    changed_after,
    expected_with,
    overtaken,
    too_late,
)


class _Feed:
    """
    The body of a request, which gets its pieces one by one.
    """

    def __init__(self, length: int) -> None:
        self.length: int | None = length
        self._left = length
        self._begun = False
        self._taker: Deferred[bytes] | None = None
        self._room: Deferred[None] | None = None
        self._offered: bytes | None = None

    @property
    def complete(self) -> bool:
        """
        Whether all bytes have been taken.
        """
        return not self._left

    def rewind(self) -> bool:
        return not self._begun

    def next_piece(self) -> bytes | Deferred[bytes]:
        if not self._left:
            return b""
        if self._offered is None:
            room, self._room = self._room, None
            if room is not None:
                # Which may bring the next piece at once.
                room.callback(None)
        offered, self._offered = self._offered, None
        if offered is not None:
            self._took(offered)
            return offered
        self._taker = Deferred(self._leave)
        return self._taker

    def _leave(self, _: Deferred[bytes]) -> None:
        # The request has ended. What comes now is for the next one, if there is one.
        self._taker = None

    def give(self, piece: bytes) -> Answer[None]:
        """
        Give the next piece; the answer comes when there is room for another.
        """
        taker, self._taker = self._taker, None
        if taker is None:
            self._offered = piece
        else:
            self._took(piece)
            taker.callback(piece)
            if self._waits():
                return None
        self._room = Deferred()
        return self._room

    def _waits(self) -> bool:
        return self._taker is not None

    def passed(self, count: int) -> None:
        """
        So many bytes went another way.
        """
        self._begun = True
        self._left -= count

    def wait_for(self, room: Deferred[None]) -> Deferred[None]:
        """
        Wait for room on that way, or for `stop`.
        """
        waiting = self._room = Deferred()

        def is_there(_: None) -> None:
            if self._room is waiting:
                self._room = None
                waiting.callback(None)

        room.addCallback(is_there)
        return waiting

    def _took(self, piece: bytes) -> None:
        self._begun = True
        self._left -= len(piece)

    def stop(self, failure: Failure) -> None:
        """
        Nothing is taken any more.
        """
        room, self._room = self._room, None
        if room is not None:
            room.errback(failure)


@implementer(IUpload, IStreamedUpload)
class StreamedUpload(ObjectUpload):
    """
    A large value of known length, on its way to the engine in one request.

    Of a connection without TLS, the caller can have the kernel move all bytes but the
    last.
    """

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int,
        metadata: Metadata,
        conditions: Conditions,
    ) -> None:
        """
        Args:
            conditions: Those of the commit.
        """
        super().__init__(context, key, name, length, metadata)
        self._conditions = conditions
        self._feed = _Feed(length)
        self._body: Body | None = None
        self._held = b""
        self._failure: Failure | None = None
        self._replied: Deferred[None] | None = None
        self._changed: float | None = None
        """When it was published, if the engine says so in its reply."""

    async def begin(self) -> StreamedUpload:
        """
        Begin the request.

        Raises:
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The engine does not keep such a condition.
        """
        guard: dict[str, str] = {}
        if self._conditions != UNCONDITIONAL:
            current = await self._current()
            guard = await self._guard(self._conditions, current)
        self._replied = Deferred.fromCoroutine(self._send(guard))
        self._replied.addErrback(self._failed)
        return self

    async def _send(self, guard: dict[str, str]) -> None:
        begun = changed_after(None)
        fields = fields_of(self._etag, self._metadata, begun=begun)
        reply = await self._engine.ask(
            Ask(
                "PUT",
                self._name,
                "",
                fields | guard,
                self._feed,
                expected_with(guard),
                fresh=True,
                sends=self._is_sent_by,
            )
        )
        self._engine.dismiss(reply)
        if reply.status in CHANGED:
            current = await self._current()
            self._conditions.check_change(None if current is None else current.info)
            raise overtaken(self._key)
        if not self._feed.complete:
            raise EngineFailed("The engine answered before it had the value.")
        # As Swift does.
        if reply.field("Last-Modified"):
            self._changed = published_at(reply, begun)

    def _is_sent_by(self, body: Body) -> None:
        self._body = body

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        self._feed.stop(failure)

    def write(self, chunk: bytes) -> Answer[None]:
        assert self._length is not None
        self._check()
        self._written += len(chunk)
        if self._written > self._length:
            self._check_length()
        if self._written == self._length:
            chunk, self._held = chunk[:-1], chunk[-1:]
        return self._feed.give(chunk) if chunk else None

    @property
    def movable(self) -> int:
        assert self._length is not None
        return max(0, self._length - 1 - self._written)

    @property
    def queued(self) -> bool:
        return self._body is not None and self._body.queued

    def socket(self) -> int | None:
        if self._failure is not None or self._body is None or not self.movable:
            return None
        return self._body.socket()

    def moved(self, count: int) -> None:
        assert self._body is not None
        self._written += count
        self._feed.passed(count)
        self._body.moved(count)

    def room(self) -> Deferred[None]:
        if self._failure is not None:
            return fail(self._failure)
        assert self._body is not None
        return self._feed.wait_for(self._body.room())

    def _check(self) -> None:
        if self._failure is not None:
            assert self._failure.value is not None
            raise self._failure.value

    async def _commit(self, conditions: Conditions) -> Published:
        assert self._replied is not None
        try:
            self._check_length()
            self._check()
            if conditions != self._conditions:
                raise too_late(self._key)
            current = await self._current()
            conditions.check_change(None if current is None else current.info)
            self._check()
            room = self._feed.give(self._held)
            if isinstance(room, Deferred):
                # Whether it was taken, the reply says.
                room.addErrback(lambda _: None)
            await self._replied
            self._check()
        except BaseException:
            self._replied.cancel()
            raise
        if self._changed is None:
            return await self._found(current)
        info = ValueInfo(
            self._key, self._written, self._etag, self._changed, self._metadata
        )
        return Published(info, created=current is None)

    def discard(self) -> None:
        if not self._ended and self._replied is not None:
            self._ended = True
            self._replied.cancel()
