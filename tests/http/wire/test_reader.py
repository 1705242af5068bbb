"""
Tests for `kvd.http.wire.reader`.
"""

import pytest

from kvd.errors import BadFraming
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA
from kvd.http.wire.reader import SKIP_BYTES, RequestReader
from kvd.model.requests import Request
from kvd.settings import Limits
from tests.http.wire.feeding import read, refusal, request, ways

HOST = b"Host: kvd\r\n"
GET = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
PUT = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"


def test_pipelined_requests_come_one_by_one() -> None:
    """
    Each with its body and its end, however the bytes are cut.
    """
    for pieces in ways(GET + PUT + b"hello" + GET):
        seen = read(pieces)

        assert ["Request", "str", "Request", "bytes", "str", "Request", "str"] == [
            type(event).__name__ for event in seen
        ]
        assert b"hello" == seen[3]


def test_a_large_piece_of_a_body_is_not_copied() -> None:
    """
    What was fed is what comes out: the very object.
    """
    reader = RequestReader(Limits())
    reader.feed(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 2000000\r\n\r\n")
    reader.next_event()
    assert NEED_DATA is reader.next_event()
    piece = bytes(1_000_000)
    reader.feed(piece)

    assert piece is reader.next_event()
    assert 1_000_000 == reader.movable


def test_bytes_behind_a_body_are_kept_for_the_next_request() -> None:
    """
    A piece that holds both is divided.
    """
    reader = RequestReader(Limits())
    reader.feed(PUT)
    reader.next_event()
    reader.feed(b"hel")
    assert b"hel" == reader.next_event()
    reader.feed(b"lo" + GET)

    assert b"lo" == reader.next_event()
    assert END_OF_REQUEST is reader.next_event()
    assert isinstance(reader.next_event(), Request)
    assert 0 == reader.buffered


def test_a_body_may_go_another_way() -> None:
    """
    What the kernel moved is counted; what is left comes as events.
    """
    reader = RequestReader(Limits())
    reader.feed(PUT)
    reader.next_event()
    assert 5 == reader.movable
    reader.moved(3)
    assert 2 == reader.movable
    reader.feed(b"lo")
    assert b"lo" == reader.next_event()
    assert END_OF_REQUEST is reader.next_event()

    reader.feed(PUT)
    reader.next_event()
    reader.moved(5)
    assert 0 == reader.movable
    assert END_OF_REQUEST is reader.next_event()


def test_what_belongs_to_a_request_is_known() -> None:
    """
    From the end of its head to its own, and from where the bytes were refused on.
    """
    reader = RequestReader(Limits())
    states = [reader.in_request]
    for piece in (PUT[:5], PUT[5:], b"he", b"llo"):
        reader.feed(piece)
        reader.next_event()
        states.append(reader.in_request)
    reader.next_event()
    states.append(reader.in_request)
    reader.feed(b"nonsense\r\n\r\n")
    with pytest.raises(BadFraming):
        reader.next_event()

    assert [False, False, True, True, True, False] == states
    assert reader.in_request


CHUNKED = b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_what_can_be_moved_or_read_past_is_known() -> None:
    """
    Nothing of a chunked body, and nothing outside of a request; of others, all that has
    not come yet is to be moved, and as much is read past as is short.
    """
    longest = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n"
    table = [
        (b"", 0, False),
        (GET[:9], 0, False),
        (GET, 0, True),
        (PUT, 5, True),
        (PUT + b"he", 0, True),
        (CHUNKED, 0, False),
        (longest % SKIP_BYTES, SKIP_BYTES, True),
        (longest % (SKIP_BYTES + 1), SKIP_BYTES + 1, False),
    ]
    for data, movable, can_skip in table:
        reader = RequestReader(Limits())
        reader.feed(data)
        reader.next_event()

        assert (data, movable) == (data, reader.movable)
        assert (data, can_skip) == (data, reader.can_skip)


def test_the_rest_of_a_body_is_read_past() -> None:
    """
    However the bytes are cut, none of it is an event, nor taken for a request.
    """
    bodies = (GET, PUT + b"hello", b"nonsense\r\n\r\n")
    for body in bodies:
        head = PUT.replace(b"5", b"%d" % len(body))
        for pieces in ways(body + GET + PUT + b"hello"):
            reader = RequestReader(Limits())
            reader.feed(head)
            assert isinstance(reader.next_event(), Request)
            assert reader.in_request
            reader.skip()
            seen = []
            for piece in pieces:
                reader.feed(piece)
                while (event := reader.next_event()) is not NEED_DATA:
                    seen.append(event)

            first, end, second, *rest = seen
            assert isinstance(first, Request)
            assert isinstance(second, Request)
            assert ["GET", "PUT"] == [first.method, second.method]
            assert END_OF_REQUEST is end
            assert END_OF_REQUEST is rest.pop()
            assert b"hello" == b"".join(one for one in rest if isinstance(one, bytes))
            assert not reader.in_request


def test_a_request_that_is_complete_is_read_past_at_once() -> None:
    """
    Its end is no event any more.
    """
    reader = RequestReader(Limits())
    reader.feed(GET + GET)
    reader.next_event()
    reader.skip()

    assert isinstance(reader.next_event(), Request)
    assert END_OF_REQUEST is reader.next_event()
    assert NEED_DATA is reader.next_event()


def test_one_empty_line_before_a_request_is_read_past() -> None:
    """
    RFC 9112 section 2.2; more are not a request.
    """
    assert b"/k" == request(b"\r\n" + GET).target
    assert BadFraming is type(refusal(b"\r\n\r\n" + GET))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: kvd\n\n",
        b"\nGET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\rHost: kvd\r\r",
        b"\rGET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: kvd\n\r\n",
    ],
)
def test_bare_line_ends_are_refused_at_once(data: bytes) -> None:
    """
    Without waiting for a blank line that never comes.
    """
    assert "bare" in str(refusal(data))


@pytest.mark.parametrize("rest", [b"\n", b"\n\r\n", b"\nGET / HTTP/1.1\r\n"])
def test_the_last_byte_of_a_body_is_no_part_of_a_line_end(rest: bytes) -> None:
    """
    Though it is a CR, and the LF behind it is in the same piece.
    """
    for pieces in ways(PUT + b"body\r" + rest):
        *_, body, end, error = read(pieces)

        assert (b"body\r", "end") == (body, end)
        assert "bare LF" in str(error)


def test_tls_is_refused_at_once() -> None:
    """
    Its first bytes, which contain no line.
    """
    reader = RequestReader(Limits())
    reader.feed(b"\x16\x03\x01\x02\x00\x01")

    with pytest.raises(BadFraming, match="http:// in place of https://"):
        reader.next_event()


def test_what_was_refused_stays_refused() -> None:
    """
    Nothing behind it is looked at, however often one asks.
    """
    reader = RequestReader(Limits())
    reader.feed(b"nonsense\r\n\r\n" + GET)
    for _ in range(3):
        with pytest.raises(BadFraming):
            reader.next_event()
        reader.feed(GET)


def test_a_head_that_trickles_in_is_not_searched_again_and_again() -> None:
    """
    16 KiB in single bytes take a moment, and not the square of one.
    """
    head = b"GET /k HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 16_000 + b"\r\n\r\n"

    assert b"/k" == request(head).target


def test_a_request_that_will_not_come_whole_is_known() -> None:
    """
    Of what is counted, and still to come, nothing may be missing.
    """
    reader = RequestReader(Limits())
    assert not reader.lacks(0)
    reader.feed(b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 10\r\n\r\nabc")
    assert not reader.lacks(0), "no head of it was given"
    reader.next_event()
    assert reader.lacks(6)
    assert not reader.lacks(7)
    assert b"abc" == reader.next_event()
    assert reader.lacks(6)
    reader.moved(5)
    assert reader.lacks(1)
    assert not reader.lacks(2)
    reader.moved(2)
    assert not reader.lacks(0)
    assert END_OF_REQUEST == reader.next_event()
    assert not reader.lacks(0)
