"""
Request targets: what a request is about (RFC 9112 section 3.2).

The path is percent-decoded once, segment by segment. Whatever could make two
spellings name one value, or lead out of the store, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from kvd.errors import BadRequest, TargetTooLong
from kvd.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Key

MAX_PAGE: Final = 1000
"""
The longest page of a listing.
"""

# Nearly every key: nothing to decode, no dots at the beginning of a segment.
_HARMLESS: Final = re.compile(
    rb"/([A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_~!$&'()*+,;=:@.-]{0,200}"
    rb"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9_~!$&'()*+,;=:@.-]{0,200}){0,3})"
)
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_RESERVED: Final = b".kvd"


class Target(NamedTuple):
    """
    What a target names: a key, a prefix of keys, or the server (``*``).
    """

    key: Key | None = None
    prefix: bytes | None = None
    """Of a path that ends with a slash: empty, or ending with one."""
    query: Mapping[str, bytes] = MappingProxyType({})


def raw_path(target: bytes) -> bytes:
    """
    The path as it was sent, without scheme, authority and query.
    """
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadRequest(
                f"The target {_shown(target)} is neither a path that begins with a"
                " slash nor a whole URL."
            )
        target = target[absolute.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    return target.partition(b"?")[0]


def parse_target(target: bytes, method: str) -> Target:
    """
    Understand a target.

    Raises:
        BadRequest: It can name no key.
        TargetTooLong: The key, or a segment of it, is too long.
    """
    harmless = _HARMLESS.fullmatch(target)
    if harmless is not None:
        return Target(Key(harmless[1]))
    if target == b"*" and method == "OPTIONS":
        return Target()
    path = raw_path(target)
    query = _parse_query(target.partition(b"?")[2])
    *parts, last = path[1:].split(b"/")
    if last:
        return Target(key_of_segments(decode_segments([*parts, last])), None, query)
    if not parts:
        return Target(None, b"", query)
    return Target(None, key_of_segments(decode_segments(parts)) + b"/", query)


def decode_segments(parts: Sequence[bytes]) -> list[bytes]:
    """
    Percent-decode the segments of a path.

    Raises:
        BadRequest: The encoding is broken, or hides a slash.
    """
    segments = []
    for part in parts:
        if b"%" in part:
            if _BAD_PERCENT.search(part):
                raise BadRequest(
                    f"In {_shown(part)} a percent sign is not followed by two"
                    " hexadecimal digits; the sign itself is written %25."
                )
            decoded = unquote_to_bytes(part)
            if b"/" in decoded:
                raise BadRequest(
                    f"{_shown(part)} holds an encoded slash (%2F), which would give"
                    " one key two spellings."
                )
            part = decoded
        segments.append(part)
    return segments


def key_of_segments(segments: Sequence[bytes]) -> Key:
    """
    Check decoded segments and join them.

    Raises:
        BadRequest: A segment is empty, ``.``, ``..``, or holds control bytes,
            or the first one is kvd's own.
        TargetTooLong: One, or all together, are too long.
    """
    for segment in segments:
        if not segment:
            raise BadRequest("A key has no empty segments: write single slashes.")
        if segment in (b".", b".."):
            raise BadRequest(f"A key has no segment {_shown(segment)}.")
        if _CONTROL.search(segment):
            raise BadRequest(f"The segment {_shown(segment)} holds a control byte.")
        if len(segment) > MAX_SEGMENT_BYTES:
            raise TargetTooLong(
                f"A segment of a key has at most {MAX_SEGMENT_BYTES} bytes, not"
                f" {len(segment)}."
            )
    if segments[0].startswith(_RESERVED):
        raise BadRequest("Keys that begin with .kvd are kvd's own.")
    key = b"/".join(segments)
    if len(key) > MAX_KEY_BYTES:
        raise TargetTooLong(f"A key has at most {MAX_KEY_BYTES} bytes, not {len(key)}.")
    return Key(key)


def _parse_query(query: bytes) -> dict[str, bytes]:
    """
    The parameters of a query, by name. What kvd does not know means nothing
    to it, so of a repeated name the later one counts, except for pages.
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
    Which page of a listing is asked for.

    Returns:
        The key after which it begins, and how many keys it may have; None for
        the whole listing.

    Raises:
        BadRequest: A parameter has a value that it cannot have.
    """
    limit = query.get("limit")
    after = query.get("after")
    if limit is None:
        if after is not None:
            raise BadRequest("The parameter 'after' needs a 'limit' beside it.")
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
