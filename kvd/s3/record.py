"""
What kvd keeps with each object, in its ``x-amz-meta-kvd-…`` fields.

- ``etag``: the unique id of the write. The engine's own tag is a digest of the bytes,
  which two writes can share.
- ``changed``: the time of publication, in seconds since the epoch. An object that is
  sent ahead, before anybody knows when it will be published, has ``begun`` instead; it
  was changed then or when the engine says, whichever is later.
- ``metadata``: the metadata of the value, as lines of text in base64.
- ``sha256``: the digest of the bytes, if they were known before they were sent.

Objects that others have placed have none of these; their entity tag is the engine's
with the time of their change.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata, ValueInfo
from kvd.s3.requests import Reply
from kvd.store.attribute import MalformedAttribute, decode_metadata, encode_metadata

_PREFIX: Final = "x-amz-meta-kvd-"
ETAG_FIELD: Final = f"{_PREFIX}etag"
_ETAG: Final = re.compile(r"[0-9a-f]{32}")
_TIME: Final = re.compile(r"[0-9]{1,12}\.[0-9]{6}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TYPE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


FIELD_BYTES: Final = 252
"""
How much of the metadata is in one field: Swift takes 256 bytes, if it is not told
otherwise.
"""


def _metadata_field(number: int) -> str:
    return f"{_PREFIX}metadata" + (f"-{number + 1}" if number else "")


@dataclass(frozen=True, slots=True)
class Stored:
    """
    An object that has a value.
    """

    info: ValueInfo
    engine_tag: str
    """The engine's entity tag, with its quotes: for ``If-Match``."""
    sha256: str | None
    """None: unknown."""


def fields_of(
    etag: str,
    metadata: Metadata,
    *,
    changed: float | None = None,
    begun: float | None = None,
    sha256: str | None = None,
) -> dict[str, str]:
    """
    The fields that an object is stored with.

    Args:
        etag: The id of this write.
        metadata: That of the value.
        changed: When it is published; or
        begun: when it was begun.
        sha256: The digest of the bytes.
    """
    fields = {ETAG_FIELD: etag}
    if changed is not None:
        fields[f"{_PREFIX}changed"] = f"{changed:.6f}"
    if begun is not None:
        fields[f"{_PREFIX}begun"] = f"{begun:.6f}"
    if sha256 is not None:
        fields[f"{_PREFIX}sha256"] = sha256
    if metadata:
        text = b64encode(encode_metadata(metadata)).decode("ascii")
        for number, at in enumerate(range(0, len(text), FIELD_BYTES)):
            fields[_metadata_field(number)] = text[at : at + FIELD_BYTES]
    # For whoever else reads the bucket.
    kind = metadata.get("content-type", "")
    if _TYPE.fullmatch(kind):
        fields["content-type"] = kind
    else:
        fields["content-type"] = "application/octet-stream"
    return fields


def describe(key: Key, reply: Reply, size: int) -> Stored:
    """
    Describe the object that an engine answers about.

    Args:
        key: Its key.
        reply: The reply to a GET or HEAD of it.
        size: Its size in bytes.
    """
    tag = reply.field("ETag")
    etag = reply.field(ETAG_FIELD)
    changed = reply.field(f"{_PREFIX}changed")
    begun = reply.field(f"{_PREFIX}begun")
    if not _ETAG.fullmatch(etag) or not _TIME.fullmatch(changed or begun):
        seconds = _last_modified(reply)
        foreign = f"{tag.strip(chr(34))}-{int(seconds):x}"
        kind = reply.field("Content-Type")
        metadata = {"content-type": kind} if kind else NO_METADATA
        return Stored(ValueInfo(key, size, foreign, seconds, metadata), tag, None)
    when = float(changed) if changed else published_at(reply, float(begun))
    sha256 = reply.field(f"{_PREFIX}sha256")
    info = ValueInfo(key, size, etag, when, _metadata_of(reply))
    return Stored(info, tag, sha256 if _SHA256.fullmatch(sha256) else None)


def published_at(reply: Reply, begun: float) -> float:
    """
    When an object was changed that was sent ahead.

    Args:
        reply: Says when by the engine's clock.
        begun: When it was begun.
    """
    return max(_last_modified(reply), begun)


def _last_modified(reply: Reply) -> float:
    try:
        return parsedate_to_datetime(reply.field("Last-Modified")).timestamp()
    except ValueError:
        return 0.0


def _metadata_of(reply: Reply) -> Mapping[str, str]:
    text, number = "", 0
    while piece := reply.field(_metadata_field(number)):
        text += piece
        number += 1
    try:
        return decode_metadata(b64decode(text, validate=True))
    except (binascii.Error, MalformedAttribute):
        return NO_METADATA
