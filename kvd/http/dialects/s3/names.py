"""
Buckets and keys of objects, as keys of kvd; and entity tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kvd.errors import BadRequest
from kvd.http.dialects.paths import key_of
from kvd.http.wire.fields import conditions_of
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.keys import Key
from kvd.model.requests import Request
from kvd.model.reserved import COLLECTION, LOCKS, MULTIPART

# WebDAV may speak below a bucket, or beside it for the same keys.
_RESERVED: Final = (MULTIPART, COLLECTION, LOCKS)

TAG_END: Final = "-1"

_TAGS: Final = (b"if-match", b"if-none-match")
_BARE: Final = re.compile(rb"[^\s\",*]+")


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    A folder of objects.
    """

    prefix: bytes
    """Of its keys, with the slash."""

    @property
    def name(self) -> bytes:
        """
        Without the prefix of the dialect.
        """
        return self.prefix[:-1].rpartition(b"/")[2]

    def key(self, segments: Sequence[bytes]) -> Key:
        """
        The key of an object.

        Args:
            segments: Of the object's key; the last one is empty if it ends with a
                slash.

        Raises:
            BadRequest: They are none of a key, or are reserved.
            TargetTooLong: They are too long for one.
        """
        for name in _RESERVED:
            if name in segments:
                raise BadRequest(
                    f"{name.decode()} is reserved for kvd: choose another key."
                )
        if not segments[-1]:
            segments = [*segments[:-1], COLLECTION]
        return key_of(self.prefix, segments)

    def object(self, text: str) -> Key:
        """
        The key of an object whose key is text; raises what `key` raises.
        """
        if not text:
            raise BadRequest("The key of an object cannot be empty.")
        return self.key(text.encode("utf-8").split(b"/"))

    def shown(self, key: bytes) -> bytes:
        """
        The key of an object, from its value's or from the prefix of a folder.
        """
        inner = key[len(self.prefix) :]
        return inner[: -len(COLLECTION)] if is_marker(key) else inner


def bucket_of(prefix: bytes, name: bytes) -> Bucket:
    """
    A bucket by its name.

    Raises:
        BadRequest: None can have it.
    """
    return Bucket(key_of(prefix, [name]) + b"/")


def is_marker(key: bytes) -> bool:
    """
    Whether a value is an object whose key ends with a slash.
    """
    return key.endswith(b"/" + COLLECTION)


def is_hidden(key: bytes) -> bool:
    """
    Whether a value, or a folder, is no object: a part of an upload, or the record of
    WebDAV's locks.
    """
    return b"/" + MULTIPART + b"/" in key or key.endswith(b"/" + LOCKS)


def tag_of(etag: str) -> str:
    """
    An entity tag, as clients see it.
    """
    return f'"{etag}{TAG_END}"'


def own_tag(text: str) -> str:
    """
    The entity tag of a value, from what a client has seen.
    """
    return text.strip().strip('"').removesuffix(TAG_END)


def object_conditions(request: Request) -> Conditions:
    """
    The conditions of a request. S3 allows entity tags without quotes.

    Raises:
        BadRequest: An entity tag is malformed.
    """
    fields = request.fields
    bare = {
        name: b'"' + fields[name] + b'"'
        for name in _TAGS
        if _BARE.fullmatch(fields.get(name, b""))
    }
    if bare:
        request = replace(request, fields={**fields, **bare})
    found = conditions_of(request)
    if found is UNCONDITIONAL:
        return found
    return replace(
        found,
        if_match=_own_tags(found.if_match),
        if_none_match=_own_tags(found.if_none_match),
    )


def _own_tags(tags: EntityTags | None) -> EntityTags | None:
    if tags is None:
        return None
    own = frozenset(map(own_tag, tags.strong))
    return replace(tags, strong=own, weak=frozenset(map(own_tag, tags.weak)))
