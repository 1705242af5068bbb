"""
The fields of a request that kvd understands: conditions, ranges, metadata.

If kvd is compiled, ``kvd/native/fields.c`` reads entity tags, dates and ranges, for
this module and for the fast path. The functions that end in ``_in_python`` do the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

from kvd.errors import BadRequest, MetadataTooLarge, RangeNotSatisfiable
from kvd.model.conditions import UNCONDITIONAL, Conditions, EntityTags
from kvd.model.requests import Request
from kvd.model.values import (
    MAX_METADATA_BYTES,
    METADATA_FIELDS,
    NO_METADATA,
    Metadata,
    ValueInfo,
)
from kvd.native import compiled

_native: Final = compiled("_fast_path")

_TAG: Final = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS: Final = re.compile(
    rb"[ \t,]*" + _TAG + rb"(?:[ \t]*,[ \t,]*" + _TAG + rb")*[ \t,]*"
)
_ONE_TAG: Final = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE: Final = re.compile(rb"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*")
# RFC 9110 section 5.6.7: IMF-fixdate, and the two forms that are obsolete.
_DAY: Final = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_TIME: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_MONTH: Final = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_FIXED_DATE: Final = re.compile(
    _DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME
    + rb" GMT"
)  # fmt: skip
_OBSOLETE_DATES: Final = [
    re.compile(form)
    for form in (
        _LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME
        + rb" GMT",
        _DAY + rb" " + _MONTH + rb" (?P<day>[0-9 ][0-9]) " + _TIME
        + rb" (?P<year>[0-9]{4})",
    )
]  # fmt: skip

# No value is as large as numbers with more; int() is not asked about them.
_MAX_DIGITS: Final = 19

_CONDITIONAL: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
_STORED: Final = tuple(name.encode() for name in sorted(METADATA_FIELDS))


def conditions_of(request: Request) -> Conditions:
    """
    The conditions of a request.

    Raises:
        BadRequest: An entity tag is malformed. Ignoring it could overwrite a value
            that the client meant to protect.
    """
    fields = request.fields
    if _CONDITIONAL.isdisjoint(fields):
        return UNCONDITIONAL
    match = fields.get(b"if-match")
    none_match = fields.get(b"if-none-match")
    return Conditions(
        None if match is None else entity_tags(match),
        None if none_match is None else entity_tags(none_match),
        # What is not a date is ignored (RFC 9110 section 13.1.3).
        parse_http_date(fields.get(b"if-modified-since")),
        parse_http_date(fields.get(b"if-unmodified-since")),
    )


def entity_tags(value: bytes) -> EntityTags:
    """
    ``*`` or a list of entity tags (RFC 9110 section 8.8.3).

    Raises:
        BadRequest: It is neither.
    """
    if value == b"*":
        return EntityTags(any=True)
    tags = list_tags(value)
    if tags is None:
        shown = value[:80].decode("ascii", "backslashreplace")
        raise BadRequest(
            f"{shown} is not a list of entity tags: each has to be in double quotes, as"
            ' in If-Match: "0123abcd", or the whole is *.'
        )
    strong, weak = tags
    return EntityTags(frozenset(strong), frozenset(weak))


def list_tags_in_python(value: bytes) -> tuple[list[str], list[str]] | None:
    """
    The strong and the weak tags of a list; None if it is not a list of tags.
    """
    if not _TAGS.fullmatch(value):
        return None
    tags: tuple[list[str], list[str]] = ([], [])
    for weakness, tag in _ONE_TAG.findall(value):
        tags[bool(weakness)].append(tag.decode("latin-1"))
    return tags


list_tags: Final = list_tags_in_python if _native is None else _native.entity_tags


def parse_http_date(value: bytes | None) -> int | None:
    """
    Convert an HTTP date in any of its three forms (RFC 9110 section 5.6.7) to seconds
    since the epoch; None for anything else, such as a date in another time zone.
    """
    if value is None:
        return None
    second = fixed_date(value)
    if second is not None:
        return second
    for form in _OBSOLETE_DATES:
        matched = form.fullmatch(value)
        if matched is not None:
            return _seconds_of(matched)
    return None


def fixed_date_in_python(value: bytes) -> int | None:
    """
    The same for the only form that is not obsolete.
    """
    matched = _FIXED_DATE.fullmatch(value)
    return None if matched is None else _seconds_of(matched)


fixed_date: Final = fixed_date_in_python if _native is None else _native.fixed_date


def _seconds_of(date: re.Match[bytes]) -> int | None:
    year = int(date["year"])
    if len(date["year"]) == 2:
        # A year more than 50 years ahead is the last one in the past with the same
        # digits.
        latest = datetime.now(UTC).year + 50
        year = latest - (latest - year) % 100
    second = int(date["second"])
    if second > 60:
        return None
    try:
        minute = datetime(
            year,
            _MONTHS.index(date["month"]) + 1,
            int(date["day"]),
            int(date["hour"]),
            int(date["minute"]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    # A leap second has the number 60.
    return int(minute.timestamp()) + second


Range: TypeAlias = tuple[int, int]
"""
The first byte of a part of a value, and its size.
"""

MAX_RANGES: Final = 64
"""
Of one request. With more, the whole value is sent (RFC 9110 section 14.2): nobody has
kvd read and describe thousands of parts for a head of some kilobytes.
"""


def ranges_of(request: Request, info: ValueInfo, gap: int) -> list[Range] | None:
    """
    The ranges of the value that a request asks for (RFC 9110 section 14.2).

    Args:
        request: Of any method.
        info: Describes the value.
        gap: Ranges that overlap, or with at most so many bytes between them, are given
            as one.

    Returns:
        At least one, none of them empty, in the order in which they were asked for;
        None for the whole value: the request has no range, or too many, or those of
        another unit than bytes, or ``If-Range`` names another value.

    Raises:
        RangeNotSatisfiable: All begin behind the end of the value, or the value is
            empty.
    """
    fields = request.fields
    asked = fields.get(b"range")
    if asked is None:
        return None
    etag, condition = info.etag.encode("latin-1"), fields.get(b"if-range")
    if b"," in asked:
        found = _several(asked, condition, etag, info.size)
    else:
        part = byte_range(asked, condition, etag, info.size)
        found = None if part is None else [part]
    if found is None:
        return None
    ranges = [part for part in found if part[1]]
    if not ranges:
        begins = "range begins" if len(found) == 1 else "ranges begin"
        raise RangeNotSatisfiable(
            f"The value has {info.size} bytes; the {begins} behind them.", info.size
        )
    return ranges if len(ranges) == 1 else _joined(ranges, gap)


def _several(
    asked: bytes, condition: bytes | None, etag: bytes, size: int
) -> list[Range] | None:
    """
    The ranges of a list, empty ones too; None if it is malformed, or too long.
    """
    unit, equals, text = asked.partition(b"=")
    # A recipient accepts empty elements of a list (RFC 9110 section 5.6.1.2).
    specs = [spec for spec in text.split(b",", 2 * MAX_RANGES) if spec.strip(b" \t")]
    if not equals or not 0 < len(specs) <= MAX_RANGES:
        return None
    found = []
    for spec in specs:
        part = byte_range(unit + b"=" + spec, condition, etag, size)
        if part is None:
            return None
        found.append(part)
    return found


def _joined(ranges: Sequence[Range], gap: int) -> list[Range]:
    """
    Ranges of which none is closer to another one than a gap; each stands where the
    first of those stood that are in it.
    """
    joined: list[tuple[int, int, int]] = []
    for (first, size), place in sorted(
        (part, place) for place, part in enumerate(ranges)
    ):
        end = first + size
        if joined and first <= joined[-1][2] + gap:
            before = joined[-1]
            joined[-1] = min(before[0], place), before[1], max(before[2], end)
        else:
            joined.append((place, first, end))
    return [(first, end - first) for _, first, end in sorted(joined)]


def byte_range_in_python(
    asked: bytes, condition: bytes | None, etag: bytes, size: int
) -> tuple[int, int] | None:
    """
    The part of a value that a ``Range`` field asks for.

    Args:
        asked: The value of the field.
        condition: The value of the ``If-Range`` field; None if there is none.
        etag: The entity tag of the value, without quotes.
        size: The size of the value.

    Returns:
        Its first byte and its size, which is 0 if it begins behind the end; None for
        the whole value, and for a list.
    """
    # A strong comparison (RFC 9110 section 13.1.5): a weak tag never matches, nor does
    # a date, since another value may have been published within its second (section
    # 8.8.2.2), and the parts of two would be taken for one.
    if condition is not None and condition != b'"' + etag + b'"':
        return None
    matched = _RANGE.fullmatch(asked)
    if matched is None or not (matched[1] or matched[2]):
        return None
    first, last = matched[1], matched[2]
    if not first:
        length = min(_number(last), size)
        return size - length, length
    begin = _number(first)
    end = _number(last) if last else size - 1
    if last and end < begin:
        return None
    if begin >= size:
        return size, 0
    return begin, min(end, size - 1) - begin + 1


def _number(digits: bytes) -> int:
    digits = digits.lstrip(b"0")
    return 10**_MAX_DIGITS if len(digits) > _MAX_DIGITS else int(digits or b"0")


byte_range: Final = byte_range_in_python if _native is None else _native.byte_range


def metadata_of(request: Request) -> Metadata:
    """
    The fields of a request that are stored with its value. An empty field is not
    stored, since it has no meaning.

    Raises:
        MetadataTooLarge: Together they are.
    """
    fields = request.fields
    stored = {
        name.decode("ascii"): fields[name].decode("latin-1")
        for name in _STORED
        if fields.get(name)
    }
    if not stored:
        return NO_METADATA
    check_size(stored)
    return stored


def size_of(metadata: Metadata) -> int:
    """
    How many bytes of metadata there are, as stores count: a byte beyond ASCII becomes
    two.
    """
    return sum(len(name) + len(value.encode()) for name, value in metadata.items())


def check_size(metadata: Metadata) -> None:
    """
    Check that metadata is not too large.

    Raises:
        MetadataTooLarge: It is.
    """
    size = size_of(metadata)
    if size > MAX_METADATA_BYTES:
        names = ", ".join(metadata).title()
        raise MetadataTooLarge(
            f"The fields to store with the value ({names:.200}) have {size} bytes"
            f" together; at most {MAX_METADATA_BYTES} can be stored."
        )
