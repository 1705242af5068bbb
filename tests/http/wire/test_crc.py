"""
Tests for `kvd.http.wire.crc`.
"""

from __future__ import annotations

import random
import zlib
from typing import Final

import pytest

from kvd.http.wire.digests import new_hash

RISING: Final = bytes(range(256))
FALLING: Final = RISING[::-1]

POLYNOMIALS: Final = {
    "crc32": (0xEDB88320, 4),
    "crc32c": (0x82F63B78, 4),
    "crc64nvme": (0x9A6C9329AC4BC9B5, 8),
}
"""
Reflected; and how many bytes a check has.
"""


def of(algorithm: str, *pieces: bytes) -> str:
    """
    The check of pieces, in hexadecimal digits.
    """
    computed = new_hash(algorithm)
    for piece in pieces:
        computed.update(piece)
    return computed.digest().hex()


def bit_by_bit(algorithm: str, data: bytes) -> str:
    """
    The same, as the definition has it.
    """
    polynomial, size = POLYNOMIALS[algorithm]
    ones = (1 << 8 * size) - 1
    value = ones
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return (value ^ ones).to_bytes(size, "big").hex()


@pytest.mark.parametrize(
    ("algorithm", "data", "expected"),
    [
        # The check values of the catalogues.
        ("crc32", b"123456789", "cbf43926"),
        ("crc32c", b"123456789", "e3069283"),
        ("crc64nvme", b"123456789", "ae8b14860a799888"),
        ("crc32", b"", "00000000"),
        ("crc32c", b"", "00000000"),
        ("crc64nvme", b"", "0000000000000000"),
        # RFC 3720, appendix B.4.
        ("crc32c", bytes(32), "8a9136aa"),
        ("crc32c", b"\xff" * 32, "62a8ab43"),
        ("crc32c", RISING[:32], "46dd794e"),
        ("crc32c", FALLING[-32:], "113fdb5c"),
        # NVM Express, NVM Command Set Specification: the test cases of the 64b CRC.
        ("crc64nvme", bytes(4096), "6482d367eb22b64e"),
        ("crc64nvme", b"\xff" * 4096, "c0ddba7302eca3ac"),
        ("crc64nvme", RISING * 16, "3e729f5f6750449c"),
        ("crc64nvme", FALLING * 16, "9a2df64b8e9e517e"),
    ],
)
def test_vectors_of_the_specifications(
    algorithm: str, data: bytes, expected: str
) -> None:
    """
    Also byte by byte.
    """
    assert expected == of(algorithm, data)
    assert expected == of(algorithm, *(data[at : at + 1] for at in range(len(data))))


@pytest.mark.parametrize("algorithm", POLYNOMIALS)
def test_pieces_have_the_check_of_the_whole(algorithm: str) -> None:
    """
    Of any length, however they are cut: what the processor does for long ones gives
    the same as the definition.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(30):
        data = source.randbytes(source.choice((0, 1, 15, 16, 17, 255, 1000, 3000)))
        cuts = sorted(source.randrange(len(data) + 1) for _ in range(5))
        pieces = [
            data[begin:end]
            for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True)
        ]
        assert bit_by_bit(algorithm, data) == of(algorithm, *pieces), seed


def test_a_check_can_be_asked_for_before_the_end() -> None:
    """
    And goes on from there.
    """
    check = new_hash("crc32")
    check.update(b"1234")
    assert zlib.crc32(b"1234").to_bytes(4, "big") == check.digest()
    check.update(b"56789")
    assert bytes.fromhex("cbf43926") == check.digest()
