"""
Understands the requests of S3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from zope.interface import implementer

from kvd.errors import (
    BadRequest,
    CodingUnsupported,
    KeyAbsent,
    OperationUnsupported,
)
from kvd.http.dialects.paths import check_method, query_of, segments_below
from kvd.http.dialects.s3 import answers, listing, multipart
from kvd.http.dialects.s3.checksums import checksums_of, whole_checksums_of
from kvd.http.dialects.s3.documents import code_of, refusal
from kvd.http.dialects.s3.names import (
    TAG_END,
    Bucket,
    bucket_of,
    object_conditions,
    own_tag,
)
from kvd.http.dialects.s3.presigned import (
    OVERRIDDEN,
    metadata_in_query,
    overridden,
    overrides_of,
)
from kvd.http.wire.digests import Verification, digests_of
from kvd.http.wire.fields import entity_tags, metadata_of, parse_http_date
from kvd.http.wire.kept import KeptFields
from kvd.http.wire.targets import every_segment
from kvd.interfaces import ISigningDialect
from kvd.model.codings import AwsChunked
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.digests import Digest
from kvd.model.exchanges import SMALL_BYTES, Values
from kvd.model.keys import Key
from kvd.model.operations import (
    Answer,
    Delete,
    Exchange,
    Get,
    List,
    Operation,
    Put,
    PutPart,
)
from kvd.model.replies import Reply
from kvd.model.requests import Request
from kvd.model.reserved import COLLECTION
from kvd.model.values import Metadata

METHODS: Final = "GET, HEAD, PUT, POST, DELETE"

MAX_DOCUMENT_BYTES: Final = 2 * SMALL_BYTES
"""
Of a document about an object with 10,000 parts.
"""

_KEPT: Final = KeptFields(("x-amz-meta-*",))

_STORED: Final = (201, 204)
_SENT: Final = (200, 206)

_HASHED: Final = b"x-amz-content-sha256"
_SHA256: Final = re.compile(rb"[0-9a-f]{64}")
_NUMBER: Final = re.compile(rb"[0-9]{1,5}")
_RANGE: Final = re.compile(rb"bytes=([0-9]{1,19})-([0-9]{1,19})")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")

# What does not change the request's meaning: of AWS's libraries, of signatures.
_HARMLESS: Final = re.compile(r"x-id|x-amz-.*", re.IGNORECASE)
_OF_LISTING: Final = frozenset(
    (
        *("list-type", "prefix", "delimiter", "max-keys", "encoding-type"),
        *("continuation-token", "start-after", "marker", "fetch-owner"),
        "allow-unordered",
    )
)

# What would have the object stored otherwise than kvd does.
_REFUSED: Final = re.compile(
    rb"x-amz-(?:server-side-encryption-customer-.*|copy-source-server-side-.*"
    rb"|object-lock-.*|write-offset-bytes|tagging)"
)


@implementer(ISigningDialect)
class S3:
    """
    The dialect of S3's clients.
    """

    def understand(self, request: Request, prefix: bytes) -> Operation:
        check_method(request, METHODS, "S3")
        segments = segments_below(request.target, prefix)
        if b"." in every_segment(request.target):
            # Removing it, as HTTP does, gives the key of another object.
            raise BadRequest("A key cannot have a segment that is a dot.")
        query = {
            name: value
            for name, value in query_of(request.target).items()
            if name and not _HARMLESS.fullmatch(name)
        }
        if "AWSAccessKeyId" in query:
            raise OperationUnsupported(
                "This URL has a signature of version 2: have your client sign with"
                " version 4 (signature_version s3v4)."
            )
        if not segments or not segments[0]:
            return _of_service(request, prefix, segments, query)
        bucket = bucket_of(prefix, segments[0])
        if segments[1:] in ([], [b""]):
            return _of_bucket(request, bucket, query)
        return _of_object(request, prefix, bucket, bucket.key(segments[1:]), query)

    def render(
        self,
        reply: Reply,
        request: Request,
        operation: Operation | None,
        writing: bool,
    ) -> Reply:
        error = reply.error
        if isinstance(error, KeyAbsent) and isinstance(operation, Delete):
            return Reply(204)
        if error is not None:
            refused = refusal(reply.status, code_of(error), error.sentence)
            kept = [each for each in reply.fields if each[0] not in _DESCRIBED]
            reply.fields, reply.body = [*refused.fields, *kept], refused.body
            return reply
        if isinstance(operation, Put) and reply.status in _STORED:
            reply.status = 200
        reply.fields = [_shown(*each) for each in reply.fields]
        if isinstance(operation, Get) and reply.status in _SENT:
            reply.fields = overridden(reply.fields, overrides_of(request))
        return reply


_DESCRIBED: Final = ("Content-Type", "X-Content-Type-Options")


def _shown(name: str, value: str) -> tuple[str, str]:
    if name == "ETag":
        return name, f'{value[:-1]}{TAG_END}"'
    # Some clients take the name of such a field as it comes.
    return (name.lower() if name.startswith("X-Amz-") else name), value


def _unknown(request: Request, query: Mapping[str, bytes]) -> OperationUnsupported:
    what = ", ".join(query) or "the path"
    return OperationUnsupported(
        f"kvd serves a subset of S3, without {request.method} of this: {what:.200}."
    )


def _of_service(
    request: Request,
    prefix: bytes,
    segments: Sequence[bytes],
    query: Mapping[str, bytes],
) -> Operation:
    if request.method not in ("GET", "HEAD") or len(segments) > 1 or query:
        raise _unknown(request, query)
    return _exchange(
        request, partial(listing.list_buckets, prefix=prefix), List(prefix)
    )


def _of_bucket(
    request: Request, bucket: Bucket, query: Mapping[str, bytes]
) -> Operation:
    method, whole = request.method, List(bucket.prefix)
    names = set(query)
    if method == "GET" and names <= _OF_LISTING:
        page = listing.page_of(bucket, query)
        needs = List(listing.listed_folder(bucket, page))
        answer = partial(listing.list_objects, bucket=bucket, page=page)
        return _exchange(request, answer, needs)
    if method == "GET" and "uploads" in names:
        prefix = unquote_to_bytes(query.get("prefix", b""))
        answer = partial(multipart.list_uploads, bucket=bucket, prefix=prefix)
        return _exchange(request, answer, whole)
    if method == "GET" and names == {"location"}:
        return _exchange(request, answers.location)
    if method == "GET" and names == {"versioning"}:
        return _exchange(request, answers.versioning)
    if method == "HEAD" and not names:
        return _exchange(request, answers.there, whole)
    if method == "POST" and names == {"delete"}:
        answer = partial(answers.delete_objects, bucket=bucket)
        return _exchange(request, answer)
    marker = Key(bucket.prefix + COLLECTION)
    if method == "PUT" and not names:
        answer = partial(answers.create_bucket, bucket=bucket)
        return _exchange(request, answer, Put(marker), Get(marker))
    if method == "DELETE" and not names:
        answer = partial(answers.delete_bucket, bucket=bucket)
        return _exchange(request, answer, Delete(marker), whole)
    raise _unknown(request, query)


def _of_object(
    request: Request,
    prefix: bytes,
    bucket: Bucket,
    key: Key,
    query: Mapping[str, bytes],
) -> Operation:
    _check_supported(request)
    method, names = request.method, set(query)
    if names and names <= OVERRIDDEN and method in ("GET", "HEAD"):
        overrides_of(request)
        names = set()
    if "uploadId" in names:
        return _of_upload(request, prefix, bucket, key, query)
    if method == "POST" and names == {"uploads"}:
        metadata = _metadata_of(request)
        answer = partial(multipart.begin, bucket=bucket, key=key, metadata=metadata)
        return _exchange(request, answer, PutPart(key))
    if names or method == "POST":
        raise _unknown(request, query)
    if method in ("GET", "HEAD"):
        return Get(key, object_conditions(request), body=method == "GET")
    if method == "DELETE":
        return Delete(key, object_conditions(request))
    if b"x-amz-copy-source" in request.fields:
        return _copy(request, prefix, key)
    coding = _coding_of(request)
    return Put(
        key,
        object_conditions(request),
        _metadata_of(request),
        _digests_of(request, coding),
        coding=coding,
    )


def _of_upload(
    request: Request,
    prefix: bytes,
    bucket: Bucket,
    key: Key,
    query: Mapping[str, bytes],
) -> Operation:
    method, names = request.method, set(query)
    upload = unquote_to_bytes(query["uploadId"]).decode("latin-1")
    named: dict[str, Any] = {"bucket": bucket, "key": key, "upload": upload}
    if method == "PUT" and names == {"uploadId", "partNumber"}:
        number = _number(query, "partNumber", 1)
        part = PutPart(key, folder=bucket.prefix, upload=upload, number=number)
        if b"x-amz-copy-source" in request.fields:
            return _copy_part(request, prefix, part)
        coding = _coding_of(request)
        return replace(part, digests=_digests_of(request, coding), coding=coding)
    needs = PutPart(key)
    if method == "POST" and names == {"uploadId"}:
        answer = partial(
            multipart.complete,
            **named,
            conditions=object_conditions(request),
            checksums=whole_checksums_of(request),
        )
        return _exchange(request, answer, needs, with_checksums=False)
    if method == "DELETE" and names == {"uploadId"}:
        return _exchange(request, partial(multipart.abort, **named), needs)
    if method == "GET":
        after = _number(query, "part-number-marker", 0)
        most = min(_number(query, "max-parts", 1000), 1000)
        answer = partial(multipart.list_parts, **named, after=after, most=most)
        return _exchange(request, answer, needs)
    raise _unknown(request, query)


def _number(query: Mapping[str, bytes], name: str, least: int) -> int:
    text = query.get(name, b"%d" % least)
    number = int(text) if _NUMBER.fullmatch(text) else -1
    if not (least if name == "partNumber" else 0) <= number <= multipart.MOST_PARTS:
        raise BadRequest(
            f"{name} has to be a number up to {multipart.MOST_PARTS}, and that of a"
            " part is at least 1."
        )
    return number


def _copy(request: Request, prefix: bytes, target: Key) -> Exchange:
    fields = request.fields
    source = _source_of(request, prefix)
    directive = fields.get(b"x-amz-metadata-directive", b"COPY").upper()
    if directive not in (b"COPY", b"REPLACE"):
        raise BadRequest("x-amz-metadata-directive has to be COPY or REPLACE.")
    metadata = _metadata_of(request) if directive == b"REPLACE" else None
    if metadata is None and source == target:
        raise BadRequest(
            "An object is copied to itself only with other metadata: say REPLACE."
        )
    answer = partial(
        answers.copy,
        source=source,
        target=target,
        conditions=object_conditions(request),
        of_source=_conditions_of_source(request),
        metadata=metadata,
    )
    return _exchange(request, answer, Get(source), Put(target))


def _copy_part(request: Request, prefix: bytes, part: PutPart) -> Exchange:
    text = request.fields.get(b"x-amz-copy-source-range")
    matched = None if text is None else _RANGE.fullmatch(text)
    if text is not None and matched is None:
        raise BadRequest("x-amz-copy-source-range has to be bytes=FIRST-LAST.")
    source = _source_of(request, prefix)
    answer = partial(
        answers.copy_part,
        bucket=Bucket(part.folder),
        key=part.key,
        upload=part.upload,
        number=part.number,
        source=source,
        of_source=_conditions_of_source(request),
        part=None if matched is None else (int(matched[1]), int(matched[2])),
    )
    return _exchange(request, answer, Get(source), PutPart(part.key))


def _source_of(request: Request, prefix: bytes) -> Key:
    """
    The key of the value that is copied.
    """
    text = request.fields[b"x-amz-copy-source"]
    if b"?" in text:
        raise OperationUnsupported("There are no versions here: leave out versionId.")
    path = unquote_to_bytes(text).lstrip(b"/")
    name, slash, inner = path.partition(b"/")
    if not slash or not inner:
        raise BadRequest("x-amz-copy-source has to be BUCKET/KEY.")
    return bucket_of(prefix, name).key(inner.split(b"/"))


def _conditions_of_source(request: Request) -> Conditions:
    fields = request.fields
    names = [b"x-amz-copy-source-if-match", b"x-amz-copy-source-if-none-match"]
    match, none_match = map(fields.get, names)
    since = fields.get(b"x-amz-copy-source-if-unmodified-since")
    if not (match or none_match or since):
        return UNCONDITIONAL
    return Conditions(
        entity_tags(_quoted(match)) if match else None,
        entity_tags(_quoted(none_match)) if none_match else None,
        None,
        parse_http_date(since),
    )


def _quoted(text: bytes) -> bytes:
    return b'"' + own_tag(text.decode("latin-1")).encode("latin-1") + b'"'


def _check_supported(request: Request) -> None:
    for name in request.fields:
        if _REFUSED.fullmatch(name):
            raise OperationUnsupported(
                f"kvd does not support {name.decode('ascii')}: leave it out."
            )


def _metadata_of(request: Request) -> Metadata:
    fields = request.fields
    in_query = metadata_in_query(request)
    if in_query:
        fields = {**in_query, **fields}
        request = replace(request, fields=fields)
    coding = fields.get(b"content-encoding", b"")
    if b"aws-chunked" in coding.lower():
        codings = [each.strip() for each in coding.split(b",")]
        left = b", ".join(each for each in codings if each.lower() != b"aws-chunked")
        request = replace(request, fields={**fields, b"content-encoding": left})
    put = _KEPT.add(Put(Key(b""), metadata=metadata_of(request)), request)
    return put.metadata


def _digests_of(
    request: Request, coding: AwsChunked | None = None, *, with_checksums: bool = True
) -> tuple[Digest, ...]:
    """
    What the body has to have.

    Args:
        request: Its head.
        coding: How the value is encoded in it.
        with_checksums: Whether the checksums are those of the body, and not those of an
            object whose parts it names.
    """
    fields = request.fields
    digests = [*digests_of(request)]
    hashed = fields.get(_HASHED, b"")
    if _SHA256.fullmatch(hashed):
        value = bytes.fromhex(hashed.decode("ascii"))
        digests.append(Digest("X-Amz-Content-SHA256", "sha256", value))
    elif hashed not in (b"", b"UNSIGNED-PAYLOAD") and not _is_streamed(request):
        # What is signed has to say something about the body.
        raise BadRequest(
            "X-Amz-Content-SHA256 has to be the SHA-256 of the body, UNSIGNED-PAYLOAD,"
            " or the kind of its chunks."
        )
    if with_checksums:
        digests += checksums_of(request, coding.trailers if coding else ())
    return tuple(digests)


def _is_streamed(request: Request) -> bool:
    return request.fields.get(_HASHED, b"").startswith(b"STREAMING-")


_STREAMS: Final[Mapping[bytes, tuple[bool, bool]]] = {
    b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False),
    b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True),
    b"STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
}


def _coding_of(request: Request) -> AwsChunked | None:
    fields = request.fields
    hashed = fields.get(_HASHED, b"")
    if not hashed.startswith(b"STREAMING-"):
        if b"aws-chunked" in fields.get(b"content-encoding", b"").lower():
            raise CodingUnsupported(
                "aws-chunked needs X-Amz-Content-SHA256 with the kind of its chunks."
            )
        return None
    if hashed not in _STREAMS:
        raise CodingUnsupported(f"kvd does not decode {hashed[:80].decode('latin-1')}.")
    is_signed, has_trailers = _STREAMS[hashed]
    length = fields.get(b"x-amz-decoded-content-length", b"")
    if not _LENGTH.fullmatch(length):
        raise BadRequest(
            "X-Amz-Decoded-Content-Length has to say how long the value is."
        )
    trailers: tuple[str, ...] = ()
    if has_trailers:
        names = fields.get(b"x-amz-trailer", b"").lower().split(b",")
        trailers = tuple(
            name.strip().decode("latin-1") for name in names if name.strip()
        )
    return AwsChunked(int(length), is_signed, trailers)


def _exchange(
    request: Request,
    answer: Answer,
    *needs: Put | Get | Delete | List,
    with_checksums: bool = True,
) -> Exchange:
    """
    An exchange whose body has the digests that it has to have.

    Args:
        request: Its head.
        answer: See `Exchange`.
        needs: See `Exchange`.
        with_checksums: See `_digests_of`.
    """
    if _is_streamed(request):
        raise CodingUnsupported("The body of this request has to come as it is.")
    digests = _digests_of(request, with_checksums=with_checksums)
    return Exchange(
        partial(_checked, answer=answer, digests=digests),
        needs,
        MAX_DOCUMENT_BYTES if request.method == "POST" else SMALL_BYTES,
    )


async def _checked(
    values: Values, body: bytes, answer: Answer, digests: Sequence[Digest]
) -> Reply:
    verification = Verification(digests)
    verification.update(body)
    verification.check()
    return await answer(values, body)


dialect = S3()
