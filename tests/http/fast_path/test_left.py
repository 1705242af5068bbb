"""
Tests for `kvd.http.fast_path`: which requests are not for them.
"""

from __future__ import annotations

import hashlib
import socket
from base64 import b64encode

from kvd.http.context import ProcessContext
from kvd.http.fast_path import LOST, MAX_BODY_BYTES, NOTHING, SERVED
from kvd.http.host_guard import HostGuard
from kvd.model.keys import Key
from kvd.settings import Limits, TCPAddress
from kvd.store.file import FileStore
from tests.http.fast_path.cases import HOST, FastPathCase, body_of, get, put

SHA256_OF_V = b64encode(hashlib.sha256(b"v").digest())
MD5_OF_V = b64encode(hashlib.md5(b"v", usedforsecurity=False).digest())


class LeftTests(FastPathCase):
    """
    A request that is not plainly a whole one is left to the ordinary way, with its
    bytes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")
        # So that no folder is missing for what is written in another way.
        self.publish(self.store, Key(b"a/first"), b"v")

    def test_other_methods(self) -> None:
        """
        And what is none.
        """
        for line in (
            b"HEADS /k",
            b"head /k",
            b"DELETE /k",
            b"OPTIONS /k",
            b"POST /k",
            b"get /k",
            b"GETX /k",
            b" GET /k",
            b"\r\nGET /k",
        ):
            self.assert_left(line + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        self.assert_left(b"\x16\x03\x01" + bytes(100))
        self.assert_left(b"x")

    def test_keys_that_are_spelled_unusually(self) -> None:
        """
        Also those that are no keys at all.
        """
        for key in (
            "",
            "k/",
            "/k",
            "a//k",
            "%6b",
            "a%2fk",
            "k?x=y",
            "?",
            ".",
            "..",
            "../k",
            "a/../k",
            "a/./k",
            ".k",
            "a/.k",
            ".kvd/lock",
            "k#x",
            "k\xe9",
            "k\t",
            "k\0",
            "k\x7f",
            'k"',
            "k|",
            "k\\",
            "x" * 201,
            f"a/{'x' * 201}/k",
            "x/" * 256 + "x",
        ):
            # Their forms are known by others.
            self.served(get("k"))
            self.served(put("other", b"v"))
            self.assert_left(get(key))
            self.assert_left(put(key, b"v"))

    def test_usual_keys_are_not_left(self) -> None:
        """
        With all that may stand in one, up to a length.
        """
        for key in (
            "Az09_~!$&'()*+,;=:@-",
            "a.b",
            "a..",
            "a/b.c",
            "x" * 200,
            "/".join(["x" * 127] * 4),
        ):
            self.publish(self.store, Key(key.encode()), b"first")
            self.served(put(key, b"value"))
            self.get(self.store, Key(key.encode()))
            self.served(get(key))

    def test_lines_that_are_none(self) -> None:
        """
        Whatever else may be right with the head.
        """
        for request in (
            b"GET /k HTTP/1.1\r\n\r\n",
            b"GET /k HTTP/2.0\r\n" + HOST + b"\r\n",
            b"GET /k\r\n" + HOST + b"\r\n",
            b"GET /k k HTTP/1.1\r\n" + HOST + b"\r\n",
            b"GET /k  HTTP/1.1\r\n" + HOST + b"\r\n",
            b"GET /k HTTP/1.1 \r\n" + HOST + b"\r\n",
            b"GET /k HTTP/1.1\n" + HOST + b"\r\n",
            b"GET /k HTTP/1.1\r\nHost: kvd\n\r\n\r\n",
            get("k", b"Host: again\r\n"),
            get("k", b"a b: c\r\n"),
            get("k", b"a : c\r\n"),
            get("k", b"a: b\r\n c\r\n"),
            get("k", b"a: \x01\r\n"),
            get("k", b"a\r\n"),
            get("k", b"\0: a\r\n"),
        ):
            self.assert_left(request)

    def test_fields_that_change_the_meaning(self) -> None:
        """
        Conditions, parts, bodies of unusual kinds.
        """
        for field in (
            b"If-Match: *\r\n",
            b"If-None-Match: *\r\n",
            b'If-None-Match: "x"\r\n',
            b"If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        ):
            self.assert_left(put("k", b"v", field))
        for field in (
            b"If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: more\r\n",
        ):
            self.assert_left(get("k", field))
            self.assert_left(put("k", b"v", field))
        self.assert_left(get("k", b"Expect: 100-continue\r\n"))
        for field in (
            b"Content-Range: bytes 0-0/1\r\n",
            b"Content-Length: 1\r\n",
            b"Content-Encoding: aws-chunked\r\n",
            b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n",
            b"x-amz-copy-source: /b/k\r\n",
            b"Destination: /other\r\n",
            b"Content-MD5: " + MD5_OF_V + b"\r\n",
            b"Content-MD5: x\r\n",
            b"Content-Digest: sha-256=:" + SHA256_OF_V + b":\r\n",
            b"Repr-Digest: sha-256=:" + SHA256_OF_V + b":\r\n",
            b"Repr-Digest: x\r\n",
            b"Content-Type: " + b"x" * 520 + b"\xff" * 520 + b"\r\n",
            b"Content-Type: " + b"\xff" * 700 + b"\r\n",
        ):
            self.assert_left(put("k", b"v", field))

    def test_fields_that_change_nothing(self) -> None:
        """
        A later version is 1.1, digests of other algorithms are nobody's, and a field
        without a value says nothing.
        """
        reply = self.served(b"GET /k HTTP/1.7\r\n" + HOST + b"\r\n")
        assert b"value" == body_of(reply)
        for field in (
            b"Content-Digest: crc32c=:AAAA:\r\n",
            b"Repr-Digest:\r\n",
            b"Content-Type:\r\n",
            b"Content-Type: \t\r\n",
        ):
            self.served(put("k", b"v", field))
            assert b"v" == self.get(self.store, Key(b"k"))
            assert b"v" == body_of(self.served(get("k", field)))

    def test_hosts_that_are_none(self) -> None:
        """
        Whoever is asked.
        """
        for host in (b"a:b", b"%zz", b"[::1]x", b"[1.2.3]", b"a:80a", b"u@h"):
            for method in (b"GET", b"PUT"):
                self.assert_left(
                    method + b" /k HTTP/1.1\r\nHost: " + host + b"\r\n"
                    b"Content-Length: 0\r\n\r\n"
                )

    def test_lengths_that_are_none(self) -> None:
        """
        Or missing.
        """
        for length in (b"", b"+1", b"-1", b"1,1", b"1 1", b"0x1", b"9" * 19, b"x"):
            head = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: " + length
            self.assert_left(head + b"\r\n\r\nv")
        self.assert_left(b"PUT /k HTTP/1.1\r\n" + HOST + b"\r\n")

    def test_a_length_may_have_zeroes_before_it(self) -> None:
        """
        It is the same number.
        """
        head = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 001\r\n\r\n"
        self.served(head + b"v")

    def test_a_get_with_a_body(self) -> None:
        """
        Which is read past; one that is said to be empty is none.
        """
        for body in (b"", b"v"):
            self.assert_left(get("k", b"Content-Length: 1\r\n") + body)
        self.served(get("k", b"Content-Length: 0\r\n"))

    def test_what_is_not_whole(self) -> None:
        """
        Wherever a head ends.
        """
        for whole in (get("k"), put("k", b"")):
            for end in range(1, len(whole)):
                self.assert_left(whole[:end])

    def test_what_is_more_than_one(self) -> None:
        """
        Be it a byte.
        """
        for whole in (get("k"), put("k", b"value")):
            for more in (b"x", b"\r\n", b"GET", whole):
                self.assert_left(whole + more)

    def test_what_is_long(self) -> None:
        """
        A head that is not looked up, a body that the kernel moves.
        """
        for size, outcome in ((900, SERVED), (1000, None)):
            request = get("k", b"X: " + b"x" * size + b"\r\n")
            assert (outcome or request) == self.serve(request)
            self.reply()
        head = put("k", bytes(MAX_BODY_BYTES + 1))[: -MAX_BODY_BYTES - 1]
        self.assert_left(head + bytes(1000))

    def test_nothing_has_come(self) -> None:
        """
        Nobody is waited for, even by a socket that would.
        """
        self.near.setblocking(True)
        assert NOTHING == self.fast_path.serve(self.near.fileno())

    def test_the_client_has_ended(self) -> None:
        """
        An end is no bytes, and follows what was sent before.
        """
        self.served(get("k"))
        self.far.shutdown(socket.SHUT_WR)
        assert b"" == self.fast_path.serve(self.near.fileno())

    def test_a_socket_that_cannot_be_read(self) -> None:
        """
        Is lost.
        """
        assert LOST == self.fast_path.serve(-1)
        with self.assertRaises(TypeError):  # noqa: PT027
            self.fast_path.serve("1")  # type: ignore[arg-type]


class TightTests(FastPathCase):
    """
    Limits below what the fast path would take are kept, though a form is known by
    requests that are within them.
    """

    limits = Limits(head_bytes=256, target_bytes=64)

    def test_longer_targets_than_allowed_are_left(self) -> None:
        """
        To be refused with 414.
        """
        for length in (63, 64):
            self.keep("x" * length, b"v")
        self.served(get("x" * 63))
        self.served(put("x" * 63, b"v"))
        self.assert_left(get("x" * 64))
        self.assert_left(put("x" * 64, b"v"))

    def test_longer_heads_than_allowed_are_left(self) -> None:
        """
        To be refused with 431.
        """
        self.keep("x", b"v")
        self.keep("xx", b"v")
        fill = b"X: " + b"x" * (256 - len(get("x")) - 5) + b"\r\n"
        assert 256 == len(get("x", fill))
        self.served(get("x", fill))
        self.assert_left(get("xx", fill))


class GuardedTests(FastPathCase):
    """
    Who names this machine otherwise is asked where he came in.
    """

    def make_process(self, store: FileStore) -> ProcessContext:
        process = super().make_process(store)
        process.guard = HostGuard([TCPAddress("127.0.0.1", 8080)], ["kvd"])
        return process

    def test_names_of_others(self) -> None:
        """
        Before and behind one that is known.
        """
        self.keep("k", b"value")
        for _ in range(2):
            for host in (b"evil.example", b"", b"localhost.evil"):
                self.assert_left(b"GET /k HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                self.assert_left(
                    b"PUT /k HTTP/1.1\r\nContent-Length: 1\r\nHost: "
                    + host
                    + b"\r\n\r\nv"
                )
            self.served(get("k"))
            for host in (b"localhost:8080", b"127.0.0.1", b"[::1]", b"kvd:1"):
                self.served(b"GET /k HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
