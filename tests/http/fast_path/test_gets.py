"""
Tests for `kvd.http.fast_path`: values that are read, and keys without one.
"""

from __future__ import annotations

import os
import re
import socket
import time
from random import Random

from kvd.http.fast_path import CLOSES, SERVED
from kvd.http.wire.replies import http_date
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store import attribute
from tests.chance import new_seed
from tests.http.fast_path.cases import (
    FallbackCase,
    FastPathCase,
    body_of,
    field,
    get,
    head,
    without_date,
)

ENDS = [
    (1, b"", SERVED, None),
    (1, b"Connection: close\r\n", SERVED | CLOSES, "close"),
    (0, b"", SERVED | CLOSES, "close"),
    (0, b"Connection: keep-alive\r\n", SERVED, "keep-alive"),
]
"""
Which connections end: the minor version of HTTP and fields of a request, the outcome,
and the reply's ``Connection``.
"""


class ValueTests(FastPathCase):
    """
    A value is opened and sent.
    """

    def test_its_reply_is_whole(self) -> None:
        """
        All that the ordinary way says, in its order.
        """
        etag = self.keep("a/b", b"value")
        reply = self.served(get("a/b"))

        assert re.fullmatch(
            rb"HTTP/1\.1 200 OK\r\n"
            rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n"
            rb'ETag: "' + etag.encode() + rb'"\r\n'
            rb"Last-Modified: [^\r]{29}\r\n"
            rb"Accept-Ranges: bytes\r\n"
            rb"X-Content-Type-Options: nosniff\r\n"
            rb"Content-Type: application/octet-stream\r\n"
            rb"Content-Length: 5\r\n\r\nvalue",
            reply,
        )

    def test_its_date_is_now(self) -> None:
        """
        As all replies say it.
        """
        self.keep("k", b"v")
        before = int(time.time())
        said = field(self.served(get("k")), "Date")
        after = int(time.time())

        assert said in {http_date(second) for second in range(before - 1, after + 1)}

    def test_it_is_of_any_day(self) -> None:
        """
        From 1970 on, and of any second of it; values of different days in turn.
        """
        random = Random(new_seed())
        now = int(time.time())
        edges = [0, 1, 86_399, 86_400, 951_782_400, 951_868_799, 951_868_800, now]
        path = os.path.join(self.path, "k")
        for second in [*edges, *(random.randrange(now) for _ in range(200))]:
            self.place("k", b"v")
            text = attribute.encode("a" * 32, 1, second * 1_000_000, b"")
            os.setxattr(path, attribute.NAME, text)
            os.utime(path, (second, second))
            reply = self.served(get("k"))
            assert http_date(second) == field(reply, "Last-Modified")

    def test_it_has_whole_seconds(self) -> None:
        """
        Its file came out of an archive that keeps no parts of them.
        """
        etag = self.keep("k", b"value")
        path = os.path.join(self.path, "k")
        second = os.stat(path).st_mtime_ns // 10**9
        os.utime(path, (0, second))
        reply = self.served(get("k"))

        assert f'"{etag}"' == field(reply, "ETag")
        assert http_date(second) == field(reply, "Last-Modified")

    def test_an_empty_one_too(self) -> None:
        """
        Its reply is all head.
        """
        self.keep("k", b"")
        reply = self.served(get("k"))

        assert "0" == field(reply, "Content-Length")
        assert b"" == body_of(reply)

    def test_its_metadata_is_reported(self) -> None:
        """
        As it was stored.
        """
        fields = {
            "content-type": "text/plain",
            "content-encoding": "br",
            "content-language": "de",
            "content-disposition": "inline",
            "cache-control": "no-cache",
            "expires": "0",
        }
        self.put(self.store, Key(b"k"), b"v", metadata=fields)
        reply = self.served(get("k"))

        assert fields == {name: field(reply, name) for name in fields}

    def test_an_empty_type_is_none(self) -> None:
        """
        It may stand in the store.
        """
        self.put(self.store, Key(b"k"), b"v", metadata={"content-type": ""})
        reply = self.served(get("k"))

        assert "application/octet-stream" == field(reply, "Content-Type")

    def test_connections_end_as_the_client_asks(self) -> None:
        """
        Which the reply repeats.
        """
        self.keep("k", b"v")
        for minor, fields, outcome, said in ENDS:
            assert outcome == self.serve(get("k", fields, minor))
            assert said == field(self.reply(), "Connection")

    def test_every_key_has_its_own(self) -> None:
        """
        Though all heads have one form.
        """
        for number in range(300):
            self.keep(f"{number}", b"%d" % number)
        for number in range(300):
            assert b"%d" % number == body_of(self.served(get(f"{number}")))

    def test_many_forms_are_known(self) -> None:
        """
        More than are remembered.
        """
        self.keep("k", b"v")
        for number in range(600):
            request = get("k", b"User-Agent: %d\r\n" % number)
            assert b"v" == body_of(self.served(request))


class ValueFallbackTests(FallbackCase, ValueTests):
    """
    See there; without the fast path.
    """


class HeadTests(FastPathCase):
    """
    HEAD is answered by the head of the same reply.
    """

    def test_it_is_the_same_head(self) -> None:
        """
        Of a value of any size, or of none; and nothing behind it.
        """
        for key, size in (("a/b", 5), ("empty", 0), ("large", 70_000)):
            self.keep(key, bytes(size))
        for key in ("a/b", "empty", "large", "none", "a/none", "a/b/none"):
            for _ in range(3):
                reply, told = self.served(get(key)), self.served(head(key))
                assert told.endswith(b"\r\n\r\n")
                assert without_date(reply).startswith(without_date(told)), told

    def test_connections_end_as_the_client_asks(self) -> None:
        """
        As for GET.
        """
        self.keep("k", b"v")
        for key in ("k", "none"):
            assert SERVED | CLOSES == self.serve(head(key, b"Connection: close\r\n"))
            reply = self.reply()
            assert "close" == field(reply, "Connection")
            assert b"" == body_of(reply)


class HeadFallbackTests(FallbackCase, HeadTests):
    """
    See there; without the fast path.
    """


class AbsentTests(FastPathCase):
    """
    A key without a value is answered at once, too.
    """

    def test_its_reply_is_whole(self) -> None:
        """
        All that the ordinary way says, in its order; it names the key.
        """
        self.keep("value", b"v")
        for key in ("none", "a/none", "value/none", "a-Z_0.9~", "x" * 200):
            detail = f'"detail": "/{key} has no value."'
            body = (
                b'{"type": "about:blank", "title": "Not Found", "status": 404, '
                + detail.encode()
                + b"}\n"
            )
            reply = self.served(get(key))

            assert body == body_of(reply)
            assert re.fullmatch(
                rb"HTTP/1\.1 404 Not Found\r\n"
                rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n"
                rb"Content-Type: application/problem\+json\r\n"
                rb"X-Content-Type-Options: nosniff\r\n"
                rb"Content-Length: %d\r\n\r\n" % len(body),
                reply[: -len(body)],
            )

    def test_connections_end_as_the_client_asks(self) -> None:
        """
        A miss is no reason to close.
        """
        for minor, fields, outcome, said in ENDS:
            assert outcome == self.serve(get("none", fields, minor))
            reply = self.reply()
            assert said == field(reply, "Connection")
            assert reply.startswith(b"HTTP/1.1 404 ")

    def test_a_value_that_comes_is_seen(self) -> None:
        """
        A miss is not remembered.
        """
        for _ in range(3):
            assert self.served(get("a/k")).startswith(b"HTTP/1.1 404 ")
            self.keep("a/k", b"value")
            assert b"value" == body_of(self.served(get("a/k")))
            self.result(self.store.remove(Key(b"a/k"), UNCONDITIONAL))


class AbsentFallbackTests(FallbackCase, AbsentTests):
    """
    See there; without the fast path.
    """


class OtherValueTests(FastPathCase):
    """
    What is not plainly a whole value of kvd's, or plainly nothing, is left to who can
    say.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("a/b", b"value")
        self.file = os.path.join(self.path, "a", "b")
        self.served(get("a/b"))

    def test_keys_that_the_reply_would_spell_otherwise(self) -> None:
        """
        Where there is no value to be sent.
        """
        for key in ("a:b", "a@b", "a+b", "a=b/c", "(a)"):
            self.assert_left(get(key))
            self.assert_left(head(key))

    def test_others_have_written_to_it(self) -> None:
        """
        Its time shows that, also if it is only touched.
        """
        with open(self.file, "r+b") as file:
            file.write(b"VALUE")
        self.assert_left(get("a/b"))
        self.keep("a/b", b"value")
        os.utime(self.file, ns=(0, 0))
        self.assert_left(get("a/b"))
        self.assert_left(head("a/b"))

    def test_it_is_longer_or_shorter(self) -> None:
        """
        Then it counts as torn.
        """
        status = os.stat(self.file)
        for size in (6, 4, 0):
            os.truncate(self.file, size)
            os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))
            self.assert_left(get("a/b"))
            self.assert_left(head("a/b"))

    def test_some_of_it_was_never_written(self) -> None:
        """
        As a power cut may leave it, if the file system reports that.
        """
        self.keep("k", bytes(100_000))
        self.lose_content("k")
        self.served(get("a/b"))
        self.assert_left(get("k"))
        self.assert_left(head("k"))

    def test_something_else_has_its_name(self) -> None:
        """
        A link to the very file, a folder, a pipe, or a socket.
        """
        os.rename(self.file, self.file + "-away")
        os.symlink("b-away", self.file)
        self.assert_left(get("a/b"))
        os.unlink(self.file)
        os.mkdir(self.file)
        self.assert_left(get("a/b"))
        os.rmdir(self.file)
        os.mkfifo(self.file)
        self.assert_left(get("a/b"))
        os.unlink(self.file)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.file)
            self.assert_left(get("a/b"))

    def test_browser_that_misses_it_leads_to_it(self) -> None:
        """
        It may mean a folder; where there is a value, it takes the fast path.
        """
        self.process.has_pages = True
        self.keep("k", b"value")
        accept = b"Accept: text/html,*/*;q=0.8\r\n"
        for _ in range(2):
            self.assert_left(get("none", accept))
            self.assert_left(head("none", accept))
            assert b"value" == body_of(self.served(get("k", accept)))
            assert self.served(get("none")).startswith(b"HTTP/1.1 404 ")

    def test_a_link_leads_to_it(self) -> None:
        """
        It is no value, until there is a folder again.
        """
        folder = os.path.dirname(self.file)
        os.rename(folder, folder + "-away")
        for target in ("a-away", folder + "-away", "/"):
            os.symlink(target, folder)
            self.assert_left(get("a/b"))
            self.assert_left(get("a/none"))
            os.unlink(folder)
        os.rename(folder + "-away", folder)
        self.served(get("a/b"))

    def test_it_is_of_others(self) -> None:
        """
        Who have written no attribute, one of another kind, or one with metadata that no
        field can hold; or have given it a time beyond all calendars.
        """
        path = os.path.join(self.path, "k")
        self.place("k", b"v")
        self.assert_left(get("k"))
        for seconds in (-(2**33), 2**40, 2**62 // 10**9):
            self.keep("k", b"v")
            os.utime(path, (seconds, seconds))
            self.assert_left(get("k"))
        for line in ("content-type: a\0b", "content-type: \N{SNOWMAN}", "age: 1", "x"):
            etag = self.keep("k", b"v")
            published_us = os.stat(path).st_mtime_ns // 1000
            lines = f"{line}\n".encode()
            text = attribute.encode(etag, 1, published_us, lines)
            os.setxattr(path, attribute.NAME, text)
            self.assert_left(get("k"))
        for text in (
            b"",
            b"2",
            b"1 " + b"a" * 32 + b" 1\n",
            b"2 " + b"A" * 32 + b" 1\n",
        ):
            os.setxattr(path, attribute.NAME, text)
            self.assert_left(get("k"))

    def keep_of_an_hour_ahead(self) -> None:
        """
        A value from when the clock was ahead.
        """
        self.keep("k", b"v")
        path = os.path.join(self.path, "k")
        ahead_us = time.time_ns() // 1000 + 3_600_000_000
        os.setxattr(path, attribute.NAME, attribute.encode("a" * 32, 1, ahead_us, b""))
        os.utime(path, ns=(0, 1000 * ahead_us))
        assert b"v" == self.get(self.store, Key(b"k"))
        assert "a" * 32 == self.result(self.store.stat(Key(b"k"))).etag

    def test_its_date_is_to_come(self) -> None:
        """
        It is said to be of the present, which goes on.
        """
        self.keep_of_an_hour_ahead()
        self.assert_left(get("k"))
        self.assert_left(head("k"))

    def test_its_head_is_too_long(self) -> None:
        """
        It has no room where the fast path composes it.
        """
        fields = {"content-type": "x" * 900}
        self.put(self.store, Key(b"k"), b"v", metadata=fields)
        self.assert_left(get("k"))

    def test_metadata_that_contains_what_is_filled_in(self) -> None:
        """
        Only the fields of the value itself are.
        """
        fields = {
            "content-type": "0" * 32,
            "expires": http_date(0.0),
            "content-language": "0",
            "content-disposition": 'inline; filename="Content-Length: 0"',
        }
        etag = self.put(self.store, Key(b"k"), b"v", metadata=fields).info.etag
        reply = self.served(get("k"))

        assert f'"{etag}"' == field(reply, "ETag")
        assert fields == {name: field(reply, name) for name in fields}
        assert "1" == field(reply, "Content-Length")
