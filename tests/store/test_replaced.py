"""
Tests for `kvd.store.replaced`, compiled and not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvd.model.keys import Key
from kvd.store.replaced import (
    SOMETHING,
    AllKept,
    keeps_replaced,
    keeps_replaced_in_python,
    note_change,
    note_change_in_python,
)

NAMES = ["compiled", "Python"]
KEEPS = pytest.mark.parametrize(
    "keeps", [keeps_replaced, keeps_replaced_in_python], ids=NAMES
)
NOTE = pytest.mark.parametrize("note", [note_change, note_change_in_python], ids=NAMES)

KEY, OTHER = Key(b"a/key"), Key(b"other")


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert keeps_replaced is not keeps_replaced_in_python
    assert note_change is not note_change_in_python


@KEEPS
def test_the_first_value_of_a_key_is_kept(
    keeps: Callable[[AllKept | None, Key, int], bool | None],
) -> None:
    """
    The later ones were never synced, so they are not, however many are kept. Nothing
    is kept by a store that keeps nothing.
    """
    assert keeps({}, KEY, 1) is True
    assert keeps({OTHER: b"name"}, KEY, 2) is True
    assert keeps({SOMETHING: b""}, KEY, 2) is True
    for most in (0, 1, 2):
        assert keeps({KEY: b"name"}, KEY, most) is False
        assert keeps(None, KEY, most) is False


@KEEPS
def test_no_more_are_kept_than_may_be(
    keeps: Callable[[AllKept | None, Key, int], bool | None],
) -> None:
    """
    Whatever is noted counts.
    """
    assert keeps({}, KEY, 0) is None
    assert keeps({OTHER: b"name"}, KEY, 1) is None
    assert keeps({SOMETHING: b"", OTHER: b"name"}, KEY, 2) is None
    assert keeps({SOMETHING: b"", OTHER: b"name"}, KEY, 1) is None


@NOTE
def test_a_change_is_noted(note: Callable[[AllKept | None, Key, bytes], None]) -> None:
    """
    With the name of what is kept for the key; or that there was one, which leaves alone
    what is kept.
    """
    kept: AllKept = {}
    note(kept, KEY, b"")
    assert {SOMETHING: b""} == kept
    note(kept, KEY, b"name")
    assert {SOMETHING: b"", KEY: b"name"} == kept
    note(kept, KEY, b"")
    note(kept, OTHER, b"")
    assert {SOMETHING: b"", KEY: b"name"} == kept

    kept = {}
    note(kept, KEY, b"name")
    assert {KEY: b"name"} == kept
    note(None, KEY, b"name")


def test_only_a_dict_has_what_is_kept() -> None:
    """
    The compiled forms take nothing else, whose methods could do anything.
    """

    class Odd(dict[Key, bytes]):
        """
        A dict that is not one.
        """

    others: tuple[Any, ...] = (Odd(), [], b"")
    for odd in others:
        with pytest.raises(TypeError, match="kept is no dict"):
            keeps_replaced(odd, KEY, 1)
        with pytest.raises(TypeError, match="kept is no dict"):
            note_change(odd, KEY, b"name")
