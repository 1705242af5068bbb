"""
Tests for `kvd.ipc.row`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.ipc.row import (
    BEAT,
    CLIENT_LEFT,
    METHODS,
    OPEN,
    UPLOADS,
    CountsInPython,
    lone_row,
    word_of_method,
)
from tests.exploring import exploring

STEPS = st.lists(
    st.one_of(
        st.sampled_from([("opened",), ("closed",)]),
        st.tuples(st.just("began"), st.booleans()),
        st.tuples(
            st.just("finished"),
            st.sampled_from(METHODS).map(word_of_method),
            st.booleans(),
            st.sampled_from(
                [
                    *(0, 100, 200, 206, 304, 404, CLIENT_LEFT),
                    *(500, 501, 505, 507, 999, 5000),
                ]
            ),
            st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 2.0**-17, 2.0**7]),
        ),
        st.tuples(st.sampled_from(["received", "sent"]), st.integers(0, 1 << 40)),
    )
)


@exploring()
@given(STEPS)
def test_both_forms_count_the_same(steps: list[tuple[Any, ...]]) -> None:
    """
    Whatever happens, each word of a row is the same.
    """
    compiled, in_python = lone_row(), lone_row()
    counts = CountsInPython(in_python.words)
    for words in (compiled.words, in_python.words):
        words[BEAT] = 0
        # So that it does not fall below 0.
        words[OPEN] = words[UPLOADS] = 1000
    assert type(compiled.counts) is not CountsInPython
    for name, *arguments in steps:
        getattr(compiled.counts, name)(*arguments)
        getattr(counts, name)(*arguments)

    assert in_python.words.tolist() == compiled.words.tolist()


def test_nothing_is_counted_outside_of_a_row() -> None:
    """
    A mistake here must not write into somebody else's memory.
    """
    words = memoryview(bytearray(8 * 10)).cast("Q")
    kind: Any = type(lone_row().counts)
    statuses = bytes([2]) * 1000
    at = tuple(range(7))
    counts = kind(words, at, statuses, (0,), 0, 9)
    counts.finished(7, False, 200, 1.0)
    for method in (-1, 8, 1 << 60):
        with pytest.raises(IndexError):
            counts.finished(method, False, 200, 1.0)
    for bad in (
        ((*at[:6], 10), statuses, (0,)),
        ((-1, *at[1:]), statuses, (0,)),
        (at, statuses[1:], (0,)),
        (at, statuses, ()),
        (at, statuses, (256,)),
    ):
        with pytest.raises(ValueError, match=r"word|exponent|bucket"):
            kind(words, *bad, 0, 9)
    for awake in (-1, 10):
        with pytest.raises(ValueError, match="word"):
            kind(words, at, statuses, (0,), 0, awake)
