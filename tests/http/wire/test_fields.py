"""
Tests for `kvd.http.wire.fields`.
"""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.errors import BadRequest, MetadataTooLarge, RangeNotSatisfiable
from kvd.http.wire import fields
from kvd.http.wire.fields import (
    conditions_of,
    entity_tags,
    metadata_of,
    parse_http_date,
    ranges_of,
)
from kvd.model.conditions import UNCONDITIONAL, EntityTags
from kvd.model.keys import Key
from kvd.model.requests import Request
from kvd.model.values import MAX_METADATA_BYTES, ValueInfo
from tests.exploring import exploring

WHEN = 784111777
INFO = ValueInfo(Key(b"k"), 10, "tag", WHEN + 0.5)

COMPILED = {
    name: getattr(fields, name) for name in ("list_tags", "fixed_date", "byte_range")
}
IN_PYTHON = {name: getattr(fields, f"{name}_in_python") for name in COMPILED}


@pytest.fixture(autouse=True, params=["Python", "compiled"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As kvd is with a compiler and without one.
    """
    if request.param == "Python":
        for name, read in IN_PYTHON.items():
            monkeypatch.setattr(fields, name, read)


def test_the_faster_way_is_compiled() -> None:
    """
    Else it would not be tested here.
    """
    for name, read in COMPILED.items():
        assert IN_PYTHON[name] is not read


def with_fields(**fields: bytes) -> Request:
    """
    A request with some fields.
    """
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Request("GET", b"/k", 1, named, None, False, True, False)


TAGS = [
    (b"*", EntityTags(any=True)),
    (b'"a"', EntityTags(frozenset({"a"}))),
    (b'"a", "b"', EntityTags(frozenset({"a", "b"}))),
    (b'"a","b"', EntityTags(frozenset({"a", "b"}))),
    (b', "a",, "b" ,', EntityTags(frozenset({"a", "b"}))),
    (b'W/"a", "b"', EntityTags(frozenset({"b"}), frozenset({"a"}))),
    (b'""', EntityTags(frozenset({""}))),
    (b'W/""', EntityTags(frozenset(), frozenset({""}))),
    (b'"a,b"', EntityTags(frozenset({"a,b"}))),
    (b'"a" \t,\t "\xff"', EntityTags(frozenset({"a", "\xff"}))),
]


@pytest.mark.parametrize(("value", "tags"), TAGS)
def test_entity_tags_are_read(value: bytes, tags: EntityTags) -> None:
    """
    RFC 9110 section 8.8.3, with empty elements in the list.
    """
    assert tags == entity_tags(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a",
        b'"a',
        b'a"',
        b'"a" "b"',
        b'*, "a"',
        b'w/"a"',
        b"'a'",
        b'"a b"',
        b",",
        b"W/",
        b'W"a"',
        b'W/"',
        b'W/ "a"',
        b'"a"W/"b"',
        b'"a"\0',
        b'"\x7f"',
        b'"\t"',
    ],
)
def test_what_are_no_entity_tags_is_refused(value: bytes) -> None:
    """
    To pass over it could overwrite what the client meant to protect.
    """
    with pytest.raises(BadRequest, match="double quotes"):
        entity_tags(value)


DATES = [
    (b"Sun, 06 Nov 1994 08:49:37 GMT", WHEN),
    (b"Sunday, 06-Nov-94 08:49:37 GMT", WHEN),
    (b"Sun Nov  6 08:49:37 1994", WHEN),
    (b"Sun Nov 06 08:49:37 1994", WHEN),
    (b"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
    (b"Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
    (b"Thu, 29 Feb 2000 00:00:00 GMT", 951782400),
    (b"Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
    (b"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
    (b"Thu, 29 Feb 2023 00:00:00 GMT", None),
    (b"Mon, 29 Feb 2100 00:00:00 GMT", None),
    (b"Thu, 00 Feb 2024 00:00:00 GMT", None),
    (b"Sun, 06 Nov 1994 08:60:37 GMT", None),
    (b"Sun, +6 Nov 1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 1994 08:49:37 GMT\0", None),
    (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
    (b"Mon, 31 Dec 1956 23:59:59 GMT", -410227201),
    # No other zone, nor none.
    (b"Sun, 06 Nov 1994 08:49:37", None),
    (b"Sun, 06 Nov 1994 08:49:37 +0000", None),
    (b"Sun, 06 Nov 1994 08:49:37 -0500", None),
    (b"Sun, 06 Nov 1994 08:49:37 EST", None),
    (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
    (b"Sun Nov  6 08:49:37 1994 GMT", None),
    (b"Sunday, 06-Nov-94 08:49:37 PST", None),
    # Nor another format.
    (b"06 Nov 1994 08:49:37 GMT", None),
    (b"Sun, 6 Nov 1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 94 08:49:37 GMT", None),
    (b"Sun, 06-Nov-1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 1994 08:49 GMT", None),
    (b"sun, 06 nov 1994 08:49:37 gmt", None),
    (b"Sun, 06 Nov 1994  08:49:37 GMT", None),
    (b"Son, 06 Nov 1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None),
    (b"1994-11-06T08:49:37Z", None),
    (b"784111777", None),
    (b"Sun, 31 Feb 1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 0000 08:49:37 GMT", None),
    (b"Sun, 06 Nov 1994 08:49:61 GMT", None),
    (b"Sun, 06 Nov 1994 24:00:00 GMT", None),
    (b"yesterday", None),
    (b"0", None),
    (b"", None),
    (b"Sun, 06 Nov 1994 99:99:99 GMT", None),
    (b"Sun, 99 Nov 9999999999 08:49:37 GMT", None),
    (b"\xff", None),
    (None, None),
]


@pytest.mark.parametrize(("value", "seconds"), DATES)
def test_dates_are_read_in_three_forms(
    value: bytes | None, seconds: int | None
) -> None:
    """
    RFC 9110 section 5.6.7; what is no date is none.
    """
    assert seconds == parse_http_date(value)


def test_two_digits_are_a_year_of_today_or_of_the_past() -> None:
    """
    At most 50 years ahead (RFC 9110 section 5.6.7).
    """
    now = datetime.now(UTC).year
    for year in range(now - 49, now + 51):
        value = b"Sunday, 06-Nov-%02d 08:49:37 GMT" % (year % 100)
        expected = datetime(year, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
        assert (year, expected) == (year, parse_http_date(value))


def test_conditions_are_collected() -> None:
    """
    A date that is none is passed over (RFC 9110 section 13.1.3).
    """
    conditions = conditions_of(
        with_fields(
            if_match=b'"a"',
            if_none_match=b"*",
            if_modified_since=b"Sun, 06 Nov 1994 08:49:37 GMT",
            if_unmodified_since=b"never",
        )
    )

    assert EntityTags(frozenset({"a"})) == conditions.if_match
    assert EntityTags(any=True) == conditions.if_none_match
    assert WHEN == conditions.if_modified_since
    assert conditions.if_unmodified_since is None


def test_most_requests_have_no_conditions() -> None:
    """
    They share one.
    """
    assert UNCONDITIONAL is conditions_of(with_fields(host=b"kvd"))


RANGES = [
    (b"bytes=0-", (0, 10)),
    (b"bytes=0-9", (0, 10)),
    (b"bytes=0-0", (0, 1)),
    (b"bytes=9-9", (9, 1)),
    (b"bytes=5-100", (5, 5)),
    (b"bytes=-3", (7, 3)),
    (b"bytes=-100", (0, 10)),
    (b"bytes=2-99999999999999999999999999999", (2, 8)),
    (b"bytes=-99999999999999999999999999999", (0, 10)),
    (b"bytes=00000000000000000000000002-00000000000000000000000003", (2, 2)),
    (b"bytes=-0000000000000000000000000000003", (7, 3)),
    (b"bytes=99999999999999999999-1", None),
    (b"bytes= \t1-2\t ", (1, 2)),
    (b"bytes=1 -2", None),
    (b"bytes=1- 2", None),
    (b"bytes=1-2x", None),
    (b"bytes=1-2-3", None),
    (b"bytes=1-2\0", None),
    (b"bytes=12", None),
    (b"bytes=5-4", None),
    (b"bytes=-", None),
    (b"bytes=", None),
    (b"bytes=a-b", None),
    (b"bytes=+1-2", None),
    (b"Bytes=1-2", None),
    (b"pages=1-2", None),
]


@pytest.mark.parametrize(("value", "part"), RANGES)
def test_ranges_are_read(value: bytes, part: tuple[int, int] | None) -> None:
    """
    Where it begins and how long it is; None is the whole value.
    """
    assert (part and [part]) == ranges_of(with_fields(range=value), INFO, 0)


@pytest.mark.parametrize(
    "value", [b"bytes=10-", b"bytes=10-20", b"bytes=-0", b"bytes=99999999999999999999-"]
)
def test_a_range_behind_the_end_cannot_be_met(value: bytes) -> None:
    """
    The size is in the reply.
    """
    with pytest.raises(RangeNotSatisfiable) as refused:
        ranges_of(with_fields(range=value), INFO, 0)

    assert 10 == refused.value.size


@pytest.mark.parametrize("value", [b"bytes=0-", b"bytes=-1", b"bytes=0-0"])
def test_an_empty_value_has_no_part(value: bytes) -> None:
    """
    Whatever is asked for (RFC 9110 section 14.1.2).
    """
    with pytest.raises(RangeNotSatisfiable):
        ranges_of(with_fields(range=value), ValueInfo(Key(b"k"), 0, "tag", 0), 0)


IF_RANGES = [
    (b'"tag"', (0, 1)),
    (b'"other"', None),
    (b'W/"tag"', None),
    # Another value may have been published within the same second.
    (b"Sun, 06 Nov 1994 08:49:37 GMT", None),
    (b"Sun, 06 Nov 1994 08:49:38 GMT", None),
    (b"Sun, 06 Nov 1994 08:49:37", None),
    (b'"tag", "tag"', None),
    (b"tag", None),
    (b"*", None),
    (b"", None),
    (b"nonsense", None),
]


@pytest.mark.parametrize(("condition", "part"), IF_RANGES)
def test_a_range_of_another_value_is_the_whole(
    condition: bytes, part: tuple[int, int] | None
) -> None:
    """
    If-Range (RFC 9110 section 13.1.5).
    """
    request = with_fields(range=b"bytes=0-0", if_range=condition)

    assert (part and [part]) == ranges_of(request, INFO, 0)


@exploring()
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2),
    st.integers(0, 5),
)
def test_several_ranges_have_each_byte_once(
    asked: list[tuple[int, int]], gap: int
) -> None:
    """
    All that was asked for, and nothing else than what lies in a gap.
    """
    size = 25
    text = ",".join(f"{first}-{first + more}" for first, more in asked)
    request = with_fields(range=f"bytes={text}".encode())
    wanted = {
        byte
        for first, more in asked
        for byte in range(first, min(size, first + more + 1))
    }
    if not wanted:
        with pytest.raises(RangeNotSatisfiable):
            ranges_of(request, ValueInfo(Key(b"k"), size, "tag", 0), gap)
        return
    found = ranges_of(request, ValueInfo(Key(b"k"), size, "tag", 0), gap)

    assert found is not None
    given_bytes = [
        byte for first, length in found for byte in range(first, first + length)
    ]
    assert len(set(given_bytes)) == len(given_bytes)
    assert wanted <= set(given_bytes) <= set(range(size))
    ends = sorted((first, first + length) for first, length in found)
    assert all(gap < second[0] - first[1] for first, second in pairwise(ends))


TAG_LISTS = st.lists(
    st.sampled_from(
        [b'"a"', b'"b"', b'W/"a"', b'""', b",", b" ", b"\t", b'"', b"W", b"x"]
    )
).map(b"".join)
DATE_PARTS = st.tuples(
    st.sampled_from([b"Sun", b"Mon", b"mon"]),
    st.integers(0, 32),
    st.sampled_from([b"Jan", b"Feb", b"Feb", b"Jun", b"Dec", b"dec"]),
    st.integers(0, 9999) | st.sampled_from([1600, 1900, 2000, 2023, 2024]),
    st.integers(0, 24),
    st.integers(0, 60),
    st.integers(0, 61),
).map(lambda parts: b"%b, %02d %b %04d %02d:%02d:%02d GMT" % parts)
DIGITS = st.sampled_from(
    [b"", b"0", b"1", b"9", b"10", b"11", b"x", b"9" * 19, b"9" * 20]
)
BYTE_RANGES = st.tuples(
    st.sampled_from([b"bytes=", b"bytes= ", b"Bytes=", b"bytes"]),
    DIGITS,
    st.sampled_from([b"-", b"-", b"--", b""]),
    DIGITS,
    st.sampled_from([b"", b"", b" ", b",1-2"]),
).map(b"".join)


# Once: it compares them itself.
@pytest.mark.parametrize("either_way", ["compiled"], indirect=True)
@pytest.mark.untraced
@exploring(500)
@given(
    TAG_LISTS | st.binary(max_size=9),
    DATE_PARTS,
    BYTE_RANGES,
    st.sampled_from([None, b'"tag"', b'W/"tag"', b"tag", b'"ta"', b""]),
    st.sampled_from([0, 1, 10, 2**63 - 1]),
)
def test_both_ways_read_the_same(
    tags: bytes, date: bytes, asked: bytes, condition: bytes | None, size: int
) -> None:
    """
    Whatever a client sends.
    """
    for name, arguments in (
        ("list_tags", (tags,)),
        ("fixed_date", (date,)),
        ("byte_range", (asked, condition, b"tag", size)),
    ):
        assert IN_PYTHON[name](*arguments) == COMPILED[name](*arguments)


def test_metadata_is_what_a_value_came_with() -> None:
    """
    What tells clients what it is and how long it is fresh, and nothing else.
    """
    request = with_fields(
        content_type=b"text/plain; x=\xe9",
        content_encoding=b"br",
        content_language=b"de, en",
        content_disposition=b'attachment; filename="\xe9"',
        cache_control=b"max-age=60",
        expires=b"0",
        accept=b"*/*",
        content_length=b"3",
        content_location=b"/k",
        connection=b"close",
    )

    assert {
        "content-type": "text/plain; x=\xe9",
        "content-encoding": "br",
        "content-language": "de, en",
        "content-disposition": 'attachment; filename="\xe9"',
        "cache-control": "max-age=60",
        "expires": "0",
    } == metadata_of(request)
    assert {} == metadata_of(with_fields(accept=b"*/*"))


def test_a_field_without_a_value_says_nothing() -> None:
    """
    It is not kept: browsers would guess at an empty type.
    """
    request = with_fields(content_type=b"", content_encoding=b"", expires=b"0")

    assert {"expires": "0"} == metadata_of(request)
    assert {} == metadata_of(with_fields(content_type=b""))


def test_too_much_metadata_is_refused() -> None:
    """
    In one sentence with the bound.
    """
    with pytest.raises(MetadataTooLarge, match=str(MAX_METADATA_BYTES)):
        metadata_of(with_fields(content_type=b"x" * MAX_METADATA_BYTES))
    with pytest.raises(MetadataTooLarge, match=str(MAX_METADATA_BYTES)):
        metadata_of(with_fields(content_type=b"\xff" * (MAX_METADATA_BYTES // 2)))
