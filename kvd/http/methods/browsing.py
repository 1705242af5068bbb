"""
GET and HEAD of a prefix by a browser: a page of one folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from kvd.errors import AccessRefused, Unauthorized
from kvd.http.browser.page import PAGE_POLICY, Visitor, page_of
from kvd.http.reply_fields import Fields
from kvd.http.request import RequestHandler
from kvd.http.wire.fields import conditions_of
from kvd.http.wire.replies import NO_SNIFFING
from kvd.interfaces import IFolderListing
from kvd.model.keys import Key, escape
from kvd.model.operations import Delete, List, Put
from kvd.model.values import Entry, Folder, ValueInfo
from kvd.store.level import list_folder
from kvd.store.waiting import resolved

T = TypeVar("T")

PAGE_ENTRIES: Final = 500
"""
How many entries a page has, unless ``limit`` says another number.
"""

_FIELDS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", PAGE_POLICY),
    ("Referrer-Policy", "same-origin"),
    NO_SNIFFING,
)


class BrowseHandler(RequestHandler):
    """
    Sends a page that shows a folder.
    """

    _operation: List
    _listing: IFolderListing | None = None

    def begin(self) -> None:
        self.proceed()

    def end(self) -> None:
        operation = self._operation
        limit = operation.limit or PAGE_ENTRIES
        # One more tells whether there are more.
        self._listing = listing = list_folder(
            self._context.store, operation.prefix, operation.after, limit + 1
        )

        async def entries() -> Sequence[Entry]:
            found: list[Entry] = []
            while some := await resolved(listing.next_slice()):
                found += some
            return found

        self.want(Deferred.fromCoroutine(entries()), self._found)

    def abandon(self) -> None:
        if self._listing is not None:
            self._listing.close()

    def _found(self, entries: Sequence[Entry]) -> None:
        assert self._listing is not None
        self._listing.close()
        operation = self._operation
        prefix, limit = operation.prefix, operation.limit or PAGE_ENTRIES
        following = None
        if len(entries) > limit:
            entries = entries[:limit]
            last = entries[-1]
            after = escape(last.prefix if isinstance(last, Folder) else last.key)
            following = f"?limit={limit}&after={after}"
        elif not operation.after:
            # People look for folders first. Pages have to be in the order of names.
            entries = sorted(entries, key=lambda entry: not isinstance(entry, Folder))
        body = page_of(prefix, entries, self._visitor(prefix), following)
        etag = sha256(body).hexdigest()[:32]
        fields: Fields = [
            ("ETag", f'"{etag}"'),
            ("Cache-Control", "private, no-cache"),
            ("Vary", "Accept"),
        ]
        now = time.time()
        described = ValueInfo(Key(b""), len(body), etag, now)
        if conditions_of(self._request).is_unchanged(described):
            self.reply(304, fields)
            return
        if following is not None:
            fields.append(("Link", f'</{escape(prefix)}{following}>; rel="next"'))
        self.reply(200, [*fields, *_FIELDS], body)

    def _visitor(self, prefix: bytes) -> Visitor:
        # A name as below a content-addressed prefix.
        key = Key(prefix + b"0" * 64)
        put = self._may_become(Put(key))
        return Visitor(
            self._admission.user,
            may_write=put is not None,
            may_delete=self._may_become(Delete(key)) is not None,
            writes_once=put is not None and put.once,
            is_content_addressed=put is not None and bool(put.digests),
        )

    def _may_become(self, operation: T) -> T | None:
        """
        An operation as its rules make it; None if whoever asks may not do it. A client
        without credentials may have them, and the browser asks for these then.
        """
        try:
            permitted: T = self._admission.permitted(operation)
        except Unauthorized:
            return operation
        except AccessRefused:
            return None
        return permitted
