"""
The extended attribute that makes a file a value.

A file and its name say when and how long, but neither who wrote it (inodes are
reused and time stamps repeat, so no unique id can be made of them) nor how
long it should be. One attribute holds all of that: it is set before the file
gets its name, so value and metadata appear together, and a file that a power
cut left shorter than it was is known by the length that does not match.

It is text, for whoever looks with ``getfattr -n user.kvd``:

    1 6f1cdd0b22a04a3f8a1f6a54ac0f3a1e 4096
    content-type: text/plain

that is the version of this format, the unique id and the length in bytes,
then one line for each field of the metadata.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Final, NamedTuple

from kvd.interfaces import MAX_METADATA_BYTES, NO_METADATA, Metadata

NAME: Final = "user.kvd"

_ID_BYTES: Final = 16

_FORM: Final = re.compile(
    rb"1 ([0-9a-f]{32}) (0|[1-9][0-9]{0,18})\n((?:[^:\n]+: [^\n]*\n)*)"
)


class MalformedAttribute(ValueError):
    """
    The attribute is not one that this version of kvd has written.
    """


class Record(NamedTuple):
    """
    What an attribute says.
    """

    etag: str
    size: int
    metadata: Metadata


def new_etag() -> str:
    """
    An id that no other write has.
    """
    return os.urandom(_ID_BYTES).hex()


def encode_metadata(metadata: Metadata) -> bytes:
    """
    The lines of the metadata. Fields of HTTP cannot hold what is refused.

    Raises:
        ValueError: A name or value has a character that ends it, or all
            together are longer than the contract allows.
    """
    lines = []
    total_bytes = 0
    for name, value in metadata.items():
        if not name or ":" in name or "\n" in name or "\n" in value:
            raise ValueError(f"{name!r}: {value!r} cannot be kept as metadata")
        # Whatever text the bytes of a field became, it becomes the same again.
        line = f"{name}: {value}\n".encode("utf-8", "surrogateescape")
        total_bytes += len(line) - len(": \n")
        lines.append(line)
    if total_bytes > MAX_METADATA_BYTES:
        raise ValueError(
            f"{total_bytes} bytes of metadata; at most {MAX_METADATA_BYTES} are kept"
        )
    return b"".join(lines)


def encode(etag: str, size: int, metadata_lines: bytes) -> bytes:
    """
    The attribute of a value.

    Args:
        etag: From `new_etag`.
        size: Of the value, in bytes.
        metadata_lines: From `encode_metadata`.
    """
    return b"1 %b %d\n%b" % (etag.encode("ascii"), size, metadata_lines)


@lru_cache(512)
def decode(attribute: bytes) -> Record:
    """
    Read an attribute. Values that are read often are read again: what the last
    ones said is kept.

    Raises:
        MalformedAttribute: It is none of ours.
    """
    match = _FORM.fullmatch(attribute)
    if match is None:
        raise MalformedAttribute(f"its attribute {NAME} begins {attribute[:60]!r}")
    etag, size, lines = match.groups()
    return Record(etag.decode("ascii"), int(size), _decode_metadata(lines))


def _decode_metadata(lines: bytes) -> Metadata:
    if not lines:
        return NO_METADATA
    metadata = {}
    for line in lines.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"):
        name, _, value = line.partition(": ")
        metadata[name] = value
    return metadata
