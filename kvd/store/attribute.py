"""
The extended attribute that makes a file a value.

A file and its name say when and how long, but neither who wrote it (inodes are
reused and time stamps repeat, so no unique id can be made of them) nor how
long it should be. One attribute holds all of that: it is set before the file
gets its name, so value and metadata appear together, and a file that a power
cut left shorter than it was is known by the length that does not match.

It is text, for whoever looks with ``getfattr -n user.kvd``:

    2 6f1cdd0b22a04a3f8a1f6a54ac0f3a1e 4096 1795890600.123456
    content-type: text/plain

that is the version of this format, the unique id, the length in bytes and the
time of publication, then one line for each field of the metadata.

The time is what tells a value from a file whose content others have changed since:
kvd gives the file this very time, and whoever writes to the file moves its time on,
but leaves the attribute alone. Microseconds, because some file systems keep no more;
some, and some archives, keep whole seconds.

Anybody may write such an attribute, or damage it. So what is read is held to the same
rules as what is written, and a file whose attribute breaks one is a file of others.

Attributes of version 1 had no time. They are read, and believed.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Final, NamedTuple

from kvd.model.values import MAX_METADATA_BYTES, METADATA_FIELDS, NO_METADATA, Metadata

NAME: Final = "user.kvd"

_ID_BYTES: Final = 16

_MICROSECONDS: Final = 1_000_000

_FORM: Final = re.compile(
    rb"(?:1|(2)) ([0-9a-f]{32}) (0|[1-9][0-9]{0,18})"
    rb"(?(1) (0|[1-9][0-9]{0,11})\.([0-9]{6}))\n"
    rb"((?:[^:\n]+: [^\n]*\n)*)"
)

# What a field's value may hold (RFC 9110 section 5.5); replies are in Latin-1.
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


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
    published_us: int | None
    """Microseconds since the epoch; None: this version did not say."""
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
        ValueError: A name is none of `METADATA_FIELDS`, a value has a character that
            no field has, or all together are longer than the contract allows.
    """
    lines = []
    total_bytes = 0
    for name, value in metadata.items():
        _check_field(name, value)
        line = f"{name}: {value}\n".encode()
        total_bytes += len(line) - len(": \n")
        lines.append(line)
    if total_bytes > MAX_METADATA_BYTES:
        raise ValueError(
            f"{total_bytes} bytes of metadata; at most {MAX_METADATA_BYTES} are kept"
        )
    return b"".join(lines)


def _check_field(name: str, value: str) -> None:
    if name not in METADATA_FIELDS or not _VALUE.fullmatch(value):
        raise ValueError(f"{name!r}: {value!r} cannot be kept as metadata")


def encode(etag: str, size: int, published_us: int, metadata_lines: bytes) -> bytes:
    """
    The attribute of a value.

    Args:
        etag: From `new_etag`.
        size: Of the value, in bytes.
        published_us: In microseconds since the epoch; the file is given it too.
        metadata_lines: From `encode_metadata`.
    """
    seconds, fraction = divmod(published_us, _MICROSECONDS)
    line = f"2 {etag} {size} {seconds}.{fraction:06d}\n"
    return line.encode("ascii") + metadata_lines


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
        raise MalformedAttribute(f"the attribute {NAME} begins {attribute[:60]!r}")
    dated, etag, size, seconds, fraction, lines = match.groups()
    published_us = None
    if dated is not None:
        published_us = int(seconds) * _MICROSECONDS + int(fraction)
    return Record(
        etag.decode("ascii"), int(size), published_us, _decode_metadata(lines)
    )


def is_dated(published_us: int, changed_ns: int) -> bool:
    """
    Whether the time of a file is the one that its attribute says, as exactly as the
    file system, or the archive that the file came from, keeps times.

    Args:
        published_us: What the attribute says.
        changed_ns: When the file was changed, in nanoseconds since the epoch.
    """
    if changed_ns == 1000 * published_us:
        return True
    return changed_ns == 1000 * (published_us - published_us % _MICROSECONDS)


def _decode_metadata(lines: bytes) -> Metadata:
    if not lines:
        return NO_METADATA
    metadata = {}
    try:
        for line in lines.decode().removesuffix("\n").split("\n"):
            name, _, value = line.partition(": ")
            _check_field(name, value)
            metadata[name] = value
    except ValueError as error:
        raise MalformedAttribute(f"the attribute {NAME}: {error}") from error
    return metadata
