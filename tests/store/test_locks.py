"""
Tests for `kvd.store.locks`.
"""

from __future__ import annotations

import random

import pytest

from kvd.model.keys import MAX_KEY_BYTES, Key
from kvd.store.locks import hashed, offset_of


def test_each_key_has_one_offset() -> None:
    """
    Whichever kvd asks, compiled or not, for keys of any length.
    """
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for size in range(MAX_KEY_BYTES + 1):
        key = Key(dice.randbytes(size))
        assert hashed(key) == offset_of(key)


def test_offsets_stay_as_they_are() -> None:
    """
    Processes of other versions of kvd may have the same store open.
    """
    assert 0xDEBD2558BCA8FA0 == hashed(Key(b"a/b"))


def test_offsets_are_in_the_file() -> None:
    """
    The kernel takes none beyond 62 bits, and a key is bytes.
    """
    assert all(0 <= offset_of(Key(b"%d" % number)) < 1 << 62 for number in range(1000))
    with pytest.raises(TypeError):
        offset_of("a/b")  # type: ignore[arg-type]
