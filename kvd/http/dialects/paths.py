"""
Methods and paths of dialects whose clients add paths of their own to a URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvd.errors import BadRequest, MethodNotAllowed
from kvd.http.wire.targets import key_of_segments, parse_query, path_segments
from kvd.model.keys import Key
from kvd.model.requests import Request


def check_method(request: Request, allowed: str, client: str) -> None:
    """
    Check that a dialect has the method of a request.

    Args:
        request: Its head.
        allowed: The methods, as in ``Allow``.
        client: Whose dialect it is.

    Raises:
        MethodNotAllowed: It has not.
    """
    if request.method not in allowed.split(", "):
        raise MethodNotAllowed(
            f"{request.method} is not allowed here, where {client} is spoken;"
            f" {allowed} are.",
            allowed,
        )


def segments_below(target: bytes, prefix: bytes) -> list[bytes]:
    """
    The segments of a path behind the prefix of a dialect, decoded; the last one is
    empty if the path ends with a slash.

    Raises:
        BadRequest: The path is malformed.
    """
    return path_segments(target)[prefix.count(b"/") :]


def key_of(prefix: bytes, segments: Sequence[bytes]) -> Key:
    """
    The key of segments behind a prefix.

    Raises:
        BadRequest: They are none of a key.
        TargetTooLong: They are too long for one.
    """
    return key_of_segments([*prefix.split(b"/")[:-1], *segments])


def key_below(target: bytes, prefix: bytes, folder: Sequence[bytes], right: str) -> Key:
    """
    The key of a path with one segment in a folder.

    Args:
        target: Of the request.
        prefix: Of the dialect.
        folder: Its segments.
        right: The form of such a path, for the refusal of others.

    Raises:
        BadRequest: It is another path.
    """
    *inner, last = segments_below(target, prefix)
    if inner != [*folder] or not last:
        raise BadRequest(f"In this dialect a path has the form {right}.")
    return key_of(prefix, [*folder, last])


def query_of(target: bytes) -> Mapping[str, bytes]:
    """
    The parameters of a target, by name; their values are still percent-encoded.
    """
    return parse_query(target.partition(b"?")[2])
