"""
Tests for `kvd.http.dialects.s3`, with requests that botocore has signed.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final
from unittest import mock
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from twisted.internet.task import Clock

from kvd.access import throttle
from kvd.access.authentication import Authentication
from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
from kvd.access.rates import Rates
from kvd.access.rights_file import parse_rights
from kvd.access.throttle import Throttle
from kvd.errors import (
    Forbidden,
    KvdError,
    QuotaFull,
    SignatureRefused,
    StoreBusy,
    StoreFull,
    SyncFailed,
    TooManyRequests,
)
from kvd.http import multipart
from kvd.http.authorization import Authorization
from kvd.http.dialects.s3 import multipart as s3_multipart
from kvd.http.dialects.s3.documents import code_of
from kvd.model.keys import Key
from kvd.settings import DialectChoice
from tests.http.dialects.cases import DialectCase
from tests.http.test_connection import body, field, status
from tests.http.wire.test_crc import bit_by_bit
from tests.stepped import inline

KEY = Credentials("KVDAAAABBBBCCCCDDDD", "secret-of-thirty-two-bytes-or-more")
OTHER = Credentials("KVDEEEEFFFFGGGGHHHH", "another-secret-of-thirty-two-bytes")
OLD = Credentials("KVDIIIIJJJJKKKKLLLL", "an-expired-secret-of-thirty-two-byte")

RIGHTS = f"""
[anonymous.rights]
"/s3/open/" = ["read"]
[users.ci.rights]
"/s3/" = ["read", "write", "delete", "list"]
[[users.ci.s3-keys]]
id = "{KEY.access_key}"
secret = "{KEY.secret_key}"
[[users.ci.s3-keys]]
id = "{OLD.access_key}"
secret = "{OLD.secret_key}"
expires = 2001-01-01
[users.writer.rights]
"/s3/b/in/" = ["write"]
[[users.writer.s3-keys]]
id = "{OTHER.access_key}"
secret = "{OTHER.secret_key}"
[prefixes."/s3/once/"]
write-once = true
"""

HOST = "kvd"


def crc32c(data: bytes) -> str:
    """
    In base64.
    """
    return b64encode(bytes.fromhex(bit_by_bit("crc32c", data))).decode()


def crc64nvme(data: bytes) -> str:
    """
    In base64.
    """
    return b64encode(bytes.fromhex(bit_by_bit("crc64nvme", data))).decode()


def in_base64(algorithm: str) -> Callable[[bytes], str]:
    """
    What computes a digest of `hashlib`, in base64.
    """
    return lambda data: b64encode(hashlib.new(algorithm, data).digest()).decode()


CHECKSUMS: Final[Mapping[str, Callable[[bytes], str]]] = {
    "x-amz-checksum-crc32": lambda data: b64encode(
        zlib.crc32(data).to_bytes(4, "big")
    ).decode(),
    "x-amz-checksum-crc32c": crc32c,
    "x-amz-checksum-crc64nvme": crc64nvme,
    **{
        f"x-amz-checksum-{each}": in_base64(each)
        for each in ("md5", "sha1", "sha256", "sha512")
    },
}
"""
What computes each of those that are verified.
"""


def code(reply: bytes) -> str | None:
    """
    The code of a refusal.
    """
    return ElementTree.fromstring(body(reply)).findtext("Code")


def texts(reply: bytes, name: str) -> list[str]:
    """
    The texts of all elements with a name.
    """
    found = ElementTree.fromstring(body(reply)).iter()
    return [each.text or "" for each in found if each.tag.rpartition("}")[2] == name]


def tag_in(reply: bytes) -> str:
    """
    The entity tag of a reply.
    """
    return (field(reply, b"ETag") or b"").decode()


class S3Case(DialectCase):
    """
    A connection to buckets.
    """

    dialects = (DialectChoice("/s3/", "s3"),)

    def signed(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        fields: Mapping[str, str] | None = None,
        credentials: Credentials = KEY,
        added: Mapping[str, str] | None = None,
        sent: bytes | None = None,
    ) -> bytes:
        """
        The reply to a request that is signed.

        Args:
            method: Its method.
            path: And query.
            content: Its body.
            fields: That are signed too.
            credentials: Who signs.
            added: Fields that are sent and not signed.
            sent: Another body, which is sent.
        """
        request = AWSRequest(
            method, f"http://{HOST}{path}", headers={**(fields or {})}, data=content
        )
        signer = S3SigV4Auth(credentials, "s3", "us-east-1")
        request.context["client_config"] = mock.Mock(
            s3={"payload_signing_enabled": True}
        )
        signer.add_auth(request)
        every = {**dict(request.headers.items()), **(added or {})}
        return self.request(
            f"{method} {path}", lines(every), content if sent is None else sent
        )

    def stored(self, key: bytes) -> bytes:
        """
        A value.
        """
        return self.store.values[Key(key)][1]


def lines(fields: Mapping[str, str]) -> str:
    """
    Of a head.
    """
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


class ObjectTests(S3Case):
    """
    What one object is asked for; without users nobody asks for signatures.
    """

    def test_an_object_is_put_and_got(self) -> None:
        """
        With what is said about it; its entity tag is not one that could be of MD5.
        """
        fields = {"Content-Type": "text/plain", "x-amz-meta-mtime": "1.5"}
        reply = self.signed("PUT", "/s3/b/a%20%2B/%C3%A4", b"value", fields)
        assert (200, b"") == (status(reply), body(reply))
        etag = tag_in(reply)
        assert etag.endswith('-1"')
        assert b"value" == self.stored("s3/b/a +/ä".encode())

        reply = self.signed("GET", "/s3/b/a%20%2B/%C3%A4")
        assert (200, b"value") == (status(reply), body(reply))
        assert b"\r\nx-amz-meta-mtime: 1.5\r\n" in reply
        assert b"text/plain" == field(reply, b"Content-Type")
        assert etag.encode() == field(reply, b"ETag")
        path = "/s3/b/a%20%2B/%C3%A4"
        reply = self.signed("GET", path, None, {"Range": "bytes=1-2"})
        assert (206, b"al") == (status(reply), body(reply))
        for method, name, tag, expected in (
            ("GET", "If-None-Match", etag, 304),
            ("GET", "If-None-Match", etag.strip('"'), 304),
            ("GET", "If-Match", '"other-1"', 412),
            ("HEAD", "If-Match", etag, 200),
            ("PUT", "If-None-Match", "*", 412),
            ("PUT", "If-Match", etag, 200),
            ("DELETE", "If-Match", etag, 412),
        ):
            content = b"again" if method == "PUT" else None
            reply = self.signed(method, path, content, {name: tag})
            assert (name, tag, expected) == (name, tag, status(reply))

    def test_whoever_waits_before_an_empty_body_uses_no_connection_again(self) -> None:
        """
        botocore mistakes the reply to the request that follows on it otherwise, and
        waits for a minute.
        """
        waits = "Expect: 100-continue\r\n"
        reply = self.request("PUT /s3/b/k", waits, b"")
        assert (200, b"close") == (status(reply), field(reply, b"Connection"))
        self.client = self.connect()
        reply = self.request("PUT /s3/b/k", waits, b"value")
        assert (200, None) == (status(reply), field(reply, b"Connection"))

    def test_deleting_is_the_same_twice(self) -> None:
        """
        As S3 has it.
        """
        self.put(b"s3/b/k", b"value")
        assert 204 == status(self.signed("DELETE", "/s3/b/k"))
        assert 204 == status(self.signed("DELETE", "/s3/b/k"))
        assert [] == self.keys()

    def test_refusals_are_documents(self) -> None:
        """
        With S3's codes.
        """
        self.put(b"s3/b/k", b"value")
        for method, path, expected in (
            ("GET", "/s3/b/none", (404, "NoSuchKey")),
            ("GET", "/s3/b/k?acl", (501, "NotImplemented")),
            ("PUT", "/s3/b/k?tagging", (501, "NotImplemented")),
            ("GET", "/s3/b?lifecycle", (501, "NotImplemented")),
            ("POST", "/s3/b/k", (501, "NotImplemented")),
            ("GET", "/s3/b/k?AWSAccessKeyId=x", (501, "NotImplemented")),
            ("PATCH", "/s3/b/k", (405, "MethodNotAllowed")),
            ("GET", "/s3/b/a//b", (400, "InvalidRequest")),
            ("GET", "/s3/b/.kvd-multipart/k", (400, "InvalidRequest")),
            ("PUT", "/s3/b/a/.kvd-collection", (400, "InvalidRequest")),
            ("GET", f"/s3/b/{'k' * 300}", (414, "KeyTooLongError")),
            ("GET", "/s3/b?max-keys=x", (400, "InvalidRequest")),
            ("GET", "/s3/b?delimiter=x", (501, "NotImplemented")),
            ("GET", "/s3/b?list-type=2&continuation-token=x", (400, "InvalidRequest")),
        ):
            reply = self.signed(method, path, b"" if method == "PUT" else None)
            assert (path, expected) == (path, (status(reply), code(reply)))
            assert b"application/xml" == field(reply, b"Content-Type")
        reply = self.signed("GET", "/s3/b/k", None, {"Range": "bytes=9-"})
        assert (416, "InvalidRange") == (status(reply), code(reply))
        reply = self.request("HEAD /s3/b/none")
        assert (404, b"") == (status(reply), body(reply))
        reply = self.request("PUT /s3/b/k", "")
        assert (411, "MissingContentLength") == (status(reply), code(reply))

    def test_nothing_is_kept_otherwise_than_asked_for(self) -> None:
        """
        Who gives a key of their own takes an object for encrypted that is not, whatever
        stores it; a copy too, and each part.
        """
        self.put(b"s3/b/k", b"value")
        key = {"x-amz-server-side-encryption-customer-key": "x"}
        source = {"x-amz-copy-source": "b/k"}
        of_source = {"x-amz-copy-source-server-side-encryption-customer-key": "x"}
        replaced = {"x-amz-metadata-directive": "REPLACE"}
        for method, path, fields in (
            ("PUT", "/s3/b/l", key),
            ("PUT", "/s3/b/l", source | key),
            ("PUT", "/s3/b/l", source | of_source),
            ("PUT", "/s3/b/l", source | replaced | key),
            ("POST", "/s3/b/l?uploads", key),
            ("PUT", "/s3/b/l?uploadId=x&partNumber=1", key),
            ("PUT", "/s3/b/l?uploadId=x&partNumber=1", source | key),
            ("POST", "/s3/b/l?uploadId=x", key),
            ("GET", "/s3/b/k", key),
            ("HEAD", "/s3/b/k", key),
        ):
            content = (
                b"x" if method == "PUT" and "x-amz-copy" not in str(fields) else b""
            )
            sent = content if method in ("PUT", "POST") else None
            reply = self.signed(method, path, sent, fields)
            assert (method, path, fields, 501) == (method, path, fields, status(reply))
        assert [b"s3/b/k"] == self.keys()

    def test_keys_with_dots_are_refused(self) -> None:
        """
        To S3's clients ``a/./b`` is another object than ``a/b``: neither is stored,
        read or removed for the other one.
        """
        self.put(b"s3/b/a/k", b"value")
        for method in ("GET", "PUT", "DELETE"):
            for path in ("/s3/b/a/./k", "/s3/b/./a/k", "/s3/./b/a/k", "/s3/b/a/%2E/k"):
                reply = self.signed(method, path, b"x" if method == "PUT" else None)
                found = status(reply), code(reply)
                assert (method, path, 400, "InvalidRequest") == (method, path, *found)
        assert b"value" == self.stored(b"s3/b/a/k")

    def test_clients_choose_fields_of_replies(self) -> None:
        """
        In the query of a request that is signed, as of a URL that has a file saved
        under another name; nobody else can have a value shown as what it is not.
        """
        fields = {"Content-Type": "text/plain", "Cache-Control": "no-cache"}
        self.signed("PUT", "/s3/b/k", b"value", fields)
        chosen = {
            "response-content-type": "image/png",
            "response-content-language": "nl",
            "response-expires": "Thu, 01 Dec 1994 16:00:00 GMT",
            "response-cache-control": "max-age=5",
            "response-content-disposition": "attachment; filename=ä.png",
            "response-content-encoding": "br",
        }
        query = "&".join(f"{name}={quote(text)}" for name, text in chosen.items())
        for method, ranges, expected in (
            ("GET", {}, 200),
            ("HEAD", {}, 200),
            ("GET", {"Range": "bytes=0-0"}, 206),
        ):
            reply = self.signed(method, f"/s3/b/k?{query}", None, ranges)
            assert (ranges, expected) == (ranges, status(reply))
            for name, text in chosen.items():
                found = field(reply, name.removeprefix("response-").title().encode())
                assert (name, text.encode()) == (name, found)
            assert 1 == reply.lower().count(b"\r\ncontent-type:")
        reply = self.signed("GET", "/s3/b/k?response-content-type=text/html")
        assert b"sandbox" == field(reply, b"Content-Security-Policy")
        reply = self.signed("GET", "/s3/b/none?response-content-type=image/png")
        assert (404, b"application/xml") == (
            status(reply),
            field(reply, b"Content-Type"),
        )
        unsigned = self.request(f"GET /s3/b/k?{query}")
        assert (400, "InvalidRequest") == (status(unsigned), code(unsigned))
        for wrong in ("a%0D%0AX:%20y", "a%00", "%20", "", "x" * 1025):
            reply = self.signed("GET", f"/s3/b/k?response-content-language={wrong}")
            assert (wrong, 400) == (wrong, status(reply))
        for method in ("PUT", "DELETE"):
            reply = self.signed(method, f"/s3/b/k?{query}", b"x")
            assert (method, 501) == (method, status(reply))

    def test_metadata_comes_in_queries_too(self) -> None:
        """
        The library for JavaScript moves such fields there, as it presigns a URL.
        """
        query = "X-Amz-Meta-Kind=a%20b&x-amz-meta-%C3%A4=x"
        reply = self.request(f"PUT /s3/b/k?{query}", "", b"value")
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        query = "X-Amz-Meta-Kind=a%20b&x-amz-meta-sent=query&x-amz-meta-none="
        sent = "x-amz-meta-sent: field\r\n"
        reply = self.request(f"PUT /s3/b/k?{query}", sent, b"value")
        assert 200 == status(reply)
        reply = self.request("GET /s3/b/k")
        assert b"a b" == field(reply, b"x-amz-meta-kind")
        assert b"field" == field(reply, b"x-amz-meta-sent")
        assert b"x-amz-meta-none" not in reply
        reply = self.request("PUT /s3/b/k?x-amz-meta-kind=a%0D%0Ab", "", b"other")
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        assert b"value" == self.stored(b"s3/b/k")

    def test_locks_of_webdav_are_no_object(self) -> None:
        """
        Whoever reads a bucket does not get the tokens, and whoever removes objects does
        not release what others have locked.
        """
        self.put(b"s3/b/.kvd-locks", b"tokens")
        self.put(b"s3/b/k", b"value")
        reply = self.signed("GET", "/s3/b?list-type=2")
        assert b"<Key>k<" in body(reply)
        assert b"kvd-locks" not in body(reply)
        source = {"x-amz-copy-source": "b/.kvd-locks"}
        reply = self.signed("PUT", "/s3/b/copy", b"", source)
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        named = b"<Delete><Object><Key>.kvd-locks</Key></Object></Delete>"
        reply = self.signed("POST", "/s3/b?delete", named)
        assert b"<Code>InvalidRequest<" in body(reply)
        assert [b"s3/b/.kvd-locks", b"s3/b/k"] == self.keys()

    def test_damaged_bodies_are_not_stored(self) -> None:
        """
        Whichever digest tells; the old value stays.
        """
        md5 = b64encode(hashlib.md5(b"value").digest()).decode()
        hashed = hashlib.sha256(b"value").hexdigest()
        self.put(b"s3/b/k", b"old")
        for name, value, expected in (
            ("Content-MD5", md5, "BadDigest"),
            *((name, of(b"value"), "BadDigest") for name, of in CHECKSUMS.items()),
            ("x-amz-content-sha256", hashed, "XAmzContentSHA256Mismatch"),
        ):
            fields = lines({name: value})
            reply = self.request("PUT /s3/b/k", fields, b"damaged")
            assert (name, 400, expected) == (name, status(reply), code(reply))
            assert b"old" == self.stored(b"s3/b/k")
            reply = self.request("PUT /s3/b/k", fields, b"value")
            assert 200 == status(reply), reply
            assert b"value" == self.stored(b"s3/b/k")
            self.put(b"s3/b/k", b"old")
        reply = self.request(
            "PUT /s3/b/k", "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n", b"v"
        )
        assert 200 == status(reply)

    def test_checksums_that_are_none_are_refused(self) -> None:
        """
        Whoever sends one wants the body to be verified: one of another algorithm is not
        ignored, and an algorithm without a checksum is not one.
        """
        for fields in (
            {"x-amz-content-sha256": "x"},
            {"x-amz-checksum-crc32": "x"},
            *({name: value} for name in CHECKSUMS for value in ("", "x", "!" * 8)),
            # Of another length.
            {"x-amz-checksum-crc32c": crc64nvme(b"value")},
            {"x-amz-checksum-crc64nvme": crc32c(b"value")},
            {"x-amz-checksum-crc32c": crc32c(b"value") + "-1"},
            {"x-amz-checksum-xxhash64": "AAAAAAAAAAA="},
            {"x-amz-checksum-": "AAAA"},
            {"x-amz-sdk-checksum-algorithm": "CRC32C"},
            {"x-amz-sdk-checksum-algorithm": "XXHASH64"},
            {
                "x-amz-sdk-checksum-algorithm": "CRC32",
                "x-amz-checksum-crc32c": crc32c(b"value"),
            },
        ):
            reply = self.request("PUT /s3/b/k", lines(fields), b"value")
            found = (fields, status(reply), code(reply))
            assert (fields, 400, "InvalidRequest") == found
        assert [] == self.keys()
        for fields in (
            {
                "x-amz-sdk-checksum-algorithm": "CRC64NVME",
                "x-amz-checksum-crc64nvme": crc64nvme(b"value"),
            },
            # They say what to do with an object, not what it is.
            {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "x"},
        ):
            reply = self.request("PUT /s3/b/k", lines(fields), b"value")
            assert 200 == status(reply), reply

    def test_all_checksums_count(self) -> None:
        """
        Where there are several.
        """
        for name in CHECKSUMS:
            fields = {each: of(b"value") for each, of in CHECKSUMS.items()}
            reply = self.request("PUT /s3/b/k", lines(fields), b"value")
            assert 200 == status(reply)
            fields[name] = CHECKSUMS[name](b"other")
            reply = self.request("PUT /s3/b/k", lines(fields), b"value")
            assert (name, 400, "BadDigest") == (name, status(reply), code(reply))

    def test_documents_have_their_checksums(self) -> None:
        """
        As values have.
        """
        self.put(b"s3/b/k", b"value")
        named = b"<Delete><Object><Key>k</Key></Object></Delete>"
        for name, of in CHECKSUMS.items():
            fields = lines({name: of(b"damaged")})
            # Some clients repeat fields in the query, where they mean nothing.
            for line in ("POST /s3/b?delete", "POST /s3/b?delete&x-amz-uploadId=1"):
                reply = self.request(line, fields, named)
                assert (name, 400, "BadDigest") == (name, status(reply), code(reply))
        assert [b"s3/b/k"] == self.keys()
        fields = lines({"x-amz-checksum-crc64nvme": crc64nvme(named)})
        assert 200 == status(self.request("POST /s3/b?delete", fields, named))
        assert [] == self.keys()

    def test_checksums_behind_the_chunks_are_verified(self) -> None:
        """
        Those that were announced; no other ones come.
        """
        value = b"v" * 200
        self.put(b"s3/b/k", b"old")

        def sent(announced: str, trailer: str, text: str, more: str = "") -> bytes:
            fields = {
                "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                "x-amz-decoded-content-length": str(len(value)),
                "x-amz-trailer": announced,
            }
            coded = b"c8\r\n%b\r\n0\r\n" % value
            coded += f"{trailer}:{text}\r\n\r\n".encode()
            return self.request("PUT /s3/b/k", lines(fields) + more, coded)

        for name, of in CHECKSUMS.items():
            for announced, text, expected in (
                (name, of(b"damaged"), "BadDigest"),
                (name, of(value)[:-4], "InvalidRequest"),
                (name, "!", "InvalidRequest"),
                (name, "", "InvalidRequest"),
                ("x-amz-other", of(value), "InvalidRequest"),
                ("", of(value), "InvalidRequest"),
            ):
                reply = sent(announced, name, text)
                found = (name, text, status(reply), code(reply))
                assert (name, text, 400, expected) == found
                assert b"old" == self.stored(b"s3/b/k")
            algorithm = name.rpartition("-")[2].upper()
            more = f"x-amz-sdk-checksum-algorithm: {algorithm}\r\n"
            reply = sent(name, name, of(value), more)
            assert 200 == status(reply), reply
            assert value == self.stored(b"s3/b/k")
            self.put(b"s3/b/k", b"old")
        for kind in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "UNSIGNED-PAYLOAD"):
            # Nothing comes behind such a body.
            fields = {
                "x-amz-content-sha256": kind,
                "x-amz-decoded-content-length": "5",
                "x-amz-trailer": "X-Amz-Checksum-CRC64NVME",
            }
            reply = self.request("PUT /s3/b/k", lines(fields), b"value")
            assert (400, "InvalidRequest") == (status(reply), code(reply))
            assert "x-amz-trailer" in body(reply).decode()
        unknown = "x-amz-checksum-xxhash64"
        reply = sent(unknown, unknown, "AAAAAAAAAAA=")
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        assert b"old" == self.stored(b"s3/b/k")

    def test_aws_chunked_bodies_are_decoded(self) -> None:
        """
        And the coding is not that of the value.
        """
        value = b"v" * 20_000
        crc = b64encode(zlib.crc32(value).to_bytes(4, "big")).decode()
        text = b"4e20\r\n%b\r\n0\r\nx-amz-checksum-crc32:%b\r\n\r\n"
        fields = {
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-decoded-content-length": str(len(value)),
            "x-amz-trailer": "x-amz-checksum-crc32",
            "Content-Encoding": "gzip,aws-chunked",
        }
        coded = text % (value, crc.encode())
        assert 200 == status(self.request("PUT /s3/b/k", lines(fields), coded))
        assert value == self.stored(b"s3/b/k")
        reply = self.request("GET /s3/b/k")
        assert b"gzip" == field(reply, b"Content-Encoding")
        self.store.values.clear()

        coded = text % (value, b"AAAAAA==")
        reply = self.request("PUT /s3/b/k", lines(fields), coded)
        assert (400, "BadDigest") == (status(reply), code(reply))
        longer = {**fields, "x-amz-decoded-content-length": "20001"}
        reply = self.request("PUT /s3/b/k", lines(longer), coded)
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        for wrong in (
            {"x-amz-content-sha256": "STREAMING-OTHER"},
            {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        ):
            reply = self.request("PUT /s3/b/k", lines({**fields, **wrong}), coded)
            assert 415 == status(reply)
        reply = self.request("POST /s3/b?delete", lines(fields), coded)
        assert 415 == status(reply)
        assert [] == self.keys()

    def test_objects_are_copied(self) -> None:
        """
        With what is said about them, or with other metadata.
        """
        fields = {"x-amz-meta-a": "1", "Content-Type": "text/plain"}
        self.signed("PUT", "/s3/b/%C3%A4", b"value", fields)
        source = {"x-amz-copy-source": quote("/b/ä")}
        reply = self.signed("PUT", "/s3/c/copy", b"", source)
        assert 200 == status(reply)
        assert ["CopyObjectResult"] == [
            ElementTree.fromstring(body(reply)).tag.rpartition("}")[2]
        ]
        reply = self.signed("GET", "/s3/c/copy")
        assert (b"value", b"1") == (body(reply), field(reply, b"x-amz-meta-a"))
        other = {"x-amz-metadata-directive": "REPLACE", "x-amz-meta-b": "2"}
        assert 200 == status(self.signed("PUT", "/s3/c/copy", b"", source | other))
        reply = self.signed("GET", "/s3/c/copy")
        assert b"2" == field(reply, b"x-amz-meta-b")
        assert b"x-amz-meta-a" not in reply
        for fields, expected in (
            ({"x-amz-copy-source": "b/none"}, (404, "NoSuchKey")),
            ({"x-amz-copy-source": "b"}, (400, "InvalidRequest")),
            ({"x-amz-copy-source": "c/copy"}, (400, "InvalidRequest")),
            ({"x-amz-copy-source": "b/k?versionId=1"}, (501, "NotImplemented")),
            (source | {"x-amz-copy-source-if-match": "x"}, (412, "PreconditionFailed")),
        ):
            reply = self.signed("PUT", "/s3/c/copy", b"", fields)
            assert (fields, expected) == (fields, (status(reply), code(reply)))

    def test_several_objects_are_deleted(self) -> None:
        """
        Each is told, or only what failed.
        """
        for quiet in (False, True):
            self.put("s3/b/ä".encode(), b"value")
            self.put(b"s3/b/k", b"value")
            text = (
                '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                "<Object><Key>ä</Key></Object><Object><Key>none</Key></Object>"
                "<Object><Key>a//b</Key></Object><Object><Key/></Object>"
                f"<Quiet>{quiet}</Quiet></Delete>"
            ).encode()
            reply = self.signed("POST", "/s3/b?delete", text)
            assert 200 == status(reply)
            keys = ["a//b", ""] if quiet else ["ä", "none", "a//b", ""]
            assert keys == texts(reply, "Key")
            assert ["InvalidRequest"] * 2 == texts(reply, "Code")
            assert [b"s3/b/k"] == self.keys()
        for text in (
            b"<Delete/>",
            b"<Other/>",
            b"<Delete>",
            b"<!DOCTYPE a [<!ENTITY b 'c'>]><Delete/>",
        ):
            assert 400 == status(self.signed("POST", "/s3/b?delete", text))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (QuotaFull("full"), "QuotaExceeded"),
        (StoreFull("full"), "InsufficientStorage"),
        (StoreBusy("busy"), "SlowDown"),
        (SyncFailed("failed"), "InternalError"),
        (SignatureRefused("wrong", "SignatureDoesNotMatch"), "SignatureDoesNotMatch"),
        (Forbidden("no"), "AccessDenied"),
        (TooManyRequests("many", 1), "SlowDown"),
    ],
)
def test_errors_have_the_codes_of_s3(error: KvdError, expected: str) -> None:
    """
    Also those of kvd or its machine.
    """
    assert expected == code_of(error)


class ListingTests(S3Case):
    """
    Objects of a bucket, and buckets.
    """

    def pages(self, query: str, version: int = 2) -> list[str]:
        """
        What is listed on all pages together; folders after the objects of a page.
        """
        found, more = [], ""
        for _ in range(50):
            kind = "list-type=2&" if version == 2 else ""
            reply = self.signed("GET", f"/s3/b?{kind}{query}{more}")
            assert 200 == status(reply)
            root = ElementTree.fromstring(body(reply))
            space = root.tag.partition("}")[0] + "}"
            found += [
                each.findtext(f"{space}Key") or each.findtext(f"{space}Prefix") or ""
                for name in ("Contents", "CommonPrefixes")
                for each in root.iter(f"{space}{name}")
            ]
            if root.findtext(f"{space}IsTruncated") == "false":
                return found
            name = "NextContinuationToken" if version == 2 else "NextMarker"
            token = quote(root.findtext(f"{space}{name}") or "", safe="")
            more = f"&{'continuation-token' if version == 2 else 'marker'}={token}"
        raise AssertionError("the listing does not end")

    def test_pages_together_are_the_whole(self) -> None:
        """
        However long they are, in both versions, with and without folders.
        """
        names = ["a", "a/b", "a/c/d", "a/c/e", "ab", "ac/d", "b", "c/d/e", "ä"]
        for name in names:
            if name != "a":
                self.put(f"s3/b/{name}".encode(), b"value")
        self.signed("PUT", "/s3/b/empty/", b"")
        self.signed("PUT", "/s3/b", b"")
        self.put(b"s3/b/.kvd-multipart/" + b"0" * 32 + b"/1", b"part")
        self.put(b"s3/bb/other", b"value")
        every = sorted([*names[1:], "empty/"])
        for version in (1, 2):
            for most in (1, 2, 3, 1000):
                page = f"max-keys={most}&"
                assert every == self.pages(page, version)
                listed = self.pages(page + "delimiter=%2F", version)
                assert ["a/", "ab", "ac/", "b", "c/", "empty/", "ä"] == sorted(listed)
                assert ["a/b", "a/c/"] == sorted(
                    self.pages(page + "prefix=a%2F&delimiter=%2F", version)
                )
                with_a = [name for name in every if name.startswith("a")]
                assert with_a == self.pages(page + "prefix=a", version)
                assert ["ab"] == self.pages(page + "prefix=ab&delimiter=%2F", version)
                assert [] == self.pages(page + "prefix=none", version)
        assert ["b", "c/d/e", "empty/", "ä"] == self.pages("start-after=ac%2Fd")
        assert quote("ä") in self.pages("encoding-type=url")
        reply = self.signed("GET", "/s3/b?list-type=2&max-keys=0")
        assert ([], ["false"]) == (texts(reply, "Key"), texts(reply, "IsTruncated"))

    def test_buckets_are_folders(self) -> None:
        """
        Any is there; one that was made is listed, and removed while it is empty.
        """
        assert 200 == status(self.signed("PUT", "/s3/made", b""))
        assert 200 == status(self.signed("PUT", "/s3/made", b""))
        self.put(b"s3/other/key", b"value")
        assert ["made", "other"] == texts(self.signed("GET", "/s3/"), "Name")
        for path in ("/s3/made", "/s3/never/"):
            assert 200 == status(self.signed("HEAD", path))
        assert [] == texts(self.signed("GET", "/s3/made"), "Key")
        assert 200 == status(self.signed("GET", "/s3/made?location"))
        assert 200 == status(self.signed("GET", "/s3/made?versioning"))
        assert 204 == status(self.signed("DELETE", "/s3/made"))
        reply = self.signed("DELETE", "/s3/other")
        assert (409, "BucketNotEmpty") == (status(reply), code(reply))
        assert [b"s3/other/key"] == self.keys()


class MultipartTests(S3Case):
    """
    Objects that are uploaded in parts.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(s3_multipart, "LEAST_PART_BYTES", 5)

    def begin(self, path: str = "/s3/b/in/k", fields: str = "") -> str:
        """
        The name of an upload.
        """
        reply = self.request(f"POST {path}?uploads", fields)
        assert 200 == status(reply), reply
        return texts(reply, "UploadId")[0]

    def part(self, upload: str, number: int, content: bytes) -> str:
        """
        The entity tag of a part.
        """
        line = f"PUT /s3/b/in/k?partNumber={number}&uploadId={upload}"
        reply = self.request(line, "", content)
        assert 200 == status(reply), reply
        return tag_in(reply)

    def complete(
        self,
        upload: str,
        *parts: tuple[int, str],
        path: str = "/s3/b/in/k",
        fields: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        """
        The reply.
        """
        named = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in parts
        )
        text = f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>"
        line = f"POST {path}?uploadId={upload}"
        return self.request(line, lines(fields), text.encode())

    def test_parts_become_one_value(self) -> None:
        """
        In the order of their numbers, in whichever order they come; one that comes
        again replaces the first one, and one that is not named is left out.
        """
        upload = self.begin(fields="Content-Type: text/x\r\nx-amz-meta-a: 1\r\n")
        last = self.part(upload, 10, b"end")
        self.part(upload, 2, b"wrong")
        first = self.part(upload, 1, b"begin-")
        second = self.part(upload, 2, b"middle-")
        self.part(upload, 3, b"unused")
        assert 404 == status(self.request("GET /s3/b/in/k"))
        reply = self.request(f"GET /s3/b/in/k?uploadId={upload}&max-parts=2")
        assert ["1", "2"] == texts(reply, "PartNumber")
        assert (["true"], ["2"]) == (
            texts(reply, "IsTruncated"),
            texts(reply, "NextPartNumberMarker"),
        )
        line = f"GET /s3/b/in/k?uploadId={upload}&part-number-marker=2"
        reply = self.request(line)
        assert ["3", "10"] == texts(reply, "PartNumber")
        reply = self.request("GET /s3/b?uploads&prefix=in")
        assert ([upload], ["in/k"]) == (texts(reply, "UploadId"), texts(reply, "Key"))
        assert [] == texts(self.request("GET /s3/b?list-type=2"), "Key")

        reply = self.complete(upload, (1, first), (2, second), (10, last))
        assert 200 == status(reply), reply
        etag = texts(reply, "ETag")[0]
        assert [b"s3/b/in/k"] == self.keys()
        assert b"begin-middle-end" == self.stored(b"s3/b/in/k")
        reply = self.request("GET /s3/b/in/k")
        assert etag.encode() == field(reply, b"ETag")
        assert b"text/x" == field(reply, b"Content-Type")
        assert b"1" == field(reply, b"x-amz-meta-a")
        reply = self.complete(upload, (1, first))
        assert (404, "NoSuchUpload") == (status(reply), code(reply))

    def test_what_was_completed_may_be_completed_again(self) -> None:
        """
        As clients do that lost the reply, or did not wait for it: they hear what they
        would have heard, while the value is there. Whatever else they name is unknown.
        """
        never = {"If-None-Match": "*"}
        upload = self.begin(fields="x-amz-meta-a: 1\r\n")
        parts = [(number, self.part(upload, number, b"value")) for number in (1, 2, 3)]
        first = self.complete(upload, *parts, fields=never)
        assert 200 == status(first), first
        for fields in ({}, never):
            again = self.complete(upload, *parts, fields=fields)
            assert (200, body(first)) == (status(again), body(again))
        shown = self.request("GET /s3/b/in/k")
        assert texts(first, "ETag") == [tag_in(shown)]
        assert b"joined" not in shown.lower()

        other = self.begin("/s3/b/in/other")
        for reply in (
            self.complete(upload, *parts[:2]),
            self.complete(upload, *parts[:2], (3, parts[0][1])),
            self.complete(upload, *parts, path="/s3/b/in/other"),
            self.complete(other, *parts),
        ):
            assert (404, "NoSuchUpload") == (status(reply), code(reply))
        self.signed("PUT", "/s3/b/in/other", b"", {"x-amz-copy-source": "b/in/k"})
        reply = self.complete(upload, *parts, path="/s3/b/in/other")
        assert (404, "NoSuchUpload") == (status(reply), code(reply))
        self.put(b"s3/b/in/k", b"another")
        reply = self.complete(upload, *parts)
        assert (404, "NoSuchUpload") == (status(reply), code(reply))

    def test_what_was_completed_in_part_is_completed(self) -> None:
        """
        The value is published before its parts are removed, from the first one on, and
        what is known of the upload at last. A client may come again in between.
        """
        never = {"If-None-Match": "*"}
        for left, fields in itertools.product(range(3), ({}, never)):
            upload = self.begin()
            parts = [(number, self.part(upload, number, b"value")) for number in (1, 2)]
            before = dict(self.store.values)
            first = self.complete(upload, *parts, fields=never)
            about = [key for key in before if key.endswith(b".json")]
            stayed = sorted(before.keys() - about, reverse=True)[:left]
            self.store.values |= {key: before[key] for key in (*about, *stayed)}
            again = self.complete(upload, *parts, fields=fields)
            assert (left, fields, 200) == (left, fields, status(again))
            if left < 2 or fields:
                assert body(first) == body(again)
            assert b"valuevalue" == self.stored(b"s3/b/in/k")
            self.store.values.clear()

    def test_metadata_has_no_room_for_the_upload(self) -> None:
        """
        What every store keeps is the client's; then the upload is forgotten.
        """
        for size, expected in ((900, 200), (1000, 404)):
            upload = self.begin(fields=f"x-amz-meta-a: {'v' * size}\r\n")
            part = (1, self.part(upload, 1, b"value"))
            assert 200 == status(self.complete(upload, part))
            shown = self.request("GET /s3/b/in/k")
            assert b"v" * size == field(shown, b"x-amz-meta-a")
            assert (size, expected) == (size, status(self.complete(upload, part)))

    def test_parts_are_copied(self) -> None:
        """
        Some bytes of another object, or all.
        """
        self.put(b"s3/from/k", b"0123456789")
        upload = self.begin()
        line = f"PUT /s3/b/in/k?uploadId={upload}&partNumber="
        source = "x-amz-copy-source: /from/k\r\n"
        some = source + "x-amz-copy-source-range: bytes={}-{}\r\n"
        first = texts(self.request(f"{line}1", some.format(2, 7), b""), "ETag")
        last = texts(self.request(f"{line}2", source, b""), "ETag")
        for fields, expected in (
            (some.format(2, 10), (416, "InvalidRange")),
            (some.format(3, 2), (416, "InvalidRange")),
            (some.format("x", 2), (400, "InvalidRequest")),
            (source.replace("/k", "/none"), (404, "NoSuchKey")),
            (source + "x-amz-copy-source-if-match: x\r\n", (412, "PreconditionFailed")),
        ):
            reply = self.request(f"{line}3", fields, b"")
            assert (fields, expected) == (fields, (status(reply), code(reply)))
        reply = self.complete(upload, (1, first[0]), (2, last[0]))
        assert 200 == status(reply), reply
        assert b"2345670123456789" == self.stored(b"s3/b/in/k")

    def test_wrong_parts_are_refused(self) -> None:
        """
        And nothing is published, nor is any part lost.
        """
        upload = self.begin()
        first = self.part(upload, 1, b"begin-")
        small = self.part(upload, 2, b"tiny")
        last = self.part(upload, 3, b"end")
        before = self.keys()
        for parts, expected in (
            ((), "MalformedXML"),
            (((2, small), (1, first)), "InvalidPartOrder"),
            (((1, first), (1, first)), "InvalidPartOrder"),
            (((1, first), (4, last)), "InvalidPart"),
            (((1, last),), "InvalidPart"),
            (((0, first),), "InvalidPart"),
            (((1, first), (2, small), (3, last)), "EntityTooSmall"),
        ):
            reply = self.complete(upload, *parts)
            assert (parts, 400, expected) == (parts, status(reply), code(reply))
        assert before == self.keys()
        reply = self.request(
            f"PUT /s3/b/in/k?partNumber=4&uploadId={upload}",
            f"x-amz-content-sha256: {'0' * 64}\r\n",
            b"damaged",
        )
        assert (400, "XAmzContentSHA256Mismatch") == (status(reply), code(reply))
        assert before == self.keys()
        assert 200 == status(self.complete(upload, (1, first), (3, last)))

    def test_damaged_parts_are_refused(self) -> None:
        """
        By each checksum, before the chunks or behind them; the old part stays.
        """
        upload = self.begin()
        line = f"PUT /s3/b/in/k?partNumber=1&uploadId={upload}"
        old = self.part(upload, 1, b"part")
        for name, of in CHECKSUMS.items():
            reply = self.request(line, lines({name: of(b"part")}), b"damaged")
            assert (name, 400, "BadDigest") == (name, status(reply), code(reply))
            coded = b"7\r\ndamaged\r\n0\r\n%b:%b\r\n\r\n"
            fields = {
                "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                "x-amz-decoded-content-length": "7",
                "x-amz-trailer": name,
            }
            for data, expected in ((b"part", 400), (b"damaged", 200)):
                text = coded % (name.encode(), of(data).encode())
                reply = self.request(line, lines(fields), text)
                assert (name, data, expected) == (name, data, status(reply))
                if expected == 400:
                    assert "BadDigest" == code(reply)
                    shown = self.request(f"GET /s3/b/in/k?uploadId={upload}")
                    assert [old] == texts(shown, "ETag")
            reply = self.request(line, lines({name: of(b"part")}), b"part")
            assert 200 == status(reply)
            old = tag_in(reply)
        assert 200 == status(self.complete(upload, (1, old)))
        assert b"part" == self.stored(b"s3/b/in/k")

    def test_checksum_of_the_whole_is_verified(self) -> None:
        """
        Of the type FULL_OBJECT, as CRC-64/NVME always is; nothing is published, nor any
        part lost. One of the parts' checksums says how many parts there are.
        """
        self.put(b"s3/b/in/k", b"old")
        upload = self.begin()
        parts = [
            (1, self.part(upload, 1, b"begin-")),
            (2, self.part(upload, 2, b"end")),
        ]
        before = self.keys()
        kind, nvme = "x-amz-checksum-type", "x-amz-checksum-crc64nvme"
        whole, some = {kind: "FULL_OBJECT"}, {kind: "COMPOSITE"}
        wrong: list[tuple[dict[str, str], str]] = [
            *(
                (whole | {name: of(b"end")}, "BadDigest")
                for name, of in CHECKSUMS.items()
            ),
            ({nvme: crc64nvme(b"end")}, "BadDigest"),
            ({nvme: crc32c(b"begin-end")}, "InvalidRequest"),
            (some | {nvme: crc64nvme(b"begin-end")}, "InvalidRequest"),
            ({nvme: crc64nvme(b"begin-end") + "-2"}, "InvalidRequest"),
            (whole | {"x-amz-checksum-crc32c": "AAAAAA==-2"}, "InvalidRequest"),
            ({"x-amz-checksum-crc32c": "AAAAAA==-3"}, "BadDigest"),
            (some | {"x-amz-checksum-sha256": "AAAA-2"}, "InvalidRequest"),
            ({kind: "OTHER"}, "InvalidRequest"),
            (whole | {"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, "InvalidRequest"),
            ({"x-amz-mp-object-size": "8"}, "InvalidRequest"),
            ({"x-amz-mp-object-size": "9 bytes"}, "InvalidRequest"),
        ]
        for fields, expected in wrong:
            reply = self.complete(upload, *parts, fields=fields)
            found = (fields, status(reply), code(reply))
            assert (fields, 400, expected) == found
            assert b"old" == self.stored(b"s3/b/in/k")
            assert before == self.keys()
        every = {name: of(b"begin-end") for name, of in CHECKSUMS.items()}
        every["x-amz-mp-object-size"] = "9"
        reply = self.complete(upload, *parts, fields=whole | every)
        assert 200 == status(reply), reply
        assert b"begin-end" == self.stored(b"s3/b/in/k")

    def test_checksums_of_parts_are_no_checksum_of_the_whole(self) -> None:
        """
        With their number, and without it, as older clients send them.
        """
        for fields in (
            {"x-amz-checksum-crc32c": "AAAAAA==-1"},
            {"x-amz-checksum-crc32c": "AAAAAA=="},
            {"x-amz-checksum-crc32": "AAAAAA==-1", "x-amz-checksum-type": "COMPOSITE"},
        ):
            upload = self.begin()
            tag = self.part(upload, 1, b"value")
            reply = self.complete(upload, (1, tag), fields=fields)
            assert (fields, 200) == (fields, status(reply))

    def test_other_uploads_are_unknown(self) -> None:
        """
        That of another key, one that was aborted, and one that never was.
        """
        other, aborted = self.begin("/s3/b/in/other"), self.begin()
        self.part(aborted, 1, b"value")
        assert 204 == status(self.request(f"DELETE /s3/b/in/k?uploadId={aborted}"))
        for upload in (other, aborted, "0" * 32, "x", "../x"):
            name = quote(upload, safe="")
            for method, more in (
                ("PUT", "&partNumber=1"),
                ("GET", ""),
                ("DELETE", ""),
            ):
                line = f"{method} /s3/b/in/k?uploadId={name}{more}"
                reply = self.request(line, "", b"value" if method == "PUT" else None)
                found = (line, status(reply), code(reply))
                assert (line, 404, "NoSuchUpload") == found
            reply = self.complete(name, (1, '"x"'))
            assert (404, "NoSuchUpload") == (status(reply), code(reply))
        for number in (0, 10_001, "x"):
            line = f"PUT /s3/b/in/other?uploadId={other}&partNumber={number}"
            assert 400 == status(self.request(line, "", b"value"))
        assert 1 == len(self.keys())

    def test_uploads_that_nobody_completes_are_swept(self) -> None:
        """
        When another one begins, a day after their last part. Too many are refused.
        """
        old = self.begin()
        self.part(old, 1, b"value")
        now = time.time()
        with mock.patch("time.time", return_value=now + 86_000):
            self.begin("/s3/b/other")
        assert 3 == len(self.keys())
        with mock.patch("time.time", return_value=now + 86_500):
            self.begin("/s3/b/other")
        assert old not in texts(self.request("GET /s3/b?uploads"), "UploadId")
        assert 2 == len(self.keys())
        self.patch(multipart, "MOST_UPLOADS", 1)
        reply = self.request("POST /s3/b/k?uploads")
        assert (503, "SlowDown") == (status(reply), code(reply))


class SignatureTests(S3Case):
    """
    Users sign, and may do what the rights file says.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(s3_multipart, "LEAST_PART_BYTES", 5)
        rules = parse_rights(RIGHTS, "rights")
        clock, memory = Clock(), CountingMemory()
        authentication = Authentication(
            rules,
            Throttle(clock, memory),
            Logins(memory),
            inline,
            lambda password, hashed: False,
        )
        self.process.authorization = Authorization(
            rules, authentication, Rates(memory), memory.open_counts(0), clock
        )

    def test_who_signs_has_rights(self) -> None:
        """
        And is named in the log; nobody has others.
        """
        assert 200 == status(self.signed("PUT", "/s3/b/k", b"value"))
        assert ["ci"] == [entry.sender.user for entry in self.notes.entries[-1:]]
        reply = self.signed("PUT", "/s3/b/k", b"value", credentials=OTHER)
        assert (403, "AccessDenied") == (status(reply), code(reply))
        reply = self.signed("PUT", "/s3/b/in/k", b"value", credentials=OTHER)
        assert 200 == status(reply)
        reply = self.request("GET /s3/b/k")
        assert (401, "AccessDenied") == (status(reply), code(reply))
        self.put(b"s3/open/k", b"value")
        assert 200 == status(self.request("GET /s3/open/k"))
        assert 401 == status(self.request("PUT /s3/open/k", "", b"value"))

    def test_wrong_signatures_are_refused(self) -> None:
        """
        With what is wrong, and nothing is stored.
        """
        wrong = Credentials(KEY.access_key, KEY.secret_key + "x")
        unknown = Credentials("KVDZZZZZZZZZZZZZZZZZ", KEY.secret_key)
        for credentials, expected in (
            (wrong, "SignatureDoesNotMatch"),
            (unknown, "InvalidAccessKeyId"),
            (OLD, "InvalidAccessKeyId"),
        ):
            reply = self.signed("PUT", "/s3/b/k", b"value", credentials=credentials)
            assert (403, expected) == (status(reply), code(reply))
        later = time.time() + 901
        with mock.patch("time.time", return_value=later):
            reply = self.signed("PUT", "/s3/b/k", b"value")
        assert (403, "RequestTimeTooSkewed") == (status(reply), code(reply))
        reply = self.signed("PUT", "/s3/b/k", b"value", added={"x-amz-meta-added": "1"})
        assert (403, "AccessDenied") == (status(reply), code(reply))
        reply = self.request(
            "GET /s3/b/k", f"Authorization: AWS {KEY.access_key}:x\r\n"
        )
        assert (403, "InvalidRequest") == (status(reply), code(reply))
        assert b"version 4" in body(reply)
        assert [] == self.keys()

    def test_wrong_signatures_are_refused_later_where_too_many_wait(self) -> None:
        """
        As wrong passwords are: whoever tries again and again makes little work.
        """
        wrong = Credentials(KEY.access_key, KEY.secret_key + "x")
        self.patch(throttle, "MOST_ATTEMPTS", 0)
        assert b"" == self.signed("GET", "/s3/b/k", credentials=wrong)
        self.reactor.advance(throttle.REFUSAL_SECONDS)
        assert 429 == status(self.client.receive())

    def test_another_body_than_the_signed_one_is_refused(self) -> None:
        """
        Of an object, and of a document.
        """
        reply = self.signed("PUT", "/s3/b/k", b"other", sent=b"value")
        assert (400, "XAmzContentSHA256Mismatch") == (status(reply), code(reply))
        self.put(b"s3/b/k", b"value")
        text = b"<Delete><Object><Key>k</Key></Object></Delete>"
        reply = self.signed("POST", "/s3/b?delete", b"other", sent=text)
        assert (400, "XAmzContentSHA256Mismatch") == (status(reply), code(reply))
        assert [b"s3/b/k"] == self.keys()

    def test_presigned_urls_count_until_they_expire(self) -> None:
        """
        And for what was signed only.
        """
        self.put(b"s3/b/k", b"value")
        request = AWSRequest("GET", f"http://{HOST}/s3/b/k")
        S3SigV4QueryAuth(KEY, "s3", "us-east-1", expires=60).add_auth(request)
        target = request.url.removeprefix(f"http://{HOST}")
        assert b"value" == body(self.request(f"GET {target}"))
        assert ["ci"] == [entry.sender.user for entry in self.notes.entries[-1:]]
        reply = self.request(f"DELETE {target}")
        assert (403, "SignatureDoesNotMatch") == (status(reply), code(reply))
        reply = self.request(f"GET {target.replace('/k?', '/l?')}")
        assert (403, "SignatureDoesNotMatch") == (status(reply), code(reply))
        later = time.time() + 62
        with mock.patch("time.time", return_value=later):
            reply = self.request(f"GET {target}")
        assert (403, "AccessDenied") == (status(reply), code(reply))

    def test_checksum_that_is_signed_into_a_url_is_sent(self) -> None:
        """
        As a field that the upload must have; then it is verified.
        """
        name, right = (
            "x-amz-checksum-crc32",
            CHECKSUMS["x-amz-checksum-crc32"](b"value"),
        )
        url = f"http://{HOST}/s3/b/k"
        request = AWSRequest("PUT", url, headers={name: right})
        S3SigV4QueryAuth(KEY, "s3", "us-east-1", expires=60).add_auth(request)
        line = f"PUT {request.url.removeprefix(f'http://{HOST}')}"
        for fields, sent, expected in (
            ("", b"value", (403, "SignatureDoesNotMatch")),
            (f"{name}: {right}\r\n", b"other", (400, "BadDigest")),
        ):
            reply = self.request(line, fields, sent)
            assert (sent, expected) == (sent, (status(reply), code(reply)))
        assert [] == self.keys()
        assert 200 == status(self.request(line, f"{name}: {right}\r\n", b"value"))

    def presigned(self, target: str, **query: str) -> str:
        """
        The line of a PUT with a presigned URL.
        """
        url = f"http://{HOST}{target}{'&' if '?' in target else '?'}{urlencode(query)}"
        request = AWSRequest("PUT", url)
        S3SigV4QueryAuth(KEY, "s3", "us-east-1", expires=60).add_auth(request)
        return f"PUT {request.url.removeprefix(f'http://{HOST}')}"

    def test_checksum_in_a_presigned_url(self) -> None:
        """
        It is verified like one that is a field, of an object and of a part. That of an
        empty body says nothing: AWS's library for JavaScript puts it there where it
        does not know the body yet.
        """
        begun = self.signed("POST", "/s3/b/parts?uploads", b"")
        (upload,) = texts(begun, "UploadId")
        part = f"/s3/b/parts?partNumber=1&uploadId={upload}"
        for name, checksum in CHECKSUMS.items():
            shown = name.title()
            for target in ("/s3/b/k", part):
                for given, expected in (
                    ({name: checksum(b"other")}, (400, "BadDigest")),
                    ({shown: checksum(b"other")}, (400, "BadDigest")),
                    ({name: "AA"}, (400, "InvalidRequest")),
                ):
                    line = self.presigned(target, **given)
                    reply = self.request(line, "", b"value")
                    assert (given, expected) == (given, (status(reply), code(reply)))
                for given in (
                    {name: checksum(b"value")},
                    {name: checksum(b""), "x-amz-sdk-checksum-algorithm": "CRC32"},
                    {"x-amz-checksum-mode": "ENABLED"},
                ):
                    line = self.presigned(target, **given)
                    reply = self.request(line, "", b"value")
                    assert (given, 200) == (given, status(reply))
        line = self.presigned("/s3/b/k", **{"x-amz-checksum-xxhash64": "AAAAAAAAAAA="})
        reply = self.request(line, "", b"value")
        assert (400, "InvalidRequest") == (status(reply), code(reply))
        # Whoever has the URL may write it otherwise, with the same signature.
        line = self.presigned("/s3/b/k", **{name: checksum(b"other")})
        reply = self.request(line.replace("checksum", "%63hecksum"), "", b"value")
        assert (400, "BadDigest") == (status(reply), code(reply))

    def test_signatures_count_only_in_this_dialect(self) -> None:
        """
        Elsewhere nobody would compare the body with them.
        """
        reply = self.signed("PUT", "/plain", b"value")
        assert 401 == status(reply)
        assert [] == self.keys()

    def test_who_may_write_uploads_in_parts(self) -> None:
        """
        And needs no other right; who may not, does not.
        """
        reply = self.signed("POST", "/s3/b/in/k?uploads", b"", credentials=OTHER)
        upload = texts(reply, "UploadId")[0]
        query = f"/s3/b/in/k?uploadId={upload}"
        reply = self.signed("PUT", f"{query}&partNumber=1", b"value", credentials=OTHER)
        etag = tag_in(reply)
        text = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        ).encode()
        reply = self.signed("POST", query, text, credentials=OTHER)
        assert 200 == status(reply), reply
        reply = self.signed("POST", query, text, credentials=OTHER)
        assert 200 == status(reply), reply
        assert [b"s3/b/in/k"] == self.keys()
        for method, path in (
            ("POST", "/s3/b/k?uploads"),
            ("PUT", f"/s3/b/k?uploadId={upload}&partNumber=1"),
            ("POST", f"/s3/b/k?uploadId={upload}"),
            ("DELETE", f"/s3/b/k?uploadId={upload}"),
            ("GET", "/s3/b/in/k"),
            ("GET", f"/s3/b/k?uploadId={upload}"),
            ("GET", "/s3/b?uploads"),
            ("GET", "/s3/b"),
            ("GET", "/s3/"),
            ("PUT", "/s3/b"),
        ):
            content = text if method in ("PUT", "POST") else None
            reply = self.signed(method, path, content, credentials=OTHER)
            found = (method, path, status(reply), code(reply))
            assert (method, path, 403, "AccessDenied") == found

    def test_values_that_are_written_once_are_fixed(self) -> None:
        """
        Also for copies, and for uploads in parts.
        """
        assert 200 == status(self.signed("PUT", "/s3/once/k", b"value"))
        assert 409 == status(self.signed("PUT", "/s3/once/k", b"other"))
        self.put(b"s3/b/k", b"other")
        source = {"x-amz-copy-source": "b/k"}
        assert 409 == status(self.signed("PUT", "/s3/once/k", b"", source))
        reply = self.signed("POST", "/s3/once/k?uploads", b"")
        upload = texts(reply, "UploadId")[0]
        query = f"/s3/once/k?uploadId={upload}"
        reply = self.signed("PUT", f"{query}&partNumber=1", b"other")
        etag = tag_in(reply)
        text = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        ).encode()
        assert 409 == status(self.signed("POST", query, text))
        assert b"value" == self.stored(b"s3/once/k")
