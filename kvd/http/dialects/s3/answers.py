"""
What S3 does with several values at once.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from kvd.errors import BadRequest, Fault, KeyAbsent, PeerError
from kvd.http.dialects.paths import key_of
from kvd.http.dialects.s3.documents import (
    code_of,
    document,
    element,
    elements,
    moment,
    read,
    refusal,
)
from kvd.http.dialects.s3.names import Bucket, is_hidden, own_tag, tag_of
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.exchanges import Values
from kvd.model.keys import Key
from kvd.model.replies import Reply
from kvd.model.reserved import COLLECTION
from kvd.model.values import Metadata

MAX_DELETED: Final = 1000
"""
Keys in one request.
"""


async def copy(
    values: Values,
    body: bytes,
    source: Key,
    target: Key,
    conditions: Conditions,
    of_source: Conditions,
    metadata: Metadata | None,
) -> Reply:
    """
    Copy an object.

    Args:
        values: What the sender may use.
        body: Of the request; has no meaning.
        source: The key of its value.
        target: The key of the copy's.
        conditions: Of the target.
        of_source: Of the source.
        metadata: Of the copy; None: that of the source.
    """
    copied = await values.copy(source, target, conditions, metadata, of_source)
    published = copied.info
    return document(
        "CopyObjectResult",
        element("LastModified", moment(published.changed)),
        element("ETag", tag_of(published.etag)),
    )


async def copy_part(
    values: Values,
    body: bytes,
    bucket: Bucket,
    key: Key,
    upload: str,
    number: int,
    source: Key,
    of_source: Conditions,
    part: tuple[int, int] | None,
) -> Reply:
    """
    Copy an object, or some of its bytes, as a part of another one.
    """
    copied = await values.copy_part(
        bucket.prefix, key, upload, number, source, part, of_source
    )
    return document(
        "CopyPartResult",
        element("LastModified", moment(copied.changed)),
        element("ETag", tag_of(copied.etag)),
    )


async def delete_objects(values: Values, body: bytes, bucket: Bucket) -> Reply:
    """
    Remove several objects; each is told, also where it was not there.
    """
    root = read(body, "Delete")
    objects = root.findall("Object")
    if not 0 < len(objects) <= MAX_DELETED:
        raise BadRequest(f"A document Delete has 1 to {MAX_DELETED} elements Object.")
    is_quiet = (root.findtext("Quiet") or "").strip().lower() == "true"
    told = []
    for each in objects:
        text = each.findtext("Key") or ""
        etag = each.findtext("ETag")
        conditions = UNCONDITIONAL
        if etag and etag != "*":
            own = EntityTags(frozenset((own_tag(etag),)))
            conditions = Conditions(if_match=own)
        try:
            await values.remove(bucket.object(text), conditions)
        except KeyAbsent:
            pass
        except (PeerError, Fault) as error:
            wrong = (
                ("Key", text),
                ("Code", code_of(error)),
                ("Message", error.sentence),
            )
            told.append(elements("Error", wrong))
            continue
        if not is_quiet:
            told.append(elements("Deleted", (("Key", text),)))
    return document("DeleteResult", *told)


async def create_bucket(values: Values, body: bytes, bucket: Bucket) -> Reply:
    """
    Make a bucket that is listed while it is empty.
    """
    marker = key_of(bucket.prefix, [COLLECTION])
    if await values.stat(marker) is None:
        await values.write(marker, b"")
    return Reply(200, [("Location", f"/{bucket.name.decode('latin-1')}")])


async def delete_bucket(values: Values, body: bytes, bucket: Bucket) -> Reply:
    """
    Remove a bucket in which nothing is.
    """
    marker = key_of(bucket.prefix, [COLLECTION])
    async with aclosing(values.list(bucket.prefix)) as walked:
        async for infos in walked:
            for info in infos:
                if info.key != marker and not is_hidden(info.key):
                    return refusal(
                        409, "BucketNotEmpty", "The bucket has objects: remove them."
                    )
    try:
        await values.remove(marker)
    except KeyAbsent:
        return Reply(204)
    return Reply(204)


async def there(values: Values, body: bytes) -> Reply:
    """
    A bucket, whichever, is there.
    """
    return Reply(200, [("x-amz-bucket-region", "us-east-1")])


async def location(values: Values, body: bytes) -> Reply:
    """
    Where a bucket is: nowhere in particular.
    """
    return document("LocationConstraint")


async def versioning(values: Values, body: bytes) -> Reply:
    """
    There are no versions.
    """
    return document("VersioningConfiguration")
