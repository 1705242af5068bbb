"""
Tests for `kvd.http.wire.aws_chunked`, with the example of AWS's documentation
("Signature Calculations: Transferring Payload in Multiple Chunks").
"""

from __future__ import annotations

import random
import zlib
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256

import pytest

from kvd.access.signatures import signing_key
from kvd.errors import BadRequest, DigestMismatch, KvdError, SignatureRefused
from kvd.http.wire.aws_chunked import (
    CHECKSUMS,
    LEAST_CHUNK_BYTES,
    MAX_LINE_BYTES,
    AwsChunkedBody,
)
from kvd.http.wire.digests import new_hash
from kvd.model.codings import AwsChunked, SignatureChain
from tests.access.test_signatures import DATE, SCOPE, SECRET

SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
SIGNATURES = (
    b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
SIZES = (65536, 1024, 0)
EXAMPLE = b"".join(
    b"%x;chunk-signature=%b\r\n%b\r\n" % (size, signature, b"a" * size)
    for size, signature in zip(SIZES, SIGNATURES, strict=True)
)
CHAIN = SignatureChain(signing_key(SECRET, SCOPE), DATE, SCOPE, SEED)
SIGNED = AwsChunked(66560, True, chain=CHAIN)

CRC = "x-amz-checksum-crc32"


def taken(coding: AwsChunked, pieces: Iterable[bytes]) -> bytes:
    """
    The value in a body.
    """
    body = AwsChunkedBody(coding)
    value = b"".join(map(body.take, pieces))
    body.finish()
    assert len(value) == body.size
    return value


def trailing(
    value: bytes, crc: str | None = None, *sizes: int, name: str = CRC
) -> bytes:
    """
    A body with a checksum behind the chunks.
    """
    text, at = b"", 0
    for size in sizes or (len(value),):
        text += b"%x\r\n%b\r\n" % (size, value[at : at + size])
        at += size
    given = crc or b64encode(zlib.crc32(value).to_bytes(4, "big")).decode()
    return text + f"0\r\n{name}:{given}\r\n\r\n".encode()


def pieces_of(text: bytes, size: int) -> list[bytes]:
    """
    Text, cut.
    """
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_example_of_aws_is_read() -> None:
    """
    Whole, and however it is cut.
    """
    assert b"a" * 66560 == taken(SIGNED, [EXAMPLE])
    assert b"a" * 66560 == taken(SIGNED, pieces_of(EXAMPLE, 1))
    for _ in range(5):
        size = random.randrange(2, 70_000)
        assert b"a" * 66560 == taken(SIGNED, pieces_of(EXAMPLE, size)), size


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE.replace(b"aaa", b"aab", 1),
        EXAMPLE.replace(SIGNATURES[0], SIGNATURES[1]),
        EXAMPLE.replace(SIGNATURES[2], SIGNATURES[1]),
        EXAMPLE.replace(b";chunk-signature=" + SIGNATURES[1], b""),
        EXAMPLE[: -len(SIGNATURES[2]) - 22],
        EXAMPLE + b"x",
        EXAMPLE + b"x\r\n",
    ],
)
def test_damaged_chunks_are_refused(text: bytes) -> None:
    """
    Also where one is missing, or not signed.
    """
    with pytest.raises((SignatureRefused, BadRequest)):
        taken(SIGNED, [text])


def test_checksum_behind_the_chunks_is_verified() -> None:
    """
    In any case of letters.
    """
    value = random.randbytes(30_000)
    coding = AwsChunked(len(value), False, (CRC,))
    for text in (
        trailing(value),
        trailing(value, None, 10_000, 10_000, 10_000),
        trailing(value).replace(CRC.encode(), CRC.upper().encode()),
    ):
        assert value == taken(coding, [text])
        assert value == taken(coding, pieces_of(text, 7))

    with pytest.raises(DigestMismatch) as refused:
        taken(coding, [trailing(value, "AAAAAA==")])
    assert CRC == refused.value.field
    with pytest.raises(BadRequest, match="announced and not sent"):
        taken(coding, [trailing(value).replace(CRC.encode(), b"other")])


def test_trailer_that_comes_twice_is_refused() -> None:
    """
    Else one of both would not be verified.
    """
    value = b"value"
    right = trailing(value)
    wrong = f"{CRC.upper()}:AAAAAA==\r\n\r\n".encode()
    with pytest.raises(BadRequest, match="twice"):
        taken(AwsChunked(len(value), False, (CRC,)), [right[:-2] + wrong])
    name = f"{CRC}:".encode()
    first = right.replace(name, f"{CRC}:AAAAAA==\r\n{CRC}:".encode())
    with pytest.raises(BadRequest, match="twice"):
        taken(AwsChunked(len(value), False, (CRC,)), [first])


@pytest.mark.parametrize("name", CHECKSUMS)
def test_every_algorithm_is_verified_however_the_body_is_cut(name: str) -> None:
    """
    Chunks of any sizes, in pieces of any sizes; one changed byte is found out.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(5):
        sizes = [source.randrange(LEAST_CHUNK_BYTES, 70_000) for _ in range(3)]
        value = source.randbytes(sum(sizes))
        right = new_hash(CHECKSUMS[name])
        right.update(value)
        given = b64encode(right.digest()).decode()
        coding = AwsChunked(len(value), False, (name,))
        size = source.choice((source.randrange(9, 99), source.randrange(99, 99_999)))
        text = trailing(value, given, *sizes, name=name)
        assert value == taken(coding, pieces_of(text, size)), seed
        at = source.randrange(len(value))
        damaged = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
        text = trailing(damaged, given, *sizes, name=name)
        with pytest.raises(DigestMismatch) as refused:
            taken(coding, pieces_of(text, size))
        assert name == refused.value.field, seed


def test_trailers_are_signed_too() -> None:
    """
    By what is before them.
    """
    value = b"v" * 10
    last = AwsChunkedBody(AwsChunked(0, False))
    assert b"" == last.take(b"0\r\n\r\n")
    one = CHAIN.of_chunk(SEED, sha256(value).hexdigest())
    end = CHAIN.of_chunk(one, sha256().hexdigest())
    crc = b64encode(zlib.crc32(value).to_bytes(4, "big")).decode()
    line = f"{CRC}:{crc}"
    signature = CHAIN.of_trailers(end, sha256(line.encode() + b"\n").hexdigest())
    text = (
        f"a;chunk-signature={one}\r\n{value.decode()}\r\n0;chunk-signature={end}\r\n"
        f"{line}\r\nx-amz-trailer-signature:{signature}\r\n\r\n"
    )
    coding = AwsChunked(10, True, (CRC,), CHAIN)

    assert value == taken(coding, [text.encode()])
    with pytest.raises(SignatureRefused):
        taken(coding, [text.replace(signature, "0" * 64).encode()])


@pytest.mark.parametrize(
    "text",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"b\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\r\n5\r\nworld\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\nno field\r\n",
        b"0\r\n" + b"a:b\r\n" * 17,
        b"1" * MAX_LINE_BYTES,
    ],
)
def test_what_is_no_chunk_is_refused(text: bytes) -> None:
    """
    Also more bytes than the value was to have, fewer, and many small chunks.
    """
    for pieces in ([text], pieces_of(text, 1)):
        with pytest.raises(BadRequest):
            taken(AwsChunked(10, False), pieces)


def test_any_bytes_are_a_value_or_an_error() -> None:
    """
    And nothing else.
    """
    seed = random.randrange(2**32)
    source = random.Random(seed)
    value = source.randbytes(LEAST_CHUNK_BYTES * 2)
    text = trailing(value, None, LEAST_CHUNK_BYTES, LEAST_CHUNK_BYTES)
    coding = AwsChunked(len(value), False, (CRC,))
    for _ in range(200):
        changed = bytearray(text)
        for _ in range(source.randrange(1, 4)):
            at = source.choice((0, 1, 4, 5, 6, len(text) - source.randrange(1, 60)))
            changed[at] = source.randrange(256)
        try:
            found = taken(coding, [bytes(changed)])
        except KvdError:
            continue
        assert value == found, seed
