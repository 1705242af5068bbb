"""
Tests for `kvd.http.fast_path`: which heads have one template, and which templates stay.
"""

from __future__ import annotations

import os
from unittest import mock

from kvd.http.fast_path import MAX_BODY_BYTES, SERVED
from kvd.http.templates import _Templates
from kvd.model.keys import Key
from tests.http.fast_path.cases import FastPathCase, body_of, get, put


class ShapeCase(FastPathCase):
    """
    Counts what Python is asked.
    """

    def setUp(self) -> None:
        self.asked: list[bytes] = []
        make_template = _Templates.make_template

        def asking(templates: _Templates, head: bytes) -> object:
            """
            As it was asked.
            """
            self.asked.append(head)
            return make_template(templates, head)

        patched = mock.patch.object(_Templates, "make_template", asking)
        patched.start()
        self.addCleanup(patched.stop)
        super().setUp()


class LengthTests(ShapeCase):
    """
    The length of a body is no part of the shape of a head.
    """

    def test_one_template_is_for_all_lengths(self) -> None:
        """
        Python is asked once, and each value is stored whole.
        """
        for size in (3, 0, 1, 999, 1000, 60 * 1024):
            body = os.urandom(size)
            self.served(put("k", body))
            assert body == self.get(self.store, Key(b"k"))

        assert 1 == len(self.asked)

    def test_a_name_may_be_written_in_any_case(self) -> None:
        """
        With any blanks before its value.
        """
        for name in (b"Content-Length:", b"content-length: \t", b"CONTENT-LENGTH:  "):
            for body in (b"v", b"value"):
                head = b"PUT /k HTTP/1.1\r\nHost: kvd\r\n"
                request = head + name + b"%d\r\n\r\n" % len(body) + body
                self.served(request)
                assert body == self.get(self.store, Key(b"k"))

        assert 3 == len(self.asked)

    def test_an_unusual_length_is_left(self) -> None:
        """
        Nobody is asked, so the template of its shape is not made from it.
        """
        for length in (b"", b"+1", b"-1", b"1 1", b"1,1", b"0x1", b"1 ", b"9" * 19):
            head = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: " + length
            self.assert_left(head + b"\r\n\r\nv")
        self.assert_left(put("k", b"v", b"Content-Length: 1\r\n"))

        assert [] == self.asked
        self.served(put("k", b"v"))

    def test_a_body_that_is_too_long_is_left(self) -> None:
        """
        A shorter one of the same shape is not.
        """
        head = put("k", bytes(MAX_BODY_BYTES + 1))[: -MAX_BODY_BYTES - 1]
        self.assert_left(head + b"v")
        self.served(put("k", b"v"))

    def test_a_get_may_say_that_it_has_no_body(self) -> None:
        """
        One with a body is left, before and after.
        """
        self.keep("k", b"value")
        with_body = get("k", b"Content-Length: 1\r\n") + b"x"
        self.assert_left(with_body)
        assert b"value" == body_of(self.served(get("k", b"Content-Length: 0\r\n")))
        self.assert_left(with_body)

    def test_a_line_feed_alone_ends_no_field(self) -> None:
        """
        Nor does a carriage return: such heads are refused, whatever they say.
        """
        for fields in (
            *(b"X: a\nContent-Length: 1", b"Content-Length: 1\nX: b"),
            *(b"Content-Length: 1\nContent-Length: 1", b"Content-Length: 1\rX: b"),
            *(b"X: a\rContent-Length: 1", b"Content-Length: 1\n", b"\nRange: x\n"),
            *(b"Range: a\nIf-Range: b", b"Range: a\n\nRange: b", b"Range: a\r\r"),
        ):
            head = b"PUT /k HTTP/1.1\r\nHost: kvd\r\n" + fields + b"\r\n\r\n"
            self.assert_left(head + b"v")


class ManyShapesTests(ShapeCase):
    """
    One client that sends another shape each time does others no harm.
    """

    def test_what_is_used_is_remembered(self) -> None:
        """
        Python is asked about it once.
        """
        self.keep("k", b"value")
        for number in range(300):
            assert b"value" == body_of(self.served(get("k")))
            for other in range(3):
                fields = b"X: %d-%d\r\n" % (number, other)
                assert SERVED == self.serve(get("k", fields))
                self.reply()

        assert 1 == self.asked.count(get("k"))

    def test_what_is_not_used_is_forgotten(self) -> None:
        """
        There is room for so many.
        """
        self.keep("k", b"value")
        self.served(get("k"))
        for number in range(256):
            self.served(get("k", b"X: %d\r\n" % number))
        self.served(get("k"))

        assert 2 == self.asked.count(get("k"))
