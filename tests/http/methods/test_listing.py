"""
The lines of a listing.
"""

import json
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from kvd.http.methods.listing import listing_lines
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from tests.exploring import exploring

TIMES = st.floats(-60_000_000_000, 250_000_000_000)


@exploring()
@given(st.binary(min_size=1), st.integers(0), st.text(), TIMES)
def test_line_says_all_of_a_value(
    key: bytes, size: int, etag: str, changed: float
) -> None:
    """
    As JSON, whatever bytes a key has and whatever a store takes for an entity
    tag; the time to the millisecond that it is in.
    """
    (line,) = listing_lines([ValueInfo(Key(key), size, etag, changed)]).splitlines()
    said = json.loads(line)

    assert ["key", "size", "etag", "changed"] == [*said]
    assert key == unquote_to_bytes(said["key"])
    assert (size, f'"{etag}"') == (said["size"], said["etag"])
    exactly = datetime.fromtimestamp(changed, UTC)
    to_milliseconds = exactly.replace(microsecond=exactly.microsecond // 1000 * 1000)
    assert to_milliseconds == datetime.fromisoformat(said["changed"])
    assert said["changed"].endswith("Z")


def test_each_value_has_its_line() -> None:
    """
    In the order in which they are given.
    """
    values = [ValueInfo(Key(name), 0, "e", 0.0) for name in (b"b", b"a")]

    assert 2 == listing_lines(values).count(b"\n")
    assert ["b", "a"] == [
        json.loads(line)["key"] for line in listing_lines(values).splitlines()
    ]
