"""
Tests for `kvd.cli.keys`: keys and URLs on the command line.
"""

from __future__ import annotations

import click
import pytest

from kvd.cli.errors import LocalError
from kvd.cli.keys import as_folder, checked_key, located

URL = "http://127.0.0.1:8080/base/"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a/b", "c%41"], ("http://127.0.0.1:8080/base", ["a/b", "c%41"])),
        (["http://h/a%20b/%25*"], ("http://h", ["a b/%*"])),
        (["https://h:1/a/", "https://h:1//b"], ("https://h:1", ["a/", "b"])),
        (["http://h", "http://h/"], ("http://h", ["/", "/"])),
        (["http://h/%FF"], ("http://h", ["\udcff"])),
        (
            ["http://h/htp://i/a", "http://h/i.j:1"],
            ("http://h", ["htp://i/a", "i.j:1"]),
        ),
        (["busybox:1", "a:/b"], ("http://127.0.0.1:8080/base", ["busybox:1", "a:/b"])),
        (["http://127.0.0.1:8080/base"], ("http://127.0.0.1:8080", ["base"])),
    ],
)
def test_urls_are_decoded_and_keys_are_not(
    arguments: list[str], expected: tuple[str, list[str]]
) -> None:
    """
    Keys without a URL are those of the daemon that the options name.
    """
    assert expected == located(URL, arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://h/a", "http://i/a"], "are in two daemons"),
        (["http://h/a", "a"], "are in two daemons"),
        (["http://h/100%"], "write the sign itself as %25"),
        (["http:/h/a"], "'http:/h/a' is almost a URL"),
        (["https:h"], "begins with http:// or https://"),
        (["htp://h/a"], "is almost a URL"),
        (["localhost:8080"], "is almost a URL"),
        (["kvd.example:8080/a/"], "is almost a URL"),
        (["[::1]:8080/a"], "http://HOST:PORT/KEY"),
    ],
)
def test_what_cannot_be_asked_at_once_is_refused(
    arguments: list[str], words: str
) -> None:
    """
    With what would be right.
    """
    with pytest.raises(click.UsageError, match=words):
        located(URL, arguments)


@pytest.mark.parametrize(
    "key", [b"", b"/a", b"a//b", b"a/", b"..", b"a/../b", b".", b"a\n", b"a" * 256]
)
def test_what_cannot_be_a_key_is_refused(key: bytes) -> None:
    """
    By the daemon's own rule.
    """
    checked_key(b"a/...b/.c")
    with pytest.raises(LocalError):
        checked_key(key)


def test_a_folder_of_keys_ends_with_a_slash() -> None:
    """
    That of all keys is empty.
    """
    assert [b"", b"a/", b"a/"] == [as_folder(one) for one in (b"", b"a", b"a/")]
