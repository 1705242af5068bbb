"""
The tests of `kvd.s3.location`.
"""

from __future__ import annotations

import pytest

from kvd.errors import BadSetting
from kvd.s3.location import Location, read_location
from kvd.s3.maker import maker


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("//bucket", Location("bucket", "", (), None)),
        ("//bucket/a/b/", Location("bucket", "a/b/", (), None)),
        (
            "//bucket/a?endpoint=https://one:8333,http://[::1]:80/&region=eu-1",
            Location("bucket", "a/", ("https://one:8333", "http://[::1]"), "eu-1"),
        ),
        (
            "//bucket?endpoint=HTTP://One.Example:0443,https://TWO:443,http://three:",
            Location(
                "bucket",
                "",
                ("http://one.example:443", "https://two", "http://three"),
                None,
            ),
        ),
    ],
)
def test_location_is_read(text: str, location: Location) -> None:
    """
    A location has a bucket, perhaps a prefix, endpoints and a region; written again, it
    means the same.
    """
    assert location == read_location(text)
    assert location == read_location(maker.resolve(text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bucket", "not a bucket behind //"),
        ("//Bucket", "'Bucket' is not a bucket"),
        ("//b", "'b' is not a bucket"),
        ("//bucket/.hidden", "'/.hidden' is not a prefix"),
        ("//bucket/a//b", "'/a//b' is not a prefix"),
        ("//bucket/" + "a" * 256, "is not a prefix"),
        ("//bucket?endpoint=one:80", "'one:80' is not an endpoint"),
        ("//bucket?endpoint=", "'' is not an endpoint"),
        ("//bucket?endpoint=http://one/path", "not an endpoint"),
        ("//bucket?endpoint=http://one:x", "not an endpoint"),
        (
            "//bucket?endpoint=http://one&endpoint=http://two",
            "'endpoint' is there twice",
        ),
        ("//bucket?endpoints=http://one", "there is no option 'endpoints'"),
        ("//bucket?region=Eu", "'Eu' is not the name of a region"),
        ("//bucket#part", "not a bucket behind //"),
    ],
)
def test_other_text_is_refused(text: str, problem: str) -> None:
    """
    A sentence says what is wrong, and what would be right.
    """
    with pytest.raises(BadSetting) as caught:
        read_location(text)

    assert problem in caught.value.sentence
    assert "such as" in caught.value.sentence


@pytest.mark.parametrize(
    "text",
    [
        "//key:secret@bucket",
        "//bucket?endpoint=http://key:secret@one",
        "//bucket/.hidden?endpoint=http://key:secret@one",
        "//bucket?endpoint=http://one/key:secret@two",
    ],
)
def test_credentials_do_not_belong_there(text: str) -> None:
    """
    A secret in a location is refused, and not repeated.
    """
    with pytest.raises(BadSetting) as caught:
        read_location(text)

    assert "AWS_SECRET_ACCESS_KEY" in caught.value.sentence
    assert "secret@" not in caught.value.sentence
