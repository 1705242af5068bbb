"""
The extended attribute that makes a file a value.

A file has a time and a length, but no id of its write (inodes are reused and time
stamps repeat, so they make no unique id) and no intended length. One attribute holds
these and the metadata. It is set before the file gets its name, so value and metadata
appear together, and a file that a power cut has shortened is recognised by the length
that does not match.

It is text, readable with ``getfattr -n user.kvd``:

    2 6f1cdd0b22a04a3f8a1f6a54ac0f3a1e 4096 1795890600.123456
    content-type: text/plain

The first line has the version of this format, the unique id, the length in bytes and
the time of publication; one line for each field of the metadata follows.

The time distinguishes a value from a file whose content another program has changed
since: kvd sets the file's time to exactly this one, and a write to the file changes its
time but not the attribute. The time is in microseconds, because some file systems keep
no more; some, and some archives, keep whole seconds.

Other programs may write such an attribute, or damage it. So attributes are checked when
they are read, by the rules for writing them, and a file with an invalid attribute
counts as a foreign file.

Attributes of version 1 had no time. They are read without this check.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeAlias

from kvd.model.values import (
    MAX_METADATA_BYTES,
    METADATA_FIELDS,
    NO_METADATA,
    Metadata,
    is_metadata_name,
)
from kvd.native import compiled

NAME: Final = "user.kvd"

_ID_BYTES: Final = 16

_MICROSECONDS: Final = 1_000_000

_ID_DIGITS: Final = 2 * _ID_BYTES

_FIRST_LINE: Final = re.compile(
    rb"(?:1|(2)) ([0-9a-f]{32}) (0|[1-9][0-9]{0,18})"
    rb"(?(1) (0|[1-9][0-9]{0,11})\.([0-9]{6}))\n"
)

_METADATA_LINES: Final = re.compile(rb"(?:[^:\n]+: [^\n]*\n)*")

FIELDS: Final = b"".join(b"%b\n" % name.encode() for name in sorted(METADATA_FIELDS))
"""
`METADATA_FIELDS`, for what is compiled.
"""

# The characters of a field's value (RFC 9110 section 5.5); replies are in Latin-1.
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class MalformedAttribute(ValueError):
    """
    The attribute is not one that kvd writes.
    """


class Record(NamedTuple):
    """
    The content of an attribute.
    """

    etag: str
    size: int
    published_us: int | None
    """In microseconds since the epoch; None: the attribute is of version 1."""
    metadata: Metadata


def new_etag() -> str:
    """
    Return an id that no other write has.
    """
    return os.urandom(_ID_BYTES).hex()


def encode_metadata(metadata: Metadata) -> bytes:
    """
    Encode metadata as lines; refuses only what an HTTP field cannot contain, and what
    is too long.

    Raises:
        ValueError: A name is not one of metadata (`is_metadata_name`), a value has a
            character that no field can have, or all together are longer than
            `MAX_METADATA_BYTES`.
    """
    lines = []
    total_bytes = 0
    for name, value in metadata.items():
        # A surrogate stays what no value can have.
        line = f"{name}: {value}\n".encode(errors="surrogatepass")
        if read_metadata(line) != {name: value}:
            raise ValueError(f"{name!r}: {value!r} cannot be kept as metadata")
        total_bytes += len(line) - len(": \n")
        lines.append(line)
    if total_bytes > MAX_METADATA_BYTES:
        raise ValueError(
            f"{total_bytes} bytes of metadata; at most {MAX_METADATA_BYTES} are kept"
        )
    return b"".join(lines)


NO_VALUE: Final = 0
"""
What `kind_of` says of what is no regular file,
"""
FOREIGN: Final = 1
"""
of a file that another program has written or changed since,
"""
TORN: Final = 2
"""
of one that has another length than kvd has given it,
"""
OURS: Final = 3
"""
and of one that is as kvd has written it.
"""


FirstLine: TypeAlias = tuple[str, int, int | None, int]
"""
What the first line of an attribute says: the id; the length of the value; its time, or
None in version 1; and the length of the line itself.
"""


def write_line_in_python(etag: str, size: int, published_us: int, /) -> bytes:
    """
    See `write_line`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    if len(etag) != _ID_DIGITS:
        raise ValueError(f"an id of {len(etag)} digits; one has {_ID_DIGITS}")
    seconds, fraction = divmod(published_us, _MICROSECONDS)
    return f"2 {etag} {size} {seconds}.{fraction:06d}\n".encode("ascii")


def read_line_in_python(attribute: bytes, /) -> FirstLine | None:
    """
    See `read_line`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    match = _FIRST_LINE.match(attribute)
    if match is None:
        return None
    dated, etag, size, seconds, fraction = match.groups()
    published_us = None
    if dated is not None:
        published_us = int(seconds) * _MICROSECONDS + int(fraction)
    return etag.decode("ascii"), int(size), published_us, match.end()


def read_metadata_in_python(lines: bytes, /) -> dict[str, str] | None:
    """
    See `read_metadata`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    if not _METADATA_LINES.fullmatch(lines):
        return None
    metadata = {}
    try:
        text = lines.decode()
    except UnicodeDecodeError:
        return None
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(": ")
        if not is_metadata_name(name) or not _VALUE.fullmatch(value):
            return None
        metadata[name] = value
    return metadata


def kind_in_python(
    attribute: bytes | None, mode: int, size: int, second: int, nanosecond: int, /
) -> int:
    """
    See `kind_of`. Without a C compiler, this does what ``kvd/native/attribute.c`` does.
    """
    if not stat.S_ISREG(mode):
        return NO_VALUE
    line = None if attribute is None else read_line_in_python(attribute)
    if attribute is None or line is None:
        return FOREIGN
    _, written, published_us, line_bytes = line
    if read_metadata_in_python(attribute[line_bytes:]) is None:
        return FOREIGN
    if published_us is not None:
        its_second, microsecond = divmod(published_us, _MICROSECONDS)
        if second != its_second or nanosecond not in (0, 1000 * microsecond):
            return FOREIGN
    return OURS if size == written else TORN


_native = compiled("_fast_path")
write_line: Callable[[str, int, int], bytes] = (
    write_line_in_python if _native is None else _native.write_line
)
"""
Write the first line of an attribute; see `encode`. Raises `ValueError` for an id that
is not as long as those of `new_etag`.
"""
read_line: Callable[[bytes], FirstLine | None] = (
    read_line_in_python if _native is None else _native.read_line
)
"""
Read the first line of an attribute; None if kvd writes no such line.
"""
read_metadata: Callable[[bytes], dict[str, str] | None] = (
    read_metadata_in_python
    if _native is None
    else partial(_native.read_metadata, FIELDS)
)
"""
Read the lines of `encode_metadata`; None if kvd writes no such lines.
"""
kind_of: Callable[[bytes | None, int, int, int, int], int] = (
    kind_in_python if _native is None else partial(_native.file_kind, FIELDS)
)
"""
What a file is: `NO_VALUE`, `FOREIGN`, `TORN` or `OURS`.

A file has the time of its attribute, to the precision of the file system or of the
archive that it came from; otherwise another program has changed it.

Args:
    attribute: Its attribute; None: it has none.
    mode: Of its status.
    size: Of its status.
    second: Of the time of its last change, since the epoch.
    nanosecond: Of the same, within the second.
"""


def encode(etag: str, size: int, published_us: int, metadata_lines: bytes) -> bytes:
    """
    Encode the attribute of a value.

    Args:
        etag: From `new_etag`.
        size: The size of the value in bytes.
        published_us: The time of publication in microseconds since the epoch; the
            caller sets the file's time to it too.
        metadata_lines: From `encode_metadata`.
    """
    return write_line(etag, size, published_us) + metadata_lines


@lru_cache(128)
def decode(attribute: bytes) -> Record:
    """
    Decode an attribute. The results of the last calls are cached, since some values are
    read often.

    Raises:
        MalformedAttribute: kvd does not write such an attribute.
    """
    line = read_line(attribute)
    if line is None:
        raise MalformedAttribute(f"the attribute {NAME} begins {attribute[:60]!r}")
    etag, size, published_us, line_bytes = line
    return Record(etag, size, published_us, decode_metadata(attribute[line_bytes:]))


def decode_metadata(lines: bytes) -> Metadata:
    """
    Decode the lines of `encode_metadata`.

    Raises:
        MalformedAttribute: kvd does not write such lines.
    """
    if not lines:
        return NO_METADATA
    metadata = read_metadata(lines)
    if metadata is None:
        raise MalformedAttribute(
            f"the attribute {NAME} has lines {lines[:60]!r} that kvd does not write"
        )
    return metadata
