"""
The tests of `kvd.store.attribute`.
"""

import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.model.values import METADATA_FIELDS, is_field, is_metadata_name
from kvd.native import compiled
from kvd.store import attribute as tested
from kvd.store.attribute import (
    MalformedAttribute,
    Record,
    decode,
    decode_metadata,
    encode,
    encode_metadata,
    kind_in_python,
    read_line_in_python,
    read_metadata_in_python,
    write_line_in_python,
)
from tests.exploring import exploring

ETAG = "0123456789abcdef" * 2

NAMES = [*sorted(METADATA_FIELDS), "x-oc-mtime", "x-a.b", "dav.executable"]

# Text as it comes from any bytes that a field may have.
VALUES = st.text(
    st.sampled_from(
        "\t" + bytes([*range(0x20, 0x7F), *range(0x80, 0x100)]).decode("latin-1")
    ),
    max_size=60,
)

_native = compiled("_fast_path")
NAMES_OF_FORMS = ("write_line", "read_line", "read_metadata", "kind_of")
FORMS: dict[str, tuple[Callable[..., Any], ...]] = {
    "python": (
        write_line_in_python,
        read_line_in_python,
        read_metadata_in_python,
        kind_in_python,
    )
}
if _native is not None:
    FORMS["compiled"] = (
        _native.write_line,
        _native.read_line,
        partial(_native.read_metadata, tested.FIELDS),
        partial(_native.file_kind, tested.FIELDS),
    )


@pytest.fixture(autouse=True, scope="module", params=FORMS)
def _form(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    All tests are of both forms.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, function in zip(NAMES_OF_FORMS, FORMS[request.param], strict=True):
            patch.setattr(tested, name, function)
        decode.cache_clear()
        yield
    decode.cache_clear()


@exploring()
@given(
    st.integers(0, 1 << 62),
    st.integers(0, 253402300799_999999),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
)
def test_what_was_encoded_is_decoded(
    size: int, published_us: int, metadata: dict[str, str]
) -> None:
    """
    Any attribute decodes to what it was made of.
    """
    record = decode(encode(ETAG, size, published_us, encode_metadata(metadata)))

    assert Record(ETAG, size, published_us, metadata) == record


def test_a_name_is_of_a_field_or_of_a_dialect() -> None:
    """
    Of a field that describes a value, of one that begins with x-, or a dialect's own;
    other programs' attributes are refused.
    """
    assert all(map(is_metadata_name, NAMES))
    assert NAMES[:-1] == list(filter(is_field, NAMES))
    for name in ("content-length", "x-", "x-a:", "x-A", "dav", ".a", "dav.", "x-\xe9"):
        assert not is_metadata_name(name), name
        with pytest.raises(ValueError, match="metadata"):
            encode_metadata({name: "1"})


def test_attribute_is_text() -> None:
    """
    People can read it.
    """
    lines = encode_metadata({"content-type": "text/plain"})

    assert b"2 %b 4096 1795890600.000456\ncontent-type: text/plain\n" % (
        ETAG.encode()
    ) == encode(ETAG, 4096, 1_795_890_600_000_456, lines)


def test_attribute_of_the_first_version_is_read() -> None:
    """
    It has everything but the time of publication.
    """
    attribute = b"1 %b 4096\ncontent-type: text/plain\n" % ETAG.encode()

    assert Record(ETAG, 4096, None, {"content-type": "text/plain"}) == decode(attribute)


@exploring()
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(attribute: bytes) -> None:
    """
    Any bytes give a record or `MalformedAttribute`; and a record has no metadata that
    could not be written or sent.
    """
    for raw in (
        attribute,
        b"1 %b 7\n%b" % (ETAG.encode(), attribute),
        b"2 %b 7 1.000001\ncontent-type: %b\n" % (ETAG.encode(), attribute),
    ):
        try:
            record = decode(raw)
        except MalformedAttribute:
            continue
        assert record.size >= 0
        encode_metadata(record.metadata)


LINES = st.builds(
    lambda line, at, old, new: line[:at] + new + line[at + old :],
    st.sampled_from(
        [
            b"1 %b 70\n" % ETAG.encode(),
            b"2 %b 70 1795890600.123456\n" % ETAG.encode(),
            b"2 %b 9999999999999999999 999999999999.999999\na: b\n" % ETAG.encode(),
            b"2 %b 0 0.000000\n" % ETAG.encode(),
        ]
    ),
    st.integers(0, 80),
    st.integers(0, 2),
    st.lists(st.sampled_from(b"0123 .\nag\0\xff")).map(bytes),
)


@exploring()
@given(LINES)
def test_both_forms_read_the_same(attribute: bytes) -> None:
    """
    Whatever is changed in a line or cut off it.
    """
    for end in (len(attribute), len(attribute) - 1):
        part = attribute[:end]
        assert read_line_in_python(part) == tested.read_line(part)


def test_an_id_has_its_length() -> None:
    """
    Else the attribute could not be read.
    """
    for etag in (ETAG[1:], ETAG + "0", ""):
        with pytest.raises(ValueError, match=f"^an id of {len(etag)} digits"):
            encode(etag, 1, 1, b"")


@pytest.mark.parametrize(
    "lines", [b"content-type\n", b"content-type: a", b"\n", b"content-type:a\n"]
)
def test_lines_of_metadata_have_a_name_and_an_end(lines: bytes) -> None:
    """
    Those that come without their first line too.
    """
    with pytest.raises(MalformedAttribute):
        decode_metadata(lines)


@pytest.mark.parametrize(
    "attribute",
    [
        b"",
        b"2 %b 5 1.000000" % ETAG.encode(),
        b"3 %b 5 1.000000\n" % ETAG.encode(),
        b"2 %b 05 1.000000\n" % ETAG.encode(),
        b"2 %b -5 1.000000\n" % ETAG.encode(),
        b"2 %b 5\n" % ETAG.encode(),
        b"1 %b 5 1.000000\n" % ETAG.encode(),
        b"2 %b 5 1\n" % ETAG.encode(),
        b"2 %b 5 1.00000\n" % ETAG.encode(),
        b"2 %b 5 01.000000\n" % ETAG.encode(),
        b"2 %b 5 -1.000000\n" % ETAG.encode(),
        b"2 %b 5 1.000000\nno colon\n" % ETAG.encode(),
        b"2 %b 5 1.000000\ncontent-type: unended" % ETAG.encode(),
        b"2 %b 5 1.000000\n" % ETAG.upper().encode(),
        b"2 %b 5 1.000000\n" % ETAG[1:].encode(),
    ],
)
def test_other_formats_are_refused(attribute: bytes) -> None:
    """
    Attributes that are cut short, of a later version or slightly different are not
    guessed at.
    """
    with pytest.raises(MalformedAttribute):
        decode(attribute)


@pytest.mark.parametrize(
    "line",
    [
        b"content-type: a\rset-cookie: b",
        b"content-type: a\0",
        b"content-type: \x7f",
        b"content-type: \xe9",
        "content-type: \u20ac".encode(),
        b"transfer-encoding: chunked",
        b"content-length: 5",
        b"connection: close",
        b"set-cookie: a",
        b"Content-Type: a",
        b"other: a",
        b" content-type: a",
    ],
)
def test_metadata_that_kvd_never_writes_is_refused(line: bytes) -> None:
    """
    Text that no field can have, and other fields, are refused in both directions.
    """
    for version in (b"1 %b 5\n%b\n", b"2 %b 5 1.000000\n%b\n"):
        with pytest.raises(MalformedAttribute):
            decode(version % (ETAG.encode(), line))
    name, _, value = line.decode("utf-8", "surrogateescape").partition(": ")
    with pytest.raises(ValueError, match="cannot be kept as metadata"):
        encode_metadata({name: value})


METADATA_LINES = st.lists(
    st.builds(
        lambda name, colon, value: name + colon + value,
        st.sampled_from([name.encode() for name in [*NAMES, "age", "x-", "X-a", "a."]])
        | st.lists(st.sampled_from(b"x-aZ9.!|:\n \xc3")).map(bytes),
        st.sampled_from([b": ", b": ", b": ", b":", b""]),
        st.lists(st.sampled_from(b" a:\t\r\0\x7f\xc2\xc3\x80\xbf\xc4~")).map(bytes),
    ),
    max_size=3,
).map(lambda lines: b"".join(line + b"\n" for line in lines))


@exploring()
@given(METADATA_LINES, st.integers(0, 1))
def test_both_forms_read_the_same_metadata(lines: bytes, less: int) -> None:
    """
    Whatever another program has written there, also if the end is missing.
    """
    part = lines[: len(lines) - less]

    assert read_metadata_in_python(part) == tested.read_metadata(part)


def kind(attribute: bytes | None, changed_ns: int, mode: int = stat.S_IFREG) -> int:
    """
    What a file of 5 bytes is.
    """
    return tested.kind_of(attribute, mode | 0o644, 5, *divmod(changed_ns, 10**9))


def test_what_a_file_is() -> None:
    """
    A value is a regular file with all that its attribute says of it.
    """
    published_us = 1_795_890_600_123_456
    changed_ns = 1000 * published_us
    lines = encode_metadata({"content-type": "text/plain"})
    ours = encode(ETAG, 5, published_us, lines)
    older = b"1 %b 5\n%b" % (ETAG.encode(), lines)

    assert tested.OURS == kind(ours, changed_ns)
    assert tested.OURS == kind(older, changed_ns + 1)
    assert tested.TORN == kind(encode(ETAG, 6, published_us, lines), changed_ns)
    assert tested.TORN == kind(older.replace(b" 5", b" 4"), changed_ns)
    for text in (None, b"", ours[:-1], ours + b"age: 1\n", b"3" + ours[1:]):
        assert tested.FOREIGN == kind(text, changed_ns), text
    for mode in (stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFLNK):
        assert tested.NO_VALUE == kind(ours, changed_ns, mode)


def test_the_kinds_have_the_same_numbers_where_they_are_compiled() -> None:
    """
    The fast path goes by those of the compiled form.
    """
    assert _native is not None
    for name in ("NO_VALUE", "FOREIGN", "TORN", "OURS"):
        assert getattr(tested, name) == getattr(_native, name)


def is_dated(published_us: int, changed_ns: int) -> bool:
    """
    Whether a file with an attribute and this time is a value.
    """
    found = kind(encode(ETAG, 5, published_us, b""), changed_ns)
    assert found in (tested.OURS, tested.FOREIGN)
    return found == tested.OURS


def test_a_file_has_the_date_of_its_attribute() -> None:
    """
    To the microsecond, or to the second where file systems keep no more.
    """
    published_us = 1_795_890_600_123_456

    assert is_dated(published_us, 1000 * published_us)
    assert is_dated(published_us, 1_795_890_600_000_000_000)
    for changed_ns in (
        1000 * published_us + 1,
        1000 * published_us - 1000,
        1_795_890_600_100_000_000,
        1_795_890_601_000_000_000,
        1_795_890_599_000_000_000,
    ):
        assert not is_dated(published_us, changed_ns)


@pytest.mark.parametrize("second", [0, 9_223_372_036, 9_223_372_037, 253402300799])
def test_a_file_has_its_date_in_any_year(second: int) -> None:
    """
    Also where nanoseconds no longer fit in 64 bits, from 2262 on.
    """
    published_us = second * 1_000_000 + 999_999

    assert is_dated(published_us, 1000 * published_us)
    assert is_dated(published_us, second * 10**9)
    for changed_ns in (
        1000 * published_us + 1,
        1000 * published_us + 1000,
        second * 10**9 - 1,
        second * 10**9 - 10**9,
        second * 10**9 + 2**64,
        -1000 * published_us,
    ):
        assert not is_dated(published_us, changed_ns)
