"""
Tests for `kvd.http.methods.resumable`: uploads that several requests write.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import replace
from random import Random
from unittest import mock

from twisted.internet.defer import Deferred

from kvd.http.connection import HttpConnection
from kvd.http.mover import MOVE_FROM_BYTES
from kvd.interfaces import Answer
from kvd.model.keys import Key
from kvd.net.splice import Pipe
from kvd.store.resuming import ResumableUpload
from tests.chance import new_seed
from tests.http.fast_path.cases import FallbackCase, field, get, head, put
from tests.stepped import Client, connect

LARGE = 3 * MOVE_FROM_BYTES


def begin(body: bytes, fields: str, *, complete: bool = False) -> bytes:
    """
    The first request of an upload.
    """
    text = f"Upload-Complete: ?{int(complete)}\r\n{fields}"
    return put("k", body, text.encode())


def append(location: str, offset: int, body: bytes, *, complete: bool) -> bytes:
    """
    A further one.
    """
    return (
        f"PATCH {location} HTTP/1.1\r\nHost: kvd\r\n"
        f"Content-Type: application/partial-upload\r\nContent-Length: {len(body)}\r\n"
        f"Upload-Offset: {offset}\r\nUpload-Complete: ?{int(complete)}\r\n\r\n"
    ).encode() + body


class ResumableTests(FallbackCase):
    """
    Requests on connections that come and go.
    """

    def make_pipe(self) -> Pipe | None:
        """
        Through which bodies are moved.
        """
        return None

    def setUp(self) -> None:
        super().setUp()
        self.process.pipe = self.make_pipe()
        self.over_tcp = False

    def ask(self, request: bytes) -> bytes:
        """
        The replies to a request.
        """
        self.serve(request)
        return self.reply()

    def state(self, location: str) -> tuple[str | None, str | None, str | None]:
        """
        Whether an upload is complete, its offset and its length.
        """
        reply = self.ask(f"HEAD {location} HTTP/1.1\r\nHost: kvd\r\n\r\n".encode())
        assert reply.startswith(b"HTTP/1.1 204 "), reply
        assert "no-store" == field(reply, "Cache-Control")
        assert "max-age=86400" == field(reply, "Upload-Limit")
        names = "Upload-Complete", "Upload-Offset", "Upload-Length"
        complete, offset, length = (field(reply, name) for name in names)
        return complete, offset, length

    def interrupted(self, request: bytes) -> str:
        """
        Send a part of a request, and leave; the location of the upload.
        """
        client = self.connect_one()
        reply = client.send(request).receive()
        found = re.search(rb"^HTTP/1\.1 104 [^\r]*\r\nLocation: ([^\r]*)", reply)
        assert found is not None, reply
        client.close()
        return found[1].decode()

    def connect_one(self) -> Client:
        """
        A connection of its own.
        """
        client = connect(self.reactor, HttpConnection(self.process), self.over_tcp)
        self.addCleanup(client.socket.close)
        return client

    def test_a_client_goes_on_where_its_connection_broke(self) -> None:
        """
        What has come is kept; until all has come, there is no value.
        """
        random = Random(new_seed())
        body = random.randbytes(LARGE)
        request = begin(body, "Content-Type: text/x\r\n", complete=True)
        cut = random.randrange(LARGE)
        location = self.interrupted(request[: len(request) - LARGE + cut])

        assert ("?0", str(cut), str(LARGE)) == self.state(location)
        assert self.ask(get("k")).startswith(b"HTTP/1.1 404 ")
        further = random.randrange(cut, LARGE)
        rest = append(location, cut, body[cut:], complete=True)
        client = self.connect_one()
        client.send(rest[: len(rest) - (LARGE - further)]).close()
        assert ("?0", str(further), str(LARGE)) == self.state(location)

        reply = self.ask(append(location, further, body[further:], complete=True))
        assert reply.startswith(b"HTTP/1.1 201 "), reply
        assert "?1" == field(reply, "Upload-Complete")
        assert ("?1", str(LARGE), str(LARGE)) == self.state(location)
        value = self.result(self.store.open(Key(b"k")))
        self.addCleanup(value.close)
        assert body == value.read(0, LARGE + 1)
        assert f'"{value.info.etag}"' == field(reply, "ETag")
        assert {"content-type": "text/x"} == value.info.metadata

    def test_what_came_before_a_reset_is_kept(self) -> None:
        """
        Also what nobody has read, as the store did not take more at that time.
        """
        self.over_tcp = True
        body = bytes(range(100)) * 30
        written, waits = ResumableUpload.write, [Deferred[None]()]

        def write(upload: ResumableUpload, chunk: bytes) -> Answer[None]:
            written(upload, chunk)
            return waits[0] if not waits[0].called else None

        with mock.patch.object(ResumableUpload, "write", write):
            client = self.connect_one()
            request = begin(body, "", complete=True)
            reply = client.send(request[:-2000]).receive()
            found = re.search(rb"\r\nLocation: ([^\r]*)", reply)
            assert found is not None, reply
            client.send(request[-2000:-1000])
            (connection,) = self.process.connections
            client.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.close()
            connection.check_time(self.reactor.seconds())
            self.reactor.settle()
            assert {connection} == self.process.connections
            waits[0].callback(None)
            self.reactor.settle()

        assert set() == self.process.connections
        assert ("?0", "2000", "3000") == self.state(found[1].decode())

    def test_a_client_sends_part_after_part(self) -> None:
        """
        It need not know the length before the end; a method of POST begins it too.
        """
        request = begin(b"abc", "Upload-Draft-Interop-Version: 8\r\n")
        reply = self.ask(request.replace(b"PUT", b"POST", 1))
        interim, _, final = reply.partition(b"\r\n\r\n")
        assert interim.startswith(b"HTTP/1.1 104 Upload Resumption Supported\r\n")
        assert "8" == field(interim, "Upload-Draft-Interop-Version")
        assert final.startswith(b"HTTP/1.1 201 ")
        location = field(final, "Location") or ""
        assert location == field(interim, "Location")
        assert ("?0", "3") == (
            field(final, "Upload-Complete"),
            field(final, "Upload-Offset"),
        )
        assert ("?0", "3", None) == self.state(location)

        reply = self.ask(append(location, 3, b"de", complete=False))
        assert reply.startswith(b"HTTP/1.1 204 ")
        assert "5" == field(reply, "Upload-Offset")
        reply = self.ask(append(location, 5, b"", complete=True))
        assert reply.startswith(b"HTTP/1.1 201 ")
        assert self.ask(get("k")).endswith(b"\r\n\r\nabcde")

    def test_a_whole_value_is_stored_in_one_request(self) -> None:
        """
        An old client of HTTP/1.0 hears nothing of uploads; nothing is left.
        """
        reply = self.ask(begin(b"abc", "", complete=True))
        assert b"HTTP/1.1 201 Created" in reply
        reply = self.ask(put("k", b"abcd", b"Upload-Complete: ?1\r\n", minor=0))
        assert reply.startswith(b"HTTP/1.1 204 ")
        assert self.ask(get("k")).endswith(b"\r\n\r\nabcd")
        # What is said of those that are done expires.
        assert all(name.endswith(".json") for name in self.debris())

    def test_what_is_wrong_is_refused(self) -> None:
        """
        With what is right; the upload stays.
        """
        final = self.ask(begin(b"abc", "Upload-Length: 6\r\n")).partition(b"\r\n\r\n")[
            2
        ]
        location = field(final, "Location") or ""
        good = append(location, 3, b"def", complete=True)
        table = [
            (append(location, 2, b"def", complete=True), 409),
            (append(location, 4, b"ef", complete=True), 409),
            (append(location, 3, b"defg", complete=True), 400),
            (append(location, 3, b"de", complete=True), 400),
            (append(location, 3, b"defg", complete=False), 400),
            (good.replace(b"partial-upload", b"other"), 415),
            (good.replace(b"Upload-Offset", b"X-Offset"), 400),
            (good.replace(b"Upload-Complete: ?1", b"Upload-Complete: 1"), 400),
            (good.replace(b"/k?", b"/other?"), 404),
            (append(location[:-1] + "x", 3, b"def", complete=True), 404),
            (append("/k", 3, b"def", complete=True), 405),
            (append("/k/?upload=" + "0" * 32, 3, b"def", complete=True), 400),
            (begin(b"abc", "Upload-Length: 2\r\n"), 400),
            (begin(b"abc", "Upload-Length: 4\r\n", complete=True), 400),
        ]
        for request, expected in table:
            reply = self.ask(request)
            assert reply.startswith(b"HTTP/1.1 %d " % expected), (request, reply)
            if expected == 409:
                assert "3" == field(reply, "Upload-Offset")
        assert ("?0", "3", "6") == self.state(location)
        assert self.ask(good).startswith(b"HTTP/1.1 201 ")
        assert self.ask(good).startswith(b"HTTP/1.1 404 ")

    def test_chunks_are_counted(self) -> None:
        """
        More of them than the client has said are refused when they come; what came
        before stays.
        """
        chunked = b"Transfer-Encoding: chunked\r\n"
        request = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nUpload-Complete: ?1\r\n"
        request += b"Upload-Length: 4\r\n" + chunked + b"\r\n3\r\nabc\r\n"
        client = self.connect_one()
        reply = client.send(request).receive()
        assert b"HTTP/1.1 400 " in client.send(b"2\r\nde\r\n0\r\n\r\n").receive()
        location = field(reply, "Location") or ""
        assert ("?0", "3", "4") == self.state(location)
        assert self.ask(append(location, 3, b"d", complete=True)).startswith(
            b"HTTP/1.1 201 "
        )

    def test_a_condition_holds_at_both_ends(self) -> None:
        """
        It is refused early, and again when the value is published.
        """
        new = "If-None-Match: *\r\n"
        final = self.ask(begin(b"abc", new)).partition(b"\r\n\r\n")[2]
        location = field(final, "Location") or ""
        self.ask(put("k", b"other"))
        assert self.ask(begin(b"abc", new)).startswith(b"HTTP/1.1 412 ")
        reply = self.ask(append(location, 3, b"", complete=True))
        assert reply.startswith(b"HTTP/1.1 412 ")
        assert "?1" == field(reply, "Upload-Complete")
        assert self.ask(get("k")).endswith(b"\r\n\r\nother")

    def test_it_can_be_cancelled(self) -> None:
        """
        Nothing of it stays.
        """
        final = self.ask(begin(b"abc", "")).partition(b"\r\n\r\n")[2]
        location = field(final, "Location") or ""
        request = f"DELETE {location} HTTP/1.1\r\nHost: kvd\r\n\r\n".encode()
        assert self.ask(request).startswith(b"HTTP/1.1 204 ")
        assert self.ask(request).startswith(b"HTTP/1.1 404 ")
        assert [] == self.debris()
        assert self.ask(head("k")).startswith(b"HTTP/1.1 404 ")

    def test_two_do_not_write_at_once(self) -> None:
        """
        The second one is told to ask again soon.
        """
        request = begin(b"abcdef", "", complete=True)
        client = self.connect_one()
        reply = client.send(request[:-3]).receive()
        location = field(reply, "Location") or ""
        reply = self.ask(append(location, 3, b"def", complete=True))
        assert reply.startswith(b"HTTP/1.1 503 ")
        assert "1" == field(reply, "Retry-After")
        assert b"HTTP/1.1 201 " in client.send(b"def").receive()
        assert self.ask(get("k")).endswith(b"\r\n\r\nabcdef")

    def test_a_value_has_its_limit(self) -> None:
        """
        Of all requests together; clients hear of it.
        """
        self.process.limits = replace(self.process.limits, value_bytes=5)
        reply = self.ask(begin(b"abc", ""))
        assert "max-age=86400, max-size=5" == field(reply, "Upload-Limit")
        location = field(reply, "Location") or ""
        for complete in (False, True):
            reply = self.ask(append(location, 3, b"def", complete=complete))
            assert reply.startswith(b"HTTP/1.1 413 ")
        assert self.ask(begin(b"", "Upload-Length: 6\r\n")).startswith(b"HTTP/1.1 413 ")

    def test_where_none_can_be_resumed(self) -> None:
        """
        Whole values are stored all the same, without a word of it; parts are refused.
        """
        self.process.limits = replace(self.process.limits, upload_seconds=None)
        reply = self.ask(begin(b"abc", "", complete=True))
        assert reply.startswith(b"HTTP/1.1 201 ")
        assert self.ask(begin(b"abc", "")).startswith(b"HTTP/1.1 501 ")

    def test_too_many_are_interrupted(self) -> None:
        """
        Likewise; parts may be sent later.
        """
        with mock.patch("kvd.store.resuming.MOST_UPLOADS", 0):
            reply = self.ask(begin(b"abc", "", complete=True))
            assert reply.startswith(b"HTTP/1.1 201 ")
            assert self.ask(begin(b"abc", "")).startswith(b"HTTP/1.1 503 ")

    def test_a_digest_is_that_of_one_request(self) -> None:
        """
        A value with one is verified as it comes.
        """
        digest = (
            "Repr-Digest: sha-256=:LIsI2lzmA5jh8Zrw5dzMdE3ydLgmq+WF6rpoxSVDSAY=:\r\n"
        )
        reply = self.ask(begin(b"one\n", digest, complete=True))
        assert reply.startswith(b"HTTP/1.1 201 ")
        assert self.ask(begin(b"one\n", digest)).startswith(b"HTTP/1.1 501 ")

    def test_options_say_so(self) -> None:
        """
        A client may ask before it begins.
        """
        reply = self.ask(b"OPTIONS /k HTTP/1.1\r\nHost: kvd\r\n\r\n")
        assert "application/partial-upload" == field(reply, "Accept-Patch")


class MovedTests(ResumableTests):
    """
    The same where the kernel moves bodies.
    """

    def make_pipe(self) -> Pipe | None:
        pipe = Pipe()
        self.addCleanup(pipe.close)
        return pipe

    def setUp(self) -> None:
        super().setUp()
        self.over_tcp = True
