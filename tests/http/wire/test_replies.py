"""
Tests for `kvd.http.wire.replies`.
"""

import json

import pytest

from kvd.http.wire.replies import chunk, http_date, problem, reply_head


def test_a_head_has_its_line_its_fields_and_a_date() -> None:
    """
    In this order, with the fields as they were given.
    """
    head = reply_head(200, [("ETag", '"a"'), ("X", "y")], close=False, minor=1)
    first, date, *rest = head.split(b"\r\n")

    assert b"HTTP/1.1 200 OK" == first
    assert date.startswith(b"Date: ")
    assert date.endswith(b" GMT")
    assert [b'ETag: "a"', b"X: y", b"", b""] == rest


CONNECTIONS = [
    (True, 1, b"Connection: close"),
    (True, 0, b"Connection: close"),
    (False, 0, b"Connection: keep-alive"),
    (False, 1, None),
]


@pytest.mark.parametrize(("close", "minor", "line"), CONNECTIONS)
def test_the_end_of_the_connection_is_announced(
    close: bool, minor: int, line: bytes | None
) -> None:
    """
    And to HTTP/1.0 that it stays.
    """
    lines = reply_head(204, [], close=close, minor=minor).split(b"\r\n")

    assert ([] if line is None else [line]) == [
        found for found in lines if found.startswith(b"Connection")
    ]


@pytest.mark.parametrize(
    "value", ["a\r\nX: y", "a\r\n", "a\n\r\nb", "a\0", "a\rb", "a\nb"]
)
def test_no_value_can_end_its_line(value: str) -> None:
    """
    Not even one that should never have come here.
    """
    with pytest.raises(ValueError, match="Bad"):
        reply_head(200, [("Bad", value)], close=False, minor=1)


@pytest.mark.parametrize("sentence", ["plain", 'with "quotes"', "\udcff\x00\u2603", ""])
def test_a_problem_is_always_json(sentence: str) -> None:
    """
    With the members of RFC 9457.
    """
    assert {
        "type": "about:blank",
        "title": "Insufficient Storage",
        "status": 507,
        "detail": sentence,
    } == json.loads(problem(507, sentence))


def test_a_date_has_no_fractions() -> None:
    """
    RFC 9110 section 5.6.7.
    """
    assert "Sun, 06 Nov 1994 08:49:37 GMT" == http_date(784111777.9)


def test_a_chunk_begins_with_its_size() -> None:
    """
    In hexadecimal.
    """
    assert b"1a\r\n" + b"x" * 26 + b"\r\n" == chunk(b"x" * 26)
