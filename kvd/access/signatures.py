"""
Signed requests: AWS Signature Version 4, in ``Authorization`` or in a query.

A client that has a secret signs the method, the path, the query, some fields and the
digest of the body, for one day and region. The secret itself is never sent. kvd needs
it to compute the same signature, so it cannot keep a mere hash of it.

What is signed can be sent again: for 15 minutes, or as long as a presigned URL says. It
asks for the same thing then, and TLS keeps others from seeing it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from time import strptime
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from kvd.errors import SignatureRefused
from kvd.model.codings import SignatureChain
from kvd.model.requests import Request

SKEW_SECONDS: Final = 15 * 60
"""
So far the client's clock may be from that of kvd.
"""

MAX_EXPIRY_SECONDS: Final = 7 * 86400
"""
So long a presigned URL can be valid.
"""

UNSIGNED: Final = "UNSIGNED-PAYLOAD"

_ALGORITHM: Final = b"AWS4-HMAC-SHA256"
_VERSION_2: Final = b"AWS "
_FIELD: Final = re.compile(
    rb"AWS4-HMAC-SHA256 +Credential=([^, ]+) *, *SignedHeaders=([^, ]+) *,"
    rb" *Signature=([0-9a-f]{64})"
)
_CREDENTIAL: Final = re.compile(
    rb"([A-Za-z0-9]{16,128})/([0-9]{8})/([A-Za-z0-9._-]{1,64})/s3/aws4_request"
)
_DATE: Final = re.compile(rb"[0-9]{8}T[0-9]{6}Z")
_NAMES: Final = re.compile(rb"[a-z0-9-]+(?:;[a-z0-9-]+)*")
_SIGNATURE: Final = re.compile(rb"[0-9a-f]{64}")
_EXPIRY: Final = re.compile(rb"[0-9]{1,6}")
_ORIGIN: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")


def is_signed(request: Request) -> bool:
    """
    Whether a request says that it is signed, in whichever version.
    """
    value = request.fields.get(b"authorization", b"")
    return (
        value.startswith((_ALGORITHM, _VERSION_2))
        or b"X-Amz-Signature=" in request.target
    )


@dataclass(frozen=True, slots=True)
class Signature:
    """
    The signature of one request, which nobody has verified yet.
    """

    access_key: str
    date: str
    scope: str
    signature: str
    text: str
    """What is signed."""
    lasts_seconds: int | None
    """How long a presigned URL is valid; None: it is none."""

    def check_time(self, now: float) -> None:
        """
        Check that the signature is valid now.

        Raises:
            SignatureRefused: It is too old, or of the future.
        """
        signed = timegm(strptime(self.date, "%Y%m%dT%H%M%SZ"))
        lasts = SKEW_SECONDS if self.lasts_seconds is None else self.lasts_seconds
        if now - signed > lasts and self.lasts_seconds is not None:
            raise SignatureRefused("The presigned URL has expired.", "AccessDenied")
        if not -SKEW_SECONDS <= now - signed <= lasts:
            raise SignatureRefused(
                f"The request was signed at {self.date}, which is more than"
                f" {SKEW_SECONDS // 60} minutes from the time of kvd: set the clock.",
                "RequestTimeTooSkewed",
            )

    def chain(self, key: bytes) -> SignatureChain:
        """
        Verify the signature.

        Args:
            key: That of `signing_key` for the scope.

        Returns:
            What the signatures of chunks begin with.

        Raises:
            SignatureRefused: It is wrong.
        """
        right = hmac.new(key, self.text.encode("ascii"), "sha256").hexdigest()
        if not hmac.compare_digest(right, self.signature):
            raise SignatureRefused(
                "The signature is not that of this request with this secret: compare"
                " the secret; a proxy in between must change neither Host nor path.",
                "SignatureDoesNotMatch",
            )
        return SignatureChain(key, self.date, self.scope, self.signature)


def signing_key(secret: str, scope: str) -> bytes:
    """
    The key that signs the requests of one day in one region.

    Args:
        secret: Of the access key.
        scope: ``DAY/REGION/s3/aws4_request``.
    """
    key = b"AWS4" + secret.encode("utf-8")
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode("ascii"), "sha256")
    return key


def read_signature(request: Request) -> Signature:
    """
    The signature of a request. No error repeats it.

    Raises:
        SignatureRefused: It is malformed, or leaves out what has to be signed.
    """
    path, _, query = _origin_form(request.target).partition(b"?")
    parameters = _parameters(query)
    fields = request.fields
    value = fields.get(b"authorization")
    lasts = None
    hashed = fields.get(b"x-amz-content-sha256")
    if value is not None:
        if value.startswith(_VERSION_2):
            raise SignatureRefused(
                "The request has a signature of version 2: have your client sign with"
                " version 4 (signature_version s3v4).",
                "InvalidRequest",
            )
        matched = _FIELD.fullmatch(value)
        if matched is None or b"X-Amz-Signature" in parameters:
            raise _malformed("Authorization has not the form of AWS4-HMAC-SHA256")
        credential, names, signature = matched.groups()
        date = fields.get(b"x-amz-date", b"")
        if hashed is None:
            raise _malformed("X-Amz-Content-SHA256 is missing")
    else:
        credential = parameters.get(b"X-Amz-Credential", b"")
        names = parameters.get(b"X-Amz-SignedHeaders", b"")
        signature = parameters.get(b"X-Amz-Signature", b"")
        date = parameters.get(b"X-Amz-Date", b"")
        expires = parameters.get(b"X-Amz-Expires", b"")
        if parameters.get(b"X-Amz-Algorithm") != _ALGORITHM:
            raise _malformed("X-Amz-Algorithm has to be AWS4-HMAC-SHA256")
        if not _SIGNATURE.fullmatch(signature):
            raise _malformed("X-Amz-Signature has to be 64 hexadecimal digits")
        if not (_EXPIRY.fullmatch(expires) and 1 <= int(expires) <= MAX_EXPIRY_SECONDS):
            raise _malformed(
                f"X-Amz-Expires has to be from 1 to {MAX_EXPIRY_SECONDS} seconds"
            )
        lasts = int(expires)
        hashed = hashed or parameters.get(b"X-Amz-Content-Sha256", UNSIGNED.encode())
    found = _CREDENTIAL.fullmatch(credential)
    if found is None:
        raise _malformed("the credential has to be KEY/DAY/REGION/s3/aws4_request")
    _check_date(date, found[2])
    scope = credential.partition(b"/")[2].decode("ascii")
    canonical = b"\n".join(
        (
            request.method.encode("ascii"),
            quote_from_bytes(unquote_to_bytes(path), safe="/").encode("ascii"),
            _canonical_query(query),
            _canonical_fields(fields, names),
            names,
            hashed,
        )
    )
    digest = hashlib.sha256(canonical).hexdigest()
    text = "\n".join((_ALGORITHM.decode(), date.decode("ascii"), scope, digest))
    return Signature(
        found[1].decode("ascii"),
        date.decode("ascii"),
        scope,
        signature.decode("ascii"),
        text,
        lasts,
    )


def _origin_form(target: bytes) -> bytes:
    return target if target.startswith(b"/") else _ORIGIN.sub(b"", target, count=1)


def _parameters(query: bytes) -> dict[bytes, bytes]:
    pairs = [pair.partition(b"=") for pair in query.split(b"&")]
    return {unquote_to_bytes(name): unquote_to_bytes(text) for name, _, text in pairs}


def _check_date(date: bytes, day: bytes) -> None:
    if _DATE.fullmatch(date) and date.startswith(day):
        try:
            strptime(date.decode("ascii"), "%Y%m%dT%H%M%SZ")
        except ValueError:
            pass
        else:
            return
    raise _malformed(
        "X-Amz-Date has to be a time such as 20261129T120000Z, on the day of the"
        " credential"
    )


def _canonical_query(query: bytes) -> bytes:
    pairs = []
    for pair in query.split(b"&") if query else ():
        name, _, value = pair.partition(b"=")
        if name != b"X-Amz-Signature":
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode("ascii")


def _encoded(text: bytes) -> str:
    return quote_from_bytes(unquote_to_bytes(text), safe="")


def _canonical_fields(fields: Mapping[bytes, bytes], names: bytes) -> bytes:
    if not _NAMES.fullmatch(names):
        raise _malformed("SignedHeaders has to be names in lower case, as host;range")
    signed = names.split(b";")
    missing = [
        name
        for name in (b"host", *fields)
        if (name == b"host" or name.startswith(b"x-amz-")) and name not in signed
    ]
    if missing:
        shown = ", ".join(name.decode("ascii") for name in missing)
        raise SignatureRefused(
            f"These fields have to be signed: {shown:.200}.", "AccessDenied"
        )
    lines = [
        name + b":" + b" ".join(fields.get(name, b"").split()) + b"\n"
        for name in signed
    ]
    return b"".join(lines)


def _malformed(wrong: str) -> SignatureRefused:
    return SignatureRefused(
        f"The signature is malformed: {wrong}.", "AuthorizationHeaderMalformed"
    )
