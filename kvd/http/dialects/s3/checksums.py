"""
The checksums that S3's clients send: of a body, before it or behind its chunks, and of
an object whose parts a request names.

Whoever sends one wants it to be verified. So one that kvd cannot verify is refused. One
in the query of a presigned URL comes from whoever made the URL. That of an empty body
says nothing there: AWS's library for JavaScript puts it into each URL, unless it knows
the body already. S3 itself ignores all in the query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

# Loaded with the dialect, and not by the first request that needs it.
import kvd.http.wire.crc  # noqa: F401
from kvd.errors import BadRequest, DigestMismatch
from kvd.http.dialects.paths import query_of
from kvd.http.wire.aws_chunked import CHECKSUM, CHECKSUMS
from kvd.http.wire.digests import digest_in, new_hash
from kvd.model.digests import Digest
from kvd.model.requests import Request
from kvd.model.uploads import PartInfo

_NAMED: Final = b"x-amz-sdk-checksum-algorithm"
_BEHIND: Final = b"x-amz-trailer"
_TYPE: Final = b"x-amz-checksum-type"
_SIZE: Final = b"x-amz-mp-object-size"

# These say which checksums S3 is to keep.
_NONE: Final = frozenset((_TYPE, b"x-amz-checksum-algorithm", b"x-amz-checksum-mode"))

_WHOLE_ONLY: Final = "crc64nvme"
_OF_PARTS: Final = re.compile(rb"([^-]*)(?:-([1-9][0-9]{0,4}))?")


def checksums_of(request: Request, trailers: Collection[str] = ()) -> list[Digest]:
    """
    Those of a body that are before it.

    Args:
        request: Its head.
        trailers: The names of what follows it, in lower case; none if nothing can.

    Raises:
        BadRequest: One of all of them is malformed or of another algorithm than
            `CHECKSUMS`; or the one that is announced is not there, or cannot come.
    """
    for name in trailers:
        if name.startswith(CHECKSUM):
            _check_known(name)
    announced = request.fields.get(_BEHIND, b"").lower()
    if not trailers and CHECKSUM.encode("ascii") in announced:
        raise BadRequest(
            "x-amz-trailer names a checksum, and none can follow such a body:"
            " X-Amz-Content-SHA256 has to be STREAMING-...-TRAILER."
        )
    digests = [digest_in(name, CHECKSUMS[name], text) for name, text in _given(request)]
    digests += _in_query(request)
    named = request.fields.get(_NAMED, b"").decode("latin-1")
    if named:
        name = CHECKSUM + named.lower()
        _check_known(name)
        if name.encode("ascii") not in request.fields and name not in trailers:
            raise BadRequest(
                f"x-amz-sdk-checksum-algorithm says {named}, and there is no {name}:"
                " send it as a field or behind the chunks."
            )
    return digests


def _given(request: Request) -> Iterator[tuple[str, bytes]]:
    for field, text in request.fields.items():
        if field.startswith(CHECKSUM.encode("ascii")) and field not in _NONE:
            name = field.decode("latin-1")
            _check_known(name)
            yield name, text


def _in_query(request: Request) -> Iterator[Digest]:
    """
    Those in the query that say something about the body.
    """
    for given, text in query_of(request.target).items():
        name = given.lower()
        if not name.startswith(CHECKSUM) or name.encode("latin-1", "replace") in _NONE:
            continue
        _check_known(name)
        digest = digest_in(name, CHECKSUMS[name], unquote_to_bytes(text))
        if digest.value != new_hash(digest.algorithm).digest():
            yield digest


def _check_known(name: str) -> None:
    if name not in CHECKSUMS:
        algorithms = ", ".join(each.upper() for each in CHECKSUMS.values())
        raise BadRequest(
            f"kvd cannot verify {name:.100}: choose another algorithm, of {algorithms}."
        )


@dataclass(frozen=True, slots=True)
class WholeChecksums:
    """
    What is said about an object that consists of parts.
    """

    digests: tuple[Digest, ...]
    """Of all its bytes."""
    of_parts: tuple[tuple[str, int], ...]
    """The fields with a checksum of the parts' checksums, and how many parts each says
    there are."""
    size: str
    """How many bytes it has, in digits; empty: nothing is said."""

    def check(self, parts: Sequence[PartInfo]) -> None:
        """
        Compare how many parts there are, and how long they are.

        Raises:
            DigestMismatch: It is another number of parts.
            BadRequest: It is another length, or none.
        """
        for name, number in self.of_parts:
            if number != len(parts):
                raise DigestMismatch(
                    f"{name} is the checksum of {number} parts, and the request names"
                    f" {len(parts)}: nothing is stored.",
                    name,
                )
        size = sum(part.size for part in parts)
        if self.size and self.size != str(size):
            raise BadRequest(
                f"x-amz-mp-object-size says {self.size:.100}, but the parts have"
                f" {size} bytes: nothing is stored."
            )


def whole_checksums_of(request: Request) -> WholeChecksums:
    """
    Those of the object that a request completes.

    One of the parts' checksums (of the type COMPOSITE) adds nothing: kvd has verified
    each part, whose entity tag the request names. So only its number is kept. Some
    clients send one without the number and the type.

    Raises:
        BadRequest: One is malformed, of another algorithm than `CHECKSUMS`, or not of a
            type that there is.
    """
    kind = request.fields.get(_TYPE, b"").upper()
    if kind not in (b"", b"FULL_OBJECT", b"COMPOSITE"):
        raise BadRequest("x-amz-checksum-type has to be FULL_OBJECT or COMPOSITE.")
    digests: list[Digest] = []
    of_parts: list[tuple[str, int]] = []
    for name, text in _given(request):
        algorithm = CHECKSUMS[name]
        if algorithm == _WHOLE_ONLY and kind == b"COMPOSITE":
            raise BadRequest(f"{name} is always of the type FULL_OBJECT.")
        if algorithm == _WHOLE_ONLY or kind == b"FULL_OBJECT":
            digests.append(digest_in(name, algorithm, text))
            continue
        matched = _OF_PARTS.fullmatch(text)
        digest_in(name, algorithm, matched[1] if matched else text)
        if matched and matched[2]:
            of_parts.append((name, int(matched[2])))
    size = request.fields.get(_SIZE, b"").decode("latin-1")
    return WholeChecksums(tuple(digests), tuple(of_parts), size)
