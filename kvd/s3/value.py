"""
An object that is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from kvd.client.receiving import Receiver
from kvd.client.sockets import BodySocket
from kvd.errors import StoreFault
from kvd.interfaces import Answer, IStreamedValue
from kvd.model.keys import Key, escape
from kvd.model.values import ValueInfo
from kvd.s3.endpoints import Endpoint
from kvd.s3.engine import Engine
from kvd.s3.failures import BrokenBody, no_bucket
from kvd.s3.record import Stored, describe
from kvd.s3.requests import Ask, Reply
from kvd.store.faults import absence

HEAD_BYTES: Final = 64 * 1024
"""
How much of a value the first request asks for, if it may be that no more is wanted: as
much as is sent with the head of a reply. A reader that wants only the description, or a
part, costs no more than that.
"""

STREAM_FROM_BYTES: Final = 512 * 1024
"""
A rest that is as long is moved on by the kernel, from the socket on which it comes.
"""

_ABSENT: Final = 404
_NO_RANGE: Final = 416
_PARTIAL: Final = 206


async def stat_object(engine: Engine, key: Key, name: str) -> Stored:
    """
    Describe an object.

    Raises:
        KeyAbsent: There is none.
    """
    reply = await engine.ask(Ask("HEAD", name, expected=frozenset({_ABSENT})))
    engine.dismiss(reply)
    if reply.status == _ABSENT:
        raise absence(key)
    size = reply.number("Content-Length")
    if size is None:
        raise StoreFault("The engine does not say how long a value is.")
    return describe(key, reply, size)


async def open_object(engine: Engine, key: Key, name: str, whole: bool) -> ObjectValue:
    """
    Open an object for reading. If the engine breaks off, it is asked once more.

    Args:
        engine: Has it.
        key: Its key.
        name: Its name.
        whole: Whether all of it is going to be read; else only its first bytes are
            asked for.

    Raises:
        KeyAbsent: There is none.
    """
    fields = {} if whole else {"range": f"bytes=0-{HEAD_BYTES - 1}"}
    ask = Ask("GET", name, fields=fields, expected=frozenset({_ABSENT, _NO_RANGE}))
    try:
        return await _open_object(engine, key, ask)
    except BrokenBody:
        return await _open_object(engine, key, ask)


async def _open_object(engine: Engine, key: Key, ask: Ask) -> ObjectValue:
    name = ask.name
    reply = await engine.ask(ask)
    if reply.status == _ABSENT:
        code = (await engine.document(reply)).findtext("Code")
        if code == "NoSuchBucket":
            raise no_bucket(engine.bucket)
        raise absence(key)
    if reply.status == _NO_RANGE:
        # There is no first byte.
        engine.dismiss(reply)
        stored = await stat_object(engine, key, name)
        return ObjectValue(engine, name, stored, reply.endpoint, b"")
    stored = _describe(engine, key, reply)
    size = stored.info.size
    if reply.status == _PARTIAL:
        _check_part(engine, reply, 0, HEAD_BYTES)
    receiver = engine.receive(reply)
    if reply.status != _PARTIAL and size > HEAD_BYTES:
        # Some engines send all, whatever they are asked for.
        first = await engine.take(receiver)
        return ObjectValue(engine, name, stored, reply.endpoint, first, receiver)
    head = bytearray()
    # To the end of the body, so that the connection serves the next request.
    while piece := await engine.take(receiver):
        head += piece
        if len(head) > HEAD_BYTES:
            receiver.stop()
            raise _more()
    if len(head) != min(size, HEAD_BYTES):
        raise StoreFault(f"/{escape(key)} has another length than the engine says.")
    if len(head) == size and stored.sha256 is not None:
        _Check(stored.info, stored.sha256).add(bytes(head), 0)
    return ObjectValue(engine, name, stored, reply.endpoint, bytes(head))


def _describe(engine: Engine, key: Key, reply: Reply) -> Stored:
    size = reply.length
    if reply.status == _PARTIAL:
        total = reply.field("Content-Range").rpartition("/")[2]
        size = int(total) if total.isdecimal() else None
    if size is None:
        # Else its connection would stay.
        engine.dismiss(reply)
        raise StoreFault("The engine does not say how long a value is.")
    return describe(key, reply, size)


def _check_part(engine: Engine, reply: Reply, offset: int, end: int) -> None:
    """
    Check that a part of a value is the one that was asked for, or the beginning of it
    (RFC 9110 section 14.4).

    Raises:
        StoreFault: It begins elsewhere, or is longer.
    """
    text = reply.field("Content-Range").removeprefix("bytes ").partition("/")[0]
    first, _, last = text.partition("-")
    if first.isdecimal() and int(first) != offset:
        engine.dismiss(reply)
        raise StoreFault(
            f"The engine sent the bytes of a value from {first} on; it was asked for"
            f" those from {offset} on."
        )
    if (last.isdecimal() and int(last) >= end) or (reply.length or 0) > end - offset:
        engine.dismiss(reply)
        raise _more()


def _more() -> StoreFault:
    return StoreFault("The engine sent more of a value than it was asked for.")


class _Check:
    """
    Compares the digest of a value with that of its bytes, if these are read one after
    the other from the first on.
    """

    def __init__(self, info: ValueInfo, sha256: str) -> None:
        self._info = info
        self._expected = sha256
        self._sha256 = hashlib.sha256()
        self._read = 0

    def add(self, piece: bytes, offset: int) -> bytes:
        """
        Some bytes have been read from an offset on.

        Returns:
            The same bytes.

        Raises:
            StoreFault: These were the last, and the digest is another one.
        """
        if offset == self._read:
            self._sha256.update(piece)
            self._read += len(piece)
            is_all = self._read == self._info.size
            if is_all and self._sha256.hexdigest() != self._expected:
                raise StoreFault(
                    f"/{escape(self._info.key)} is damaged: its SHA-256 is not the one"
                    " that was stored with it."
                )
        return piece


@implementer(IStreamedValue)
class ObjectValue:
    """
    An object that is open: its first bytes in memory, the rest on its way.

    A long rest can be taken from the socket, which spares this process from copying it.

    The rest comes with the first, or from one more request, whose reply says whether
    the object is still the same; if it was replaced in between, reading fails. It goes
    to the same endpoint as the first, as others may not have heard of the object yet.
    If the engine breaks off, the same is asked for once more from there, as often as a
    byte has come.

    If the digest of the bytes is known, and all of them are read one after the other,
    the last ones are given out only if it is right.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        stored: Stored,
        endpoint: Endpoint,
        head: bytes,
        receiver: Receiver | None = None,
    ) -> None:
        """
        Args:
            engine: Where the object is.
            name: That of the object.
            stored: Describes it.
            endpoint: Where it was found.
            head: Its first bytes.
            receiver: Gives those that follow; None: they are asked for.
        """
        self.info = stored.info
        self._engine = engine
        self._name = name
        self._check: _Check | None = None
        if stored.sha256 is not None and len(head) < stored.info.size:
            self._check = _Check(stored.info, stored.sha256)
        self._endpoint = endpoint
        self._head = head
        self._receiver = receiver
        self._socket: BodySocket | None = None
        """Of the receiver, which does not read."""
        self._offset = len(head)
        self._end = stored.info.size
        if receiver is not None and self._is_long(self._offset):
            self._socket = receiver.detach()
        self._rest = b""
        """What has come last, of which so much was given:"""
        self._given = 0
        self._is_closed = False

    def fileno(self) -> int | None:
        return None

    def read(self, offset: int, count: int) -> Answer[bytes]:
        piece = self._next(offset, count)
        if self._check is None:
            return piece
        if isinstance(piece, Deferred):
            return piece.addCallback(self._check.add, offset)
        return self._check.add(piece, offset)

    def _next(self, offset: int, count: int) -> Answer[bytes]:
        if offset < len(self._head):
            return self._head[offset : offset + count]
        if offset == self._offset:
            if self._given == len(self._rest) and self._receiver is not None:
                self._socket = None
                self._came(self._receiver.take_held())
            if self._given < len(self._rest):
                return self._cut(count)
        return Deferred.fromCoroutine(self._read(offset, count))

    async def _read(self, offset: int, count: int) -> bytes:
        try:
            await self._take(offset, count)
        except BrokenBody:
            self._leave()
            if self._is_closed:
                raise CancelledError from None
            await self._take(offset, count)
        return self._cut(count)

    async def _take(self, offset: int, count: int) -> None:
        if self._receiver is None or offset != self._offset:
            self._leave()
            receiver = await self._ask(offset, count)
            if self._is_closed:
                # The reader has left while it waited; nobody else would stop it.
                receiver.stop()
                raise CancelledError
            self._receiver = receiver
            self._offset = offset
        data = await self._engine.take(self._receiver)
        if not data:
            # The reply was the beginning of what was asked for.
            raise BrokenBody("The engine sent less of a value than it was asked for.")
        self._came(data)
        if self._receiver is not None and self._is_long(self._offset):
            self._socket = self._receiver.detach()

    def _is_long(self, offset: int) -> bool:
        return self._end - offset >= STREAM_FROM_BYTES

    def _came(self, data: bytes) -> None:
        self._rest, self._given = data, 0
        if self._offset + len(data) >= self._end:
            # All has come, and the connection serves the next request.
            self._receiver = None

    def _cut(self, count: int) -> bytes:
        # Not cut off what is left: that would copy all of it each time.
        piece = self._rest[self._given : self._given + count]
        self._given += len(piece)
        self._offset += len(piece)
        return piece

    async def _ask(self, offset: int, count: int) -> Receiver:
        # Who wants less than a chunk wants no more.
        self._end = self.info.size
        if count < HEAD_BYTES:
            self._end = min(self._end, offset + count)
        reply = await self._engine.ask(
            Ask(
                "GET",
                self._name,
                fields={"range": f"bytes={offset}-{self._end - 1}"},
                expected=frozenset({_ABSENT, _NO_RANGE}),
                endpoint=self._endpoint,
            )
        )
        # Not If-Match: after a node was killed, SeaweedFS has said of some objects for
        # ever that the tag, which it tells itself, does not match.
        if reply.status != _PARTIAL or not self._is_same(reply):
            self._engine.dismiss(reply)
            raise StoreFault("The value was replaced while it was read.")
        _check_part(self._engine, reply, offset, self._end)
        return self._engine.receive(reply)

    def _is_same(self, reply: Reply) -> bool:
        info = _describe(self._engine, self.info.key, reply).info
        return (info.etag, info.size) == (self.info.etag, self.info.size)

    def socket(self, offset: int) -> tuple[int, int] | None:
        if self._socket is None or offset != self._offset:
            return None
        if self._given < len(self._rest):
            return None
        assert self._receiver is not None
        # Not what was asked for: a reply may be the beginning of that.
        missing = self._receiver.missing_bytes
        assert missing is not None
        # Not the last byte: by it the connection learns of the end.
        return (self._socket.fileno(), missing - 1) if missing > 1 else None

    def taken(self, count: int, ended: bool) -> None:
        self._offset += count
        if ended:
            self._leave()
        else:
            assert self._receiver is not None
            self._receiver.skip(count)

    def watch(
        self,
        count: int,
        take: Callable[[], int],
        failed: Callable[[StoreFault], object],
    ) -> None:
        assert self._socket is not None
        self._engine.watch(self._socket, count, take, failed)

    def close(self) -> None:
        self._is_closed = True
        self._leave()

    def _leave(self) -> None:
        """
        Leave the connection from which the rest comes.
        """
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.leave()
        receiver, self._receiver = self._receiver, None
        self._rest, self._given = b"", 0
        if receiver is not None:
            receiver.stop()
