"""
An S3 engine in memory, a test double. It passes what SeaweedFS passes (`test_engine`),
and is as narrow as others are.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs, unquote
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

ACCESS_KEY = "kvdkey"
SECRET_KEY = "kvdsecret"
BUCKET = "values"

MAX_NAME_BYTES = 1024
MAX_FIELD_BYTES = 256
MIB = 1024 * 1024
HTTP_CHUNK_BYTES = 100_000
SKEW_SECONDS = 15 * 60


class Refusal(Exception):
    """
    A reply of failure.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass
class Object:
    """
    A stored object.
    """

    body: bytes
    fields: dict[str, str]
    tag: str
    changed: float


@dataclass
class Upload:
    """
    An upload in parts.
    """

    name: str
    fields: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryEngine(Resource):
    """
    An engine with one bucket.
    """

    isLeaf = True

    def __init__(self, now: Any = time.time) -> None:
        super().__init__()
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.bucket = BUCKET
        self.now = now
        self.ignored: set[tuple[str, str]] = set()
        """Pairs of a method and a condition that the engine does not look at."""
        self.bare_tags = False
        """Whether it takes entity tags in conditions only without quotes."""
        self.conflict = Refusal(412, "PreconditionFailed")
        """What a change with a condition that does not hold is answered with."""
        self.by_folder = False
        """Whether it lists folder by folder, as SeaweedFS does."""
        self.tells_time = False
        """Whether the reply to a PUT says when it was, as that of Swift."""
        self.lose_next = 0
        """How many PUTs are done, and the connection ends before the reply."""
        self.fail_next: list[tuple[int, str]] = []
        """The replies to the next requests, instead of what they ask for."""
        self.fail_only = ""
        """The method of the requests that `fail_next` is for; empty: all."""
        self.cut_next = 0
        """How many GETs are cut off in the middle of the body."""
        self.stop_next = False
        """Whether the next GET of more than 1 MiB stops in the middle of the body."""
        self.silent_at = 0
        """Which of the next requests gets no reply: 1, the next one; 0: none."""
        self.waiting = 0
        """How many requests wait for a reply, or the rest of one, that never comes."""
        self.part_bytes = 0
        """How much of a part of a value a reply has at most; 0: all of it."""
        self.chunked = False
        """Whether parts of a value come in chunks, without a length."""
        self.seen: list[tuple[str, str]] = []
        """The methods and names of all requests so far."""

    # -- HTTP -----------------------------------------------------------------

    def render(self, request: Request) -> Any:
        method = request.method.decode()
        path, _, query = request.uri.decode().partition("?")
        _, bucket, *rest = unquote(path).split("/", 2)
        name = rest[0] if rest else ""
        self.seen.append((method, name))
        if self.silent_at:
            self.silent_at -= 1
            if not self.silent_at:
                return self._keep_waiting(request)
        try:
            if self.fail_next and self.fail_only in ("", method):
                raise Refusal(*self.fail_next.pop(0))
            assert request.content is not None
            body = request.content.read()
            self._check_signature(request, body)
            if bucket != self.bucket:
                raise Refusal(404, "NoSuchBucket")
            if len(name.encode()) > MAX_NAME_BYTES:
                raise Refusal(400, "KeyTooLongError")
            if any(len(part) > 255 or part == ".." for part in name.split("/")):
                raise Refusal(400, "InvalidURI")
            asked = {key: values[0] for key, values in parse_qs(query, True).items()}
            return self._answer(request, method, name, asked, body)
        except Refusal as refusal:
            request.setResponseCode(refusal.status)
            text = f"<Error><Code>{refusal.code}</Code></Error>"
            if refusal.status == 416:
                request.setHeader("Content-Range", "bytes */0")
            return self._document(request, text)

    def _keep_waiting(self, request: Request) -> Any:
        def given_up(_: object) -> None:
            self.waiting -= 1

        self.waiting += 1
        request.notifyFinish().addErrback(given_up)
        return NOT_DONE_YET

    def _answer(
        self,
        request: Request,
        method: str,
        name: str,
        asked: dict[str, str],
        body: bytes,
    ) -> Any:
        if not name:
            return self._document(request, self._list(asked))
        if "uploads" in asked:
            return self._begin(request, name)
        if "uploadId" in asked:
            return self._go_on(request, method, name, asked, body)
        if method == "PUT":
            self._check(request, "PUT", name)
            self._store(
                name, body, self._fields(request), f'"{_md5(body).hexdigest()}"'
            )
            if self.lose_next:
                self.lose_next -= 1
                cast(Any, request).loseConnection()
                return NOT_DONE_YET
            request.setHeader("ETag", self.objects[name].tag)
            if self.tells_time:
                changed = formatdate(int(self.objects[name].changed), usegmt=True)
                request.setHeader("Last-Modified", changed)
            return b""
        if method == "DELETE":
            self._check(request, "DELETE", name)
            self.objects.pop(name, None)
            request.setResponseCode(204)
            return b""
        return self._get(request, name)

    def _document(self, request: Request, text: str) -> bytes:
        request.setHeader("Content-Type", "application/xml")
        return f"<?xml version='1.0' encoding='UTF-8'?>\n{text}".encode()

    def _fields(self, request: Request) -> dict[str, str]:
        fields = {
            name: value
            for name, value in _fields(request).items()
            if name.startswith("x-amz-meta-") or name == "content-type"
        }
        if any(len(value) > MAX_FIELD_BYTES for value in fields.values()):
            raise Refusal(400, "InvalidRequest")
        return fields

    # -- objects --------------------------------------------------------------

    def _store(self, name: str, body: bytes, fields: dict[str, str], tag: str) -> None:
        self.objects[name] = Object(body, fields, tag, self.now())

    def _check(self, request: Request, method: str, name: str) -> None:
        fields = _fields(request)
        current = self.objects.get(name)
        obeyed = {name for name in fields if (method, name) not in self.ignored}
        if "if-none-match" in obeyed and current is not None:
            raise self.conflict
        if "if-match" in obeyed:
            tag = None if current is None else current.tag
            if self.bare_tags and tag is not None:
                tag = tag.strip('"')
            if fields["if-match"] != tag:
                raise self.conflict

    def _get(self, request: Request, name: str) -> Any:
        current = self.objects.get(name)
        if current is None:
            raise Refusal(404, "NoSuchKey")
        fields = _fields(request)
        if fields.get("if-match", current.tag) != current.tag:
            raise Refusal(412, "PreconditionFailed")
        body, size = current.body, len(current.body)
        if "range" in fields:
            first, last = fields["range"].removeprefix("bytes=").split("-")
            if int(first) >= size:
                raise Refusal(416, "InvalidRange")
            end = min(int(last or size), size - 1)
            if self.part_bytes:
                end = min(end, int(first) + self.part_bytes - 1)
            body = body[int(first) : end + 1]
            request.setResponseCode(206)
            request.setHeader("Content-Range", f"bytes {first}-{end}/{size}")
        for field_name, value in current.fields.items():
            request.setHeader(field_name, value)
        request.setHeader("ETag", current.tag)
        request.setHeader(
            "Last-Modified", formatdate(int(current.changed), usegmt=True)
        )
        if not (self.chunked and "range" in fields):
            request.setHeader("Content-Length", str(len(body)))
        if request.method == b"HEAD":
            return b""
        if self.cut_next and body:
            self.cut_next -= 1
            request.write(body[: len(body) // 2])
            cast(Any, request).loseConnection()
            return NOT_DONE_YET
        if self.stop_next and len(body) > MIB:
            self.stop_next = False
            request.write(body[:MIB])
            return self._keep_waiting(request)
        # If in chunks, then in several.
        step = HTTP_CHUNK_BYTES if self.chunked else len(body) or 1
        for at in range(0, len(body), step):
            request.write(body[at : at + step])
        request.finish()
        return NOT_DONE_YET

    def _list(self, asked: dict[str, str]) -> str:
        prefix, after = asked.get("prefix", ""), asked.get("start-after", "")
        most = min(1000, int(asked.get("max-keys", "1000")))
        order: Callable[[str], Any] = str
        if self.by_folder:
            order = partial(str.split, sep="/")
        names = [
            name
            for name in sorted(self.objects, key=order)
            if name.startswith(prefix) and (not after or order(name) > order(after))
        ]
        more = "true" if len(names) > most else "false"
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key></Contents>" for name in names[:most]
        )
        return (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{more}</IsTruncated>{contents}</ListBucketResult>"
        )

    # -- uploads in parts -----------------------------------------------------

    def _begin(self, request: Request, name: str) -> bytes:
        number = f"upload-{len(self.seen)}"
        self.uploads[number] = Upload(name, self._fields(request))
        text = f"<UploadId>{number}</UploadId>"
        return self._document(
            request,
            f"<InitiateMultipartUploadResult>{text}</InitiateMultipartUploadResult>",
        )

    def _go_on(
        self,
        request: Request,
        method: str,
        name: str,
        asked: dict[str, str],
        body: bytes,
    ) -> bytes:
        upload = self.uploads.get(asked["uploadId"])
        if upload is None or upload.name != name:
            raise Refusal(404, "NoSuchUpload")
        if method == "DELETE":
            del self.uploads[asked["uploadId"]]
            request.setResponseCode(204)
            return b""
        if method == "PUT":
            upload.parts[int(asked["partNumber"])] = body
            request.setHeader("ETag", f'"{_md5(body).hexdigest()}"')
            return b""
        self._check(request, "POST", name)
        parts = []
        for part in fromstring(body).iter("Part"):
            data = upload.parts.get(int(part.findtext("PartNumber") or 0))
            tag = (part.findtext("ETag") or "").strip('"')
            if data is None or _md5(data).hexdigest() != tag:
                raise Refusal(400, "InvalidPart")
            parts.append(data)
        digests = b"".join(_md5(data).digest() for data in parts)
        tag = f'"{_md5(digests).hexdigest()}-{len(parts)}"'
        self._store(name, b"".join(parts), upload.fields, tag)
        del self.uploads[asked["uploadId"]]
        return self._document(
            request, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"
        )

    # -- signatures -----------------------------------------------------------

    def _check_signature(self, request: Request, body: bytes) -> None:
        fields = _fields(request)
        given = fields.get("authorization", "")
        if f"Credential={ACCESS_KEY}/" not in given:
            raise Refusal(403, "InvalidAccessKeyId")
        stamp = fields["x-amz-date"]
        sent = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(sent - self.now()) > SKEW_SECONDS:
            raise Refusal(403, "RequestTimeTooSkewed")
        digest = fields["x-amz-content-sha256"]
        if digest not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        again = AWSRequest(
            request.method.decode(),
            f"http://{fields['host']}{request.uri.decode()}",
            headers={name: fields[name] for name in names},
            data=body,
        )
        again.context["timestamp"] = stamp
        region = given.split("/")[2]
        auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", region)
        text = auth.string_to_sign(again, auth.canonical_request(again))
        if not given.endswith(f"Signature={auth.signature(text, again)}"):
            raise Refusal(403, "SignatureDoesNotMatch")


def _fields(request: Request) -> dict[str, str]:
    return {
        name.decode().lower(): values[-1].decode()
        for name, values in request.requestHeaders.getAllRawHeaders()
    }


def _md5(data: bytes) -> Any:
    return hashlib.md5(data, usedforsecurity=False)
