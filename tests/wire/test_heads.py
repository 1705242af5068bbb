"""
Tests for `kvd.wire.heads`.
"""

from __future__ import annotations

import pytest

from kvd.errors import PeerError
from kvd.settings import Limits
from kvd.wire.heads import KEPT_HEAD_BYTES, KEPT_HEADS, Heads


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
    assert {} == heads._kept


def test_only_so_much_is_kept() -> None:
    """
    Neither many heads nor long ones cost memory.
    """
    heads = Heads(Limits())
    for number in range(3 * KEPT_HEADS):
        heads.parse(head(number))
        assert len(heads._kept) <= KEPT_HEADS
    kept = len(heads._kept)
    heads.parse(head(0, b"A: " + b"x" * KEPT_HEAD_BYTES + b"\r\n"))
    assert kept == len(heads._kept)
