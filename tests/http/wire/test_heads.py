"""
Tests for `kvd.http.wire.heads`.
"""

from __future__ import annotations

import pytest

from kvd.errors import PeerError, TargetTooLong
from kvd.http.wire.head import parse_head
from kvd.http.wire.heads import MEMO_FIELDS, MEMO_HEAD_BYTES, MEMO_HEADS, Heads
from kvd.settings import Limits


def head(number: int, more: bytes = b"") -> bytes:
    """
    One of many.
    """
    return b"GET /%d HTTP/1.1\r\nHost: kvd\r\n%b\r\n" % (number, more)


def test_the_same_head_is_the_same_request() -> None:
    """
    And another is another, be it only by a blank.
    """
    heads = Heads(Limits())
    first = heads.parse(head(1))

    assert first is heads.parse(head(1))
    assert b"/1" == first.target
    assert first is not heads.parse(head(2))
    assert first is not heads.parse(head(1, b"A: b\r\n"))
    assert first is not heads.parse(head(1, b"A:  b\r\n"))


def test_what_is_refused_is_refused_each_time() -> None:
    """
    Nothing is kept of it.
    """
    heads = Heads(Limits())
    for _ in range(2):
        with pytest.raises(PeerError):
            heads.parse(b"GET / HTTP/1.1\r\n\r\n")
    assert {} == heads._memo
    assert {} == heads._examples


def test_known_fields_with_another_target_mean_the_same() -> None:
    """
    As if the head had been parsed: whatever the target, the method or the version.
    """
    limits = Limits()
    heads = Heads(limits)
    targets = [b"/", b"/a", b"/%41/b.c", b"/a?b=c", b"*", b"http://kvd/a", b'/"', b"//"]
    versions = (b"GET %b HTTP/1.1", b"GET %b HTTP/1.0", b"GET %b HTTP/1.2")
    for line in (b"PUT %b HTTP/1.1", *versions):
        for target in targets:
            whole = line % target + b"\r\nHost: kvd\r\nContent-Length: 5\r\n\r\n"

            assert parse_head(whole, limits) == heads.parse(whole)
    assert 3 == len(heads._examples)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a#b HTTP/1.1",
        b"GET /a\x80 HTTP/1.1",
        b"GET  /a HTTP/1.1",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1",
        b"GETS /a HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET /a HTTP/2.1",
        b"GET /a HTTP/1.1\r",
        b"get /a HTTP/1.1",
    ],
)
def test_known_fields_excuse_no_request_line(line: bytes) -> None:
    """
    What is wrong with it is found as before.
    """
    limits = Limits()
    heads = Heads(limits)
    heads.parse(b"GET /a HTTP/1.1\r\nHost: kvd\r\n\r\n")

    with pytest.raises(PeerError) as expected:
        parse_head(line + b"\r\nHost: kvd\r\n\r\n", limits)
    with pytest.raises(PeerError) as caught:
        heads.parse(line + b"\r\nHost: kvd\r\n\r\n")

    assert str(expected.value) == str(caught.value)


def test_known_fields_excuse_no_long_target() -> None:
    """
    Where the limit is shorter than what is kept.
    """
    heads = Heads(Limits(target_bytes=8))
    for number in (1, 1_234_567):
        assert b"/%d" % number == heads.parse(head(number)).target
    with pytest.raises(TargetTooLong):
        heads.parse(head(12_345_678))


def test_only_so_much_is_kept() -> None:
    """
    Neither many heads nor long ones cost memory.
    """
    heads = Heads(Limits())
    for number in range(3 * MEMO_HEADS):
        heads.parse(head(number))
        assert len(heads._memo) <= MEMO_HEADS
        heads.parse(head(number, b"A: %d\r\n" % number))
        assert len(heads._examples) <= MEMO_FIELDS
    kept = len(heads._memo)
    heads.parse(head(0, b"A: " + b"x" * MEMO_HEAD_BYTES + b"\r\n"))
    assert kept == len(heads._memo)
