"""
Tests for `kvd.http.wire.digests`.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest

from kvd.errors import BadRequest, DigestMismatch
from kvd.http.wire.digests import Verification, digests_of
from kvd.model.digests import Digest
from kvd.model.requests import Request

BODY = b"hello"
SHA256 = hashlib.sha256(BODY).digest()
SHA512 = hashlib.sha512(BODY).digest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).digest()
IN_256, IN_512, IN_MD5 = map(b64encode, (SHA256, SHA512, MD5))


def with_fields(**fields: bytes) -> Request:
    """
    A PUT with some fields.
    """
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Request("PUT", b"/k", 1, named, None, False, True, False)


LISTS: list[tuple[bytes, list[tuple[str, bytes]]]] = [
    (b"sha-256=:" + IN_256 + b":", [("sha256", SHA256)]),
    (b"sha-512=:" + IN_512 + b":", [("sha512", SHA512)]),
    # Padding may be missing.
    (b"sha-256=:" + IN_256.rstrip(b"=") + b":", [("sha256", SHA256)]),
    (
        b"sha-256=:" + IN_256 + b": ,\tsha-512=:" + IN_512 + b":",
        [("sha256", SHA256), ("sha512", SHA512)],
    ),
    # What is not known is ignored, with all that belongs to it.
    (b"md5=:" + IN_MD5 + b":", []),
    (b"crc32c=:AAAA:, sha-256=:" + IN_256 + b":", [("sha256", SHA256)]),
    (b'unknown.*_-1=::;a;b=1;c=-1.5;d="x\\"y";e=tok/en;f=:AA==:;g=?0', []),
    (b"sha-256=:" + IN_256 + b":;a; b=1", [("sha256", SHA256)]),
    # Of one name, the last counts.
    (
        b"sha-256=:" + b64encode(bytes(32)) + b":, sha-256=:" + IN_256 + b":",
        [("sha256", SHA256)],
    ),
    (b"", []),
]


@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize(("value", "expected"), LISTS)
def test_digests_are_read(
    name: str, value: bytes, expected: list[tuple[str, bytes]]
) -> None:
    """
    RFC 9530, in the syntax of structured fields.
    """
    request = with_fields(**{name.lower().replace("-", "_"): value})

    digests = tuple(Digest(name, algorithm, value) for algorithm, value in expected)
    assert digests == digests_of(request)


@pytest.mark.parametrize("name", ["content_digest", "repr_digest"])
@pytest.mark.parametrize(
    "value",
    [
        *(b"sha-256", b"sha-256=", b"sha-256=abc", b"sha-256=1", b'sha-256="abc"'),
        *(b"sha-256=:" + IN_256, b"sha-256=" + IN_256, b"sha-256=:a_-b:"),
        *(
            b"sha-256=:!:",
            b"sha-256=:AAAA:",
            b"sha-256=::",
            b"sha-512=:" + IN_256 + b":",
        ),
        *(b"sha-256=:A:", b"sha-256=:=AAA:", b"SHA-256=:" + IN_256 + b":"),
        *(b"sha-256=:" + IN_256 + b":,", b", sha-256=:" + IN_256 + b":"),
        *(b"sha-256=:" + IN_256 + b": x", b"sha-256=:" + IN_256 + b":;"),
        *(b"sha-256 =:" + IN_256 + b":", b"sha-256=:" + IN_256 + b":;=1"),
        *(b"unknown", b"unknown=1", b"unknown=:!:", b"\xff", b"=::"),
    ],
)
def test_what_are_no_digests_is_refused(name: str, value: bytes) -> None:
    """
    Who sends one wants the body to be checked.
    """
    with pytest.raises(BadRequest, match="Digest is "):
        digests_of(with_fields(**{name: value}))


def test_a_digest_by_md5_is_read() -> None:
    """
    RFC 1864, with nothing around it.
    """
    assert (Digest("Content-MD5", "md5", MD5),) == digests_of(
        with_fields(content_md5=IN_MD5)
    )
    hexadecimal = MD5.hex().encode()
    for value in (b"", b"x", b"!" * 24, hexadecimal, IN_256, IN_MD5 + b", " + IN_MD5):
        with pytest.raises(BadRequest, match="Content-MD5 is "):
            digests_of(with_fields(content_md5=value))


def test_long_fields_take_no_longer_than_their_bytes() -> None:
    """
    As many as a head can have.
    """
    many = b", ".join([b"a=:AAAA:;b=c"] * 1_000)

    assert () == digests_of(with_fields(content_digest=many))
    for value in (many + b";", b"a=::" + b";a" * 8_000 + b"!", b"a=::" + b" " * 16_000):
        with pytest.raises(BadRequest):
            digests_of(with_fields(content_digest=value))


def test_a_body_has_all_its_digests() -> None:
    """
    However it is cut.
    """
    digests = digests_of(
        with_fields(
            content_digest=b"sha-256=:" + IN_256 + b":, sha-512=:" + IN_512 + b":",
            repr_digest=b"sha-256=:" + IN_256 + b":",
            content_md5=IN_MD5,
        )
    )
    assert 4 == len(digests)
    verification = Verification(digests)
    for piece in (b"h", b"", b"ello"):
        verification.update(piece)

    verification.check()


@pytest.mark.parametrize("name", ["content_digest", "repr_digest", "content_md5"])
@pytest.mark.parametrize("body", [b"", b"hell", b"hello ", b"Hello"])
def test_another_body_is_found_out(name: str, body: bytes) -> None:
    """
    By each of the fields alone; the sentence has both digests.
    """
    fields = {
        "content_digest": b"sha-256=:" + IN_256 + b":, sha-512=:" + IN_512 + b":",
        "repr_digest": b"sha-512=:" + IN_512 + b":, other=:AAAA:",
        "content_md5": IN_MD5,
    }
    verification = Verification(digests_of(with_fields(**{name: fields[name]})))
    verification.update(body)

    with pytest.raises(DigestMismatch) as refused:
        verification.check()

    said = str(refused.value)
    assert name.replace("_", "-") in said.lower()
    assert any(text.decode() in said for text in (IN_256, IN_512, IN_MD5))
