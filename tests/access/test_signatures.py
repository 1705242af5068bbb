"""
Tests for `kvd.access.signatures`, with the examples of AWS's documentation ("Signature
Calculations for the Authorization Header", "Authenticating Requests: Using Query
Parameters").
"""

from __future__ import annotations

from calendar import timegm
from time import strptime

import pytest

from kvd.access.signatures import (
    SKEW_SECONDS,
    is_signed,
    read_signature,
    signing_key,
)
from kvd.errors import SignatureRefused
from kvd.model.requests import Request

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DATE = "20130524T000000Z"
SCOPE = "20130524/us-east-1/s3/aws4_request"
SIGNED_AT = timegm(strptime(DATE, "%Y%m%dT%H%M%SZ"))
EMPTY = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HOST = b"examplebucket.s3.amazonaws.com"


def request(target: bytes, fields: dict[bytes, bytes], method: str = "GET") -> Request:
    """
    A head.
    """
    return Request(
        method,
        target,
        minor=1,
        fields={b"host": HOST, **fields},
        length=None,
        chunked=False,
        keep_alive=True,
        expects_continue=False,
    )


def by_field(
    target: bytes,
    names: bytes,
    signature: bytes,
    fields: dict[bytes, bytes],
    method: str = "GET",
    scope: str = SCOPE,
) -> Request:
    """
    A head with ``Authorization``.
    """
    credential = f"{ACCESS_KEY}/{scope}".encode()
    value = b"AWS4-HMAC-SHA256 Credential=%b,SignedHeaders=%b,Signature=%b" % (
        credential,
        names,
        signature,
    )
    dated = {b"x-amz-date": DATE.encode(), b"authorization": value}
    return request(target, {**dated, **fields}, method)


GET = by_field(
    b"/test.txt",
    b"host;range;x-amz-content-sha256;x-amz-date",
    b"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    {b"range": b"bytes=0-9", b"x-amz-content-sha256": EMPTY},
)
PUT = by_field(
    b"/test%24file.text",
    b"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
    b"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    {
        b"date": b"Fri, 24 May 2013 00:00:00 GMT",
        b"x-amz-storage-class": b"REDUCED_REDUNDANCY",
        b"x-amz-content-sha256": b"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034"
        b"a8b803f8b072",
    },
    "PUT",
)
LIST = by_field(
    b"/?prefix=J&max-keys=2",
    b"host;x-amz-content-sha256;x-amz-date",
    b"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    {b"x-amz-content-sha256": EMPTY},
)
LIFECYCLE = by_field(
    b"/?lifecycle",
    b"host;x-amz-content-sha256;x-amz-date",
    b"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    {b"x-amz-content-sha256": EMPTY},
)
QUERY = (
    b"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE"
    b"%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
    b"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c"
    b"0109b86d86835f995330da4c265957d157751f604d404"
)
PRESIGNED = request(QUERY, {})


@pytest.mark.parametrize("head", [GET, PUT, LIST, LIFECYCLE, PRESIGNED])
def test_examples_of_aws_are_signed(head: Request) -> None:
    """
    With the secret of the examples, and no other.
    """
    assert is_signed(head)
    signature = read_signature(head)

    assert (ACCESS_KEY, SCOPE) == (signature.access_key, signature.scope)
    assert signature.signature == signature.chain(signing_key(SECRET, SCOPE)).seed
    with pytest.raises(SignatureRefused) as refused:
        signature.chain(signing_key(SECRET + "x", SCOPE))
    assert "SignatureDoesNotMatch" == refused.value.code


@pytest.mark.parametrize(
    "head",
    [
        request(QUERY.replace(b"/test.txt", b"/test.tx"), {}),
        request(QUERY.replace(b"=86400", b"=86401"), {}),
        request(QUERY.replace(b"T000000Z", b"T000001Z"), {}),
        request(QUERY + b"&versionId=1", {}),
        request(QUERY, {b"host": b"other"}),
        request(QUERY, {}, "PUT"),
        request(QUERY, {b"x-amz-content-sha256": EMPTY}),
    ],
)
def test_whatever_is_signed_cannot_be_changed(head: Request) -> None:
    """
    The method, the path, the query, the host, the digest of the body; and no field of
    S3 can be added.
    """
    with pytest.raises(SignatureRefused):
        read_signature(head).chain(signing_key(SECRET, SCOPE))


def test_time_bounds_a_signature() -> None:
    """
    By the clock of kvd, in both directions; a presigned URL by what it says.
    """
    plain, presigned = read_signature(GET), read_signature(PRESIGNED)
    for offset in (-SKEW_SECONDS, 0, SKEW_SECONDS):
        plain.check_time(SIGNED_AT + offset)
    presigned.check_time(SIGNED_AT + 86400)
    for signature, offset, code in (
        (plain, SKEW_SECONDS + 1, "RequestTimeTooSkewed"),
        (plain, -SKEW_SECONDS - 1, "RequestTimeTooSkewed"),
        (presigned, -SKEW_SECONDS - 1, "RequestTimeTooSkewed"),
        (presigned, 86401, "AccessDenied"),
    ):
        with pytest.raises(SignatureRefused) as refused:
            signature.check_time(SIGNED_AT + offset)
        assert code == refused.value.code


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (request(b"/", {b"authorization": b"AWS4-HMAC-SHA256 "}), "Authorization"),
        (by_field(b"/", b"host", b"x" * 64, {}), "Authorization"),
        (by_field(b"/", b"host", b"a" * 64, {}), "X-Amz-Content-SHA256"),
        (
            by_field(b"/", b"host", b"a" * 64, {b"x-amz-content-sha256": EMPTY}),
            "have to be signed",
        ),
        (
            by_field(
                b"/",
                b"x-amz-content-sha256;x-amz-date",
                b"a" * 64,
                {b"x-amz-content-sha256": EMPTY},
            ),
            "have to be signed: host",
        ),
        (
            by_field(
                b"/",
                b"host;x-amz-content-sha256;x-amz-date",
                b"a" * 64,
                {b"x-amz-content-sha256": EMPTY},
                scope=SCOPE.replace("/s3/", "/sqs/"),
            ),
            "the credential",
        ),
        (
            by_field(
                b"/",
                b"host;x-amz-content-sha256;x-amz-date",
                b"a" * 64,
                {b"x-amz-content-sha256": EMPTY},
                scope=SCOPE.replace("24", "25", 1),
            ),
            "X-Amz-Date",
        ),
        (
            by_field(
                b"/",
                b"Host",
                b"a" * 64,
                {b"x-amz-content-sha256": EMPTY},
            ),
            "SignedHeaders",
        ),
        (
            by_field(
                QUERY,
                b"host;x-amz-content-sha256;x-amz-date",
                b"a" * 64,
                {b"x-amz-content-sha256": EMPTY},
            ),
            "Authorization",
        ),
        (request(QUERY.replace(b"=86400", b"=0"), {}), "X-Amz-Expires"),
        (request(QUERY.replace(b"=86400", b"=604801"), {}), "X-Amz-Expires"),
        (request(QUERY.replace(b"=AWS4", b"=AWS5"), {}), "X-Amz-Algorithm"),
        (request(QUERY[:-1], {}), "X-Amz-Signature"),
        (request(QUERY.replace(b"0524T000000Z", b"0599T000000Z"), {}), "X-Amz-Date"),
        (request(QUERY.replace(b"T000000Z", b"T990000Z"), {}), "X-Amz-Date"),
    ],
)
def test_malformed_signatures_are_refused(head: Request, said: str) -> None:
    """
    With what is wrong, and without the signature.
    """
    with pytest.raises(SignatureRefused) as refused:
        read_signature(head)
    assert said in refused.value.sentence
    assert "a" * 64 not in refused.value.sentence
