"""
Request targets (RFC 9112 section 3.2).

The path is percent-decoded once, segment by segment. kvd refuses a target if another
spelling could name the same value, or if it could lead out of the store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from kvd.errors import BadRequest, TargetTooLong
from kvd.http.wire.hosts import is_host
from kvd.model.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Key, is_leftover
from kvd.native import compiled

MAX_PAGE: Final = 1000
"""
The longest page of a listing.
"""

_SEGMENT: Final = (
    rb"[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_~!$&'()*+,;=:@.-]{0,199}(?:/|\Z)"
)
_PLAIN: Final = re.compile(rb"/(?:%b)+(?<!/)" % _SEGMENT)
_MOST_PLAIN_BYTES: Final = 512
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)")
_SCHEMES: Final = (b"http", b"https")
_USER: Final = re.compile(rb"\A(?:([A-Za-z][A-Za-z0-9+.-]*://)|(?=[^/]))[^/?]*@")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_RESERVED: Final = b".kvd"


def plain_key_in_python(target: bytes, /) -> bytes | None:
    """
    See `plain_key`. Without a C compiler, this does what ``kvd/native/target.c`` does.
    """
    if len(target) > 1 + _MOST_PLAIN_BYTES or not _PLAIN.fullmatch(target):
        return None
    return target[1:]


_native: Final = compiled("_fast_path")
plain_key: Final[Callable[[bytes], bytes | None]] = (
    plain_key_in_python if _native is None else _native.plain_key
)
"""
The key in a target that needs no closer look, as in almost every one: no query, nothing
to decode, no segment that begins with a dot, and none of more than 200 bytes; None for
any other target.
"""


class Target(NamedTuple):
    """
    What a target names: a key, a prefix of keys, or the server (``*``).
    """

    key: Key | None = None
    prefix: bytes | None = None
    """If the path ends with a slash: that path without the first slash."""
    query: Mapping[str, bytes] = MappingProxyType({})


def authority_of(target: bytes) -> bytes | None:
    """
    The host, and the port if there is one, of a target in absolute form; None for any
    other target.

    Raises:
        BadRequest: It is not an HTTP URL (RFC 9110 sections 4.2.1 and 4.2.4).
    """
    absolute = None if target.startswith(b"/") else _ABSOLUTE.match(target)
    if absolute is None:
        return None
    scheme, authority = absolute.groups()
    if scheme.lower() not in _SCHEMES:
        raise BadRequest(
            f"The target {_shown(without_user(target))} is not an HTTP URL, which"
            " begins with http:// or https://."
        )
    if not is_host(authority) or authority[:1] in (b"", b":"):
        host = authority.rpartition(b"@")[2]
        raise BadRequest(
            f"In the target {_shown(without_user(target))}, {_shown(host)} has to be a"
            " host and perhaps a port, without a user."
        )
    return authority


def without_user(target: bytes) -> bytes:
    """
    A target for people to read: a user before the host may have a password.
    """
    return _USER.sub(rb"\1", target)


def is_path(target: bytes) -> bool:
    """
    Whether a target has a path: not ``*``, and not the authority form of CONNECT.
    """
    return target.startswith(b"/") or _ABSOLUTE.match(target) is not None


def path_segments(target: bytes) -> list[bytes]:
    """
    As `every_segment`, without ``.`` segments (RFC 3986 section 6.2.2.3).

    Returns:
        At least one segment; the last one is empty if the path ends with a slash.

    Raises:
        BadRequest: As `every_segment`.
    """
    segments = every_segment(target)
    if b"." not in segments:
        return segments
    kept = [segment for segment in segments if segment != b"."]
    return [*kept, b""] if segments[-1] == b"." else kept


def every_segment(target: bytes) -> list[bytes]:
    """
    Split the path of a target at its slashes and decode each segment once. Scheme,
    authority and query are left out.

    Returns:
        At least one segment; the last one is empty if the path ends with a slash.

    Raises:
        BadRequest: The target has no path, its percent-encoding is malformed, or it has
            an encoded slash.
    """
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadRequest(
                f"The target {_shown(without_user(target))} is neither a path that"
                " begins with a slash nor a whole URL."
            )
        target = target[absolute.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    path = target.partition(b"?")[0]
    return [_decoded(segment) for segment in path[1:].split(b"/")]


def parse_target(target: bytes, method: str) -> Target:
    """
    Parse a target.

    Raises:
        BadRequest: It does not name a key, a prefix or the server.
        TargetTooLong: The key, or a segment of it, is too long.
    """
    key = plain_key(target)
    if key is not None:
        return Target(Key(key))
    if target == b"*" and method == "OPTIONS":
        return Target()
    query = parse_query(target.partition(b"?")[2])
    *parts, last = path_segments(target)
    if last:
        return Target(key_of_segments([*parts, last]), None, query)
    if not parts:
        return Target(None, b"", query)
    return Target(None, key_of_segments(parts) + b"/", query)


def _decoded(segment: bytes) -> bytes:
    if b"%" not in segment:
        return segment
    if _BAD_PERCENT.search(segment):
        raise BadRequest(
            f"In {_shown(segment)} a percent sign is not followed by two hexadecimal"
            " digits; write the sign itself as %25."
        )
    decoded = unquote_to_bytes(segment)
    if b"/" in decoded:
        raise BadRequest(
            f"{_shown(segment)} contains an encoded slash (%2F), with which one key"
            " would have two spellings."
        )
    return decoded


def key_of_segments(segments: Sequence[bytes]) -> Key:
    """
    Check decoded segments and join them.

    Raises:
        BadRequest: A segment is empty, ``.`` or ``..``, or contains a slash or a
            control byte; the first one is reserved for kvd, or the last one for a file
            system.
        TargetTooLong: A segment, or the key, is too long.
    """
    for segment in segments:
        if not segment:
            raise BadRequest("A key cannot have empty segments: use single slashes.")
        if b"/" in segment:
            # From a query or a body: in a path it is refused where it is decoded.
            raise BadRequest(f"The segment {_shown(segment)} contains a slash.")
        if segment in (b".", b".."):
            raise BadRequest(f"A key cannot have the segment {_shown(segment)}.")
        if _CONTROL.search(segment):
            raise BadRequest(f"The segment {_shown(segment)} contains a control byte.")
        if len(segment) > MAX_SEGMENT_BYTES:
            raise TargetTooLong(
                f"A segment of a key can have {MAX_SEGMENT_BYTES} bytes, not"
                f" {len(segment)}."
            )
    if segments[0].startswith(_RESERVED):
        raise BadRequest("Keys that begin with .kvd are reserved for kvd.")
    if is_leftover(segments[-1]):
        raise BadRequest(
            f"{_shown(segments[-1])} cannot be stored: file systems give such names to"
            " files that are removed while they are read."
        )
    key = b"/".join(segments)
    if len(key) > MAX_KEY_BYTES:
        raise TargetTooLong(f"A key can have {MAX_KEY_BYTES} bytes, not {len(key)}.")
    return Key(key)


def parse_query(query: bytes) -> dict[str, bytes]:
    """
    The parameters of a query, by name. kvd ignores unknown parameters. If a name is
    repeated, the last value counts; the parameters of a page may not be repeated.
    """
    parameters: dict[str, bytes] = {}
    for pair in query.split(b"&") if query else ():
        name, _, value = pair.partition(b"=")
        text = unquote_to_bytes(name).decode("latin-1")
        if text in parameters and text in ("limit", "after"):
            raise BadRequest(f"The parameter {text!r} is given twice.")
        parameters[text] = value
    return parameters


def page_of(query: Mapping[str, bytes]) -> tuple[bytes, int | None]:
    """
    The page of a listing that a query asks for.

    Returns:
        The key after which it begins, and how many keys it may have; None for the whole
        listing.

    Raises:
        BadRequest: A parameter has an invalid value.
    """
    limit = query.get("limit")
    after = query.get("after")
    if limit is None:
        if after is not None:
            raise BadRequest("The parameter 'after' needs a 'limit' with it.")
        return b"", None
    if not re.fullmatch(rb"[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE:
        raise BadRequest(
            f"The parameter 'limit' is {_shown(limit)}, but has to be a number from"
            f" 1 to {MAX_PAGE}."
        )
    if after is not None and _BAD_PERCENT.search(after):
        raise BadRequest("The parameter 'after' is not percent-encoded correctly.")
    return unquote_to_bytes(after or b""), int(limit)


def _shown(data: bytes) -> str:
    text = data[:80].decode("ascii", "backslashreplace")
    return repr(text + ("..." if len(data) > 80 else ""))
