"""
Tests for `kvd.http.wire.replies`.
"""

import json
from random import Random

import pytest

from kvd.http.wire.replies import (
    chunk,
    date_text,
    date_text_in_python,
    http_date,
    problem,
    reply_head,
)
from tests.chance import new_seed


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


def test_date_of_any_day_is_the_same_in_both_forms() -> None:
    """
    Of all years that four digits can say, and of no others.
    """
    random = Random(new_seed())
    first, last = -62135596800, 253402300799
    edges = [first, -86_401, -86_400, -1, 0, 1, 86_399, 86_400, 951_782_400, last]
    for second in [*edges, *(random.randint(first, last) for _ in range(300))]:
        assert date_text_in_python(second) == date_text(second), second
    assert "Mon, 01 Jan 0001 00:00:00 GMT" == date_text(first)
    assert "Fri, 31 Dec 9999 23:59:59 GMT" == date_text(last)
    for form in (date_text_in_python, date_text):
        for second in (first - 1, last + 1, 2**62, -(2**62)):
            with pytest.raises(ValueError, match=f"second {second} is in none"):
                form(second)


def test_a_chunk_begins_with_its_size() -> None:
    """
    In hexadecimal.
    """
    assert b"1a\r\n" + b"x" * 26 + b"\r\n" == chunk(b"x" * 26)
