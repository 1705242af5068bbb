"""
Tests for `kvd.http.fast_path`: values with fields of a client's own, and types that
their keys suggest.
"""

from __future__ import annotations

from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import FastPath
from kvd.http.guessing import guess_type
from kvd.http.templates import MOST_LINES
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.model.values import MAX_METADATA_BYTES
from tests.http.fast_path.cases import (
    FallbackCase,
    FastPathCase,
    field,
    get,
    head,
    put,
)

NAMES = ("x-oc-mtime", "x-amz-meta-*")


class KeptFieldsTests(FastPathCase):
    """
    The settings name fields that are stored with values.
    """

    def make_fast_path(self, process: ProcessContext) -> FastPath:
        process.dialects = Dialects((), NAMES)
        return super().make_fast_path(process)

    def test_they_are_stored_and_given_back(self) -> None:
        """
        Each value has its own; a field that is not named is not stored.
        """
        for second in (b"1795890600", b"1795890601.5"):
            fields = b"X-OC-Mtime: %b\r\nX-Amz-Meta-A: a b\r\nX-B: b\r\n" % second
            reply = self.served(put("k", b"value", fields))
            assert "accepted" == field(reply, "X-OC-Mtime")
            for method in (get, head):
                reply = self.served(method("k"))
                assert second.decode() == field(reply, "X-OC-Mtime")
                assert "a b" == field(reply, "X-Amz-Meta-A")
                assert field(reply, "X-B") is None

        reply = self.served(put("k", b"value"))
        assert field(reply, "X-OC-Mtime") is None
        assert field(self.served(get("k")), "X-OC-Mtime") is None

    def test_long_ones_are_left_to_python(self) -> None:
        """
        So what is kept in memory of the replies is bounded.
        """
        self.assert_left(put("k", b"value", long_fields()))

        lines = {"x-amz-meta-a": "v" * MOST_LINES}
        upload = self.store.begin_at_once(Key(b"k"), 0, lines)
        upload.commit(UNCONDITIONAL)
        self.assert_left(get("k"))


class WithoutFastPathTests(FallbackCase, KeptFieldsTests):
    """
    The same in Python.
    """

    def test_long_ones_are_left_to_python(self) -> None:
        """
        It stores them up to the limit.
        """
        reply = self.served(put("k", b"value", long_fields()))
        assert reply.startswith(b"HTTP/1.1 201 "), reply
        long = field(self.served(get("k")), "X-Amz-Meta-A")
        assert long is not None
        assert MAX_METADATA_BYTES == len("x-amz-meta-a" + long)

        fields = b"X-Amz-Meta-B: 1\r\n" + long_fields()
        self.serve(put("k", b"value", fields))
        assert self.reply().startswith(b"HTTP/1.1 431 ")

    def test_a_bad_time_is_refused(self) -> None:
        """
        Nothing is stored.
        """
        self.serve(put("k", b"value", b"X-OC-Mtime: now\r\n"))
        assert self.reply().startswith(b"HTTP/1.1 400 ")
        assert self.served(get("k")).startswith(b"HTTP/1.1 404 ")


def long_fields() -> bytes:
    """
    As much metadata as is stored.
    """
    return b"X-Amz-Meta-A: %b\r\n" % (b"v" * (MAX_METADATA_BYTES - len("x-amz-meta-a")))


class GuessedTypesTests(FastPathCase):
    """
    A value without a type has the one that its key suggests.
    """

    def make_fast_path(self, process: ProcessContext) -> FastPath:
        process.guess_type = guess_type
        return super().make_fast_path(process)

    def test_the_end_of_the_key_says_it(self) -> None:
        """
        Unless the client has said it; also where replies are known already.
        """
        for _ in range(2):
            for key, expected in (
                ("a.html", "text/html"),
                ("a.JPG", "image/jpeg"),
                ("a/b.tar.gz", "application/gzip"),
                ("a.html.d/b", "application/octet-stream"),
                ("b", "application/octet-stream"),
                ("b." + "x" * 100, "application/octet-stream"),
            ):
                self.served(put(key, b"value"))
                for method in (get, head):
                    assert expected == field(self.served(method(key)), "Content-Type")
                part = self.served(get(key, b"Range: bytes=1-2\r\n"))
                assert expected == field(part, "Content-Type")

        self.served(put("a.html", b"value", b"Content-Type: text/x\r\n"))
        assert "text/x" == field(self.served(get("a.html")), "Content-Type")


class GuessedInPythonTests(FallbackCase, GuessedTypesTests):
    """
    The same in Python.
    """
