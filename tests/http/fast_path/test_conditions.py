"""
Tests for `kvd.http.fast_path`: conditions and ranges.
"""

from __future__ import annotations

import os
import re

from kvd.http.wire.replies import http_date
from kvd.model.keys import Key
from kvd.store import attribute
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import (
    FallbackCase,
    FastPathCase,
    body_of,
    field,
    get,
    put,
    without_date,
)
from tests.http.fast_path.test_shapes import ShapeCase

SECOND = 1_000_000_000
"""
When the value was published.
"""

BEFORE, THEN = http_date(SECOND - 1).encode(), http_date(SECOND).encode()


def status_of(reply: bytes) -> int:
    """
    The status in a reply.
    """
    return int(reply.split(b" ", 2)[1])


class ValueCase(FastPathCase):
    """
    A value with a known date and metadata.
    """

    def setUp(self) -> None:
        super().setUp()
        self.place_value(b"0123456789")

    def place_value(self, body: bytes) -> None:
        """
        Publish a value and make it older.
        """
        fields = {"cache-control": "no-cache", "expires": "0", "content-type": "a/b"}
        self.put(self.store, Key(b"k"), body, metadata=fields)
        path = os.path.join(self.path, "k")
        self.etag = self.result(self.store.stat(Key(b"k"))).etag
        self.tag = b'"' + self.etag.encode() + b'"'
        lines = attribute.encode_metadata(fields)
        published_us = SECOND * 1_000_000 + 999_999
        text = attribute.encode(self.etag, len(body), published_us, lines)
        os.setxattr(path, attribute.NAME, text)
        os.utime(path, ns=(0, 1000 * published_us))

    def reply_to(self, *fields: bytes) -> bytes:
        """
        The reply to a GET with some fields: the same from a value that is opened and
        from one in memory.
        """
        request = get("k", b"".join(one + b"\r\n" for one in fields))
        replies = [self.served(request) for _ in range(4)]
        for reply in replies:
            assert without_date(replies[0]) == without_date(reply)
        return replies[0]


class ConditionTests(ValueCase):
    """
    A client that has the value already gets 304.
    """

    def test_an_unchanged_value_is_not_sent(self) -> None:
        """
        The reply has the validators, and of the metadata what is about caching.
        """
        reply = self.reply_to(b"If-None-Match: " + self.tag)

        assert re.fullmatch(
            rb"HTTP/1\.1 304 Not Modified\r\nDate: [^\r]{29}\r\n"
            rb"ETag: " + self.tag + rb"\r\nLast-Modified: " + THEN + rb"\r\n"
            rb"Cache-Control: no-cache\r\nExpires: 0\r\n\r\n",
            reply,
        )

    def test_conditions_that_hold_and_do_not(self) -> None:
        """
        In the order of RFC 9110 section 13.2.2.
        """
        table = [
            (304, [b"If-None-Match: *"]),
            (304, [b'If-None-Match:"none" , W/' + self.tag]),
            (304, [b"if-none-match: " + self.tag, b"If-Modified-Since: " + BEFORE]),
            (200, [b'If-None-Match: "none"']),
            (200, [b'If-None-Match: "none"', b"If-Modified-Since: " + THEN]),
            (200, [b"If-None-Match: " + self.tag[:-2] + b'"']),
            (304, [b"If-Modified-Since: " + THEN]),
            (200, [b"If-Modified-Since: " + BEFORE]),
            (200, [b"If-Match: " + self.tag]),
            (200, [b"If-Match: *", b"If-Unmodified-Since: " + BEFORE]),
            (304, [b"If-Match: " + self.tag, b"If-None-Match: " + self.tag]),
            (200, [b"If-Unmodified-Since: " + THEN]),
            (304, [b"If-Unmodified-Since: " + THEN, b"If-Modified-Since: " + THEN]),
            (304, [b"If-None-Match: " + self.tag, b"Range: bytes=0-1"]),
        ]
        for status, fields in table:
            reply = self.reply_to(*fields)
            assert (fields, status) == (fields, status_of(reply))
            assert (b"" if status == 304 else b"0123456789") == body_of(reply)

    def test_head_has_the_same_conditions(self) -> None:
        """
        And no range.
        """
        table = [
            (304, b"If-None-Match: " + self.tag, None),
            (200, b'If-None-Match: "none"', "10"),
            (200, b"Range: bytes=0-1", "10"),
        ]
        for status, asked, length in table:
            head = b"HEAD /k HTTP/1.1\r\nHost: kvd\r\n" + asked + b"\r\n\r\n"
            reply = self.served(head)
            assert (status, length) == (
                status_of(reply),
                field(reply, "Content-Length"),
            )
            assert b"" == body_of(reply)


class ConditionFallbackTests(FallbackCase, ConditionTests):
    """
    See there; without the fast path.
    """


class RangeTests(ValueCase):
    """
    A part of a value is sent from memory or from its file.
    """

    content = b"0123456789"

    def test_a_part_has_its_place(self) -> None:
        """
        All that the ordinary way says, in its order.
        """
        last = len(self.content) - 1
        reply = self.reply_to(b"Range: bytes=2-%d" % last)

        assert re.fullmatch(
            rb"HTTP/1\.1 206 Partial Content\r\nDate: [^\r]{29}\r\n"
            rb"ETag: " + self.tag + rb"\r\nLast-Modified: " + THEN + rb"\r\n"
            rb"Accept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n"
            rb"Cache-Control: no-cache\r\nExpires: 0\r\nContent-Type: a/b\r\n"
            rb"Content-Range: bytes 2-%d/%d\r\n"
            % (last, last + 1)
            + rb"Content-Length: %d\r\n\r\n" % (last - 1)
            + re.escape(self.content[2:]),
            reply,
        )

    def test_any_part(self) -> None:
        """
        And what asks for none.
        """
        size = len(self.content)
        table = [
            (b"bytes=0-0", (0, 1)),
            (b"bytes=0-", (0, size)),
            (b"bytes=%d-" % (size - 1), (size - 1, size)),
            (b"bytes=-1", (size - 1, size)),
            (b"bytes=-%d" % (2 * size), (0, size)),
            (b"bytes=1-%d" % (2 * size), (1, size)),
            (b"bytes=3-1", None),
            (b"pages=0-0", None),
        ]
        for asked, part in table:
            reply = self.reply_to(b"Range: " + asked)
            first, end = part or (0, size)
            assert (asked, part is None) == (asked, status_of(reply) == 200)
            assert self.content[first:end] == body_of(reply)
            said = None if part is None else f"bytes {first}-{end - 1}/{size}"
            assert said == field(reply, "Content-Range")

    def test_a_part_of_another_value_is_not_sent(self) -> None:
        """
        The whole value is.
        """
        asked = b"Range: bytes=1-1"
        for condition, is_this in (
            *((self.tag, True), (b"W/" + self.tag, False), (THEN, False)),
            *((b'"none"', False), (b"none", False), (self.tag[:-1] + b"x", False)),
        ):
            reply = self.reply_to(asked, b"If-Range: " + condition)
            expected = self.content[1:2] if is_this else self.content
            assert expected == body_of(reply)


class RangeFallbackTests(FallbackCase, RangeTests):
    """
    See there; without the fast path.
    """


class LargeRangeTests(RangeTests):
    """
    See there; of a value that is sent from its file.
    """

    content = os.urandom(100_000)

    def setUp(self) -> None:
        super().setUp()
        self.place_value(self.content)


class KeptTests(ValueCase):
    """
    A value that is asked for again is kept in memory.
    """

    def test_it_may_be_unchanged_or_a_part(self) -> None:
        """
        Its file stays open; what is sent of it next is right.
        """
        for asked in (b"If-None-Match: *", b"Range: bytes=2-3"):
            self.fast_path = self.make_fast_path(self.process)
            files = Descriptors(self.path)
            request = get("k", asked + b"\r\n")
            replies = [self.served(request) for _ in range(3)]
            assert 1 == files.more
            assert 1 == len({without_date(reply) for reply in replies})
            assert b"0123456789" == body_of(self.served(get("k")))


class ErrorTests(ValueCase):
    """
    What is wrong is left to who can say so.
    """

    def test_what_is_refused(self) -> None:
        """
        It spoils nothing for others who ask alike.
        """
        table = [
            (b"If-Match: ", b'"none"', self.tag),
            (b"If-Match: ", b"none", self.tag),
            (b"If-Unmodified-Since: ", BEFORE, THEN),
            (b"If-Unmodified-Since: ", b"never", THEN),
            (b"If-Unmodified-Since: ", b"Sunday, 09-Sep-01 01:46:40 GMT", THEN),
            (b"If-None-Match: ", b"", self.tag),
            (b"If-None-Match: ", self.tag + b"\n", self.tag),
            (b"If-None-Match: ", self.tag + b"\r", self.tag),
            (b"If-Modified-Since: ", THEN + b" ", THEN),
            (b"Range: ", b"bytes=10-", b"bytes=0-"),
            (b"Range: ", b"bytes=-0", b"bytes=0-"),
        ]
        for name, wrong, right in table:
            self.assert_left(get("k", name + wrong + b"\r\n"))
            self.served(get("k", name + right + b"\r\n"))

    def test_no_field_may_contain_a_control_byte(self) -> None:
        """
        Not even one that would be ignored, neither before nor after its template is
        made. Blanks at the end are unusual.
        """
        for name in (b"Range: ", b"If-Range: ", b"If-None-Match: "):
            for wrong in (b"\0", b"a\0b", b"a\x01", b"\x1fa", b"\x7f", b"a ", b"a\t"):
                self.assert_left(get("k", name + wrong + b"\r\n"))
            self.served(get("k", name + b'"a"\r\n'))
            for wrong in (b"\0", b'"a\0"', b'"a"\x01', b"\x7f", b'"a" ', b'"a"\t'):
                self.assert_left(get("k", name + wrong + b"\r\n"))
        for wrong in (b"\0", b"a\x01", b"a "):
            self.assert_left(put("k", b"v", b"Range: " + wrong + b"\r\n"))
            self.served(put("k", b"v", b"Range: bytes=0-1\r\n"))
            self.assert_left(put("k", b"v", b"Range: " + wrong + b"\r\n"))

    def test_a_field_that_is_given_twice(self) -> None:
        """
        Means what both say.
        """
        line = b"If-None-Match: " + self.tag + b"\r\n"
        self.assert_left(get("k", line + line))


class OneTemplateTests(ShapeCase, ValueCase):
    """
    What is asked for is no part of the shape of a head.
    """

    def test_python_is_asked_once(self) -> None:
        """
        For all ranges and tags.
        """
        for first in range(10):
            assert b"%d" % first == body_of(
                self.served(get("k", b"Range: bytes=%d-%d\r\n" % (first, first)))
            )
        for tag in (self.tag, b'"none"', b"*", b'"a", "b"'):
            self.served(get("k", b"If-None-Match: " + tag + b"\r\n"))
            self.served(get("none", b"If-None-Match: " + tag + b"\r\n"))

        assert 2 == len(self.asked)
