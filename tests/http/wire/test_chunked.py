"""
Tests for `kvd.http.wire.chunked`, through the reader.
"""

import pytest

from kvd.errors import BadFraming, HeadTooLarge, PeerError
from kvd.http.wire.chunked import LARGE_BYTES, LINE_BYTES_AT_ONCE
from kvd.http.wire.events import NEED_DATA
from kvd.http.wire.reader import RequestReader
from kvd.settings import Limits
from tests.http.wire.feeding import read, ways

HEAD = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nTransfer-Encoding: chunked\r\n\r\n"

BODIES = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n06\r\n world\r\n000\r\n\r\n", b"hello world"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    (b'1;name=value;other="x y"\r\nx\r\n0 ; last\r\n\r\n', b"x"),
    (b'1;a="\\"\xff\\\t";b = c ;\td\r\nx\r\n0;a=""\r\n\r\n', b"x"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b"1\r\nx\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", b"x"),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_chunks_are_taken_apart(body: bytes, expected: bytes) -> None:
    """
    However they are cut, with the next request behind them.
    """
    follower = b"GET /next HTTP/1.1\r\nHost: kvd\r\n\r\n"
    for pieces in ways(HEAD + body + follower):
        _, *rest = read(pieces)
        if expected:
            assert expected == rest.pop(0)
        assert "end" == rest[0]
        assert "end" == rest[2]
        assert len(rest) == 3


REFUSED: list[tuple[bytes, type[PeerError], str]] = [
    (b"\r\n", BadFraming, "size"),
    (b"g\r\n", BadFraming, "size"),
    (b"-1\r\n", BadFraming, "size"),
    (b"+1\r\nx\r\n", BadFraming, "size"),
    (b" 1\r\nx\r\n", BadFraming, "size"),
    (b"0x1\r\nx\r\n", BadFraming, "size"),
    (b"1_0\r\n", BadFraming, "size"),
    (b"1 \r\nx\r\n", BadFraming, "size"),
    (b"1, 1\r\nx\r\n", BadFraming, "size"),
    (b"00000000000000001\r\nx\r\n", BadFraming, "size"),
    (b"1;a\0b\r\nx\r\n", BadFraming, "size"),
    (b"1;\r\nx\r\n", BadFraming, "extensions"),
    (b"1 ;\r\nx\r\n", BadFraming, "extensions"),
    (b"1;;a\r\nx\r\n", BadFraming, "extensions"),
    (b"1;a;\r\nx\r\n", BadFraming, "extensions"),
    (b"1;a=\r\nx\r\n", BadFraming, "extensions"),
    (b"1;=b\r\nx\r\n", BadFraming, "extensions"),
    (b"1;a b\r\nx\r\n", BadFraming, "extensions"),
    (b"1;a=b c\r\nx\r\n", BadFraming, "extensions"),
    (b"1;a \r\nx\r\n", BadFraming, "extensions"),
    (b"1;bad[=x\r\nx\r\n", BadFraming, "extensions"),
    (b'1;a="b\r\nx\r\n', BadFraming, "extensions"),
    (b'1;a="b\\"\r\nx\r\n', BadFraming, "extensions"),
    (b'1;a=b"c"\r\nx\r\n', BadFraming, "extensions"),
    (b'1;a="b"c\r\nx\r\n', BadFraming, "extensions"),
    (b'1;"a"=b\r\nx\r\n', BadFraming, "extensions"),
    (b"0;\r\n\r\n", BadFraming, "extensions"),
    (b"1\nx\r\n", BadFraming, "CRLF"),
    (b"1\r\nx\n0\r\n\r\n", BadFraming, "CRLF"),
    (b"1\r\nxy\r\n0\r\n\r\n", BadFraming, "CRLF"),
    (b"1\r\nx0\r\n\r\n", BadFraming, "CRLF"),
    (b"1\rx\r\n", BadFraming, "CR"),
    (b"1;a\rb\r\nx\r\n", BadFraming, "CR"),
    (b"1;" + b"a" * 300, BadFraming, "256"),
    (b"1;" + b"a" * 300 + b"\r\n", BadFraming, "256"),
    (b"0\r\nno colon\r\n\r\n", BadFraming, "trailer"),
    (b"0\r\nA : b\r\n\r\n", BadFraming, "trailer"),
    (b"0\r\n folded\r\n\r\n", BadFraming, "trailer"),
    (b"0\r\nA: b\n\r\n", BadFraming, "CRLF"),
    (b"0\r\n" + b"A: b\r\n" * 101, HeadTooLarge, "100"),
    (b"0\r\nA: " + b"b" * 20_000, HeadTooLarge, "16384"),
    (b"0\r\n" + (b"A: " + b"b" * 6_000 + b"\r\n") * 3, HeadTooLarge, "16384"),
]


@pytest.mark.parametrize(("body", "error", "word"), REFUSED)
def test_what_are_no_chunks_is_refused(
    body: bytes, error: type[PeerError], word: str
) -> None:
    """
    And nothing behind it is taken for a request.
    """
    kinds = set()
    for pieces in [*ways(HEAD + body), [HEAD + body + b"GET /smuggled"]]:
        last = read(pieces)[-1]
        assert isinstance(last, PeerError), last
        assert word in str(last)
        kinds.add(type(last))

    assert {error} == kinds


def test_small_chunks_are_joined() -> None:
    """
    So many at once as take a moment; large ones are given alone.
    """
    reader = RequestReader(Limits())
    small, large = b"01\r\nx\r\n", b"%x\r\n%b\r\n" % (LARGE_BYTES, bytes(LARGE_BYTES))
    at_once = LINE_BYTES_AT_ONCE // len(b"01\r\n")
    reader.feed(HEAD + small * (at_once + 1) + large + large + small)
    events = [reader.next_event() for _ in range(6)][1:]

    assert [at_once, 1, LARGE_BYTES, LARGE_BYTES, 1] == [
        len(event) for event in events if isinstance(event, bytes)
    ]
    assert NEED_DATA is reader.next_event()


def test_few_chunks_are_joined_whose_extensions_are_long() -> None:
    """
    They take a moment each.
    """
    reader = RequestReader(Limits())
    line = b"1" + b";a" * 126 + b"\r\n"
    reader.feed(HEAD + (line + b"x\r\n") * 100)
    reader.next_event()
    joined = reader.next_event()

    assert isinstance(joined, bytes)
    assert 1 <= len(joined) <= 1 + LINE_BYTES_AT_ONCE // len(line)


def test_what_stands_before_a_mistake_comes_first() -> None:
    """
    However the bytes came, the body is the same up to there.
    """
    for pieces in ways(HEAD + b"1\r\nx\r\n2\r\nyz\r\nnonsense\r\n"):
        _, body, error = read(pieces)

        assert b"xyz" == body
        assert isinstance(error, BadFraming)


def test_the_largest_size_is_only_a_number() -> None:
    """
    Nothing is set aside for it.
    """
    seen = read([HEAD + b"FFFFFFFFFFFFFFFF\r\nabc"])

    assert b"abc" == seen[1]
