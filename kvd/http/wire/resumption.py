"""
The fields of uploads that several requests write
(draft-ietf-httpbis-resumable-upload-11).

An upload has the URL of its value, with its name in the query: ``/key?upload=NAME``. So
everything that depends on keys, such as rights, is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvd.errors import BadRequest, CodingUnsupported, OperationUnsupported
from kvd.model.keys import Key, escape
from kvd.model.operations import Append, Put, ResumablePut
from kvd.model.requests import Request

PARTIAL_TYPE: Final = "application/partial-upload"

INTEROP_VERSIONS: Final = range(6, 10)
"""
The versions of the draft that mean the same by all that kvd understands.
"""

QUERY_NAME: Final = "upload"

_BOOLEAN: Final = re.compile(rb"\?([01])(?:[ ]*;.*)?")
_INTEGER: Final = re.compile(rb"([0-9]{1,15})(?:[ ]*;.*)?")


def flag(request: Request, name: bytes) -> bool | None:
    """
    The boolean of a structured field (RFC 9651); None if there is none, or another
    value, as which the draft has the field ignored.
    """
    found = _BOOLEAN.fullmatch(request.fields.get(name, b""))
    return None if found is None else found[1] == b"1"


def number(request: Request, name: bytes) -> int | None:
    """
    The same for a number that is not negative.
    """
    found = _INTEGER.fullmatch(request.fields.get(name, b""))
    return None if found is None else int(found[1])


def put_of(request: Request, put: Put) -> Put:
    """
    What a request that stores a value asks for, if it speaks of resuming.

    Raises:
        BadRequest: Its lengths contradict each other.
    """
    complete = flag(request, b"upload-complete")
    if complete is None:
        return put
    interop = number(request, b"upload-draft-interop-version")
    if interop is not None and interop not in INTEROP_VERSIONS and complete:
        # The client does not understand what kvd would say.
        return put
    return ResumablePut(
        put.key,
        put.conditions,
        put.metadata,
        put.digests,
        complete=complete,
        length=_length_of(request, 0, complete),
        interop=interop,
    )


def refuse_part(request: Request) -> None:
    """
    Refuse the beginning of an upload where one cannot go on: it would be taken for the
    whole value.

    Raises:
        OperationUnsupported: The request says that more is to come.
    """
    if flag(request, b"upload-complete") is False:
        raise OperationUnsupported(
            "An upload cannot be continued in this dialect: send the whole value in one"
            " request."
        )


def append_of(request: Request, key: Key, identity: str) -> Append:
    """
    What a PATCH of an upload asks for.

    Raises:
        BadRequest: It does not say where it goes on, or whether more follows.
        CodingUnsupported: Its body is something else than a part of an upload.
    """
    kind = request.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != PARTIAL_TYPE.encode("ascii"):
        raise CodingUnsupported(
            f"PATCH of an upload needs Content-Type: {PARTIAL_TYPE}."
        )
    offset = number(request, b"upload-offset")
    complete = flag(request, b"upload-complete")
    if offset is None or complete is None:
        raise BadRequest(
            "PATCH of an upload needs Upload-Offset, with the number of bytes that kvd"
            " has, and Upload-Complete: ?1 if the body is the rest, else ?0."
        )
    length = _length_of(request, offset, complete)
    return Append(key, identity, offset, complete, length)


def _length_of(request: Request, offset: int, complete: bool) -> int | None:
    """
    The length of the whole value.
    """
    said = number(request, b"upload-length")
    body = 0 if request.length is None and not request.chunked else request.length
    if body is None:
        return said
    whole = offset + body
    if said is not None and (whole > said or (complete and whole != said)):
        raise BadRequest(
            f"With this request the upload has {whole} bytes, and Upload-Length says"
            f" {said}."
        )
    return whole if complete else said


def identity_of(query: Mapping[str, bytes]) -> str | None:
    """
    The name of an upload, if a target is that of one.
    """
    text = query.get(QUERY_NAME)
    return None if text is None else text.decode("latin-1")


def location_of(key: Key, identity: str) -> str:
    """
    The URL of an upload.
    """
    return f"/{escape(key)}?{QUERY_NAME}={identity}"


def interim(location: str, limits: tuple[str, str], interop: int | None) -> bytes:
    """
    The interim reply that tells a client where it can resume.

    Args:
        location: See `location_of`.
        limits: A field that says how long, and how much.
        interop: The version of the draft that the client speaks, if it has said so.
    """
    version = ""
    if interop is not None:
        version = f"Upload-Draft-Interop-Version: {interop}\r\n"
    return (
        "HTTP/1.1 104 Upload Resumption Supported\r\n"
        f"Location: {location}\r\n{': '.join(limits)}\r\n{version}\r\n"
    ).encode("ascii")
