"""
The tests of `kvd.s3.names`.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.errors import TargetTooLong
from kvd.model.keys import Key
from kvd.s3.names import decode, encode, object_name
from tests.exploring import exploring

_segments = st.binary(min_size=1, max_size=255).filter(
    lambda segment: b"/" not in segment and segment not in (b".", b"..")
)
_keys = st.lists(_segments, min_size=1, max_size=4).map(lambda all: Key(b"/".join(all)))
_near = st.text("-./0b[\\]~\xff", max_size=8).map(lambda text: text.encode("latin-1"))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (b"docs/read_me", "docs.read_me"),
        (b"a.b-c d", "a-2Eb-2Dc-20d"),
        (b"%2F", "-252F"),
        (b"[\\]", "[5B[5C]"),
        (b"{\xff", "~7B~FF"),
        (b"x" * 200, "x" * 200),
        (b"x" * 201, "x" * 200 + "~/x"),
    ],
)
def test_name_of_a_key(key: bytes, name: str) -> None:
    """
    Digits and letters stay; the rest is as the module says.
    """
    assert name == encode(key)
    assert key == decode(name)


@exploring(100)
@given(_keys)
def test_names_are_reversible(key: Key) -> None:
    """
    Each key comes back from its name, whose parts every engine keeps.
    """
    name = encode(key)

    assert key == decode(name)
    for part in name.split("/"):
        assert 0 < len(part) <= 255
        assert part.isascii()
        assert part.isprintable()
        assert part not in (".", "..")
        assert "\\" not in part


@exploring(100)
@given(st.one_of(_near, st.binary(max_size=450)), st.one_of(_near, st.binary()))
def test_names_keep_the_order(one: bytes, other: bytes) -> None:
    """
    Whatever bytes two names have, they are in the order of these, also where an engine
    goes from folder to folder.
    """
    first, second = encode(one), encode(other)

    assert (one < other) == (first < second)
    assert (one < other) == (first.split("/") < second.split("/"))
    assert encode(one + other).startswith(first)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a-2fb", "A-30", "~try-1", "a/b", "a~/b", "\u00e9", "a\\b"],
)
def test_other_names_are_no_keys(name: str) -> None:
    """
    What kvd has not written is not taken for a key.
    """
    assert decode(name) is None


def test_long_name_is_refused() -> None:
    """
    A key whose name is longer than S3 permits is refused with a sentence.
    """
    key = Key(b"-" * 255 + b"/" + b"-" * 255)

    with pytest.raises(TargetTooLong, match=r"a name of 15\d\d bytes.*shorter key"):
        object_name("", key)
