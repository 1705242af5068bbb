"""
GET and HEAD of a key.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from kvd.errors import KeyAbsent
from kvd.http.fast_path import Remainder
from kvd.http.methods.listing import wants_page
from kvd.http.parts import Parts, can_be_cut, gap_of
from kvd.http.reply_fields import (
    Fields,
    cache_field,
    fields_of,
    part_fields,
    unchanged_fields,
)
from kvd.http.request import RequestHandler
from kvd.http.source import Rest, Source
from kvd.http.value_source import CHUNK_BYTES, ValueSource, checked
from kvd.http.wire.fields import Range, ranges_of
from kvd.interfaces import ICachedValue, ICachingStore, IValue
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.operations import Get
from kvd.store.level import has_values
from kvd.store.waiting import resolved


class GetHandler(RequestHandler):
    """
    Sends a value, a part of it, or only its description.
    """

    _operation: Get
    _value: IValue | None = None
    _redirects_to_folder = False

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        whole = (
            operation.body
            and operation.conditions is UNCONDITIONAL
            and b"range" not in self._request.fields
        )
        self.want(
            self._context.store.open(operation.key, whole), self._opened, undo=_close
        )

    def abandon(self) -> None:
        value, self._value = self._value, None
        if value is not None:
            value.close()

    def fail(self, error: BaseException) -> None:
        if (
            isinstance(error, KeyAbsent)
            and not self._redirects_to_folder
            and not self._status
            and wants_page(self._context, self._request)
        ):
            self._redirects_to_folder = True
            # A value that was removed before it was read is still open.
            self.abandon()
            # It would know this frame, and the frame it.
            self._redirect_to_folder(error.with_traceback(None))
        else:
            super().fail(error)

    def _redirect_to_folder(self, absence: KeyAbsent) -> None:
        """
        There is no value: send a browser to the page of the folder, if there is one.
        """
        # Not at the top: only where it is needed.
        from kvd.http.methods.folder_path import fields_to_page, prefix_of_page

        context, request = self._context, self._request
        permitted = self._admission.permitted
        prefix = prefix_of_page(context, permitted, request, self._operation.key)
        if prefix is None:
            self.fail(absence)
            return

        async def look() -> bool:
            return await resolved(has_values(context.store, prefix))

        def found(is_folder: bool) -> None:
            if is_folder:
                self.reply(307, fields_to_page(request, prefix))
            else:
                self.fail(absence)

        self.want(Deferred.fromCoroutine(look()), found)

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
        ranges = None
        if operation.ranges and operation.body:
            ranges = ranges_of(self._request, info, gap_of(value))
        if ranges is None or (len(ranges) > 1 and not can_be_cut(info)):
            status, first, length = 200, 0, info.size
            fields = fields_of(info, context.guess_type)
        elif len(ranges) == 1:
            status, ((first, length),) = 206, ranges
            fields = part_fields(info, first, length, context.guess_type)
        else:
            self._send_parts(value, ranges)
            return
        fields += _cache_fields(value)
        if 0 < length <= CHUNK_BYTES and operation.body:
            self._send_whole(status, fields, value, first, length)
        else:
            self.stream(status, fields, length, ValueSource(value, first, length))

    def _send_parts(self, value: IValue, ranges: Sequence[Range]) -> None:
        parts = Parts(value, ranges, self._context.guess_type)
        fields = [*parts.fields, *_cache_fields(value)]
        self.stream(206, fields, parts.length, parts)

    def _send_whole(
        self, status: int, fields: Fields, value: IValue, first: int, length: int
    ) -> None:
        def complete(body: bytes) -> None:
            count = len(checked(body))
            if count < length:
                # The store gave less than it was asked for.
                rest = ValueSource(value, first + count, length - count)
                self.stream(status, fields, length, Rest(body, rest))
                return
            value.close()
            self.reply(status, fields, body)

        self.want(value.read(first, length), complete)


def _cache_fields(value: IValue) -> Fields:
    if not ICachedValue.providedBy(value):
        return []
    return [cache_field(ICachedValue(value).cache_status)]


def _close(value: IValue) -> None:
    value.close()
