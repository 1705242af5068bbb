"""
Objects that are uploaded in parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kvd.errors import PreconditionFailed, UploadAbsent, ValueFixed
from kvd.http.dialects.s3.checksums import WholeChecksums
from kvd.http.dialects.s3.documents import (
    document,
    element,
    elements,
    key_text,
    moment,
    read,
    refusal,
)
from kvd.http.dialects.s3.names import Bucket, own_tag, tag_of
from kvd.model.conditions import Conditions
from kvd.model.exchanges import Values
from kvd.model.keys import Key
from kvd.model.replies import Reply
from kvd.model.uploads import PartInfo
from kvd.model.values import Metadata, ValueInfo

LEAST_PART_BYTES: Final = 5 * 1024 * 1024
"""
Of each part but the last one, as S3 has it.
"""

MOST_PARTS: Final = 10_000

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}")


async def begin(
    values: Values, body: bytes, bucket: Bucket, key: Key, metadata: Metadata
) -> Reply:
    """
    Begin an object.
    """
    upload = await values.begin_parts(bucket.prefix, key, metadata)
    return document("InitiateMultipartUploadResult", *_named(bucket, key), _id(upload))


def _named(bucket: Bucket, key: Key) -> tuple[str, str]:
    return (
        element("Bucket", key_text(bucket.name, is_url=False)),
        element("Key", key_text(bucket.shown(key), is_url=False)),
    )


def _id(upload: str) -> str:
    return element("UploadId", upload)


async def list_parts(
    values: Values,
    body: bytes,
    bucket: Bucket,
    key: Key,
    upload: str,
    after: int,
    most: int,
) -> Reply:
    """
    The parts that have come, from the one after a number.
    """
    parts = await values.parts_of(bucket.prefix, key, upload)
    parts = [part for part in parts if part.number > after]
    shown = parts[:most]
    described = [
        elements(
            "Part",
            (
                ("PartNumber", part.number),
                ("LastModified", moment(part.changed)),
                ("ETag", tag_of(part.etag)),
                ("Size", part.size),
            ),
        )
        for part in shown
    ]
    last = shown[-1].number if shown else after
    said = (
        ("PartNumberMarker", after),
        ("NextPartNumberMarker", last),
        ("MaxParts", most),
        ("IsTruncated", str(len(shown) < len(parts)).lower()),
        ("StorageClass", "STANDARD"),
    )
    return document(
        "ListPartsResult",
        *_named(bucket, key),
        _id(upload),
        *(element(name, text) for name, text in said),
        *described,
    )


async def complete(
    values: Values,
    body: bytes,
    bucket: Bucket,
    key: Key,
    upload: str,
    conditions: Conditions,
    checksums: WholeChecksums,
) -> Reply:
    """
    Publish the object; or say again that it was, to a client that lost the reply, or
    did not wait for it.
    """
    named = _parts_in(body)
    if isinstance(named, Reply):
        return named
    try:
        stored = await values.parts_of(bucket.prefix, key, upload)
        chosen = _chosen(named, {part.number: part for part in stored})
        if isinstance(chosen, Reply):
            info = await values.joined(bucket.prefix, key, upload, named)
            return chosen if info is None else _completed(bucket, key, info)
        checksums.check(chosen)
        published = await values.join_parts(
            bucket.prefix, key, upload, chosen, conditions, checksums.digests
        )
    except (PreconditionFailed, UploadAbsent, ValueFixed):
        # Of the upload, some may be there until all of it is removed.
        info = await values.joined(bucket.prefix, key, upload, named)
        if info is None:
            raise
        return _completed(bucket, key, info)
    return _completed(bucket, key, published.info)


def _completed(bucket: Bucket, key: Key, info: ValueInfo) -> Reply:
    tag = element("ETag", tag_of(info.etag))
    return document("CompleteMultipartUploadResult", *_named(bucket, key), tag)


def _parts_in(body: bytes) -> Sequence[tuple[int, str]] | Reply:
    """
    The numbers and the entity tags of the parts that a client names; or what is wrong
    with them.
    """
    named = read(body, "CompleteMultipartUpload").findall("Part")
    if not 0 < len(named) <= MOST_PARTS:
        return refusal(
            400,
            "MalformedXML",
            f"An object has 1 to {MOST_PARTS} parts, not {len(named)}.",
        )
    found: list[tuple[int, str]] = []
    for each in named:
        text = (each.findtext("PartNumber") or "").strip()
        number = int(text) if _NUMBER.fullmatch(text) else 0
        found.append((number, own_tag(each.findtext("ETag") or "")))
    return found


def _chosen(
    named: Sequence[tuple[int, str]], stored: dict[int, PartInfo]
) -> Sequence[PartInfo] | Reply:
    """
    The parts that a client names; or what is wrong with them.
    """
    chosen: list[PartInfo] = []
    for number, etag in named:
        if chosen and number <= chosen[-1].number:
            return refusal(
                400, "InvalidPartOrder", "The parts have to be in ascending order."
            )
        part = stored.get(number)
        if part is None or etag != part.etag:
            return refusal(
                400,
                "InvalidPart",
                f"There is no part {number} with this entity tag: upload it again.",
            )
        chosen.append(part)
    small = [part for part in chosen[:-1] if part.size < LEAST_PART_BYTES]
    if small:
        return refusal(
            400,
            "EntityTooSmall",
            f"The part {small[0].number} has {small[0].size} bytes; each but the last"
            f" one has at least {LEAST_PART_BYTES}.",
        )
    return chosen


async def abort(
    values: Values, body: bytes, bucket: Bucket, key: Key, upload: str
) -> Reply:
    """
    Remove what has come.
    """
    await values.drop_parts(bucket.prefix, key, upload)
    return Reply(204)


async def list_uploads(
    values: Values, body: bytes, bucket: Bucket, prefix: bytes
) -> Reply:
    """
    The objects that are not completed.
    """
    described = []
    for key, upload, began in await values.uploads(bucket.prefix):
        shown = bucket.shown(key)
        if shown.startswith(prefix):
            said = (
                ("Key", key_text(shown, is_url=False)),
                ("UploadId", upload),
                ("Initiated", moment(began)),
                ("StorageClass", "STANDARD"),
            )
            described.append(elements("Upload", said))
    return document(
        "ListMultipartUploadsResult",
        element("Bucket", key_text(bucket.name, is_url=False)),
        element("Prefix", key_text(prefix, is_url=False)),
        element("IsTruncated", "false"),
        *described,
    )
