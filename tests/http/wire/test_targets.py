"""
Tests for `kvd.http.wire.targets`.
"""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.errors import BadRequest, PeerError, TargetTooLong
from kvd.http.wire.targets import (
    Target,
    page_of,
    parse_target,
    plain_key,
    plain_key_in_python,
)
from kvd.model.keys import MAX_KEY_BYTES
from kvd.native import compiled
from tests.exploring import exploring

KEYS = [
    (b"/k", b"k"),
    (b"/a/b/c", b"a/b/c"),
    (b"/a%20b", b"a b"),
    (b"/%61", b"a"),
    (b"/%c3%a9/%ff", b"\xc3\xa9/\xff"),
    (b"/a%25b", b"a%b"),
    (b"/a%252Fb", b"a%2Fb"),
    (b"/.hidden", b".hidden"),
    (b"/.nfs000000000000002a0000000", b".nfs000000000000002a0000000"),
    (b"/.nfs000000000000002A00000001", b".nfs000000000000002A00000001"),
    (b"/.fuse_hidden0000002a00000001x", b".fuse_hidden0000002a00000001x"),
    (b"/.nfs000000000000002a00000001/k", b".nfs000000000000002a00000001/k"),
    (b"/...", b"..."),
    (b"/a/.kvd", b"a/.kvd"),
    (b"/a;b=c,d@e:f", b"a;b=c,d@e:f"),
    (b"/k?teamId=x&k=%zz", b"k"),
    (b"/k?", b"k"),
    (b"http://h:8080/k?x", b"k"),
    (b"HTTPS://h/a%20b", b"a b"),
    (b"/./k", b"k"),
    (b"/a/./b", b"a/b"),
    (b"/./a/././b?x", b"a/b"),
    (b"/a/%2e/b", b"a/b"),
    (b"/%2E/a", b"a"),
    (b"http://h/./a/./b", b"a/b"),
    (b"/a./.b/c.", b"a./.b/c."),
    (b"/" + b"a" * 255, b"a" * 255),
    (b"/" + b"%61" * 255, b"a" * 255),
    (b"/" + b"/".join([b"a" * 203] * 5)[:1024], b"/".join([b"a" * 203] * 5)[:1024]),
]


@pytest.mark.parametrize(("target", "key"), KEYS)
def test_paths_name_keys(target: bytes, key: bytes) -> None:
    """
    Decoded once, whatever the query says.
    """
    assert key == parse_target(target, "GET").key


REFUSED: list[tuple[bytes, type[PeerError], str]] = [
    (b"//k", BadRequest, "empty"),
    (b"/a//b", BadRequest, "empty"),
    (b"/a/b//", BadRequest, "empty"),
    (b"//", BadRequest, "empty"),
    (b"/.//k", BadRequest, "empty"),
    (b"//./k", BadRequest, "empty"),
    (b"/a/./../k", BadRequest, "'..'"),
    (b"/./.kvd/lock", BadRequest, ".kvd"),
    (b"/..", BadRequest, "'..'"),
    (b"/../k", BadRequest, "'..'"),
    (b"/a/../../k", BadRequest, "'..'"),
    (b"/a/..", BadRequest, "'..'"),
    (b"/a/../", BadRequest, "'..'"),
    (b"/%2e%2e/k", BadRequest, "'..'"),
    (b"/%2E./k", BadRequest, "'..'"),
    (b"http://h/../k", BadRequest, "'..'"),
    (b"/..%2fk", BadRequest, "%2F"),
    (b"/a%2Fb", BadRequest, "%2F"),
    (b"/a%2fb/", BadRequest, "%2F"),
    (b"/a%00b", BadRequest, "control"),
    (b"/a%0ab", BadRequest, "control"),
    (b"/a%1f", BadRequest, "control"),
    (b"/a%7f", BadRequest, "control"),
    (b"/a%", BadRequest, "%25"),
    (b"/a%2", BadRequest, "%25"),
    (b"/a%zz", BadRequest, "%25"),
    (b"/100%25%", BadRequest, "%25"),
    (b"/.kvd", BadRequest, ".kvd"),
    (b"/.kvd/lock", BadRequest, ".kvd"),
    (b"/.kvd/", BadRequest, ".kvd"),
    (b"/.kvdx", BadRequest, ".kvd"),
    (b"/.nfs000000000000002a00000001", BadRequest, "while they are read"),
    (b"/a/.fuse_hidden0000002a00000001", BadRequest, "while they are read"),
    (b"/a/%2enfs000000000000002a00000001", BadRequest, "while they are read"),
    (b"/%2ekvd/lock", BadRequest, ".kvd"),
    (b"/" + b"a" * 256, TargetTooLong, "255"),
    (b"/" + b"/".join([b"a" * 204] * 5) + b"a", TargetTooLong, "1024"),
    (b"k", BadRequest, "URL"),
    (b"*", BadRequest, "URL"),
    (b"h:80", BadRequest, "URL"),
]


@pytest.mark.parametrize(("target", "error", "word"), REFUSED)
def test_what_names_no_key_is_refused(
    target: bytes, error: type[PeerError], word: str
) -> None:
    """
    With a sentence, and with the connection none the worse.
    """
    with pytest.raises(error) as refused:
        parse_target(target, "GET")

    assert error is refused.type
    assert word in str(refused.value)


PREFIXES = [
    (b"/", b""),
    (b"/a/", b"a/"),
    (b"/a/b/?limit=3", b"a/b/"),
    (b"/a%20b/", b"a b/"),
    (b"/.", b""),
    (b"/./", b""),
    (b"/././.", b""),
    (b"/a/.", b"a/"),
    (b"/a/./", b"a/"),
    (b"/a/%2e?limit=3", b"a/"),
    (b"/./a/b/./.", b"a/b/"),
    (b"http://h", b""),
    (b"http://h/", b""),
    (b"http://h?limit=1", b""),
]


@pytest.mark.parametrize(("target", "prefix"), PREFIXES)
def test_a_path_that_ends_with_a_slash_names_a_prefix(
    target: bytes, prefix: bytes
) -> None:
    """
    And no key.
    """
    parsed = parse_target(target, "GET")

    assert (None, prefix) == (parsed.key, parsed.prefix)


def test_the_asterisk_is_the_server() -> None:
    """
    For OPTIONS alone.
    """
    assert Target() == parse_target(b"*", "OPTIONS")


PAGES = [
    (b"/", (b"", None)),
    (b"/?other=1", (b"", None)),
    (b"/?limit=1", (b"", 1)),
    (b"/?limit=1000&after=a%2Fb%20c", (b"a/b c", 1000)),
    (b"/?after=k&limit=7&x", (b"k", 7)),
]


@pytest.mark.parametrize(("target", "page"), PAGES)
def test_pages_are_asked_for(target: bytes, page: tuple[bytes, int | None]) -> None:
    """
    What kvd does not know is passed over.
    """
    assert page == page_of(parse_target(target, "GET").query)


@pytest.mark.parametrize(
    "target",
    [
        b"/?limit=0",
        b"/?limit=1001",
        b"/?limit=-1",
        b"/?limit=",
        b"/?limit=ten",
        b"/?limit=99999999999999999999",
        b"/?after=k",
        b"/?limit=1&after=%zz",
        b"/?limit=1&limit=2",
        b"/?limit=1&after=a&after=b",
    ],
)
def test_impossible_pages_are_refused(target: bytes) -> None:
    """
    With what would be right.
    """
    with pytest.raises(BadRequest):
        page_of(parse_target(target, "GET").query)


SEGMENTS = st.one_of(
    st.text("aZ09_~!$&'()*+,;=:@-. %?#\x00\x7f\xe9/", max_size=4),
    st.builds(lambda size: "a" * size, st.integers(0, 300)),
    st.sampled_from(["", ".", "..", ".kvd", "a.", "-", "A-Z.0"]),
)


@exploring()
@given(
    st.sampled_from(["/", "/", "/", "", "h:/"]),
    st.lists(SEGMENTS, max_size=6).map("/".join),
)
def test_a_plain_key_is_the_same_by_either_form(start: str, path: str) -> None:
    """
    And the same as with a closer look.
    """
    target = (start + path).encode("latin-1")
    key = plain_key(target)

    assert plain_key_in_python(target) == key
    if key is not None:
        with mock.patch("kvd.http.wire.targets.plain_key", return_value=None):
            assert key == parse_target(target, "GET").key


def test_most_keys_are_plain() -> None:
    """
    Up to a length that is enough for nearly all.
    """
    for form in (plain_key, plain_key_in_python):
        for key in ("k", "ab/cdef0123", "a/b/c/d/e/f", "~/-/a.b..", "a" * 200):
            assert key.encode() == form(b"/" + key.encode())
        long = b"/".join([b"a" * 102] * 5)[:512]
        assert long == form(b"/" + long)
        for target in (b"/" + long + b"a", b"/" + b"a" * 201, b"/", b"", b"k", b"/a\n"):
            assert form(target) is None


def test_what_is_compiled_has_room_for_the_longest_key() -> None:
    """
    Where it removes values, any key may come.
    """
    native = compiled("_fast_path")
    assert native is not None
    assert MAX_KEY_BYTES == native.MAX_LONGEST_KEY
