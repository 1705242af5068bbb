"""
Patterns of keys, matched against a listing.

As in a shell, ``*`` and ``?`` stand for characters of one segment, ``[a-z]`` for one of
several characters, and the segment ``**`` for any number of segments. A leading dot is
no exception, because keys have no hidden ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

_WILD: Final = re.compile(r"[*?[]")
_ANY: Final = "**"


def is_pattern(text: str) -> bool:
    """
    Whether a text has a character that stands for others.
    """
    return _WILD.search(text) is not None


class Pattern:
    """
    A pattern of keys.
    """

    def __init__(self, text: str) -> None:
        """
        Args:
            text: Of the pattern. One that ends with a slash is about all keys below
                what it matches.
        """
        if text.endswith("/"):
            text += _ANY
        segments = text.removeprefix("/").split("/")
        fixed = 0
        while fixed < len(segments) and not is_pattern(segments[fixed]):
            fixed += 1
        self.below = os.fsencode("".join(f"{name}/" for name in segments[:fixed]))
        """The prefix of all keys that can match; it is listed."""
        self._segments = segments[fixed:]

    def matches(self, key: bytes) -> bool:
        """
        Whether the pattern is about a key.
        """
        if not key.startswith(self.below):
            return False
        names = os.fsdecode(key[len(self.below) :]).split("/")
        return _match(self._segments, names)


def _match(wanted: Sequence[str], names: Sequence[str]) -> bool:
    # What fails goes back to the last "**" only, which takes one segment more. Earlier
    # ones need no other try, so the time is bounded by the product of the lengths.
    at, found = 0, 0
    last_any, taken_from = -1, 0
    while found < len(names):
        if at < len(wanted) and wanted[at] == _ANY:
            last_any, taken_from = at, found
            at += 1
        elif at < len(wanted) and fnmatchcase(names[found], wanted[at]):
            at += 1
            found += 1
        elif last_any >= 0:
            taken_from += 1
            at, found = last_any + 1, taken_from
        else:
            return False
    return all(segment == _ANY for segment in wanted[at:])
