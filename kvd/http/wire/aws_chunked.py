"""
The chunks in which clients of S3 send a value whose digest they do not know yet
(``Content-Encoding: aws-chunked``).

====== ======================================== ==================================
state  needs                                    next
====== ======================================== ==================================
SIZE   a line: size, signature                  DATA, TRAIL after size 0
DATA   the chunk's bytes                        CRLF
CRLF   an empty line                            SIZE
TRAIL  lines up to an empty one                 END
END    nothing
====== ======================================== ==================================

A part of the value is given on before its signature is verified: nothing is published
before the end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from enum import Enum, auto
from typing import Final

from kvd.errors import BadRequest, DigestMismatch, SignatureRefused
from kvd.http.wire.digests import Hash, digest_in, new_hash
from kvd.model.codings import AwsChunked

LEAST_CHUNK_BYTES: Final = 8192
"""
Of each chunk but the last one with data, as S3 has it: many small ones would cost more
than the value.
"""

MAX_LINE_BYTES: Final = 1024
MAX_TRAILERS: Final = 16

CHECKSUM: Final = "x-amz-checksum-"

CHECKSUMS: Final = {
    CHECKSUM + algorithm: algorithm
    for algorithm in (
        *("crc32", "crc32c", "crc64nvme"),
        *("md5", "sha1", "sha256", "sha512"),
    )
}
"""
The algorithms of the checksums that kvd verifies, with their fields.
"""

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER: Final = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x21-\x7e]*)[ \t]*\n?")
_SIGNATURE: Final = "x-amz-trailer-signature"


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    CRLF = auto()
    TRAIL = auto()
    END = auto()


class AwsChunkedBody:
    """
    Extracts a value from its chunks.
    """

    def __init__(self, coding: AwsChunked) -> None:
        self._coding = coding
        self._chain = coding.chain if coding.is_signed else None
        self._state = _State.SIZE
        self._buffered = b""
        self._left = 0
        self._is_small = False
        self.size = 0
        """How many bytes of the value have come."""
        self._digest = hashlib.sha256()
        self._claimed = ""
        self._before = self._chain.seed if self._chain else ""
        self._checksums: dict[str, Hash] = {
            name: new_hash(CHECKSUMS[name])
            for name in coding.trailers
            if name in CHECKSUMS
        }
        self._trailers: dict[str, str] = {}
        self._signed = b""

    def take(self, data: bytes) -> bytes:
        """
        The next part of the value, empty if there is none in these bytes of the body.

        Raises:
            BadRequest: They are not chunks, or more than the value was to have.
            SignatureRefused: A chunk has not the signature that it has to have.
        """
        data = self._buffered + data if self._buffered else data
        at, pieces = 0, []
        while at < len(data):
            if self._state is _State.DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                pieces.append(piece)
                self._add(piece)
                continue
            end = data.find(b"\r\n", at, at + MAX_LINE_BYTES)
            if end < 0:
                if len(data) - at >= MAX_LINE_BYTES:
                    raise BadRequest("A line of an aws-chunked body is too long.")
                break
            line, at = data[at:end], end + 2
            self._read(line)
        self._buffered = data[at:]
        return b"".join(pieces)

    def finish(self) -> None:
        """
        The body is complete.

        Raises:
            BadRequest: The value is not; a trailer is missing or malformed; or a
                checksum came that was not announced, so that it cannot be verified.
            DigestMismatch: It has not a checksum that it has to have.
        """
        is_complete = self._state is _State.END and not self._buffered
        if not is_complete or self.size != self._coding.length:
            raise BadRequest(
                f"The value is to have {self._coding.length} bytes, as"
                f" X-Amz-Decoded-Content-Length says, and {self.size} came before the"
                " body ended: nothing is stored."
            )
        for name in self._coding.trailers:
            if name not in self._trailers:
                raise BadRequest(f"The trailer {name:.100} was announced and not sent.")
        for name in self._trailers:
            if name.startswith(CHECKSUM) and name not in self._checksums:
                raise BadRequest(
                    f"{name:.100} came and was not announced, so that the value could"
                    " not be verified: name it in X-Amz-Trailer."
                )
        for name, checksum in self._checksums.items():
            text, found = self._trailers[name], checksum.digest()
            digest = digest_in(name, CHECKSUMS[name], text.encode("ascii"))
            if found != digest.value:
                raise DigestMismatch(
                    f"{name} says {text}, but the value has"
                    f" {b64encode(found).decode('ascii')}: it was damaged on its way,"
                    " and nothing is stored.",
                    name,
                )

    def _add(self, piece: bytes) -> None:
        self._left -= len(piece)
        self.size += len(piece)
        for checksum in self._checksums.values():
            checksum.update(piece)
        if self._chain is not None:
            self._digest.update(piece)
        if not self._left:
            self._state = _State.CRLF
            self._check_signature()

    def _read(self, line: bytes) -> None:
        state = self._state
        if state is _State.SIZE:
            self._begin(line)
        elif state is _State.TRAIL:
            self._read_trailer(line)
        elif state is _State.CRLF and not line:
            self._state = _State.SIZE
        else:
            raise BadRequest(
                "A chunk of the aws-chunked body is longer than its size, or something"
                " follows the last one."
            )

    def _begin(self, line: bytes) -> None:
        matched = _SIZE.fullmatch(line)
        if matched is None or (self._coding.is_signed and matched[2] is None):
            raise BadRequest(
                "A chunk of an aws-chunked body begins with its size in hexadecimal"
                " digits, and with ;chunk-signature=SIGNATURE if it is signed."
            )
        size = int(matched[1], 16)
        self._claimed = (matched[2] or b"").decode("ascii")
        if self.size + size > self._coding.length:
            raise BadRequest(
                f"The value is to have {self._coding.length} bytes, as"
                " X-Amz-Decoded-Content-Length says, and more come."
            )
        if not size:
            self._state = _State.TRAIL
            self._check_signature()
            return
        if self._is_small:
            raise BadRequest(
                f"A chunk has at least {LEAST_CHUNK_BYTES} bytes, unless it is the last"
                " one."
            )
        self._is_small = size < LEAST_CHUNK_BYTES
        self._left, self._state = size, _State.DATA

    def _check_signature(self) -> None:
        if self._chain is None:
            return
        right = self._chain.of_chunk(self._before, self._digest.hexdigest())
        self._compare(right, self._claimed)
        self._digest = hashlib.sha256()

    def _compare(self, right: str, claimed: str) -> None:
        if not hmac.compare_digest(right, claimed):
            raise SignatureRefused(
                "A chunk has not the signature that it has to have: it was damaged on"
                " its way, or another secret has signed it. Nothing is stored.",
                "SignatureDoesNotMatch",
            )
        self._before = right

    def _read_trailer(self, line: bytes) -> None:
        if not line:
            self._end()
            return
        matched = _TRAILER.fullmatch(line)
        if matched is None or len(self._trailers) >= MAX_TRAILERS:
            raise BadRequest("What follows the last chunk has to be a few fields.")
        name, value = matched[1].lower().decode("ascii"), matched[2]
        if name in self._trailers:
            raise BadRequest(f"The trailer {name:.100} came twice: send it once.")
        self._trailers[name] = value.decode("ascii")
        if name != _SIGNATURE:
            self._signed += name.encode("ascii") + b":" + value + b"\n"

    def _end(self) -> None:
        self._state = _State.END
        if self._chain is not None and self._coding.trailers:
            digest = hashlib.sha256(self._signed).hexdigest()
            right = self._chain.of_trailers(self._before, digest)
            self._compare(right, self._trailers.get(_SIGNATURE, ""))
