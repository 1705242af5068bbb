"""
GET and HEAD of a prefix: a listing of keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from twisted.internet.defer import Deferred

from kvd.http.context import ProcessContext
from kvd.http.reply_fields import Fields
from kvd.http.request import RequestHandler
from kvd.http.source import Rest, Source
from kvd.http.wire.accept import prefers
from kvd.http.wire.replies import NO_SNIFFING
from kvd.interfaces import Answer, IListing
from kvd.model.keys import escape
from kvd.model.operations import List
from kvd.model.requests import Request
from kvd.model.values import ValueInfo

_TYPE: Final = "application/x-ndjson"
_FIELDS: Final = [("Content-Type", _TYPE), NO_SNIFFING]

_EPOCH: Final = datetime(1970, 1, 1)  # In UTC; without a zone, it is faster.
_quoted: Final = json.JSONEncoder().encode


def wants_page(context: ProcessContext, request: Request) -> bool:
    """
    Whether a listing is to be a page for a browser (`kvd.http.methods.browsing`).
    """
    accept = request.fields.get(b"accept")
    return context.has_pages and prefers(accept, b"text/html", _TYPE.encode())


class ListHandler(RequestHandler):
    """
    Sends a listing: a stream of all keys, or a page of them.
    """

    _operation: List
    _listing: IListing | None = None

    def begin(self) -> None:
        self._fields: Fields = [*_FIELDS]
        if self._context.has_pages:
            self._fields.append(("Vary", "Accept"))
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        listing = self._listing = self._context.store.list(
            operation.prefix, operation.after, operation.limit
        )
        if not operation.body:
            self.stream(200, self._fields, None, ListingSource(listing))
            return
        # The reply begins only after the first slice: if the walk fails at its start,
        # the reply is a 500 and not an incomplete listing.
        self.want(listing.next_slice(), lambda values: self._begun(listing, values))

    def abandon(self) -> None:
        if self._listing is not None:
            self._listing.close()

    def _begun(self, listing: IListing, values: Sequence[ValueInfo]) -> None:
        lines = listing_lines(values)
        if self._operation.limit is None and values:
            self.stream(200, self._fields, None, Rest(lines, ListingSource(listing)))
            return
        listing.close()
        fields = self._fields
        if len(values) == self._operation.limit:
            fields.append(("Link", self._next_page(values[-1].key)))
        self.reply(200, fields, lines)

    def _next_page(self, last: bytes) -> str:
        # RFC 8288. A page that is not full is the last one.
        prefix = escape(self._operation.prefix)
        after = escape(last)
        return f'</{prefix}?limit={self._operation.limit}&after={after}>; rel="next"'


def listing_lines(values: Sequence[ValueInfo]) -> bytes:
    """
    JSON lines of values: key (percent-encoded), size in bytes, etag as in the field,
    and the time of the last change (RFC 3339).
    """
    return "".join(map(_line, values)).encode("ascii")


def _line(info: ValueInfo) -> str:
    # The reactor's thread makes up to a thousand of these at once, and `json.dumps` of
    # a dictionary takes twice as long. A percent-encoded key needs no quoting.
    changed = _EPOCH + timedelta(seconds=info.changed)
    etag = _quoted(f'"{info.etag}"')
    return (
        f'{{"key": "{escape(info.key)}", "size": {info.size}, "etag": {etag},'
        f' "changed": "{changed.isoformat(timespec="milliseconds")}Z"}}\n'
    )


class ListingSource(Source):
    """
    The lines of a listing, slice by slice.
    """

    def __init__(self, listing: IListing) -> None:
        self._listing = listing

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        values = self._listing.next_slice()
        if isinstance(values, Deferred):
            return values.addCallback(listing_lines)
        return listing_lines(values)

    def close(self) -> None:
        """
        See `Source`.
        """
        self._listing.close()
