"""
Values that are written: gathered in memory, sent ahead, or sent in parts.

- A small value is gathered and sent at its commit, when everything about it is known.
- A large one of known length is sent as it comes, in one request. The last byte is kept
  back until the commit, and an engine publishes nothing before it: so nothing is
  published that is not committed. Its head has been sent then, so the
  conditions have to be known when it begins.
- One of unknown length is sent in parts, each of which waits in a file for its last
  byte. It is published when the parts are joined. If it has conditions, all of it waits
  in a file and is sent in one request: engines do not keep conditions when they join
  parts (`kvd.s3.guards`).
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from typing import IO, Final
from urllib.parse import quote
from xml.sax.saxutils import escape as escape_xml

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.client.sources import PIECE_BYTES
from kvd.errors import (
    EngineFailed,
    KeyAbsent,
    StoreBusy,
    StoreFault,
    ValueTooLarge,
)
from kvd.interfaces import Answer, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key, escape
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.s3.engine import Engine
from kvd.s3.guards import Change, Guards
from kvd.s3.record import Stored, fields_of
from kvd.s3.requests import Ask
from kvd.s3.value import stat_object
from kvd.store.attribute import new_etag
from kvd.store.faults import fault_of
from kvd.store.waiting import Underway

GATHERED_BYTES: Final = 256 * 1024
"""
The largest value that is gathered in memory.
"""

LARGEST_SINGLE_BYTES: Final = 5 * 1024**3
"""
What S3 takes in one request.
"""

PART_BYTES: Final = 8 * 1024 * 1024
PARTS_PER_SIZE: Final = 1000
"""
Parts grow twofold after so many: an object has at most 10,000, and 5 TiB.
"""

TRIES: Final = 3
"""
How often a change is tried that another client came before, although its conditions
still hold.
"""

_CHANGED: Final = frozenset({404, 409, 412})
"""
The engine found another object than the one that was expected, or another client that
changes it.
"""


class UploadContext:
    """
    What all uploads of a store share.
    """

    def __init__(self, engine: Engine, guards: Guards, underway: Underway) -> None:
        self.engine = engine
        self.guards = guards
        self.underway = underway


class ObjectUpload:
    """
    What all kinds of uploads do.
    """

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
    ) -> None:
        self._context = context
        self._engine = context.engine
        self._key = key
        self._name = name
        self._length = length
        self._metadata = metadata
        self._etag = new_etag()
        self._written = 0
        self._ended = False

    def fileno(self) -> int | None:
        return None

    def commit(self, conditions: Conditions) -> Deferred[Published]:
        self._ended = True
        return self._context.underway.shield(self._commit(conditions))

    async def _commit(self, conditions: Conditions) -> Published:
        raise NotImplementedError

    def _check_length(self) -> None:
        if self._length not in (None, self._written):
            raise StoreFault(f"{self._written} bytes came, not {self._length}.")

    async def _current(self) -> Stored | None:
        """
        The value that the key has now.
        """
        try:
            return await stat_object(self._engine, self._key, self._name)
        except KeyAbsent:
            return None

    async def _publish_whole(
        self, body: bytes | _Part, conditions: Conditions
    ) -> Published:
        """
        Publish bytes that are all there, in one request.
        """
        sha256 = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else None
        for _ in range(TRIES):
            current = await self._current()
            guard = await self._guard(conditions, current)
            if isinstance(body, _Part):
                body.rewind()
            changed = changed_after(current)
            fields = fields_of(
                self._etag, self._metadata, changed=changed, sha256=sha256
            )
            reply = await self._engine.ask(
                Ask("PUT", self._name, "", fields | guard, body, _expected(guard))
            )
            self._engine.dismiss(reply)
            if reply.status in _CHANGED and not await self._is_published():
                continue
            info = ValueInfo(
                self._key, self._written, self._etag, changed, self._metadata
            )
            return Published(info, created=current is None)
        raise _overtaken(self._key)

    async def _guard(
        self,
        conditions: Conditions,
        current: Stored | None,
    ) -> dict[str, str]:
        """
        The field by which the engine publishes only over what was found.

        Raises:
            PreconditionFailed: A condition does not hold.
            ConditionUnsupported: The engine does not keep such a condition.
        """
        if conditions == UNCONDITIONAL:
            return {}
        conditions.check_change(None if current is None else current.info)
        return await self._context.guards.field(
            Change.PUT, None if current is None else current.engine_tag
        )

    async def _found(self, current: Stored | None) -> Published:
        """
        Describe what was published, whose time only the engine knows.

        Args:
            current: The value that the key had before.
        """
        info = ValueInfo(
            self._key, self._written, self._etag, time.time(), self._metadata
        )
        stored = await self._current()
        if stored is not None and stored.info.etag == self._etag:
            info = stored.info
        return Published(info, created=current is None)

    async def _is_published(self) -> bool:
        """
        Whether the value is this one: the reply to an earlier attempt may have been
        lost.
        """
        current = await self._current()
        return current is not None and current.info.etag == self._etag


@implementer(IUpload)
class GatheredUpload(ObjectUpload):
    """
    A small value, in memory until its commit.
    """

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
    ) -> None:
        super().__init__(context, key, name, length, metadata)
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        assert self._length is not None
        self._written += len(chunk)
        if self._written <= self._length:
            self._chunks.append(chunk)

    async def _commit(self, conditions: Conditions) -> Published:
        self._check_length()
        return await self._publish_whole(b"".join(self._chunks), conditions)

    def discard(self) -> None:
        if not self._ended:
            self._chunks.clear()


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
        self._taker = Deferred()
        return self._taker

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


@implementer(IUpload)
class StreamedUpload(ObjectUpload):
    """
    A large value of known length, on its way to the engine in one request.
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
        self._held = b""
        self._failure: Failure | None = None
        self._replied: Deferred[None] | None = None

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
        fields = fields_of(self._etag, self._metadata, begun=changed_after(None))
        reply = await self._engine.ask(
            Ask(
                "PUT",
                self._name,
                "",
                fields | guard,
                self._feed,
                _expected(guard),
                fresh=True,
            )
        )
        self._engine.dismiss(reply)
        if reply.status in _CHANGED:
            current = await self._current()
            self._conditions.check_change(None if current is None else current.info)
            raise _overtaken(self._key)
        if not self._feed.complete:
            raise EngineFailed("The engine answered before it had the value.")

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
                raise _too_late(self._key)
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
        return await self._found(current)

    def discard(self) -> None:
        if not self._ended and self._replied is not None:
            self._ended = True
            self._replied.cancel()


class _Part:
    """
    The bytes of a part, in a file of their own.
    """

    def __init__(self) -> None:
        self.length: int | None = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def write(self, chunk: bytes) -> None:
        """
        Append a chunk.

        Raises:
            OSError: It could not be written.
        """
        assert self.length is not None
        view = memoryview(chunk)
        while view:
            count = self._file.write(view)
            self.length += count
            view = view[count:]

    def rewind(self) -> bool:
        self._file.seek(0)
        return True

    def next_piece(self) -> bytes:
        return self._file.read(PIECE_BYTES)

    def clear(self) -> None:
        """
        Forget the bytes.
        """
        self._file.seek(0)
        self._file.truncate()
        self.length = 0

    def close(self) -> None:
        """
        Remove the file.
        """
        self._file.close()


@implementer(IUpload)
class PartsUpload(ObjectUpload):
    """
    A value of unknown length, or longer than one request may be.
    """

    _log = Logger()

    def __init__(
        self,
        context: UploadContext,
        key: Key,
        name: str,
        length: int | None,
        metadata: Metadata,
        conditions: Conditions,
    ) -> None:
        """
        Args:
            conditions: Those of the commit, as far as they are known.
        """
        super().__init__(context, key, name, length, metadata)
        self._conditions = conditions
        self._chunks: list[bytes] = []
        self._part: _Part | None = None
        self._id = ""
        self._tags: list[str] = []
        self._sending: Deferred[None] | None = None

    def write(self, chunk: bytes) -> Answer[None]:
        self._written += len(chunk)
        if self._part is None:
            self._chunks.append(chunk)
            if self._written <= GATHERED_BYTES:
                return None
        try:
            if self._part is None:
                self._part = _Part()
                chunk = b"".join(self._chunks)
                self._chunks.clear()
            self._part.write(chunk)
        except OSError as error:
            where = tempfile.gettempdir()
            raise fault_of(error, f"A part of a value waits in {where}") from error
        assert self._part.length is not None
        if self._conditions != UNCONDITIONAL:
            if self._part.length > LARGEST_SINGLE_BYTES:
                raise ValueTooLarge(
                    "A value with conditions may have at most"
                    f" {LARGEST_SINGLE_BYTES} bytes in an engine."
                )
            return None
        if self._part.length < PART_BYTES << len(self._tags) // PARTS_PER_SIZE:
            return None
        self._sending = Deferred.fromCoroutine(self._send_part(self._part))
        return self._sending

    async def _send_part(self, part: _Part) -> None:
        if not self._id:
            fields = fields_of(self._etag, self._metadata, begun=changed_after(None))
            reply = await self._engine.ask(Ask("POST", self._name, "uploads=", fields))
            document = await self._engine.document(reply)
            self._id = quote(document.findtext("UploadId") or "", safe="")
            if not self._id:
                raise EngineFailed("The engine gave no id to an upload in parts.")
        part.rewind()
        query = f"partNumber={len(self._tags) + 1}&uploadId={self._id}"
        reply = await self._engine.ask(Ask("PUT", self._name, query, body=part))
        self._engine.dismiss(reply)
        self._tags.append(reply.field("ETag"))
        part.clear()

    async def _commit(self, conditions: Conditions) -> Published:
        try:
            self._check_length()
            if not self._id:
                whole = self._part or b"".join(self._chunks)
                return await self._publish_whole(whole, conditions)
            if conditions != UNCONDITIONAL:
                raise _too_late(self._key)
            assert self._part is not None
            if self._part.length:
                await self._send_part(self._part)
            return await self._join()
        except BaseException:
            await self._abort()
            raise
        finally:
            self._close()

    async def _join(self) -> Published:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<ETag>{escape_xml(tag)}</ETag></Part>"
            for number, tag in enumerate(self._tags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = f"uploadId={self._id}"
        current = await self._current()
        gone = frozenset({404})
        reply = await self._engine.ask(
            Ask("POST", self._name, query, body=body, expected=gone)
        )
        document = await self._engine.document(reply)
        # If the reply to a first attempt was lost, there are no parts any more.
        if document.tag == "Error" and not await self._is_published():
            code = document.findtext("Code")
            raise EngineFailed(f"The engine did not join the parts ({code}).")
        self._id = ""
        return await self._found(current)

    async def _abort(self) -> None:
        """
        Have the engine forget the parts.
        """
        upload, self._id = self._id, ""
        if not upload:
            return
        query, gone = f"uploadId={upload}", frozenset({404})
        try:
            reply = await self._engine.ask(
                Ask("DELETE", self._name, query, expected=gone)
            )
            self._engine.dismiss(reply)
        except Exception:
            # The bucket's own rule for such uploads removes them.
            self._log.failure("the engine keeps parts of an upload that has ended")

    def _close(self) -> None:
        if self._part is not None:
            self._part.close()

    def discard(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()
        self._close()
        self._context.underway.shield(self._abort())


def changed_after(current: Stored | None) -> float:
    """
    The time of a change that is made now: never before the last one.
    """
    now = time.time()
    if current is not None:
        now = max(now, current.info.changed)
    return round(now, 6)


def _expected(guard: dict[str, str]) -> frozenset[int]:
    return _CHANGED if guard else frozenset()


def _too_late(key: Key) -> StoreBusy:
    return StoreBusy(f"/{escape(key)} changed while a value for it arrived: try again.")


def _overtaken(key: Key) -> StoreBusy:
    return StoreBusy(
        f"Other clients changed /{escape(key)} at the same time, each time that it was"
        " tried: try again."
    )
