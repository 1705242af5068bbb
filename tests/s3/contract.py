"""
What engines promise, as far as kvd relies on it: SeaweedFS and its double pass the same
tests.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from urllib.parse import quote
from xml.sax.saxutils import unescape

from twisted.internet.defer import Deferred, gatherResults

from kvd.errors import KvdError
from kvd.s3.engine import Engine
from kvd.s3.guards import Change, Kept, try_conditions
from kvd.s3.requests import Ask, Reply
from tests.s3.cases import EngineCase

REFUSED = frozenset({400, 404, 409, 412, 416})


class Conditions:
    """
    What an engine keeps of them, if it keeps all; and of what was done.
    """

    is_consistent = True
    """Whether a value that was replaced is not read any more, nor a new one missing in
    a listing, whatever node returns."""
    creates = frozenset({Change.PUT})
    """Which changes it makes only if there is no object, if asked to."""
    replaces = frozenset({Change.PUT, Change.REMOVE})
    """And which ones only if the object is the one that is meant."""
    tells_time = False
    """Whether its reply to a PUT says when that was."""


class EngineContract(Conditions, EngineCase):
    """
    What an engine does with requests.
    """

    def setUp(self) -> None:
        super().setUp()
        self.engine: Engine = self.make_engine()
        self.truncated: list[bool] = []
        self.folder = f"contract/{os.urandom(8).hex()}/"

    def ask(self, ask: Ask) -> tuple[Reply, bytes]:
        """
        The reply to a request, with its body.
        """

        async def ask_and_read() -> tuple[Reply, bytes]:
            reply = await self.engine.ask(ask)
            return reply, await self.engine.body(reply)

        return self.finish(Deferred.fromCoroutine(ask_and_read()))

    def put(
        self, name: str, body: bytes = b"", fields: dict[str, str] | None = None
    ) -> Reply:
        """
        Store an object.
        """
        ask = Ask("PUT", self.folder + name, "", fields or {}, body, expected=REFUSED)
        return self.ask(ask)[0]

    def get(
        self, name: str, fields: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[Reply, bytes]:
        """
        Read an object.
        """
        ask = Ask(method, self.folder + name, fields=fields or {}, expected=REFUSED)
        return self.ask(ask)

    def names(self, prefix: str = "", after: str = "", most: int = 1000) -> list[str]:
        """
        A page of names, without what all tests have in common.
        """
        query = f"list-type=2&max-keys={most}"
        query += f"&prefix={quote(self.folder + prefix, safe='')}"
        if after:
            query += f"&start-after={quote(self.folder + after, safe='')}"
        text = self.ask(Ask("GET", "", query))[1].decode()
        found = re.findall("<Key>(.*?)</Key>", text)
        self.truncated.append("<IsTruncated>true<" in text)
        return [unescape(name).removeprefix(self.folder) for name in found]

    def code(self, body: bytes) -> str:
        """
        The code of a failure.
        """
        found = re.search("<Code>(.*?)</Code>", body.decode())
        assert found is not None
        return found[1]

    # -- objects --------------------------------------------------------------

    def test_object_comes_back(self) -> None:
        """
        With its fields, its size and the MD5 of its bytes as its tag.
        """
        body = os.urandom(100_000)
        self.put("one", body, {"x-amz-meta-kvd-etag": "id", "content-type": "a/b"})

        for method, expected in (("GET", body), ("HEAD", b"")):
            reply, got = self.get("one", method=method)
            assert (200, expected) == (reply.status, got)
            assert "id" == reply.field("x-amz-meta-kvd-etag")
            assert "a/b" == reply.field("Content-Type")
            if method == "HEAD":
                assert len(body) == reply.number("Content-Length")
            md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
            assert f'"{md5}"' == reply.field("ETag")
            assert reply.field("Last-Modified").endswith(" GMT")

    def test_time_of_a_change(self) -> None:
        """
        That of the object, where the reply to a PUT says it.
        """
        changed = self.put("one", b"value").field("Last-Modified")

        said = changed or self.get("one", method="HEAD")[0].field("Last-Modified")
        assert self.tells_time == bool(changed)
        assert said == self.get("one")[0].field("Last-Modified")

    def test_part_of_an_object(self) -> None:
        """
        Ranges, also beyond the end, and of the object that is meant.
        """
        self.put("one", b"0123456789")
        tag = self.get("one")[0].field("ETag")

        for asked, part, expected in (
            ("bytes=2-4", "bytes 2-4/10", b"234"),
            ("bytes=0-65535", "bytes 0-9/10", b"0123456789"),
            ("bytes=9-9", "bytes 9-9/10", b"9"),
        ):
            reply, got = self.get("one", {"range": asked, "if-match": tag})
            assert (206, expected) == (reply.status, got)
            assert part == reply.field("Content-Range")
        assert 416 == self.get("one", {"range": "bytes=10-12"})[0].status
        assert 412 == self.get("one", {"if-match": '"other"'})[0].status
        self.put("one", b"")
        assert 416 == self.get("one", {"range": "bytes=0-65535"})[0].status
        assert (200, b"") == (self.get("one")[0].status, self.get("one")[1])

    def test_absent_object(self) -> None:
        """
        It has a code of its own, and can be removed all the same.
        """
        reply, body = self.get("none")
        assert (404, "NoSuchKey") == (reply.status, self.code(body))
        assert 404 == self.get("none", method="HEAD")[0].status
        self.put("one", b"1")
        for _ in range(2):
            reply = self.ask(Ask("DELETE", f"{self.folder}one"))[0]
            assert 204 == reply.status
        assert 404 == self.get("one")[0].status

    def test_names_that_kvd_gives_are_kept(self) -> None:
        """
        Each is an object of its own, listed in the order of the bytes.
        """
        names = [
            "0",
            "A-2Eb",
            "b",
            "b-2Dx",
            "b.c",
            "b.c.d",
            "b0",
            ":;<=>?@]^_`[5B~7B~FF",
            "x" * 200,
            "x" * 200 + "~/yy",
            "x" * 200 + "~/yy" + "z" * 196 + "~/" + "z" * 200,
        ]
        for number, name in enumerate(names):
            assert 200 == self.put(name, b"%d" % number).status

        for number, name in enumerate(names):
            assert b"%d" % number == self.get(name)[1]
        assert sorted(names) == self.names()

    def test_name_can_be_too_long(self) -> None:
        """
        It is refused with a code.
        """
        long = "/".join(["x" * 200] * 6)
        error = self.finish_with_error(Ask("PUT", long, body=b"1"))

        assert "choose a shorter key" in error

    def test_pages_of_names(self) -> None:
        """
        They begin after any name, have at most as many as were asked for, and say
        whether there are more.
        """
        for name in ("a.1", "a.2", "a.3", "b.1"):
            self.put(name, b"1")

        assert ["a.1", "a.2"] == self.names(most=2)
        assert ["a.3", "b.1"] == self.names(after="a.2", most=2)
        assert [True, False] == self.truncated
        assert ["a.3"] == self.names("a.", after="a.25")
        assert [] == self.names("c.")
        assert [] == self.names("b..")

    # -- uploads in parts -----------------------------------------------------

    def begin(self, name: str) -> str:
        """
        Begin an upload in parts, of which the first is sent.

        Returns:
            Its query.
        """
        fields = {"x-amz-meta-kvd-etag": "id"}
        _, body = self.ask(Ask("POST", self.folder + name, "uploads=", fields))
        found = re.search("<UploadId>(.*?)</UploadId>", body.decode())
        assert found is not None
        query = f"uploadId={quote(found[1], safe='')}"
        ask = Ask("PUT", self.folder + name, f"partNumber=1&{query}", body=b"part")
        self.tag = self.ask(ask)[0].field("ETag")
        return query

    def join(self, name: str, query: str) -> Reply:
        """
        Join the only part.
        """
        part = f"<Part><PartNumber>1</PartNumber><ETag>{self.tag}</ETag></Part>"
        body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
        expected = REFUSED | {500}
        ask = Ask("POST", self.folder + name, query, body=body, expected=expected)
        return self.ask(ask)[0]

    def test_parts_are_unseen_until_they_are_joined(self) -> None:
        """
        Then they are an object with the fields of the beginning.
        """
        query = self.begin("one")
        assert 404 == self.get("one")[0].status
        assert [] == self.names()

        assert 200 == self.join("one", query).status
        reply, body = self.get("one")
        assert (b"part", "id") == (body, reply.field("x-amz-meta-kvd-etag"))
        assert self.join("one", query).status in (200, 404)
        assert b"part" == self.get("one")[1]

    def test_aborted_upload_is_gone(self) -> None:
        """
        Its parts cannot be joined any more.
        """
        query = self.begin("one")
        self.ask(Ask("DELETE", f"{self.folder}one", query))

        # Ceph fails.
        assert self.join("one", query).status in (404, 500)
        assert 404 == self.get("one")[0].status

    # -- conditions and credentials -------------------------------------------

    def test_conditions_are_kept(self) -> None:
        """
        Of several writers one wins, whatever the condition.
        """
        tried = try_conditions(self.engine, self.folder)
        kept = self.finish(Deferred.fromCoroutine(tried))

        assert self.creates == kept.create
        assert self.replaces == kept.quoted | kept.bare
        assert isinstance(kept, Kept)
        assert [] == self.names()

    def test_other_credentials_are_refused(self) -> None:
        """
        A sentence names the code, and both clocks.
        """
        self.engine = self.make_engine(secret="other")
        began = time.time()
        error = self.finish_with_error(Ask("GET", f"{self.folder}one"))
        # The engine's date has no parts of a second, and the reply took its time.
        most_seconds = time.time() - began + 1

        assert "refuses kvd's credentials (403 SignatureDoesNotMatch)" in error
        said = re.search(r"the clocks differ by (\d+) s", error)
        assert said is not None
        assert int(said[1]) <= round(most_seconds)

    def test_other_bucket_is_absent(self) -> None:
        """
        A sentence says what to do.
        """
        self.engine = self.make_engine(bucket="absent")

        for ask in (Ask("GET", "one"), Ask("PUT", "one", body=b"1")):
            error = self.finish_with_error(ask)
            assert "has no bucket 'absent': create it" in error

    def test_requests_side_by_side(self) -> None:
        """
        Each gets its own reply.
        """
        for number in range(20):
            self.put(f"{number}", b"%d" % number)

        async def get(number: int) -> bytes:
            reply = await self.engine.ask(Ask("GET", f"{self.folder}{number}"))
            return await self.engine.body(reply)

        both = gatherResults([Deferred.fromCoroutine(get(n)) for n in range(20)])
        assert [b"%d" % n for n in range(20)] == self.finish(both)

    def finish_with_error(self, ask: Ask) -> str:
        """
        The sentence of a request that fails.
        """
        asked = Deferred.fromCoroutine(self.engine.ask(ask))
        self.wait_for(asked)
        error = self.failureResultOf(asked).value
        assert isinstance(error, KvdError), repr(error)
        return error.sentence
