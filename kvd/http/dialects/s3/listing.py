"""
Listings of buckets, and of the objects in one.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from kvd.errors import BadRequest, OperationUnsupported
from kvd.http.dialects.s3.documents import (
    document,
    element,
    elements,
    key_text,
    moment,
)
from kvd.http.dialects.s3.names import Bucket, is_hidden, tag_of
from kvd.model.exchanges import Values
from kvd.model.replies import Reply
from kvd.model.values import Entry, Folder, entry_key

MAX_KEYS: Final = 1000

MAX_BUCKETS: Final = 10_000
"""
More are not told.
"""

_HIGHEST: Final = b"\xff"
_OWNER: Final = elements("Owner", (("ID", "kvd"), ("DisplayName", "kvd")))


@dataclass(frozen=True, slots=True)
class Page:
    """
    Which objects of a bucket are asked for.
    """

    prefix: bytes
    by_folder: bool
    """Whether what is in folders is told as the folders only."""
    after: bytes
    """The key of kvd after which it begins; empty: the first one."""
    most: int
    is_url: bool
    """Whether keys are percent-encoded."""
    version: int
    said: Mapping[str, str]
    """What is repeated in the reply."""


def page_of(bucket: Bucket, query: Mapping[str, bytes]) -> Page:
    """
    The page that a query asks for.

    Raises:
        BadRequest: A parameter has a value that it cannot have.
        OperationUnsupported: The delimiter is not a slash.
    """
    given = {name: unquote_to_bytes(text) for name, text in query.items()}
    version = 2 if given.get("list-type") == b"2" else 1
    delimiter = given.get("delimiter", b"")
    if delimiter not in (b"", b"/"):
        raise OperationUnsupported("The delimiter has to be a slash, or none.")
    most = given.get("max-keys", b"") or str(MAX_KEYS).encode()
    if not most.isdigit() or len(most) > 9:
        raise BadRequest("max-keys has to be a number.")
    is_url = given.get("encoding-type") == b"url"
    token = given.get("continuation-token", b"")
    start = given.get("start-after" if version == 2 else "marker", b"")
    after = bucket.prefix + start if start else b""
    if token and version == 2:
        try:
            after = urlsafe_b64decode(token)
        except binascii.Error as error:
            raise BadRequest("The continuation token is not one of kvd's.") from error
        if not after.startswith(bucket.prefix):
            raise BadRequest("The continuation token is that of another bucket.")
    names = (
        ("ContinuationToken", "continuation-token"),
        ("StartAfter", "start-after"),
        ("Marker", "marker"),
        ("Delimiter", "delimiter"),
    )
    return Page(
        given.get("prefix", b""),
        bool(delimiter),
        after,
        min(int(most), MAX_KEYS),
        is_url,
        version,
        {
            element_name: key_text(given[name], is_url=is_url)
            for element_name, name in names
            if name in given
        },
    )


def listed_folder(bucket: Bucket, page: Page) -> bytes:
    """
    The folder in which all objects of a page are.
    """
    return bucket.prefix + page.prefix[: page.prefix.rfind(b"/") + 1]


async def list_objects(
    values: Values, body: bytes, bucket: Bucket, page: Page
) -> Reply:
    """
    The objects of a page.
    """
    found: list[Entry] = []
    is_truncated = False
    if page.most:
        async with aclosing(_entries(values, bucket, page)) as entries:
            async for entry in entries:
                if len(found) == page.most:
                    is_truncated = True
                    break
                found.append(entry)
    objects, folders = [], []
    for entry in found:
        shown = key_text(bucket.shown(entry_key(entry)), is_url=page.is_url)
        if isinstance(entry, Folder):
            folders.append(elements("CommonPrefixes", (("Prefix", shown),)))
            continue
        described = (
            ("Key", shown),
            ("LastModified", moment(entry.changed)),
            ("ETag", tag_of(entry.etag)),
            ("Size", entry.size),
            ("StorageClass", "STANDARD"),
        )
        objects.append(elements("Contents", described))
    said = [
        element("Name", key_text(bucket.name, is_url=False)),
        element("Prefix", key_text(page.prefix, is_url=page.is_url)),
        element("MaxKeys", page.most),
        element("IsTruncated", str(is_truncated).lower()),
        *(element(name, text) for name, text in page.said.items()),
    ]
    if page.is_url:
        said.append(element("EncodingType", "url"))
    if page.version == 2:
        said.append(element("KeyCount", len(found)))
    if is_truncated:
        last = entry_key(found[-1])
        if page.version == 2:
            token = urlsafe_b64encode(last).decode("ascii")
            said.append(element("NextContinuationToken", token))
        else:
            # Not as it is shown: of a marker, that would be before its key.
            marker = last[len(bucket.prefix) :]
            shown = key_text(marker, is_url=page.is_url)
            said.append(element("NextMarker", shown))
    return document("ListBucketResult", *said, *objects, *folders)


async def _entries(
    values: Values, bucket: Bucket, page: Page
) -> AsyncGenerator[Entry, None]:
    """
    The objects and folders behind the beginning of a page.
    """
    folder, begin = listed_folder(bucket, page), bucket.prefix + page.prefix
    after = max(page.after, _just_before(begin, folder))
    walk = values.folder if page.by_folder else values.list
    while True:
        entries = [
            entry
            async for entries in walk(folder, after, page.most + 1)
            for entry in entries
        ]
        for entry in entries:
            after = entry_key(entry)
            if not after.startswith(begin):
                if after > begin:
                    return
                continue
            if is_hidden(after) or not bucket.shown(after):
                continue
            yield entry
        if len(entries) <= page.most:
            return


def _just_before(begin: bytes, folder: bytes) -> bytes:
    """
    A text that is less than all that begin with another one, and not much less.
    """
    if begin == folder:
        return b""
    return begin[:-1] + bytes([max(begin[-1] - 1, 0)]) + _HIGHEST


async def list_buckets(values: Values, body: bytes, prefix: bytes) -> Reply:
    """
    The folders at the top.
    """
    described: list[str] = []
    async with aclosing(values.folder(prefix)) as walked:
        async for entries in walked:
            for entry in entries:
                if isinstance(entry, Folder) and len(described) < MAX_BUCKETS:
                    name = key_text(entry.prefix[len(prefix) : -1], is_url=False)
                    made = ("CreationDate", moment(0))
                    described.append(elements("Bucket", (("Name", name), made)))
    buckets = "".join(sorted(described))
    return document("ListAllMyBucketsResult", _OWNER, f"<Buckets>{buckets}</Buckets>")
