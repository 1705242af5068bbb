"""
Digests of a body: ``Content-Digest`` and ``Repr-Digest`` (RFC 9530), ``Content-MD5``
(RFC 1864).

A PUT carries the whole representation, so both fields of RFC 9530 are digests of the
same bytes. kvd verifies the algorithms that are secure against forgery, and ignores all
others, as the RFC requires.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from kvd.errors import BadRequest, DigestMismatch
from kvd.model.digests import Digest
from kvd.model.requests import Request

# A dictionary of structured fields (RFC 9651 section 3.2) whose values are byte
# sequences; parameters have no meaning here.
_KEY: Final = rb"[a-z*][a-z0-9_.*-]*"
_BYTES: Final = rb":[A-Za-z0-9+/=]*:"
_ITEM: Final = (
    rb'(?:"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|' + _BYTES + rb"|\?[01]"
    rb"|@?-?[0-9]{1,15}(?:\.[0-9]{1,3})?|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*)"
)
_MEMBER: Final = re.compile(
    rb"(" + _KEY + rb")=:([A-Za-z0-9+/=]*):"
    rb"(?:; *" + _KEY + rb"(?:=" + _ITEM + rb")?)*"
)
_COMMA: Final = re.compile(rb"[ \t]*,[ \t]*")

DIGEST_FIELDS: Final = ("Content-Digest", "Repr-Digest", "Content-MD5")

_ALGORITHMS: Final = {b"sha-256": "sha256", b"sha-512": "sha512"}


def digests_of(request: Request) -> tuple[Digest, ...]:
    """
    The digests of a request that kvd verifies.

    Raises:
        BadRequest: One is malformed.
    """
    fields = request.fields
    digests: list[Digest] = []
    for name in DIGEST_FIELDS[:2]:
        value = fields.get(name.lower().encode())
        if value:
            # The last value of an algorithm counts (RFC 9651).
            digests += {each.algorithm: each for each in _listed(name, value)}.values()
    md5 = fields.get(b"content-md5")
    if md5 is not None:
        digests.append(digest_in("Content-MD5", "md5", md5))
    return tuple(digests)


def _listed(name: str, value: bytes) -> Iterator[Digest]:
    at = 0
    while True:
        member = _MEMBER.match(value, at)
        if member is None:
            raise _malformed(name, value)
        if member[1] in _ALGORITHMS:
            yield digest_in(name, _ALGORITHMS[member[1]], member[2])
        if member.end() == len(value):
            return
        comma = _COMMA.match(value, member.end())
        if comma is None:
            raise _malformed(name, value)
        at = comma.end()


def digest_in(name: str, algorithm: str, text: bytes) -> Digest:
    """
    The digest that a field has in base64.

    Raises:
        BadRequest: It is malformed, or not as long as one of the algorithm.
    """
    try:
        # Padding may be left out (RFC 9651 section 4.2.7).
        value = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise _malformed(name, text) from error
    size = len(new_hash(algorithm).digest())
    if len(value) != size:
        raise _malformed(name, text)
    return Digest(name, algorithm, value)


def _malformed(name: str, value: bytes) -> BadRequest:
    shown = value[:100].decode("ascii", "backslashreplace")
    right = (
        "the base64 of 16 bytes"
        if name == "Content-MD5"
        else "the base64 of the checksum"
        if name.startswith("x-amz-")
        else f"such as {name}: sha-256=:BASE64:, with the base64 of 32 bytes"
    )
    return BadRequest(f"{name} is {shown!r}, but has to be {right}.")


class Hash(Protocol):
    """
    Of bytes that come in pieces.
    """

    def update(self, data: bytes, /) -> None:
        """
        Add a piece.
        """

    def digest(self) -> bytes:
        """
        That of all pieces.
        """


CRCS: Final = frozenset(("crc32", "crc32c", "crc64nvme"))
"""
The algorithms that are no digests of `hashlib`.
"""


def new_hash(algorithm: str) -> Hash:
    """
    Of a name in `hashlib` or `CRCS`.
    """
    if algorithm in CRCS:
        # Not at the top: only where it is needed.
        from kvd.http.wire.crc import Crc

        return Crc(algorithm)
    # Clients use MD5 to detect damage on networks and disks, not for security.
    return hashlib.new(algorithm, usedforsecurity=False)


class Verification:
    """
    Verifies one body against its digests.
    """

    def __init__(self, digests: Iterable[Digest]) -> None:
        self._digests = digests
        self._hashes = {each.algorithm: new_hash(each.algorithm) for each in digests}

    def update(self, data: bytes) -> None:
        """
        Add a piece of the body.
        """
        for each in self._hashes.values():
            each.update(data)

    def check(self) -> None:
        """
        Compare the digests at the end of the body.

        Raises:
            DigestMismatch: The body differs from its digest.
        """
        for digest in self._digests:
            found = self._hashes[digest.algorithm].digest()
            if found != digest.value and digest.is_key:
                raise DigestMismatch(
                    f"The {digest.algorithm} of the value is {found.hex()}, which the"
                    " last segment of the key has to be: nothing is stored."
                )
            if found != digest.value:
                raise DigestMismatch(
                    f"{digest.field} says that the {digest.algorithm} is"
                    f" {_text(digest.value)}, but what came has {_text(found)}: it was"
                    " damaged on its way, and nothing is stored.",
                    digest.field,
                )


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")
