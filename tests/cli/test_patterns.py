"""
Tests for `kvd.cli.patterns`.
"""

from __future__ import annotations

import pytest

from kvd.cli.patterns import Pattern, is_pattern


@pytest.mark.parametrize(
    ("text", "below", "matching", "others"),
    [
        ("a/*.o", b"a/", [b"a/x.o", b"a/.o"], [b"a/x.c", b"a/b/x.o", b"b/x.o"]),
        ("*", b"", [b"a", b".a"], [b"a/b"]),
        ("a/?", b"a/", [b"a/b", "a/ü".encode(), b"a/\xff"], [b"a/bc", b"a/"]),
        ("a/[b-d]", b"a/", [b"a/c"], [b"a/e", b"a/cc"]),
        ("a/[!b]", b"a/", [b"a/c"], [b"a/b"]),
        ("a/[*]", b"a/", [b"a/*"], [b"a/b"]),
        ("a/**", b"a/", [b"a/b", b"a/b/c"], [b"a", b"ab"]),
        (
            "a/**/c",
            b"a/",
            [b"a/c", b"a/b/c", b"a/b/b/c", b"a/c/c"],
            [b"a/bc", b"a/c/d"],
        ),
        ("**/b/**/c", b"", [b"b/c", b"a/b/c", b"b/b/a/c"], [b"c", b"a/c", b"b/c/d"]),
        ("a/*/", b"a/", [b"a/b/c", b"a/b/c/d"], [b"b/b/c"]),
        ("a/", b"a/", [b"a/b", b"a/b/c"], [b"a", b"ab/c"]),
        ("/a/*", b"a/", [b"a/b"], [b"b/b"]),
        ("A/*", b"A/", [b"A/b"], [b"a/b"]),
    ],
)
def test_patterns_match_segments(
    text: str, below: bytes, matching: list[bytes], others: list[bytes]
) -> None:
    """
    What is listed is what is below the fixed beginning.
    """
    pattern = Pattern(text)

    assert below == pattern.below
    assert matching == [key for key in matching + others if pattern.matches(key)]


def test_only_some_characters_make_a_pattern() -> None:
    """
    Others stand for themselves, also in the fixed beginning.
    """
    assert [True] * 3 == [is_pattern(text) for text in ("a*", "a/b?", "[a]")]
    assert not is_pattern("a.b/{c}\\d]!")


def test_a_pattern_with_many_wildcards_ends_soon() -> None:
    """
    Whoever could store a key could otherwise keep a reader busy for ever.
    """
    pattern = Pattern("**/" * 200 + "*a" * 60 + "b")

    assert not pattern.matches(b"a/" * 400 + b"a" * 200)
