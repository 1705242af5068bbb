"""
Tests for `kvd.http.wire.reader`.
"""

import pytest

from kvd.errors import BadFraming
from kvd.http.wire.events import END_OF_REQUEST, NEED_DATA
from kvd.http.wire.reader import RequestReader
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
    assert 1_000_000 == reader.remaining_body


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
    reader.skip_body(3)
    assert 2 == reader.remaining_body
    reader.feed(b"lo")
    assert b"lo" == reader.next_event()
    assert END_OF_REQUEST is reader.next_event()

    reader.feed(PUT)
    reader.next_event()
    reader.skip_body(5)
    assert END_OF_REQUEST is reader.next_event()


def test_an_unfinished_head_is_known() -> None:
    """
    The time for a head runs from its first byte to its last.
    """
    reader = RequestReader(Limits())
    states = [reader.mid_head]
    for piece in (GET[:5], GET[5:]):
        reader.feed(piece)
        reader.next_event()
        states.append(reader.mid_head)

    assert [False, True, False] == states


def test_the_rest_of_a_body_is_known_unless_it_is_chunked() -> None:
    """
    Who refuses a body has to know how long it is.
    """
    reader = RequestReader(Limits())
    assert 0 == reader.remaining_body
    reader.feed(b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    reader.next_event()

    assert reader.remaining_body is None


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
