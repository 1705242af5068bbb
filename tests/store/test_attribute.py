"""
The tests of `kvd.store.attribute`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.store.attribute import MalformedAttribute, decode, encode, encode_metadata

ETAG = "0123456789abcdef" * 2

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
# Text as it comes from any bytes of a field, which has no line feed.
VALUES = st.binary(max_size=60).map(
    lambda value: value.replace(b"\n", b"").decode("utf-8", "surrogateescape")
)


@given(st.integers(0, 1 << 62), st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_was_encoded_is_decoded(size: int, metadata: dict[str, str]) -> None:
    """
    An attribute gives back what it was made of, whatever the text.
    """
    record = decode(encode(ETAG, size, encode_metadata(metadata)))

    assert (ETAG, size, metadata) == (record.etag, record.size, record.metadata)


def test_attribute_is_text() -> None:
    """
    Whoever looks at an attribute can read it.
    """
    lines = encode_metadata({"content-type": "text/plain"})

    assert b"1 %b 4096\ncontent-type: text/plain\n" % ETAG.encode() == encode(
        ETAG, 4096, lines
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(attribute: bytes) -> None:
    """
    Garbage gives a record or `MalformedAttribute`, nothing else.
    """
    for raw in (attribute, b"1 %b 7\n%b" % (ETAG.encode(), attribute)):
        try:
            assert decode(raw).size >= 0
        except MalformedAttribute:
            continue


@pytest.mark.parametrize(
    "attribute",
    [
        b"",
        b"1 %b 5" % ETAG.encode(),
        b"2 %b 5\n" % ETAG.encode(),
        b"1 %b 05\n" % ETAG.encode(),
        b"1 %b -5\n" % ETAG.encode(),
        b"1 %b 5\nno colon\n" % ETAG.encode(),
        b"1 %b 5\nx: unended" % ETAG.encode(),
        b"1 %b 5\n" % ETAG.upper().encode(),
        b"1 %b 5\n" % ETAG[1:].encode(),
    ],
)
def test_other_formats_are_refused(attribute: bytes) -> None:
    """
    What is cut short, of a later version or not quite ours is not guessed at.
    """
    with pytest.raises(MalformedAttribute):
        decode(attribute)
