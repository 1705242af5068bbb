"""
GET and HEAD of a key: a value on its way out.
"""

from __future__ import annotations

import time
from typing import Final

from twisted.internet.defer import Deferred

from kvd.errors import StoreFault
from kvd.http.memo import Kept
from kvd.http.methods.contract import Exchange, Fields, FilePart, Replier, Rest, Source
from kvd.http.site import Site
from kvd.http.wire.fields import range_of
from kvd.http.wire.replies import NO_SNIFFING, http_date
from kvd.interfaces import Answer, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.operations import Get
from kvd.model.values import ValueInfo

# Up to here a body goes out with its head in one piece; from here on it is
# sent in pieces of this size, one at a time.
CHUNK_BYTES: Final = 64 * 1024

DEFAULT_TYPE: Final = ("Content-Type", "application/octet-stream")


class GetExchange(Exchange):
    """
    Sends a value, a part of it, or what is known of it.
    """

    def __init__(self, operation: Get, replier: Replier, site: Site) -> None:
        self._operation = operation
        self._replier = replier
        self._site = site
        self._value: IValue | None = None

    def begin(self) -> None:
        self._replier.proceed()

    def end(self) -> None:
        self._replier.when(
            self._site.store.open(self._operation.key),
            self._opened,
            undo=lambda value: value.close(),
        )

    def abandon(self) -> None:
        if self._value is not None:
            self._value.close()

    def _opened(self, value: IValue) -> None:
        self._value = value
        info = value.info
        conditions = self._operation.conditions
        if conditions is not UNCONDITIONAL and conditions.is_unchanged(info):
            value.close()
            self._replier.reply(304, _unchanged(info))
            return
        fields = fields_of(info)
        status, first, length = 200, 0, info.size
        if self._operation.ranges and self._operation.body:
            part = range_of(self._replier.request, info)
            if part is not None:
                status, (first, length) = 206, part
                last = first + length - 1
                part_of = f"bytes {first}-{last}/{info.size}"
                fields = [*fields, ("Content-Range", part_of)]
        source = ValueSource(value, first, length)
        if 0 < length <= CHUNK_BYTES and self._operation.body:
            self._send_whole(status, fields, source)
        else:
            self._replier.stream(status, fields, length, source)

    def _send_whole(self, status: int, fields: Fields, source: ValueSource) -> None:
        def complete(body: bytes) -> None:
            if source.remaining:
                # The store gave less than was asked; the rest takes its turns.
                self._replier.stream(
                    status, fields, len(body) + source.remaining, Rest(body, source)
                )
                return
            source.close()
            self._replier.reply(status, fields, body)

        self._replier.when(source.next_chunk(), complete)


_FIELDS: Final[Kept[ValueInfo, Fields]] = Kept(512)


def fields_of(info: ValueInfo) -> Fields:
    """
    What is said of a value, but for the length of what is sent of it.
    """
    if is_ahead(info):
        return _described(info)
    # Small values that are read again come with the same information.
    return _FIELDS.find(info) or _FIELDS.keep(info, _described(info))


def is_ahead(info: ValueInfo) -> bool:
    """
    Whether a value has a date that is still to come: the clock was set back, or
    somebody has given the file its date.
    """
    return info.changed > time.time()


def _validators(info: ValueInfo) -> Fields:
    # Never later than the reply's own date (RFC 9110 section 8.8.2.1).
    return [
        ("ETag", f'"{info.etag}"'),
        ("Last-Modified", http_date(min(info.changed, time.time()))),
    ]


def _unchanged(info: ValueInfo) -> Fields:
    """
    What a 304 says: of what came with the value, all that is about keeping it (RFC 9110
    section 15.4.5).
    """
    kept = [(name, info.metadata.get(name)) for name in ("cache-control", "expires")]
    told = [(name.title(), value) for name, value in kept if value]
    return [*_validators(info), *told]


def _described(info: ValueInfo) -> Fields:
    fields = [*_validators(info), ("Accept-Ranges", "bytes"), NO_SNIFFING]
    # An older kvd kept fields without a value.
    fields += [(name.title(), value) for name, value in info.metadata.items() if value]
    if not info.metadata.get("content-type"):
        fields.append(DEFAULT_TYPE)
    return fields


class ValueSource(Source):
    """
    The bytes of a value from an offset on.
    """

    def __init__(self, value: IValue, first: int, length: int) -> None:
        self._value = value
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
        if not chunk:
            raise StoreFault("the value ended before its length")
        self.sent(len(chunk))
        return chunk

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        descriptor = self._value.fileno()
        if descriptor is None or not self.remaining:
            return None
        return FilePart(descriptor, self._offset, self.remaining)

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
