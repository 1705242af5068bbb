"""
GET and HEAD of a key.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from kvd.errors import StoreFault
from kvd.http.fast_path import Remainder
from kvd.http.reply_fields import (
    Fields,
    cache_field,
    fields_of,
    part_fields,
    unchanged_fields,
)
from kvd.http.request import RequestHandler
from kvd.http.source import FilePart, Rest, Source, Stream
from kvd.http.wire.fields import range_of
from kvd.interfaces import (
    Answer,
    ICachedValue,
    ICachingStore,
    IStreamedValue,
    IValue,
)
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.operations import Get

CHUNK_BYTES: Final = 64 * 1024
"""
A body of up to this size is sent together with its head. A longer one is sent in pieces
of this size, one at a time.
"""


class GetHandler(RequestHandler):
    """
    Sends a value, a part of it, or only its description.
    """

    _operation: Get
    _value: IValue | None = None

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        self.when(
            self._context.store.open(self._operation.key), self._opened, undo=_close
        )

    def abandon(self) -> None:
        if self._value is not None:
            self._value.close()

    def rest_of(self, rest: Remainder) -> Source:
        """
        See `RequestHandler`.
        """
        if rest.hit is None:
            return super().rest_of(rest)
        store = ICachingStore(self._context.store)
        value = store.resume(rest.hit, rest.descriptor)
        return ValueSource(value, rest.offset, rest.rest_bytes)

    def _opened(self, value: IValue) -> None:
        self._value = value
        info = value.info
        operation, context = self._operation, self._context
        conditions = operation.conditions
        if conditions is not UNCONDITIONAL and conditions.is_unchanged(info):
            value.close()
            self.reply(304, [*unchanged_fields(info), *_cache_fields(value)])
            return
        part = None
        if operation.ranges and operation.body:
            part = range_of(self._request, info)
        if part is None:
            status, first, length = 200, 0, info.size
            fields = fields_of(info, context.guess_type)
        else:
            status, (first, length) = 206, part
            fields = part_fields(info, first, length, context.guess_type)
        fields += _cache_fields(value)
        if 0 < length <= CHUNK_BYTES and operation.body:
            self._send_whole(status, fields, value, first, length)
        else:
            self.stream(status, fields, length, ValueSource(value, first, length))

    def _send_whole(
        self, status: int, fields: Fields, value: IValue, first: int, length: int
    ) -> None:
        def complete(body: bytes) -> None:
            count = len(_checked(body))
            if count < length:
                # The store gave less than it was asked for.
                rest = ValueSource(value, first + count, length - count)
                self.stream(status, fields, length, Rest(body, rest))
                return
            value.close()
            self.reply(status, fields, body)

        self.when(value.read(first, length), complete)


def _cache_fields(value: IValue) -> Fields:
    if not ICachedValue.providedBy(value):
        return []
    return [cache_field(ICachedValue(value).cache_status)]


def _close(value: IValue) -> None:
    value.close()


def _checked(chunk: bytes) -> bytes:
    if not chunk:
        raise StoreFault("the value ended before its length")
    return chunk


class ValueSource(Source):
    """
    The bytes of a value from an offset on.
    """

    def __init__(self, value: IValue, first: int, length: int) -> None:
        self._value = value
        self._streamed = IStreamedValue(value, None)
        self._offset = first
        self.remaining = length

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        if not self.remaining:
            return b""
        chunk = self._value.read(self._offset, min(CHUNK_BYTES, self.remaining))
        if isinstance(chunk, Deferred):
            return chunk.addCallback(self._taken)
        return self._taken(chunk)

    def _taken(self, chunk: bytes) -> bytes:
        self.sent(len(_checked(chunk)))
        return chunk

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        descriptor = self._value.fileno()
        if descriptor is None or not self.remaining:
            return None
        return FilePart(descriptor, self._offset, self.remaining)

    def lose_file(self) -> bool:
        """
        See `Source`.
        """
        value = ICachedValue(self._value, None)
        return value is not None and value.lose_file()

    def stream(self) -> Stream | None:
        """
        See `Source`.
        """
        value = self._streamed
        if value is None or not self.remaining:
            return None
        descriptor = value.socket(self._offset)
        if descriptor is None:
            return None
        return Stream(descriptor, self.remaining, self._moved, value.arrival)

    def _moved(self, count: int, ended: bool) -> None:
        assert self._streamed is not None
        self._streamed.taken(count, ended)
        self.sent(count)

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        self._offset += count
        self.remaining -= count

    def close(self) -> None:
        """
        See `Source`.
        """
        self._value.close()
