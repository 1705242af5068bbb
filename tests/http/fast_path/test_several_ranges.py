"""
Tests for `kvd.http.parts`: several ranges in one request.
"""

from __future__ import annotations

import email.parser
import email.policy

from kvd.http.fast_path import SERVED
from kvd.http.parts import NEAR_GAP
from kvd.http.value_source import CHUNK_BYTES
from kvd.http.wire.fields import MAX_RANGES
from tests.http.fast_path.cases import (
    FallbackCase,
    FastPathCase,
    body_of,
    field,
    get,
    head,
    put,
)

SIZE = 4 * CHUNK_BYTES
VALUE = bytes(range(251)) * (SIZE // 251 + 1)


def asking(ranges: str, fields: bytes = b"") -> bytes:
    """
    A GET of parts.
    """
    return get("k", b"Range: bytes=%b\r\n%b" % (ranges.encode(), fields))


def parts_of(reply: bytes) -> list[tuple[str, str, bytes]]:
    """
    The range, the type and the bytes of each part, as another program reads them.
    """
    assert reply.startswith(b"HTTP/1.1 206 ")
    assert field(reply, "Content-Range") is None
    assert len(body_of(reply)) == int(field(reply, "Content-Length") or 0)
    kind = field(reply, "Content-Type")
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    read = parser.parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body_of(reply))
    assert "multipart/byteranges" == read.get_content_type()
    assert not read.defects
    found = []
    for part in read.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((part["Content-Range"], part["Content-Type"], content))
    return found


class OnTheFastPathTests(FastPathCase):
    """
    The fast path serves a list of ranges to nobody.
    """

    def test_a_list_is_left_to_python(self) -> None:
        """
        Also for a value that it has in memory.
        """
        self.keep("k", b"value")
        for _ in range(3):
            self.served(get("k"))
        self.assert_left(asking("0-0,3-3"))
        self.assert_left(asking("0-0,"))


class SeveralRangesTests(FallbackCase):
    """
    A client asks for several parts of a value.
    """

    def setUp(self) -> None:
        super().setUp()
        self.serve(put("k", VALUE[:SIZE], b"Content-Type: text/x\r\n"))
        self.etag = field(self.reply(), "ETag") or ""

    def served_parts(self, ranges: str, fields: bytes = b"") -> list[str]:
        """
        The ranges of the parts in a reply, each of which has the right bytes.
        """
        assert SERVED == self.serve(asking(ranges, fields))
        found = []
        for range_, kind, content in parts_of(self.reply()):
            assert "text/x" == kind
            unit, _, text = range_.partition(" ")
            numbers, _, size = text.partition("/")
            assert ("bytes", str(SIZE)) == (unit, size)
            first, last = map(int, numbers.split("-"))
            assert VALUE[first : min(last + 1, SIZE)] == content
            found.append(numbers)
        return found

    def test_parts_come_as_they_were_asked_for(self) -> None:
        """
        Small and large ones, the end too; those beyond the end are left out.
        """
        large = f"1000-{1000 + 2 * CHUNK_BYTES}"
        for asked, expected in (
            ("0-0,500-509", ["0-0", "500-509"]),
            ("500-509, 0-0", ["500-509", "0-0"]),
            (f"-1,,{large},0-9,", [f"{SIZE - 1}-{SIZE - 1}", large, "0-9"]),
            (f"0-0,300-301,{SIZE}-", ["0-0", "300-301"]),
        ):
            assert expected == self.served_parts(asked)

    def test_close_ones_are_one(self) -> None:
        """
        Those that overlap, and those that are not far apart, in any order.
        """
        second, third = 1 + NEAR_GAP, 4 * NEAR_GAP
        asked = f"{third}-{third},{second}-{second},0-0,0-5"
        assert [f"{third}-{third}", f"0-{second}"] == self.served_parts(asked)

        assert SERVED == self.serve(asking("0-9,5-20,0-9"))
        reply = self.reply()
        assert f"bytes 0-20/{SIZE}" == field(reply, "Content-Range")
        assert VALUE[:21] == body_of(reply)

    def test_what_is_asked_for_again_and_again_is_sent_once(self) -> None:
        """
        So a small head never asks for more than the value.
        """
        assert SERVED == self.serve(asking(",".join(["0-"] * MAX_RANGES)))
        assert VALUE[:SIZE] == body_of(self.reply())

    def test_whole_values(self) -> None:
        """
        Too many ranges, one that is malformed, and those of another value.
        """
        many = ",".join(f"{200 * at}-{200 * at}" for at in range(MAX_RANGES + 1))
        assert MAX_RANGES == len(self.served_parts(many.rpartition(",")[0]))
        stale = b'If-Range: "%b"\r\n' % (b"0" * 32)
        for ranges, fields in (
            (many, b""),
            ("0-0,9-8", b""),
            ("0-0,300-300,x", b""),
            (",", b""),
            ("0-0,300-300", stale),
        ):
            assert SERVED == self.serve(asking(ranges, fields))
            reply = self.reply()
            assert reply.startswith(b"HTTP/1.1 200 "), ranges
            assert VALUE[:SIZE] == body_of(reply)

        fresh = b"If-Range: %b\r\n" % self.etag.encode()
        assert ["0-0", "300-300"] == self.served_parts("0-0,300-300", fresh)

    def test_none_is_within_the_value(self) -> None:
        """
        The reply has the size, so that the client can ask again.
        """
        self.serve(asking(f"{SIZE}-,{SIZE + 1}-"))
        reply = self.reply()
        assert reply.startswith(b"HTTP/1.1 416 ")
        assert f"bytes */{SIZE}" == field(reply, "Content-Range")

    def test_head_ignores_them(self) -> None:
        """
        As it does a single one (RFC 9110 section 14.2).
        """
        self.serve(head("k", b"Range: bytes=0-0,300-300\r\n"))
        reply = self.reply()
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert str(SIZE) == field(reply, "Content-Length")

    def test_a_value_with_an_encoding_is_whole(self) -> None:
        """
        A client would decode the parts, and what stands around them, as one.
        """
        self.serve(put("k", VALUE[:SIZE], b"Content-Encoding: br\r\n"))
        self.serve(asking("0-0,300-300"))
        assert self.reply().startswith(b"HTTP/1.1 200 ")
        self.serve(asking("0-0"))
        assert self.reply().startswith(b"HTTP/1.1 206 ")
